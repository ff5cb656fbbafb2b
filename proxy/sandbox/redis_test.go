package sandbox_test

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"walcache/proxy/sandbox"
	"walcache/proxy/sandbox/sandboxtest"
)

func redisClient(t *testing.T, url string) *redis.Client {
	t.Helper()
	options, err := redis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(options)
	t.Cleanup(func() { client.Close() })
	return client
}

// redisPid asks the server for its pid.
func redisPid(t *testing.T, r *sandbox.Redis) int {
	t.Helper()
	info, err := redisClient(t, r.URL()).Info(t.Context(), "server").Result()
	if err != nil {
		t.Fatal(err)
	}
	match := regexp.MustCompile(`process_id:(\d+)`).FindStringSubmatch(info)
	if match == nil {
		t.Fatalf("no process_id in %s", info)
	}
	pid, err := strconv.Atoi(match[1])
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func TestRedis_WantsThePassword(t *testing.T) {
	r := sandboxtest.OwnRedis(t)
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:" + strconv.Itoa(r.Port())})
	defer client.Close()
	if err := client.Ping(t.Context()).Err(); err == nil || !strings.Contains(err.Error(), "NOAUTH") {
		t.Fatalf("without a password: %v", err)
	}
}

func TestRedis_PasswordIsInAPrivateFileOnly(t *testing.T) {
	r := sandboxtest.OwnRedis(t)
	info, err := os.Stat(filepath.Join(r.Dir(), "redis.conf"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	password := strings.TrimPrefix(strings.Split(r.URL(), "@")[0], "redis://:")
	for _, path := range []string{"cmdline", "environ"} {
		text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(redisPid(t, r)), path))
		if err == nil && strings.Contains(string(text), password) {
			t.Errorf("the password is in %s", path)
		}
	}
}

func TestRedis_RestartIsEmptyAndKeepsTheURL(t *testing.T) {
	r := sandboxtest.OwnRedis(t)
	client := redisClient(t, r.URL())
	if err := client.Set(t.Context(), "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if err := r.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := client.Get(t.Context(), "k").Err(); !errors.Is(err, redis.Nil) {
		t.Fatalf("after a restart: %v", err)
	}
}

func TestRedis_PausedAnswersNothingUntilResumed(t *testing.T) {
	r := sandboxtest.OwnRedis(t)
	client := redisClient(t, r.URL())
	options := client.Options()
	options.ReadTimeout, options.MaxRetries = 300*time.Millisecond, -1
	impatient := redis.NewClient(options)
	defer impatient.Close()
	if err := r.Pause(); err != nil {
		t.Fatal(err)
	}
	if err := impatient.Ping(t.Context()).Err(); err == nil {
		t.Fatal("a frozen server answered")
	}
	if err := r.Resume(); err != nil {
		t.Fatal(err)
	}
	if err := client.Ping(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
}

func TestAnyRedis_IsInProcessWhereThereIsNoProgram(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	r, kind, err := sandbox.StartAnyRedis(t.Context(), sandbox.RedisConfig{Dir: filepath.Join(tempDir(t), "redis")})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Stop(t.Context())
	if kind != "in-process Redis" {
		t.Errorf("kind %q", kind)
	}
	if err := redisClient(t, r.URL()).Ping(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
}
