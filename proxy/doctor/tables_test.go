package doctor

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"walcache/proxy/changelog"
	"walcache/proxy/coherence"
	"walcache/proxy/replication"
	"walcache/proxy/sandbox"
	"walcache/proxy/sandbox/sandboxtest"
)

// psql runs a script as the owner does, and returns what it complains of.
func psql(t *testing.T, p *sandbox.Postgres, script string) string {
	t.Helper()
	program := p.Program("psql")
	if _, err := os.Stat(program); err != nil { // the client is its own package in some places
		program = "psql"
	}
	cmd := exec.CommandContext(t.Context(), program, "-X", "-q", "-f", "-", p.DSN(""))
	cmd.Stdin = strings.NewReader(script)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "PGOPTIONS=-c client_min_messages=warning")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("psql: %v\n%s", err, out)
	}
	return string(out)
}

// hostile is a name that would end a comment, a string, a DO block or a line.
const hostile = "we\"ird'\n; DROP TABLE properties; -- $walcache$ \x1b[31m"

// everyKind are tables of every kind that a listener may meet.
var everyKind = []string{
	"CREATE TABLE properties (id serial PRIMARY KEY, location text NOT NULL)",
	"CREATE TABLE jobs (n int)",
	"CREATE TABLE codes (code text NOT NULL, region int NOT NULL, n int); CREATE UNIQUE INDEX codes_both ON codes (code, region); CREATE UNIQUE INDEX codes_one ON codes (code) INCLUDE (n)",
	"CREATE TABLE useless (a int, b int NOT NULL, c int NOT NULL, UNIQUE (c) DEFERRABLE); CREATE UNIQUE INDEX ON useless (a); CREATE UNIQUE INDEX ON useless (b) WHERE b > 0; CREATE UNIQUE INDEX ON useless ((b + 1)); CREATE INDEX ON useless (b)",
	"CREATE TABLE muted (id int PRIMARY KEY); ALTER TABLE muted REPLICA IDENTITY NOTHING",
	"CREATE TABLE deferred (id int PRIMARY KEY DEFERRABLE)",
	"CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (n int) INHERITS (parent)",
	"CREATE TABLE visits (at date) PARTITION BY RANGE (at); CREATE TABLE visits_old PARTITION OF visits FOR VALUES FROM ('2000-01-01') TO ('2020-01-01'); CREATE TABLE visits_new (at date PRIMARY KEY); ALTER TABLE visits ATTACH PARTITION visits_new FOR VALUES FROM ('2020-01-01') TO ('2040-01-01')",
	"CREATE SCHEMA other; CREATE TABLE other.jobs (n int)",
	"CREATE TABLE " + quote(hostile) + " (id int PRIMARY KEY); CREATE TABLE " + quote(hostile+"2") + " (n int)",
}

// The whole way of somebody careful: a role that may only log in, the findings,
// the script, psql, no findings, and a listener that runs as that role.
func TestScript_LetsAPoorRoleRunTheListener(t *testing.T) {
	t.Parallel()
	p := sandboxtest.OwnPostgres(t, map[string]string{"fsync": "off", "max_slot_wal_keep_size": "4GB"})
	db := open(t, p.DSN(""), everyKind...)
	run(t, db, "CREATE ROLE walcache LOGIN PASSWORD 'secret'")
	config := postgresOnly(withUser(t, p.DSN(""), "walcache", "secret"))
	r := Examine(t.Context(), config)
	f := expect(t, r, "postgres.replica_identity", Error,
		`ALTER TABLE public.jobs REPLICA IDENTITY FULL;`,
		`ALTER TABLE public.codes REPLICA IDENTITY USING INDEX codes_one;`,
		`ALTER TABLE public.useless REPLICA IDENTITY FULL;`,
		`ALTER TABLE public.muted REPLICA IDENTITY DEFAULT;`,
		`ALTER TABLE public.deferred REPLICA IDENTITY FULL;`,
		`ALTER TABLE public.child REPLICA IDENTITY FULL;`,
		`ALTER TABLE public.visits_old REPLICA IDENTITY FULL;`,
		`ALTER TABLE other.jobs REPLICA IDENTITY FULL;`)
	if strings.Contains(f.What, "properties") || strings.Contains(strings.Join(f.SQL, " "), "public.visits ") {
		t.Errorf("%s: %q", f.What, f.SQL)
	}
	expect(t, r, "postgres.publications", Error, "CREATE PUBLICATION", "ADD TABLE ONLY public.properties")
	if r.Incomplete() != "" {
		t.Error(r.Incomplete())
	}
	for range 2 { // and nothing the second time
		if complaints := psql(t, p, r.script()); complaints != "" {
			t.Fatalf("psql says\n%s\nof\n%s", complaints, r.script())
		}
	}
	again := Examine(t.Context(), config)
	if again.NeedsAction() {
		t.Fatalf("after the script\n%s", again.text())
	}
	if again.hasStatements() || !strings.HasSuffix(again.text(), "\nAll is well: start proxy serve.\n") {
		t.Errorf("after the script\n%s%s", again.text(), again.script())
	}

	tracker := coherence.NewTracker(1<<10, 2*time.Second)
	listen(t, config.Listener, tracker)
	eventually(t, "every table to be published", func() bool {
		c := tracker.Catalog()
		return c != nil && len(c.Blind) == 0 && len(c.Tables) == 14
	})
	for _, table := range []string{"jobs", "other.jobs", "visits_old", quote(hostile + "2")} {
		column := "n"
		if table == "visits_old" {
			column = "at"
		}
		run(t, db, "UPDATE "+table+" SET "+column+" = NULL", "DELETE FROM "+table)
	}
}

// listen runs a listener until the test ends.
func listen(t *testing.T, config replication.Config, tracker *coherence.Tracker) {
	t.Helper()
	config.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- replication.New(config, changelog.New(tracker, config.Log)).Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("listener: %v", err)
		}
	})
}

// A table that cannot get its identity is not listed either: its updates would
// fail. Here somebody reads it all the time.
func TestScript_ListsNoTableWhoseIdentityItCouldNotSet(t *testing.T) {
	t.Parallel()
	p := sandboxtest.OwnPostgres(t, map[string]string{"fsync": "off"})
	db := open(t, p.DSN(""), "CREATE TABLE jobs (n int); INSERT INTO jobs VALUES (1)", "CREATE ROLE walcache LOGIN REPLICATION PASSWORD 'secret'")
	r := Examine(t.Context(), postgresOnly(withUser(t, p.DSN(""), "walcache", "secret")))
	script := strings.Replace(r.script(), "'2s'", "'10ms'", 1)
	reader := open(t, p.DSN(""), "BEGIN; SELECT * FROM jobs")
	if complaints := psql(t, p, script); !strings.Contains(complaints, "lock timeout") {
		t.Errorf("psql says %q", complaints)
	}
	if n := query[int](t, db, "SELECT count(*) FROM pg_publication_tables WHERE pubname = 'walcache_updates'"); n != 0 {
		t.Error("it is listed")
	}
	run(t, db, "UPDATE jobs SET n = 2")
	run(t, reader, "COMMIT")
	psql(t, p, script)
	expect(t, Examine(t.Context(), postgresOnly(p.DSN(""))), "postgres.replica_identity", OK)
}

func updateFails(t *testing.T, db *pgx.Conn, sql string) bool {
	t.Helper()
	_, err := db.Exec(t.Context(), sql)
	var pg *pgconn.PgError
	if err != nil && (!errors.As(err, &pg) || pg.Code != "55000") {
		t.Fatal(err)
	}
	return err != nil
}

func TestIdentity_UpdatesThatFailBecauseOfThePublicationAreNamedFirst(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	db := open(t, dsn, "CREATE TABLE jobs (n int); INSERT INTO jobs VALUES (1)", "CREATE TABLE other (n int)",
		"CREATE PUBLICATION walcache FOR ALL TABLES WITH (publish = 'insert, truncate')",
		"CREATE PUBLICATION walcache_updates FOR TABLE jobs WITH (publish = 'update, delete')")
	if !updateFails(t, db, "UPDATE jobs SET n = 2") {
		t.Fatal("updates do not fail")
	}
	config := postgresOnly(dsn)
	config.Listener.IgnoreTables = []string{"j*", "public.other"} // which helps its updates nothing
	f := expect(t, Examine(t.Context(), config), "postgres.replica_identity", Error, "published for updates, and without: jobs", "refuses")
	run(t, db, f.SQL...)
	if updateFails(t, db, "UPDATE jobs SET n = 2") {
		t.Fatal("updates fail")
	}
	expect(t, Examine(t.Context(), config), "postgres.replica_identity", OK)
	config.Listener.IgnoreTables = nil
	expect(t, Examine(t.Context(), config), "postgres.replica_identity", Error, "without: other")
}

// What FULL costs is told where statistics say how long a row is.
func TestIdentity_TheCostOfFullIsTold(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	open(t, dsn, "CREATE TABLE notes (body text); ALTER TABLE notes ALTER body SET STORAGE EXTERNAL",
		"INSERT INTO notes SELECT repeat('x', 50000) FROM generate_series(1, 100)", "VACUUM ANALYZE notes")
	f := expect(t, Examine(t.Context(), postgresOnly(dsn)), "postgres.replica_identity", Error, "notes: FULL logs the whole old row (about ", "KiB)")
	if !slices.Contains(f.SQL, "ALTER TABLE public.notes REPLICA IDENTITY FULL;") {
		t.Errorf("%q", f.SQL)
	}
}

func TestPublications_MistakesAreNamedAndMended(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	db := open(t, dsn, "CREATE TABLE a (id int PRIMARY KEY, n int)", "CREATE TABLE b (id int PRIMARY KEY)",
		"CREATE TABLE visits (at date) PARTITION BY RANGE (at); CREATE TABLE visits_old PARTITION OF visits FOR VALUES FROM ('2000-01-01') TO ('2020-01-01')",
		"INSERT INTO visits VALUES ('2001-01-01')", "CREATE PUBLICATION walcache FOR ALL TABLES WITH (publish = 'insert, truncate')")
	filtered := query[int](t, db, "SELECT current_setting('server_version_num')::int") >= 150000
	updates := "CREATE PUBLICATION walcache_updates FOR TABLE a, b, visits WITH (publish = 'update, delete')"
	says := []string{"visits", "DROP TABLE ONLY public.visits;"}
	if filtered {
		updates = "CREATE PUBLICATION walcache_updates FOR TABLE a WHERE (id > 0), b (id), visits WITH (publish = 'update, delete')"
		says = append(says, "a, b, visits", "DROP TABLE ONLY public.a;", "ADD TABLE ONLY public.a;", "ADD TABLE ONLY public.b;")
	}
	run(t, db, updates)
	r := Examine(t.Context(), postgresOnly(dsn))
	expect(t, r, "postgres.publications", Error, says...)
	expect(t, r, "postgres.replica_identity", Error, "published for updates, and without: visits_old")
	if !updateFails(t, db, "UPDATE visits SET at = '2002-01-01'") {
		t.Error("updates do not fail")
	}
	for range 2 {
		run(t, db, r.script())
	}
	r = Examine(t.Context(), postgresOnly(dsn))
	expect(t, r, "postgres.publications", OK)
	expect(t, r, "postgres.replica_identity", OK)
	if updateFails(t, db, "UPDATE visits SET at = '2002-01-01'") {
		t.Error("updates fail")
	}
}

func TestPublications_OfSomebodyElseAreLeftAlone(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	db := open(t, dsn, "CREATE TABLE jobs (n int)")
	all := []string{"CREATE PUBLICATION walcache", "CREATE PUBLICATION walcache FOR ALL TABLES", "CREATE PUBLICATION walcache FOR ALL TABLES WITH (publish_via_partition_root)",
		"CREATE PUBLICATION walcache_updates FOR ALL TABLES", "CREATE PUBLICATION walcache_updates WITH (publish = 'insert')"}
	if query[int](t, db, "SELECT current_setting('server_version_num')::int") >= 150000 {
		all = append(all, "CREATE PUBLICATION walcache_updates FOR TABLES IN SCHEMA public WITH (publish = 'update, delete')")
	}
	for _, sql := range all {
		name := strings.Fields(sql)[2]
		run(t, db, sql)
		r := Examine(t.Context(), postgresOnly(dsn))
		status := Error
		if sql == all[1] { // it carries more than is needed, and works
			status = OK
		}
		f := expect(t, r, "postgres.publications", status)
		if status == Error && (!strings.Contains(f.What, quote(name)) || strings.Contains(r.script(), "PUBLICATION")) {
			t.Errorf("%s: %s\n%s", sql, f.What, r.script())
		}
		run(t, db, "DROP PUBLICATION "+name)
	}
}

func TestPublications_WhatTheRoleMayDoIsLeftToTheListener(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	db := open(t, dsn)
	role, as := login(t, dsn, db)
	run(t, db, "CREATE PUBLICATION walcache FOR ALL TABLES WITH (publish = 'insert, truncate')",
		"CREATE TABLE a (id int PRIMARY KEY)", "ALTER TABLE a OWNER TO "+role)
	config := postgresOnly(as)
	expect(t, Examine(t.Context(), config), "postgres.publications", Error, `missing: "walcache_updates"`, "ADD TABLE ONLY public.a;")
	run(t, db, "DO $$BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO "+role+"', current_database()); END$$")
	expect(t, Examine(t.Context(), config), "postgres.publications", OK, "made by the listener")
	run(t, db, "CREATE TABLE b (id int PRIMARY KEY)")
	expect(t, Examine(t.Context(), config), "postgres.publications", Error, "CREATE PUBLICATION", "ADD TABLE ONLY public.a;", "ADD TABLE ONLY public.b;")
	run(t, db, "CREATE PUBLICATION walcache_updates FOR TABLE ONLY b WITH (publish = 'update, delete')", "ALTER PUBLICATION walcache_updates OWNER TO "+role)
	expect(t, Examine(t.Context(), config), "postgres.publications", OK, "are there")
	run(t, db, "CREATE TABLE c (id int PRIMARY KEY)")
	expect(t, Examine(t.Context(), config), "postgres.publications", Error, "not listed for updates: a, c", "ADD TABLE ONLY public.c;")
	config.Listener.IgnoreTables = []string{"c"}
	expect(t, Examine(t.Context(), config), "postgres.publications", OK)
	run(t, db, "DROP PUBLICATION walcache_updates", "DROP OWNED BY "+role)
}

func TestOldValues_TheBestIndexIsNamed(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	db := open(t, dsn,
		"CREATE TABLE properties (id int PRIMARY KEY, location text NOT NULL, agent int NOT NULL, price numeric NOT NULL, body text NOT NULL)",
		"CREATE INDEX ON properties (location); CREATE INDEX ON properties (agent, price); CREATE INDEX ON properties USING hash (body)",
		"CREATE TABLE loose (id int PRIMARY KEY, maybe int)", "CREATE INDEX ON loose (maybe)",
		"CREATE TABLE whole (id int PRIMARY KEY, n int)", "CREATE INDEX ON whole (n)", "ALTER TABLE whole REPLICA IDENTITY FULL",
		"CREATE TABLE ignored (id int PRIMARY KEY, n int)", "CREATE INDEX ON ignored (n)")
	config := postgresOnly(dsn)
	config.Listener.IgnoreTables = []string{"ignored"}
	f := expect(t, Examine(t.Context(), config), "postgres.old_values", OK, "loose (maybe), properties (location, agent)",
		`-- CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS "properties_identity" ON public.properties (id, location, agent); ALTER TABLE public.properties REPLICA IDENTITY USING INDEX "properties_identity";`,
		"-- ALTER TABLE public.loose REPLICA IDENTITY FULL;")
	for _, line := range f.SQL {
		sql, _, _ := strings.Cut(strings.TrimPrefix(line, "-- "), " -- ")
		for sql := range strings.SplitSeq(sql, "; ") { // one by one: an index is made concurrently
			run(t, db, sql)
		}
	}
	f = expect(t, Examine(t.Context(), config), "postgres.old_values", OK, "all indexed columns are logged")
	if f.Fix != "" {
		t.Error(f.Fix)
	}
}

func TestUnseen_WhatNoStreamCarriesIsNamed(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	open(t, dsn, "CREATE UNLOGGED TABLE fast (n int)", "CREATE TABLE plain (id int PRIMARY KEY)", "CREATE TEMP TABLE mine (n int)",
		"CREATE FOREIGN DATA WRAPPER far; CREATE SERVER away FOREIGN DATA WRAPPER far; CREATE FOREIGN TABLE abroad (n int) SERVER away",
		"CREATE MATERIALIZED VIEW totals AS SELECT count(*) FROM plain",
		"CREATE TABLE visits (at date PRIMARY KEY) PARTITION BY RANGE (at)")
	config := postgresOnly(dsn)
	r := Examine(t.Context(), config)
	expect(t, r, "postgres.unlogged_tables", Warning, "fast", "-- ALTER TABLE public.fast SET LOGGED;")
	expect(t, r, "postgres.foreign_tables", Warning, "abroad")
	expect(t, r, "postgres.materialized_views", Warning, "totals", "pg_logical_emit_message(true, 'walcache', 'floor *')")
	expect(t, r, "postgres.partitions", OK, "visits", "ATTACH")
	if strings.Contains(r.text(), "mine") {
		t.Error(r.text())
	}
	config.Listener.IgnoreTables = []string{"fast", "ab*", "public.totals", "visits"}
	r = Examine(t.Context(), config)
	expect(t, r, "postgres.unlogged_tables", OK, "none")
	expect(t, r, "postgres.foreign_tables", OK, "none")
	expect(t, r, "postgres.materialized_views", OK, "none")
}
