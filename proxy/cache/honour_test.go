package cache_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"walcache/proxy/cache"
)

// counting answers with how often it was asked.
func counting() http.HandlerFunc {
	var n atomic.Int64
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Got"] = []string{fmt.Sprint(r.Header)}
		w.Header().Set("Vary", "X-Walcache-Token")
		fmt.Fprint(w, n.Add(1))
	}
}

var asksForProof = []string{"Cache-Control: no-cache", "Cache-Control: max-age=0", "Pragma: no-cache"}

func TestClientCacheControl_AnOperatorFetchesAnewForAll(t *testing.T) {
	w := newWorld(t, counting(), func(c *cache.Config) { c.Token = "s3cret" })
	w.get("/")
	for i, line := range asksForProof {
		want := fmt.Sprint(i + 2)
		got := w.get("/", line, "X-Walcache-Token: s3cret")
		w.wantSays(got, "fwd=request", "stored")
		if got.body != want {
			t.Errorf("%s: got %s, want %s", line, got.body, want)
		}
		if strings.Contains(fmt.Sprint(got.header), "s3cret") {
			t.Errorf("%s: the token reached the upstream: %v", line, got.header["Got"])
		}
		w.wantHit(w.get("/"), want)
		w.wantHit(w.get("/", line), want)
	}
	w.wantHit(w.get("/", "X-Walcache-Token: s3cret"), "4") // who does not ask for proof
}

func TestClientCacheControl_NobodyElseDoes(t *testing.T) {
	for _, token := range []string{"s3cret", ""} {
		w := newWorld(t, counting(), func(c *cache.Config) { c.Token = token })
		w.get("/")
		for _, lines := range [][]string{
			{"X-Walcache-Token: wrong"}, {"X-Walcache-Token: "}, {"X-Walcache-Token: s3cret", "X-Walcache-Token: s3cret"},
			{"Authorization: Bearer s3cret"}, {"X_Walcache_Token: s3cret"}, {"Connection: X-Walcache-Token", "X-Walcache-Token: s3cret"},
		} {
			got := w.get("/", append(lines, "Cache-Control: no-cache")...)
			if slices.Contains(lines, "Authorization: Bearer s3cret") {
				if got.isHit() || !strings.Contains(got.header.Get("Got"), "s3cret") {
					t.Errorf("%q: %s; what is the service's has to reach it", lines, got.says())
				}
				continue
			}
			w.wantHit(got, "1")
			w.wantSays(got, "detail=proven")
		}
	}
}

func TestClientCacheControl_HonourFetchesAnewForWhoeverAsks(t *testing.T) {
	w := newWorld(t, counting(), func(c *cache.Config) { c.HonourClients = true })
	w.get("/")
	for i, line := range asksForProof {
		want := fmt.Sprint(i + 2)
		got := w.get("/", line)
		w.wantSays(got, "fwd=request", "stored")
		if got.body != want {
			t.Errorf("%s: got %s, want %s", line, got.body, want)
		}
		w.wantHit(w.get("/"), want)
	}
	w.wantHit(w.get("/", "Cache-Control: max-age=60"), "4")
}

// Who asks for it anew may share a fetch only if that began later.
func TestClientCacheControl_HonouredIsNeverAnsweredFromAnEarlierFetch(t *testing.T) {
	arrived, release := make(chan struct{}, 8), make(chan struct{})
	var n atomic.Int64
	w := newWorld(t, func(rw http.ResponseWriter, _ *http.Request) {
		mine := n.Add(1)
		arrived <- struct{}{}
		<-release
		fmt.Fprint(rw, mine)
	}, func(c *cache.Config) { c.HonourClients = true })
	first, second := make(chan reply, 1), make(chan reply, 1)
	go func() { first <- w.get("/", "Cache-Control: no-cache") }()
	<-arrived
	go func() { second <- w.get("/", "Cache-Control: no-cache") }()
	eventually(t, "the second waits", func() bool { return w.cache.Stats().Waiting == 1 })
	close(release)
	if a, b := <-first, <-second; a.body != "1" || b.body != "2" {
		t.Errorf("got %s and %s", a.body, b.body)
	}
}
