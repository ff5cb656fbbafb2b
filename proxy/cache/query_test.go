package cache_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"walcache/proxy/cache"
	"walcache/proxy/coherence"
)

func ignoring(patterns ...string) change {
	return func(c *cache.Config) { c.IgnoreQuery = patterns }
}

// echo answers with the target that it got.
func echo(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.RequestURI) }

func TestIgnoreQuery_WhatIsIgnoredNeitherMakesAPageNorReachesTheUpstream(t *testing.T) {
	w := newWorld(t, echo, ignoring("utm_*", "gclid", "a b", "é"))
	for target, want := range map[string]string{
		"/1?a=1&utm_source=x&b=2":          "/1?a=1&b=2",
		"/2?utm_source=x":                  "/2",
		"/3?utm_source=x&gclid":            "/3",
		"/4?utm_source&b=2&gclid=&b=1":     "/4?b=2&b=1",
		"/5?utm%5Fsource=x&%67clid=y&c=%7": "/5?c=%7",
		"/6?a+b=1&a%20b=2&%C3%A9=3":        "/6",
		"/7?b=2&&utm_x=1&&a=%zz&=3":        "/7?b=2&&&a=%zz&=3",
		"/8?":                              "/8?",
		"/9?xgclid=1&gclidx=2&xutm_=3":     "/9?xgclid=1&gclidx=2&xutm_=3",
		"/10?a?utm_source=1&gclid=?":       "/10?a?utm_source=1",
		"/11?gclid=1;id=5&id=6":            "/11?gclid=1;id=5&id=6", // to some services two parameters
		"/12?utm_%zz=1":                    "/12",
		"/13?%75tm_%zz=1":                  "/13?%75tm_%zz=1", // which is no name
		"/14?UTM_source=1":                 "/14?UTM_source=1",
		"//15?gclid=1":                     "//15",
	} {
		if got := w.get(target); got.body != want {
			t.Errorf("%s reached the upstream as %s, want %s", target, got.body, want)
		}
		w.wantHit(w.get(want), want)
		w.wantHit(w.get(target), want)
	}
	w.wantFetches(15)
}

// What nobody is answered with from the store goes as it is.
func TestIgnoreQuery_LeavesWhatPassesThroughAsItWasSent(t *testing.T) {
	w := newWorld(t, echo, ignoring("gclid"), func(c *cache.Config) { c.Bypass = []string{"/bypass"} })
	if got := w.do(http.MethodPost, "/a?gclid=1").body; got != "/a?gclid=1" {
		t.Errorf("POST reached the upstream as %s", got)
	}
	if got := w.get("/bypass?gclid=1").body; got != "/bypass?gclid=1" {
		t.Errorf("what bypasses reached the upstream as %s", got)
	}
	if got := newWorld(t, echo).get("/a?gclid=1").body; got != "/a?gclid=1" {
		t.Errorf("without patterns the upstream got %s", got)
	}
}

func TestIgnoreQuery_ForEveryKindOfRequestThatMayBeStored(t *testing.T) {
	w := newWorld(t, func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Target", r.RequestURI) }, ignoring("gclid"))
	for _, r := range []reply{
		w.do(http.MethodHead, "/?gclid=1"), w.get("/?gclid=2", "Range: bytes=0-0"), w.get("/?gclid=3", "Cache-Control: no-store"),
		w.get("/?gclid=4", "Cookie: a=b"), w.get("/?gclid=5", "Authorization: x"),
	} {
		if got := r.header.Get("Target"); got != "/" {
			t.Errorf("the upstream got %s", got)
		}
	}
}

func TestIgnoreQuery_OperatorsFindThePageByWhatClientsAsk(t *testing.T) {
	w := newWorld(t, echo, ignoring("gclid"))
	asked := w.proxy.URL + "/a?gclid=1&b=2&gclid=3"
	w.get("/a?b=2&gclid=4")
	if found, err := w.cache.Inspect(t.Context(), asked); err != nil || len(found) != 1 {
		t.Errorf("%v %v", found, err)
	}
	key, err := w.cache.KeyOf(asked)
	if err != nil || key.Target != "/a?b=2" {
		t.Errorf("%v %v", key, err)
	}
	w.db.purge(coherence.PageHash(key.URL()))
	if again := w.get("/a?gclid=1&b=2"); again.isHit() {
		t.Errorf("a hit of what was purged: %s", again.says())
	}
	if key, err := (*cache.Cache)(nil).KeyOf(asked); err != nil || key.Target != "/a?gclid=1&b=2&gclid=3" {
		t.Errorf("without a cache: %v %v", key, err)
	}
}

func TestIgnoreQuery_AHitAllocatesNothingForIt(t *testing.T) {
	upstream := httptest.NewServer(text("x"))
	t.Cleanup(upstream.Close)
	c := newCache(t, upstream.URL, newDatabase(), ignoring("utm_*", "gclid"))
	for _, target := range []string{"/a", "/a?page=1&lang=en"} {
		r := httptest.NewRequest(http.MethodGet, target, nil)
		w := &sink{header: http.Header{}}
		c.ServeHTTP(w, r)
		if n := testing.AllocsPerRun(1000, func() { c.ServeHTTP(w, r) }); n != 0 {
			t.Errorf("%s: %v allocations", target, n)
		}
		if !strings.HasPrefix(w.header.Get("Cache-Status"), "walcache; hit") {
			t.Errorf("%s: %v", target, w.header)
		}
	}
}
