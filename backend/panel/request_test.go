package panel

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

func TestForms_OfAnotherSiteAreRefused(t *testing.T) {
	s := newSite(t)
	id := s.insert("Loft", "1", "x")
	ada := s.ada()
	page := ada.get(path(id, "delete/"))
	for _, header := range [][2]string{
		{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"},
		{"Origin", "https://evil.example"}, {"Origin", "null"},
	} {
		ada.header = http.Header{header[0]: {header[1]}}
		ada.resend(path(id, "delete/"), page.body).expect(t, 403, "Another site")
		ada.resend("/admin/logout/", page.body).expect(t, 403)
		ada.do("POST", "/admin/login/", url.Values{"name": {"Ada"}, "password": {password}}).expect(t, 403)
	}
	// A proxy that sends another Host says which one the browser knows.
	ada.header = http.Header{"Origin": {"http://site.example"}, "X-Forwarded-Host": {"site.example"}}
	ada.resend(path(id, "delete/"), page.body).expect(t, 303)
}

func TestForms_NeedTheTokenOfTheirSession(t *testing.T) {
	s := newSite(t)
	id := s.insert("Loft", "1", "x")
	ada, other := s.ada(), s.ada()
	page := ada.get(path(id, "delete/"))
	for _, token := range []string{"", "x", hidden.FindStringSubmatch(other.get("/admin/").body)[2]} {
		for _, p := range []string{path(id, "delete/"), path(id, ""), "/admin/properties/add/", "/admin/password/", "/admin/logout/"} {
			ada.resend(p, page.body, "token", token).expect(t, 403, "another session")
		}
	}
	if n := s.text(`SELECT count(*)::text FROM properties`); n != "1" {
		t.Error("deleted")
	}
	ada.resend(path(id, "delete/"), page.body).expect(t, 303)
}

func TestForms_OfASessionThatEndedAreNotSaved(t *testing.T) {
	s := newSite(t)
	id := s.insert("Loft", "1", "x")
	ada := s.ada()
	page := ada.get(path(id, ""))
	for _, key := range s.keys("session:") {
		s.redis.Del(t.Context(), key)
	}
	w := ada.resend(path(id, ""), page.body, "title", "Attic", "price", "1", "location", "x")
	w.expect(t, 403, "Your session has ended, and what you sent was not saved.", `name="next" value="`+path(id, "")+`"`, `type="password"`)
	if got := s.text(`SELECT title FROM properties`); got != "Loft" {
		t.Errorf("title %s", got)
	}
	if w := ada.resend("/admin/login/", w.body, "name", "Ada", "password", password).expect(t, 303); w.to() != path(id, "") {
		t.Errorf("sent to %q", w.to())
	}
}

func TestEveryPage_IsForThoseWhoHaveLoggedIn(t *testing.T) {
	s := newSite(t)
	id := s.insert("Loft", "1", "x")
	b := s.browser()
	for _, p := range []string{"/admin/", "/admin/history/", "/admin/password/", "/admin/properties/add/", path(id, ""), path(id, "delete/"), path(id, "history/"), path(99, "")} {
		if w := b.get(p).expect(t, 303).without(t, "Loft"); w.to() != "/admin/login/?next="+url.QueryEscape(p) {
			t.Errorf("%s: sent to %q", p, w.to())
		}
		if p == "/admin/" || strings.HasSuffix(p, "history/") {
			continue
		}
		b.do("POST", p, url.Values{"title": {"Attic"}}).expect(t, 403).without(t, "Loft")
	}
	if got := s.text(`SELECT string_agg(title, ',') FROM properties`); got != "Loft" {
		t.Errorf("there are %s", got)
	}
}

func TestWrongRequests_AreToldWhatIsWrong(t *testing.T) {
	s := newSite(t)
	ada := s.ada()
	id := s.insert("Loft", "1", "x")
	for _, c := range []struct {
		method, path string
		status       int
		allow        string
	}{
		{"POST", "/admin/", 405, "GET, HEAD"},
		{"DELETE", path(id, ""), 405, "GET, HEAD, POST"},
		{"PUT", path(id, ""), 405, "GET, HEAD, POST"},
		{"OPTIONS", "/admin/history/", 405, "GET, HEAD"},
		{"GET", "/admin/logout/", 405, "POST"},
		{"PUT", "/admin/password/", 405, "GET, HEAD, POST"},
		{"PATCH", "/admin/login/", 405, "GET, HEAD, POST"},
		{"GET", "/admin/nowhere/", 404, ""},
		{"GET", "/admin/properties/", 404, ""},
		{"GET", "/admin/properties/x/", 404, ""},
		{"GET", "/admin/properties/01/", 404, ""},
		{"GET", "/admin/properties/9223372036854775808/", 404, ""},
		{"GET", "/admin/properties/-1/delete/", 404, ""},
	} {
		w := ada.do(c.method, c.path, nil)
		w.expect(t, c.status, "<h1>")
		if got := w.Header.Get("Allow"); got != c.allow {
			t.Errorf("%s %s: Allow %q", c.method, c.path, got)
		}
	}
	for path, to := range map[string]string{
		"/admin": "/admin/", "/admin?q=a%20b": "/admin/?q=a%20b", "/admin/login": "/admin/login/", "/admin/properties/1": "/admin/properties/1/",
	} {
		if w := ada.do("POST", path, url.Values{}).expect(t, 308); w.to() != to {
			t.Errorf("%s: sent to %q", path, w.to())
		}
	}
	if w := ada.do("HEAD", "/admin/", nil).expect(t, 200); w.body != "" || w.ContentLength < 1000 {
		t.Errorf("HEAD: %d bytes of %d", len(w.body), w.ContentLength)
	}
}

func TestBodies_ThatAreTooLongOrNoForm(t *testing.T) {
	s := newSite(t)
	ada := s.ada()
	long := url.Values{"title": {"Loft"}, "description": {strings.Repeat("x", maxBody)}}
	ada.do("POST", "/admin/properties/add/", long).expect(t, 413, "128 KiB")
	s.browser().do("POST", "/admin/login/", long).expect(t, 413)

	ada.header.Set("Content-Type", "application/json")
	ada.do("POST", "/admin/properties/add/", long).expect(t, 415)
	ada.header.Set("Content-Type", "multipart/form-data; boundary=x")
	ada.do("POST", "/admin/properties/add/", long).expect(t, 415)
	ada.header.Set("Content-Type", "application/x-www-form-urlencoded")
	r, err := http.NewRequestWithContext(t.Context(), "POST", s.url+"/admin/properties/add/", strings.NewReader("title=%zz"))
	if err != nil {
		t.Fatal(err)
	}
	ada.send(r).expect(t, 400)
	if n := s.text(`SELECT count(*)::text FROM properties`); n != "0" {
		t.Errorf("%s rows", n)
	}
}

func TestPages_SayWhatABrowserMayDo(t *testing.T) {
	s := newSite(t)
	id := s.insert(`<script>alert("x")</script>`, "1", `"><img src=x onerror=alert(1)>`)
	ada := s.ada()
	ada.submit(path(id, ""), "title", "<script>alert(2)</script>", "description", "</textarea><script>alert(3)</script>", "price", "2", "location", "'--><b>").expect(t, 303)
	for _, p := range []string{"/admin/", "/admin/?q=" + url.QueryEscape(`"><script>`), "/admin/?location=" + url.QueryEscape(`"><script>`), "/admin/history/", path(id, ""), path(id, "delete/"), path(id, "history/"), "/admin/nowhere"} {
		w := ada.get(p).without(t, "<script", "<img", "</textarea><")
		if csp := w.Header.Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none'") {
			t.Errorf("%s: policy %q", p, csp)
		}
		for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "same-origin"} {
			if got := w.Header.Get(name); got != want {
				t.Errorf("%s: %s %q", p, name, got)
			}
		}
	}
}

func TestPanic_IsA500ThatIsLogged(t *testing.T) {
	s := newSite(t)
	s.panel.mux.HandleFunc("/admin/broken/", func(http.ResponseWriter, *http.Request) { panic("broken on purpose") })
	s.browser().get("/admin/broken/").expect(t, 500, "An error of the service").without(t, "on purpose")
	if !strings.Contains(s.log.String(), "broken on purpose") {
		t.Error("the log does not say what")
	}
}
