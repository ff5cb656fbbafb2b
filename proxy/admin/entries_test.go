package admin

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"walcache/proxy/cache"
	"walcache/proxy/origin"
)

func TestEntries_ByURLSayWhyAnAnswerIsFreshOrNot(t *testing.T) {
	p := newCalmProxy(t)
	p.beat()
	p.ask("/properties", "/properties")
	s := New(Config{Addr: loopback}, p.sources)
	const where = "/entries?url=http://example.com/properties"
	wants(t, get(t, s, where), ">fresh</span>", "1 stored answer<", "It answers requests", "In memory", `<a href="/entries?tag=properties">properties</a>`, "e1")
	before := p.at
	p.commit("properties", 1)
	wants(t, get(t, s, where), ">changed</span>", "<strong>properties</strong> at "+p.at.String()+"; the answer is as of "+before.String())
	for _, how := range [][]string{{where + "&format=json"}, {where, "Accept: application/json"}} {
		m := object(t, send(s, "GET", how[0], how[1:]...))
		if m["total"] != 1. || m["url"] != "http://example.com/properties" {
			t.Errorf("%v", m)
		}
		e := m["entries"].([]any)[0].(map[string]any)
		if e["state"] != "changed" || e["layer"] != "memory" || e["moved"].([]any)[0].(map[string]any)["what"] != "properties" {
			t.Errorf("%v", e)
		}
	}
}

func TestEntries_ByTagAreCountedAndBounded(t *testing.T) {
	p := newCalmProxy(t)
	p.beat()
	for i := range maxEntries + 5 {
		p.ask(fmt.Sprintf("/properties?%d", i))
	}
	p.ask("/users")
	s := New(Config{Addr: loopback}, p.sources)
	for tag, total := range map[string]int{"properties": maxEntries + 5, "users": 1, "*": maxEntries + 6, "nothing": 0} {
		m := object(t, send(s, "GET", "/entries?format=json&tag="+tag))
		if n := len(m["entries"].([]any)); m["total"] != float64(total) || n != min(total, maxEntries) {
			t.Errorf("%s: %v, %d shown", tag, m["total"], n)
		}
	}
	wants(t, get(t, s, "/entries?tag=properties"), "105 stored answers", "the first 100 of them")
}

func TestEntries_AreNotLookedForWhenNobodyWaits(t *testing.T) {
	p := newCalmProxy(t)
	p.beat()
	p.ask("/users")
	ctx, leave := context.WithCancel(t.Context())
	leave()
	r := httptest.NewRequestWithContext(ctx, "GET", "/entries?format=json&tag=*", nil)
	r.Host = "127.0.0.1:8003"
	w := httptest.NewRecorder()
	if New(Config{Addr: loopback}, p.sources).ServeHTTP(w, r); w.Body.Len() > 0 {
		t.Errorf("%s", w.Body)
	}
}

func TestEntries_SayWhatIsWrongWithTheQuestion(t *testing.T) {
	p := newCalmProxy(t)
	s := New(Config{Addr: loopback}, p.sources)
	for _, path := range []string{"/entries", "/entries?url=&tag=", "/entries?url=http://h/&tag=t", "/entries?url=/properties/", "/entries?url=%3Cscript%3E"} {
		if w := send(s, "GET", path); w.Code != 400 || strings.Contains(w.Body.String(), "<script>") {
			t.Errorf("%s: %d", path, w.Code)
		}
		if w := send(s, "GET", path, "Accept: application/json"); w.Code != 400 || object(t, w)["try"] == "" {
			t.Errorf("%s as JSON: %d", path, w.Code)
		}
	}
	wants(t, get(t, s, "/entries?url=http://h/x"), "0 stored answers", "exactly as a client sent them")
	p.sources.Cache = nil
	if w := send(New(Config{Addr: loopback}, p.sources), "GET", "/entries?tag=t"); w.Code != 404 || !strings.Contains(w.Body.String(), "keeps no answers") {
		t.Errorf("without a cache: %d", w.Code)
	}
}

// hostile is a proxy before a service whose answers have scripts wherever they
// can be: in the URL, in tags, in what they vary by.
func hostile(t *testing.T) *proxy {
	p := newCalmProxy(t)
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Groups", `"<script>alert('tag')</script>"`)
		w.Header().Set("Vary", "X-Evil")
		_, _ = w.Write([]byte("hello"))
	}))
	t.Cleanup(service.Close)
	o, err := origin.New(origin.Config{Upstream: service.URL, Timeout: time.Minute})
	p.must(err)
	t.Cleanup(o.Close)
	config := cache.Defaults()
	config.Origin, config.Store, config.Truth, config.TrustTags = o, p.sources.Memory, p.sources.Tracker, true
	p.sources.Cache, err = cache.New(config)
	p.must(err)
	p.beat()
	r := httptest.NewRequestWithContext(context.Background(), "GET", "/?<script>alert('url')</script>", nil)
	r.Header.Set("X-Evil", "<script>alert('vary')</script>")
	p.sources.Cache.ServeHTTP(httptest.NewRecorder(), r)
	return p
}

func TestEntries_WhatIsHostileIsShownAndNotRun(t *testing.T) {
	p := hostile(t)
	s := New(Config{Addr: loopback}, p.sources)
	found := 0
	for _, path := range []string{"/", "/entries?tag=*", "/entries?url=" + url.QueryEscape("http://example.com/?<script>alert('url')</script>")} {
		page := get(t, s, path)
		for _, what := range []string{"url", "tag", "vary"} {
			if strings.Contains(page, "<script>alert('"+what) || strings.Contains(page, "<script>alert(&#39;"+what) {
				t.Errorf("%s has a script of the %s", path, what)
			}
			if strings.Contains(page, "&lt;script&gt;alert(&#39;"+what) {
				found++
			}
		}
	}
	if found < 6 {
		t.Errorf("only %d of what is hostile is shown at all", found)
	}
}
