package replication

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"walcache/proxy/coherence"
	"walcache/proxy/sandbox/sandboxtest"
)

// recorder notes what a listener says, on the way to a tracker.
type recorder struct {
	*memory
	mu      sync.Mutex // guards the following
	records []coherence.Record
	check   func(coherence.Record)
	vouch   func(m time.Time)
	oldest  time.Duration // of fresh-as-of, when the next beat came
}

func (r *recorder) Apply(record coherence.Record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(record.Changes) > 0 || len(record.Tables) > 0 {
		r.records = append(r.records, record)
	}
	if r.check != nil {
		r.check(record)
	}
	return r.memory.Apply(record)
}

func (r *recorder) Beat(epoch string, m time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.oldest = max(r.oldest, r.Tracker.Progress(time.Now()).FreshAge)
	if r.vouch != nil {
		r.vouch(m)
	}
	return r.memory.Beat(epoch, m)
}

const bulky = `CREATE TABLE big (id int PRIMARY KEY, filler text); CREATE TABLE small (id int PRIMARY KEY, v int);
	CREATE TABLE bulk (filler text); INSERT INTO small SELECT i, 0 FROM generate_series(1, 100) i; INSERT INTO big SELECT i, '' FROM generate_series(1, 100) i`

// fill makes a transaction outgrow the server's memory for it, so that it is
// streamed before it ends.
const fill = "INSERT INTO bulk SELECT repeat('x', 500) FROM generate_series(1, 30000) i"

func TestStream_ALargeTransactionCountsWhenItCommits(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	db := open(t, dsn, bulky)
	tracker := coherence.NewTracker(1<<16, time.Minute)
	l, _ := launch(t, Config{DatabaseURL: dsn}, remember(tracker))
	settled(t, l, tracker, "big", "small")
	streams := func() int64 {
		return query[int64](t, db, "SELECT coalesce(sum(stream_count), 0)::int8 FROM pg_stat_replication_slots s JOIN pg_replication_slots r USING (slot_name) WHERE database = current_database()")
	}
	all := tags{"big", "big/id=1", "big/id=2", "small/id=1", "small/id=2"}
	large := open(t, dsn)
	for _, c := range []struct {
		inside []string
		end    string
		want   tags
	}{
		{[]string{"UPDATE big SET filler = 'x' WHERE id = 1", fill}, "ROLLBACK", nil},
		{[]string{"UPDATE big SET filler = 'x' WHERE id = 1", fill, "UPDATE small SET v = 1 WHERE id = 1"}, "COMMIT", tags{"big", "big/id=1", "small/id=1"}},
		{[]string{"DELETE FROM big WHERE id = 2", fill, fill}, "COMMIT", tags{"big", "big/id=2"}},
	} {
		got := staleBy(t, l, tracker, all, func() {
			exec(t, large, "BEGIN")
			exec(t, large, c.inside...)
			for i := range 5 { // while it is open, others commit between its blocks
				expectStale(t, l, tracker, db, tags{"big", "big/id=1", "small/id=1", "small/id=50"},
					fmt.Sprintf("UPDATE small SET v = %d WHERE id = 50", i), "small/id=50")
			}
			exec(t, large, c.end)
		})
		if fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%s: %s: stale are %v, want %v", c.inside, c.end, got, c.want)
		}
	}
	// What a savepoint undid may be moved, and what it did not must be.
	got := staleBy(t, l, tracker, tags{"big/id=1", "small/id=1", "small/id=3"}, func() {
		exec(t, large, "BEGIN", "UPDATE big SET filler = 'a' WHERE id = 1", "SAVEPOINT s", fill, "UPDATE small SET v = 1 WHERE id = 2",
			"ROLLBACK TO s", "UPDATE small SET v = 7 WHERE id = 1", "COMMIT")
	})
	if fmt.Sprint(got) != fmt.Sprint(tags{"big/id=1", "small/id=1"}) {
		t.Errorf("a rolled-back savepoint: stale are %v", got)
	}
	eventually(t, "statistics of streamed transactions", func() bool { return streams() >= 3 })
	if s := l.Status(); s.Sessions != 1 || s.Widened != 0 {
		t.Errorf("%d sessions, %d widened: %s", s.Sessions, s.Widened, s.Reason)
	}
}

// A streamed transaction describes tables as only it sees them.
func TestStream_TablesMadeOrAlteredWithinALargeTransaction(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	db := open(t, dsn, bulky)
	l, tracker := follow(t, Config{DatabaseURL: dsn})
	settled(t, l, tracker, "big", "small")
	large := open(t, dsn)
	for _, end := range []string{"ROLLBACK", "COMMIT"} {
		exec(t, large, "BEGIN", "CREATE TABLE fresh (id int PRIMARY KEY, v int)", "INSERT INTO fresh VALUES (1, 1)",
			"ALTER TABLE small RENAME COLUMN id TO ident", "ALTER TABLE small ADD COLUMN id int DEFAULT 5", "UPDATE small SET v = 3 WHERE ident = 1", fill,
			"UPDATE fresh SET v = 2")
		whole := read(t, tracker, coherence.Any)
		one := read(t, tracker, "small/id=1")
		exec(t, large, end)
		caughtUp(t, l, tracker)
		moved := end == "COMMIT"
		if v := whole.verdict(tracker); (v == coherence.Changed) != moved {
			t.Errorf("%s: the whole database is %s", end, v)
		}
		if v := one.verdict(tracker); (v == coherence.Changed) != moved {
			t.Errorf("%s: the altered table is %s", end, v)
		}
		if end == "ROLLBACK" {
			expectStale(t, l, tracker, db, tags{"small/id=1", "small/id=2", "big"}, "UPDATE small SET v = 4 WHERE id = 1", "small/id=1")
		}
	}
	settled(t, l, tracker, "fresh", "small")
	expectStale(t, l, tracker, db, tags{"small/ident=1", "small/id=5", "small/ident=2", "fresh/id=1"}, "UPDATE small SET v = 9 WHERE ident = 1", "small/ident=1", "small/id=5")
	expectStale(t, l, tracker, db, tags{"small/ident=1", "fresh/id=1", "fresh/id=2"}, "UPDATE fresh SET v = 9", "fresh/id=1")
	if s := l.Status(); s.Widened != 0 || s.Epochs != 1 {
		t.Errorf("%d widened, %d epochs", s.Widened, s.Epochs)
	}
}

func TestStream_ABulkLoadLeavesOtherTablesAlone(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	db := open(t, dsn, bulky)
	sink := &recorder{memory: remember(coherence.NewTracker(1<<18, time.Minute))}
	l, _ := launch(t, Config{DatabaseURL: dsn}, sink)
	settled(t, l, sink.Tracker, "big", "small")
	caughtUp(t, l, sink.Tracker)
	sink.mu.Lock()
	sink.records, sink.oldest = nil, 0
	sink.mu.Unlock()
	const rows = 300000
	expectStale(t, l, sink.Tracker, db, tags{"big", "big/id=1"},
		fmt.Sprintf("INSERT INTO big SELECT i, 'x' FROM generate_series(1001, 1000 + %d) i", rows), "big", "big/id=1")
	sink.mu.Lock()
	defer sink.mu.Unlock()
	t.Logf("%d rows: fresh-as-of was at most %v old", rows, sink.oldest)
	for _, r := range sink.records {
		if len(r.Changes) > wideRows+100 {
			t.Errorf("a record of %d changes", len(r.Changes))
		}
		for _, c := range r.Changes { // so many tags collide in the tracker, but not here
			if c.Hash == coherence.TableFloor("small") || c.Hash == coherence.TableTag("small").Hash() {
				t.Error("another table is moved")
			}
		}
	}
	if n := sink.Progress(time.Now()).Rows["big"]; n != rows {
		t.Errorf("%d rows counted", n)
	}
}

func TestStream_PreparedTransactionsCountWhenTheyCommit(t *testing.T) {
	t.Parallel()
	p := sandboxtest.OwnPostgres(t, map[string]string{"fsync": "off", "max_prepared_transactions": "5"})
	dsn := p.DSN("")
	db := open(t, dsn, properties, twoProperties, "CREATE SEQUENCE numbers")
	l, tracker := follow(t, Config{DatabaseURL: dsn})
	settled(t, l, tracker, "properties")
	all := tags{"properties/id=1", "properties/id=2", coherence.Any}
	for _, c := range []struct {
		sql  string
		want tags
	}{
		{"BEGIN; UPDATE properties SET price = 1 WHERE id = 1; PREPARE TRANSACTION 'a'", nil},
		{"UPDATE properties SET price = 1 WHERE id = 2", tags{"properties/id=2", coherence.Any}},
		{"COMMIT PREPARED 'a'", tags{"properties/id=1", coherence.Any}},
		{"BEGIN; UPDATE properties SET price = 1 WHERE id = 1; PREPARE TRANSACTION 'b'", nil},
		{"ROLLBACK PREPARED 'b'", nil},
		{"SELECT nextval('numbers')", nil},
	} {
		expectStale(t, l, tracker, db, all, c.sql, c.want...)
	}
}

// A column's old value is known where the identity has it. A large value that
// did not change is not sent, and is not NULL.
func TestStream_OldValuesAreKnownOrTheColumnsFloorIsRaised(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	const columns = "(id int PRIMARY KEY, k text NOT NULL, a text, big text)"
	db := open(t, dsn, "CREATE TABLE d "+columns, "CREATE TABLE i "+columns, "CREATE TABLE f "+columns,
		"CREATE INDEX ON d (k); CREATE INDEX ON d (a); CREATE INDEX ON i (a); CREATE INDEX ON f (a)",
		"CREATE UNIQUE INDEX i_id ON i (id, k); ALTER TABLE i REPLICA IDENTITY USING INDEX i_id; ALTER TABLE f REPLICA IDENTITY FULL",
		`DO $$ DECLARE t text; BEGIN FOREACH t IN ARRAY ARRAY['d', 'i', 'f'] LOOP
			EXECUTE format('ALTER TABLE %I ALTER big SET STORAGE EXTERNAL', t);
			EXECUTE format('INSERT INTO %I VALUES (1, ''k1'', ''a1'', repeat(''x'', 20000)), (2, ''k2'', NULL, NULL)', t);
		END LOOP; END $$`)
	l, tracker := follow(t, Config{DatabaseURL: dsn})
	settled(t, l, tracker, "d", "i", "f")
	for _, table := range []string{"d", "i", "f"} {
		tag := func(column, value string) coherence.Tag { return coherence.RowTag(table, column, value) }
		x := query[string](t, db, "SELECT repeat('x', 20000)")
		all := tags{tag("id", "1"), tag("id", "2"), tag("k", "k1"), tag("k", "k2"), tag("k", "k9"), tag("a", "a1"), tag("a", "a9"), tag("big", x), tag("big", "y")}
		for _, c := range []struct {
			sql     string
			d, i, f string // which of them are stale
		}{
			{"UPDATE %s SET a = 'a9' WHERE id = 1", "id1 k1 k2 k9 a1 a9 x y", "id1 k1 a1 a9 x y", "id1 k1 a1 a9 x"},
			{"UPDATE %s SET a = NULL WHERE id = 1", "id1 k1 k2 k9 a1 a9 x y", "id1 k1 a1 a9 x y", "id1 k1 a9 x"},
			{"UPDATE %s SET k = 'k9' WHERE id = 1", "id1 k1 k2 k9 a1 a9 x y", "id1 k1 k9 a1 a9 x y", "id1 k1 k9 x"},
			{"UPDATE %s SET big = 'y' WHERE id = 1", "id1 k1 k2 k9 a1 a9 x y", "id1 k9 a1 a9 x y", "id1 k9 x y"},
			{"UPDATE %s SET big = 'y' WHERE id = 2", "id2 k1 k2 k9 a1 a9 x y", "id2 k2 a1 a9 x y", "id2 k2 y"},
			{"DELETE FROM %s WHERE id = 2", "id2 k1 k2 k9 a1 a9 x y", "id2 k2 a1 a9 x y", "id2 k2 y"},
		} {
			names := map[string]coherence.Tag{"id1": all[0], "id2": all[1], "k1": all[2], "k2": all[3], "k9": all[4], "a1": all[5], "a9": all[6], "x": all[7], "y": all[8]}
			want := map[coherence.Tag]bool{}
			for _, name := range strings.Fields(map[string]string{"d": c.d, "i": c.i, "f": c.f}[table]) {
				want[names[name]] = true
			}
			sql := fmt.Sprintf(c.sql, table)
			got := staleBy(t, l, tracker, all, func() { exec(t, db, sql) })
			for _, tag := range got {
				if !want[tag] {
					t.Errorf("%s: %.40s is stale", sql, tag)
				}
				delete(want, tag)
			}
			for tag := range want {
				t.Errorf("%s: %.40s is not stale", sql, tag)
			}
		}
	}
}

// The server has to read what we say while it decodes, or it would take the slot
// away after two seconds.
func TestStream_ALongTransactionDoesNotEndTheSession(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	const rows = 200_000
	db := open(t, dsn, "CREATE TABLE keyed (id int PRIMARY KEY, n int)", "CREATE TABLE keyless (id int, n int)")
	tracker := coherence.NewTracker(1<<16, time.Minute)
	l, _ := launch(t, Config{DatabaseURL: dsn}, remember(tracker))
	settled(t, l, tracker, "keyed")
	exec(t, db, fmt.Sprintf("INSERT INTO keyed SELECT i, 0 FROM generate_series(1, %d) i", rows),
		"INSERT INTO keyless SELECT * FROM keyed")
	for _, sql := range []string{
		"UPDATE keyed SET n = n + 1",
		"UPDATE keyless SET n = n + 1", // which is not published: decoded, and skipped
	} {
		began := time.Now()
		exec(t, db, sql)
		ran := time.Since(began)
		caughtUp(t, l, tracker)
		t.Logf("%s: %v, and caught up %v later", sql, ran.Round(time.Millisecond), (time.Since(began) - ran).Round(time.Millisecond))
	}
	if s := l.Status(); s.Sessions != 1 {
		t.Errorf("%d sessions: %s", s.Sessions, s.Reason)
	}
}

// A sink that is slow holds the stream up, and must not end it.
func TestStream_ASlowSinkDoesNotEndTheSession(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	db := open(t, dsn, properties, "INSERT INTO properties (location) SELECT 'x' FROM generate_series(1, 100000)")
	tracker := coherence.NewTracker(1<<16, time.Minute)
	sink := &slowToLead{recorder{memory: remember(tracker)}}
	var slow atomic.Bool
	sink.check = func(r coherence.Record) {
		if len(r.Changes) > 0 && slow.CompareAndSwap(true, false) {
			time.Sleep(2 * walSenderTimeout) // what is tested is that time
		}
	}
	l, _ := launch(t, Config{DatabaseURL: dsn}, sink)
	settled(t, l, tracker, "properties")
	caughtUp(t, l, tracker)
	slow.Store(true)
	exec(t, db, "UPDATE properties SET title = 'a' WHERE id = 1", "UPDATE properties SET title = repeat('b', 500)")
	caughtUp(t, l, tracker)
	if s := l.Status(); s.Sessions != 1 || slow.Load() {
		t.Errorf("%d sessions: %s", s.Sessions, s.Reason)
	}
}

// slowToLead takes longer to read what is known than the server waits for a word
// from us.
type slowToLead struct{ recorder }

func (s *slowToLead) Lead(ctx context.Context) (coherence.Past, error) {
	time.Sleep(2 * walSenderTimeout)
	return s.recorder.Lead(ctx)
}

// Whoever comes to see that the slot is not held any more wants to know why.
func TestStream_FarewellIsTheServersReason(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	db := open(t, dsn, properties)
	l, stop := launch(t, Config{DatabaseURL: dsn, Slot: slotOf(dsn)}, remember(coherence.NewTracker(1<<10, time.Hour)))
	eventually(t, "a slot", func() bool { return l.Status().State == stateStreaming })
	stop()
	s, err := openStream(t.Context(), dsn, applicationName, walSenderTimeout)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	held := "SELECT count(*) FROM pg_replication_slots WHERE slot_name = '" + slotOf(dsn) + "' AND active"
	eventually(t, "the slot to be held", func() bool {
		return s.start(t.Context(), slotOf(dsn), publicationsOf("walcache").names()) == nil && query[int](t, db, held) == 1
	})
	exec(t, db, fmt.Sprintf("SELECT pg_terminate_backend(%d)", s.pid()))
	eventually(t, "the slot to be let go", func() bool { return query[int](t, db, held) == 0 })
	var answer *pgconn.PgError
	if err := s.farewell(); !errors.As(err, &answer) || answer.Code != "57P01" {
		t.Errorf("the server said %v", err)
	}
}

// A stream that ends again and again at the same place is given longer.
func TestEnding_GivesAServerThatStallsMoreTime(t *testing.T) {
	var e ending
	lost := fmt.Errorf("%w: unexpected EOF", errStream)
	for i, c := range []struct {
		err  error
		at   coherence.LSN
		want time.Duration
	}{
		{lost, 100, 2 * time.Second}, // it had come further than ever
		{lost, 100, 4 * time.Second},
		{lost, 90, 8 * time.Second},
		{errors.New("a record was not taken"), 90, 8 * time.Second}, // says nothing of the stream
		{lost, 100, 16 * time.Second},
		{lost, 100, 32 * time.Second},
		{lost, 100, time.Minute},
		{lost, 100, time.Minute},
		{lost, 101, 2 * time.Second},
		{fmt.Errorf("%w: %w", errStream, &pgconn.PgError{Severity: "ERROR", Code: "XX000"}), 101, 2 * time.Second}, // it is given up instead
	} {
		e.note(c.err, c.at)
		if got := e.patience(); got != c.want {
			t.Errorf("%d: after %v at %s: %v, want %v", i, c.err, c.at, got, c.want)
		}
	}
	if !e.undecodable {
		t.Error("an error in decoding is not noted")
	}
}
