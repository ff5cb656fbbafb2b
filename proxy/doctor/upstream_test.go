package doctor

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestUpstream_WhatItAnswersIsTold(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		header    map[string]string
		code      int
		reachable Status
		date      string
		tags      string
	}{
		{nil, 200, OK, "it states one", "no Cache-Groups"},
		{map[string]string{"Cache-Groups": `"a"`}, 404, OK, "it states one", "--tags=trust"},
		{map[string]string{"Cache-Groups": `"a"`, "As-Of-LSN": "0/1;epoch=x"}, 200, OK, "it states one", "As-Of-LSN and Cache-Groups"},
		{nil, 302, OK, "it states none", "no Cache-Groups"},
		{nil, 503, Warning, "it states one", "no Cache-Groups"},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodGet || r.URL.Path != "/" {
				t.Errorf("%s %s", r.Method, r.URL)
			}
			for name, value := range c.header {
				w.Header().Set(name, value)
			}
			if c.code == http.StatusFound {
				w.Header()["Date"] = nil
				w.Header().Set("Location", "http://127.0.0.1:1/") // which is not followed
			}
			w.WriteHeader(c.code)
		}))
		config := redisOnly("", "wc:")
		config.Upstream = server.URL
		r := Examine(t.Context(), config)
		server.Close()
		expect(t, r, "upstream.reachable", c.reachable, http.StatusText(c.code))
		expect(t, r, "upstream.date", OK, c.date)
		expect(t, r, "upstream.tags", OK, c.tags)
	}
}

func TestUpstream_OneThatIsAwayIsAFinding(t *testing.T) {
	t.Parallel()
	config := redisOnly("", "wc:")
	config.Upstream = "http://127.0.0.1:1"
	expect(t, Examine(t.Context(), config), "upstream.reachable", Error, "refused", "--upstream")
	config.Upstream = ""
	for _, f := range Examine(t.Context(), config) {
		if f.Where == "the service" {
			t.Errorf("%s: %s", f.Check, f.What)
		}
	}
}
