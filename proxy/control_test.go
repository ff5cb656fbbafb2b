package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"walcache/proxy/manage"
	"walcache/proxy/sandbox/sandboxtest"
)

func TestCacheCommand_PurgesAndSwitchesOffAndOn(t *testing.T) {
	t.Setenv("ADMIN_TOKEN", "a secret")
	s := start(t, sandboxtest.Postgres(t), nil)
	s.rows(2)
	s.warm(row(1))
	s.warm(row(2))
	if code, out, err := typedFor(time.Minute, "cache", "purge", "--admin-url", s.admin, "--url", "http://shop.example"+row(1)); code != 0 || !strings.HasPrefix(out, "purge http://shop.example"+row(1)+": done") {
		t.Fatalf("%d %s%s", code, out, err)
	}
	if s.get(row(1)).hit() || !s.get(row(2)).hit() {
		t.Error("not the one page was purged")
	}
	code, out, err := typedFor(time.Minute, "cache", "off", "--admin-url", s.admin, "--wait-all", "--json")
	var done manage.Done
	if e := json.Unmarshal([]byte(out), &done); e != nil || code != 0 || !done.All {
		t.Fatalf("%d %s%s", code, out, err)
	}
	if r := s.get(row(2)); !strings.Contains(r.header.Get("Cache-Status"), "detail=off") {
		t.Errorf("switched off: %s", r.header.Get("Cache-Status"))
	}
	if code, _, err := typedFor(time.Minute, "cache", "on", "--admin-url", s.admin); code != 0 {
		t.Fatal(err)
	}
	s.warm(row(2))
}

func TestCacheCommand_SaysWhatIsWrong(t *testing.T) {
	elsewhere := httptest.NewServer(nil)
	defer elsewhere.Close()
	s := start(t, sandboxtest.Postgres(t), nil)
	for _, c := range []struct {
		args string
		code int
		text string
	}{
		{"cache nope", 2, "no command \"cache nope\"\n  try: proxy cache --help"},
		{"cache purge", 2, "exactly one of --url, --tag and --all"},
		{"cache purge --all --tag books", 2, "exactly one of --url, --tag and --all"},
		{"cache off now", 2, `cache off takes no "now"`},
		{"cache off --admin-url x", 2, "--admin-url is no URL"},
		{"cache off --admin-url http://127.0.0.1:1", 1, "nothing answers at 127.0.0.1:1\n  try: "},
		{"cache off --admin-url " + elsewhere.URL, 1, "404 Not Found\n  try: is that the admin port?"},
		{"cache off --admin-url " + s.admin, 1, "the admin token is missing or wrong\n  try: "},
		{"cache purge --admin-token-file /nowhere --all", 1, "--admin-token-file: "},
	} {
		code, out, err := typedFor(time.Minute, strings.Fields(c.args)...)
		if code != c.code || !strings.Contains(err, c.text) || out != "" {
			t.Errorf("%s: %d %s%s", c.args, code, out, err)
		}
	}
}

// listenAlone runs a listener without a proxy for the length of a test, and
// returns the URL of its admin port.
func listenAlone(t *testing.T, dsn string, adjust func(*options)) (url string) {
	t.Helper()
	o := testOptions("", dsn)
	adjust(&o)
	adminAt := listen(t)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- listenOnly(ctx, o, adminAt, slog.New(slog.NewTextHandler(t.Output(), nil))) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the listener ended with %v", err)
		}
	})
	return "http://" + adminAt.Addr().String()
}

// TestListen_TellsProxiesThatDoNot runs a listener alone, for a proxy that only
// follows.
func TestListen_TellsProxiesThatDoNot(t *testing.T) {
	dsn, shared := sandboxtest.Postgres(t), sharing(t)
	url := listenAlone(t, dsn, shared)
	s := start(t, dsn, func(o *options) {
		shared(o)
		o.listener = nil
	})
	s.rows(2)
	s.warm(row(1))
	s.warm(row(2))
	s.exec("UPDATE properties SET title = 'changed' WHERE id = 1")
	s.becomes(row(1), "changed")
	if !s.get(row(2)).hit() {
		t.Error("the untouched page is no hit")
	}
	r, err := s.fetch(url + "/status")
	if err != nil || !strings.Contains(r.body, "shop.example is no address of this machine") {
		t.Errorf("%s, %v", r.body, err)
	}
}

// A listener does what operators ask of the whole cache, and says of the rest that
// it takes a proxy.
func TestListen_DoesWhatOperatorsAsk(t *testing.T) {
	t.Setenv("ADMIN_TOKEN", "a secret")
	dsn, shared := sandboxtest.Postgres(t), sharing(t)
	url := listenAlone(t, dsn, func(o *options) {
		shared(o)
		o.admin.Token = "a secret"
	})
	s := start(t, dsn, func(o *options) {
		shared(o)
		o.listener = nil
	})
	s.rows(1)
	s.warm(row(1))
	for _, c := range []struct {
		args, told string
		code       int
	}{
		{"cache status", "vouches for freshness:", 0},
		{"cache test-signals --probe", "processes, ms:", 0},
		{"cache clear --wait-all", "known to every process", 0},
		{"cache metrics", "Connection Statistics:", 0},
		{"manage-cache --status", "Cache Status:", 0},
		{"cache warm", "this process answers no requests\n  try: ask a process that runs proxy serve", 1},
		{"cache load-test", "this process answers no requests\n  try: ask a process that runs proxy serve", 1},
		{"cache test-signals", "this process answers no requests\n  try: ask a process that runs proxy serve", 1},
	} {
		code, out, err := typedFor(time.Minute, strings.Fields(c.args+" --admin-url "+url)...)
		if code != c.code || !strings.Contains(out+err, c.told) {
			t.Errorf("%s: %d, want %q in:\n%s%s", c.args, code, c.told, out, err)
		}
	}
	if s.get(row(1)).hit() {
		t.Error("a page is a hit after everything was cleared")
	}
	wantNoDeadEnd(t, url)
}

// wantNoDeadEnd looks for the links and forms of the operator's page, one step
// deep, and sends or follows each.
func wantNoDeadEnd(t *testing.T, url string) {
	t.Helper()
	get := func(path string) string { return asBrowser(t, http.MethodGet, url+path) }
	page := get("/")
	for _, link := range regexp.MustCompile(`href="(/[^"]+)"`).FindAllStringSubmatch(page, -1) {
		next := get(link[1])
		for _, form := range regexp.MustCompile(`<form method="post" action="([^"]+)"`).FindAllStringSubmatch(next, -1) {
			if action := form[1]; !strings.Contains(action, "purge") { // which says what of
				asBrowser(t, http.MethodPost, url+action)
			}
		}
	}
	if page = get("/"); !strings.Contains(page, "Cleared the cache") {
		t.Errorf("it does not say that it was cleared:\n%s", page)
	}
}

// asBrowser sends what a browser does that knows the token, and follows to the
// page that answers.
func asBrowser(t *testing.T, method, url string) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.SetBasicAuth("", "a secret")
	r.Header.Set("Accept", "text/html")
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Errorf("%s %s: %d %v\n%s", method, url, res.StatusCode, err, text)
	}
	return string(text)
}

func TestListen_NeedsARedis(t *testing.T) {
	for _, c := range []struct{ args, text string }{
		{"listen --database-url postgres://127.0.0.1:1/x", "listen tells others what changed, and without Redis nobody hears it\n  try: --redis-url"},
		{"serve --listen=false", "without Redis nothing is heard of them\n  try: --redis-url"},
		{"listen --redis-url http://127.0.0.1", "--redis-url: "},
		{"listen --redis-url redis://:secret@127.0.0.1:1 --prefix {a}", "--prefix is"},
		{"listen --redis-url redis://:secret@127.0.0.1:1", "no database is named"},
	} {
		code, _, err := typedFor(time.Minute, strings.Fields(c.args)...)
		if code != 2 || !strings.Contains(err, c.text) || strings.Contains(err, "secret") {
			t.Errorf("%s: %d %s", c.args, code, err)
		}
	}
}

// TestListener_TellsAStrangerFromItsOwn has two clusters want one slot.
func TestListener_TellsAStrangerFromItsOwn(t *testing.T) {
	dsn := sandboxtest.Postgres(t)
	first := start(t, dsn, sharing(t))
	second := first.another(sharing(t))
	sandboxtest.Eventually(t, time.Minute, func() error {
		if st := second.listener.Status(); !st.Stranger {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})
	if second.tracker.Vouches(time.Now()) {
		t.Error("it vouches for what nobody tells it")
	}
	own := second.another(func(o *options) { // as it is told
		sharing(t)(o)
		o.listener.Slot += "_own"
	})
	own.awaitVouching()
	first.exec("INSERT INTO properties (title, description, price, location) VALUES ('new', '', 1, 'Here')")
	own.becomes("/properties/", "new")
}
