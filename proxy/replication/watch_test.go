package replication

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"walcache/proxy/coherence"
	"walcache/proxy/sandbox/sandboxtest"
)

// Logical decoding does not carry DDL; what it changes is heard of by looking.
func TestWatch_AlteredTablesMoveTheirFloors(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	db := open(t, dsn, properties, twoProperties, "CREATE TABLE other (id int PRIMARY KEY)")
	l, tracker := follow(t, Config{DatabaseURL: dsn})
	settled(t, l, tracker, "properties", "other")
	caughtUp(t, l, tracker)
	name := "properties"
	for _, c := range []struct{ sql, name string }{ // name, if it differs from before
		{"ALTER TABLE properties ADD COLUMN stars int DEFAULT 3", ""},
		{"ALTER TABLE properties RENAME COLUMN stars TO points", ""},
		{"ALTER TABLE properties ALTER COLUMN location TYPE text USING upper(location)", ""},
		{"ALTER TABLE properties ADD COLUMN twice int GENERATED ALWAYS AS (points * 2) STORED", ""},
		{"ALTER TABLE properties DROP COLUMN twice", ""},
		{"ALTER TABLE properties RENAME TO houses", "houses"},
		{"CREATE SCHEMA s; ALTER TABLE houses SET SCHEMA s", "s.houses"},
		{"CREATE TABLE properties AS SELECT * FROM s.houses; ALTER TABLE properties ADD PRIMARY KEY (id)", "properties"},
		{"DROP TABLE properties", "-"},
	} {
		caughtUp(t, l, tracker)
		if strings.HasPrefix(c.sql, "CREATE TABLE") {
			name = c.name // which is not there, and so read as the whole database
		}
		row, table, whole := read(t, tracker, coherence.RowTag(name, "id", "1")), read(t, tracker, coherence.TableTag(name)), read(t, tracker, coherence.Any)
		other := read(t, tracker, "other/id=1")
		exec(t, db, c.sql)
		for what, a := range map[string]answer{"row": row, "table": table, "whole database": whole} {
			eventually(t, fmt.Sprintf("%s: the %s to be stale", c.sql, what), func() bool { return a.verdict(tracker) == coherence.Changed })
		}
		if v := other.verdict(tracker); v == coherence.Changed {
			t.Errorf("%s: another table is %s", c.sql, v)
		}
		if c.name != "" {
			name = c.name
		}
		if name == "-" {
			break
		}
		settled(t, l, tracker, name, "other")
		eventually(t, "one reading of the catalogs", func() bool { return len(tracker.Catalog().Blind) == 0 })
		exec(t, db, "UPDATE "+name+" SET price = 0") // the first row of a new form raises the floor
		expectStale(t, l, tracker, db, tags{coherence.RowTag(name, "id", "1"), coherence.RowTag(name, "id", "2"), "other"},
			"UPDATE "+name+" SET price = price + 1 WHERE id = 1", coherence.RowTag(name, "id", "1"))
	}
	epochs(t, l, 1)
}

// 1. A table is filled. 2. An answer from it is stored as depending on
// everything. 3. Its row is updated, which is not published yet. So before the
// insert counts as known, caches must know that the table is blind.
func TestWatch_ANewTableIsBlindBeforeItsRowsAreKnown(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	db := open(t, dsn, properties)
	tracker := coherence.NewTracker(1<<16, bound)
	sink := &recorder{memory: remember(tracker)}
	seen := map[string]bool{}
	sink.check = func(r coherence.Record) {
		c := tracker.Catalog()
		for _, changed := range r.Tables {
			_, published := c.Tables[changed.Table]
			if seen[changed.Table] = true; !published && !slices.Contains(c.Blind, changed.Table) {
				t.Errorf("rows of %s are known, and nobody knows that updates of it are not", changed.Table)
			}
		}
	}
	l, stop := launch(t, Config{DatabaseURL: dsn}, sink)
	settled(t, l, tracker, "properties")
	for i := range 30 {
		exec(t, db, fmt.Sprintf("CREATE TABLE new%d (id int PRIMARY KEY)", i), fmt.Sprintf("INSERT INTO new%d VALUES (1)", i))
	}
	caughtUp(t, l, tracker)
	settled(t, l, tracker, "new29")
	stop()
	if len(seen) != 30 {
		t.Errorf("rows of %d tables were seen", len(seen))
	}
}

// What the stream showed between two looks, and is gone at the second, must not
// stay.
func TestWatch_PassingTablesLeaveNothingBehind(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	db := open(t, dsn, properties, twoProperties)
	l, tracker := follow(t, Config{DatabaseURL: dsn})
	settled(t, l, tracker, "properties")
	for i := range 5 {
		name := fmt.Sprintf("passing%d", i)
		exec(t, db, "CREATE TABLE "+name+" (id int)", "INSERT INTO "+name+" VALUES (1)")
		eventually(t, "the table to be seen", func() bool { return slices.Contains(tracker.Catalog().Blind, name) })
		exec(t, db, "DROP TABLE "+name)
	}
	blind(t, l, tracker)
	settled(t, l, tracker, "properties")
}

// 1. A transaction changes a table whose updates are not published yet. 2. They
// are published. 3. An answer is read. 4. The transaction commits; the stream
// does not carry what it did in 1. The answer must not be fresh.
func TestWatch_ATableIsNotPublishedWhileOlderWritersAreOpen(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	db := open(t, dsn, properties)
	l, tracker := follow(t, Config{DatabaseURL: dsn})
	settled(t, l, tracker, "properties")
	const listed = "SELECT count(*) FROM pg_publication_rel WHERE prrelid = 'young'::regclass"
	writer := open(t, dsn)
	for { // until the update comes before the table is listed
		exec(t, db, "CREATE TABLE young (id int PRIMARY KEY, v int)", "INSERT INTO young VALUES (1, 0)")
		exec(t, writer, "BEGIN", "UPDATE young SET v = 1")
		if query[int](t, db, listed) == 0 {
			break
		}
		exec(t, writer, "ROLLBACK")
		exec(t, db, "DROP TABLE young")
	}
	eventually(t, "the table to be listed", func() bool { return query[int](t, db, listed) == 1 })
	var answers []answer
	for looks := 0; looks < 4; looks++ { // at least one of them after it was announced
		caughtUp(t, l, tracker)
		if query[int](t, db, "SELECT v FROM young") != 0 {
			t.Fatal("the update is visible")
		}
		if len(tracker.Catalog().Blind) == 0 {
			answers = append(answers, read(t, tracker, coherence.Any))
		}
		if _, published := tracker.Catalog().Tables["young"]; published {
			answers = append(answers, read(t, tracker, "young"))
		}
		was := l.Status().Slot
		eventually(t, "another look", func() bool { return l.Status().Slot != was })
	}
	exec(t, writer, "COMMIT")
	caughtUp(t, l, tracker)
	for _, a := range answers {
		if v := a.verdict(tracker); v == coherence.Fresh {
			t.Errorf("an answer from before the commit is %s", v)
		}
	}
	settled(t, l, tracker, "young")
	blind(t, l, tracker)
	expectStale(t, l, tracker, db, tags{"young/id=1"}, "UPDATE young SET v = 2", "young/id=1")
}

// A table is described before the transaction that made it is visible, and so
// before the catalogs have it.
func TestWatch_ATableThatTheCatalogsDoNotHaveYetIsBlind(t *testing.T) {
	t.Parallel()
	p := sandboxtest.OwnPostgres(t, map[string]string{"fsync": "off"})
	dsn := p.DSN("")
	db := open(t, dsn, properties, "SET synchronous_commit = local")
	l, tracker := follow(t, Config{DatabaseURL: dsn})
	settled(t, l, tracker, "properties")
	caughtUp(t, l, tracker)
	reload(t, db, nobodyAnswers)
	released := hang(t, dsn, db, "CREATE TABLE fresh AS SELECT 1 AS a")
	eventually(t, "the table to be blind", func() bool { return slices.Contains(tracker.Catalog().Blind, "fresh") })
	if there := query[bool](t, db, "SELECT to_regclass('fresh') IS NOT NULL"); there {
		t.Error("the table is visible, and this test tests nothing")
	}
	reload(t, db, "ALTER SYSTEM RESET synchronous_standby_names")
	if err := <-released; err != nil {
		t.Fatal(err)
	}
}

func TestWatch_AFingerprintCountsOnlyIfTheCatalogsAreAsBefore(t *testing.T) {
	before, after := &catalog{}, &catalog{} // alike, and read at two times
	for _, c := range []struct {
		inForce       bool
		before, after *catalog
		want          string
	}{
		{true, before, before, "now"},
		{true, before, after, ""},
		{true, nil, after, ""},
		{false, before, before, ""},
	} {
		s := &session{inForce: c.inForce, settled: c.after}
		s.note("now", c.before, c.after)
		if s.looked != c.want {
			t.Errorf("%+v: it remembers %q", c, s.looked)
		}
	}
}
