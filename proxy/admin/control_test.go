package admin

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"walcache/proxy/coherence"
)

// stream is a change stream in which what is announced is known at once.
type stream struct {
	p    *proxy
	said []string
	err  error
}

func (s *stream) Announce(_ context.Context, lines ...string) (coherence.LSN, error) {
	if s.err != nil {
		return 0, s.err
	}
	s.said = append(s.said, lines...)
	s.p.at += 10
	s.p.must(s.p.sources.Tracker.Apply(coherence.Record{Epoch: epoch, To: s.p.at}))
	return s.p.at, nil
}

// operated is a proxy whose operator has a token.
func operated(t *testing.T) (*proxy, *stream, *Server) {
	t.Helper()
	p := newProxy(t)
	p.beat()
	said := &stream{p: p}
	p.sources.Announcer = said
	return p, said, New(Config{Addr: loopback, Token: "a secret"}, p.sources)
}

func post(s http.Handler, path, body string, lines ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	r.Host, r.RemoteAddr = "127.0.0.1:8003", "127.0.0.1:50000"
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		if name == "Host" {
			r.Host = value
			continue
		}
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

const bearer = "Authorization: Bearer a secret"

func TestControl_EachIsAMessageInTheChangeStream(t *testing.T) {
	for _, c := range []struct{ path, body, line string }{
		{"/cache/off", "", "cache off"},
		{"/cache/on", "", "cache on"},
		{"/cache/purge", `{"all": true}`, "floor *"},
		{"/cache/purge", `{"tag": "books/id=42"}`, "bump books/id=42"},
		{"/cache/purge", `{"url": "http://Shop.Example:80/a%20b?q=%C3%A4&x"}`, "purge http://shop.example/a%20b?q=%C3%A4&x"},
		{"/cache/purge", `{"url": "HTTPS://shop.example:443"}`, "purge https://shop.example/"},
		{"/cache/purge", `{"url": "https://shop.example?q"}`, "purge https://shop.example/?q"},
		{"/cache/purge", `{"url": "http://shop.example:8001/x"}`, "purge http://shop.example:8001/x"},
		{"/cache/purge", `{"url": "http://[::1]:80/x"}`, "purge http://[::1]/x"},
	} {
		_, said, s := operated(t)
		w := post(s, c.path, c.body, bearer)
		if w.Code != http.StatusOK || len(said.said) != 1 || said.said[0] != c.line {
			t.Errorf("%s %s: %d, said %q", c.path, c.body, w.Code, said.said)
			continue
		}
		if m := object(t, w); m["applied"] != true || m["position"] == "" || m["did"] != c.line {
			t.Errorf("%s %s: %v", c.path, c.body, m)
		}
	}
}

func TestControl_WhatCannotBeMeantIsRefusedAndSendsNothing(t *testing.T) {
	for _, body := range []string{
		``, `[]`, `{}`, `{"url": ""}`, `{"all": false}`, `{"all": true, "tag": "books"}`, `{"urls": "x"}`, `{"url": 7}`,
		`{"url": "/properties/1/"}`, `{"url": "ftp://shop.example/"}`, `{"url": "http://shop.example/a b"}`, `{"url": "http://user@shop.example/"}`,
		`{"url": "http://shop.example/\nfloor *"}`, `{"tag": "books\nfloor *"}`, `{"tag": "books/title=ä"}`, `{"url": "http://shop.example/#x"}`,
	} {
		_, said, s := operated(t)
		w := post(s, "/cache/purge", body, bearer)
		if w.Code != http.StatusBadRequest || len(said.said) > 0 {
			t.Errorf("%s: %d, said %q", body, w.Code, said.said)
			continue
		}
		if m := object(t, w); m["error"] == "" || m["try"] == "" {
			t.Errorf("%s: %v", body, m)
		}
	}
}

func TestControl_WhoChangesThingsNeedsTheTokenEverywhere(t *testing.T) {
	p, said, _ := operated(t)
	for _, c := range []struct {
		config Config
		lines  []string
		want   int
	}{
		{Config{Addr: loopback, Token: "a secret"}, nil, 401},
		{Config{Addr: loopback, Token: "a secret"}, []string{"Authorization: Bearer another"}, 401},
		{Config{Addr: loopback}, nil, 403},
		{Config{Addr: loopback}, []string{"Authorization: Bearer "}, 403},
		{Config{Addr: loopback, Token: "a secret"}, []string{bearer}, 200},
		{Config{Addr: loopback, Token: "a secret"}, []string{bearer, "Sec-Fetch-Site: cross-site"}, 403},
		{Config{Addr: loopback, Token: "a secret", Trusting: true}, nil, 200},
		{Config{Addr: loopback, Trusting: true}, []string{"Host: localhost:8003"}, 200},
		{Config{Addr: loopback, Trusting: true}, []string{"X-Forwarded-For: 10.0.0.1"}, 403},
		{Config{Addr: loopback, Trusting: true}, []string{"Forwarded: for=10.0.0.1"}, 403},
		{Config{Addr: loopback, Trusting: true}, []string{"Via: 1.1 x"}, 403},
		{Config{Addr: loopback, Trusting: true, Hosts: []string{"ops.example"}}, []string{"Host: ops.example"}, 403},
		{Config{Addr: loopback, Trusting: true}, []string{"Host: evil.example"}, 421},
	} {
		said.said = nil
		w := post(New(c.config, p.sources), "/cache/off", "", c.lines...)
		if w.Code != c.want || (len(said.said) > 0) != (c.want == 200) {
			t.Errorf("%+v %q: %d, said %q", c.config, c.lines, w.Code, said.said)
		}
	}
}

func TestControl_TrustsNobodyWhoComesFromElsewhere(t *testing.T) {
	p, said, _ := operated(t)
	s := New(Config{Addr: everywhere, Token: "a secret", Trusting: true}, p.sources)
	r := httptest.NewRequest(http.MethodPost, "/cache/off", nil)
	r.Host, r.RemoteAddr = "127.0.0.1:8003", "192.0.2.7:50000"
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	if w.Code != http.StatusUnauthorized || len(said.said) > 0 {
		t.Errorf("from another machine: %d, said %q", w.Code, said.said)
	}
}

func TestControl_SaysWhyItCouldNot(t *testing.T) {
	p, said, s := operated(t)
	said.err = errors.New("the primary is away")
	if w := post(s, "/cache/off", "", bearer); w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "the primary is away") {
		t.Errorf("without a primary: %d %s", w.Code, w.Body)
	}
	p.sources.Announcer = nil
	s = New(Config{Addr: loopback, Token: "a secret"}, p.sources)
	if w := post(s, "/cache/off", "", bearer); w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "--database-url") {
		t.Errorf("without a database: %d %s", w.Code, w.Body)
	}
}
