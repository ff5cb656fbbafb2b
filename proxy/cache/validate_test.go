package cache_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"walcache/proxy/cache"
)

// versioned is an upstream that has something with an entity tag, and answers who
// has it with a 304.
type versioned struct {
	mu      sync.Mutex // guards the following
	etag    string
	body    string
	lines   []string            // of the 200
	confirm []string            // of the 304, beside the ETag
	meet    func(*http.Request) // called before each answer
	asked   []string            // If-None-Match of each request, or ""
}

func (v *versioned) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.meet != nil {
		v.meet(r)
	}
	condition := r.Header.Get("If-None-Match")
	v.asked = append(v.asked, condition)
	lines, status := v.lines, http.StatusOK
	if v.etag != "" && strings.Contains(condition, v.etag) {
		lines, status = v.confirm, http.StatusNotModified
	}
	for _, line := range append([]string{"ETag: " + v.etag}, lines...) {
		name, value, _ := strings.Cut(line, ": ")
		rw.Header().Add(name, value)
	}
	rw.WriteHeader(status)
	if status == http.StatusOK && r.Method == http.MethodGet {
		_, _ = io.WriteString(rw, v.body)
	}
}

// conditions are the If-None-Match that came so far.
func (v *versioned) conditions() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return strings.Join(v.asked, " ")
}

func (v *versioned) set(change func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	change()
}

func TestValidate_WhatChangedElsewhereIsConfirmedWithoutABody(t *testing.T) {
	v := &versioned{etag: `"v1"`, body: "body", lines: []string{"X-Kept: 1", "X-New: old", "Content-Type: text/x"},
		confirm: []string{"X-New: new", "Content-Length: 7", "Content-Encoding: br", "Cache-Status: inner; hit"}}
	w := newWorld(t, v.ServeHTTP)
	w.wantSays(w.get("/a"), "fwd=uri-miss", "stored")
	w.db.commit("users")
	confirmed := w.get("/a")
	w.wantSays(confirmed, "fwd=stale", "fwd-status=304", "stored", "detail=changed")
	hit := w.get("/a")
	w.wantHit(hit, "body")
	for _, r := range []reply{confirmed, hit} {
		h := r.header
		if r.status != http.StatusOK || r.body != "body" || h.Get("X-Kept") != "1" || strings.Join(h["X-New"], ",") != "new" || h.Get("Content-Type") != "text/x" {
			t.Errorf("%d %q %v", r.status, r.body, h)
		}
		if h.Get("Content-Length") != "4" || h.Get("Content-Encoding") != "" || h["Cache-Status"][0] != "inner; hit" || len(h["Date"]) != 1 {
			t.Errorf("%v", h)
		}
	}
	if got := v.conditions(); got != ` "v1"` {
		t.Errorf("asked about %q", got)
	}
}

// 1. The upstream compares entity tags, and they are alike. 2. The row changes.
// 3. The 304 arrives, and would have the old body be as of now.
func TestValidate_RacingWithAChangeIsBornStale(t *testing.T) {
	v := &versioned{etag: `"v1"`, body: "old"}
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) { v.ServeHTTP(rw, r) })
	w.get("/a")
	w.db.commit("users")
	v.set(func() {
		v.meet = func(*http.Request) { w.db.commit("properties") } // after the comparison or before it, it does not matter
	})
	w.wantSays(w.get("/a"), "fwd-status=304", "stored")
	v.set(func() { v.meet, v.etag, v.body = nil, `"v2"`, "new" })
	r := w.get("/a")
	w.wantSays(r, "fwd=stale", "fwd-status=200", "detail=changed")
	if r.body != "new" {
		t.Errorf("a confirmation that raced with a change was served after it: %q", r.body)
	}
}

func TestValidate_A304DependsOnWhatItSays(t *testing.T) {
	const asOf = "As-Of-LSN: request"
	for _, test := range []struct {
		name    string
		confirm []string
		hit     bool // after a change of another table
	}{
		{"the same groups", []string{asOf, `Cache-Groups: "users"`}, true},
		{"no groups: on everything", []string{asOf}, false},
		{"no position: on everything", []string{`Cache-Groups: "users"`}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			v := &versioned{etag: `"v1"`, body: "x", lines: []string{asOf, `Cache-Groups: "users"`}, confirm: test.confirm}
			w := newWorld(t, v.ServeHTTP)
			w.get("/a")
			w.db.commit("properties")
			w.wantHit(w.get("/a"), "x")
			w.db.commit("users")
			w.wantSays(w.get("/a"), "fwd-status=304", "stored")
			w.db.commit("properties")
			if got := w.get("/a"); got.isHit() != test.hit {
				t.Errorf("%s", got.says())
			}
			w.db.commit("users")
			if got := w.get("/a"); got.isHit() {
				t.Errorf("%s", got.says())
			}
		})
	}
}

// Two variants have had one body, and the data of one of them changes.
func TestValidate_FreshensNoOtherVariant(t *testing.T) {
	var mu sync.Mutex
	etags := map[string]string{"de": `"v1"`, "en": `"v1"`}
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		(&versioned{etag: etags[r.Header.Get("Accept-Language")], body: etags[r.Header.Get("Accept-Language")], lines: []string{"Vary: Accept-Language"}}).ServeHTTP(rw, r)
	})
	w.get("/a", "Accept-Language: de")
	w.wantSays(w.get("/a", "Accept-Language: en"), "fwd=vary-miss", "fwd-status=304", "stored")
	w.wantHit(w.get("/a", "Accept-Language: en"), `"v1"`)
	w.wantHit(w.get("/a", "Accept-Language: de"), `"v1"`)
	mu.Lock()
	etags["de"] = `"v2"`
	mu.Unlock()
	w.db.commit("properties")
	w.wantSays(w.get("/a", "Accept-Language: en"), "fwd=stale", "fwd-status=304", "stored")
	r := w.get("/a", "Accept-Language: de")
	w.wantSays(r, "fwd=stale", "fwd-status=200", "detail=changed")
	if r.body != `"v2"` {
		t.Errorf("a variant was freshened by the 304 to a request for another: %q", r.body)
	}
}

func TestValidate_A304AboutSomethingElseIsAskedAgainWithoutConditions(t *testing.T) {
	var asked []string
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Header.Get("If-None-Match")+r.Header.Get("If-Modified-Since"))
		rw.Header().Set("ETag", fmt.Sprintf(`"v%d"`, len(asked)))
		if asked[len(asked)-1] != "" {
			rw.WriteHeader(http.StatusNotModified)
			return
		}
		fmt.Fprint(rw, len(asked))
	})
	w.get("/a")
	w.db.commit("users")
	if r := w.get("/a"); r.status != http.StatusOK || r.body != "3" {
		t.Errorf("%d %q %s", r.status, r.body, r.says())
	} else {
		w.wantSays(r, "fwd=stale", "fwd-status=200", "stored")
	}
	if got := strings.Join(asked, " "); got != ` "v1" ` {
		t.Errorf("asked %q", got)
	}
	w.wantHit(w.get("/a"), "3")
}

func TestValidate_A304MayForbidStoring(t *testing.T) {
	for _, forbids := range []string{"no-store", "private"} {
		t.Run(forbids, func(t *testing.T) {
			v := &versioned{etag: `"v1"`, body: "x", confirm: []string{"Cache-Control: " + forbids}}
			w := newWorld(t, v.ServeHTTP)
			w.get("/a")
			w.db.commit("users")
			r := w.get("/a")
			if r.status != http.StatusOK || r.body != "x" || r.header.Get("Cache-Control") != forbids {
				t.Errorf("%d %q %v", r.status, r.body, r.header)
			}
			w.wantSays(r, "fwd=stale", "fwd-status=304", "detail=changed")
			if strings.Contains(r.says(), "stored") {
				t.Errorf("%s", r.says())
			}
			w.get("/a")
			if got := v.conditions(); got != ` "v1" ` {
				t.Errorf("what was to be forgotten was asked about: %q", got)
			}
		})
	}
}

func TestValidate_NoCacheIsConfirmedAtEachUse(t *testing.T) {
	v := &versioned{etag: `"v1"`, body: "x", lines: []string{"Cache-Control: no-cache"}, confirm: []string{"Cache-Control: no-cache"}}
	s := newShelf()
	w := newWorld(t, v.ServeHTTP, s.below)
	w.wantSays(w.get("/a"), "fwd=uri-miss", "stored")
	for range 2 {
		r := w.get("/a")
		w.wantSays(r, "fwd=stale", "fwd-status=304", "stored", "detail=expired")
		if r.status != http.StatusOK || r.body != "x" {
			t.Errorf("%d %q", r.status, r.body)
		}
	}
	if r := w.get("/a", `If-None-Match: "v1"`); r.status != http.StatusNotModified {
		t.Errorf("%d: the client has it", r.status)
	}
	v.set(func() { v.etag, v.body = `"v2"`, "y" })
	if r := w.get("/a", `If-None-Match: "v1"`); r.status != http.StatusOK || r.body != "y" {
		t.Errorf("%d %q", r.status, r.body)
	}
	if got, want := v.conditions(), ` "v1" "v1" "v1" "v1"`; got != want {
		t.Errorf("asked about %q, want %q", got, want)
	}
	if pages := s.snapshot(); len(pages) != 0 {
		t.Error("it went to the layer below, where nobody could use it")
	}
}

func TestValidate_AnErrorConfirmsNothing(t *testing.T) {
	for cacheControl, want := range map[string]string{"max-age=60": "down", "max-age=60, stale-if-error=600": "old"} {
		w := newWorld(t, once(text("old", `ETag: "v1"`, "Cache-Control: "+cacheControl, expired), errorPage))
		w.get("/a")
		if r := w.get("/a"); r.body != want {
			t.Errorf("%s: %q %s", cacheControl, r.body, r.says())
		} else {
			w.wantSays(r, "fwd=stale", "fwd-status=503")
		}
	}
}

// A date counts in seconds, and two changes may share one.
func TestValidate_ADateThatMayHideAChangeIsNotAskedAbout(t *testing.T) {
	const made = "Sun, 22 Nov 2026 12:00:00 GMT"
	for _, test := range []struct {
		name, modified string
		change, asked  bool
	}{
		{"long before, and something changed", "Sun, 22 Nov 2026 11:59:00 GMT", true, true},
		{"just before, and something changed", "Sun, 22 Nov 2026 11:59:01 GMT", true, false},
		{"just before, and nothing did", "Sun, 22 Nov 2026 12:00:00 GMT", false, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			since := ""
			w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
				since = r.Header.Get("If-Modified-Since")
				text("x", "Last-Modified: "+test.modified, "Date: "+made, "Cache-Control: max-age=60")(rw, r)
			})
			w.get("/a") // and is expired: it was made long ago
			if test.change {
				w.db.commit("users")
			}
			w.get("/a")
			if asked := since == test.modified; asked != test.asked {
				t.Errorf("asked since %q", since)
			}
		})
	}
}

// What is said to caches alone is not in what a client gets, and a 304 need not
// repeat it.
func TestValidate_WhatTheOriginSaidToCachesStaysSaid(t *testing.T) {
	v := &versioned{etag: `"v1"`, body: "x", lines: []string{"CDN-Cache-Control: max-age=900", "Cache-Control: no-cache"},
		confirm: []string{"Cache-Control: no-cache"}}
	w := newWorld(t, v.ServeHTTP)
	w.get("/a")
	w.db.commit("users")
	w.wantSays(w.get("/a"), "fwd-status=304", "stored")
	r := w.get("/a")
	w.wantHit(r, "x")
	if r.header.Get("CDN-Cache-Control") != "" || r.header.Get("Cache-Control") != "no-cache" {
		t.Errorf("%v", r.header)
	}
}

func TestValidate_WhatAClientMayNotHaveIsNotAskedAbout(t *testing.T) {
	v := &versioned{etag: `"v1"`, body: "x"}
	w := newWorld(t, v.ServeHTTP)
	w.get("/a")
	w.db.commit("users")
	if r := w.get("/a", "Cookie: user=1"); r.body != "x" {
		t.Errorf("%q", r.body)
	}
	// Its own conditions go upstream, and the answer comes back as it is.
	if r := w.get("/a", "Cookie: user=1", `If-None-Match: "v1"`); r.status != http.StatusNotModified {
		t.Errorf("%d", r.status)
	}
	if got := v.conditions(); got != `  "v1"` {
		t.Errorf("asked about %q", got)
	}
}

// The origin is asked by a client with a Cookie about what everybody may have,
// because it said so, and not about the variant of which it did not.
func TestValidate_OfSeveralVariantsThoseAreAskedAboutThatAClientMayHave(t *testing.T) {
	var asked string
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		asked = r.Header.Get("If-None-Match")
		lines := []string{"Vary: X", `ETag: "` + r.Header.Get("X") + `"`}
		if r.Header.Get("X") == "explicit" {
			lines = append(lines, "Cache-Control: max-age=60")
		}
		text("x", lines...)(rw, r)
	})
	w.get("/a", "X: implicit")
	w.get("/a", "X: explicit")
	w.db.commit("users")
	w.get("/a", "X: explicit", "Cookie: user=1")
	if asked != `"explicit"` {
		t.Errorf("asked about %q", asked)
	}
}

// What may answer only whom it was fetched for is not for those who wait, however
// early they came: they wait for a turn at the upstream, all of them.
func TestValidate_NoCacheIsForOneClientAfterTheOther(t *testing.T) {
	v := &versioned{etag: `"v1"`, body: "x", lines: []string{"Cache-Control: max-age=60, no-cache"}}
	g := newGate()
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		g.pass(r)
		v.ServeHTTP(rw, r)
	}, func(c *cache.Config) { c.MaxFetches = 1 })
	go w.get("/in-the-way")
	eventually(t, "it is in the way", func() bool { return w.fetches.Load() == 1 })
	go func() {
		eventually(t, "they wait", func() bool { return w.cache.Stats().Waiting == 4 })
		close(g.open)
	}()
	for _, r := range w.together(5, "/a", nil) {
		if r.status != http.StatusOK || r.body != "x" || strings.Contains(r.says(), "collapsed") {
			t.Errorf("%d %q %s", r.status, r.body, r.says())
		}
	}
	w.wantFetches(6)
}

// Who asks in person, since the last answer was for one client only, gets the
// answer in person, also where there is one that everybody may have.
func TestValidate_WhoAsksInPersonHasConditionsOfItsOwn(t *testing.T) {
	v := &versioned{etag: `"v1"`, body: "x", lines: []string{"Cache-Control: max-age=60"}, confirm: []string{"Set-Cookie: seen=1"}}
	w := newWorld(t, v.ServeHTTP)
	w.get("/a")
	w.db.commit("users")
	v.set(func() { v.etag, v.lines = `"v2"`, []string{"Cache-Control: private"} })
	w.get("/a")
	v.set(func() { v.etag = `"v1"` })
	r := w.get("/a", "Cookie: user=1", `If-None-Match: "v1"`)
	if r.status != http.StatusNotModified || r.header.Get("Set-Cookie") != "seen=1" {
		t.Errorf("%d %v", r.status, r.header)
	}
}

func TestValidate_FieldsForOneClientAreNotStored(t *testing.T) {
	w := newWorld(t, text("x", "Cache-Control: max-age=60, private=\"X-User\", no-cache=\"Set-Cookie\"", "X-User: 1", "Set-Cookie: a=1", "X-Other: 1"))
	if r := w.get("/a"); r.header.Get("X-User") != "1" || r.header.Get("Set-Cookie") != "a=1" {
		t.Errorf("%v", r.header)
	}
	r := w.get("/a")
	w.wantHit(r, "x")
	if r.header.Get("X-User") != "" || r.header.Get("Set-Cookie") != "" || r.header.Get("X-Other") != "1" {
		t.Errorf("%v", r.header)
	}
}

func TestValidate_ThoseWhoWaitShareTheConfirmation(t *testing.T) {
	v := &versioned{etag: `"v1"`, body: "x"}
	g := newGate()
	held := false
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		if held {
			g.pass(r)
		}
		v.ServeHTTP(rw, r)
	})
	w.get("/a")
	w.db.commit("users")
	held = true
	go func() {
		eventually(t, "they wait", func() bool { return w.cache.Stats().Waiting == 19 })
		close(g.open)
	}()
	for _, r := range w.together(20, "/a", nil) {
		w.wantSays(r, "fwd=stale", "stored")
		if r.status != http.StatusOK || r.body != "x" {
			t.Errorf("%d %q", r.status, r.body)
		}
	}
	w.wantFetches(2)
}

func TestHead_ConfirmsWhatIsExpired(t *testing.T) {
	inBubble(t, (&versioned{etag: `"v1"`, body: "x", lines: []string{"Cache-Control: max-age=60", "Content-Length: 1"}}).ServeHTTP, nil, func(b *bubble) {
		b.want("x", "fwd=uri-miss")
		time.Sleep(time.Minute)
		b.wantHead(http.StatusOK, "fwd=stale; fwd-status=200; detail=expired")
		b.want("x", "hit; ttl=60")
	})
}

func TestHead_MakesNothingFreshThatChanged(t *testing.T) {
	v := &versioned{etag: `"v1"`, body: "x", lines: []string{"X-New: 1", "Content-Length: 1"}}
	w := newWorld(t, v.ServeHTTP)
	w.get("/a")
	w.db.commit("users")
	v.set(func() { v.lines = []string{"X-New: 2", "Content-Length: 1"} })
	w.wantSays(w.do(http.MethodHead, "/a"), "fwd=stale", "fwd-status=200", "detail=changed")
	r := w.get("/a")
	w.wantSays(r, "fwd=stale", "fwd-status=304", "detail=changed")
	if r.header.Get("X-New") != "2" {
		t.Errorf("X-New %q: the header is not that of the HEAD", r.header.Get("X-New"))
	}
}

func TestHead_OfSomethingElseRemovesWhatIsStored(t *testing.T) {
	// Without a database nothing proves what is stored, and a client can ask past it.
	v := &versioned{etag: `"v1"`, body: "x", lines: []string{"Cache-Control: max-age=600"}}
	upstream := httptest.NewServer(v)
	defer upstream.Close()
	s := newShelf()
	c := newCache(t, upstream.URL, cache.NewUnwatched(), s.below)
	do := func(method, want string, lines ...string) {
		t.Helper()
		r := httptest.NewRequest(method, "/a", nil)
		for _, line := range lines {
			name, value, _ := strings.Cut(line, ": ")
			r.Header.Add(name, value)
		}
		rec := httptest.NewRecorder()
		c.ServeHTTP(rec, r)
		if got := rec.Body.String() + " " + rec.Header().Get("Cache-Status"); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q, want %q", method, got, want)
		}
	}
	do(http.MethodGet, "x walcache; fwd=uri-miss")
	do(http.MethodGet, "x walcache; hit")
	v.set(func() { v.etag, v.body = `"v2"`, "y" })
	do(http.MethodHead, " walcache; fwd=request; fwd-status=200", "Cache-Control: no-cache")
	do(http.MethodGet, "y walcache; fwd=uri-miss; fwd-status=200; stored")
}

func (b *bubble) wantHead(status int, says string) {
	b.t.Helper()
	r := httptest.NewRequestWithContext(b.t.Context(), http.MethodHead, "/a", nil)
	w := httptest.NewRecorder()
	b.cache.ServeHTTP(w, r)
	if got := w.Header().Get("Cache-Status"); w.Code != status || !strings.Contains(got, says) {
		b.t.Errorf("HEAD: %d %q, want %d %q", w.Code, got, status, says)
	}
}

func TestRetention_AValidatorIsOfUseForAnHour(t *testing.T) {
	s := newShelf()
	v := &versioned{etag: `"v1"`, body: "x", lines: []string{"Cache-Control: max-age=60"}}
	inBubble(t, v.ServeHTTP, []change{s.below}, func(b *bubble) {
		b.want("x", "fwd=uri-miss")
		for _, page := range s.snapshot() {
			if left := time.Until(page.expires); left > time.Minute {
				t.Errorf("below, it lives for %s", left)
			}
		}
		time.Sleep(time.Minute + 59*time.Minute)
		b.want("x", "fwd=stale; fwd-status=304; stored; detail=expired")
		time.Sleep(time.Minute + 61*time.Minute)
		b.want("x", "fwd=uri-miss; fwd-status=200")
	})
}

func TestAway_WhatIsExpiredAndDidNotChangeIsServedForAMinute(t *testing.T) {
	inBubble(t, once(text("old", "Cache-Control: max-age=60"), breakOff), nil, func(b *bubble) {
		b.want("old", "fwd=uri-miss")
		time.Sleep(60 * time.Second)
		b.want("old", "fwd=stale; detail=expired")
		b.wantHead(http.StatusOK, "fwd=stale; detail=expired")
		time.Sleep(60*time.Second - time.Nanosecond)
		b.want("old", "fwd=stale; detail=expired")
		time.Sleep(time.Nanosecond)
		if r := b.get(b.t.Context(), "/a"); r.status != http.StatusBadGateway {
			t.Errorf("%d %s", r.status, r.says())
		}
	})
}

func TestAway_WhatNothingMayStandInFor(t *testing.T) {
	never := func(c *cache.Config) { c.ExpiredIfError = 0 }
	for _, test := range []struct {
		name, cacheControl string
		later              func(http.ResponseWriter)
		changed            bool
		config             change
		status             int
	}{
		{"a 503 is an answer", "max-age=60", errorPage, false, nil, 503},
		{"a 500 is an answer", "max-age=60", func(w http.ResponseWriter) { w.WriteHeader(500) }, false, nil, 500},
		{"something changed", "max-age=60", breakOff, true, nil, 502},
		{"must-revalidate", "max-age=60, must-revalidate", breakOff, false, nil, 502},
		{"proxy-revalidate", "max-age=60, proxy-revalidate", breakOff, false, nil, 502},
		{"s-maxage", "s-maxage=60", breakOff, false, nil, 502},
		{"no-cache", "max-age=60, no-cache", breakOff, false, nil, 502},
		{"the operator forbids it", "max-age=60", breakOff, false, never, 502},
	} {
		t.Run(test.name, func(t *testing.T) {
			var changes []change
			if test.config != nil {
				changes = append(changes, test.config)
			}
			inBubble(t, once(text("old", `ETag: "v1"`, "Cache-Control: "+test.cacheControl), test.later), changes, func(b *bubble) {
				b.want("old", "fwd=uri-miss")
				time.Sleep(61 * time.Second)
				if test.changed {
					b.db.commit("users")
				}
				if r := b.get(b.t.Context(), "/a"); r.status != test.status {
					t.Errorf("%d %q %s", r.status, r.body, r.says())
				}
			})
		})
	}
}

// Without a database nothing is proven, and clients are taken at their word.
func TestRequest_AgesThatAClientTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		serveUnwatched(t, counted("Cache-Control: max-age=60"), func(get func(lines ...string) reply) {
			want := func(says, line string) {
				t.Helper()
				if r := get(line); !strings.Contains(r.says(), says) {
					t.Errorf("%s: %q, want %q", line, r.says(), says)
				}
			}
			want("fwd=uri-miss", "X: 1")
			time.Sleep(20 * time.Second)
			want("hit; ttl=40; detail=memory", "Cache-Control: max-age=20")
			want("hit", "Cache-Control: min-fresh=40")
			want("fwd=request", "Cache-Control: max-age=19") // and is a new one
			time.Sleep(20 * time.Second)
			want("fwd=request", "Cache-Control: min-fresh=41")
			time.Sleep(70 * time.Second)
			want("hit; ttl=-10; detail=expired", "Cache-Control: max-stale=10")
			want("hit; ttl=-10; detail=expired", "Cache-Control: max-stale")
			want("fwd=stale", "Cache-Control: max-stale=9")
		})
	})
}

func TestRequest_WhatIsProvenIsOfNoAge(t *testing.T) {
	w := newWorld(t, counted("Cache-Control: max-age=600", "Age: 100"))
	w.get("/a")
	for _, line := range []string{"max-age=99", "min-fresh=501", "max-age=99, max-stale=100"} {
		r := w.get("/a", "Cache-Control: "+line)
		w.wantHit(r, "1")
		w.wantSays(r, "detail=proven")
	}
	w.wantSays(w.get("/a", "Cache-Control: max-age=300"), "detail=memory")
}

// It was never fresh here.
func TestRequest_MaxStaleIsNotForWhatCameExpired(t *testing.T) {
	w := newWorld(t, counted(`ETag: "v1"`, "Cache-Control: max-age=60", expired))
	w.get("/a")
	if r := w.get("/a", "Cache-Control: max-stale"); r.body != "2" {
		t.Errorf("%q %s", r.body, r.says())
	}
}

func TestRequest_MaxStaleIsNotForWhatChangedOrMayNotBeStale(t *testing.T) {
	for _, cacheControl := range []string{"max-age=60", "max-age=60, must-revalidate", "s-maxage=60", "max-age=60, no-cache"} {
		inBubble(t, counted(`ETag: "v1"`, "Cache-Control: "+cacheControl), nil, func(b *bubble) {
			b.want("1", "fwd=uri-miss")
			time.Sleep(61 * time.Second)
			if cacheControl == "max-age=60" {
				b.db.commit("users")
			}
			if r := b.get(b.t.Context(), "/a", "Cache-Control: max-stale"); r.body != "2" {
				t.Errorf("%s: %q %s", cacheControl, r.body, r.says())
			}
		})
	}
}
