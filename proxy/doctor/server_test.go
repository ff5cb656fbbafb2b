package doctor

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"walcache/proxy/sandbox"
	"walcache/proxy/sandbox/sandboxtest"
)

func restart(t *testing.T, p *sandbox.Postgres) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := p.Restart(ctx); err != nil {
		t.Fatal(err)
	}
}

// sender takes a place of max_wal_senders until the test ends.
func sender(t *testing.T, dsn string) *pgconn.PgConn {
	t.Helper()
	conn, err := pgconn.Connect(t.Context(), dsn+"&replication=database")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func TestServer_SettingsThatDoNotFitAreNamedAndTheirFixesFit(t *testing.T) {
	t.Parallel()
	p := sandboxtest.OwnPostgres(t, map[string]string{"fsync": "off", "wal_level": "replica", "max_replication_slots": "1", "max_wal_senders": "1"})
	dsn := p.DSN("")
	db := open(t, dsn, "SELECT pg_create_physical_replication_slot('theirs')")
	held := sender(t, dsn)
	r := Examine(t.Context(), postgresOnly(dsn))
	var changes []string
	for _, f := range []Finding{
		expect(t, r, "postgres.wal_level", Error, `"replica"`, "then restart PostgreSQL"),
		expect(t, r, "postgres.replication_slots", Error, "all 1 are in use"),
		expect(t, r, "postgres.wal_senders", Error, "all 1 are in use"),
		expect(t, r, "postgres.wal_kept", Warning, "-1", "fill the disk"),
	} {
		if len(f.SQL) != 1 || !strings.HasPrefix(f.SQL[0], "-- ALTER SYSTEM SET ") {
			t.Fatalf("%s: a setting of the whole server is not a comment: %q", f.Check, f.SQL)
		}
		changes = append(changes, strings.TrimPrefix(f.SQL[0], "-- "))
	}
	expect(t, r, "postgres.replication", Error, "no room for a replication connection")

	run(t, db, changes...)
	_ = held.Close(t.Context())
	restart(t, p)
	r = Examine(t.Context(), postgresOnly(dsn))
	for _, check := range []string{"wal_level", "replication_slots", "wal_senders", "wal_kept", "replication"} {
		expect(t, r, "postgres."+check, OK)
	}
}

func TestServer_OurOwnSlotIsOneThatIsTakenAlready(t *testing.T) {
	t.Parallel()
	p := sandboxtest.OwnPostgres(t, map[string]string{"fsync": "off", "max_replication_slots": "1", "max_wal_senders": "1"})
	config := postgresOnly(p.DSN(""))
	open(t, p.DSN(""), "SELECT pg_create_logical_replication_slot('"+config.Listener.Slot+"', 'pgoutput')")
	r := Examine(t.Context(), config)
	expect(t, r, "postgres.replication_slots", OK, "ours is one of the 1 in use, of 1")
	expect(t, r, "postgres.wal_senders", OK, "1 of 1 free")

	follow(t, p.DSN(""), config.Listener.Slot, "walcache")
	r = Examine(t.Context(), config)
	expect(t, r, "postgres.wal_senders", Warning, "no other proxy could take over")
	expect(t, r, "postgres.replication", OK, "not tried")
}

func TestServer_MaxSlotWALKeepSizeIsComparedWithOurLimit(t *testing.T) {
	t.Parallel()
	p := sandboxtest.OwnPostgres(t, map[string]string{"fsync": "off", "max_slot_wal_keep_size": "64MB"})
	config := postgresOnly(p.DSN(""))
	expect(t, Examine(t.Context(), config), "postgres.wal_kept", Warning, "64 MiB, less than --max-retained-wal (1.0 GiB)")
	config.Listener.MaxRetainedWAL = 64 << 20
	expect(t, Examine(t.Context(), config), "postgres.wal_kept", OK, "64 MiB")

	db := open(t, p.DSN(""))
	for _, names := range []string{"*", "FIRST 1 (a, *)", "walcache", `ANY 1 ("WalCache", b)`, "s1"} {
		run(t, db, "ALTER SYSTEM SET synchronous_standby_names = '"+names+"'", "SELECT pg_reload_conf()")
		eventually(t, "the setting", func() bool { return query[string](t, db, "SHOW synchronous_standby_names") == names })
		status := Error
		if names == "s1" {
			status = OK
		}
		expect(t, Examine(t.Context(), config), "postgres.standbys", status)
	}
}

// A server that recovers and has nobody to recover from stays a standby.
func TestServer_AStandbyIsNotThePrimary(t *testing.T) {
	t.Parallel()
	p := sandboxtest.OwnPostgres(t, map[string]string{"fsync": "off"})
	signal := filepath.Join(p.Dir(), "data", "standby.signal")
	if err := os.WriteFile(signal, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(signal, 0o666); err != nil { // the server runs as somebody else if we are root
		t.Fatal(err)
	}
	restart(t, p)
	r := Examine(t.Context(), postgresOnly(p.DSN("")))
	expect(t, r, "postgres.primary", Error, "standby", "name the primary")
	if r.Incomplete() == "" {
		t.Error("its SQL is called complete")
	}
}

func TestServer_VersionsThatNobodyHereHas(t *testing.T) {
	for version, status := range map[int]Status{130022: Error, 140001: OK, 180000: OK, 190000: Warning} {
		p := &postgres{facts: facts{version: version, versionText: "N"}, notes: notes{server: "postgres"}}
		if suits := p.suits(); suits != (status != Error) {
			t.Errorf("%d suits: %v", version, suits)
		}
		expect(t, p.report, "postgres.version", status)
	}
}

// Who runs PostgreSQL for others is told by a role, and has settings of its own.
func TestServer_FixesSpeakOfTheServiceThatRunsIt(t *testing.T) {
	t.Parallel()
	p := sandboxtest.OwnPostgres(t, map[string]string{"fsync": "off", "wal_level": "replica"})
	db := open(t, p.DSN(""), "CREATE ROLE app LOGIN PASSWORD 'secret'")
	for _, s := range services {
		run(t, db, "CREATE ROLE "+s.admins)
		r := Examine(t.Context(), postgresOnly(withUser(t, p.DSN(""), "app", "secret")))
		f := expect(t, r, "postgres.wal_level", Error, s.logical, s.settings, s.name)
		if len(f.SQL) > 0 {
			t.Errorf("%s: nobody can run %q there", s.name, f.SQL)
		}
		expect(t, r, "postgres.replication", Error, s.grantReplication("app"))
		run(t, db, "DROP ROLE "+s.admins)
	}
}

func TestReachable_SaysWhyItIsNot(t *testing.T) {
	t.Parallel()
	p := sandboxtest.OwnPostgres(t, map[string]string{"fsync": "off"})
	dsn := p.DSN("")
	db := open(t, dsn, "CREATE ROLE app LOGIN PASSWORD 'sesame-open'", "CREATE ROLE few LOGIN PASSWORD 'sesame-open' CONNECTION LIMIT 0")
	hba := query[string](t, db, "SHOW hba_file")
	rules, err := os.ReadFile(hba)
	if err != nil {
		t.Fatal(err)
	}
	reject := "host all app all reject\n"
	file, err := os.OpenFile(hba, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = file.WriteString(reject + string(rules))
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	run(t, db, "SELECT pg_reload_conf()")
	eventually(t, "the rule", func() bool {
		conn, err := pgx.Connect(t.Context(), withUser(t, dsn, "app", "sesame-open"))
		if err == nil {
			_ = conn.Close(t.Context())
		}
		return err != nil
	})
	elsewhere := parsed(t, dsn)
	elsewhere.Path = "/nowhere"
	for url, fix := range map[string]string{
		withUser(t, dsn, "postgres", "sesame-open"):   "correct the user or the password",
		elsewhere.String():                            "correct the name of the database",
		withUser(t, dsn, "app", "sesame-open"):        "pg_hba.conf",
		withUser(t, dsn, "few", "sesame-open"):        "raise the limit",
		"postgres://u:sesame-open@127.0.0.1:1/x":      "start PostgreSQL",
		"postgres://u:sesame-open@127.0.0.1:no/x":     "start PostgreSQL, or correct DATABASE_URL",
		"host=127.0.0.1 port=1 password=sesame-open":  "start PostgreSQL",
		"postgres://u:sesame-open@[::1/x?sslmode=odd": "correct DATABASE_URL",
	} {
		config := postgresOnly(url)
		config.RedisURL, config.Prefix = sandboxtest.Redis(t)
		r := Examine(t.Context(), config)
		f := expect(t, r, "postgres.reachable", Error, fix)
		if strings.Contains(r.text()+r.script(), "sesame-open") || strings.Contains(f.What, "\n") {
			t.Errorf("shown: %s", r.text())
		}
		expect(t, r, "redis.commands", OK) // and the other checks go on
		if r.Incomplete() == "" {
			t.Error("its SQL is called complete")
		}
	}
}

// Whatever stands still, the doctor comes to an end, and says what it knows.
func TestReachable_AServerThatStandsStillIsAFinding(t *testing.T) {
	t.Parallel()
	p, redis := sandboxtest.OwnPostgres(t, map[string]string{"fsync": "off"}), sandboxtest.OwnRedis(t)
	if err := p.Pause(); err != nil {
		t.Fatal(err)
	}
	if err := redis.Pause(); err != nil {
		t.Fatal(err)
	}
	config := postgresOnly(p.DSN(""))
	config.RedisURL = redis.URL()
	config.limits.patience = 200 * time.Millisecond
	r := Examine(t.Context(), config)
	expect(t, r, "postgres.reachable", Error)
	expect(t, r, "redis.reachable", Error)
}

func TestReachable_AConnectionThatBreaksOnTheWayEndsTheQuestions(t *testing.T) {
	t.Parallel()
	relay := newRelay(t, func(r *relay) {
		r.change = func(b []byte) []byte {
			if strings.Contains(string(b), "pg_prepared_xacts") { // of the check of transactions
				return nil
			}
			return b
		}
	}, sandboxtest.Postgres(t))
	r := Examine(t.Context(), postgresOnly(relay.dsn))
	expect(t, r, "postgres.transactions", Warning, "not told")
	expect(t, r, "postgres.reachable", Error, "lost on the way")
	if r.Incomplete() == "" {
		t.Error("its SQL is called complete")
	}
}
