package cache_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"walcache/proxy/coherence"
)

// purge moves these hashes and nothing else, as a statement about pages, groups or
// tags.
func (d *database) purge(hashes ...coherence.Hash) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.at += 10
	var changes []coherence.Change
	for _, h := range hashes {
		changes = append(changes, coherence.Change{Hash: h, At: d.at})
	}
	d.apply(changes...)
}

func TestPurge_OfAURLReachesThatPageInAllItsVariants(t *testing.T) {
	w := newWorld(t, text("x", "Vary: Accept-Language", `Cache-Groups: "users"`, "As-Of-LSN: "+coherence.Position{Epoch: epoch, LSN: 100}.String()))
	for _, target := range []string{"/a?q=1", "/a?q=2", "/a"} {
		w.get(target, "Accept-Language: en")
		w.get(target, "Accept-Language: de")
	}
	w.db.purge(coherence.PageHash(w.proxy.URL + "/a?q=1"))
	for _, language := range []string{"en", "de"} {
		w.wantSays(w.get("/a?q=1", "Accept-Language: "+language), "fwd=stale", "detail=changed")
		w.wantHit(w.get("/a?q=2", "Accept-Language: "+language), "x")
		w.wantHit(w.get("/a", "Accept-Language: "+language), "x")
	}
}

// One URL is written in several ways.
func TestPurge_OfAURLReachesTheHostHoweverItIsWritten(t *testing.T) {
	for _, host := range []string{"example.com", "EXAMPLE.com", "example.com:80"} {
		w := newWorld(t, text("x"))
		client := func() reply {
			req, err := http.NewRequest(http.MethodGet, w.proxy.URL+"/%7Ea?B", nil)
			must(t, err)
			req.Host = host
			res, err := w.client.Do(req)
			must(t, err)
			defer res.Body.Close()
			_, err = io.Copy(io.Discard, res.Body) // with its end it is stored
			must(t, err)
			return reply{header: res.Header}
		}
		client()
		if !client().isHit() {
			t.Fatalf("%s: no hit", host)
		}
		w.db.purge(coherence.PageHash("http://example.com/%7Ea?B"))
		w.wantSays(client(), "fwd=stale", "detail=changed")
	}
}

func TestPurge_OfATagReachesAlsoWhatItDoesNotNarrow(t *testing.T) {
	position := "As-Of-LSN: " + coherence.Position{Epoch: epoch, LSN: 100}.String()
	for _, test := range []struct {
		name  string
		lines []string
	}{
		{"a tag that names no table", []string{`Cache-Groups: "homepage", "users"`, position}},
		{"no position", []string{`Cache-Groups: "users", "homepage"`}},
	} {
		w := newWorld(t, text("x", test.lines...))
		w.get("/a")
		w.db.purge(coherence.Tag("elsewhere").Hash())
		w.wantHit(w.get("/a"), "x")
		w.db.purge(coherence.Tag("homepage").Hash())
		w.wantSays(w.get("/a"), "fwd=stale", "detail=changed")
	}
}

func TestPurge_OfOneTagTooManyReachesNothing(t *testing.T) {
	var tags []string
	for i := range coherence.MaxTags + 1 {
		tags = append(tags, fmt.Sprintf(`"t%d"`, i))
	}
	w := newWorld(t, text("x", "Cache-Groups: "+strings.Join(tags, ", ")))
	w.get("/a")
	w.db.purge(coherence.Tag(fmt.Sprintf("t%d", coherence.MaxTags)).Hash())
	w.wantHit(w.get("/a"), "x")
	w.db.purge(coherence.Tag(fmt.Sprintf("t%d", coherence.MaxTags-1)).Hash())
	w.wantSays(w.get("/a"), "fwd=stale", "detail=changed")
}

func (d *database) switchOff(off bool) {
	catalog := *d.Catalog()
	catalog.Off = off
	d.SetCatalog(&catalog)
}

func TestOff_EverythingPassesUntilItIsOnAgain(t *testing.T) {
	w := newWorld(t, counted())
	w.get("/a")
	w.wantHit(w.get("/a"), "1")
	w.db.switchOff(true)
	for i, c := range []struct{ method, target string }{{"GET", "/a"}, {"HEAD", "/a"}, {"POST", "/c"}, {"DELETE", "/c"}} {
		w.wantSays(w.do(c.method, c.target), "fwd=bypass", "detail=off")
		w.wantFetches(int64(i) + 2)
	}
	w.wantSays(w.get("/b"), "fwd=bypass", "detail=off")
	w.db.switchOff(false)
	w.wantHit(w.get("/a"), "1")
	w.wantSays(w.get("/b"), "fwd=uri-miss", "stored")
	if n := w.cache.Stats().Bypassed["off"]; n != 5 {
		t.Errorf("%d requests passed", n)
	}
}

func TestOff_WhatIsOnItsWayIsNotStored(t *testing.T) {
	var w *world
	w = newWorld(t, func(rw http.ResponseWriter, _ *http.Request) { w.db.switchOff(true); fmt.Fprint(rw, "x") })
	w.wantSays(w.get("/a"), "fwd=uri-miss", "detail=off")
	w.db.switchOff(false)
	if s := w.cache.Stats(); s.Stored != 0 || s.Refused["off"] != 1 {
		t.Errorf("stored %d, refused %v", s.Stored, s.Refused)
	}
}
