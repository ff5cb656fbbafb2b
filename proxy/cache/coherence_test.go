package cache_test

import (
	"fmt"
	"net/http"
	"testing"

	"walcache/proxy/coherence"
)

func TestHit_IsAnsweredFromMemory(t *testing.T) {
	w := newWorld(t, text("hello"))
	first := w.get("/a")
	w.wantSays(first, "fwd=uri-miss", "fwd-status=200", "stored")
	w.wantHit(w.get("/a"), "hello")
	w.wantSays(w.get("/a"), "hit", "detail=memory")
	w.wantFetches(1)
}

func TestChange_MakesAnAnswerWithoutTagsStale(t *testing.T) {
	n := 0
	w := newWorld(t, func(rw http.ResponseWriter, _ *http.Request) { n++; fmt.Fprint(rw, n) })
	w.get("/a")
	w.wantHit(w.get("/a"), "1")
	w.db.commit("users")
	fresh := w.get("/a")
	w.wantSays(fresh, "fwd=stale", "detail=changed", "stored")
	if fresh.body != "2" {
		t.Errorf("got %q after a change", fresh.body)
	}
	w.wantHit(w.get("/a"), "2")
	if got := w.cache.Stats().Turned; got["users"] != 1 {
		t.Errorf("turned into misses: %v, want users 1", got)
	}
}

// The row changes after the upstream read it and before its answer is stored.
func TestFill_RacingWithAChangeIsBornStale(t *testing.T) {
	var w *world
	row := "old"
	w = newWorld(t, func(rw http.ResponseWriter, _ *http.Request) {
		body := row
		if row == "old" {
			row = "new"
			w.db.commit("properties")
		}
		fmt.Fprint(rw, body)
	})
	if first := w.get("/a"); first.body != "old" {
		t.Fatalf("got %q", first.body)
	}
	second := w.get("/a")
	w.wantSays(second, "fwd=stale", "detail=changed")
	if second.body != "new" {
		t.Errorf("an answer that raced with a change was served after it: %q", second.body)
	}
	w.wantHit(w.get("/a"), "new")
}

func TestTags_NarrowOnlyBesideAPosition(t *testing.T) {
	position := coherence.Position{Epoch: epoch, LSN: 100}.String()
	for _, test := range []struct {
		name   string
		lines  []string
		change coherence.Tag
		hit    bool
	}{
		{"another row", []string{`Cache-Groups: "properties/id=1"`, "As-Of-LSN: " + position}, "properties/id=2", true},
		{"the row", []string{`Cache-Groups: "properties/id=1"`, "As-Of-LSN: " + position}, "properties/id=1", false},
		{"another table", []string{`Cache-Groups: "properties"`, "As-Of-LSN: " + position}, "users", true},
		{"no position", []string{`Cache-Groups: "properties/id=1"`}, "properties/id=2", false},
		{"a position of another epoch", []string{`Cache-Groups: "properties/id=1"`, "As-Of-LSN: 0/64;epoch=e0"}, "properties/id=2", false},
		{"two positions", []string{`Cache-Groups: "properties/id=1"`, "As-Of-LSN: " + position, "As-Of-LSN: " + position}, "properties/id=2", false},
		{"tags that do not parse", []string{`Cache-Groups: properties/id=1`, "As-Of-LSN: " + position}, "properties/id=2", false},
		{"a table that is not published", []string{`Cache-Groups: "properties/id=1", "ghosts"`, "As-Of-LSN: " + position}, "users", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, text("x", test.lines...))
			first := w.get("/a")
			for _, name := range []string{"Cache-Groups", "As-Of-LSN"} {
				if first.header.Get(name) != "" {
					t.Errorf("%s went on to the client", name)
				}
			}
			w.db.commit(test.change)
			if got := w.get("/a").isHit(); got != test.hit {
				t.Errorf("hit after a change of %s: %v, want %v", test.change, got, test.hit)
			}
		})
	}
}
