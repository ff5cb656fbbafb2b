package web

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"
)

func TestParse_APageHasTheLayoutAndItsOwnParts(t *testing.T) {
	pages, err := Parse(fstest.MapFS{
		"_row.html": {Data: []byte(`{{define "row"}}<li>{{.}}</li>{{end}}`)},
		"one.html":  {Data: []byte(`{{define "main"}}<ul>{{range .Rows}}{{template "row" .}}{{end}}</ul>{{end}}`)},
		"two.html":  {Data: []byte(`{{define "main"}}two{{end}}{{define "nav"}}<li>mine</li>{{end}}`)},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	data := struct {
		Title string
		Rows  []string
	}{"A & B", []string{"<script>"}}
	for name, want := range map[string][]string{
		"one": {"<title>A &amp; B</title>", "<li>&lt;script&gt;</li>", `href="/static/`, `href="/admin/"`},
		"two": {"two", "<li>mine</li>"},
	} {
		page, err := pages.Render(name, data)
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range want {
			if !strings.Contains(string(page), part) {
				t.Errorf("%s lacks %s:\n%s", name, part, page)
			}
		}
	}
	if _, err := pages.Render("three", data); err == nil {
		t.Error("there is a page that nobody wrote")
	}
}

func TestAssets_HoldForEver(t *testing.T) {
	url, err := Asset("site.css")
	if err != nil {
		t.Fatal(err)
	}
	for path, status := range map[string]int{url: 200, "/static/old/site.css": 404, "/static/": 404, url + "/x": 404} {
		w := httptest.NewRecorder()
		Assets().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if w.Code != status {
			t.Errorf("%s: %d", path, w.Code)
		}
		if status == 200 && (!strings.Contains(w.Header().Get("Cache-Control"), "immutable") || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/css")) {
			t.Errorf("%s: %v", path, w.Header())
		}
	}
	if _, err := Asset("none.css"); err == nil {
		t.Error("there is an asset that nobody has")
	}
}

func TestAssetsBelow_AreOthersThanThoseOfTheSite(t *testing.T) {
	const prefix = "/properties/redis-metrics/static/"
	url, err := AssetBelow(prefix)("live.js")
	if err != nil || !strings.HasPrefix(url, prefix) {
		t.Fatalf("%s %v", url, err)
	}
	site, err := Asset("live.js")
	if err != nil {
		t.Fatal(err)
	}
	for path, status := range map[string]int{url: 200, site: 404} {
		w := httptest.NewRecorder()
		AssetsBelow(prefix).ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if w.Code != status || status == 200 && !strings.Contains(w.Header().Get("Content-Type"), "javascript") {
			t.Errorf("%s: %d %v", path, w.Code, w.Header())
		}
	}
}

func TestWriteLive_LetsOurOwnScriptsRun(t *testing.T) {
	policies := map[string]func(http.ResponseWriter, int, []byte){"": Write, "script-src 'self'; connect-src 'self'": WriteLive}
	for has, write := range policies {
		w := httptest.NewRecorder()
		write(w, 200, []byte("page"))
		policy := w.Header().Get("Content-Security-Policy")
		if !strings.HasPrefix(policy, "default-src 'none'") || strings.Contains(policy, "script-src") != (has != "") || !strings.HasSuffix(policy, has) {
			t.Errorf("policy %q", policy)
		}
	}
}
