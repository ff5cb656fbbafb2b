package redisurl

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"walcache/proxy/sandbox"
	"walcache/proxy/sandbox/sandboxtest"
)

func TestMain(m *testing.M) { sandboxtest.Main(m) }

// servers are a way to run Redis, and the processes behind it that hold data.
type servers struct {
	url   string
	nodes []*sandbox.Redis
}

func everyWay(t *testing.T) map[string]func(*testing.T) servers {
	return map[string]func(*testing.T) servers{
		"single": func(t *testing.T) servers {
			r := sandboxtest.OwnRedis(t)
			return servers{r.URL(), []*sandbox.Redis{r}}
		},
		"cluster": func(t *testing.T) servers {
			c := sandboxtest.OwnRedisCluster(t)
			return servers{c.URL(), c.Nodes}
		},
		"sentinel": func(t *testing.T) servers {
			s := sandboxtest.OwnRedisSentinel(t)
			return servers{s.URL(), append(s.Servers, s.Sentinels...)}
		},
	}
}

func open(t *testing.T, url string, adjust func(*redis.UniversalOptions)) redis.UniversalClient {
	t.Helper()
	c, err := Open(url, adjust)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func each(t *testing.T, nodes []*sandbox.Redis, do func(*sandbox.Redis) error) {
	t.Helper()
	for _, node := range nodes {
		if err := do(node); err != nil {
			t.Fatal(err)
		}
	}
}

// late is far more than a deadline of 50 ms, and far less than long and than the
// 5 s that go-redis takes for a command that it does not know.
const (
	late = 3 * time.Second
	long = 20 * time.Second
)

// A client that has connections, one that has sent nothing but a pipeline, and
// one that has yet to connect find all servers frozen.
func TestOpen_TheDeadlineOfAContextBoundsACall(t *testing.T) {
	for name, start := range everyWay(t) {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			slow := func(o *redis.UniversalOptions) {
				o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.PoolTimeout = long, long, long, long
			}
			warm, half, cold := open(t, s.url, slow), open(t, s.url, slow), open(t, s.url, slow)
			if err := warm.Set(t.Context(), "k", "v", 0).Err(); err != nil {
				t.Fatal(err)
			}
			if err := pipelined(t.Context(), half); err != nil {
				t.Fatal(err)
			}
			each(t, s.nodes, (*sandbox.Redis).Pause)
			calls := map[string]func(context.Context, redis.UniversalClient) error{
				"command":  func(ctx context.Context, c redis.UniversalClient) error { return c.Get(ctx, "k").Err() },
				"pipeline": func(ctx context.Context, c redis.UniversalClient) error { return pipelined(ctx, c) },
			}
			for kind, call := range calls {
				for state, client := range map[string]redis.UniversalClient{"warm": warm, "half warm": half, "cold": cold} {
					ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
					began := time.Now()
					err := call(ctx, client)
					if took := time.Since(began); err == nil || took > late {
						t.Errorf("%s of a %s client took %v: %v", kind, state, took, err)
					}
					cancel()
				}
			}
			each(t, s.nodes, (*sandbox.Redis).Resume)
			for _, client := range []redis.UniversalClient{warm, cold} {
				sandboxtest.Eventually(t, time.Minute, func() error {
					v, err := client.Get(t.Context(), "k").Result()
					if err == nil && v != "v" {
						err = fmt.Errorf("k is %q", v)
					}
					return err
				})
			}
		})
	}
}

func pipelined(ctx context.Context, c redis.UniversalClient) error {
	pipe := c.Pipeline()
	pipe.PTTL(ctx, "k")
	pipe.Get(ctx, "k")
	_, err := pipe.Exec(ctx)
	return err
}

// warmUp makes several connections to the server of a key: a new one would wait
// for its HELLO and send no command to a server that stands still.
func warmUp(t *testing.T, c redis.UniversalClient) {
	t.Helper()
	sandboxtest.Eventually(t, time.Minute, func() error { return c.Set(t.Context(), "{warm}", 1, 0).Err() })
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if err := c.BLPop(t.Context(), 200*time.Millisecond, fmt.Sprint("{warm}", i)).Err(); !errors.Is(err, redis.Nil) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// A server that stands still gets a command that its client has given up.
func TestOpen_NothingIsSentTwice(t *testing.T) {
	for name, start := range everyWay(t) {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			impatient := open(t, s.url, func(o *redis.UniversalOptions) { o.ReadTimeout = 100 * time.Millisecond })
			warmUp(t, impatient)
			each(t, s.nodes, (*sandbox.Redis).Pause)
			commands := map[string]func() error{
				"command": func() error { return impatient.Incr(t.Context(), "{warm}command").Err() },
				"pipeline of Once": func() error {
					pipe := impatient.Pipeline()
					if err := pipe.Process(t.Context(), Once{redis.NewIntCmd(t.Context(), "incr", "{warm}pipeline of Once")}); err != nil {
						return err
					}
					_, err := pipe.Exec(t.Context())
					return err
				},
			}
			for kind, send := range commands {
				if err := send(); err == nil {
					t.Errorf("%s: a frozen server answered", kind)
				}
			}
			each(t, s.nodes, (*sandbox.Redis).Resume)
			patient := open(t, s.url, nil)
			for kind := range commands {
				var n int
				sandboxtest.Eventually(t, time.Minute, func() (err error) {
					n, err = patient.Get(t.Context(), "{warm}"+kind).Int()
					if errors.Is(err, redis.Nil) {
						return nil // the connection was gone before the server could read from it
					}
					return err
				})
				if n > 1 {
					t.Errorf("%s: executed %d times", kind, n)
				}
			}
		})
	}
}

func TestOpen_AClusterFollowsASlotThatMoves(t *testing.T) {
	cluster := sandboxtest.OwnRedisCluster(t)
	c := open(t, cluster.URL(), nil)
	if err := c.Set(t.Context(), "k", "before", 0).Err(); err != nil {
		t.Fatal(err)
	}
	slot, err := c.ClusterKeySlot(t.Context(), "k").Result()
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	var nodes []redis.UniversalClient
	for _, node := range cluster.Nodes {
		client := open(t, node.URL(), nil)
		id, err := client.Do(t.Context(), "cluster", "myid").Text()
		if err != nil {
			t.Fatal(err)
		}
		ids, nodes = append(ids, id), append(nodes, client)
	}
	to := 0
	if nodes[0].Get(t.Context(), "k").Err() == nil { // it is there already
		to = 1
	}
	for _, node := range nodes {
		if node.Get(t.Context(), "k").Err() == nil {
			if err := node.Del(t.Context(), "k").Err(); err != nil { // a node gives up no slot that has keys
				t.Fatal(err)
			}
		}
	}
	order := append([]redis.UniversalClient{nodes[to]}, nodes...)
	for _, node := range order {
		if err := node.Do(t.Context(), "cluster", "setslot", slot, "node", ids[to]).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Set(t.Context(), "k", "after", 0).Err(); err != nil {
		t.Errorf("a command: %v", err)
	}
	if err := pipelined(t.Context(), c); err != nil {
		t.Errorf("a pipeline: %v", err)
	}
	if v, err := nodes[to].Get(t.Context(), "k").Result(); err != nil || v != "after" {
		t.Errorf("the new node has %q, %v", v, err)
	}
}
