package admin

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"walcache/proxy/coherence"
	"walcache/proxy/sandbox/sandboxtest"
)

// get asks for a page, and returns its HTML.
func get(t *testing.T, s http.Handler, path string, lines ...string) string {
	t.Helper()
	w := send(s, "GET", path, lines...)
	if w.Code != 200 {
		t.Fatalf("%s: %d %s", path, w.Code, w.Body)
	}
	if kind := w.Header().Get("Content-Type"); kind != "text/html; charset=utf-8" {
		t.Fatalf("%s is %s", path, kind)
	}
	return w.Body.String()
}

// wants reports which texts a page lacks.
func wants(t *testing.T, page string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(page, text) {
			t.Errorf("no %q in\n%s", text, page)
		}
	}
}

func TestPage_SaysInWordsHowThingsStand(t *testing.T) {
	p := newCalmProxy(t)
	s := New(Config{Addr: loopback}, p.sources)
	wants(t, get(t, s, "/"), "Does not vouch", "none yet", "Nothing has changed since", "shares nothing with others")
	p.beat()
	wants(t, get(t, s, "/"), "<strong>Vouches.</strong>", "Every hit is proven fresh.", "/confirm/off")
	p.sources.Tracker.SetCatalog(&coherence.Catalog{Tables: map[string]coherence.Table{}, Off: true})
	wants(t, get(t, s, "/"), "Switched off.", `action="/cache/on?wait=all"`)
	s.Drain()
	wants(t, get(t, s, "/"), "Stopping.")
}

func TestPage_ShowsLayersReasonsKeysRoutesAndTables(t *testing.T) {
	p := newCalmProxy(t)
	p.beat()
	p.ask("/properties", "/properties", "/users")
	p.commit("properties", 3)
	p.ask("/properties")
	page := get(t, New(Config{Addr: loopback}, p.sources), "/")
	wants(t, page, "33.3 %", "<dt>uri-miss <small>nothing was stored under the URL</small></dt><dd>2</dd>",
		`<a href="/entries?url=http%3a%2f%2fexample.com%2fproperties">http://example.com/properties</a>`, `<a href="/entries?tag=properties">properties</a>`)
}

func TestPage_OfAnOrdinaryCacheAndOfOneWhoOnlyListens(t *testing.T) {
	p := ordinary(t)
	p.ask("/a", "/a")
	page := get(t, New(Config{Addr: loopback}, p.sources), "/")
	wants(t, page, "Ordinary cache", "follows no database", "50.0 %")
	if strings.Contains(page, "/confirm/") || strings.Contains(page, "/cache/purge") {
		t.Error("it offers what it cannot do")
	}
	listens := newCalmProxy(t)
	listens.sources.Cache, listens.sources.Memory = nil, nil
	listens.beat()
	page = get(t, New(Config{Addr: loopback}, listens.sources), "/")
	wants(t, page, "<strong>Listening.</strong>", "keeps no answers", `action="/cache/purge?wait=all"`, "Changes as they happen")
}

func TestPage_ShowsWhatIsSharedThroughRedis(t *testing.T) {
	p := busy(t)
	ended, ctx := make(chan error), t.Context()
	go func() { ended <- p.sources.Records.Run(ctx) }()
	t.Cleanup(func() { p.must(<-ended) })
	s := New(Config{Addr: loopback}, p.sources)
	wants(t, get(t, s, "/"), "Pages in Redis", "<dt>Breaker</dt><dd>closed</dd>", "reads it", "<dt>Reader</dt>")
	sandboxtest.Eventually(t, patience, func() error {
		if !strings.Contains(get(t, s, "/"), "(this)</th><td>no</td>") {
			return errors.New("this process is not among those of the cluster")
		}
		return nil
	})
}

func TestPage_NothingOnItIsAScriptOfSomebodyElse(t *testing.T) {
	p := newCalmProxy(t)
	p.beat()
	p.ask("/<script>alert(1)</script>")
	s := New(Config{Addr: loopback}, p.sources)
	w := send(s, "GET", "/")
	if policy := w.Header().Get("Content-Security-Policy"); !strings.Contains(policy, "default-src 'none'") || !strings.Contains(policy, "script-src 'self'") || strings.Contains(policy, "unsafe") {
		t.Errorf("policy %q", policy)
	}
	if how := w.Header().Get("Cache-Control"); how != "no-store" {
		t.Errorf("Cache-Control %q", how)
	}
	if inline := regexp.MustCompile(`(?i)<script[^>]*>[^<]|<style|\sstyle=|\son[a-z]+=|javascript:`).FindString(w.Body.String()); inline != "" {
		t.Errorf("inline: %q", inline)
	}
}

func TestPage_HasNoSecret(t *testing.T) {
	p := newCalmProxy(t)
	p.beat()
	for _, path := range []string{"/", "/entries?tag=properties", "/confirm/off"} {
		if page := get(t, New(Config{Addr: loopback, Token: "a secret"}, p.sources), path); strings.Contains(page, "a secret") {
			t.Errorf("%s has the token on it", path)
		}
	}
}

func TestPage_IsGuardedAsTheStatusIs(t *testing.T) {
	p := newCalmProxy(t)
	asset := regexp.MustCompile(`/static/[^"]+live\.js`).FindString(get(t, New(Config{Addr: loopback}, p.sources), "/"))
	for _, path := range []string{"/", "/entries?tag=properties", "/confirm/off", "/operator.js", "/operator.css", asset} {
		for _, c := range []struct {
			config Config
			line   string
			want   int
		}{
			{Config{Addr: loopback, Token: "a secret"}, "X-Nothing: here", 200},
			{Config{Addr: loopback, Token: "a secret"}, "Host: evil.example", 421},
			{Config{Addr: everywhere, Token: "a secret"}, "X-Nothing: here", 401},
			{Config{Addr: everywhere, Token: "a secret"}, basic("anybody", "a secret"), 200},
			{Config{Addr: everywhere}, "X-Nothing: here", 403},
		} {
			if w := send(New(c.config, p.sources), "GET", path, c.line); w.Code != c.want {
				t.Errorf("%s, %+v, %s: %d, want %d", path, c.config, c.line, w.Code, c.want)
			}
		}
	}
	// A stream is refused before it begins.
	for _, path := range []string{"/events", "/changes/events"} {
		if w := send(New(Config{Addr: everywhere, Token: "a secret"}, p.sources), "GET", path); w.Code != 401 {
			t.Errorf("%s: %d", path, w.Code)
		}
		if w := send(New(Config{Addr: loopback}, p.sources), "GET", path, "Host: evil.example"); w.Code != 421 {
			t.Errorf("%s of a foreign host: %d", path, w.Code)
		}
	}
	if w := send(New(Config{Addr: loopback}, p.sources), "GET", "/nothing"); w.Code != 404 {
		t.Errorf("/nothing: %d", w.Code)
	}
}

func TestSeconds_AreAsLongAsPeopleNeedThem(t *testing.T) {
	for s, want := range map[float64]string{0: "0 µs", 0.00045: "450 µs", 0.0042: "4.2 ms", 0.5: "500 ms", 12.34: "12.3 s", 899.6: "15m0s", -2: "-2.0 s"} {
		if got := seconds(s); got != want {
			t.Errorf("%v is %q, want %q", s, got, want)
		}
	}
}

// served runs an admin port whose changes are remembered, for as long as a test.
func served(t *testing.T, p *proxy, config Config) (*Server, *httptest.Server) {
	t.Helper()
	s := New(config, p.sources)
	ended := make(chan error)
	go func() { ended <- s.Run(t.Context()) }()
	web := httptest.NewServer(s)
	t.Cleanup(func() {
		web.CloseClientConnections()
		web.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return s, web
}

const patience = 20 * time.Second
