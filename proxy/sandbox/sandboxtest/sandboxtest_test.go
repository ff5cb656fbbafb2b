package sandboxtest_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/redis/go-redis/v9"

	"walcache/proxy/sandbox"
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

func client(t *testing.T, url string) *redis.Client {
	t.Helper()
	options, err := redis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	c := redis.NewClient(options)
	t.Cleanup(func() { c.Close() })
	return c
}

func TestPostgres_DatabaseIsEmptyAndLogical(t *testing.T) {
	conn := connect(t, sandboxtest.Postgres(t))
	var tables int
	var level string
	err := conn.QueryRow(t.Context(), `SELECT count(*), current_setting('wal_level')
		FROM pg_tables WHERE schemaname = 'public'`).Scan(&tables, &level)
	if err != nil || tables != 0 || level != "logical" {
		t.Fatalf("%d tables, wal_level %s, %v", tables, level, err)
	}
}

// replicate makes a slot and starts a stream from it that nobody reads or closes.
func replicate(t *testing.T, dsn, slot string) *pgconn.PgConn {
	t.Helper()
	conn, err := pgconn.Connect(t.Context(), dsn+"&replication=database")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pglogrepl.CreateReplicationSlot(t.Context(), conn, slot, "pgoutput", pglogrepl.CreateReplicationSlotOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := pglogrepl.StartReplication(t.Context(), conn, slot, 0, pglogrepl.StartReplicationOptions{
		PluginArgs: []string{"proto_version '2'", "publication_names 'none'"},
	}); err != nil {
		t.Fatal(err)
	}
	return conn
}

func TestPostgres_DropsSlotsAndSessionsThatAreStillInUse(t *testing.T) {
	var dsn, slot string
	var stream *pgconn.PgConn
	t.Run("left open", func(t *testing.T) {
		dsn = sandboxtest.Postgres(t)
		config, err := pgx.ParseConfig(dsn)
		if err != nil {
			t.Fatal(err)
		}
		slot = "slot_" + config.Database
		stream = replicate(t, dsn, slot)
	})
	defer stream.Close(context.Background())
	var slots int
	err := connect(t, sandboxtest.Postgres(t)).QueryRow(t.Context(),
		`SELECT count(*) FROM pg_replication_slots WHERE slot_name = $1`, slot).Scan(&slots)
	if err != nil || slots != 0 {
		t.Errorf("%d slots, %v", slots, err)
	}
	if conn, err := pgx.Connect(t.Context(), dsn); err == nil {
		conn.Close(t.Context())
		t.Error("the database is still there")
	}
}

func TestRedis_DeletesTheTestsKeysAndNoOthers(t *testing.T) {
	url, other := sandboxtest.Redis(t)
	c := client(t, url)
	if err := c.Set(t.Context(), other+"kept", 1, 0).Err(); err != nil {
		t.Fatal(err)
	}
	var gone string
	t.Run("writes", func(t *testing.T) {
		_, prefix := sandboxtest.Redis(t)
		gone = prefix + "gone"
		if err := c.Set(t.Context(), gone, 1, 0).Err(); err != nil {
			t.Fatal(err)
		}
	})
	if n, err := c.Exists(t.Context(), gone).Result(); err != nil || n != 0 {
		t.Errorf("%s exists: %d, %v", gone, n, err)
	}
	if n, err := c.Exists(t.Context(), other+"kept").Result(); err != nil || n != 1 {
		t.Errorf("the key of another test exists: %d, %v", n, err)
	}
}

func TestOwnPostgres_FlushesUnlessToldOtherwise(t *testing.T) {
	for want, settings := range map[string]map[string]string{"on": nil, "off": {"fsync": "off"}} {
		var fsync string
		p := sandboxtest.OwnPostgres(t, settings)
		if err := connect(t, p.DSN("")).QueryRow(t.Context(), `SHOW fsync`).Scan(&fsync); err != nil || fsync != want {
			t.Errorf("fsync %s with %v (%v)", fsync, settings, err)
		}
	}
}

func TestEventually_EndsWithTheFactOrFails(t *testing.T) {
	calls := 0
	sandboxtest.Eventually(t, time.Minute, func() error {
		if calls++; calls < 3 {
			return errors.New("not yet")
		}
		return nil
	})
	failing := &recorder{TB: t}
	func() {
		defer func() { _ = recover() }()
		sandboxtest.Eventually(failing, 0, func() error { return errors.New("never") })
	}()
	if calls != 3 || !strings.Contains(failing.failure, "never") {
		t.Fatalf("%d calls, failure %q", calls, failing.failure)
	}
}

// recorder keeps the message of a failure, and ends the call with a panic.
type recorder struct {
	testing.TB
	failure string
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.failure = fmt.Sprintf(format, args...)
	panic(r.failure)
}

func TestMain_StopsTheServersAndRemovesTheirFiles(t *testing.T) {
	dir, remove, err := sandbox.TempDir("walcache-test-*")
	if err != nil {
		t.Fatal(err)
	}
	defer remove()
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	run := exec.Command(executable, "-test.v", "-test.run=^(TestPostgres_DatabaseIsEmptyAndLogical|TestRedis_DeletesTheTestsKeysAndNoOthers)$")
	run.Env = append(os.Environ(), "TMPDIR="+dir)
	out, err := run.CombinedOutput()
	if err != nil || strings.Count(string(out), "\n--- PASS: ") != 2 {
		t.Fatalf("%v\n%s", err, out)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Fatalf("left behind: %v, %v", left, err)
	}
}
