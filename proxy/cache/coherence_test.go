package cache_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
	"walcache/proxy/cache"

	"walcache/proxy/coherence"
)

func TestHit_IsAnsweredFromMemory(t *testing.T) {
	w := newWorld(t, text("hello"))
	first := w.get("/a")
	w.wantSays(first, "fwd=uri-miss", "fwd-status=200", "stored")
	w.wantHit(w.get("/a"), "hello")
	w.wantSays(w.get("/a"), "hit", "detail=memory")
	w.wantFetches(1)
}

func TestChange_MakesAnAnswerWithoutTagsStale(t *testing.T) {
	n := 0
	w := newWorld(t, func(rw http.ResponseWriter, _ *http.Request) { n++; fmt.Fprint(rw, n) })
	w.get("/a")
	w.wantHit(w.get("/a"), "1")
	w.db.commit("users")
	fresh := w.get("/a")
	w.wantSays(fresh, "fwd=stale", "detail=changed", "stored")
	if fresh.body != "2" {
		t.Errorf("got %q after a change", fresh.body)
	}
	w.wantHit(w.get("/a"), "2")
	if got := w.cache.Stats().Turned; got["users"] != 1 {
		t.Errorf("turned into misses: %v, want users 1", got)
	}
}

// The row changes after the upstream read it and before its answer is stored.
func TestFill_RacingWithAChangeIsBornStale(t *testing.T) {
	var w *world
	row := "old"
	w = newWorld(t, func(rw http.ResponseWriter, _ *http.Request) {
		body := row
		if row == "old" {
			row = "new"
			w.db.commit("properties")
		}
		fmt.Fprint(rw, body)
	})
	if first := w.get("/a"); first.body != "old" {
		t.Fatalf("got %q", first.body)
	}
	second := w.get("/a")
	w.wantSays(second, "fwd=stale", "detail=changed")
	if second.body != "new" {
		t.Errorf("an answer that raced with a change was served after it: %q", second.body)
	}
	w.wantHit(w.get("/a"), "new")
}

func TestTags_NarrowOnlyBesideAPosition(t *testing.T) {
	position := coherence.Position{Epoch: epoch, LSN: 100}.String()
	for _, test := range []struct {
		name   string
		lines  []string
		change coherence.Tag
		hit    bool
	}{
		{"another row", []string{`Cache-Groups: "properties/id=1"`, "As-Of-LSN: " + position}, "properties/id=2", true},
		{"the row", []string{`Cache-Groups: "properties/id=1"`, "As-Of-LSN: " + position}, "properties/id=1", false},
		{"another table", []string{`Cache-Groups: "properties"`, "As-Of-LSN: " + position}, "users", true},
		{"read for this request", []string{`Cache-Groups: "properties/id=1"`, "As-Of-LSN: request"}, "properties/id=2", true},
		{"read for this request, and the row", []string{`Cache-Groups: "properties/id=1"`, "As-Of-LSN: request"}, "properties/id=1", false},
		{"no position", []string{`Cache-Groups: "properties/id=1"`}, "properties/id=2", false},
		{"a position of another epoch", []string{`Cache-Groups: "properties/id=1"`, "As-Of-LSN: 0/64;epoch=e0"}, "properties/id=2", false},
		{"two positions", []string{`Cache-Groups: "properties/id=1"`, "As-Of-LSN: " + position, "As-Of-LSN: " + position}, "properties/id=2", false},
		{"tags that do not parse", []string{`Cache-Groups: properties/id=1`, "As-Of-LSN: " + position}, "properties/id=2", false},
		{"a table that is not published", []string{`Cache-Groups: "properties/id=1", "ghosts"`, "As-Of-LSN: " + position}, "users", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, text("x", test.lines...))
			first := w.get("/a")
			for _, name := range []string{"Cache-Groups", "As-Of-LSN"} {
				if first.header.Get(name) != "" {
					t.Errorf("%s went on to the client", name)
				}
			}
			w.db.commit(test.change)
			if got := w.get("/a").isHit(); got != test.hit {
				t.Errorf("hit after a change of %s: %v, want %v", test.change, got, test.hit)
			}
		})
	}
}

// A source that states a position later than anything known here could make its
// answer look fresh when it is not.
func TestAsOf_IsNeverBeyondWhatIsKnown(t *testing.T) {
	w := newWorld(t, text("x", `Cache-Groups: "users"`, "As-Of-LSN: FFFFFFFF/0;epoch="+epoch))
	w.get("/a")
	w.db.commit("properties")
	w.wantHit(w.get("/a"), "x")
	w.db.commit("users")
	w.wantSays(w.get("/a"), "fwd=stale", "detail=changed")
}

// What was read for the request is as of the fetch's own stamp, and no later.
func TestAsOf_TheRequestIsAsOfItsStamp(t *testing.T) {
	var w *world
	w = newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		w.db.commit("users") // perhaps after the service has read
		text("x", `Cache-Groups: "users"`, "As-Of-LSN: request")(rw, r)
	})
	w.get("/a")
	w.wantSays(w.get("/a"), "fwd=stale", "detail=changed")
}

// A source may have read earlier than its answer was asked for.
func TestAsOf_EarlierThanTheFetchIsBelieved(t *testing.T) {
	w := newWorld(t, text("x", `Cache-Groups: "users"`, "As-Of-LSN: "+coherence.Position{Epoch: epoch, LSN: 100}.String()))
	w.db.commit("users")
	w.get("/a")
	w.wantSays(w.get("/a"), "fwd=stale", "detail=changed")
}

// A source that is still in the epoch before a gap answers from data that
// nobody can place.
func TestAsOf_OfAnotherEpochIsNotStored(t *testing.T) {
	for _, stated := range []string{"0/64;epoch=e0", "what?"} {
		w := newWorld(t, text("x", `Cache-Groups: "users"`, "As-Of-LSN: "+stated))
		w.wantSays(w.get("/a"), "detail=unproven")
		w.wantSays(w.get("/a"), "fwd=uri-miss")
	}
}

func TestEpoch_ANewOneMakesEverythingStale(t *testing.T) {
	w := newWorld(t, counted())
	w.get("/a")
	w.wantHit(w.get("/a"), "1")
	w.db.Begin("e2", 100)
	w.wantSays(w.get("/a"), "fwd=stale", "detail=epoch")
}

func TestUnproven_GoesToTheOriginAndIsFreshAgainAfterABeat(t *testing.T) {
	w := newWorld(t, counted())
	w.get("/a")
	w.db.doubt()
	for want := range 3 {
		r := w.get("/a")
		w.wantSays(r, "fwd=stale", "detail=unproven", "stored")
		if r.body != fmt.Sprint(want+2) {
			t.Errorf("got %q from before", r.body)
		}
	}
	w.db.Beat(epoch, time.Now())
	w.wantHit(w.get("/a"), "4")
}

// Before anything is known of the database nothing can be stored, and still
// identical requests are one fetch.
func TestUnproven_WithoutAStampNothingIsStoredAndRequestsAreCoalesced(t *testing.T) {
	g := newGate()
	upstream := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { g.pass(r); fmt.Fprint(rw, "x") }))
	defer upstream.Close()
	w := newWorld(t, nil)
	w.cache = newCache(t, upstream.URL, coherence.NewTracker(1<<10, time.Second))
	w.proxy = httptest.NewServer(w.cache)
	defer w.proxy.Close()
	go func() {
		eventually(t, "19 wait", func() bool { return w.cache.Stats().Waiting == 19 })
		close(g.open)
	}()
	for _, r := range w.together(20, "/a", nil) {
		w.wantSays(r, "fwd=uri-miss", "detail=unproven")
	}
	s := w.cache.Stats()
	if s.Stored != 0 || s.Fetches.Total > 2 {
		t.Errorf("stored %d, %d fetches", s.Stored, s.Fetches.Total)
	}
}

func TestBlind_WhatMayDependOnAnUnseenTableIsNotStored(t *testing.T) {
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/tagged" {
			text("x", `Cache-Groups: "users"`, "As-Of-LSN: "+coherence.Position{Epoch: epoch, LSN: 100}.String())(rw, r)
		}
	})
	blind := *w.db.Catalog()
	blind.Blind = []string{"keyless"}
	w.db.SetCatalog(&blind)
	for range 2 {
		w.wantSays(w.get("/a"), "fwd=uri-miss", "detail=blind")
	}
	w.get("/tagged")
	w.wantHit(w.get("/tagged"), "x")
}

// A table that nobody sees comes into being while an answer is being made.
func TestBlind_TheCatalogIsThatOfTheEndOfTheFetch(t *testing.T) {
	var w *world
	w = newWorld(t, func(rw http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(rw, "x")
		http.NewResponseController(rw).Flush()
		blind := *w.db.Catalog()
		blind.Blind = []string{"keyless"}
		w.db.SetCatalog(&blind)
	})
	w.get("/a")
	if s := w.cache.Stats(); s.Stored != 0 || s.Refused["blind"] != 1 {
		t.Errorf("stored %d, refused %v", s.Stored, s.Refused)
	}
}

func TestUnwatched_IsAnOrdinaryCache(t *testing.T) {
	w := newWorld(t, nil)
	upstream := httptest.NewServer(counted(`Cache-Groups: "users"`))
	defer upstream.Close()
	w.cache = newCache(t, upstream.URL, cache.NewUnwatched(), func(c *cache.Config) { c.TrustTags = true })
	w.proxy = httptest.NewServer(w.cache)
	defer w.proxy.Close()
	w.get("/a")
	w.wantHit(w.get("/a"), "1")
}

func TestTrustTags_NarrowsWithoutAPosition(t *testing.T) {
	w := newWorld(t, counted(`Cache-Groups: "properties/id=1"`), func(c *cache.Config) { c.TrustTags = true })
	w.get("/a")
	w.db.commit("properties/id=2")
	w.wantHit(w.get("/a"), "1")
	w.db.commit("properties/id=1")
	w.wantSays(w.get("/a"), "fwd=stale", "detail=changed")
	if got := w.cache.Stats().Turned; got["properties"] != 1 {
		t.Errorf("turned into misses: %v", got)
	}
}
