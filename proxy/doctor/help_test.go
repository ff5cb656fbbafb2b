package doctor

import (
	"context"
	"crypto/rand"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/redis/go-redis/v9"

	"walcache/proxy/replication"
	"walcache/proxy/sandbox/sandboxtest"
)

func TestMain(m *testing.M) { sandboxtest.Main(m) }

func randomName() string { return strings.ToLower(rand.Text()[:8]) }

// patient are limits for a machine that has much else to do.
var patient = limits{patience: 30 * time.Second, total: 3 * time.Minute, transaction: time.Hour, roundTrip: time.Minute}

// postgresOnly is what a listener of the database would be told.
func postgresOnly(dsn string) Config {
	return Config{limits: patient, Prefix: "wc:", Listener: replication.Config{
		DatabaseURL: dsn, Slot: "walcache_" + randomName(), Publication: "walcache", MaxRetainedWAL: 1 << 30,
	}}
}

func redisOnly(url, prefix string) Config {
	config := postgresOnly("postgres://u@127.0.0.1:1/nowhere")
	config.RedisURL, config.Prefix = url, prefix
	return config
}

// open connects to a database until the test ends, and runs statements.
func open(t *testing.T, dsn string, statements ...string) *pgx.Conn {
	t.Helper()
	db, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close(context.Background()) })
	run(t, db, statements...)
	return db
}

func run(t *testing.T, db *pgx.Conn, statements ...string) {
	t.Helper()
	for _, sql := range statements {
		if _, err := db.Exec(context.Background(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

func query[T any](t *testing.T, db *pgx.Conn, sql string, args ...any) (value T) {
	t.Helper()
	if err := db.QueryRow(context.Background(), sql, args...).Scan(&value); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return value
}

func eventually(t *testing.T, what string, fact func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !fact(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for: %s", what)
		}
	}
}

// login makes a role that may log in and nothing else, and returns the URL that
// it logs in by.
func login(t *testing.T, dsn string, db *pgx.Conn) (role, as string) {
	t.Helper()
	role = "role_" + randomName()
	run(t, db, "CREATE ROLE "+role+" LOGIN PASSWORD 'secret'")
	t.Cleanup(func() {
		u := parsed(t, dsn)
		u.Path = "/postgres"
		admin, err := pgx.Connect(context.Background(), u.String())
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = admin.Close(context.Background()) }()
		run(t, admin, "DROP ROLE "+role)
	})
	return role, withUser(t, dsn, role, "secret")
}

// follow holds a slot until the test ends, under the application_name.
func follow(t *testing.T, dsn, slot, name string) *pgconn.PgConn {
	t.Helper()
	var conn *pgconn.PgConn
	eventually(t, "a free place", func() (free bool) { // whoever had it may still be leaving
		var err error
		conn, err = pgconn.Connect(t.Context(), dsn+"&replication=database&application_name="+name)
		return err == nil
	})
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	if err := pglogrepl.StartReplication(t.Context(), conn, slot, 0, pglogrepl.StartReplicationOptions{
		PluginArgs: []string{"proto_version '2'", "publication_names 'none'"},
	}); err != nil {
		t.Fatal(err)
	}
	return conn
}

func parsed(t *testing.T, raw string) *url.URL {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func withUser(t *testing.T, raw, user, password string) string {
	u := parsed(t, raw)
	u.User = url.UserPassword(user, password)
	return u.String()
}

func withHost(t *testing.T, raw, host string) string {
	u := parsed(t, raw)
	u.Host = host
	return u.String()
}

// connectRedis is a client of the test's own.
func connectRedis(t *testing.T, url string) *redis.Client {
	t.Helper()
	options, err := redis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	c := redis.NewClient(options)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// find returns the one finding of a check.
func (r Report) find(t *testing.T, check string) Finding {
	t.Helper()
	i := slices.IndexFunc(r, func(f Finding) bool { return f.Check == check })
	if i < 0 {
		t.Fatalf("no finding of %s in\n%s", check, r.text())
	}
	return r[i]
}

func (r Report) text() string {
	var b strings.Builder
	_ = r.Print(&b, false)
	return b.String()
}

func (r Report) script() string {
	var b strings.Builder
	_ = r.Script(&b)
	return b.String()
}

// expect checks a finding, and that its fix is told whenever something has to
// be done.
func expect(t *testing.T, r Report, check string, status Status, says ...string) Finding {
	t.Helper()
	f := r.find(t, check)
	all := strings.Join(append([]string{f.What, f.Why, f.Fix}, f.SQL...), "\n")
	if f.Status != status || status != OK && (f.Why == "" || f.Fix == "") {
		t.Errorf("%s is %s: %s", check, f.Status, all)
	}
	for _, s := range says {
		if !strings.Contains(all, s) {
			t.Errorf("%s does not say %q: %s", check, s, all)
		}
	}
	return f
}
