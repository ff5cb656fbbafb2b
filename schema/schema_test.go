package schema

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/pressly/goose/v3/lock"

	"walcache/proxy/sandbox/sandboxtest"
)

func TestMain(m *testing.M) { sandboxtest.Main(m) }

func connect(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// query returns one value as text.
func query(t *testing.T, conn *pgx.Conn, sql string, args ...any) (value string) {
	t.Helper()
	if err := conn.QueryRow(t.Context(), "SELECT ("+sql+")::text", args...).Scan(&value); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return value
}

var announcement = regexp.MustCompile(`(?m)^SELECT pg_logical_emit_message\(true, 'walcache', '(floor (\*|[a-z_.]+)\n?)+'\);$`)

// announced says what is wrong with a migration that those who follow the
// change stream would not hear of.
func announced(migration string) error {
	if strings.Contains(migration, "NO TRANSACTION") {
		return errors.New("it is not in a transaction, so its announcement is not in the same one")
	}
	up, down, _ := strings.Cut(migration, "-- +goose Down")
	if !announcement.MatchString(up) {
		return errors.New("the way up does not announce itself")
	}
	if !announcement.MatchString(down) {
		return errors.New("the way down does not announce itself")
	}
	return nil
}

func TestMigrations_AnnounceThemselvesUpAndDown(t *testing.T) {
	files, err := migrations.ReadDir(".")
	if err != nil || len(files) == 0 {
		t.Fatalf("no migrations: %v", err)
	}
	for _, f := range files {
		sql, err := migrations.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		if err := announced(string(sql)); err != nil {
			t.Errorf("%s: %v", f.Name(), err)
		}
	}
}

func TestAnnounced_SeesWhatIsMissing(t *testing.T) {
	const say = "SELECT pg_logical_emit_message(true, 'walcache', 'floor properties');\n"
	for _, migration := range []string{
		"-- +goose Up\nCREATE TABLE t();\n-- +goose Down\n" + say,
		"-- +goose Up\n" + say + "-- +goose Down\nDROP TABLE t;\n",
		"-- +goose Up\n" + say,
		"-- +goose NO TRANSACTION\n-- +goose Up\n" + say + "-- +goose Down\n" + say,
		"-- +goose Up\n-- " + say + "-- +goose Down\n" + say,
		"-- +goose Up\n" + strings.Replace(say, "true", "false", 1) + "-- +goose Down\n" + say,
		"-- +goose Up\n" + strings.Replace(say, "floor properties", "properties", 1) + "-- +goose Down\n" + say,
	} {
		if announced(migration) == nil {
			t.Errorf("passes:\n%s", migration)
		}
	}
}

func TestUpAndDown_AreHeardInTheChangeStream(t *testing.T) {
	dsn := sandboxtest.Postgres(t)
	conn := connect(t, dsn)
	query(t, conn, `SELECT pg_create_logical_replication_slot(current_database()::text, 'pgoutput')`)
	if _, err := conn.Exec(t.Context(), `CREATE PUBLICATION heard`); err != nil {
		t.Fatal(err)
	}
	heard := func() string {
		return query(t, conn, `SELECT count(*) FROM pg_logical_slot_get_binary_changes(current_database()::text, NULL, NULL,
			'proto_version', '1', 'publication_names', 'heard', 'messages', 'true')
			WHERE position('walcache'::bytea in data) > 0 AND position('floor '::bytea in data) > 0`)
	}
	for _, step := range []struct {
		do   func(context.Context, string) error
		want string // each migration announces itself
	}{{Up, "2"}, {Down, "1"}, {Down, "1"}} {
		if err := step.do(t.Context(), dsn); err != nil {
			t.Fatal(err)
		}
		if n := heard(); n != step.want {
			t.Errorf("heard %s announcements, want %s", n, step.want)
		}
	}
}

func TestUp_WorksBelowLogicalWAL(t *testing.T) {
	server := sandboxtest.OwnPostgres(t, map[string]string{"wal_level": "replica"})
	if err := Up(t.Context(), server.DSN("postgres")); err != nil {
		t.Fatal(err)
	}
}

func TestStatus_FollowsUpAndDown(t *testing.T) {
	dsn := sandboxtest.Postgres(t)
	applied := func() (n int) {
		t.Helper()
		all, err := Status(t.Context(), dsn)
		if err != nil || len(all) == 0 || all[0].Name != "00001_properties.sql" {
			t.Fatalf("Status: %v, %v", all, err)
		}
		for _, m := range all {
			if m.AppliedAt.IsZero() {
				continue
			}
			n++
			if age := time.Since(m.AppliedAt); age < -time.Second || age > time.Minute {
				t.Errorf("%s applied %v ago", m.Name, age)
			}
		}
		return n
	}
	steps := []struct {
		do   func(context.Context, string) error
		want int
	}{{Up, 2}, {Up, 2}, {Down, 1}, {Down, 0}, {Down, 0}, {Up, 2}}
	for i, s := range steps {
		if err := s.do(t.Context(), dsn); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		if n := applied(); n != s.want {
			t.Fatalf("step %d: %d applied, want %d", i, n, s.want)
		}
	}
}

func TestUp_ManyAtOnceMigrateOnce(t *testing.T) {
	dsn := sandboxtest.Postgres(t)
	errs := make(chan error)
	for range 4 {
		go func() { errs <- Up(t.Context(), dsn) }()
	}
	for range 4 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if n := query(t, connect(t, dsn), `SELECT count(*) FROM goose_db_version WHERE version_id = 1`); n != "1" {
		t.Errorf("migrated %s times", n)
	}
}

func TestUp_WaitsForTheOneUnderWay(t *testing.T) {
	dsn := sandboxtest.Postgres(t)
	conn := connect(t, dsn)
	query(t, conn, `SELECT pg_advisory_lock($1) IS NULL`, lock.DefaultLockID)
	done := make(chan error, 1)
	go func() { done <- Up(t.Context(), dsn) }()

	sandboxtest.Eventually(t, 10*time.Second, func() error {
		if query(t, conn, `SELECT count(*) FROM pg_stat_activity
			WHERE datname = current_database() AND pid <> pg_backend_pid() AND query LIKE '%pg_try_advisory_lock%'`) == "0" {
			return errors.New("no second migrate has asked for the lock")
		}
		return nil
	})
	if query(t, conn, `SELECT to_regclass('properties') IS NULL`) != "true" {
		t.Error("migrated while another was under way")
	}
	query(t, conn, `SELECT pg_advisory_unlock($1)`, lock.DefaultLockID)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if query(t, conn, `SELECT to_regclass('properties') IS NULL`) != "false" {
		t.Error("not migrated when the other was done")
	}
}

func TestProperties_IdentityIsTheIndexOverTagColumns(t *testing.T) {
	dsn := sandboxtest.Postgres(t)
	if err := Up(t.Context(), dsn); err != nil {
		t.Fatal(err)
	}
	got := query(t, connect(t, dsn), `SELECT string_agg(a.attname || ':' || a.attnotnull, ' ' ORDER BY a.attnum)
		FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid AND c.relreplident = 'i'
		JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey)
		WHERE i.indisreplident AND i.indisunique AND c.relname = 'properties'`)
	if want := "id:true location:true"; got != want {
		t.Errorf("replica identity %q, want %q", got, want)
	}
}

func TestProperties_RefuseWhatCannotBeAnswered(t *testing.T) {
	dsn := sandboxtest.Postgres(t)
	if err := Up(t.Context(), dsn); err != nil {
		t.Fatal(err)
	}
	conn := connect(t, dsn)
	insert := func(price, created string) error {
		_, err := conn.Exec(t.Context(), fmt.Sprintf(`INSERT INTO properties (title, description, price, location, created_at)
			VALUES ('t', 'd', %s, 'l', %s)`, price, created))
		return err
	}
	for _, price := range []string{"0", "99999999.99"} {
		if err := insert(price, "default"); err != nil {
			t.Errorf("price %s: %v", price, err)
		}
	}
	for _, bad := range [][2]string{{"-0.01", "now()"}, {"'NaN'", "now()"}, {"1", "'infinity'"}, {"1", "'-infinity'"}} {
		var pg *pgconn.PgError
		if err := insert(bad[0], bad[1]); !errors.As(err, &pg) || pg.Code != "23514" {
			t.Errorf("price %s, created_at %s: %v, want a check violation", bad[0], bad[1], err)
		}
	}
}
