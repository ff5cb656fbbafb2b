package cache_test

import (
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"walcache/proxy/cache"
)

func TestQueue_WhoWaitsTooLongGets503(t *testing.T) {
	g := newGate()
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			g.pass(r)
		}
		fmt.Fprint(rw, "x")
	}, func(c *cache.Config) { c.MaxFetches, c.QueueTimeout = 1, 20*time.Millisecond })
	go func() { _, _ = w.try(t.Context(), http.MethodGet, "/slow") }()
	eventually(t, "the slot is taken", func() bool { return g.at.Load() == 1 })
	r := w.get("/a")
	if r.status != http.StatusServiceUnavailable || r.header.Get("Retry-After") == "" {
		t.Errorf("got %d, Retry-After %q", r.status, r.header.Get("Retry-After"))
	}
	if r := w.do(http.MethodPost, "/a"); r.status != http.StatusOK {
		t.Error("a write had to wait behind a read")
	}
	close(g.open)
	if s := w.cache.Stats(); s.Fetches.Refused != 1 || s.Fetches.Peak != 1 {
		t.Errorf("%+v", s.Fetches)
	}
}

func TestQueue_BoundsTheUpstreamsConcurrency(t *testing.T) {
	var at, most atomic.Int64
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		for n, m := at.Add(1), most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		defer at.Add(-1)
		time.Sleep(time.Millisecond)
		fmt.Fprint(rw, "x")
	}, func(c *cache.Config) { c.MaxFetches = 8 })
	var wg sync.WaitGroup
	for i := range 500 {
		wg.Go(func() {
			if r, err := w.try(t.Context(), http.MethodGet, fmt.Sprint("/", i)); err != nil || r.body != "x" {
				t.Errorf("%v %q", err, r.body)
			}
		})
	}
	wg.Wait()
	if most.Load() > 8 || w.cache.Stats().Fetches.Peak > 8 {
		t.Errorf("%d at a time, peak %d", most.Load(), w.cache.Stats().Fetches.Peak)
	}
}
