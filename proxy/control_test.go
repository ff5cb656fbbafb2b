package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http/httptest"
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

// TestListen_TellsProxiesThatDoNot runs a listener alone, for a proxy that only
// follows.
func TestListen_TellsProxiesThatDoNot(t *testing.T) {
	dsn, shared := sandboxtest.Postgres(t), sharing(t)
	alone := testOptions("", dsn)
	shared(&alone)
	adminAt := listen(t)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- listenOnly(ctx, alone, adminAt, slog.New(slog.NewTextHandler(t.Output(), nil))) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the listener ended with %v", err)
		}
	})
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
	r, err := s.fetch("http://" + adminAt.Addr().String() + "/status")
	if err != nil || !strings.Contains(r.body, "shop.example is no address of this machine") {
		t.Errorf("%s, %v", r.body, err)
	}
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
