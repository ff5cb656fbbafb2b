package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"walcache/proxy/coherence"
	"walcache/proxy/sandbox/sandboxtest"
)

// TestInvalidation_ReachesEveryProxy writes by way of one of two proxies, to a
// service whose writes touch no row, and wants neither to answer with what was
// there before: this one at once, the other within moments. Groups have the names
// of tables here, of which no row has changed.
func TestInvalidation_ReachesEveryProxy(t *testing.T) {
	var version atomic.Int64
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			version.Add(1)
			w.Header().Set("Location", "/named")
			w.Header().Set("Cache-Group-Invalidation", `"properties"`)
			w.WriteHeader(http.StatusSeeOther)
			return
		}
		group := map[string]string{"/member": "properties"}[r.URL.Path]
		if group == "" {
			group = "properties/id=1"
		}
		w.Header().Set("Cache-Groups", `"`+group+`"`)
		fmt.Fprint(w, version.Load())
	}))
	defer service.Close()
	share := sharing(t)
	adjust := func(o *options) {
		share(o)
		o.origin.Upstream, o.cache.TrustTags, o.cache.WriteWait = service.URL, true, 10*time.Second
	}
	first := start(t, sandboxtest.Postgres(t), adjust)
	second := first.another(adjust)
	second.awaitVouching()
	stale, kept := []string{"/own", "/named", "/member"}, "/kept"
	moved := coherence.TableTag("properties").Hash()
	before := first.tracker.MovedAt(moved)
	first.warm(kept)
	second.warm(kept)
	for n := range 5 {
		for _, path := range stale {
			for _, s := range []*system{first, second} {
				if r := s.warm(path); r.body != fmt.Sprint(n) {
					t.Fatalf("%s is %q before the write after %d", path, r.body, n)
				}
			}
		}
		first.post("/own")
		for _, path := range stale {
			if r := first.get(path); r.body != fmt.Sprint(n+1) {
				t.Errorf("%s after write %d: %q (%s)", path, n+1, r.body, r.header.Get("Cache-Status"))
			}
			second.becomes(path, fmt.Sprint(n+1))
		}
	}
	for i, s := range []*system{first, second} {
		if r := s.get(kept); !r.hit() || r.body != "0" {
			t.Errorf("proxy %d: %q (%s), and nothing it depends on has changed", i, r.body, r.header.Get("Cache-Status"))
		}
		if at := s.tracker.MovedAt(moved); at != before {
			t.Errorf("proxy %d: the table's tag moved to %s", i, at)
		}
	}
	if stats := first.cache.Stats(); stats.Invalidated != 15 || stats.WriteWaitsTimedOut != 0 {
		t.Errorf("%d invalidated, %d waits timed out", stats.Invalidated, stats.WriteWaitsTimedOut)
	}
}

// post writes by way of the proxy, under the name that fetch asks under.
func (s *system) post(path string) {
	s.t.Helper()
	req, err := http.NewRequest(http.MethodPost, s.url+path, strings.NewReader("x"))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Host = "shop.example"
	res, err := s.client.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != http.StatusSeeOther {
		s.t.Fatalf("POST %s: %s, %v", path, res.Status, err)
	}
}
