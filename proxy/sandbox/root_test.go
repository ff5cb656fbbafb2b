package sandbox_test

import (
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"walcache/proxy/sandbox"
	"walcache/proxy/sandbox/sandboxtest"
)

// owner of a file or directory.
func owner(t *testing.T, path string) uint32 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Uid
}

// serverUID is whom servers have to run as.
func serverUID(t *testing.T) uint32 {
	t.Helper()
	if os.Geteuid() != 0 {
		return uint32(os.Geteuid())
	}
	account, err := user.Lookup("postgres")
	if err != nil {
		account, err = user.Lookup("nobody")
	}
	if err != nil {
		t.Fatal(err)
	}
	uid, err := strconv.ParseUint(account.Uid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(uid)
}

func TestServers_DoNotRunAsRoot(t *testing.T) {
	want := serverUID(t)
	p := sandboxtest.OwnPostgres(t, unsafe)
	if uid := owner(t, filepath.Join(p.Dir(), "data", "postmaster.pid")); uid != want {
		t.Errorf("postgres runs as %d, want %d", uid, want)
	}
	r := sandboxtest.OwnRedis(t)
	if err := redisClient(t, r.URL()).Save(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	if uid := owner(t, filepath.Join(r.Dir(), "dump.rdb")); uid != want {
		t.Errorf("redis runs as %d, want %d", uid, want)
	}
}

func TestRoot_DirThatTheServerCannotReachIsAClearError(t *testing.T) {
	if os.Geteuid() != 0 {
		return // nobody to drop to, and every directory of ours is in reach
	}
	closed := filepath.Join(tempDir(t), "closed")
	if err := os.Mkdir(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := sandbox.StartPostgres(t.Context(), sandbox.PostgresConfig{Dir: filepath.Join(closed, "pg")})
	if err == nil || !strings.Contains(err.Error(), "cannot reach") {
		t.Fatal(err)
	}
}
