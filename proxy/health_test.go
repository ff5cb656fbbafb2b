package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestHealth_TellsByTheExitCode(t *testing.T) {
	answer := http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/readyz" && r.URL.Path != "/healthz" {
			t.Errorf("asked for %s", r.URL)
		}
		w.WriteHeader(answer)
	}))
	gone := httptest.NewServer(nil)
	gone.Close()
	for _, c := range []struct {
		args   []string
		answer int
		code   int
		says   string
	}{
		{[]string{"--admin-url", server.URL}, 200, 0, ""},
		{[]string{"--admin-url", server.URL + "/"}, 503, 1, "answers 503"},
		{[]string{server.URL + "/healthz"}, 200, 0, ""},
		{[]string{server.URL + "/healthz"}, 404, 1, "answers 404"},
		{[]string{gone.URL + "/healthz"}, 200, 1, "nothing answers"},
		{[]string{"here"}, 200, 2, "no URL"},
		{[]string{server.URL, server.URL}, 200, 2, "one URL"},
	} {
		answer = c.answer
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), append([]string{"proxy", "health"}, c.args...), &stdout, &stderr)
		if code != c.code || !strings.Contains(stderr.String(), c.says) || stdout.Len() > 0 {
			t.Errorf("%v: exit code %d, %q, %q", c.args, code, &stdout, &stderr)
		}
	}
	server.Close()
}
