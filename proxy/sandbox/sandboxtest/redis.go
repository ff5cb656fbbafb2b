package sandboxtest

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/redis/go-redis/v9"

	"walcache/proxy/sandbox"
)

// Redis returns the URL of a real server, shared with other tests, and a prefix
// that the test's keys are to begin with; they are deleted when it ends.
func Redis(t testing.TB) (url, prefix string) {
	t.Helper()
	r, err := shared.redis.get(startSharedRedis)
	if err != nil {
		t.Fatalf("shared Redis: %v", err)
	}
	prefix = randomName() + ":"
	t.Cleanup(func() {
		if err := deleteKeys(r.URL(), prefix); err != nil {
			t.Errorf("delete keys %s*: %v", prefix, err)
		}
	})
	return r.URL(), prefix
}

// OwnRedis starts a server for this test alone, which may stop, kill or freeze
// it. It is killed when the test ends.
func OwnRedis(t testing.TB) *sandbox.Redis {
	t.Helper()
	dir, remove, err := sandbox.TempDir(tempPattern)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := remove(); err != nil {
			t.Errorf("remove %s: %v", dir, err)
		}
	})
	r, err := startRedis(filepath.Join(dir, "redis"))
	if err != nil {
		t.Fatalf("Redis for this test: %v", err)
	}
	t.Cleanup(func() {
		if err := r.Kill(); err != nil {
			t.Errorf("kill redis: %v", err)
		}
	})
	return r
}

func startSharedRedis() (*sandbox.Redis, error) {
	dir, err := sharedDir("redis")
	if err != nil {
		return nil, err
	}
	return startRedis(dir)
}

func startRedis(dir string) (*sandbox.Redis, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return sandbox.StartRedis(ctx, sandbox.RedisConfig{Dir: dir})
}

func deleteKeys(url, prefix string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	options, err := redis.ParseURL(url)
	if err != nil {
		return err
	}
	client := redis.NewClient(options)
	defer client.Close()
	keys := client.Scan(ctx, 0, prefix+"*", 1000).Iterator()
	for keys.Next(ctx) {
		if err := client.Del(ctx, keys.Val()).Err(); err != nil {
			return err
		}
	}
	return keys.Err()
}
