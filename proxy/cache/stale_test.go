package cache_test

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"walcache/proxy/cache"
)

// An answer that is older on arrival than its lifetime is expired at once.
const expired = "Age: 100"

func TestExpired_IsServedWhileOneRequestRefreshesIt(t *testing.T) {
	g := newGate()
	var n atomic.Int64
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		if n.Add(1) > 1 {
			g.pass(r)
			text("new", "Cache-Control: max-age=60")(rw, r)
			return
		}
		text("old", "Cache-Control: max-age=60, stale-while-revalidate=600", expired)(rw, r)
	})
	w.get("/a")
	for range 10 {
		r := w.get("/a")
		w.wantSays(r, "fwd=stale", "detail=expired")
		if r.body != "old" {
			t.Errorf("%q", r.body)
		}
	}
	close(g.open)
	eventually(t, "the new answer is stored", func() bool { return w.cache.Stats().Stored == 2 })
	w.wantHit(w.get("/a"), "new")
	w.wantFetches(2)
}

func TestExpired_OfAnOriginThatForbidsStaleAnswersIsNot(t *testing.T) {
	w := newWorld(t, counted("Cache-Control: max-age=60, must-revalidate, stale-while-revalidate=600", expired))
	w.get("/a")
	if r := w.get("/a"); r.body != "2" {
		t.Errorf("%q %s", r.body, r.says())
	}
}

// once answers well the first time, and fails from then on.
func once(first http.HandlerFunc, later func(http.ResponseWriter)) http.HandlerFunc {
	var n atomic.Int64
	return func(rw http.ResponseWriter, r *http.Request) {
		if n.Add(1) == 1 {
			first(rw, r)
			return
		}
		later(rw)
	}
}

func breakOff(http.ResponseWriter) { panic(http.ErrAbortHandler) }
func errorPage(w http.ResponseWriter) {
	w.WriteHeader(http.StatusServiceUnavailable)
	fmt.Fprint(w, "down")
}
func clientError(w http.ResponseWriter) { w.WriteHeader(http.StatusForbidden) }
func serveChanged(c *cache.Config)      { c.ServeChangedIfError = time.Hour }
func withGrace(c *cache.Config)         { c.Grace = time.Hour }

func TestExpired_IsServedWhileTheUpstreamFails(t *testing.T) {
	old := text("old", "Cache-Control: max-age=60, stale-if-error=600", expired)
	for _, test := range []struct {
		name   string
		later  func(http.ResponseWriter)
		status int
	}{
		{"no answer", breakOff, 200},
		{"an error", errorPage, 200},
		{"an answer", clientError, 403},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, once(old, test.later))
			w.get("/a")
			r := w.get("/a")
			if r.status != test.status {
				t.Errorf("%d %s", r.status, r.says())
			}
			w.wantSays(r, "fwd=stale", "detail=expired")
		})
	}
}

// The origin's windows are about time that ran out. A row that changed is
// another matter.
func TestChanged_IsNotServedByTheOriginsWindows(t *testing.T) {
	w := newWorld(t, once(text("old", "Cache-Control: max-age=60, stale-if-error=600, stale-while-revalidate=600"), errorPage))
	w.get("/a")
	w.db.commit("users")
	if r := w.get("/a"); r.status != http.StatusServiceUnavailable || r.body == "old" {
		t.Errorf("%d %q %s", r.status, r.body, r.says())
	}
}

func TestChanged_IsServedWhileTheUpstreamFailsIfTheOperatorSaysSo(t *testing.T) {
	for name, later := range map[string]func(http.ResponseWriter){"no answer": breakOff, "an error": errorPage} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, once(text("old"), later), serveChanged)
			w.get("/a")
			w.db.commit("users")
			for _, r := range w.together(20, "/a", nil) { // the leader and those who wait
				if r.status != http.StatusOK || r.body != "old" {
					t.Errorf("%d %q", r.status, r.body)
				}
				w.wantSays(r, "fwd=stale", "detail=changed")
			}
		})
	}
}

func TestGrace_ServesWhatWasReadLatelyWhileOneRequestRefreshesIt(t *testing.T) {
	g := newGate()
	var n atomic.Int64
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		if n.Add(1) > 1 {
			g.pass(r)
		}
		fmt.Fprint(rw, n.Load())
	}, withGrace)
	w.get("/a")
	w.db.commit("users")
	for range 10 {
		r := w.get("/a")
		w.wantSays(r, "fwd=stale", "detail=changed")
		if r.body != "1" {
			t.Errorf("%q", r.body)
		}
	}
	close(g.open)
	eventually(t, "the new answer is stored", func() bool { return w.cache.Stats().Stored == 2 })
	w.wantHit(w.get("/a"), "2")
	w.wantFetches(2)
}

// What refreshes an answer on behalf of a HEAD brings its body too.
func TestExpired_IsRefreshedWholeByAHead(t *testing.T) {
	w := newWorld(t, once(text("old", "Cache-Control: max-age=60, stale-while-revalidate=600", expired), func(rw http.ResponseWriter) {
		fmt.Fprint(rw, "new")
	}))
	w.get("/a")
	w.wantSays(w.do(http.MethodHead, "/a"), "fwd=stale", "detail=expired")
	eventually(t, "the new answer is stored", func() bool { return w.cache.Stats().Stored == 2 })
	w.wantHit(w.get("/a"), "new")
}

// A client that asks for proof gets none of it.
func TestGrace_NotForWhoAsksForProof(t *testing.T) {
	w := newWorld(t, counted(), withGrace)
	w.get("/a")
	w.db.commit("users")
	if r := w.get("/a", "Cache-Control: no-cache"); r.body != "2" {
		t.Errorf("%q %s", r.body, r.says())
	}
}

// A source that states a position may have read at any time: what it keeps holds
// up to there as far as it knows, by evidence that may be as old as the bound.
func TestGrace_NotForDataThatMayBeOlderThanItsFetch(t *testing.T) {
	for _, position := range []string{"0/1", "0/64", "0/FFFF"} {
		w := newWorld(t, counted("As-Of-LSN: "+position+";epoch="+epoch), withGrace)
		w.get("/a")
		w.db.commit("users")
		if r := w.get("/a"); r.body != "2" {
			t.Errorf("as of %s: %q %s", position, r.body, r.says())
		}
	}
}
