package cache_test

import (
	"context"
	"fmt"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"walcache/proxy/cache"
	"walcache/proxy/coherence"
	"walcache/proxy/origin"
)

// shelf is a layer below that keeps pages as they are encoded, and lets them
// expire, as Redis does. Package store has the tests with Redis itself.
type shelf struct {
	asked atomic.Int64
	gate  func() // called by each Get before it looks

	mu    sync.Mutex // guards the following
	pages map[cache.Key]shelved
	// leases are what processes say of what they fetch, by name.
	leases map[string]shelved
}

type shelved struct {
	data    []byte
	expires time.Time
}

func newShelf() *shelf {
	return &shelf{pages: map[cache.Key]shelved{}, leases: map[string]shelved{}, gate: func() {}}
}

func (s *shelf) below(c *cache.Config) { c.Below = s }

func (s *shelf) Get(_ context.Context, key cache.Key) *cache.Page {
	s.asked.Add(1)
	s.gate()
	s.mu.Lock()
	defer s.mu.Unlock()
	p, now := s.pages[key], time.Now()
	page, err := cache.DecodePage(p.data, key, p.expires.Sub(now), now)
	if err != nil {
		return nil
	}
	return page
}

func (s *shelf) Set(key cache.Key, page *cache.Page, then func(bool)) {
	now := time.Now()
	data, ttl := page.Encode(key, now, math.MaxInt)
	if data != nil {
		s.mu.Lock()
		s.pages[key] = shelved{data, now.Add(ttl)}
		s.mu.Unlock()
	}
	if then != nil {
		then(data != nil)
	}
}

func (s *shelf) Delete(key cache.Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.pages, key)
}

func (s *shelf) Lease(name, from, to string, d time.Duration) (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if l, ok := s.leases[name]; ok && now.Before(l.expires) && string(l.data) != from {
		return string(l.data), true
	}
	s.leases[name] = shelved{[]byte(to), now.Add(d)}
	return to, true
}

// snapshot is what is there, to be put back later.
func (s *shelf) snapshot() map[cache.Key]shelved {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.pages)
}

func (s *shelf) restore(pages map[cache.Key]shelved) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pages = pages
}

// inTwoBubbles runs two processes that share a shelf.
func inTwoBubbles(t *testing.T, upstream http.HandlerFunc, changes []change, test func(s *shelf, a, b *bubble)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := newShelf()
		changes = append(slices.Clone(changes), s.below)
		serve(t, upstream, func(o *origin.Origin) {
			newBubble(t, o, changes, func(a *bubble) {
				newBubble(t, o, changes, func(b *bubble) { test(s, a, b) })
			})
		})
	})
}

func TestBelow_WhatOneProcessStoredTheOtherServes(t *testing.T) {
	inTwoBubbles(t, counted(), nil, func(s *shelf, a, b *bubble) {
		a.want("1", "fwd=uri-miss")
		time.Sleep(100500 * time.Millisecond)
		b.want("1", "hit; ttl=799; detail=redis")
		b.want("1", "hit; ttl=799; detail=memory")
		a.want("1", "hit; ttl=799; detail=memory")
		if n := s.asked.Load(); n != 2 { // by each, for its first miss
			t.Errorf("asked %d times", n)
		}
		stats := b.cache.Stats()
		if stats.Hits["redis"] != 1 || stats.Hits["memory"] != 1 || stats.HitBytes != 2 || len(stats.Misses) != 0 {
			t.Errorf("%+v", stats)
		}
	})
}

// An answer that took the way through Redis is the one that memory would have
// given.
func TestBelow_AnswersAreTheSameByteForByte(t *testing.T) {
	answers := map[string]http.HandlerFunc{
		"/plain":  text("plain"),
		"/empty":  text(""),
		"/binary": text("\x00\xff\r\n\r\n"),
		"/etag":   text("tagged", `ETag: W/"é"`, "Last-Modified: Tue, 01 Jan 2002 00:00:00 GMT", "Content-Location: /x", "Expires: 0"),
		"/old":    text("old", "Last-Modified: Sun, 01 Jan 1950 00:00:00 GMT"),
		"/many":   text("many", "Link: <a>", "Link: <b>", "X-Empty: ", "Cache-Status: inner; hit", "Cache-Status: outer; fwd=miss", "Age: 7", "Via: 1.1 x"),
		"/vary": func(w http.ResponseWriter, r *http.Request) {
			text(r.Header.Get("Accept-Encoding"), "Vary: Accept-Encoding")(w, r)
		},
		"/explicit": text("explicit", "Cache-Control: public, s-maxage=60, stale-while-revalidate=30, stale-if-error=90", "Set-Cookie: a=b"),
		"/tags":     text("tags", `Cache-Groups: "users", "properties/id=1"`, "As-Of-LSN: "+coherence.Position{Epoch: epoch, LSN: 100}.String()),
		"/gone":     func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "gone", http.StatusGone) },
		"/moved":    func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/x", http.StatusMovedPermanently) },
		"/nothing": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Cache-Control", "max-age=60")
			w.WriteHeader(http.StatusNoContent)
		},
	}
	asking := [][]string{nil, {"Accept-Encoding: br"}, {`If-None-Match: "é"`}, {"If-None-Match: *"}, {"If-Modified-Since: Tue, 01 Jan 2002 00:00:00 GMT"},
		{"If-Modified-Since: Sun, 01 Jan 1950 00:00:00 GMT"}, {"Range: bytes=0-1"}, {"Cache-Control: no-cache"}, {"Authorization: x"}, {"Cookie: a=b"}}
	upstream := func(w http.ResponseWriter, r *http.Request) { answers[r.URL.Path](w, r) }
	for target := range answers {
		for _, lines := range asking {
			inTwoBubbles(t, upstream, nil, func(_ *shelf, a, b *bubble) {
				for _, coding := range []string{"gzip", "br", "identity"} {
					a.get(a.t.Context(), target, "Accept-Encoding: "+coding)
				}
				time.Sleep(10500 * time.Millisecond)
				fromMemory, fromBelow := a.get(a.t.Context(), target, lines...), b.get(a.t.Context(), target, lines...)
				want := strings.ReplaceAll(fmt.Sprint(fromMemory), "detail=memory", "detail=redis")
				if got := fmt.Sprint(fromBelow); fromMemory.isHit() && got != want {
					t.Errorf("%s %q:\ngot  %s\nwant %s", target, lines, got, want)
				}
				if fromMemory.isHit() != fromBelow.isHit() {
					t.Errorf("%s %q: %s, and from below %s", target, lines, fromMemory.says(), fromBelow.says())
				}
			})
		}
	}
}

func TestBelow_AgeGoesOnWhileNobodyHasIt(t *testing.T) {
	inTwoBubbles(t, counted("Cache-Control: max-age=60", "Age: 10"), nil, func(_ *shelf, a, b *bubble) {
		a.want("1", "fwd=uri-miss")
		time.Sleep(49500 * time.Millisecond)
		r := b.get(a.t.Context(), "/a")
		if r.header.Get("Age") != "59" || !strings.Contains(r.says(), "hit; ttl=0; detail=redis") {
			t.Errorf("Age %s, %s", r.header.Get("Age"), r.says())
		}
		time.Sleep(500 * time.Millisecond)
		b.want("2", "stored")
	})
}

func TestBelow_IsJudgedByWhatThisProcessKnows(t *testing.T) {
	for name, c := range map[string]struct {
		before, between func(a, b *bubble) // before a stores, and before b asks
		hit             bool
	}{
		"nothing changed":            {hit: true},
		"a change that both know":    {between: func(a, b *bubble) { a.db.commit("users"); b.db.commit("users") }},
		"a change that one knows":    {between: func(_, b *bubble) { b.db.commit("users") }},
		"a change not yet known":     {before: func(a, _ *bubble) { a.db.commit("users") }, hit: true},
		"an older epoch":             {between: func(_, b *bubble) { b.db.Begin("e2", 100); b.db.Beat("e2", time.Now()) }},
		"a newer epoch":              {before: func(a, _ *bubble) { begin(a.db, "e2") }},
		"another run of a newer one": {before: func(a, _ *bubble) { begin(a.db, "e2") }, between: func(_, b *bubble) { begin(b.db, "e2") }, hit: true},
		"no evidence here":           {between: func(_, b *bubble) { b.db.doubt() }},
	} {
		t.Run(name, func(t *testing.T) {
			inTwoBubbles(t, counted(), nil, func(_ *shelf, a, b *bubble) {
				if c.before != nil {
					c.before(a, b)
				}
				a.want("1", "stored")
				if c.between != nil {
					c.between(a, b)
				}
				if c.hit {
					b.want("1", "detail=redis")
				} else {
					b.want("2", "fwd=stale")
				}
			})
		})
	}
}

func begin(db *database, name string) {
	db.Begin(name, 100)
	if err := db.Apply(coherence.Record{Epoch: name, To: 100, Visible: 100}); err != nil {
		panic(err)
	}
	db.Beat(name, time.Now())
}

// What is as of later than this process knows is fresh until something after
// that changes.
func TestBelow_AsOfLaterThanKnownIsStaleByWhatComesAfterIt(t *testing.T) {
	inTwoBubbles(t, counted(), nil, func(_ *shelf, a, b *bubble) {
		a.db.commit("users") // at 110
		a.want("1", "stored")
		b.want("1", "detail=redis")
		b.db.commit("users") // at 110, which is in the answer
		b.want("1", "detail=memory")
		b.db.commit("users") // at 120
		b.want("2", "detail=changed")
	})
}

func TestBelow_IsNotAskedWhereItCouldNotHelp(t *testing.T) {
	upstream := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/private" {
			w.Header().Set("Cache-Control", "private")
		}
		fmt.Fprint(w, "x")
	}
	inTwoBubbles(t, upstream, nil, func(s *shelf, a, _ *bubble) {
		ask := func(want int64, target string, lines ...string) {
			t.Helper()
			before := s.asked.Load()
			a.get(a.t.Context(), target, lines...)
			if n := s.asked.Load() - before; n != want {
				t.Errorf("%s %q: asked %d times", target, lines, n)
			}
		}
		ask(1, "/a")
		ask(0, "/a")
		ask(0, "/b", "Cache-Control: no-store")
		ask(1, "/private")
		ask(0, "/private") // the key is marked
		ask(0, "/a", "Cookie: a=b")
		a.db.commit("users")
		ask(1, "/a") // it may have been stored again elsewhere
		a.db.doubt()
		ask(0, "/a")
	})
}

// One asks for all who wait, and none of them has to stay for the others.
func TestBelow_IsAskedOnceForAllWhoWait(t *testing.T) {
	inTwoBubbles(t, counted(), nil, func(s *shelf, a, b *bubble) {
		a.want("1", "stored")
		asked := s.asked.Load()
		s.gate = func() { time.Sleep(10 * time.Millisecond) }
		leaver, leave := context.WithCancel(a.t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { b.get(leaver, "/a") })
		synctest.Wait() // it asks
		for range 20 {
			wg.Go(func() {
				if r := b.get(a.t.Context(), "/a"); !strings.Contains(r.says(), "detail=redis") || r.body != "1" {
					t.Errorf("got %q (%s)", r.body, r.says())
				}
			})
		}
		synctest.Wait()
		leave()
		wg.Wait()
		if n := s.asked.Load() - asked; n != 1 {
			t.Errorf("asked %d times", n)
		}
	})
}

func TestBelow_VariantsOfBothAreMerged(t *testing.T) {
	upstream := func(w http.ResponseWriter, r *http.Request) {
		text(r.Header.Get("Accept-Encoding"), "Vary: Accept-Encoding")(w, r)
	}
	inTwoBubbles(t, upstream, nil, func(s *shelf, a, b *bubble) {
		want := func(p *bubble, coding, says string) {
			t.Helper()
			if r := p.get(a.t.Context(), "/a", "Accept-Encoding: "+coding); r.body != coding || !strings.Contains(r.says(), says) {
				t.Errorf("%s: got %q (%s), want %s", coding, r.body, r.says(), says)
			}
		}
		want(b, "br", "fwd=uri-miss")
		s.restore(map[cache.Key]shelved{}) // as if both had stored at the same time, and a last
		want(a, "gzip", "fwd=uri-miss")
		want(b, "gzip", "detail=redis")
		want(b, "br", "detail=memory")
		want(b, "zstd", "fwd=vary-miss")
		want(a, "br", "detail=redis") // with zstd b wrote all that it had
		want(a, "zstd", "detail=memory")
		want(a, "gzip", "detail=memory")
	})
}

// Pages are written to Redis in any order.
func TestBelow_TheLaterDataOfAVariantCounts(t *testing.T) {
	var n atomic.Int64
	upstream := func(w http.ResponseWriter, r *http.Request) {
		text(fmt.Sprint(r.Header.Get("Accept-Encoding"), n.Add(1)), "Vary: Accept-Encoding")(w, r)
	}
	inTwoBubbles(t, upstream, nil, func(s *shelf, a, b *bubble) {
		want := func(p *bubble, coding, body, says string) {
			t.Helper()
			if r := p.get(a.t.Context(), "/a", "Accept-Encoding: "+coding); r.body != body || !strings.Contains(r.says(), says) {
				t.Errorf("%s: got %q (%s), want %q %s", coding, r.body, r.says(), body, says)
			}
		}
		want(a, "br", "br1", "uri-miss")
		want(b, "br", "br1", "detail=redis")
		early := s.snapshot()
		a.db.commit("users")
		b.db.commit("users")
		time.Sleep(time.Second)
		want(a, "br", "br2", "detail=changed")
		want(b, "br", "br2", "detail=redis") // in the place of what b had
		s.restore(early)
		want(b, "gzip", "gzip3", "vary-miss") // loads what is old
		want(b, "br", "br2", "detail=memory")
	})
}

// An answer that nobody has asked for since a restart may still be served while
// the upstream fails.
func TestBelow_ServesWhatIsStaleWhileTheUpstreamFails(t *testing.T) {
	upstream := once(text("1", "Cache-Control: max-age=10, stale-if-error=100"), breakOff)
	inTwoBubbles(t, upstream, nil, func(_ *shelf, a, b *bubble) {
		a.want("1", "stored")
		time.Sleep(20 * time.Second)
		b.want("1", "fwd=stale; detail=expired")
		time.Sleep(90 * time.Second)
		if r := b.get(a.t.Context(), "/a"); r.status != http.StatusBadGateway {
			t.Errorf("%d %s", r.status, r.says())
		}
	})
}

// Grace is counted from when data was read, wherever it was read.
func TestBelow_GraceCountsFromWhenTheDataWasRead(t *testing.T) {
	for wait, says := range map[time.Duration]string{time.Second: "fwd=stale; detail=changed", 3 * time.Second: "stored"} {
		inTwoBubbles(t, counted(), []change{func(c *cache.Config) { c.Grace = 2 * time.Second }}, func(_ *shelf, a, b *bubble) {
			a.want("1", "stored")
			time.Sleep(wait)
			b.db.commit("users")
			if r := b.get(a.t.Context(), "/a"); !strings.Contains(r.says(), says) {
				t.Errorf("after %v: %q (%s)", wait, r.body, r.says())
			}
			synctest.Wait()
		})
	}
}

func TestBelow_HeadAndOnlyIfCachedAreAnsweredToo(t *testing.T) {
	s := newShelf()
	upstream := httptest.NewServer(counted())
	defer upstream.Close()
	newCache(t, upstream.URL, newDatabase(), s.below).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/a", nil))
	for method, lines := range map[string][]string{http.MethodHead: nil, http.MethodGet: {"only-if-cached"}} {
		r := httptest.NewRequest(method, "/a", nil)
		r.Header["Cache-Control"] = lines
		w := httptest.NewRecorder()
		newCache(t, upstream.URL, newDatabase(), s.below).ServeHTTP(w, r)
		if got := w.Header().Get("Cache-Status"); w.Code != http.StatusOK || !strings.Contains(got, "detail=redis") || w.Header().Get("Content-Length") != "1" {
			t.Errorf("%s: %d %s", method, w.Code, got)
		}
	}
}

// What only some users may see is in Redis as it is in memory.
func TestBelow_AnswersForNobodyElse(t *testing.T) {
	inTwoBubbles(t, counted(), nil, func(_ *shelf, a, b *bubble) {
		a.want("1", "stored")
		for _, line := range []string{"Cookie: a=b", "Authorization: Bearer x", "X-Api-Key: x"} {
			if r := b.get(a.t.Context(), "/a", line); r.isHit() || r.body == "1" {
				t.Errorf("%s: got %q (%s)", line, r.body, r.says())
			}
		}
		b.want("1", "hit")
	})
}
