package keep

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"walcache/proxy/sandbox/sandboxtest"
)

// A cache in the same Redis may evict what is counted there.
func TestCounts_OutliveEvictionAndAreShared(t *testing.T) {
	url, prefix := sandboxtest.Redis(t)
	options, err := redis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(options)
	defer client.Close()
	shared := NewRedis(client, prefix)
	one, two := &Counts{Shared: shared}, &Counts{Shared: shared}
	count := func(c *Counts, want int64) {
		t.Helper()
		n, left, err := c.Count(t.Context(), "login:x", time.Minute)
		if err != nil || n != want || left <= 0 {
			t.Errorf("count %d, %v left, %v; want %d", n, left, err, want)
		}
	}
	count(one, 1)
	count(two, 2)
	count(one, 3)
	keys, err := client.Keys(t.Context(), prefix+"*").Result()
	if err != nil || len(keys) == 0 {
		t.Fatalf("keys %v, %v", keys, err)
	}
	if err := client.Del(t.Context(), keys...).Err(); err != nil {
		t.Fatal(err)
	}
	count(one, 3)
	if err := one.Uncount(t.Context(), "login:x"); err != nil {
		t.Fatal(err)
	}
	count(one, 3)
}
