package main

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"walcache/proxy/coherence"
)

// TestAttack_ClientsDoNotSpeakForTheService sends in requests what the service says
// in answers, and what the proxy says to the service: it neither counts nor goes on.
func TestAttack_ClientsDoNotSpeakForTheService(t *testing.T) {
	a := attack(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Groups", `"properties"`)
		w.Header().Set("As-Of-LSN", "request")
		mirror(w, r)
	}, nil)
	if first, second := a.ask("/member"), a.ask("/member"); first.hit() || !second.hit() {
		t.Fatalf("%s, %s", first, second)
	}
	table := coherence.TableTag("properties").Hash()
	before := a.tracker.MovedAt(table)
	for i, line := range []string{
		"As-Of-LSN: 0/1;epoch=evil", "As-Of-LSN: request;evil", "Min-LSN: FFFFFFFF/FFFFFFFF;epoch=evil", `Cache-Groups: "evil", "properties"`, "CDN-Cache-Control: no-store, max-age=0, evil",
		`Cache-Group-Invalidation: "evil", "properties"`, "As_Of_LSN: evil", "Min_LSN: evil", "CACHE_GROUPS: evil", "X-Walcache-Token: evil", "X_Walcache_Token: evil", "Surrogate-Control: no-store", "Cache-Status: evil; hit", "Age: 99999",
		"Expires: 0", "Set-Cookie: a=b", "Warning: 110 evil",
	} {
		target := fmt.Sprintf("/own%d", i)
		for _, method := range []string{"GET", "POST"} {
			a.requests()
			came := a.one(asking(method, target, line))
			passes := strings.HasPrefix(line, "Cache-Status") || strings.HasPrefix(line, "Warning")
			if got := a.requests(); len(got) != 1 || strings.Contains(fmt.Sprint(got[0].Header), "evil") && !passes {
				t.Errorf("%s %s: the service got %v", method, line, got[0].Header)
			}
			if method == "GET" {
				if again := a.ask(target); !again.hit() || came.header.Get("Age") != "" {
					t.Errorf("%s: stored otherwise: %s", line, again)
				}
				if entries := a.stored(target); len(entries) != 1 || strings.Join(entries[0].Tags, " ") != "properties" {
					t.Errorf("%s: stored as %+v", line, entries)
				}
			}
			tell(t, method+" with "+line, came.status, "as without it")
		}
	}
	if r := a.ask("/member"); !r.hit() || a.tracker.MovedAt(table) != before {
		t.Errorf("a client moved a tag: %s", r)
	}
}

// TestAttack_GroupsMoveNoTable has the answer to a write, which a client may have had
// a say in, name tables as groups: no row has changed.
func TestAttack_GroupsMoveNoTable(t *testing.T) {
	a := attack(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("As-Of-LSN", "request")
		w.Header().Set("Cache-Groups", `"properties", "mine"`)
		if r.Method == http.MethodPost {
			w.Header().Set("Cache-Group-Invalidation", r.Header.Get("X-Say"))
			w.Header().Set("Location", "http://other.example/kept")
		}
		_, _ = io.WriteString(w, r.Host)
	}, nil)
	tags := []coherence.Hash{coherence.TableTag("properties").Hash(), coherence.Any.Hash(), coherence.RowTag("properties", "id", "1").Hash()}
	var before []coherence.LSN
	for _, tag := range tags {
		before = append(before, a.tracker.MovedAt(tag))
	}
	a.ask("/kept", "Host: other.example")
	for _, say := range []string{`"*"`, `"properties"`, `"properties/id=1"`, `"` + strings.Repeat("x", 5000) + `"`, strings.Repeat(`"a", `, 2000) + `"b"`, `evil`, `"properties"; evil="`, "\x80"} {
		if r := a.one(asking("POST", "/write", "X-Say: "+say)); r.status != 200 {
			t.Errorf("%.40s: %s", say, r)
		}
		if r := a.ask("/kept", "Host: other.example"); !r.hit() {
			t.Errorf("%.40s: a page of another host: %s", say, r)
		}
		tell(t, fmt.Sprintf("Cache-Group-Invalidation: %.40s", say), 200, "other hosts' pages as they were")
	}
	for i, tag := range tags {
		if at := a.tracker.MovedAt(tag); at != before[i] {
			t.Errorf("tag %d moved to %s", i, at)
		}
	}
}

// TestAttack_GuessesOfTheTokenAreWorthNothing tries to have pages fetched anew, as
// operators may.
func TestAttack_GuessesOfTheTokenAreWorthNothing(t *testing.T) {
	a := attack(t, mirror, nil)
	a.ask("/page")
	for _, lines := range [][]string{
		nil, {"X-Walcache-Token: "}, {"X-Walcache-Token: a"}, {"X-Walcache-Token: a secre"}, {"X-Walcache-Token: a secret2"}, {"X-Walcache-Token: A SECRET"}, {"X-Walcache-Token: a", "X-Walcache-Token: a secret"},
		{"X_Walcache_Token: a secret"}, {"Authorization: Bearer a secret"}, {"X-Walcache-Token: " + strings.Repeat("a", 15000)}, {"Connection: X-Walcache-Token", "X-Walcache-Token: a secret"},
	} {
		a.requests()
		r := a.ask("/page", append([]string{"Cache-Control: no-cache"}, lines...)...)
		got := a.requests()
		bearer := len(lines) > 0 && strings.HasPrefix(lines[0], "Authorization") // which is the service's
		if !bearer && (!r.hit() || len(got) != 0) || bearer && r.hit() {
			t.Errorf("%.40q: %s, %d requests", lines, r, len(got))
		}
		for _, req := range got {
			if !bearer && strings.Contains(fmt.Sprint(req.Header), "secret") {
				t.Errorf("%.40q: the service got %v", lines, req.Header)
			}
		}
		tell(t, fmt.Sprintf("no-cache with %.40q", lines), r, "as before")
	}
	a.requests()
	if r := a.ask("/page", "Cache-Control: no-cache", "X-Walcache-Token: a secret"); r.hit() || len(a.requests()) != 1 {
		t.Errorf("with the token: %s", r)
	}
	if n := len(a.stored("/page")); n != 1 {
		t.Errorf("%d variants", n)
	}
	for _, path := range []string{"/cache/purge", "/purge", "/cache/off", "/cache/off?x", "//cache/off"} {
		r := ask(t, a.admin+path)
		req, err := http.NewRequest(http.MethodPost, a.admin+path, strings.NewReader(`{"all": true}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer a secre")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode < 400 || r.status == 200 && strings.Contains(r.body, "purged") {
			t.Errorf("%s: %d", path, res.StatusCode)
		}
	}
	if r := a.ask("/page"); !r.hit() {
		t.Errorf("after guesses at the admin port: %s", r)
	}
}
