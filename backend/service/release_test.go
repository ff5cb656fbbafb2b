package service

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"walcache/proxy/coherence"
	"walcache/proxy/sandbox/sandboxtest"
	"walcache/schema"
)

// releases are processes on one database, each with a tracker that the test
// moves on.
func startRelease(t *testing.T, dsn, name string) *release {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	tracker := coherence.NewTracker(1<<10, time.Hour)
	tracker.Begin("e", 100)
	r := &release{name: name, pool: pool, truth: tracker}
	r.hears(t, 100)
	go func() { _ = r.run(t.Context(), slog.New(slog.NewTextHandler(t.Output(), nil))) }()
	return r
}

// hears has the process know of a change up to a position.
func (r *release) hears(t *testing.T, at coherence.LSN) {
	t.Helper()
	err := r.truth.Apply(coherence.Record{Epoch: "e", From: 0, To: at, Visible: at,
		Changes: []coherence.Change{{Hash: coherence.Tag("releases").Hash(), At: at}}})
	if err != nil {
		t.Fatal(err)
	}
	r.truth.Beat("e", time.Now())
}

func is(t *testing.T, what string, fact func() bool) {
	t.Helper()
	sandboxtest.Eventually(t, 30*time.Second, func() error {
		if !fact() {
			return errors.New(what)
		}
		return nil
	})
}

func TestRelease_AnOlderOneIsNotStored(t *testing.T) {
	dsn := sandboxtest.Postgres(t)
	if err := schema.Up(t.Context(), dsn); err != nil {
		t.Fatal(err)
	}
	one := startRelease(t, dsn, "one")
	is(t, "the only release is not the newest", one.isNewest)
	two := startRelease(t, dsn, "two")
	is(t, "the second release is not the newest", two.isNewest)

	one.hears(t, 200)
	is(t, "the first release has not heard of the second", func() bool { return one.holds() && !one.isNewest() })
	if !two.isNewest() {
		t.Error("the second is not the newest any more")
	}

	// Back to the first: the same name is announced again.
	again := startRelease(t, dsn, "one")
	is(t, "the release that is back is not the newest", again.isNewest)
	two.hears(t, 300)
	is(t, "the second goes on as the newest", func() bool { return two.holds() && !two.isNewest() })
}

// A process that is started again makes nothing stale.
func TestRelease_ARestartWritesNothing(t *testing.T) {
	dsn := sandboxtest.Postgres(t)
	if err := schema.Up(t.Context(), dsn); err != nil {
		t.Fatal(err)
	}
	var before, after string
	for _, text := range []*string{&before, &after} {
		r := startRelease(t, dsn, "one")
		is(t, "it is not the newest", r.isNewest)
		if err := r.pool.QueryRow(t.Context(), "SELECT xmin::text || started_at FROM releases").Scan(text); err != nil {
			t.Fatal(err)
		}
	}
	if before != after {
		t.Errorf("%s became %s", before, after)
	}
}

func TestBuildID_IsThere(t *testing.T) {
	one, err := buildID()
	if err != nil || len(one) < 8 {
		t.Errorf("%q, %v", one, err)
	}
}
