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
	return own(t, func(ctx context.Context, dir string) (*sandbox.Redis, error) {
		return sandbox.StartRedis(ctx, sandbox.RedisConfig{Dir: filepath.Join(dir, "redis")})
	})
}

// OwnRedisCluster starts a Redis Cluster of three nodes for this test alone. It
// is killed when the test ends.
func OwnRedisCluster(t testing.TB) *sandbox.RedisCluster {
	t.Helper()
	return own(t, func(ctx context.Context, dir string) (*sandbox.RedisCluster, error) {
		return sandbox.StartRedisCluster(ctx, dir, 3)
	})
}

// OwnRedisSentinel starts a primary, two replicas and Sentinels for this test
// alone. They are killed when the test ends.
func OwnRedisSentinel(t testing.TB) *sandbox.RedisSentinel {
	t.Helper()
	return own(t, func(ctx context.Context, dir string) (*sandbox.RedisSentinel, error) {
		return sandbox.StartRedisSentinel(ctx, dir, 2)
	})
}

// own starts servers below a directory that goes with them.
func own[S interface{ Kill() error }](t testing.TB, start func(ctx context.Context, dir string) (S, error)) S {
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
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	servers, err := start(ctx, dir)
	if err != nil {
		t.Fatalf("Redis for this test: %v", err)
	}
	t.Cleanup(func() {
		if err := servers.Kill(); err != nil {
			t.Errorf("kill redis: %v", err)
		}
	})
	return servers
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
