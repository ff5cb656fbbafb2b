package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"walcache/backend/service"
	"walcache/proxy/admin"
	"walcache/proxy/cache"
	"walcache/proxy/replication"
	"walcache/proxy/sandbox/sandboxtest"
	"walcache/schema"
)

func TestMain(m *testing.M) { sandboxtest.Main(m) }

// system is the backend and the proxy in this process, on a database of the
// test's own.
type system struct {
	proxy
	t      *testing.T
	dsn    string
	db     *pgxpool.Pool
	url    string // of the proxy
	direct string // of the backend
	admin  string
	client *http.Client
	logs   io.Writer
	stop   func() // ends the proxy, once
}

// start runs a system for the length of a test. adjust, if not nil, changes
// what the proxy is told before it is built.
func start(t *testing.T, dsn string, adjust func(*options)) *system {
	t.Helper()
	s := &system{t: t, dsn: dsn, logs: t.Output()}
	ctx := context.Background()
	if err := schema.Up(ctx, dsn); err != nil {
		t.Fatal(err)
	}
	pool, err := pgxpool.New(ctx, dsn+"&pool_max_conns=32")
	if err != nil {
		t.Fatal(err)
	}
	s.db = pool
	o := testOptions("", dsn)
	if adjust != nil {
		adjust(&o)
	}
	stopBackend := s.runBackend(o.redis)
	s.client = &http.Client{
		Transport:     &http.Transport{MaxIdleConnsPerHost: 1000, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	t.Cleanup(func() {
		s.client.CloseIdleConnections()
		pool.Close()
		stopBackend()
	})
	s.run(adjust)
	s.awaitStreaming()
	return s
}

// runBackend runs a backend, with the Redis of the proxies if they share one.
func (s *system) runBackend(redis redisConfig) (stop func()) {
	s.t.Helper()
	at := listen(s.t)
	s.direct = "http://" + at.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- service.Run(ctx, service.Config{
			Listener: at, DatabaseURL: s.dsn, RedisURL: redis.url, Prefix: cmp.Or(redis.prefix, "wc:"),
			APIToken: apiToken, SecretKey: strings.Repeat("not for production ", 3), Log: slog.New(slog.NewTextHandler(s.t.Output(), nil)),
		})
	}()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			s.t.Errorf("the backend ended with %v", err)
		}
	}
}

const apiToken = "what writes in tests"

// run runs the proxy for the length of the test, or until stop.
func (s *system) run(adjust func(*options)) {
	s.t.Helper()
	o := testOptions(s.direct, s.dsn)
	if adjust != nil {
		adjust(&o)
	}
	proxyAt, adminAt := listen(s.t), listen(s.t)
	s.url, s.admin = "http://"+proxyAt.Addr().String(), "http://"+adminAt.Addr().String()
	log := slog.New(slog.NewTextHandler(s.t.Output(), nil)).With("proxy", proxyAt.Addr().(*net.TCPAddr).Port)
	var err error
	if s.proxy, err = build(o, proxyAt.Addr(), adminAt.Addr(), log); err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	serve := s.serve
	go func() { ended <- serve(ctx, proxyAt, adminAt, log) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		s.client.CloseIdleConnections() // or draining waits for them
		if err := <-ended; err != nil {
			s.t.Errorf("the proxy ended with %v", err)
		}
	})
	s.t.Cleanup(s.stop)
}

// another is one more proxy before the same backend and database.
func (s *system) another(adjust func(*options)) *system {
	s.t.Helper()
	other := &system{t: s.t, dsn: s.dsn, db: s.db, direct: s.direct, client: s.client, logs: s.logs}
	other.run(adjust)
	return other
}

// anotherBackend is one more proxy before a backend of its own.
func (s *system) anotherBackend(adjust func(*options)) *system {
	s.t.Helper()
	other := &system{t: s.t, dsn: s.dsn, db: s.db, client: s.client, logs: s.logs}
	o := testOptions("", s.dsn)
	adjust(&o)
	s.t.Cleanup(other.runBackend(o.redis))
	other.run(adjust)
	return other
}

// sharing gives a proxy the Redis of a cluster.
func sharing(t *testing.T) func(*options) {
	url, prefix := sandboxtest.Redis(t)
	return func(o *options) { o.redis = redisConfig{url, prefix} }
}

// testOptions are the defaults.
func testOptions(upstream, dsn string) options {
	o := options{memory: 256 << 20, maxStaleness: 2 * time.Second, cache: cache.Defaults()}
	o.origin.Upstream, o.origin.Timeout = upstream, time.Minute
	o.admin = admin.Config{Token: "a secret"}
	o.coherent, o.databaseURL = true, dsn
	o.listener = &replication.Config{
		DatabaseURL: dsn, Slot: "walcache_" + dsn[strings.LastIndex(dsn, "/")+1:strings.LastIndex(dsn, "?")],
		Publication: "walcache", MaxRetainedWAL: 1 << 30,
	}
	return o
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// awaitStreaming waits until the proxy can store under tags and vouches.
func (s *system) awaitStreaming() {
	s.t.Helper()
	sandboxtest.Eventually(s.t, 30*time.Second, func() error {
		c := s.tracker.Catalog()
		if c == nil || len(c.Tables) == 0 || !s.tracker.Vouches(time.Now()) || s.tracker.Stamp().LSN == 0 {
			return fmt.Errorf("nothing is proven: %+v", s.tracker.Progress(time.Now()))
		}
		return nil
	})
}

// caughtUp waits until the proxy knows everything committed so far, and that it
// is visible.
func (s *system) caughtUp() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := s.catchUp()(ctx); err != nil {
		s.t.Fatalf("catch up: %v", err)
	}
	known := s.tracker.Progress(time.Now()).Known
	sandboxtest.Eventually(s.t, 30*time.Second, func() error {
		if p := s.tracker.Progress(time.Now()); p.Visible < known {
			return fmt.Errorf("visible is %s, known %s", p.Visible, known)
		}
		return nil
	})
}

// exec runs statements, each in a transaction of its own.
func (s *system) exec(statements ...string) {
	s.t.Helper()
	for _, sql := range statements {
		if _, err := s.db.Exec(context.Background(), sql); err != nil {
			s.t.Fatalf("%s: %v", sql, err)
		}
	}
}

// response is an answer, read whole.
type response struct {
	status int
	header http.Header
	body   string
}

func (r response) hit() bool { return strings.Contains(r.header.Get("Cache-Status"), "; hit") }

// get asks the proxy.
func (s *system) get(path string) response {
	s.t.Helper()
	r, err := s.fetch(s.url + path)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// fetch asks under one name, whichever proxy of a cluster it asks.
func (s *system) fetch(url string) (response, error) {
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return response{}, err
	}
	req.Host = "shop.example"
	req.Header.Set("Accept", "application/json")
	res, err := s.client.Do(req)
	if err != nil {
		return response{}, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return response{res.StatusCode, res.Header, string(body)}, err
}

// warm asks for a page until it is a hit.
func (s *system) warm(path string) response {
	s.t.Helper()
	var r response
	sandboxtest.Eventually(s.t, 10*time.Second, func() error {
		if r = s.get(path); !r.hit() {
			return fmt.Errorf("%s: %s", path, r.header.Get("Cache-Status"))
		}
		return nil
	})
	return r
}

// property is what the backend says of a row.
type property struct {
	ID       int64  `json:"id"`
	Title    string `json:"title"`
	Price    string `json:"price"`
	Location string `json:"location"`
}

func decode[T any](body string) (v T, err error) {
	err = json.Unmarshal([]byte(body), &v)
	return v, err
}

type listing struct {
	Properties []property `json:"properties"`
	Count      int        `json:"count"`
}
