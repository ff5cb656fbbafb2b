package api

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"walcache/proxy/web"
)

// page gets a page as a browser does.
func (s *site) page(path string) (*http.Response, string) {
	s.t.Helper()
	return s.send("GET", path, "", "Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")
}

func (s *site) expectPage(path string, status int, parts ...string) *http.Response {
	s.t.Helper()
	w, page := s.page(path)
	if w.StatusCode != status {
		s.t.Errorf("%s: %d", path, w.StatusCode)
	}
	expectHeader(s.t, path, w, "Content-Type", "text/html; charset=utf-8")
	expectHeader(s.t, path, w, "X-Content-Type-Options", "nosniff")
	if !strings.Contains(w.Header.Get("Content-Security-Policy"), "default-src 'none'") {
		s.t.Errorf("%s: no policy", path)
	}
	for _, part := range parts {
		if !strings.Contains(page, part) {
			s.t.Errorf("%s lacks %s:\n%s", path, part, page)
		}
	}
	s.expectSound(path, page)
	return w
}

// expectSound looks for what keeps people out: controls without a label, images,
// scripts, headings that leave a level out, ids given twice.
func (s *site) expectSound(path, page string) {
	s.t.Helper()
	root, err := html.Parse(strings.NewReader(page))
	if err != nil {
		s.t.Fatal(err)
	}
	level, ids, labelled := 0, map[string]bool{}, map[string]bool{}
	for n := range root.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		attr := map[string]string{}
		for _, a := range n.Attr {
			attr[a.Key] = a.Val
		}
		if id, ok := attr["id"]; ok && ids[id] {
			s.t.Errorf("%s: two elements have the id %q", path, id)
		} else if ok {
			ids[id] = true
		}
		switch n.Data {
		case "h1", "h2", "h3":
			if next := int(n.Data[1] - '0'); next > level+1 {
				s.t.Errorf("%s: <%s> after a heading of level %d", path, n.Data, level)
			} else {
				level = next
			}
		case "label":
			labelled[attr["for"]] = true
		case "input", "select":
			inLabel := false
			for p := range n.Ancestors() {
				inLabel = inLabel || p.Data == "label"
			}
			if attr["type"] != "hidden" && !inLabel && !labelled[attr["id"]] {
				s.t.Errorf("%s: <%s name=%q> has no label", path, n.Data, attr["name"])
			}
		case "script", "img":
			s.t.Errorf("%s: <%s> %v", path, n.Data, attr)
		}
	}
	if level == 0 {
		s.t.Errorf("%s: no heading", path)
	}
}

func TestPages_ShowWhatTheJSONSays(t *testing.T) {
	s := newMigratedSite(t)
	s.exec(insertTwo)
	w := s.expectPage("/properties/", 200, "<title>Property Listings</title>", "<h1>Property Listings</h1>", "Total Properties: 2",
		`<a href="/properties/1/">Loft</a>`, "Two &#34;rooms&#34; &amp; a 🏠", "$2,100.00", "</span> Nairobi", `<time datetime="2026-11-22T19:07:28Z">November 22, 2026</time>`,
		"$0.50", `<option>São Tomé</option>`, `href="/properties/?format=json"`, "⚡ Multi-level caching")
	expectHeader(t, "list", w, "Cache-Control", "no-cache")
	expectHeader(t, "list", w, "CDN-Cache-Control", "max-age=900")
	expectHeader(t, "list", w, "Vary", "Accept")
	s.expectPage("/properties/1/", 200, "<title>Loft</title>", "<h1>Loft</h1>", "$2,100.00", "November 22, 2026", `href="/properties/?location=Nairobi"`)
	w = s.expectPage("/properties/no-cache/", 200, "Total Properties: 2", "This page bypasses all caching.", "$2,100.00")
	expectHeader(t, "no-cache", w, "Cache-Control", "no-store")
	if _, body := s.send("GET", "/properties/no-cache/?format=json", "", "Accept", "text/html"); !json.Valid([]byte(body)) {
		t.Errorf("no-cache as JSON: %s", body)
	}
}

func TestPages_TheFormSaysWhatWasAsked(t *testing.T) {
	s := newMigratedSite(t)
	s.exec(insertFive)
	s.expectPage(`/properties/?search=%22lo%22&location=Lagos+%26+co&min_price=1&max_price=2&sort=-price&page_size=7&format=html`, 200,
		`name="search" value="&#34;lo&#34;"`, `<option selected>Lagos &amp; co</option>`, `name="min_price" value="1.00"`, `name="max_price" value="2.00"`,
		`<option value="-price" selected>Highest price first</option>`, `<option value="7" selected>7</option>`, `<details open>`,
		`<input type="hidden" name="format" value="html">`, "No properties match", "Matching Properties: 0")
	w := s.expectPage("/properties/?sort=title&page_size=2&page=2", 200, "Page 2 of 3",
		`<a href="/properties/?page=1&amp;page_size=2&amp;sort=title" rel="prev">Previous</a>`, `<a href="/properties/?page=3&amp;page_size=2&amp;sort=title" rel="next">Next</a>`)
	if w.Header.Get("Link") == "" {
		t.Error("a page of HTML has no Link header")
	}
	s.expectPage("/properties/?page=9", 200, "This page is past the end of the list", `<a href="/properties/?page=1&amp;page_size=20" role="button">`)
}

func TestPages_EmptyAndWrongStates(t *testing.T) {
	s := newMigratedSite(t)
	s.expectPage("/properties/", 200, "No properties available", "Total Properties: 0", `<a href="/admin/" role="button">Go to Admin</a>`)
	w := s.expectPage("/properties/7/", 404, "<h1>Not Found</h1>", "there is no property 7")
	expectHeader(t, "404", w, "Cache-Groups", `"properties/id=7", "releases"`)
	expectHeader(t, "404", w, "CDN-Cache-Control", "max-age=900")
	for path, status := range map[string]int{"/properties/?page=x": 400, "/nowhere/": 404, "/properties/x/": 404} {
		w := s.expectPage(path, status, "Go to the properties")
		expectHeader(t, path, w, "Cache-Control", "no-store")
		expectHeader(t, path, w, "Vary", "Accept")
	}
	s.expectPage("/properties/?page=x", 400, "<strong>page</strong>: must be a whole number")
	s.exec(`ALTER TABLE properties RENAME TO elsewhere`)
	w = s.expectPage("/properties/", 503, "<h1>Service Unavailable</h1>", "the database is unavailable, try again soon")
	expectHeader(t, "503", w, "Retry-After", "2")
}

func TestPages_MarkupInAPropertyIsText(t *testing.T) {
	s := newMigratedSite(t)
	s.exec(`INSERT INTO properties (title, description, price, location) VALUES
		('<script>alert(1)</script>', '</p><img src=x onerror=alert(1)>', 1, '"><script>alert(2)</script>')`)
	const title = "&lt;script&gt;alert(1)&lt;/script&gt;"
	s.expectPage("/properties/", 200, title, "&lt;img src=x")
	s.expectPage("/properties/1/", 200, "<title>"+title+"</title>", "<h1>"+title+"</h1>")
	s.expectPage("/properties/?location=%22%3E%3Cscript%3Ealert(2)%3C/script%3E", 200, title)
	s.expectPage("/properties/?search=%22%3E%3Cscript%3E", 200, "&lt;script&gt;")
	s.expectPage("/properties/%3Cscript%3E/", 404, "there is no property &lt;script&gt;")
}

func TestPages_HaveETagsOfTheirOwn(t *testing.T) {
	s := newMigratedSite(t)
	s.exec(insertTwo)
	for _, path := range []string{"/properties/", "/properties/1/"} {
		forPeople, _ := s.page(path)
		again, _ := s.page(path)
		forPrograms, _ := s.do("GET", path)
		tag := forPeople.Header.Get("ETag")
		if tag == "" || tag != again.Header.Get("ETag") || tag == forPrograms.Header.Get("ETag") {
			t.Errorf("%s: %s, then %s, and %s of the JSON", path, tag, again.Header.Get("ETag"), forPrograms.Header.Get("ETag"))
		}
		if w, _ := s.send("GET", path, "", "Accept", "text/html", "If-None-Match", tag); w.StatusCode != 304 {
			t.Errorf("%s: %d", path, w.StatusCode)
		}
	}
}

func TestAssets_AreOfTheRelease(t *testing.T) {
	s := newMigratedSite(t)
	url, err := web.Asset("site.css")
	if err != nil {
		t.Fatal(err)
	}
	w, body := s.send("GET", url, "")
	if w.StatusCode != 200 || body == "" {
		t.Errorf("%d %q", w.StatusCode, body)
	}
	expectHeader(t, url, w, "Cache-Groups", `"releases"`)
	expectHeader(t, url, w, "As-Of-LSN", "request")
	if w, _ := s.send("GET", "/static/old/site.css", ""); w.StatusCode != 404 {
		t.Errorf("an old asset: %d", w.StatusCode)
	}
}

func TestMoney_IsGroupedByThousands(t *testing.T) {
	for price, want := range map[string]string{"0.50": "$0.50", "999.00": "$999.00", "2100.00": "$2,100.00", "123456.78": "$123,456.78", "99999999.99": "$99,999,999.99"} {
		if got := money(price); got != want {
			t.Errorf("%s: %s, want %s", price, got, want)
		}
	}
}
