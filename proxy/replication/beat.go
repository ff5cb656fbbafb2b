package replication

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// beatEvery is how often freshness is measured while nobody asks for it.
const beatEvery = 200 * time.Millisecond

// nudgeAfter is how long a beat waits before it writes to the WAL itself. An
// idle server never sends a position at a page boundary, where the insert
// position already counts the header of a page that nobody has begun; and a
// commit with synchronous_commit = off is sent only when something flushes it.
const nudgeAfter = 20 * time.Millisecond

// beats lets callers wait for a beat that begins after they ask.
type beats struct {
	wake    chan struct{}
	mu      sync.Mutex // guards the following
	waiting []*nextBeat
}

func newBeats() *beats { return &beats{wake: make(chan struct{}, 1)} }

// nextBeat is one that has not begun yet.
type nextBeat struct {
	ended  chan struct{}
	proven bool // it ended well; false where nobody beats any more. Written before ended is closed.
}

// next is a beat that begins after the call.
func (b *beats) next() *nextBeat {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.waiting) == 0 {
		b.waiting = append(b.waiting, &nextBeat{ended: make(chan struct{})})
	}
	put(b.wake)
	return b.waiting[0] // shared, so that who gives up leaves nothing behind
}

func (n *nextBeat) wait(ctx context.Context) (proven bool, err error) {
	select {
	case <-n.ended:
		return n.proven, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

func (b *beats) take() []*nextBeat {
	b.mu.Lock()
	defer b.mu.Unlock()
	taken := b.waiting
	b.waiting = nil
	return taken
}

func (b *beats) giveBack(taken []*nextBeat) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiting = append(taken, b.waiting...)
}

func tell(all []*nextBeat, proven bool) {
	for _, n := range all {
		n.proven = proven
		close(n.ended)
	}
}

// beat measures freshness again and again. One beat: 1. It notes the time, m.
// 2. It samples the server's insert position: whatever was committed and
// acknowledged before m lies before that. 3. It waits until the stream has come
// past it. So everything committed before m has been applied, and no clock was
// compared with another.
func (s *session) beat(ctx context.Context) error {
	every := time.NewTicker(beatEvery)
	defer every.Stop()
	for {
		waiting := s.beats.take()
		m := time.Now()
		published, err := s.catchUp(ctx)
		if err != nil || !published {
			s.beats.giveBack(waiting)
		}
		if err != nil {
			return err
		}
		if !published { // watch finds out what has changed, or ends the session
			put(s.doubt)
			time.Sleep(5 * time.Millisecond)
			continue
		}
		if err := s.sink.Beat(s.epoch, m); err != nil {
			s.beats.giveBack(waiting)
			return fmt.Errorf("a beat was not taken: %w", err)
		}
		s.streaming()
		tell(waiting, true)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-every.C:
		case <-s.beats.wake:
		}
	}
}

// catchUp returns once everything committed before the call has been applied, or
// at once where that cannot be known, because not all of it is published. It asks
// the server how far it has sent, more and more rarely: while a large transaction
// is being decoded there is nothing to do but wait.
func (s *session) catchUp(ctx context.Context) (published bool, err error) {
	now, err := s.observer.sample(ctx)
	if err != nil || !now.published {
		return false, err
	}
	target := now.insert
	s.target.Store(uint64(target))
	pause, nudge := time.Millisecond, time.Now().Add(nudgeAfter)
	for s.received.Load() < uint64(target) {
		s.stream.report()
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-s.arrived:
			continue
		case <-time.After(pause):
			pause = min(2*pause, 50*time.Millisecond)
		}
		if time.Now().After(nudge) {
			if err := s.announce(ctx); err != nil {
				return false, err
			}
			nudge = time.Now().Add(beatEvery)
		}
	}
	return true, nil
}
