package service

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"walcache/proxy/sandbox/sandboxtest"
	"walcache/schema"
)

func TestMain(m *testing.M) { sandboxtest.Main(m) }

// running is a service that Run runs.
type running struct {
	t    *testing.T
	url  string
	conn *pgx.Conn // to its database, beside its pool
	stop func()
	done chan error // gets what Run returns
	log  *logged
}

const apiToken = "what programs write with"

func start(t *testing.T, dsn string) *running {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	s := &running{t: t, url: "http://" + l.Addr().String(), stop: stop, done: make(chan error, 1), log: new(logged)}
	go func() {
		s.done <- Run(ctx, Config{Listener: l, DatabaseURL: dsn, APIToken: apiToken, Log: slog.New(slog.NewTextHandler(s.log, nil))})
		close(s.done)
	}()
	t.Cleanup(func() {
		stop()
		for range s.done {
		}
	})
	return s
}

// startMigrated starts on a database of its own, with parameters added to its
// URL.
func startMigrated(t *testing.T, params ...string) *running {
	t.Helper()
	dsn := migrated(t)
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	query := u.Query()
	for i := 0; i < len(params); i += 2 {
		query.Set(params[i], params[i+1])
	}
	u.RawQuery = query.Encode()
	s := start(t, u.String())
	s.conn = connect(t, dsn)
	return s
}

func migrated(t *testing.T) (dsn string) {
	t.Helper()
	dsn = sandboxtest.Postgres(t)
	if err := schema.Up(t.Context(), dsn); err != nil {
		t.Fatal(err)
	}
	return dsn
}

func connect(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// get returns the status of an answer, 0 for none.
func (s *running) get(ctx context.Context, path string) int {
	r, err := http.NewRequestWithContext(ctx, "GET", s.url+path, nil)
	if err != nil {
		return 0
	}
	r.Header.Set("Accept", "application/json")
	w, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return 0
	}
	defer w.Body.Close()
	if body, err := io.ReadAll(w.Body); err != nil || !json.Valid(body) {
		return 0
	}
	return w.StatusCode
}

// hold locks the table, so that reads wait until it is released.
func (s *running) hold() (release func()) {
	s.t.Helper()
	other := connect(s.t, s.conn.Config().ConnString())
	tx, err := other.Begin(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := tx.Exec(s.t.Context(), `LOCK TABLE properties`); err != nil {
		s.t.Fatal(err)
	}
	return func() {
		if err := tx.Rollback(s.t.Context()); err != nil {
			s.t.Error(err)
		}
	}
}

// awaitQueries waits until so many queries wait for the lock, and returns the
// server processes that run them.
func (s *running) awaitQueries(n int) (pids []int) {
	s.t.Helper()
	sandboxtest.Eventually(s.t, 10*time.Second, func() error {
		if err := s.conn.QueryRow(s.t.Context(), `SELECT coalesce(array_agg(pid), '{}') FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event_type = 'Lock'`).Scan(&pids); err != nil {
			return err
		}
		if len(pids) != n {
			return fmt.Errorf("%d queries wait, not %d", len(pids), n)
		}
		return nil
	})
	return pids
}

// logged is a log to look into.
type logged struct {
	mu   sync.Mutex // guards the following
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) has(part string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), part)
}

func TestRun_StopFinishesRequestsUnderWay(t *testing.T) {
	s := startMigrated(t)
	release := s.hold()
	status := make(chan int)
	go func() { status <- s.get(t.Context(), "/properties/") }()
	s.awaitQueries(1)

	s.stop()
	sandboxtest.Eventually(t, 10*time.Second, func() error {
		if conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://")); err == nil {
			conn.Close()
			return fmt.Errorf("still accepts connections")
		}
		return nil
	})
	release()
	if got := <-status; got != 200 {
		t.Errorf("the request under way got %d", got)
	}
	if err := <-s.done; err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestStop_AbandonsWhatDoesNotFinish(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	requests, abandon := context.WithCancel(t.Context())
	log := new(logged)
	entered := make(chan struct{})
	server := newServer(requests, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done()
	}), slog.New(slog.NewTextHandler(log, nil)))
	go server.Serve(l)
	go http.Get("http://" + l.Addr().String())
	<-entered
	if err := stop(server, 10*time.Millisecond, abandon, slog.New(slog.NewTextHandler(log, nil))); err != nil {
		t.Fatal(err)
	}
	if requests.Err() == nil || !log.has("requests cut off") {
		t.Error("the request was not cut off")
	}
}

func TestRun_WrongDatabaseURLFailsWithoutItsPassword(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	err = Run(t.Context(), Config{Listener: l, DatabaseURL: "postgres://u:hunter2@h:port/d", Log: slog.Default()})
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("Run: %v", err)
	}
	if _, err := l.Accept(); err == nil {
		t.Error("the listener is still open")
	}
}

func TestRun_ServesBeforeItsDatabaseDoes(t *testing.T) {
	s := start(t, "postgres://u@127.0.0.1:1/d")
	if got := s.get(t.Context(), "/properties/"); got != 503 {
		t.Errorf("status %d", got)
	}
	if got := s.get(t.Context(), "/healthz"); got != 200 {
		t.Errorf("healthz %d", got)
	}
}

func TestRun_ClientThatLeavesCancelsItsQueryAndKeepsTheConnection(t *testing.T) {
	s := startMigrated(t, "pool_max_conns", "1")
	release := s.hold()
	ctx, leave := context.WithCancel(t.Context())
	status := make(chan int)
	go func() { status <- s.get(ctx, "/properties/") }()
	before := s.awaitQueries(1)
	leave()
	if got := <-status; got != 0 {
		t.Errorf("the client got %d", got)
	}
	s.awaitQueries(0)

	go func() { status <- s.get(t.Context(), "/properties/") }()
	if after := s.awaitQueries(1); after[0] != before[0] {
		t.Error("the next query runs on a new connection")
	}
	release()
	if got := <-status; got != 200 {
		t.Errorf("the next request got %d", got)
	}
	if s.log.has("database unavailable") {
		t.Error("took a client that left for an outage")
	}
}

func TestRun_WrongTokensAreLimitedAndTheRightOneIsNot(t *testing.T) {
	s := startMigrated(t)
	deletes := func(token string) *http.Response {
		r, err := http.NewRequestWithContext(t.Context(), "DELETE", s.url+"/properties/1/", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		w, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		w.Body.Close()
		return w
	}
	statuses := map[int]int{}
	for range 60 { // so many that some are too many, should a minute end in between
		w := deletes("guess")
		statuses[w.StatusCode]++
		if (w.StatusCode == 429) != (w.Header.Get("Retry-After") != "") {
			t.Errorf("%d, Retry-After %q", w.StatusCode, w.Header.Get("Retry-After"))
		}
	}
	if statuses[401] < 20 || statuses[429] == 0 || statuses[401]+statuses[429] != 60 {
		t.Errorf("status: times %v", statuses)
	}
	for range 30 {
		if w := deletes(apiToken); w.StatusCode != 404 {
			t.Errorf("the right token: %d", w.StatusCode)
		}
	}
}

func TestRun_PoolIsBounded(t *testing.T) {
	s := startMigrated(t, "pool_max_conns", "3")
	release := s.hold()
	const requests = 20
	status := make(chan int)
	for range requests {
		go func() { status <- s.get(t.Context(), "/properties/") }()
	}
	s.awaitQueries(3)
	var connections int
	if err := s.conn.QueryRow(t.Context(), `SELECT count(*) - 2 FROM pg_stat_activity
		WHERE datname = current_database() AND backend_type = 'client backend'`).Scan(&connections); err != nil || connections != 3 {
		t.Errorf("%d connections beside the test's two (%v), want 3", connections, err)
	}
	release()
	for range requests {
		if got := <-status; got != 200 {
			t.Errorf("status %d", got)
		}
	}
}
