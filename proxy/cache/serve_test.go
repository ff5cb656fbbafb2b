package cache_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"walcache/proxy/cache"
	"walcache/proxy/origin"
)

// counted answers with how many requests there were so far.
func counted(lines ...string) http.HandlerFunc {
	var n atomic.Int64
	return func(w http.ResponseWriter, r *http.Request) { text(fmt.Sprint(n.Add(1)), lines...)(w, r) }
}

func TestHit_HasTheHeaderOfTheStoredAnswer(t *testing.T) {
	w := newWorld(t, text("body", "Content-Type: text/x", "X-A: 1", "X-A: 2", "Age: 30", "Cache-Control: max-age=600",
		"Cache-Status: inner; hit", "Connection: X-Hop", "X-Hop: 1"))
	miss, hit := w.get("/a"), w.get("/a")
	for _, r := range []reply{miss, hit} {
		if r.status != http.StatusOK || r.body != "body" || r.header.Get("Content-Type") != "text/x" || len(r.header["X-A"]) != 2 {
			t.Errorf("%d %q %v", r.status, r.body, r.header)
		}
		if got := r.header.Values("Cache-Status"); len(got) != 2 || got[0] != "inner; hit" {
			t.Errorf("Cache-Status %q: the member of the inner cache comes first", got)
		}
		if r.header.Get("Via") != "1.1 walcache" || r.header.Get("X-Hop") != "" || r.header.Get("Content-Length") != "4" || r.header.Get("Date") == "" {
			t.Errorf("%v", r.header)
		}
		if age, err := strconv.Atoi(r.header.Get("Age")); err != nil || age < 30 || age > 40 {
			t.Errorf("Age is %q, want the inner cache's 30 and what came to it here", r.header.Get("Age"))
		}
	}
	if ttl := hit.says(); !strings.Contains(ttl, "ttl=569") && !strings.Contains(ttl, "ttl=570") {
		t.Errorf("%q, want 30 of 600 seconds gone", ttl)
	}
}

func TestHead_IsAnsweredFromTheEntryOfAGet(t *testing.T) {
	w := newWorld(t, text("body"))
	miss := w.do(http.MethodHead, "/a")
	w.wantSays(miss, "fwd=uri-miss", "fwd-status=200")
	if got := w.get("/a"); got.isHit() {
		t.Error("the answer to a HEAD was stored")
	}
	hit := w.do(http.MethodHead, "/a")
	if !hit.isHit() || hit.body != "" || hit.header.Get("Content-Length") != "4" {
		t.Errorf("%s, %q, Content-Length %s", hit.says(), hit.body, hit.header.Get("Content-Length"))
	}
	w.wantFetches(2)
}

func TestConditional_TheProxyAnswers304(t *testing.T) {
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("If-None-Match") != "" || r.Header.Get("If-Modified-Since") != "" {
			t.Error("a precondition went upstream")
		}
		text("body", `ETag: "v1"`, "Cache-Control: max-age=60", "Content-Type: text/x", "Last-Modified: Sun, 22 Nov 2026 12:00:00 GMT")(rw, r)
	})
	for i, kind := range []string{"miss", "hit"} {
		r := w.get("/a", `If-None-Match: "v0", W/"v1"`)
		if r.status != http.StatusNotModified || r.body != "" || r.header.Get("ETag") != `"v1"` || r.header.Get("Cache-Control") != "max-age=60" ||
			r.header.Get("Date") == "" || r.header.Get("Via") == "" || r.header.Get("Content-Type") != "" || r.isHit() != (i == 1) {
			t.Errorf("%s: %d %v", kind, r.status, r.header)
		}
		eventually(t, "the answer is stored", func() bool { return w.cache.Stats().Stored == 1 })
	}
	if r := w.get("/a", "If-Modified-Since: Sun, 22 Nov 2026 12:00:00 GMT"); r.status != http.StatusNotModified {
		t.Errorf("%d", r.status)
	}
	w.wantHit(w.get("/a", `If-None-Match: "v0"`), "body")
	if r := w.get("/a", `If-Match: "v1"`); r.status != http.StatusOK {
		t.Errorf("%d", r.status)
	} else {
		w.wantSays(r, "fwd=bypass", "detail=precondition")
	}
}

// Preconditions are about what a success would send (RFC 9110, section 13.2.1).
func TestConditional_WhatIsForOneClientGoesToItWhole(t *testing.T) {
	w := newWorld(t, text("x", `ETag: "1"`, "Set-Cookie: id=1"))
	if r := w.get("/a", `If-None-Match: "1"`); r.header.Get("Set-Cookie") != "id=1" {
		t.Errorf("the cookie was lost: %d %v", r.status, r.header)
	}
}

func TestConditional_AnErrorIsNotAnsweredWith304(t *testing.T) {
	w := newWorld(t, func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("ETag", `"v1"`)
		rw.WriteHeader(http.StatusNotFound)
	})
	for range 2 {
		if r := w.get("/a", `If-None-Match: "v1"`); r.status != http.StatusNotFound {
			t.Errorf("%d", r.status)
		}
	}
}

func TestVary_SelectsTheVariant(t *testing.T) {
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		text(r.Header.Get("Accept-Language"), "Vary: Accept-Language, Accept-Encoding")(rw, r)
	})
	w.get("/a", "Accept-Language: de")
	w.wantSays(w.get("/a", "Accept-Language: en"), "fwd=vary-miss", "stored")
	w.wantHit(w.get("/a", "Accept-Language: de"), "de")
	w.wantHit(w.get("/a", "Accept-Language:  en "), "en")
	w.wantSays(w.get("/a"), "fwd=vary-miss")
	w.wantFetches(3)
}

// The upstream does not see a field that Connection names.
func TestVary_RequestsThatRankOneTypeFirstShareAnAnswer(t *testing.T) {
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Vary", "Accept")
		_, _ = io.WriteString(rw, r.Header.Get("Accept"))
	}, func(c *cache.Config) { c.MediaTypes = []string{"application/json", "text/html"} })
	if r := w.get("/", "Accept: application/json, text/plain, */*"); r.body != "application/json" {
		t.Errorf("the upstream was asked for %q", r.body)
	}
	w.wantHit(w.get("/", "Accept: application/json"), "application/json")
	w.wantHit(w.get("/", "Accept: text/html;q=0.5, application/json;q=0.6"), "application/json")
	if r := w.get("/", "Accept: text/html,*/*;q=0.8"); r.body != "text/html" {
		t.Errorf("the upstream was asked for %q", r.body)
	}
	if r := w.get("/", "Accept: */*"); r.body != "*/*" { // likes both alike
		t.Errorf("the upstream was asked for %q", r.body)
	}
	w.wantFetches(3)
}

func TestVary_ByAFieldThatDoesNotGoUpstream(t *testing.T) {
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		text("in "+r.Header.Get("Accept-Language"), "Vary: Accept-Language")(rw, r)
	})
	w.get("/a", "Connection: Accept-Language", "Accept-Language: de")
	if r := w.get("/a", "Accept-Language: de"); r.body != "in de" {
		t.Errorf("got %q (%s)", r.body, r.says())
	}
	w.wantHit(w.get("/a"), "in ")
}

func TestVary_TheVariantAskedForLeastMakesRoom(t *testing.T) {
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) { text(r.Header.Get("X-V"), "Vary: X-V")(rw, r) })
	for i := range 33 {
		w.get("/a", fmt.Sprintf("X-V: %d", i))
	}
	for i := 32; i > 0; i-- {
		w.wantHit(w.get("/a", fmt.Sprintf("X-V: %d", i)), fmt.Sprint(i))
	}
	w.wantSays(w.get("/a", "X-V: 0"), "fwd=vary-miss")
}

func TestVary_AnythingIsNeverStored(t *testing.T) {
	w := newWorld(t, counted("Vary: *", "Cache-Control: max-age=60"))
	w.get("/a")
	w.wantSays(w.get("/a"), "fwd=uri-miss", "detail=vary")
}

// One coding goes upstream, and a client never gets one that it did not ask
// for, also from an origin that forgets to send Vary.
func TestEncoding_IsReducedBeforeItGoesUpstream(t *testing.T) {
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Accept-Encoding"); got != "identity" {
			rw.Header().Set("Content-Encoding", got)
		}
		fmt.Fprint(rw, r.Header.Get("Accept-Encoding"))
	})
	if r := w.get("/a", "Accept-Encoding: gzip, deflate, br"); r.body != "br" {
		t.Errorf("%q went upstream", r.body)
	}
	w.wantHit(w.get("/a", "Accept-Encoding: br;q=1.0, gzip"), "br")
	if r := w.get("/a"); r.body != "identity" {
		t.Errorf("a client that decodes nothing got %q", r.body)
	}
}

func TestRange_OnAMissGoesUpstreamAndIsNotStored(t *testing.T) {
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		http.ServeContent(rw, r, "a.txt", noTime, strings.NewReader("0123456789"))
	})
	r := w.get("/a", "Range: bytes=2-3")
	if r.status != http.StatusPartialContent || r.body != "23" {
		t.Errorf("%d %q", r.status, r.body)
	}
	w.wantSays(r, "fwd=bypass", "detail=range")
	w.wantSays(w.get("/a"), "fwd=uri-miss", "stored")
	w.wantFetches(2)
}

func TestRange_OfAStoredAnswer(t *testing.T) {
	const lastModified = "Sun, 22 Nov 2026 12:00:00 GMT"
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		text("0123456789", `ETag: "v1"`, "Content-Type: text/x", "Last-Modified: "+lastModified, "Date: Sun, 22 Nov 2026 12:05:00 GMT",
			"Cache-Control: max-age=3000000000")(rw, r)
	}, func(c *cache.Config) { c.MaxTTL = 100 * 365 * 24 * time.Hour })
	w.get("/a")
	for _, test := range []struct {
		lines  string
		status int
		body   string
		part   string // Content-Range
	}{
		{"Range: bytes=2-3", 206, "23", "bytes 2-3/10"},
		{"Range: bytes=8-", 206, "89", "bytes 8-9/10"},
		{"Range: bytes=-3", 206, "789", "bytes 7-9/10"},
		{"Range: bytes=8-20", 206, "89", "bytes 8-9/10"},
		{"Range: bytes=10-", 416, "", "bytes */10"},
		{"Range: bytes=1-2,4-5", 200, "0123456789", ""},
		{"Range: pages=1-2", 200, "0123456789", ""},
		{"Range: bytes=2-3\nIf-Range: \"v1\"", 206, "23", "bytes 2-3/10"},
		{"Range: bytes=2-3\nIf-Range: \"v0\"", 200, "0123456789", ""},
		{"Range: bytes=2-3\nIf-Range: " + lastModified, 206, "23", "bytes 2-3/10"},
		{"Range: bytes=2-3\nIf-None-Match: \"v1\"", 304, "", ""},
	} {
		r := w.get("/a", strings.Split(test.lines, "\n")...)
		if r.status != test.status || r.body != test.body || r.header.Get("Content-Range") != test.part || !r.isHit() {
			t.Errorf("%q: %d %q %v", test.lines, r.status, r.body, r.header)
		}
		if test.status < 300 && (r.header.Get("Content-Length") != strconv.Itoa(len(r.body)) || r.header.Get("ETag") != `"v1"`) {
			t.Errorf("%q: %v", test.lines, r.header)
		}
		if r.header.Get("Accept-Ranges") != "" {
			t.Error("the origin never said that it takes ranges")
		}
	}
	if r := w.do(http.MethodHead, "/a", "Range: bytes=2-3"); r.status != 200 || r.header.Get("Content-Length") != "10" {
		t.Errorf("HEAD: %d %v", r.status, r.header)
	}
	w.wantFetches(1)
}

func TestRequest_Directives(t *testing.T) {
	w := newWorld(t, counted())
	if r := w.get("/a", "Cache-Control: only-if-cached"); r.status != http.StatusGatewayTimeout {
		t.Errorf("only-if-cached: %d", r.status)
	}
	w.wantFetches(0)
	w.wantSays(w.get("/a", "Cache-Control: no-store"), "fwd=request", "detail=no-store")
	w.wantSays(w.get("/a"), "fwd=uri-miss", "stored")
	w.wantHit(w.get("/a", "Cache-Control: only-if-cached"), "2")
	if r := w.get("/a", "Cache-Control: no-store"); r.isHit() {
		t.Error("no-store was answered from the store")
	}
	for _, line := range []string{"Cache-Control: no-cache", "Cache-Control: max-age=0", "Pragma: no-cache"} {
		r := w.get("/a", line)
		w.wantHit(r, "2")
		w.wantSays(r, "detail=proven")
	}
}

func TestRequest_NoCacheIsHonouredWhereNothingIsProven(t *testing.T) {
	upstream := httptest.NewServer(counted())
	defer upstream.Close()
	c := newCache(t, upstream.URL, cache.NewUnwatched())
	get := func(lines ...string) string {
		r := httptest.NewRequest(http.MethodGet, "/a", nil)
		for _, line := range lines {
			name, value, _ := strings.Cut(line, ": ")
			r.Header.Add(name, value)
		}
		w := httptest.NewRecorder()
		c.ServeHTTP(w, r)
		return w.Body.String() + " " + w.Header().Get("Cache-Status")
	}
	get()
	if got := get(); !strings.HasPrefix(got, "1 walcache; hit") {
		t.Errorf("an ordinary cache answers %q", got)
	}
	if got := get("Cache-Control: no-cache"); !strings.HasPrefix(got, "2 walcache; fwd=request") {
		t.Errorf("no-cache is answered %q", got)
	}
}

func TestBypass_PathsPass(t *testing.T) {
	w := newWorld(t, counted(), func(c *cache.Config) { c.Bypass = []string{"/admin/*", "/cart*"} })
	for _, target := range []string{"/admin/x", "/cart", "/cart/1?a", "/%61dmin/x", "/x/../admin/y", "//admin/y", "/admin%2Fx", "//admin/", "/x/../admin/"} {
		w.get(target)
		w.wantSays(w.get(target), "fwd=bypass", "detail=path")
	}
	w.get("/administrator")
	if !w.get("/administrator").isHit() {
		t.Error("a path that no pattern matches was bypassed")
	}
}

func TestKey_IsSchemeHostAndTargetAsSent(t *testing.T) {
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) { fmt.Fprint(rw, r.RequestURI) })
	for _, target := range []string{"/a", "/a?", "/a?x=1&y=2", "/a?y=2&x=1", "/%61", "/a/", "//a", "/A"} {
		if r := w.get(target); r.isHit() || r.body != target {
			t.Errorf("%s: %q, %s", target, r.body, r.says())
		}
		w.wantHit(w.get(target), target)
	}
	long := "/" + strings.Repeat("x", 5000)
	w.get(long)
	w.wantSays(w.get(long), "fwd=bypass", "detail=key-too-long")
}

func TestMethod_OthersPassAndAreNotStored(t *testing.T) {
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Cache-Control", "max-age=60")
		fmt.Fprint(rw, r.Method)
	})
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions, "PURGE"} {
		r := w.do(method, "/a")
		w.wantSays(r, "fwd=method", "fwd-status=200")
		if r.body != method {
			t.Errorf("%s: %q", method, r.body)
		}
	}
	if w.get("/a").isHit() {
		t.Error("the answer to another method was stored")
	}
}

func TestBadTarget_Is400(t *testing.T) {
	w := newWorld(t, text("x"))
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.RequestURI = "*"
	rec := httptest.NewRecorder()
	w.cache.ServeHTTP(rec, r)
	if rec.Code != http.StatusBadRequest || !strings.HasPrefix(rec.Header().Get("Cache-Status"), origin.Pseudonym) {
		t.Errorf("%d %v", rec.Code, rec.Header())
	}
}

func TestBody_ThatBreaksOffIsNeverStored(t *testing.T) {
	for name, answer := range map[string]string{
		"shorter than its length": "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345",
		"chunked and aborted":     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n",
		"chunked and cut short":   "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n12345",
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.cache = newCache(t, rawUpstream(t, answer), w.db)
			w.proxy = httptest.NewServer(w.cache)
			defer w.proxy.Close()
			for range 2 {
				if r, err := w.try(t.Context(), http.MethodGet, "/a"); err == nil {
					t.Errorf("got %d %q (%s) as if it were complete", r.status, r.body, r.says())
				}
			}
			eventually(t, "it is refused", func() bool { return w.cache.Stats().Refused["broken"] == 2 })
			if s := w.cache.Stats(); s.Stored != 0 {
				t.Errorf("stored %d", s.Stored)
			}
		})
	}
}

func TestBody_WhoseEndIsThatOfTheConnectionIsNotStored(t *testing.T) {
	w := newWorld(t, nil)
	w.cache = newCache(t, rawUpstream(t, "HTTP/1.1 200 OK\r\n\r\n12345"), w.db)
	w.proxy = httptest.NewServer(w.cache)
	defer w.proxy.Close()
	r := w.get("/a")
	w.wantSays(r, "fwd=uri-miss", "detail=unframed")
	if r.body != "12345" {
		t.Errorf("%q", r.body)
	}
}

func TestTrailers_PassWhileACopyIsKept(t *testing.T) {
	w := newWorld(t, func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Trailer", "X-Sum")
		fmt.Fprint(rw, strings.Repeat("x", 10_000))
		rw.Header().Set("X-Sum", "42")
		rw.Header().Set(http.TrailerPrefix+"X-Late", "43")
	})
	res, err := w.client.Get(w.proxy.URL + "/a")
	must(t, err)
	_, err = io.Copy(io.Discard, res.Body)
	must(t, err)
	must(t, res.Body.Close())
	if res.Trailer.Get("X-Sum") != "42" || res.Trailer.Get("X-Late") != "43" {
		t.Errorf("trailer %v", res.Trailer)
	}
	if !w.get("/a").isHit() {
		t.Error("not stored")
	}
}

var noTime time.Time
