package cache_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"walcache/proxy/cache"
	"walcache/proxy/origin"
)

// cutOff is the way of one process to a shelf, which can be cut.
type cutOff struct {
	*shelf
	cut  atomic.Bool
	late func() // what happens while the first Get is under way, which does not find it
}

func (s *cutOff) Get(ctx context.Context, key cache.Key) *cache.Page {
	if late := s.late; late != nil {
		s.late = nil
		late()
		return nil
	}
	if s.cut.Load() {
		return nil
	}
	return s.shelf.Get(ctx, key)
}

func (s *cutOff) Lease(name, from, to string, d time.Duration) (string, bool) {
	if s.cut.Load() {
		return "", false
	}
	return s.shelf.Lease(name, from, to, d)
}

// inLeaseBubbles runs two processes with ways of their own to one shelf, and an
// upstream that does not answer the first request until it is told to.
func inLeaseBubbles(t *testing.T, answer http.HandlerFunc, test func(l *leaseBubbles)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := &leaseBubbles{s: newShelf(), open: make(chan struct{})}
		l.toA, l.toB = &cutOff{shelf: l.s}, &cutOff{shelf: l.s}
		upstream := func(w http.ResponseWriter, r *http.Request) {
			if l.fetches.Add(1) == 1 {
				<-l.open
			}
			answer(w, r)
		}
		serve(t, upstream, func(o *origin.Origin) {
			newBubble(t, o, []change{func(c *cache.Config) { c.Below = l.toA }}, func(a *bubble) {
				newBubble(t, o, []change{func(c *cache.Config) { c.Below = l.toB }}, func(b *bubble) {
					l.a, l.b = a, b
					test(l)
					l.asking.Wait()
					time.Sleep(time.Minute) // nothing is renewed for ever
				})
			})
		})
	})
}

type leaseBubbles struct {
	s        *shelf
	toA, toB *cutOff
	a, b     *bubble
	open     chan struct{} // lets the first request be answered
	fetches  atomic.Int64
	asking   sync.WaitGroup
}

// first has a ask, and returns when it is at the upstream.
func (l *leaseBubbles) first() {
	l.asking.Go(func() { l.a.get(context.Background(), "/a") })
	synctest.Wait()
}

// second has b ask, and returns what it got after how long.
func (l *leaseBubbles) second() (r reply, took time.Duration) {
	began := time.Now()
	r = l.b.get(context.Background(), "/a")
	return r, time.Since(began)
}

func (l *leaseBubbles) want(what string, fetches int64, least, most time.Duration, says string) {
	l.a.t.Helper()
	r, took := l.second()
	if took < least || took > most || l.fetches.Load() != fetches || !strings.Contains(r.says(), says) {
		l.a.t.Errorf("%s: %q (%s) after %v and %d fetches", what, r.body, r.says(), took, l.fetches.Load())
	}
}

func TestLease_WhoWaitsHasTheAnswerSoonAfterItIsThere(t *testing.T) {
	inLeaseBubbles(t, counted(), func(l *leaseBubbles) {
		l.first()
		time.AfterFunc(3*time.Second, func() { close(l.open) })
		l.want("a slow answer", 1, 3*time.Second, 3020*time.Millisecond, "hit; ttl=896; detail=redis")
		if n := l.b.cache.Stats().Leases["answered"]; n != 1 {
			t.Errorf("%v", l.b.cache.Stats().Leases)
		}
	})
}

// Nothing that a holder does, or does not, keeps others longer than this.
func TestLease_BoundsTheWait(t *testing.T) {
	const ask = 20 * time.Millisecond
	for name, c := range map[string]struct {
		then        func(l *leaseBubbles)
		least, most time.Duration
	}{
		"a holder that fetches for ever": {
			then: func(*leaseBubbles) {}, least: 5 * time.Second, most: 5*time.Second + ask,
		},
		"a holder that is heard of no more": {
			then: func(l *leaseBubbles) { l.toA.cut.Store(true) }, most: 200*time.Millisecond + ask,
		},
		"somebody else's, for ever": {
			then: func(l *leaseBubbles) { l.s.spoil("somebody", 1000*time.Hour) }, most: 200*time.Millisecond + 2*ask,
		},
		"the layer below is away": {
			then: func(l *leaseBubbles) { l.toB.cut.Store(true) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			inLeaseBubbles(t, counted(), func(l *leaseBubbles) {
				l.first()
				c.then(l)
				l.want(name, 2, c.least, c.most, "fwd=uri-miss; fwd-status=200; stored")
				close(l.open)
			})
		})
	}
}

// spoil has all leases say something.
func (s *shelf) spoil(says string, d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range s.leases {
		s.leases[name] = shelved{[]byte(says), time.Now().Add(d)}
	}
}

// A change comes to be known while the fetch runs: what was read before it is
// stored, and of no use to those who know of the change.
func TestLease_WhatIsStaleHereIsFetchedHere(t *testing.T) {
	inLeaseBubbles(t, counted(), func(l *leaseBubbles) {
		l.first()
		l.b.db.commit("users")
		time.AfterFunc(time.Second, func() { close(l.open) })
		l.want("stale", 2, time.Second, 1020*time.Millisecond, "stored")
		if l.b.want("2", "detail=memory"); l.b.cache.Stats().Leases["in-vain"] != 1 {
			t.Errorf("%v", l.b.cache.Stats().Leases)
		}
	})
}

// 1. A process looks below and finds nothing. 2. Another one stores what it
// needs. 3. The first one takes the lease.
func TestLease_WhatWasStoredSinceIsFound(t *testing.T) {
	inLeaseBubbles(t, counted(), func(l *leaseBubbles) {
		close(l.open)
		l.toB.late = func() { l.a.want("1", "stored"); synctest.Wait() }
		l.want("what was stored since", 1, 0, 0, "detail=redis")
		if n := l.b.cache.Stats().Leases["answered"]; n != 1 {
			t.Errorf("%v", l.b.cache.Stats().Leases)
		}
	})
}

func TestLease_WhatIsNotStoredHoldsNobodyUp(t *testing.T) {
	inLeaseBubbles(t, text("mine", "Cache-Control: private"), func(l *leaseBubbles) {
		l.first()
		time.AfterFunc(time.Second, func() { close(l.open) })
		l.want("private", 2, time.Second, 1020*time.Millisecond, "detail=private")
		before := fmt.Sprint(l.a.cache.Stats().Leases, l.b.cache.Stats().Leases)
		l.a.get(context.Background(), "/a")
		l.want("marked", 4, 0, 0, "detail=private")
		if after := fmt.Sprint(l.a.cache.Stats().Leases, l.b.cache.Stats().Leases); after != before {
			t.Errorf("before %s, after %s", before, after)
		}
	})
}

// A process is never in its own way, however often a page changes.
func TestLease_NobodyWaitsForOneself(t *testing.T) {
	inLeaseBubbles(t, counted(), func(l *leaseBubbles) {
		close(l.open)
		for n := range 10 {
			began := time.Now()
			l.a.want(fmt.Sprint(n+1), "stored")
			l.a.db.commit("users")
			if took := time.Since(began); took != 0 {
				t.Errorf("%d took %v", n, took)
			}
		}
	})
}

// Where an answer is served stale while it is refreshed, the others take what
// one has refreshed.
func TestLease_IsHadByWhoRefreshes(t *testing.T) {
	var n atomic.Int64
	upstream := func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1) > 1 {
			time.Sleep(time.Second)
			text("new", "Cache-Control: max-age=60")(w, r)
			return
		}
		text("old", "Cache-Control: max-age=60, stale-while-revalidate=600", expired)(w, r)
	}
	inTwoBubbles(t, upstream, nil, func(_ *shelf, a, b *bubble) {
		a.want("old", "stored")
		for _, p := range []*bubble{a, b, a, b} {
			p.want("old", "fwd=stale; detail=expired")
		}
		time.Sleep(1020 * time.Millisecond)
		synctest.Wait()
		a.want("new", "detail=memory")
		b.want("new", "detail=memory")
		if n.Load() != 2 {
			t.Errorf("%d fetches", n.Load())
		}
	})
}
