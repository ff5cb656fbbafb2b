package replication

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
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

// eventually polls for a fact.
func eventually(t *testing.T, what string, fact func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !fact(); time.Sleep(time.Millisecond) {
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
