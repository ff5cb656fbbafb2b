package replication

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"testing"

	"walcache/proxy/coherence"
	"walcache/proxy/sandbox/sandboxtest"
)

// refused runs a listener that must end with a ConfigError.
func refused(t *testing.T, config Config) *ConfigError {
	t.Helper()
	config.Log = slog.New(slog.DiscardHandler)
	if config.Slot == "" {
		config.Slot, config.Publication = "walcache_"+randomName(), "walcache"
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err := New(config, remember(coherence.NewTracker(1<<10, bound))).Run(ctx)
	var wrong *ConfigError
	if !errors.As(err, &wrong) {
		t.Fatalf("got %v", err)
	}
	if wrong.What == "" || wrong.Next == "" || !strings.Contains(err.Error(), "try: "+wrong.Next) {
		t.Errorf("no next step: %q", err)
	}
	return wrong
}

func expectWrong(t *testing.T, wrong *ConfigError, what, next string) {
	t.Helper()
	if !strings.Contains(wrong.What, what) || !strings.Contains(wrong.Next, next) {
		t.Errorf("got %q; want %q and %q", wrong, what, next)
	}
}

func TestPreflight_NamesWhatTheServerLacks(t *testing.T) {
	t.Parallel()
	p := sandboxtest.OwnPostgres(t, map[string]string{"fsync": "off", "wal_level": "replica"})
	expectWrong(t, refused(t, Config{DatabaseURL: p.DSN("")}), `wal_level is "replica"`, "ALTER SYSTEM SET wal_level = logical")
}

func TestPreflight_ComparesTheWholeNameWithThoseOfStandbys(t *testing.T) {
	for names, refused := range map[string]bool{
		"":                                      false,
		"*":                                     true,
		"walcache":                              false,
		`"walcache:ours"`:                       true,
		`FIRST 1 (a, "WalCache:OURS")`:          true,
		`ANY 2 (walcache, b, "walcache:other")`: false,
	} {
		if err := checkStandbys(names, "walcache:ours"); (err != nil) != refused {
			t.Errorf("%s: %v", names, err)
		}
	}
}

// PostgreSQL would take us for a synchronous standby, and every commit of the
// application would wait for us.
func TestPreflight_RefusesToBeASynchronousStandby(t *testing.T) {
	t.Parallel()
	p := sandboxtest.OwnPostgres(t, map[string]string{"fsync": "off"})
	dsn := p.DSN("")
	db := open(t, dsn)
	for _, names := range []string{"*", "FIRST 1 (a, *)", "walcache", `ANY 1 ("WalCache", b)`} {
		reload(t, db, "ALTER SYSTEM SET synchronous_standby_names = '"+names+"'")
		eventually(t, "the setting", func() bool { return query[string](t, db, "SHOW synchronous_standby_names") == names })
		expectWrong(t, refused(t, Config{DatabaseURL: dsn}), "synchronous_standby_names", "pg_reload_conf")
	}
	reload(t, db, "ALTER SYSTEM RESET synchronous_standby_names")
	l, tracker := follow(t, Config{DatabaseURL: dsn})
	settled(t, l, tracker)
	// Later it ends nothing but the stream, until it is put right.
	reload(t, db, "ALTER SYSTEM SET synchronous_standby_names = '*'")
	eventually(t, "the stream to end", func() bool { return strings.Contains(l.Status().Reason, "synchronous_standby_names") })
	eventually(t, "nobody to be a standby", func() bool { return query[int](t, db, "SELECT count(*) FROM pg_stat_replication") == 0 })
	reload(t, db, "ALTER SYSTEM RESET synchronous_standby_names")
	settled(t, l, tracker)
}

func TestPreflight_NamesMissingRightsAndForeignObjects(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	role := "role_" + randomName()
	db := open(t, dsn, properties, "CREATE ROLE "+role+" LOGIN PASSWORD 'secret'")
	t.Cleanup(func() { exec(t, elsewhere(t, dsn), "DROP ROLE "+role) })
	as := withUser(t, dsn, role, "secret")
	expectWrong(t, refused(t, Config{DatabaseURL: as}), "may not replicate", `ALTER ROLE "`+role+`" REPLICATION`)
	exec(t, db, "ALTER ROLE "+role+" REPLICATION")
	expectWrong(t, refused(t, Config{DatabaseURL: as}), "may not change publications", "CREATE PUBLICATION")

	// An owner does the rest; nothing else is needed.
	exec(t, db, "CREATE PUBLICATION walcache FOR ALL TABLES WITH (publish = 'insert, truncate')", "CREATE PUBLICATION walcache_updates FOR TABLE properties WITH (publish = 'update, delete')",
		"CREATE TABLE later (id int PRIMARY KEY)", twoProperties)
	tracker := coherence.NewTracker(1<<10, bound)
	l, stop := launch(t, Config{DatabaseURL: as}, remember(tracker))
	settled(t, l, tracker, "properties")
	blind(t, l, tracker, "later")
	expectStale(t, l, tracker, db, tags{"properties/id=1", "properties/id=2"}, "UPDATE properties SET price = 1 WHERE id = 1", "properties/id=1")
	exec(t, db, "ALTER PUBLICATION walcache_updates ADD TABLE later")
	blind(t, l, tracker)
	stop()
	slot := query[string](t, db, "SELECT slot_name FROM pg_replication_slots WHERE database = current_database()")
	eventually(t, "the slot to be free", func() bool {
		_, err := db.Exec(t.Context(), "SELECT pg_drop_replication_slot('"+slot+"')")
		return err == nil
	})

	other := "other_" + randomName()
	exec(t, db, "SELECT pg_create_logical_replication_slot('"+other+"', 'test_decoding')")
	expectWrong(t, refused(t, Config{DatabaseURL: dsn, Slot: other, Publication: "walcache"}), other, "--slot")
	exec(t, db, "CREATE PUBLICATION theirs FOR TABLE properties")
	expectWrong(t, refused(t, Config{DatabaseURL: dsn, Slot: "s_" + randomName(), Publication: "theirs"}), "theirs", "--publication")
}

// TestPreflight_RefusesAPublicationThatCarriesWhatItDoesNotList: tables without
// an identity would be among them, and the application's updates of them fail.
func TestPreflight_RefusesAPublicationThatCarriesWhatItDoesNotList(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	db := open(t, dsn, "CREATE TABLE whole (id int, day date, PRIMARY KEY (id, day)) PARTITION BY RANGE (day)",
		"CREATE TABLE part PARTITION OF whole FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')",
		"CREATE PUBLICATION parents FOR ALL TABLES WITH (publish = 'insert, truncate')",
		"CREATE PUBLICATION parents_updates FOR TABLE whole WITH (publish = 'update, delete')")
	expectWrong(t, refused(t, Config{DatabaseURL: dsn, Slot: "s_" + randomName(), Publication: "parents"}), "parents_updates", "--publication")
	if query[int](t, db, "SELECT current_setting('server_version_num')::int") >= 150000 {
		exec(t, db, "CREATE PUBLICATION schemas FOR ALL TABLES WITH (publish = 'insert, truncate')",
			"CREATE PUBLICATION schemas_updates FOR TABLES IN SCHEMA public WITH (publish = 'update, delete')")
		expectWrong(t, refused(t, Config{DatabaseURL: dsn, Slot: "s_" + randomName(), Publication: "schemas"}), "schemas_updates", "--publication")
	}
}

func TestPreflight_AMemberOfAmazonsRoleMayReplicate(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	role := "role_" + randomName()
	db := open(t, dsn, "CREATE ROLE "+role+" LOGIN PASSWORD 'secret'")
	exec(t, db, "DO $$ BEGIN CREATE ROLE rds_replication; EXCEPTION WHEN duplicate_object THEN END $$", "GRANT rds_replication TO "+role)
	t.Cleanup(func() { exec(t, elsewhere(t, dsn), "DROP ROLE "+role, "DROP ROLE rds_replication") })
	expectWrong(t, refused(t, Config{DatabaseURL: withUser(t, dsn, role, "secret")}), "may not change publications", "CREATE PUBLICATION")
}

func withUser(t *testing.T, dsn, user, password string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(user, password)
	return u.String()
}

// logBuffer collects a log.
type logBuffer struct {
	mu   sync.Mutex // guards the following
	text bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func TestListener_NeverShowsThePassword(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	const password = "sesame-open"
	for what, broken := range map[string]string{
		"wrong password":  withUser(t, dsn, "postgres", password),
		"unknown host":    "postgres://u:" + password + "@127.0.0.1:1/x",
		"no URL":          "postgres://u:" + password + "@[::1/x",
		"bad port":        "postgres://u:" + password + "@localhost:port/x",
		"unknown setting": withUser(t, dsn, "postgres", password) + "&sslmode=perhaps",
		"keywords":        "host=127.0.0.1 port=1 user=u password=" + password + " dbname=x",
	} {
		var text logBuffer
		config := Config{DatabaseURL: broken, Slot: "s", Publication: "p", Log: slog.New(slog.NewTextHandler(&text, nil))}
		l := New(config, remember(coherence.NewTracker(1<<10, bound)))
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- l.Run(ctx) }()
		eventually(t, what+" to be reported", func() bool { return l.Status().Reason != "" || len(ended) > 0 })
		cancel()
		err := <-ended
		_, uninstallErr := Uninstall(t.Context(), config, true)
		for _, shown := range []string{text.String(), l.Status().Reason, errText(err), errText(uninstallErr)} {
			if strings.Contains(shown, password) {
				t.Errorf("%s: %s", what, shown)
			}
		}
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
