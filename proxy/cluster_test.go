package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"walcache/proxy/manage"
	"walcache/proxy/sandbox/sandboxtest"
)

// awaitVouching waits until the proxy would call something fresh.
func (s *system) awaitVouching() {
	s.t.Helper()
	sandboxtest.Eventually(s.t, time.Minute, func() error {
		if now := time.Now(); !s.tracker.Vouches(now) || s.tracker.Catalog() == nil {
			return fmt.Errorf("it does not vouch: %+v", s.log.Status())
		}
		return nil
	})
}

// becomes waits until a page says what it should, be it a hit or not.
func (s *system) becomes(path, text string) response {
	s.t.Helper()
	var r response
	sandboxtest.Eventually(s.t, time.Minute, func() error {
		if r = s.get(path); !strings.Contains(r.body, text) {
			return fmt.Errorf("%s: %.200s (%s)", path, r.body, r.header.Get("Cache-Status"))
		}
		return nil
	})
	return r
}

func (r response) from(layer string) bool {
	return r.hit() && strings.HasSuffix(r.header.Get("Cache-Status"), "; detail="+layer)
}

func TestCluster_AChangeReachesEveryProxy(t *testing.T) {
	shared := sharing(t)
	first := start(t, sandboxtest.Postgres(t), shared)
	first.rows(20)
	second, third := first.another(shared), first.another(func(o *options) {
		shared(o)
		o.listener = nil // as serve --listen=false
	})
	for _, s := range []*system{first, second, third} {
		s.awaitVouching()
		s.warm(row(1))
		s.warm(row(2))
	}
	first.exec("UPDATE properties SET title = 'changed' WHERE id = 1")
	for _, s := range []*system{first, second, third} {
		s.becomes(row(1), "changed")
		if r := s.get(row(2)); !r.hit() {
			t.Errorf("the untouched page: %s", r.header.Get("Cache-Status"))
		}
	}
}

func TestCluster_WhatOneStoredTheOthersServe(t *testing.T) {
	shared := sharing(t)
	first := start(t, sandboxtest.Postgres(t), shared)
	first.rows(100)
	second := first.another(shared)
	second.awaitVouching()
	id := 0
	sandboxtest.Eventually(t, time.Minute, func() error { // the first stores later than it answers
		id++
		first.warm(row(id))
		if r := second.get(row(id)); !r.from("redis") {
			return fmt.Errorf("%s", r.header.Get("Cache-Status"))
		}
		return nil
	})
	if r := second.get(row(id)); !r.from("memory") {
		t.Errorf("asked again: %s", r.header.Get("Cache-Status"))
	}
}

// TestCluster_AFollowerTakesOver stops the leader: the next one goes on in the
// same epoch, and what is stored stays good.
func TestCluster_AFollowerTakesOver(t *testing.T) {
	shared := sharing(t)
	first := start(t, sandboxtest.Postgres(t), shared)
	first.rows(20)
	second := first.another(shared)
	second.awaitVouching()
	second.warm(row(2))
	epoch := first.tracker.Epoch()
	first.exec("UPDATE properties SET title = 'before' WHERE id = 1")
	first.stop()
	second.exec("UPDATE properties SET title = 'after' WHERE id = 1")
	second.becomes(row(1), "after")
	sandboxtest.Eventually(t, time.Minute, func() error {
		if st := second.listener.Status(); st.State != "streaming" {
			return fmt.Errorf("the follower is %s", st.State)
		}
		return nil
	})
	second.awaitVouching()
	if r := second.get(row(2)); !r.hit() || second.tracker.Epoch() != epoch {
		t.Errorf("after the take-over: %s, in epoch %s, before %s", r.header.Get("Cache-Status"), second.tracker.Epoch(), epoch)
	}
}

func TestCluster_ARestartedProxyIsWarm(t *testing.T) {
	shared := sharing(t)
	first := start(t, sandboxtest.Postgres(t), shared)
	first.rows(50)
	for id := 1; id <= 50; id++ {
		first.warm(row(id))
	}
	first.exec("UPDATE properties SET title = 'changed' WHERE id = 7")
	first.caughtUp() // what was read before the change is known is stale once it is
	first.becomes(row(7), "changed")
	first.warm(row(7))
	first.stop() // which writes what it has stored
	again := first.another(shared)
	again.awaitVouching()
	lost := 0
	for id := 1; id <= 50; id++ {
		if r := again.get(row(id)); !r.hit() {
			lost++
			t.Logf("%d: %s", id, r.header.Get("Cache-Status"))
		}
	}
	// Nobody waits for Redis: a machine that stands still may cost pages.
	wrote, read := first.pages.Stats(), again.pages.Stats()
	excused := read.Failures + read.Skipped
	for _, n := range wrote.Dropped {
		excused += n
	}
	if uint64(lost) > excused {
		t.Errorf("%d of 50 pages are no hits after a restart\nwritten: %+v\nread: %+v", lost, wrote, read)
	}
}

// operate has an operator do something.
func (s *system) operate(path, content string) manage.Done {
	s.t.Helper()
	req, err := http.NewRequest(http.MethodPost, s.admin+path, strings.NewReader(content))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer a secret")
	res, err := s.client.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	var done manage.Done
	if err := json.NewDecoder(res.Body).Decode(&done); err != nil || res.StatusCode != http.StatusOK {
		s.t.Fatalf("%s %s: %s, %v", path, content, res.Status, err)
	}
	return done
}

func TestCluster_APurgeReachesEveryProxy(t *testing.T) {
	shared := sharing(t)
	first := start(t, sandboxtest.Postgres(t), shared)
	first.rows(20)
	second := first.another(shared)
	second.awaitVouching()
	for _, purge := range []struct {
		content string
		stale   []string
	}{
		{`{"url": "http://shop.example` + row(1) + `"}`, []string{row(1)}},
		{`{"url": "HTTP://SHOP.example:80` + row(2) + `"}`, []string{row(2)}},
		{`{"tag": "properties/id=3"}`, []string{row(3)}},
		{`{"all": true}`, []string{row(1), row(2), row(3), row(4)}},
	} {
		for _, s := range []*system{first, second} {
			for id := 1; id <= 4; id++ {
				s.warm(row(id))
			}
		}
		if done := second.operate("/cache/purge?wait=all", purge.content); !done.All || !done.Applied {
			t.Errorf("%s: %+v", purge.content, done)
		}
		for id := 1; id <= 4; id++ {
			is := !first.get(row(id)).hit()
			if want := strings.Contains(strings.Join(purge.stale, " "), row(id)); is != want {
				t.Errorf("%s: %s stale is %t", purge.content, row(id), is)
			}
		}
	}
}

func TestCluster_CachingIsSwitchedOffAndOnEverywhere(t *testing.T) {
	shared := sharing(t)
	first := start(t, sandboxtest.Postgres(t), shared)
	first.rows(2)
	second := first.another(shared)
	second.awaitVouching()
	first.warm(row(1))
	second.warm(row(1))
	first.operate("/cache/off?wait=all", "")
	for _, s := range []*system{first, second} {
		if r := s.get(row(1)); !strings.Contains(r.header.Get("Cache-Status"), "detail=off") {
			t.Errorf("switched off: %s", r.header.Get("Cache-Status"))
		}
	}
	third := first.another(shared) // which came later
	third.awaitVouching()
	if r := third.get(row(1)); !strings.Contains(r.header.Get("Cache-Status"), "detail=off") {
		t.Errorf("a process that came later: %s", r.header.Get("Cache-Status"))
	}
	first.stop() // the leader; who takes over keeps it off
	sandboxtest.Eventually(t, time.Minute, func() error {
		if second.listener.Status().State != "streaming" && third.listener.Status().State != "streaming" {
			return fmt.Errorf("nobody leads")
		}
		return nil
	})
	if r := second.get(row(1)); !strings.Contains(r.header.Get("Cache-Status"), "detail=off") {
		t.Errorf("after a take-over: %s", r.header.Get("Cache-Status"))
	}
	second.operate("/cache/on?wait=all", "")
	second.warm(row(1))
	third.warm(row(1))
}

func TestCluster_ClientsReadTheirOwnWritesOnAFollower(t *testing.T) {
	shared := sharing(t)
	first := start(t, sandboxtest.Postgres(t), shared)
	first.rows(1)
	second := first.another(shared)
	second.awaitVouching()
	old := 0
	for n := range 100 {
		second.warm(row(1))
		title := fmt.Sprintf("title %d", n)
		first.exec("UPDATE properties SET title = '" + title + "' WHERE id = 1")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		if err := second.listener.CatchUp(ctx); err != nil {
			t.Fatal(err)
		}
		cancel()
		if r := second.get(row(1)); !strings.Contains(r.body, title) {
			old++
		}
	}
	if old > 0 {
		t.Errorf("%d of 100 answers after a write were older than it", old)
	}
}
