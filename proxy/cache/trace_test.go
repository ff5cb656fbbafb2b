package cache_test

import (
	"io"
	"net/http"
	"slices"
	"testing"
)

var traceFields = []string{"X-Request-Id", "Traceparent", "Tracestate", "Traceresponse"}

const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

// named answers with the names of the request, as many services do.
func named(w http.ResponseWriter, r *http.Request) {
	for _, name := range traceFields {
		w.Header().Set(name, r.Header.Get("X-Request-Id"))
	}
	_, _ = io.WriteString(w, "ok")
}

func TestTrace_AStoredAnswerCarriesNoOtherRequestsNames(t *testing.T) {
	w := newWorld(t, named)
	first := w.get("/", "X-Request-Id: first", "Traceparent: "+parent, "Tracestate: a=b")
	if got := first.header["X-Request-Id"]; !slices.Equal(got, []string{"first"}) {
		t.Errorf("who went upstream got %q", got)
	}
	for _, hit := range []reply{w.get("/"), w.get("/", "X-Request-Id: second", "Traceparent: "+parent), w.do(http.MethodHead, "/"), w.get("/", "If-None-Match: *")} {
		if !hit.isHit() {
			t.Errorf("no hit: %s", hit.says()) // the names of a request are not in the key, and nothing personal
		}
		for _, name := range traceFields {
			if got := hit.header[name]; got != nil {
				t.Errorf("a hit carries %s: %q", name, got)
			}
		}
	}
	w.wantFetches(1)
}

func TestTrace_ACollapsedAnswerCarriesNoneOfItsLeaders(t *testing.T) {
	arrived, release := make(chan struct{}), make(chan struct{})
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-release
		named(rw, r)
	})
	leader, follower := make(chan reply, 1), make(chan reply, 1)
	go func() { leader <- w.get("/", "X-Request-Id: leader") }()
	<-arrived
	go func() { follower <- w.get("/", "X-Request-Id: follower") }()
	eventually(t, "the second waits", func() bool { return w.cache.Stats().Waiting == 1 })
	close(release)
	if got := (<-leader).header["X-Request-Id"]; !slices.Equal(got, []string{"leader"}) {
		t.Errorf("the leader got %q", got)
	}
	got := <-follower
	w.wantSays(got, "collapsed")
	for _, name := range traceFields {
		if values := got.header[name]; values != nil {
			t.Errorf("a collapsed answer carries %s: %q", name, values)
		}
	}
}

func TestTrace_AnAnswerOfItsOwnCarriesItWhateverBecameOfIt(t *testing.T) {
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("ETag", `"v1"`)
		if r.URL.Path == "/no-store" {
			rw.Header().Set("Cache-Control", "no-store")
		}
		named(rw, r)
	})
	for _, r := range []reply{
		w.get("/no-store", "X-Request-Id: mine"), w.do(http.MethodPost, "/", "X-Request-Id: mine"), w.do(http.MethodHead, "/", "X-Request-Id: mine"),
		w.get("/a", "X-Request-Id: mine", `If-None-Match: "v1"`), w.get("/b", "X-Request-Id: mine", "Cookie: a=b"),
	} {
		if got := r.header["X-Request-Id"]; !slices.Equal(got, []string{"mine"}) {
			t.Errorf("%d %s: %q", r.status, r.says(), got)
		}
	}
}

// The upstream sees other values than the client sent, so an answer that varies by
// one of them is for nobody else.
func TestTrace_WhatVariesByANameIsNotStored(t *testing.T) {
	for _, name := range traceFields[:3] {
		w := newWorld(t, text("x", "Vary: "+name))
		w.get("/")
		if again := w.get("/"); again.isHit() {
			t.Errorf("Vary: %s: %s", name, again.says())
		}
	}
}
