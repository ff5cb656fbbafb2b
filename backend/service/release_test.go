package service

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"walcache/proxy/coherence"
	"walcache/proxy/sandbox/sandboxtest"
	"walcache/schema"
)

// releases are processes on one database, each with a tracker that the test
// moves on.
func startRelease(t *testing.T, dsn, name string) *release {
	t.Helper()
	r := &release{name: name, truth: coherence.NewTracker(1<<10, time.Hour)}
	r.truth.Begin("e", 100)
	r.hears(t, 100)
	r.start(t, dsn)
	return r
}

// start has the release announced, until the test ends or stop is called.
func (r *release) start(t *testing.T, dsn string) (stop func()) {
	t.Helper()
	var err error
	if r.pool, err = open(dsn, connectionName(r.name)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- r.run(ctx, slog.New(slog.NewTextHandler(t.Output(), nil))) }()
	stop = sync.OnceFunc(func() {
		cancel()
		<-ended
		r.pool.Close()
	})
	t.Cleanup(stop)
	return stop
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

// Nor is one that hears of no change, and only looks.
func TestRelease_AnOlderOneThatFollowsNothingIsNotStored(t *testing.T) {
	dsn := migrated(t)
	one := &release{name: "one"}
	one.start(t, dsn)
	is(t, "the only release is not the newest", one.isNewest)
	startRelease(t, dsn, "two")
	is(t, "the first release has not seen the second", func() bool { return !one.isNewest() })
}

// 1. A release is announced while another still runs. 2. A process of the older
// comes back for a moment, which announces that. 3. It is stopped for good.
func TestRelease_OneThatRunsNoMoreGivesWay(t *testing.T) {
	dsn := migrated(t)
	two := &release{name: "two"}
	two.start(t, dsn)
	is(t, "the only release is not the newest", two.isNewest)
	one := &release{name: "one"}
	stop := one.start(t, dsn)
	is(t, "the release that came back is not the newest", func() bool { return one.isNewest() && !two.isNewest() })
	stop()
	is(t, "the release that runs is not the newest", two.isNewest)
}

// What was stored between the announcement and everybody's look is ended by a
// second announcement; and a process that is started again makes nothing stale.
func TestRelease_IsAnnouncedTwiceAndNeverAgain(t *testing.T) {
	dsn := migrated(t)
	old := startRelease(t, dsn, "old") // without it there would be nobody to wait for
	is(t, "the old release is not the newest", old.isNewest)
	r := startRelease(t, dsn, "one")
	started := func() (at time.Time) {
		if err := r.pool.QueryRow(t.Context(), "SELECT max(started_at) FROM releases").Scan(&at); err != nil {
			t.Fatal(err)
		}
		return at
	}
	is(t, "it is not the newest", r.isNewest)
	first := started()
	is(t, "it has not been announced again", func() bool { return started().After(first) })
	second := started()
	again := startRelease(t, dsn, "one")
	is(t, "it is not the newest when it is started again", again.isNewest)
	if third := started(); third != second {
		t.Errorf("announced at %s, again at %s, and by a restart at %s", first, second, third)
	}
}

func TestBuildID_IsThere(t *testing.T) {
	one, err := buildID()
	if err != nil || len(one) < 8 {
		t.Errorf("%q, %v", one, err)
	}
}
