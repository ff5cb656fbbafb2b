package api

import (
	"net/http/httptest"
	"testing"
)

func TestChoose_FormatThenAcceptThenTheUsual(t *testing.T) {
	for _, c := range []struct {
		accept      string
		read, write format
	}{
		{"", asHTML, asJSON},
		{"*/*", asHTML, asJSON},
		{"*", asHTML, asJSON},
		{"text/csv", asHTML, asJSON},
		{"application/json", asJSON, asJSON},
		{"APPLICATION/JSON", asJSON, asJSON},
		{"application/json;q=0.9", asJSON, asJSON},
		{"application/json; charset=utf-8", asJSON, asJSON},
		{"application/json, text/plain, */*", asJSON, asJSON}, // axios
		{"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", asHTML, asHTML}, // a browser
		{"text/html", asHTML, asHTML},
		{"text/html, application/json", asHTML, asHTML},
		{"application/json, text/html", asJSON, asJSON},
		{"text/html;q=0.5, application/json;q=0.6", asJSON, asJSON},
		{"text/html;q=0.5, */*;q=0.6", asJSON, asJSON},
		{"*/*, text/html;q=0.1", asJSON, asJSON},
		{"*/*, application/json", asJSON, asJSON},
		{"text/*, application/json", asJSON, asJSON},
		{"application/*, text/html", asHTML, asHTML},
		{"application/json;q=0", asHTML, asJSON}, // neither is accepted, and nobody is refused
		{"application/json;q=0, */*", asHTML, asHTML},
		{"text/html;q=0, */*", asJSON, asJSON},
		{"text/html;q=.2, */*;q=.2", asHTML, asHTML},
		{"application/json;q=2, text/html;q=0.1", asHTML, asHTML}, // not a weight
		{"application/json;q=nan, text/html;q=0.1", asHTML, asHTML},
		{`text/plain;x="a, application/json", text/html`, asHTML, asHTML},
		{",, ;;q=1, application/json", asJSON, asJSON},
		{`"`, asHTML, asJSON},
		{`"\`, asHTML, asJSON},
	} {
		for method, want := range map[string]format{"GET": c.read, "HEAD": c.read, "POST": c.write, "DELETE": c.write} {
			r := httptest.NewRequest(method, "/properties/", nil)
			if c.accept != "" {
				r.Header.Set("Accept", c.accept)
			}
			w := httptest.NewRecorder()
			if got, err := choose(w.Header(), r); got != want || err != nil || w.Header().Get("Vary") != "Accept" {
				t.Errorf("%s, Accept %q: %v, %v, %v", method, c.accept, got, err, w.Header())
			}
		}
	}
	for query, want := range map[string]format{"format=json": asJSON, "format=html": asHTML, "x=%zz&format=json": asJSON} {
		r := httptest.NewRequest("GET", "/properties/?"+query, nil)
		r.Header.Set("Accept", map[format]string{asHTML: "application/json", asJSON: "text/html"}[want])
		w := httptest.NewRecorder()
		if got, err := choose(w.Header(), r); got != want || err != nil || w.Header().Get("Vary") != "" {
			t.Errorf("?%s: %v, %v, %v", query, got, err, w.Header())
		}
	}
}
