package replication

import (
	"log/slog"
	"math"
	"testing"
	"time"

	"walcache/proxy/coherence"
	"walcache/proxy/sandbox/sandboxtest"
)

// Positions are confirmed when they have been visible and logged for ten
// seconds, so that replays cover what anybody else may have lost.
func TestConfirmable_IsWhatWasSafeLongAgo(t *testing.T) {
	start := time.Now()
	for name, lag := range map[string]coherence.LSN{"at once": 0, "5 s later": 5} {
		c, confirmed := confirmable{log: slog.New(slog.DiscardHandler)}, coherence.LSN(0)
		for second := range coherence.LSN(90) {
			visible := 100 + second
			lsn := c.add(start.Add(time.Duration(second)*time.Second), visible, visible-lag, false)
			want := coherence.LSN(0)
			if second >= 10 {
				want = visible - 10 - lag
			}
			if lsn = max(lsn, confirmed); lsn != want {
				t.Fatalf("logged %s: after %d s, confirmed %d, want %d", name, second, lsn, want)
			}
			confirmed = lsn
			if len(c.visible) > 70 || len(c.safe) > 70 {
				t.Fatalf("%d marks are kept", len(c.visible))
			}
		}
		if lsn := c.add(start.Add(time.Hour), 999, 999, false); lsn != 189 {
			t.Errorf("after a pause, confirmed %d, want 189", lsn)
		}
	}
}

// What is not logged for a minute is confirmed all the same, and sooner when
// there is not much room left.
func TestConfirmable_DoesNotWaitForTheChangeLogForEver(t *testing.T) {
	start := time.Now()
	for _, c := range []struct {
		pressed bool
		age     int // of what is confirmed, in seconds
	}{{false, 60}, {true, 10}} {
		log, logs := logging(t)
		m := confirmable{log: log}
		for second := range 200 {
			lsn := m.add(start.Add(time.Duration(second)*time.Second), coherence.LSN(1000+second), 1000, c.pressed && second > 20)
			want := coherence.LSN(0)
			if second >= 10 {
				want = 1000
			}
			if second > 20 && second >= c.age {
				want = coherence.LSN(1000 + second - c.age)
			}
			if lsn != want {
				t.Fatalf("pressed %t: after %d s, confirmed %d, want %d", c.pressed, second, lsn, want)
			}
		}
		if n := logs.count("change log"); n != 1 {
			t.Errorf("pressed %t: told %d times", c.pressed, n)
		}
		if lsn := m.add(start.Add(200*time.Second), 1200, 1200, false); lsn != 1140 || m.told {
			t.Errorf("pressed %t: when it is logged again, %d is confirmed", c.pressed, lsn)
		}
	}
}

func TestConfirmable_IsNeverInvisible(t *testing.T) {
	c, start := confirmable{log: slog.New(slog.DiscardHandler)}, time.Now()
	for second := range 200 {
		if lsn := c.add(start.Add(time.Duration(second)*time.Second), 50, math.MaxUint64, true); lsn > 50 {
			t.Fatalf("%d is confirmed", lsn)
		}
	}
}

func confirmedOf(t *testing.T, dsn string) func() coherence.LSN {
	db := open(t, dsn)
	return func() coherence.LSN {
		t.Helper()
		lsn, err := coherence.ParseLSN(query[string](t, db, "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE database = current_database()"))
		if err != nil {
			t.Fatal(err)
		}
		return lsn
	}
}

// looks waits for some looks at the server, of which there is one a second.
func looks(t *testing.T, l *Listener, n int, each func()) {
	t.Helper()
	for range n {
		was := l.Status().Slot
		eventually(t, "another look", func() bool { return l.Status().Slot != was })
		each()
	}
}

func TestSession_ConfirmsNothingThatIsNotLogged(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	db := open(t, dsn, properties, twoProperties)
	sink := remember(coherence.NewTracker(1<<10, bound))
	l, _ := launch(t, Config{DatabaseURL: dsn}, sink)
	settled(t, l, sink.Tracker, "properties")
	caughtUp(t, l, sink.Tracker)
	logged := sink.Progress(time.Now()).Visible
	sink.locked(func() { sink.logged = logged })
	exec(t, db, "UPDATE properties SET price = 1")
	caughtUp(t, l, sink.Tracker)
	confirmed := confirmedOf(t, dsn)
	looks(t, l, 14, func() {
		if lsn := confirmed(); lsn > logged {
			t.Fatalf("%s is confirmed, and %s logged", lsn, logged)
		}
	})
	if lsn := confirmed(); lsn != logged {
		t.Errorf("what is logged, %s, is not confirmed: %s", logged, lsn)
	}
	if s := l.Status(); s.Sessions != 1 {
		t.Errorf("%d sessions: %s", s.Sessions, s.Reason)
	}
}
