package replication

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"walcache/proxy/coherence"
	"walcache/proxy/sandbox/sandboxtest"
)

// nobody answers as a standby, so commits hang: written, decoded, and not
// visible, until RESET.
const nobodyAnswers = "ALTER SYSTEM SET synchronous_standby_names = 'nobody'"

func reload(t *testing.T, db *pgx.Conn, sql string) {
	t.Helper()
	exec(t, db, sql, "SELECT pg_reload_conf()")
}

// hang runs statements on connections of their own, and returns once a commit
// for each hangs.
func hang(t *testing.T, dsn string, watch *pgx.Conn, statements ...string) (released <-chan error) {
	t.Helper()
	all := make(chan error, len(statements))
	already := query[int](t, watch, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
	for _, sql := range statements {
		go func() {
			db, err := pgx.Connect(context.Background(), dsn)
			if err == nil {
				_, err = db.Exec(context.Background(), sql)
				_ = db.Close(context.Background())
			}
			all <- err
		}()
	}
	eventually(t, "commits that wait for a standby", func() bool {
		return query[int](t, watch, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'") == already+len(statements)
	})
	return all
}

func TestSession_ACommitThatWaitsForAStandbyIsKnownAndNotVisible(t *testing.T) {
	t.Parallel()
	p := sandboxtest.OwnPostgres(t, map[string]string{"fsync": "off"})
	dsn := p.DSN("")
	db := open(t, dsn, properties, "SET synchronous_commit = local", "INSERT INTO properties (location) VALUES ('a'), ('b')")
	l, tracker := follow(t, Config{DatabaseURL: dsn})
	settled(t, l, tracker, "properties")
	caughtUp(t, l, tracker)

	one, two := coherence.RowTag("properties", "id", "1"), coherence.RowTag("properties", "id", "2")
	before := read(t, tracker, one)
	reload(t, db, nobodyAnswers)
	released := hang(t, dsn, db, "UPDATE properties SET price = 1 WHERE id = 1")
	eventually(t, "the change to be known", func() bool { return before.verdict(tracker) == coherence.Changed })

	// An answer read now still holds the old row: it must be stale from birth.
	for range 20 {
		exec(t, db, "CHECKPOINT") // moves the stream past the commit
		if err := l.CatchUp(t.Context()); err != nil {
			t.Fatal(err)
		}
		if price := query[float64](t, db, "SELECT price FROM properties WHERE id = 1"); price != 0 {
			t.Fatal("the commit is visible")
		}
		if v := read(t, tracker, one).verdict(tracker); v != coherence.Changed {
			t.Fatalf("an answer with the old row is %s", v)
		}
		if v := read(t, tracker, two).verdict(tracker); v != coherence.Fresh {
			t.Fatalf("an answer that the commit does not concern is %s", v)
		}
	}
	stuck := tracker.Progress(time.Now()).Visible
	exec(t, db, "UPDATE properties SET price = 2 WHERE id = 2") // visible at once, and after the other
	if v := read(t, tracker, two).at.LSN; v != stuck {
		t.Errorf("visible went from %s to %s, past a commit that is not visible", stuck, v)
	}
	caughtUp := l.CatchUp(t.Context())
	if caughtUp != nil {
		t.Fatal(caughtUp)
	}
	if v := read(t, tracker, two).verdict(tracker); v != coherence.Changed {
		t.Errorf("an answer as of before the change is %s", v)
	}

	reload(t, db, "ALTER SYSTEM RESET synchronous_standby_names")
	if err := <-released; err != nil {
		t.Fatal(err)
	}
	eventually(t, "answers to be fresh again", func() bool {
		return read(t, tracker, one).verdict(tracker) == coherence.Fresh && read(t, tracker, two).verdict(tracker) == coherence.Fresh
	})
	if s := l.Status(); s.Sessions != 1 {
		t.Errorf("%d sessions: %s", s.Sessions, s.Reason)
	}
}

// 1. A slot is being made, and waits for transactions to end. 2. Another
// commits meanwhile, and waits for a standby; its change is not in the stream of
// the slot. 3. An answer that still holds the old row must not be stored.
func TestSession_ACommitThatHangsWhenTheSlotIsMadeHoldsVisibleBack(t *testing.T) {
	t.Parallel()
	p := sandboxtest.OwnPostgres(t, map[string]string{"fsync": "off"})
	dsn := p.DSN("")
	db := open(t, dsn, properties, "SET synchronous_commit = local", "INSERT INTO properties (location) VALUES ('a')")
	reload(t, db, nobodyAnswers)
	first := open(t, dsn, "SET synchronous_commit = local", "BEGIN", "SELECT pg_current_xact_id()")
	l, tracker := follow(t, Config{DatabaseURL: dsn})
	blocked := func(db *pgx.Conn) func() bool {
		xid := query[string](t, db, "SELECT pg_current_xact_id()::text")
		return func() bool {
			return query[bool](t, open(t, dsn), `SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND locktype = 'transactionid' AND transactionid::text = $1)`, xid)
		}
	}
	eventually(t, "the slot to wait for the first transaction", blocked(first))
	second := open(t, dsn, "SET synchronous_commit = local", "BEGIN", "SELECT pg_current_xact_id()")
	exec(t, first, "ROLLBACK")
	eventually(t, "the slot to wait for the second transaction", blocked(second))
	released := hang(t, dsn, db, "UPDATE properties SET price = 1 WHERE id = 1")
	exec(t, second, "ROLLBACK")
	eventually(t, "the stream", func() bool { return l.Status().State == "streaming" })

	check := func() {
		t.Helper()
		for range 10 {
			if err := l.CatchUp(t.Context()); err != nil {
				t.Fatal(err)
			}
			stamp := tracker.Stamp()
			if query[float64](t, db, "SELECT price FROM properties WHERE id = 1") == 0 && stamp != (coherence.Position{}) {
				t.Fatalf("data without the commit is stamped %v, and no change will make it stale", stamp)
			}
		}
	}
	check()
	// Nor may it after a connection was lost, when the slot is no longer new.
	sessions := l.Status().Sessions
	exec(t, db, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'walcache' AND pid <> pg_backend_pid()")
	eventually(t, "another session", func() bool { s := l.Status(); return s.Sessions > sessions && s.State == "streaming" })
	check()

	reload(t, db, "ALTER SYSTEM RESET synchronous_standby_names")
	if err := <-released; err != nil {
		t.Fatal(err)
	}
	settled(t, l, tracker, "properties")
}

func TestSession_LostConnectionsKeepTheEpoch(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	db := open(t, dsn, properties, "INSERT INTO properties (location) VALUES ('a'), ('b')")
	l, tracker := follow(t, Config{DatabaseURL: dsn})
	settled(t, l, tracker, "properties")
	caughtUp(t, l, tracker)
	one, two := read(t, tracker, coherence.RowTag("properties", "id", "1")), read(t, tracker, coherence.RowTag("properties", "id", "2"))
	whole := read(t, tracker, coherence.Any)
	const observing = "pg_current_snapshot|cardinality"
	const connections = "FROM pg_stat_activity WHERE application_name = 'walcache' AND datname = current_database() AND "
	for _, which := range []string{
		"backend_type = 'walsender'",
		"query ~ '" + observing + "'",
		"backend_type = 'client backend' AND query !~ '" + observing + "'",
	} {
		sessions := l.Status().Sessions
		if n := query[int](t, db, "SELECT count(*) FROM (SELECT pg_terminate_backend(pid) "+connections+which+") AS x"); n != 1 {
			t.Fatalf("%d connections with %s", n, which)
		}
		exec(t, db, "UPDATE properties SET price = price + 1 WHERE id = 1") // while we are away, perhaps
		eventually(t, "another session", func() bool { s := l.Status(); return s.Sessions > sessions && s.State == "streaming" })
		caughtUp(t, l, tracker)
		if v := one.verdict(tracker); v != coherence.Changed {
			t.Errorf("%s: a change was missed: %s", which, v)
		}
		if v := two.verdict(tracker); v != coherence.Fresh {
			t.Errorf("%s: an unchanged answer is %s", which, v)
		}
		one.at = tracker.Stamp()
	}
	if v := whole.verdict(tracker); v != coherence.Changed {
		t.Errorf("the whole database: %s", v)
	}
	epochs(t, l, 1)
}

// A session that ends while it replays knows less than those before it; what
// they knew, the tracker still does.
func TestSession_AShortOneForgetsNothing(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	db := open(t, dsn, properties)
	tracker := coherence.NewTracker(1<<10, bound)
	l, stop := launch(t, Config{DatabaseURL: dsn}, remember(tracker))
	settled(t, l, tracker, "properties")
	exec(t, db, "INSERT INTO properties (location) SELECT 'x' FROM generate_series(1, 100000)") // to replay
	caughtUp(t, l, tracker)
	known := tracker.Progress(time.Now()).Known
	for range 2 {
		sessions := l.Status().Sessions
		exec(t, db, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'walcache' AND datname = current_database()")
		eventually(t, "another session", func() bool { return l.Status().Sessions > sessions })
	}
	stop()
	if now := tracker.Progress(time.Now()).Known; now < known {
		t.Errorf("%s was known, and then %s", known, now)
	}
	if n := l.Status().Epochs; n != 1 {
		t.Errorf("%d epochs", n)
	}
}

// A message outside a transaction is the last thing in the WAL.
func TestSession_AMessageAtTheEndOfTheWALKeepsTheEpoch(t *testing.T) {
	t.Parallel()
	p := sandboxtest.OwnPostgres(t, map[string]string{"fsync": "off", "autovacuum": "off"})
	dsn := p.DSN("")
	db := open(t, dsn, properties)
	l, tracker := follow(t, Config{DatabaseURL: dsn})
	settled(t, l, tracker, "properties")
	for range 5 {
		caughtUp(t, l, tracker)
		sessions := l.Status().Sessions
		end := query[string](t, db, "SELECT pg_logical_emit_message(false, 'walcache', 'floor properties')::text")
		lsn, err := coherence.ParseLSN(end)
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "the message", func() bool { return tracker.Progress(time.Now()).Known >= lsn })
		exec(t, db, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'walcache'")
		eventually(t, "another session", func() bool { s := l.Status(); return s.Sessions > sessions && s.State == "streaming" })
		epochs(t, l, 1)
	}
}

func TestSession_TheSecondListenerWaitsAndTakesOver(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	db := open(t, dsn, properties, "INSERT INTO properties (location) VALUES ('a')")
	config := Config{DatabaseURL: dsn, Slot: "walcache_" + randomName()}
	tracker1, tracker2 := coherence.NewTracker(1<<10, time.Hour), coherence.NewTracker(1<<10, time.Hour)
	l1, stop := launch(t, config, remember(tracker1))
	settled(t, l1, tracker1, "properties")
	l2, _ := launch(t, config, remember(tracker2))
	eventually(t, "the second to wait", func() bool { return l2.Status().State == "waiting" })
	if s := l2.Status().Slot; s == nil || s.ActivePID == 0 || s.Holder == "" {
		t.Errorf("the second does not say who holds the slot: %+v", s)
	}
	if tracker2.Progress(time.Now()).Epoch != "" {
		t.Error("the second began an epoch while it waits")
	}
	exec(t, db, "UPDATE properties SET price = 1")
	stop()
	settled(t, l2, tracker2, "properties")
	expectStale(t, l2, tracker2, db, []coherence.Tag{"properties/id=1"}, "UPDATE properties SET price = 2", "properties/id=1")
	epochs(t, l2, 1)
}

// A server that stands still keeps its connections open and answers on none.
func TestSession_AFrozenServerIsGivenUpAndFoundAgain(t *testing.T) {
	t.Parallel()
	p := sandboxtest.OwnPostgres(t, map[string]string{"fsync": "off"})
	dsn := p.DSN("")
	db := open(t, dsn, properties, twoProperties)
	l, tracker := follow(t, Config{DatabaseURL: dsn})
	settled(t, l, tracker, "properties")
	caughtUp(t, l, tracker)
	a := read(t, tracker, "properties/id=1")
	if err := p.Pause(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "nothing to be called fresh", func() bool { return a.verdict(tracker) == coherence.Unproven })
	eventually(t, "the session to be given up", func() bool { return l.Status().State == "connecting" })
	if err := p.Resume(); err != nil {
		t.Fatal(err)
	}
	exec(t, db, "UPDATE properties SET price = 1 WHERE id = 2")
	caughtUp(t, l, tracker)
	if v := a.verdict(tracker); v != coherence.Fresh {
		t.Errorf("an unchanged answer is %s", v)
	}
	epochs(t, l, 1)
}

// An idle server says nothing on its own. Positions are confirmed once they
// are visible, and never before.
func TestSession_AnIdleServerIsNotTakenForDead(t *testing.T) {
	t.Parallel()
	p := sandboxtest.OwnPostgres(t, map[string]string{"fsync": "off", "autovacuum": "off"})
	dsn := p.DSN("")
	db := open(t, dsn, properties)
	l, tracker := follow(t, Config{DatabaseURL: dsn})
	settled(t, l, tracker, "properties")
	exec(t, db, twoProperties)
	caughtUp(t, l, tracker)
	visible := tracker.Progress(time.Now()).Visible
	confirmed := confirmedOf(t, dsn)
	if lsn := confirmed(); lsn >= visible {
		t.Errorf("%s is confirmed at once", lsn)
	}
	looks(t, l, 13, func() {
		if lsn := confirmed(); lsn > tracker.Progress(time.Now()).Visible {
			t.Fatalf("%s is confirmed, and %s visible", lsn, tracker.Progress(time.Now()).Visible)
		}
	})
	if s := l.Status(); s.Sessions != 1 {
		t.Errorf("%d sessions: %s", s.Sessions, s.Reason)
	}
	eventually(t, "what was visible to be confirmed", func() bool { return confirmed() >= visible })
}
