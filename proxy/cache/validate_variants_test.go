package cache_test

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"walcache/proxy/cache"
)

// Two tenants' pages, same Last-Modified (files deployed together).
func TestValidate_ADateSaysNothingOfAnotherVariant(t *testing.T) {
	for _, vary := range []string{"X-Tenant", "Cookie"} {
		modified := time.Now().Add(-24 * time.Hour)
		w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Vary", vary)
			rw.Header().Set("Cache-Control", "max-age=60")
			http.ServeContent(rw, r, "x.txt", modified, strings.NewReader("secret of "+r.Header.Get(vary)))
		})
		w.get("/a", vary+": a=alice")
		if r := w.get("/a", vary+": a=bob"); r.body != "secret of a=bob" {
			t.Errorf("%s: bob got %q %s", vary, r.body, r.says())
		}
	}
}

func TestValidate_AWeakTagSaysNothingOfAnotherVariant(t *testing.T) {
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Vary", "Accept-Language")
		rw.Header().Set("ETag", `W/"7"`)
		if r.Header.Get("If-None-Match") == `W/"7"` {
			rw.WriteHeader(304)
			return
		}
		io.WriteString(rw, r.Header.Get("Accept-Language"))
	})
	w.get("/a", "Accept-Language: de")
	if r := w.get("/a", "Accept-Language: en"); r.body != "en" {
		t.Errorf("got %q %s", r.body, r.says())
	}
}

func TestHead_MovesNoDateAwayFromAModification(t *testing.T) {
	var mu sync.Mutex
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	modified, body := now, "old"
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		rw.Header().Set("Date", now.Format(http.TimeFormat))
		rw.Header().Set("Cache-Control", "max-age=31536000")
		rw.Header().Set("Content-Type", "text/x")
		http.ServeContent(rw, r, "", modified, strings.NewReader(body))
	}, func(c *cache.Config) { c.MaxTTL = 1 << 60 })
	w.get("/a")
	w.wantHit(w.get("/a"), "old")
	mu.Lock()
	body = "new" // a second change in the same second
	mu.Unlock()
	w.db.commit("users")
	mu.Lock()
	now = now.Add(2 * time.Minute)
	mu.Unlock()
	w.do(http.MethodHead, "/a")
	w.get("/a")
	if r := w.get("/a"); r.body != "new" {
		t.Errorf("served as fresh: %q %s", r.body, r.says())
	}
}

// canTell judged before the queue, stamp read after it.
func TestValidate_AChangeInTheQueueIsSeen(t *testing.T) {
	made := time.Now().UTC().Truncate(time.Second)
	var mu sync.Mutex
	body := "old"
	held, open := make(chan struct{}), make(chan struct{})
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(held)
			<-open
			return
		}
		mu.Lock()
		defer mu.Unlock()
		rw.Header().Set("Date", made.Format(http.TimeFormat))
		rw.Header().Set("Cache-Control", "no-cache")
		http.ServeContent(rw, r, "a.txt", made, strings.NewReader(body))
	}, func(c *cache.Config) { c.MaxFetches = 1; c.QueueTimeout = 10 * time.Second })
	w.get("/a")
	go w.try(t.Context(), "GET", "/slow")
	<-held
	done := make(chan error)
	go func() { _, err := w.try(t.Context(), "GET", "/a"); done <- err }()
	eventually(t, "it is in the queue", func() bool { return w.cache.Stats().Misses["expired"] > 0 })
	mu.Lock()
	body = "new"
	mu.Unlock()
	w.db.commit("users")
	close(open)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for range 3 {
		r := w.get("/a")
		if r.body != "new" {
			t.Errorf("%q %s", r.body, r.says())
		}
	}
}

func TestValidate_WhoIsAskedAgainHasOneRequestID(t *testing.T) {
	n := 0
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		n++
		rw.Header().Set("ETag", `"`+strings.Repeat("v", n)+`"`)
		if r.Header.Get("If-None-Match") != "" {
			rw.WriteHeader(304)
			return
		}
		io.WriteString(rw, "x")
	})
	w.get("/a")
	w.db.commit("users")
	r := w.get("/a")
	if len(r.header["X-Request-Id"]) > 1 {
		t.Errorf("%v", r.header)
	}
}

// Two users' pages, and a tag that counts their versions.
func TestValidate_ATagSaysNothingOfAnotherUser(t *testing.T) {
	for _, tag := range []string{`W/"7"`, `"7"`} {
		w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Vary", "Cookie")
			rw.Header().Set("Cache-Control", "max-age=60")
			rw.Header().Set("ETag", tag)
			if r.Header.Get("If-None-Match") == tag {
				rw.WriteHeader(http.StatusNotModified)
				return
			}
			io.WriteString(rw, "page of "+r.Header.Get("Cookie"))
		})
		w.get("/a", "Cookie: u=bob")
		w.get("/a", "Cookie: u=alice")
		w.db.commit("users")
		if r := w.get("/a", "Cookie: u=bob"); r.body != "page of u=bob" {
			t.Errorf("bob got %q %s", r.body, r.says())
		}
	}
}
