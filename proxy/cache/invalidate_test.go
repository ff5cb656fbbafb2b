package cache_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"walcache/proxy/cache"
	"walcache/proxy/coherence"
)

// truths are who may say what is stale: the change stream, which brings back what
// it is told, or nobody but requests.
func truths(t *testing.T, test func(t *testing.T, truth change)) {
	t.Run("watched", func(t *testing.T) {
		test(t, func(c *cache.Config) {
			db := c.Truth.(*database)
			c.Announce = func(_ context.Context, moved []coherence.Hash) error { db.purge(moved...); return nil }
		})
	})
	t.Run("unwatched", func(t *testing.T) { test(t, func(c *cache.Config) { c.Truth = cache.NewUnwatched() }) })
}

// answering makes an upstream that counts its answers to GET, and answers all else
// with a status and lines of a header.
func answering(status int, lines ...string) http.HandlerFunc {
	var count atomic.Int64
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			w.Header().Set("Cache-Control", "max-age=600")
			if group := r.URL.Query().Get("group"); group != "" {
				w.Header().Set("Cache-Groups", `"`+group+`"`)
			}
			fmt.Fprint(w, count.Add(1))
			return
		}
		for _, line := range lines {
			name, value, _ := strings.Cut(line, ": ")
			w.Header().Add(name, strings.ReplaceAll(value, "ORIGIN", "http://"+r.Host))
		}
		w.WriteHeader(status)
	}
}

// ask sends a request for a host whose URLs and groups have the same hashes in every
// run.
func (w *world) ask(method, target string) reply {
	w.t.Helper()
	req, err := http.NewRequest(method, w.proxy.URL+target, nil)
	must(w.t, err)
	req.Host = "shop.example"
	res, err := w.client.Do(req)
	must(w.t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	must(w.t, err)
	return reply{res.StatusCode, res.Header, string(body)}
}

// wantStale warms pages, sends a request to the first, and wants these pages, and
// no others, not to be hits any more.
func (w *world) wantStale(method string, pages, stale []string) {
	w.t.Helper()
	for _, page := range pages {
		w.ask("GET", page)
		if r := w.ask("GET", page); !r.isHit() {
			w.t.Fatalf("%s was not stored: %s", page, r.says())
		}
	}
	w.ask(method, pages[0])
	for _, page := range pages {
		if hit := w.ask("GET", page).isHit(); hit == slices.Contains(stale, page) {
			w.t.Errorf("after %s %s: %s is a hit: %t", method, pages[0], page, hit)
		}
	}
}

func TestInvalidation_IsOfEveryUnsafeMethod(t *testing.T) {
	pages := []string{"/a?q", "/a", "/b"}
	truths(t, func(t *testing.T, truth change) {
		w := newWorld(t, answering(http.StatusOK), truth)
		for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "PURGE", "post", "FROBNICATE"} {
			w.wantStale(method, pages, pages[:1])
		}
		if got := w.cache.Stats().Invalidated; got != 7 {
			t.Errorf("%d were counted", got)
		}
		for _, method := range []string{"GET", "HEAD", "OPTIONS", "TRACE"} {
			w.wantStale(method, pages, nil)
		}
	})
}

func TestInvalidation_IsOfWhatTheAnswerNames(t *testing.T) {
	truths(t, func(t *testing.T, truth change) {
		for name, c := range map[string]struct {
			lines []string
			stale []string
		}{
			"neither":                  {nil, []string{"/a/"}},
			"Location":                 {[]string{"Location: /b?q=1"}, []string{"/a/", "/b?q=1"}},
			"Content-Location":         {[]string{"Content-Location: ORIGIN/c"}, []string{"/a/", "/c"}},
			"both, one is relative":    {[]string{"Location: ../c", "Content-Location: ORIGIN/b?q=1"}, []string{"/a/", "/b?q=1", "/c"}},
			"another host":             {[]string{"Location: http://elsewhere.example/c", "Content-Location: //elsewhere.example/b?q=1"}, []string{"/a/"}},
			"another scheme":           {[]string{"Location: https://127.0.0.1/c"}, []string{"/a/"}},
			"two that cannot be right": {[]string{"Location: /c", "Location: /b?q=1"}, []string{"/a/"}},
		} {
			t.Run(name, func(t *testing.T) {
				for _, status := range []int{http.StatusOK, http.StatusCreated, http.StatusNoContent, http.StatusSeeOther} {
					w := newWorld(t, answering(status, c.lines...), truth)
					w.wantStale(http.MethodPost, []string{"/a/", "/b?q=1", "/c"}, c.stale)
				}
			})
		}
	})
}

func TestInvalidation_IsNotOfAnError(t *testing.T) {
	truths(t, func(t *testing.T, truth change) {
		for _, status := range []int{400, 403, 404, 409, 500, 503} {
			w := newWorld(t, answering(status, "Location: /b", `Cache-Group-Invalidation: "g"`), truth)
			w.wantStale(http.MethodPost, []string{"/a", "/b", "/c?group=g"}, nil)
		}
	})
}

func TestInvalidation_OfAGroupReachesItsMembers(t *testing.T) {
	pages := []string{"/a", "/b?group=g", "/c?group=g&2", "/d?group=other", "/e?group=G"}
	truths(t, func(t *testing.T, truth change) {
		w := newWorld(t, answering(http.StatusOK, `Cache-Group-Invalidation: "g", "unheard of"`), truth)
		w.wantStale(http.MethodPost, pages, pages[:3])

		res := w.ask(http.MethodPost, "/a")
		if got := res.header.Get("Cache-Group-Invalidation"); got != `"g", "unheard of"` {
			t.Errorf("the next cache is told %q", got)
		}
		w = newWorld(t, answering(http.StatusOK, `Cache-Group-Invalidation: "g", 17`), truth)
		w.wantStale(http.MethodPost, pages, pages[:1])
	})
}

// A safe request invalidates nothing, whatever its answer says (RFC 9875, section 3).
func TestInvalidation_OfAGroupIsIgnoredOnASafeRequest(t *testing.T) {
	w := newWorld(t, text("x", "Cache-Control: max-age=600", `Cache-Groups: "g"`, `Cache-Group-Invalidation: "g"`))
	w.get("/a")
	w.get("/b")
	w.wantHit(w.get("/a"), "x")
}

// The same URL at another host is of another origin, and so is the same group.
func TestInvalidation_OfAGroupIsOfItsOrigin(t *testing.T) {
	truths(t, func(t *testing.T, truth change) {
		w := newWorld(t, answering(http.StatusOK, `Cache-Group-Invalidation: "g"`), truth)
		at := func(method, host, target string) bool {
			r := httptest.NewRequest(method, target, nil)
			r.Host = host
			rec := httptest.NewRecorder()
			w.cache.ServeHTTP(rec, r)
			return strings.HasPrefix(rec.Header().Get("Cache-Status"), "walcache; hit")
		}
		for _, target := range []string{"/a", "/b?group=g"} {
			for _, host := range []string{"one.example", "two.example"} {
				at("GET", host, target)
				if !at("GET", host, target) {
					t.Fatalf("%s%s was not stored", host, target)
				}
			}
		}
		at("POST", "ONE.example:80", "/a")
		for _, target := range []string{"/a", "/b?group=g"} {
			if at("GET", "one.example", target) || !at("GET", "two.example", target) {
				t.Errorf("%s: not that of one origin became stale", target)
			}
		}
	})
}

// A group with the name of a table is no table: rows have not changed.
func TestInvalidation_OfAGroupMovesNoTag(t *testing.T) {
	position := "As-Of-LSN: " + coherence.Position{Epoch: epoch, LSN: 100}.String()
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			text("", `Cache-Group-Invalidation: "properties", "users", "*"`)(rw, r)
			return
		}
		if r.URL.Path == "/member" {
			text("x", `Cache-Groups: "properties"`, position)(rw, r)
			return
		}
		text("x", `Cache-Groups: "properties/id=1"`, position)(rw, r)
	})
	for _, target := range []string{"/member", "/row"} {
		w.ask("GET", target)
		w.wantHit(w.ask("GET", target), "x")
	}
	w.ask(http.MethodPost, "/elsewhere")
	w.wantSays(w.ask("GET", "/member"), "fwd=stale", "detail=changed")
	w.wantHit(w.ask("GET", "/row"), "x")
	for _, tag := range []coherence.Tag{"properties", "users", coherence.Any} {
		if at := w.db.MovedAt(tag.Hash()); at != 0 {
			t.Errorf("%s moved to %s", tag, at)
		}
	}
}

func TestInvalidation_OfOneGroupTooManyReachesNothing(t *testing.T) {
	var groups []string
	for i := range 33 {
		groups = append(groups, fmt.Sprintf(`"g%d"`, i))
	}
	var told []coherence.Hash
	w := newWorld(t, answering(http.StatusOK, "Cache-Group-Invalidation: "+strings.Join(groups, ", ")), func(c *cache.Config) {
		c.Announce = func(_ context.Context, moved []coherence.Hash) error { told = moved; return nil }
	})
	w.wantStale(http.MethodPost, []string{"/a", "/b?group=g31", "/c?group=g32"}, []string{"/a", "/b?group=g31"})
	if len(told) != 33 || !slices.Contains(told, coherence.GroupHash("http://shop.example", "g31")) {
		t.Errorf("told of %d hashes", len(told))
	}
}

// Whatever it was made stale by: its own URL, one that the answer named, or a group.
func TestInvalidation_AFillThatRacesWithItIsBornStale(t *testing.T) {
	truths(t, func(t *testing.T, truth change) {
		for _, named := range []string{"/a", "/a?location", "/a?group=g"} {
			var version atomic.Int64
			read, goOn := make(chan struct{}), make(chan struct{})
			held := sync.OnceFunc(func() { close(read); <-goOn })
			w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodPost {
					version.Add(1)
					text("", "Location: /a?location", `Cache-Group-Invalidation: "g"`)(rw, r)
					return
				}
				body := fmt.Sprint(version.Load())
				held()
				text(body, "Cache-Control: max-age=600", `Cache-Groups: "g"`)(rw, r)
			}, truth)
			old := make(chan reply)
			go func() {
				r, err := w.try(context.Background(), http.MethodGet, named)
				if err != nil {
					t.Error(err)
				}
				old <- r
			}()
			<-read
			w.do(http.MethodPost, "/a")
			close(goOn)
			if r := <-old; r.body != "0" {
				t.Fatalf("%s: the fill was not held up: %q", named, r.body)
			}
			if r := w.get(named); r.isHit() || r.body != "1" {
				t.Errorf("%s: after the write %q (%s)", named, r.body, r.says())
			}
		}
	})
}

// Nor is it handed to those who come after the write, although it is still on its
// way.
func TestInvalidation_NobodyJoinsAFillThatBeganBeforeIt(t *testing.T) {
	truths(t, func(t *testing.T, truth change) {
		var version atomic.Int64
		begun, goOn := make(chan struct{}), make(chan struct{})
		w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				version.Add(1)
				return
			}
			rw.Header().Set("Cache-Control", "max-age=600")
			now := version.Load()
			fmt.Fprint(rw, now)
			if now == 0 { // the first
				must(t, http.NewResponseController(rw).Flush())
				close(begun)
				<-goOn
			}
		}, truth)
		old := make(chan reply)
		go func() { old <- w.ask("GET", "/a") }()
		<-begun
		w.ask("POST", "/a")
		if r := w.ask("GET", "/a"); r.body != "1" {
			t.Errorf("after the write %q (%s)", r.body, r.says())
		}
		close(goOn)
		if r := <-old; r.body != "0" {
			t.Errorf("the fill that was held up is %q", r.body)
		}
		if r := w.ask("GET", "/a"); r.body != "1" {
			t.Errorf("once it is stored %q (%s)", r.body, r.says())
		}
	})
}

// Where nothing moves in the database, nothing is stored until the message has come
// back through it.
func TestInvalidation_HoldsUntilTheChangeStreamHasIt(t *testing.T) {
	var told []coherence.Hash
	w := newWorld(t, answering(http.StatusOK, `Cache-Group-Invalidation: "g"`), func(c *cache.Config) {
		c.WriteWait = 0
		c.Announce = func(_ context.Context, moved []coherence.Hash) error { told = moved; return context.Canceled }
	})
	w.get("/a")
	w.get("/a")
	w.do(http.MethodPost, "/a")
	w.get("/a")
	w.wantSays(w.get("/a"), "fwd=stale", "detail=changed")
	want := []coherence.Hash{coherence.PageHash(w.proxy.URL + "/a"), coherence.GroupHash(w.proxy.URL, "g")}
	if !slices.Equal(told, want) {
		t.Errorf("told of %x, want %x", told, want)
	}
	w.db.purge(told...)
	w.wantSays(w.get("/a"), "fwd=stale")
	if r := w.get("/a"); !r.isHit() {
		t.Errorf("once it is known: %s", r.says())
	}
	if n := w.cache.Stats().WriteWaitsTimedOut; n != 0 {
		t.Errorf("%d waits timed out, and none was to be", n)
	}
}

// What can be stored nowhere is not told.
func TestInvalidation_TellsNothingOfWhatIsNeverStored(t *testing.T) {
	var told atomic.Int64
	w := newWorld(t, answering(http.StatusOK), func(c *cache.Config) {
		c.Bypass = []string{"/admin/*"}
		c.Announce = func(context.Context, []coherence.Hash) error { told.Add(1); return nil }
	})
	for _, target := range []string{"/admin/users", "/admin/%75sers?x", "/" + strings.Repeat("a", 4<<10)} {
		w.do(http.MethodPost, target)
	}
	if n := told.Load(); n != 0 {
		t.Errorf("told %d times", n)
	}
	w.do(http.MethodPost, "/administration")
	if n := told.Load(); n != 1 {
		t.Errorf("told %d times of what may be stored", n)
	}
}

// Without coherence positions mean nothing to other processes: what they would
// find below is removed, and what they left there is not taken for fresh again.
func TestInvalidation_WithoutCoherenceReachesWhatIsBelow(t *testing.T) {
	shelf := newShelf()
	below := func(c *cache.Config) { c.Truth = cache.NewUnwatched(); shelf.below(c) }
	w := newWorld(t, answering(http.StatusOK, `Cache-Group-Invalidation: "g"`), below)
	other := newCache(t, w.upstream.URL, nil, below)
	ask := func(method, target string) (body string, hit bool) {
		r := httptest.NewRequest(method, w.proxy.URL+target, nil)
		rec := httptest.NewRecorder()
		other.ServeHTTP(rec, r)
		return rec.Body.String(), strings.HasPrefix(rec.Header().Get("Cache-Status"), "walcache; hit")
	}
	ask("GET", "/a")
	ask("GET", "/b?group=g")
	w.wantHit(w.get("/a"), "1")
	w.wantHit(w.get("/b?group=g"), "2")
	w.do(http.MethodPost, "/a")
	for _, target := range []string{"/a", "/b?group=g"} {
		if r := w.get(target); r.isHit() {
			t.Errorf("%s: %s", target, r.says())
		}
		if r := w.get(target); !r.isHit() {
			t.Errorf("%s: %s", target, r.says())
		}
	}
	ask("POST", "/a")
	if body, hit := ask("GET", "/a"); hit {
		t.Errorf("the other answers with %q", body)
	}
}
