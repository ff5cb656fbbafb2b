package replication

import (
	"context"
	"slices"
	"testing"

	"walcache/proxy/coherence"
	"walcache/proxy/sandbox/sandboxtest"
)

type tags = []coherence.Tag

const events = `CREATE TABLE events (id int, region text NOT NULL, note text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
	CREATE TABLE events_eu PARTITION OF events FOR VALUES IN ('eu');
	CREATE TABLE events_us PARTITION OF events FOR VALUES IN ('us') PARTITION BY RANGE (id);
	CREATE TABLE events_us_1 PARTITION OF events_us FOR VALUES FROM (0) TO (1000);
	INSERT INTO events VALUES (1, 'eu', ''), (2, 'us', ''), (3, 'eu', '')`

func TestCatalog_PartitionsMoveTheirParents(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	db := open(t, dsn, events)
	l, tracker := follow(t, Config{DatabaseURL: dsn})
	settled(t, l, tracker, "events", "events_eu", "events_us", "events_us_1")
	all := tags{"events", "events/id=1", "events/id=2", "events/region=eu", "events_eu", "events_eu/id=1", "events_us", "events_us/id=2", "events_us_1/id=2"}
	for _, c := range []struct {
		sql  string
		want tags
	}{
		{"UPDATE events SET note = 'x' WHERE id = 2", tags{"events", "events/id=2", "events_us", "events_us/id=2", "events_us_1/id=2"}},
		{"UPDATE events_eu SET note = 'x' WHERE id = 1", tags{"events", "events/id=1", "events/region=eu", "events_eu", "events_eu/id=1"}},
		{"UPDATE events SET region = 'us' WHERE id = 1", tags{"events", "events/id=1", "events/region=eu", "events_eu", "events_eu/id=1", "events_us"}},
		{"DELETE FROM events WHERE id = 1", tags{"events", "events/id=1", "events_us"}},
		{"TRUNCATE events_us_1", tags{"events", "events/id=1", "events/id=2", "events/region=eu", "events_us", "events_us/id=2", "events_us_1/id=2"}},
		{"TRUNCATE events", all},
	} {
		expectStale(t, l, tracker, db, all, c.sql, c.want...)
	}
}

func TestCatalog_AttachingAndDetachingMovesTheParent(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	db := open(t, dsn, events, "CREATE TABLE events_asia (id int, region text NOT NULL, note text, PRIMARY KEY (id, region)); INSERT INTO events_asia VALUES (9, 'asia', '')")
	l, tracker := follow(t, Config{DatabaseURL: dsn})
	settled(t, l, tracker, "events", "events_asia")
	moved := func(sql string) {
		t.Helper()
		caughtUp(t, l, tracker)
		a := read(t, tracker, "events/id=9")
		exec(t, db, sql)
		eventually(t, sql+" to move events/id=9", func() bool { return a.verdict(tracker) == coherence.Changed })
		settled(t, l, tracker, "events", "events_asia")
	}
	moved("ALTER TABLE events ATTACH PARTITION events_asia FOR VALUES IN ('asia')")
	expectStale(t, l, tracker, db, tags{"events/id=1", "events/id=9", "events_asia/id=9"},
		"UPDATE events_asia SET note = 'x'", "events/id=9", "events_asia/id=9")
	moved("ALTER TABLE events DETACH PARTITION events_asia")
	expectStale(t, l, tracker, db, tags{"events/id=1", "events/id=9", "events_asia/id=9"},
		"UPDATE events_asia SET note = 'y'", "events_asia/id=9")
	epochs(t, l, 1)
}

func TestCatalog_InheritanceMovesTheParent(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	db := open(t, dsn, `CREATE TABLE cities (id int PRIMARY KEY, name text); CREATE TABLE capitals (country text, PRIMARY KEY (id)) INHERITS (cities);
		CREATE TABLE ports (PRIMARY KEY (id)) INHERITS (capitals); INSERT INTO cities VALUES (1, 'a'); INSERT INTO capitals VALUES (2, 'b', 'c'); INSERT INTO ports VALUES (3, 'd', 'e')`)
	l, tracker := follow(t, Config{DatabaseURL: dsn})
	settled(t, l, tracker, "cities", "capitals", "ports")
	all := tags{"cities", "cities/id=1", "cities/id=2", "cities/id=3", "capitals", "capitals/id=2", "capitals/id=3", "ports"}
	expectStale(t, l, tracker, db, all, "UPDATE ONLY cities SET name = 'x'", "cities", "cities/id=1")
	expectStale(t, l, tracker, db, all, "UPDATE ONLY capitals SET name = 'x'", "cities", "cities/id=2", "capitals", "capitals/id=2")
	expectStale(t, l, tracker, db, all, "UPDATE ports SET name = 'x'", "cities", "cities/id=3", "capitals", "capitals/id=3", "ports")
	expectStale(t, l, tracker, db, all, "TRUNCATE ports", all...)
}

// A table that others show in narrows only if the changes of all of them reach
// the stream.
func TestCatalog_AParentIsPublishedOnlyWithAllItsChildren(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	open(t, dsn, properties, "CREATE TABLE p (id int, r text) PARTITION BY LIST (r); CREATE TABLE p_a PARTITION OF p FOR VALUES IN ('a'); CREATE TABLE p_b (id int, r text, PRIMARY KEY (id, r)); ALTER TABLE p ATTACH PARTITION p_b FOR VALUES IN ('b')",
		"CREATE UNLOGGED TABLE fast (id int PRIMARY KEY)", "CREATE TABLE sessions (id int)", "CREATE TABLE base (id int PRIMARY KEY); CREATE TABLE sessions_old (PRIMARY KEY (id)) INHERITS (base)")
	l, tracker := follow(t, Config{DatabaseURL: dsn, IgnoreTables: []string{"sess*"}})
	settled(t, l, tracker, "properties", "p_b")
	for _, name := range []string{"p", "p_a", "fast", "sessions", "sessions_old", "base"} {
		if _, published := tracker.Catalog().Tables[name]; published {
			t.Errorf("%s is published", name)
		}
	}
	blind(t, l, tracker, "p_a")
	if s := l.Status(); !slices.Equal(s.Unlogged, []string{"fast"}) {
		t.Errorf("unlogged: %v", s.Unlogged)
	}
}

func TestCatalog_ValuesNarrowWhereEqualInSQLIsEqualAsText(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	db := open(t, dsn, "CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false)", "CREATE EXTENSION citext",
		"CREATE DOMAIN dom AS int", `CREATE TABLE k (id int PRIMARY KEY, small smallint, big bigint, u uuid, b boolean, d date, txt text, vc varchar(20), c_txt text COLLATE "C",
		nd text COLLATE nocase, ci citext, ch char(5), num numeric, fl float8, ts timestamptz, iv interval, dm dom, arr int[], j jsonb)`,
		"ALTER TABLE k REPLICA IDENTITY FULL",
		`INSERT INTO k SELECT i, i, -i, ('00000000-0000-0000-0000-00000000000' || i)::uuid, i = 1, '2026-01-01'::date + i, 'v' || i, 'v' || i, 'v' || i, 'v' || i, 'v' || i, 'v' || i, i, i, '2026-01-01', '1 day', i, ARRAY[i], '1' FROM generate_series(1, 2) i`)
	l, tracker := follow(t, Config{DatabaseURL: dsn})
	settled(t, l, tracker, "k")
	named := tags{
		"k/id=1", "k/small=1", "k/big=-1", "k/u=00000000-0000-0000-0000-000000000001", "k/b=t", "k/d=2026-01-02", "k/txt=v1", "k/vc=v1", "k/c_txt=v1",
	}
	other := tags{
		"k/id=2", "k/small=2", "k/big=-2", "k/u=00000000-0000-0000-0000-000000000002", "k/b=f", "k/d=2026-01-03", "k/txt=v2", "k/vc=v2", "k/c_txt=v2",
	}
	opaque := tags{"k/nd=V2", "k/ci=v2", "k/ch=v2", "k/num=2", "k/fl=2", "k/ts=x", "k/iv=x", "k/dm=2", "k/arr=x", "k/j=1"}
	all := slices.Concat(named, other, opaque)
	expectStale(t, l, tracker, db, all, "UPDATE k SET j = '2' WHERE id = 1", slices.Concat(named, opaque)...)
}

func TestCatalog_NamesAreSpelledAsInTags(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	db := open(t, dsn, `CREATE SCHEMA "Verkauf 1"; CREATE SCHEMA s; CREATE TABLE s.properties (id int PRIMARY KEY); CREATE TABLE properties (id int PRIMARY KEY);
		CREATE TABLE "Verkauf 1"."a.b/c""d'é" ("Nr. ""1" int PRIMARY KEY, v int); CREATE TABLE "*" (id int PRIMARY KEY, v int);
		INSERT INTO "Verkauf 1"."a.b/c""d'é" VALUES (1), (2); INSERT INTO "*" VALUES (1)`)
	odd := coherence.TableName("Verkauf 1", `a.b/c"d'é`)
	l, tracker := follow(t, Config{DatabaseURL: dsn, Slot: "odd_" + randomName(), Publication: `it's "odd"`})
	settled(t, l, tracker, odd, "s.properties", "properties", "%2A")
	one, two := coherence.RowTag(odd, `Nr. "1`, "1"), coherence.RowTag(odd, `Nr. "1`, "2")
	all := tags{one, two, coherence.TableTag(odd), "s.properties", "properties", "%2A"}
	expectStale(t, l, tracker, db, all, `UPDATE "Verkauf 1"."a.b/c""d'é" SET v = 1 WHERE "Nr. ""1" = 1`, one, coherence.TableTag(odd))
	expectStale(t, l, tracker, db, all, "INSERT INTO s.properties VALUES (1)", "s.properties")
	expectStale(t, l, tracker, db, all, "INSERT INTO properties VALUES (1)", "properties")
	expectStale(t, l, tracker, db, all, `UPDATE "*" SET v = 1`, "%2A")
}

// Values come as UTF-8 whatever the database's encoding and settings are; where
// it has none, bytes come as they are.
func TestCatalog_EncodingsAndSettingsDoNotShowInTags(t *testing.T) {
	t.Parallel()
	admin := elsewhere(t, sandboxtest.Postgres(t))
	for encoding, insert := range map[string]string{
		"LATIN1":    "INSERT INTO k VALUES (1, 'Zürich', '2026-01-02'), (2, 'Köln', '2026-01-03')",
		"SQL_ASCII": `INSERT INTO k VALUES (1, E'Z\303\274rich', '2026-01-02'), (2, E'K\366ln', '2026-01-03')`,
	} {
		t.Run(encoding, func(t *testing.T) {
			name := "enc_" + randomName()
			exec(t, admin, "CREATE DATABASE "+name+" ENCODING "+encoding+" LOCALE 'C' TEMPLATE template0",
				"ALTER DATABASE "+name+" SET datestyle = 'German, DMY'", "ALTER DATABASE "+name+" SET client_encoding = 'LATIN1'")
			t.Cleanup(func() {
				eventually(t, "the slot to be free", func() bool {
					_, err := admin.Exec(context.Background(), "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = '"+name+"'")
					return err == nil
				})
				exec(t, admin, "DROP DATABASE "+name+" WITH (FORCE)")
			})
			config := admin.Config().Copy()
			dsn := "postgres://" + config.User + ":" + config.Password + "@" + hostPort(config) + "/" + name + "?sslmode=disable"
			db := open(t, dsn, "CREATE TABLE k (id int PRIMARY KEY, place text NOT NULL, day date NOT NULL)", "CREATE UNIQUE INDEX k_identity ON k (id, place, day)",
				"ALTER TABLE k REPLICA IDENTITY USING INDEX k_identity", "SET client_encoding = 'UTF8'", insert)
			tracker := coherence.NewTracker(1<<16, bound)
			l, stop := launch(t, Config{DatabaseURL: dsn}, remember(tracker))
			t.Cleanup(func() { _ = db.Close(t.Context()); stop() })
			settled(t, l, tracker, "k")
			koeln := coherence.RowTag("k", "place", map[string]string{"LATIN1": "Köln", "SQL_ASCII": "K\xf6ln"}[encoding])
			all := tags{coherence.RowTag("k", "place", "Zürich"), koeln, "k/day=2026-01-02", "k/day=2026-01-03"}
			expectStale(t, l, tracker, db, all, "UPDATE k SET place = 'x' WHERE id = 1", all[0], all[2])
			expectStale(t, l, tracker, db, all, "DELETE FROM k WHERE id = 2", koeln, all[3])
		})
	}
}
