package replication

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"walcache/proxy/coherence"
	"walcache/proxy/sandbox/sandboxtest"
)

// blind waits until exactly these tables are named as blind, to people and to
// caches.
func blind(t *testing.T, l *Listener, tracker *coherence.Tracker, names ...string) {
	t.Helper()
	eventually(t, "blind to be "+strings.Join(names, ", "), func() bool {
		return slices.Equal(l.Status().Blind, names) && slices.Equal(tracker.Catalog().Blind, names)
	})
}

// mustWrite fails if the application cannot update and delete right now.
func mustWrite(t *testing.T, db *pgx.Conn, table string) {
	t.Helper()
	exec(t, db, "INSERT INTO "+table+" (n) VALUES (1)", "UPDATE "+table+" SET n = 2", "DELETE FROM "+table)
}

func TestPublication_AKeylessTableStaysWritable(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	db := open(t, dsn, properties, "CREATE TABLE jobs (n int)", twoProperties)
	l, tracker := follow(t, Config{DatabaseURL: dsn})
	mustWrite(t, db, "jobs")
	settled(t, l, tracker, "properties")
	mustWrite(t, db, "jobs")
	blind(t, l, tracker, "jobs")
	if _, narrows := tracker.Catalog().Tables["jobs"]; narrows {
		t.Error("tags of a blind table narrow")
	}
	mustWrite(t, db, "jobs")

	exec(t, db, "INSERT INTO jobs VALUES (1)", "ALTER TABLE jobs REPLICA IDENTITY FULL")
	blind(t, l, tracker)
	settled(t, l, tracker, "jobs")
	expectStale(t, l, tracker, db, []coherence.Tag{"jobs", "properties"}, "UPDATE jobs SET n = 7", "jobs")
	epochs(t, l, 1)

	exec(t, db, "ALTER TABLE jobs REPLICA IDENTITY NOTHING")
	eventually(t, "updates to work again", func() bool {
		_, err := db.Exec(t.Context(), "UPDATE jobs SET n = 8")
		return err == nil
	})
	blind(t, l, tracker, "jobs")
	mustWrite(t, db, "jobs")
}

// A table that inherits from one with a key has none by that.
func TestPublication_AKeylessChildStaysWritable(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	db := open(t, dsn, "CREATE TABLE parent (id serial PRIMARY KEY, n int); CREATE TABLE child () INHERITS (parent); CREATE TABLE keyed (PRIMARY KEY (id)) INHERITS (parent); INSERT INTO child (n) VALUES (1)")
	always, stop := context.WithCancel(t.Context())
	writer := open(t, dsn)
	written := make(chan error, 1)
	go func() {
		for always.Err() == nil {
			if _, err := writer.Exec(context.Background(), "UPDATE child SET n = n + 1"); err != nil {
				written <- err
				return
			}
		}
		written <- nil
	}()
	l, tracker := follow(t, Config{DatabaseURL: dsn})
	settled(t, l, tracker, "keyed")
	blind(t, l, tracker, "child")
	stop()
	if err := <-written; err != nil {
		t.Errorf("the application could not write: %v", err)
	}
	for _, table := range []string{"child", "keyed", "parent"} {
		mustWrite(t, db, table)
	}
	if n := query[int](t, db, "SELECT count(*) FROM pg_publication_tables WHERE pubname = 'walcache_updates'"); n != 2 {
		t.Errorf("%d tables are listed", n)
	}
	exec(t, db, "ALTER TABLE parent DROP CONSTRAINT parent_pkey")
	blind(t, l, tracker, "child", "parent")
	if n := query[int](t, db, "SELECT count(*) FROM pg_publication_tables WHERE pubname = 'walcache_updates'"); n != 1 {
		t.Errorf("%d tables are listed", n)
	}
	mustWrite(t, db, "parent")
}

// PostgreSQL 18 refuses updates of a published table whose identity has
// generated columns.
func TestPublication_AnIdentityWithGeneratedColumnsStaysWritable(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	const columns = "(id serial PRIMARY KEY, n int, twice int GENERATED ALWAYS AS (n * 2) STORED NOT NULL)"
	db := open(t, dsn, "CREATE TABLE a "+columns, "CREATE TABLE b "+columns, "ALTER TABLE b REPLICA IDENTITY FULL",
		"CREATE TABLE c "+columns, "CREATE UNIQUE INDEX c_twice ON c (id, twice)", "ALTER TABLE c REPLICA IDENTITY USING INDEX c_twice")
	l, tracker := follow(t, Config{DatabaseURL: dsn})
	settled(t, l, tracker, "a")
	for _, table := range []string{"a", "b", "c"} {
		mustWrite(t, db, table)
		exec(t, db, "INSERT INTO "+table+" (n) VALUES (1)")
	}
	all := tags{"a/id=2", "a/twice=2", "a/id=9"}
	expectStale(t, l, tracker, db, all, "UPDATE a SET n = 7", "a/id=2", "a/twice=2")
}

func TestPublication_ATableThatLosesItsKeyCanSoonBeWrittenAgain(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	db := open(t, dsn, properties, twoProperties)
	l, tracker := follow(t, Config{DatabaseURL: dsn})
	settled(t, l, tracker, "properties")
	caughtUp(t, l, tracker)
	a := read(t, tracker, "properties/id=1")
	exec(t, db, "ALTER TABLE properties DROP CONSTRAINT properties_pkey")
	eventually(t, "updates to work again", func() bool {
		_, err := db.Exec(t.Context(), "UPDATE properties SET price = 1")
		return err == nil
	})
	eventually(t, "the answer to be stale", func() bool {
		v := a.verdict(tracker)
		return v == coherence.Changed || v == coherence.OtherEpoch
	})
	blind(t, l, tracker, "properties")
	exec(t, db, "ALTER TABLE properties ADD PRIMARY KEY (id)")
	settled(t, l, tracker, "properties")
	blind(t, l, tracker)
	expectStale(t, l, tracker, db, []coherence.Tag{"properties/id=1"}, "UPDATE properties SET price = 2", "properties/id=1")
}

func TestPublication_ThatIsDroppedIsMadeAgain(t *testing.T) {
	for _, name := range []string{"walcache", "walcache_updates"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := sandboxtest.Postgres(t)
			db := open(t, dsn, properties, twoProperties)
			l, tracker := follow(t, Config{DatabaseURL: dsn})
			settled(t, l, tracker, "properties")
			caughtUp(t, l, tracker)
			a := read(t, tracker, "properties/id=2")
			exec(t, db, "DROP PUBLICATION "+name, "UPDATE properties SET price = 7", "INSERT INTO properties (location) VALUES ('c')")
			eventually(t, "another epoch", func() bool { return a.verdict(tracker) == coherence.OtherEpoch })
			settled(t, l, tracker, "properties")
			blind(t, l, tracker) // once what was altered has been announced
			expectStale(t, l, tracker, db, []coherence.Tag{"properties/id=1", "properties/id=2"},
				"UPDATE properties SET price = 8 WHERE id = 1", "properties/id=1")
		})
	}
}

// 1. A publication stops carrying truncates. 2. A table is truncated, unseen.
// 3. It carries them again.
func TestPublication_ThatIsAlteredForAMomentBeginsAnEpoch(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	db := open(t, dsn, properties, twoProperties)
	l, tracker := follow(t, Config{DatabaseURL: dsn})
	settled(t, l, tracker, "properties")
	caughtUp(t, l, tracker)
	a := read(t, tracker, "properties/id=1")
	exec(t, db, "ALTER PUBLICATION walcache SET (publish = 'insert')", "TRUNCATE properties", "ALTER PUBLICATION walcache SET (publish = 'insert, truncate')")
	eventually(t, "another epoch", func() bool { return a.verdict(tracker) == coherence.OtherEpoch })
	settled(t, l, tracker, "properties")
}

// 1. A table is taken off the list. 2. It changes unseen. 3. It is listed
// again, be it by us or by someone else, before anybody has looked.
func TestPublication_ATableTakenOffTheListBeginsAnEpoch(t *testing.T) {
	for name, again := range map[string]string{
		"for good": "SELECT 1", "for a moment": "ALTER PUBLICATION walcache_updates ADD TABLE properties",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := sandboxtest.Postgres(t)
			db := open(t, dsn, properties, twoProperties)
			l, tracker := follow(t, Config{DatabaseURL: dsn})
			settled(t, l, tracker, "properties")
			caughtUp(t, l, tracker)
			a := read(t, tracker, "properties/id=1")
			exec(t, db, "ALTER PUBLICATION walcache_updates DROP TABLE properties", "UPDATE properties SET price = 7", again)
			eventually(t, "another epoch", func() bool { return a.verdict(tracker) == coherence.OtherEpoch })
			settled(t, l, tracker, "properties")
			blind(t, l, tracker) // once what was altered has been announced
			expectStale(t, l, tracker, db, []coherence.Tag{"properties/id=1", "properties/id=2"},
				"UPDATE properties SET price = 8 WHERE id = 1", "properties/id=1")
		})
	}
}

// Tables that cannot be listed because somebody holds them for long must not
// keep the stream from being read.
func TestPublication_LockedTablesHoldNothingElseUp(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	db := open(t, dsn, properties, twoProperties)
	l, tracker := follow(t, Config{DatabaseURL: dsn})
	settled(t, l, tracker, "properties")
	var locked []string
	other := open(t, dsn)
	for _, name := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
		exec(t, other, "BEGIN; CREATE TABLE "+name+" (id int PRIMARY KEY, n int); COMMIT")
		locked = append(locked, name)
	}
	exec(t, other, "BEGIN", "LOCK "+strings.Join(locked, ", ")+" IN SHARE UPDATE EXCLUSIVE MODE")
	exec(t, db, "CREATE TABLE jobs (n int)")
	// Longer than one look at all of the tables takes.
	for looks := 0; looks < 3; looks++ {
		exec(t, db, "INSERT INTO jobs VALUES (1)")
		caughtUp(t, l, tracker)
		was := l.Status().Slot
		eventually(t, "another look at the server", func() bool { return l.Status().Slot != was && l.Status().Slot != nil })
	}
	if s := l.Status(); s.Sessions != 1 || s.State != "streaming" {
		t.Errorf("%d sessions, %s: %s", s.Sessions, s.State, s.Reason)
	}
	exec(t, other, "ROLLBACK")
}

// A table that lost its key is locked when it is to be taken off the list. The
// application cannot update it until that is done, so it is tried again.
func TestPublication_ALockedTableThatLostItsKeyIsTriedAgain(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	db := open(t, dsn, properties, twoProperties)
	l, tracker := follow(t, Config{DatabaseURL: dsn})
	settled(t, l, tracker, "properties")
	caughtUp(t, l, tracker)
	locker := open(t, dsn, "BEGIN",
		"ALTER TABLE properties DROP CONSTRAINT properties_pkey; COMMIT; BEGIN; LOCK TABLE properties IN SHARE UPDATE EXCLUSIVE MODE")
	const waits = "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND relation = 'properties'::regclass"
	eventually(t, "the listener to wait for the lock", func() bool { return query[bool](t, db, waits) })
	eventually(t, "it to give up", func() bool { return !query[bool](t, db, waits) })
	exec(t, locker, "COMMIT")
	eventually(t, "the application to be able to update again", func() bool {
		_, err := db.Exec(t.Context(), "UPDATE properties SET price = 9")
		return err == nil
	})
}
