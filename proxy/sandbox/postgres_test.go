package sandbox_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"walcache/proxy/sandbox"
	"walcache/proxy/sandbox/sandboxtest"
)

var unsafe = map[string]string{"fsync": "off"}

func connect(t *testing.T, p *sandbox.Postgres) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), p.DSN(""))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func mustExec(t *testing.T, p *sandbox.Postgres, sql string) {
	t.Helper()
	if _, err := connect(t, p).Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

func mustQuery(t *testing.T, p *sandbox.Postgres) { t.Helper(); mustExec(t, p, "SELECT 1") }

// keepBusy starts a query that is in a loop for hours and returns once it runs.
func keepBusy(t *testing.T, p *sandbox.Postgres) {
	t.Helper()
	busy := connect(t, p)
	go busy.Exec(context.Background(), "SELECT count(*) FROM generate_series(1, 1e11::bigint) a, generate_series(1, 10) b")
	watch := connect(t, p)
	sandboxtest.Eventually(t, 10*time.Second, func() error {
		var state string
		return watch.QueryRow(t.Context(), `SELECT state FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%1e11%' AND pid <> pg_backend_pid()`).Scan(&state)
	})
}

// start runs a server in dir, stopped when the test ends.
func start(t *testing.T, config sandbox.PostgresConfig) *sandbox.Postgres {
	t.Helper()
	if config.Settings == nil {
		config.Settings = unsafe
	}
	p, err := sandbox.StartPostgres(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Kill(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func tempDir(t *testing.T) string {
	t.Helper()
	dir, remove, err := sandbox.TempDir("walcache-test-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := remove(); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestPostgres_HasTheSettingsThatReplicationNeeds(t *testing.T) {
	p := start(t, sandbox.PostgresConfig{Dir: filepath.Join(tempDir(t), "pg"), Settings: map[string]string{
		"fsync": "off", "application_name": "it's quoted", "max_replication_slots": "3",
	}})
	conn := connect(t, p)
	for name, want := range map[string]string{
		"wal_level":               "logical",
		"server_encoding":         "UTF8",
		"listen_addresses":        "127.0.0.1",
		"unix_socket_directories": "",
		"password_encryption":     "scram-sha-256",
		"max_replication_slots":   "3",
		"application_name":        "it's quoted",
		"port":                    strconv.Itoa(p.Port()),
	} {
		var got string
		if err := conn.QueryRow(t.Context(), "SELECT current_setting($1)", name).Scan(&got); err != nil || got != want {
			t.Errorf("%s = %q (%v), want %q", name, got, err, want)
		}
	}
}

func TestPostgres_WantsThePassword(t *testing.T) {
	p := start(t, sandbox.PostgresConfig{Dir: filepath.Join(tempDir(t), "pg")})
	config, err := pgx.ParseConfig(p.DSN(""))
	if err != nil {
		t.Fatal(err)
	}
	config.Password = "wrong"
	if conn, err := pgx.ConnectConfig(t.Context(), config); err == nil {
		conn.Close(t.Context())
		t.Fatal("logged in with a wrong password")
	}
}

func TestPostgres_DirIsUsedAgain(t *testing.T) {
	config := sandbox.PostgresConfig{Dir: filepath.Join(tempDir(t), "pg"), Database: "app"}
	first := start(t, config)
	mustExec(t, first, "CREATE TABLE kept AS SELECT 1")
	if err := first.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	config.Port = first.Port()
	second := start(t, config)
	if first.DSN("") != second.DSN("") {
		t.Error("the password changed")
	}
	mustExec(t, second, "TABLE kept")
}

func TestPostgres_DirOfALiveServerIsRefusedWithItsPid(t *testing.T) {
	config := sandbox.PostgresConfig{Dir: filepath.Join(tempDir(t), "pg"), Settings: unsafe}
	p := start(t, config)
	text, err := os.ReadFile(filepath.Join(p.Dir(), "data", "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, _, _ := strings.Cut(string(text), "\n")
	_, err = sandbox.StartPostgres(t.Context(), config)
	if err == nil || !strings.Contains(err.Error(), "in use by postgres, pid "+pid) {
		t.Fatalf("pid %s is not named: %v", pid, err)
	}
	mustQuery(t, p)
}

func TestPostgres_StalePidFileOfALivingProcessIsNoObstacle(t *testing.T) {
	p := sandboxtest.OwnPostgres(t, unsafe)
	path := filepath.Join(p.Dir(), "data", "postmaster.pid")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	// The pid now belongs to somebody else: a process that nobody may signal
	// would not do, PostgreSQL takes that for a stale file by itself.
	other := sandboxtest.OwnRedis(t)
	_, rest, _ := strings.Cut(string(text), "\n")
	if err := os.WriteFile(path, []byte(fmt.Sprintf("%d\n%s", redisPid(t, other), rest)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := p.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestPostgres_KeepsWhatWasCommittedBeforeAKill(t *testing.T) {
	p := sandboxtest.OwnPostgres(t, nil)
	mustExec(t, p, "CREATE TABLE kept AS SELECT 1")
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := p.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustExec(t, p, "TABLE kept")
}

func TestPostgres_PausedAnswersNothingUntilResumed(t *testing.T) {
	p := sandboxtest.OwnPostgres(t, unsafe)
	conn := connect(t, p)
	if err := p.Pause(); err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	go func() {
		_, err := conn.Exec(context.Background(), "SELECT 1")
		answered <- err
	}()
	select {
	case err := <-answered:
		t.Fatalf("a frozen server answered: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	if err := p.Resume(); err != nil {
		t.Fatal(err)
	}
	if err := <-answered; err != nil {
		t.Fatal(err)
	}
}

func TestPostgres_ReloadTakesNewSettings(t *testing.T) {
	p := sandboxtest.OwnPostgres(t, unsafe)
	mustExec(t, p, "ALTER SYSTEM SET shared_buffers = '32MB'") // one of ours, for the restart
	mustExec(t, p, "ALTER SYSTEM SET log_line_prefix = 'reloaded '")
	if err := p.Reload(); err != nil {
		t.Fatal(err)
	}
	sandboxtest.Eventually(t, 10*time.Second, settingIs(t, p, "log_line_prefix", "reloaded "))
	if err := p.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := settingIs(t, p, "shared_buffers", "32MB")(); err != nil {
		t.Fatal(err)
	}
}

func settingIs(t *testing.T, p *sandbox.Postgres, name, want string) func() error {
	return func() error {
		var got string
		err := connect(t, p).QueryRow(t.Context(), "SELECT current_setting($1)", name).Scan(&got)
		if err == nil && got != want {
			err = fmt.Errorf("%s is %q, not %q", name, got, want)
		}
		return err
	}
}

func TestPostgres_TakenPortIsNamed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	_, err = sandbox.StartPostgres(t.Context(), sandbox.PostgresConfig{
		Dir: filepath.Join(tempDir(t), "pg"), Port: port, Settings: unsafe,
	})
	if err == nil || !strings.Contains(err.Error(), strconv.Itoa(port)) || !strings.Contains(err.Error(), "already in use") {
		t.Fatalf("port %d: %v", port, err)
	}
}

func TestPostgres_BadSettingShowsTheLog(t *testing.T) {
	_, err := sandbox.StartPostgres(t.Context(), sandbox.PostgresConfig{
		Dir:      filepath.Join(tempDir(t), "pg"),
		Settings: map[string]string{"fsync": "off", "no_such_setting": "1"},
	})
	if err == nil || !strings.Contains(err.Error(), `unrecognized configuration parameter "no_such_setting"`) {
		t.Fatalf("the reason is not shown: %v", err)
	}
}

func TestPostgres_WithoutProgramsTheErrorNamesWhatToInstall(t *testing.T) {
	_, err := sandbox.StartPostgres(t.Context(), sandbox.PostgresConfig{
		Dir: filepath.Join(tempDir(t), "pg"), BinDir: t.TempDir(),
	})
	if err == nil || !strings.Contains(err.Error(), "apt-get install postgresql") {
		t.Fatal(err)
	}
}

func TestPostgres_DirWithOtherFilesIsNotTouched(t *testing.T) {
	dir := tempDir(t)
	if err := os.WriteFile(filepath.Join(dir, "thesis.txt"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := sandbox.StartPostgres(t.Context(), sandbox.PostgresConfig{Dir: dir})
	if err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Fatal(err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; owner != uint32(os.Geteuid()) || info.Mode().Perm() != 0o711 {
		t.Fatalf("owner %d, mode %v", owner, info.Mode())
	}
}

func TestPostgres_FilesArePrivate(t *testing.T) {
	p := sandboxtest.OwnPostgres(t, unsafe)
	err := filepath.WalkDir(p.Dir(), func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // the server removes files as we look
		}
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			err = fmt.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
