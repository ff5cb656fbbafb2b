package admin

import (
	"errors"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"walcache/proxy/manage"
)

const (
	asForm  = "Content-Type: application/x-www-form-urlencoded"
	browser = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
)

// submit sends a form as a browser does, and returns the answer.
func submit(s *Server, path string, fields url.Values, lines ...string) *httptest.ResponseRecorder {
	return post(s, path, fields.Encode(), append([]string{asForm, browser}, lines...)...)
}

func TestForms_AScriptGetsJSONWhateverItCallsItsBody(t *testing.T) {
	for body, line := range map[string]string{`{"all": true}`: "floor *", ` {"tag": "books"}`: "bump books", "tag=books": "bump books", "": ""} {
		_, said, s := operated(t)
		w := post(s, "/cache/purge", body, asForm, bearer, "Accept: */*")
		if strings.Join(said.said, ", ") != line || (w.Code == 200) != (line != "") {
			t.Errorf("%q: %d, said %q", body, w.Code, said.said)
		}
		object(t, w)
	}
	_, said, s := operated(t)
	if w := post(s, "/cache/off", "", asForm, bearer); w.Code != 200 || len(said.said) != 1 || object(t, w)["did"] != "cache off" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestForms_DoAsJSONDoesAndSaySoOnThePage(t *testing.T) {
	for _, c := range []struct {
		path       string
		fields     url.Values
		line, says string
	}{
		{"/cache/off?wait=all", nil, "cache off", "Caching is switched off"},
		{"/cache/on?wait=all", nil, "cache on", "Caching is switched on"},
		{"/cache/purge?wait=all", url.Values{"all": {"true"}}, "floor *", "Purged every stored answer."},
		{"/cache/purge?wait=all", url.Values{"tag": {"books/id=42"}}, "bump books/id=42", "Purged every answer that depends on the tag books/id=42."},
		{"/cache/purge?wait=all", url.Values{"url": {" http://Shop.Example:80/a%20b?q "}}, "purge http://shop.example/a%20b?q", "Purged http://shop.example/a%20b?q."},
	} {
		p, said, s := operated(t)
		w := submit(s, c.path, c.fields, bearer)
		if w.Code != 303 || len(said.said) != 1 || said.said[0] != c.line {
			t.Errorf("%s %v: %d, said %q", c.path, c.fields, w.Code, said.said)
			continue
		}
		to := w.Header().Get("Location")
		if to != "/?said=1#said" {
			t.Errorf("it leads to %q", to)
		}
		wants(t, get(t, s, "/?said=1"), `id="said"`, c.says, "It is done on every process.", "Position "+p.at.String())
		wants(t, get(t, s, "/"), c.says) // among what was done
	}
}

func TestForms_NoLinkPutsWordsIntoThePagesMouth(t *testing.T) {
	_, _, s := operated(t)
	for _, query := range []string{"/?said=7", "/?said=All+is+lost", "/?said=-1", "/?said=0", "/?message=x"} {
		if page := get(t, s, query); strings.Contains(page, `id="said"`) {
			t.Errorf("%s says something", query)
		}
	}
	submit(s, "/cache/on?next=//evil.example&wait=all", url.Values{"next": {"//evil.example"}}, bearer)
	w := submit(s, "/cache/on", url.Values{"return": {"//evil.example"}}, bearer)
	if to := w.Header().Get("Location"); to != "/?said=2#said" {
		t.Errorf("it leads to %q", to)
	}
}

func TestForms_WithoutTheTokenABrowserIsAskedForIt(t *testing.T) {
	_, said, s := operated(t)
	if w := send(s, "GET", "/"); w.Code != 200 {
		t.Errorf("to look at it on loopback: %d", w.Code)
	}
	w := submit(s, "/cache/off", nil)
	if w.Code != 401 || !strings.HasPrefix(w.Header().Get("WWW-Authenticate"), "Basic ") || len(said.said) > 0 {
		t.Errorf("%d %v, said %q", w.Code, w.Header(), said.said)
	}
	wants(t, w.Body.String(), "<h1>Not done</h1>", "the admin token is missing or wrong")
	if w := submit(s, "/cache/off", nil, basic("me", "a secret")); w.Code != 303 || len(said.said) != 1 {
		t.Errorf("with it: %d, said %q", w.Code, said.said)
	}
}

func TestForms_OfAnotherSiteAreRefused(t *testing.T) {
	_, said, s := operated(t)
	for _, line := range []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site", "Origin: http://evil.example"} {
		if w := submit(s, "/cache/off", nil, bearer, line); w.Code != 403 || len(said.said) > 0 {
			t.Errorf("%s: %d", line, w.Code)
		}
	}
}

func TestForms_SayInWordsWhatIsWrong(t *testing.T) {
	for _, fields := range []url.Values{nil, {"url": {""}}, {"url": {"/properties/"}}, {"all": {"false"}}, {"all": {"true"}, "tag": {"t"}}, {"url": {"http://h/a b"}},
		{"tag": {"t\nfloor *"}}, {"tag": {strings.Repeat("t", maxPurge+1)}}, {"url": {"http://h/<script>"}, "tag": {"<script>"}}} {
		_, said, s := operated(t)
		w := submit(s, "/cache/purge", fields, bearer)
		if w.Code != 400 || len(said.said) > 0 || strings.Contains(w.Body.String(), "<script>") {
			t.Errorf("%.60v: %d, said %.60q", fields, w.Code, said.said)
		}
		wants(t, w.Body.String(), "<h1>Not done</h1>", "Try: give a URL as clients ask for it", `<a href="/">`)
	}
	p, said, s := operated(t)
	said.err = errors.New("the primary is away")
	if w := submit(s, "/cache/off", nil, bearer); w.Code != 503 || !strings.Contains(w.Body.String(), "the primary is away") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	p.sources.Announcer = nil
	if w := submit(New(Config{Addr: loopback, Token: "a secret"}, p.sources), "/cache/off", nil, bearer); w.Code != 503 {
		t.Errorf("without a database: %d", w.Code)
	}
}

func TestConfirm_AsksBeforeWhatTouchesEverything(t *testing.T) {
	p, said, _ := operated(t)
	var err error
	p.sources.Manager, err = manage.New(manage.Config{}, p.sources.Sources)
	p.must(err)
	s := New(Config{Addr: loopback, Token: "a secret"}, p.sources)
	wants(t, get(t, s, "/"), `href="/confirm/all"`, `href="/confirm/clear"`, `href="/confirm/off"`)
	for what, line := range map[string]string{"off": "cache off", "all": "floor *", "clear": "floor *"} {
		said.said = nil
		page := get(t, s, "/confirm/"+what)
		action := regexp.MustCompile(`method="post" action="([^"]+)"`).FindStringSubmatch(page)
		if action == nil || len(said.said) > 0 {
			t.Fatalf("%s: no form in %s, said %q", what, page, said.said)
		}
		fields := url.Values{}
		for _, f := range regexp.MustCompile(`name="(\w+)" value="(\w+)"`).FindAllStringSubmatch(page, -1) {
			fields.Set(f[1], f[2])
		}
		if w := submit(s, action[1], fields, bearer); w.Code != 303 || len(said.said) != 1 || said.said[0] != line {
			t.Errorf("%s: %d, said %q", what, w.Code, said.said)
		}
	}
	if w := send(s, "GET", "/confirm/nothing"); w.Code != 404 {
		t.Errorf("nothing to confirm: %d", w.Code)
	}
}

func TestOutcomes_TheLastAreKept(t *testing.T) {
	var o outcomes
	for range 2 * keptOutcomes {
		o.add("x")
	}
	if all, said := o.read("40"); len(all) != keptOutcomes || said == nil || all[0].ID != 40 {
		t.Errorf("%d, %v", len(all), said)
	}
}
