package replication

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"walcache/proxy/coherence"
	"walcache/proxy/sandbox/sandboxtest"
)

func newWitness(t *testing.T, dsn string) *Witness {
	t.Helper()
	w := NewWitness(dsn)
	t.Cleanup(w.Close)
	return w
}

// Whoever has waited for the position knows what was announced.
func TestWitness_AnnouncesBeforeThePositionThatItReturns(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	open(t, dsn, properties, twoProperties)
	tracker := coherence.NewTracker(1<<16, time.Hour)
	sink := remember(tracker)
	l, _ := launch(t, Config{DatabaseURL: dsn}, sink)
	settled(t, l, tracker, "properties")
	w := newWitness(t, dsn)
	for n := range 20 {
		caughtUp(t, l, tracker)
		one, two := read(t, tracker, "properties/id=1"), read(t, tracker, "properties/id=2")
		page := answer{one.at, coherence.Dependencies{coherence.PageHash("/a b")}}
		at, err := w.Announce(t.Context(), "bump properties/id=1", "purge /a b")
		if err != nil {
			t.Fatal(err)
		}
		if err := sink.Wait(t.Context(), at); err != nil {
			t.Fatal(err)
		}
		if one.verdict(tracker) != coherence.Changed || page.verdict(tracker) != coherence.Changed || two.verdict(tracker) != coherence.Fresh {
			t.Fatalf("%d: known up to %s, bumped: %s, purged: %s, neither: %s", n, at, one.verdict(tracker), page.verdict(tracker), two.verdict(tracker))
		}
	}
	if _, err := w.Announce(t.Context(), "bump a\nfloor *"); err == nil {
		t.Error("two lines were taken for one")
	}
}

func TestWitness_SamplesAfterWhatWasCommittedBefore(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	open(t, dsn, properties)
	w := newWitness(t, dsn)
	var all sync.WaitGroup
	for range 8 {
		db := open(t, dsn)
		all.Go(func() {
			for range 25 {
				before, err := coherence.ParseLSN(query[string](t, db, "INSERT INTO properties (location) VALUES ('a') RETURNING pg_current_wal_insert_lsn()::text"))
				at, sampled := w.Sample(t.Context())
				if err = errors.Join(err, sampled); err != nil || at <= before {
					t.Errorf("%s after a commit past %s: %v", at, before, err)
					return
				}
			}
		})
	}
	all.Wait()
	db := open(t, dsn)
	if n := query[int](t, db, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'walcache' AND datname = current_database()"); n != 1 {
		t.Errorf("%d connections", n)
	}
}

func TestWitness_ConnectsAgain(t *testing.T) {
	t.Parallel()
	p := sandboxtest.OwnPostgres(t, map[string]string{"fsync": "off"})
	w := newWitness(t, p.DSN(""))
	if _, err := w.Sample(t.Context()); err != nil {
		t.Fatal(err)
	}
	db := open(t, p.DSN(""))
	if n := query[int](t, db, "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'walcache'"); n != 1 {
		t.Fatalf("%d connections", n)
	}
	if _, err := w.Sample(t.Context()); err != nil {
		t.Errorf("after its connection was ended: %v", err)
	}
	stopServer(t, p)
	if _, err := w.Announce(t.Context(), "floor *"); err == nil {
		t.Error("there is no server")
	}
	startServer(t, p)
	if _, err := w.Announce(t.Context(), "floor *"); err != nil {
		t.Errorf("after the server has come back: %v", err)
	}

	// Nobody waits longer for a server that stands still than he wants to, and the
	// connection is still good for the next.
	if err := p.Pause(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		if _, err := w.Sample(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("from a server that stands still: %v", err)
		}
		cancel()
	}
	if err := p.Resume(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Sample(t.Context()); err != nil {
		t.Error(err)
	}
	w.Close()
	if _, err := w.Sample(t.Context()); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("after Close: %v", err)
	}
}

func TestWitness_NudgesOnceAtMost(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	w := newWitness(t, dsn)
	lost := errors.New("lost")
	for name, c := range map[string]struct {
		known, nudged bool // at the first wait; by the second
		err           error
		waits         int
	}{
		"known at once":      {known: true, waits: 1},
		"known by the nudge": {nudged: true, waits: 2},
		"never":              {err: context.Canceled, waits: 2},
		"cannot be known":    {err: lost, waits: 1},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		var asked []coherence.LSN
		before, err := w.Sample(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		err = w.CatchUp(ctx, func(ctx context.Context, lsn coherence.LSN) error {
			asked = append(asked, lsn)
			if c.err == lost {
				return lost
			}
			if c.known || len(asked) == 2 && c.nudged {
				return nil
			}
			if len(asked) == 2 {
				cancel() // the caller gives up
			}
			<-ctx.Done()
			return ctx.Err()
		})
		cancel()
		if !errors.Is(err, c.err) || len(asked) != c.waits || asked[0] < before || asked[len(asked)-1] != asked[0] {
			t.Errorf("%s: waited for %v: %v", name, asked, err)
		}
	}
}

// A process that waits for the slot learns what the leader says through what
// they share.
func TestListener_CatchesUpWhileItWaits(t *testing.T) {
	t.Parallel()
	p := sandboxtest.OwnPostgres(t, map[string]string{"fsync": "off", "wal_writer_delay": "10s", "synchronous_commit": "off"})
	dsn := p.DSN("")
	db := open(t, dsn, properties, "INSERT INTO properties (location) VALUES ('a')")
	sink := remember(coherence.NewTracker(1<<16, time.Hour))
	c := newCluster(t, Config{DatabaseURL: dsn}, sink, sink)
	second, _ := launch(t, c.config, sink)
	eventually(t, "the second to wait", func() bool { return second.Status().State == "waiting" })
	for n := range 30 {
		a := read(t, c.tracker, "properties/id=1")
		exec(t, db, fmt.Sprintf("UPDATE properties SET price = %d", n))
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		err := second.CatchUp(ctx)
		cancel()
		if v := a.verdict(c.tracker); err != nil || v != coherence.Changed {
			t.Fatalf("after catching up: %s, %v", v, err)
		}
		caughtUp(t, c.first, c.tracker)
	}
	if s := second.Status(); s.State != "waiting" {
		t.Errorf("the second is %s", s.State)
	}
}
