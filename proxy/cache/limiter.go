package cache

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"walcache/proxy/origin"
)

// limiter bounds how many requests are at the upstream at a time. Others wait
// in line, first come, first served.
type limiter struct {
	slots   *semaphore.Weighted
	timeout time.Duration
	gauge   gauge
}

var errQueue = errors.New("waited too long for other requests to the upstream")

func newLimiter(slots int, timeout time.Duration) *limiter {
	return &limiter{slots: semaphore.NewWeighted(int64(slots)), timeout: timeout}
}

// acquire waits for a slot, and returns how to give it back; calling that again
// does nothing.
//
// A slot is held as long as the upstream is at work for it: until its response
// header, or until its body has been copied. A body that is read at the pace of
// a client holds none, or a few slow clients could shut out all others.
func (l *limiter) acquire(ctx context.Context) (release func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	if err := l.slots.Acquire(ctx, 1); err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			l.gauge.refused.Add(1)
		}
		return nil, &origin.Failure{Status: http.StatusServiceUnavailable, Err: errQueue}
	}
	l.gauge.enter()
	return sync.OnceFunc(func() {
		l.gauge.leave()
		l.slots.Release(1)
	}), nil
}
