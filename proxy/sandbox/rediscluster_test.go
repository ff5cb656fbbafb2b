package sandbox_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"walcache/proxy/redisurl"
	"walcache/proxy/sandbox/sandboxtest"
)

func universal(t *testing.T, url string) redis.UniversalClient {
	t.Helper()
	c, err := redisurl.Open(url, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestRedisCluster_SharesKeysAmongItsNodes(t *testing.T) {
	cluster := sandboxtest.OwnRedisCluster(t)
	c := universal(t, cluster.URL())
	for i := range 100 {
		if err := c.Set(t.Context(), fmt.Sprint("key", i), i, 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	total := int64(0)
	for _, node := range cluster.Nodes {
		n, err := redisClient(t, node.URL()).DBSize(t.Context()).Result()
		if err != nil || n == 0 {
			t.Errorf("a node has %d keys, %v", n, err)
		}
		total += n
	}
	if total != 100 {
		t.Errorf("%d keys", total)
	}
}

func TestRedisCluster_GoesOnWhenANodeIsStartedAgain(t *testing.T) {
	cluster := sandboxtest.OwnRedisCluster(t)
	c := universal(t, cluster.URL())
	if err := cluster.Nodes[1].Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cluster.Nodes[1].Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := range 20 { // some for each node
		sandboxtest.Eventually(t, time.Minute, func() error { return c.Set(t.Context(), fmt.Sprint("key", i), i, 0).Err() })
	}
}
