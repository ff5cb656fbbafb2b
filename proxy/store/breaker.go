package store

import (
	"context"
	"sync/atomic"
	"time"
)

// breaker keeps requests away from a Redis that does not answer.
//
//	closed ──5 failures in a row──► open ──a probe is answered──► closed
//
// While it is open one probe at a time is on its way, and no request.
type breaker struct {
	failures atomic.Int32 // in a row
	open     atomic.Bool
	opened   atomic.Uint64
	last     atomic.Pointer[failure]
	tripped  chan struct{} // holds a value when it has opened
}

// failure is what went wrong, with which key: in a cluster the key tells which
// server to probe.
type failure struct {
	key string
	err error
}

const (
	breakAfter = 5 // failures

	probeTime    = 250 * time.Millisecond
	firstPause   = 250 * time.Millisecond // between probes; it grows by half
	longestPause = 2 * time.Second
)

func (b *breaker) isOpen() bool { return b.open.Load() }

func (b *breaker) succeeded() {
	if b.failures.Load() != 0 {
		b.failures.Store(0)
	}
}

func (b *breaker) failed(key string, err error) {
	b.last.Store(&failure{key, err})
	if b.failures.Add(1) >= breakAfter && b.open.CompareAndSwap(false, true) {
		b.opened.Add(1)
		b.tripped <- struct{}{} // keepBreaker took the one before when it closed
	}
}

func (b *breaker) close() {
	b.failures.Store(0)
	b.open.Store(false)
}

// keepBreaker probes while the breaker is open.
func (r *Redis) keepBreaker(ctx context.Context) {
	for {
		select {
		case <-r.breaker.tripped:
		case <-ctx.Done():
			return
		}
		began := time.Now()
		r.log.Warn("Redis does not answer; pages are neither read nor written there", "error", r.breaker.last.Load().err)
		for pause := firstPause; ; pause = min(pause*3/2, longestPause) {
			if !sleep(ctx, pause) {
				return
			}
			if r.probe(ctx) == nil {
				break
			}
		}
		r.breaker.close()
		r.log.Info("Redis answers again", "after", time.Since(began).Round(time.Millisecond))
	}
}

// probe asks the server that did not answer for what costs it nothing. The
// connection that this may make serves the first request after it.
func (r *Redis) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	return r.client.PTTL(ctx, r.breaker.last.Load().key).Err()
}

// sleep reports whether it was not cut short.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
