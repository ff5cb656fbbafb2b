package replication

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"walcache/proxy/coherence"
	"walcache/proxy/sandbox"
)

func randomName() string { return strings.ToLower(rand.Text()[:8]) }

// patience is far longer than anything takes, for machines under load.
const patience = 2 * time.Minute

// eventually polls for a fact.
func eventually(t *testing.T, what string, fact func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !fact(); time.Sleep(3 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for: %s", what)
		}
	}
}

// settled waits until tags of the tables narrow, and something can be stored.
func settled(t *testing.T, l *Listener, tracker *coherence.Tracker, tables ...string) {
	t.Helper()
	eventually(t, "a catalog with the tables, and a stamp", func() bool {
		c := tracker.Catalog()
		if c == nil || tracker.Stamp() == (coherence.Position{}) {
			return false
		}
		for _, name := range tables {
			if _, ok := c.Tables[name]; !ok {
				return false
			}
		}
		return l.Status().State == "streaming"
	})
}

// launch starts a listener that ends with the test, or when stop is called.
func launch(t *testing.T, config Config, sink Sink) (l *Listener, stop func()) {
	t.Helper()
	if config.Slot == "" {
		config.Slot = "walcache_" + randomName()
	}
	if config.Publication == "" {
		config.Publication = "walcache"
	}
	if config.Log == nil {
		config.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	l = New(config, sink)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	return l, stop
}

// memory is a sink that keeps what it is told in this process, as the change log
// does for all processes of a cluster: two listeners that share one are two
// processes.
type memory struct {
	*coherence.Tracker

	mu     sync.Mutex // guards the following
	state  []byte
	logged coherence.LSN
	refuse error         // what the next Apply returns
	silent error         // what the next Beat returns
	known  coherence.LSN // what Lead says, instead of what the tracker knows, if it is not 0
	leads  int
	yields int
}

func remember(tracker *coherence.Tracker) *memory {
	return &memory{Tracker: tracker, logged: math.MaxUint64}
}

func (m *memory) locked(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
}

func (m *memory) Lead(context.Context) (past coherence.Past, err error) {
	p := m.Progress(time.Now())
	m.locked(func() {
		m.leads++
		past = coherence.Past{Epoch: p.Epoch, Known: p.Known, Visible: p.Visible, State: m.state}
		if m.known != 0 {
			past.Known, past.Visible = m.known, m.known
		}
	})
	return past, nil
}

func (m *memory) Keep(state []byte) { m.locked(func() { m.state = state }) }

func (m *memory) Yield() { m.locked(func() { m.yields++ }) }

func (m *memory) Logged() (lsn coherence.LSN) {
	m.locked(func() { lsn = m.logged })
	return lsn
}

func (m *memory) Apply(r coherence.Record) (err error) {
	m.locked(func() { err, m.refuse = m.refuse, nil })
	if err != nil {
		return err
	}
	return m.Tracker.Apply(r)
}

func (m *memory) Beat(epoch string, at time.Time) (err error) {
	m.locked(func() { err, m.silent = m.silent, nil })
	m.Tracker.Beat(epoch, at)
	return err
}

// staleBy returns which answers, read under one tag each, a change makes stale.
func staleBy(t *testing.T, l *Listener, tracker *coherence.Tracker, tags []coherence.Tag, change func()) (stale []coherence.Tag) {
	t.Helper()
	caughtUp(t, l, tracker)
	var answers []answer
	for _, tag := range tags {
		answers = append(answers, read(t, tracker, tag))
	}
	change()
	caughtUp(t, l, tracker)
	for i, a := range answers {
		if a.verdict(tracker) == coherence.Changed {
			stale = append(stale, tags[i])
		}
	}
	return stale
}

// expectStale checks that statements make exactly these answers stale.
func expectStale(t *testing.T, l *Listener, tracker *coherence.Tracker, db *pgx.Conn, tags []coherence.Tag, sql string, want ...coherence.Tag) {
	t.Helper()
	got := staleBy(t, l, tracker, tags, func() { exec(t, db, sql) })
	if !slices.Equal(got, want) {
		t.Errorf("%s: stale are %v, want %v", sql, got, want)
	}
}

// epochs waits for the listener to stream in its nth epoch, and returns why it
// began.
func epochs(t *testing.T, l *Listener, n int) string {
	t.Helper()
	eventually(t, fmt.Sprintf("epoch %d", n), func() bool {
		s := l.Status()
		return s.Epochs >= n && s.State == "streaming"
	})
	if s := l.Status(); s.Epochs != n {
		t.Fatalf("epoch %d has begun, because: %s", s.Epochs, s.Began)
	}
	return l.Status().Began
}

// query reads one value.
func query[T any](t *testing.T, db *pgx.Conn, sql string, args ...any) (v T) {
	t.Helper()
	if err := db.QueryRow(context.Background(), sql, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

// stopServer and startServer are sandbox's, for tests.
func stopServer(t *testing.T, p *sandbox.Postgres) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := p.Stop(ctx); err != nil {
		t.Fatal(err)
	}
}

func startServer(t *testing.T, p *sandbox.Postgres) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := p.Start(ctx); err != nil {
		t.Fatal(err)
	}
}

// elsewhere connects to the maintenance database of a test's server.
func elsewhere(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/postgres"
	return open(t, u.String())
}

// whileAway keeps the listener out of the database, which db is connected to,
// while f runs.
func whileAway(t *testing.T, dsn string, db *pgx.Conn, f func()) {
	t.Helper()
	admin, name := elsewhere(t, dsn), pgx.Identifier{query[string](t, db, "SELECT current_database()")}.Sanitize()
	exec(t, admin, "ALTER DATABASE "+name+" ALLOW_CONNECTIONS false")
	eventually(t, "the listener's connections to end", func() bool {
		return query[int](t, db, `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
			WHERE datname = current_database() AND application_name = 'walcache'`) == 0
	})
	f()
	exec(t, admin, "ALTER DATABASE "+name+" ALLOW_CONNECTIONS true")
}

// bound is how old evidence may be in tests.
const bound = 2 * time.Second

func hostPort(c *pgx.ConnConfig) string { return net.JoinHostPort(c.Host, fmt.Sprint(c.Port)) }

// relay is a TCP connection in two halves, between a listener and its server. It
// can stand still, as if a cable was cut, and look at what the listener says.
type relay struct {
	target string
	said   func(data []byte) // called before it is passed on
	cut    chan struct{}     // closed to stand still
	ended  chan struct{}     // closed at the end of the test
}

// through returns the URL of a database through a relay.
func through(t *testing.T, dsn string, said func([]byte)) (string, *relay) {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{target: u.Host, said: said, cut: make(chan struct{}), ended: make(chan struct{})}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() { r.connect(client) })
		}
	})
	t.Cleanup(func() { close(r.ended); _ = l.Close(); conns.Wait() })
	u.Host = l.Addr().String()
	return u.String(), r
}

func (r *relay) connect(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", r.target)
	if err != nil {
		return
	}
	defer server.Close()
	both := make(chan struct{}, 2)
	go func() { r.pass(server, client, r.said); both <- struct{}{} }()
	go func() { r.pass(client, server, nil); both <- struct{}{} }()
	select {
	case <-both:
	case <-r.ended:
	}
}

func (r *relay) pass(to, from net.Conn, said func([]byte)) {
	buffer := make([]byte, 1<<16)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		if said != nil {
			said(buffer[:n])
		}
		select {
		case <-r.cut:
			<-r.ended
			return
		default:
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

// logs collects what a listener logs.
type logs struct {
	t  *testing.T
	mu sync.Mutex // guards the following
	b  strings.Builder
}

func (l *logs) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, _ = l.t.Output().Write(line)
	return l.b.Write(line)
}

func (l *logs) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), text)
}

func logging(t *testing.T) (*slog.Logger, *logs) {
	l := &logs{t: t}
	return slog.New(slog.NewTextHandler(l, nil)), l
}
