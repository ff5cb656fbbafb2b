package faults

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"walcache/proxy/sandbox"
	"walcache/proxy/sandbox/sandboxtest"
)

// redisFaults are what happens to the server that the proxies share.
func redisFaults() []fault {
	all := []fault{
		{name: "redis-killed-with-data", strike: func(r *run) { r.killRedis(allData) }},
		{name: "redis-killed-with-old-data", strike: func(r *run) { r.killRedis(oldData) }},
		{name: "redis-killed-empty", strike: func(r *run) { r.killRedis(noData) }},
		{name: "redis-frozen", strike: freezeRedis},
		{name: "redis-flushed", strike: flushRedis, short: true},
		{name: "redis-failed-over", strike: func(r *run) { r.failOver(r.lagging()) }, short: true},
		{name: "redis-sentinel-failed-over", strike: sentinelFailover, sentinel: true},
		{name: "redis-cluster-node-killed", strike: killNode, cluster: true},
		{name: "redis-cluster-node-frozen", strike: freezeNode, cluster: true},
		{name: "redis-split", strike: splitRedis},
		{name: "redis-connections-killed", strike: killConnections},
	}
	for _, policy := range []string{
		"noeviction", "volatile-ttl", "volatile-lru", "volatile-lfu", "volatile-random", "allkeys-lru", "allkeys-lfu", "allkeys-random",
	} {
		all = append(all, fault{name: "redis-full-" + policy, strike: func(r *run) { r.fillRedis(policy) }})
	}
	return all
}

// do runs commands on the primary, straight.
func (r *run) do(commands func(context.Context, *redis.Client) error) {
	r.Helper()
	r.on(r.redis, commands)
}

func (r *run) on(server *sandbox.Redis, commands func(context.Context, *redis.Client) error) {
	r.Helper()
	ctx, cancel := r.limited()
	defer cancel()
	r.must(onRedis(server, func(c *redis.Client) error { return commands(ctx, c) }))
}

// data is what a Redis has after a crash.
type data string

const (
	allData data = "with all its data"
	oldData data = "with data from before"
	noData  data = "without data"
)

func (r *run) dump() string { return filepath.Join(r.redis.Dir(), "dump.rdb") }

// killRedis ends the server by SIGKILL, and starts it again.
func (r *run) killRedis(with data) {
	r.strike("kill -9 of Redis, which comes back " + string(with))
	if with != noData {
		r.do(func(ctx context.Context, c *redis.Client) error {
			if with == allData { // nothing is to be acknowledged between the two
				if err := c.Do(ctx, "CLIENT", "PAUSE", 60_000, "WRITE").Err(); err != nil {
					return err
				}
			}
			return c.Save(ctx).Err()
		})
	}
	if with == oldData {
		r.hold(200*time.Millisecond, 3*time.Second)
	}
	r.must(r.redis.Kill())
	r.hold(0, 2*time.Second)
	r.startRedisAgain()
	if err := os.Remove(r.dump()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.must(err)
	}
}

func (r *run) startRedisAgain() {
	ctx, cancel := r.limited()
	defer cancel()
	r.must(r.redis.Start(ctx))
	r.must(r.admit(r.redis))
	r.note("Redis answers")
}

func freezeRedis(r *run) {
	r.strike("freeze Redis")
	r.must(r.redis.Pause())
	r.hold(9*time.Second, 10*time.Second)
	r.note("thaw")
	r.must(r.redis.Resume())
}

func flushRedis(r *run) {
	r.strike("FLUSHALL")
	r.do(func(ctx context.Context, c *redis.Client) error { return c.FlushAll(ctx).Err() })
}

// killConnections ends them all some times in a row.
func killConnections(r *run) {
	for range 1 + r.rnd.IntN(5) {
		r.strike("CLIENT KILL of all")
		r.do(func(ctx context.Context, c *redis.Client) error {
			return c.Do(ctx, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes").Err()
		})
		r.hold(0, 500*time.Millisecond)
	}
}

// lagging is a replica that lacks what the primary was told last.
func (r *run) lagging() *sandbox.Redis {
	ctx, cancel := r.limited()
	defer cancel()
	if len(r.replicas) == 0 {
		replica, err := r.startRedis(ctx)
		r.must(err)
		r.replicas = append(r.replicas, replica)
	}
	r.follow(r.replicas[0]).Cut()
	r.note("the replica follows no more")
	r.hold(100*time.Millisecond, 2*time.Second)
	return r.replicas[0]
}

// follow makes a server a replica of the primary, by way of a relay.
func (r *run) follow(replica *sandbox.Redis) *sandbox.Relay {
	road, err := sandbox.StartRelay(local(r.redis.Port()))
	r.must(err)
	r.Cleanup(func() { r.must(road.Close()) })
	r.do(func(ctx context.Context, c *redis.Client) error {
		return c.ConfigSet(ctx, "repl-diskless-sync-delay", "0").Err()
	})
	r.on(replica, func(ctx context.Context, c *redis.Client) error {
		return errors.Join(c.ConfigSet(ctx, "masterauth", r.password).Err(),
			c.Do(ctx, "REPLICAOF", "127.0.0.1", strconv.Itoa(road.Port())).Err())
	})
	sandboxtest.Eventually(r, patience, func() error {
		return onRedis(replica, func(c *redis.Client) error {
			info, err := c.Info(r.Context(), "replication").Result()
			if err == nil && !(strings.Contains(info, "master_link_status:up") && strings.Contains(info, fmt.Sprintf("master_port:%d", road.Port()))) {
				err = errors.New("the replica has no link to the primary")
			}
			return err
		})
	})
	return road
}

// sentinelFailover kills the primary once its replicas lack what it was told
// last, and leaves the rest to the Sentinels.
func sentinelFailover(r *run) {
	for _, server := range r.sentinel.Servers {
		if server != r.redis {
			r.follow(server).Cut()
		}
	}
	r.note("the replicas follow no more")
	r.hold(100*time.Millisecond, 2*time.Second)
	r.strike("kill -9 of the primary Redis")
	old := r.redis
	r.must(old.Kill())
	ctx, cancel := r.limited()
	defer cancel()
	sandboxtest.Eventually(r, patience, func() (err error) {
		if r.redis, err = r.sentinel.Primary(ctx); err == nil && r.redis == old {
			err = errors.New("the primary has not been replaced")
		}
		return err
	})
	r.note("the Sentinels have replaced it")
	r.must(old.Start(ctx)) // they make it a replica, in their own time
}

// killNode takes away one third of what the proxies keep. The cluster is down
// until the node is back, empty.
func killNode(r *run) {
	node := one(r, r.cluster.Nodes...)
	r.strike("kill -9 of a node of the Redis Cluster")
	r.must(node.Kill())
	r.hold(0, 4*time.Second)
	ctx, cancel := r.limited()
	defer cancel()
	r.must(node.Start(ctx))
	r.note("the node answers")
}

func freezeNode(r *run) {
	node := one(r, r.cluster.Nodes...)
	r.strike("freeze a node of the Redis Cluster")
	r.must(node.Pause())
	r.hold(time.Second, 6*time.Second)
	r.note("thaw")
	r.must(node.Resume())
}

// promote makes a replica a primary.
func (r *run) promote(replica *sandbox.Redis) {
	r.on(replica, func(ctx context.Context, c *redis.Client) error { return c.Do(ctx, "REPLICAOF", "NO", "ONE").Err() })
}

// succeed makes the old primary, which has to be dead, the next replica.
func (r *run) succeed(replica *sandbox.Redis) {
	ctx, cancel := r.limited()
	defer cancel()
	old := r.redis
	r.redis, r.replicas[0] = replica, old
	r.must(old.Start(ctx))
	r.must(r.admit(old))
}

// failOver replaces the primary by a replica, as whoever watches them would:
// the primary is dead, and its address leads to the replica.
func (r *run) failOver(replica *sandbox.Redis) {
	r.strike("kill -9 of the primary Redis")
	r.must(r.redis.Kill())
	for _, road := range r.roadsToRedis() {
		r.must(road.Sever())
		road.Retarget(local(replica.Port()))
	}
	r.hold(0, 2*time.Second)
	r.promote(replica)
	for _, road := range r.roadsToRedis() {
		r.must(road.Heal())
	}
	r.note("the replica is the primary")
	r.succeed(replica)
}

// splitRedis lets some processes go on with the old primary for a while.
func splitRedis(r *run) {
	replica := r.lagging()
	r.promote(replica)
	roads := r.roadsToRedis()
	names := slices.Sorted(maps.Keys(roads))
	order := r.rnd.Perm(len(names))
	first := 1 + r.rnd.IntN(len(order)-1)
	for i, at := range order {
		if i == first {
			r.hold(500*time.Millisecond, 3*time.Second)
		}
		road := roads[names[at]]
		r.strike("lead to the other Redis")
		r.note("%s", names[at])
		r.must(road.Sever())
		road.Retarget(local(replica.Port()))
		r.must(road.Heal())
	}
	r.must(r.redis.Kill())
	r.succeed(replica)
}

// fillRedis leaves no room beside what is there, and lets others write.
func (r *run) fillRedis(policy string) {
	r.strike("fill Redis under " + policy)
	r.do(func(ctx context.Context, c *redis.Client) error {
		info, err := c.InfoMap(ctx, "memory").Result()
		if err != nil {
			return err
		}
		used, err := strconv.ParseInt(info["Memory"]["used_memory"], 10, 64)
		return errors.Join(err, c.ConfigSet(ctx, "maxmemory-policy", policy).Err(), c.ConfigSet(ctx, "maxmemory", strconv.FormatInt(used, 10)).Err())
	})
	value := strings.Repeat("x", 4096)
	for until := time.Now().Add(r.between(2*time.Second, 4*time.Second)); time.Now().Before(until); time.Sleep(20 * time.Millisecond) {
		r.do(func(ctx context.Context, c *redis.Client) error {
			_, err := c.Pipelined(ctx, func(p redis.Pipeliner) error {
				for range 20 {
					p.Set(ctx, fmt.Sprintf("filler:%d", r.rnd.IntN(20_000)), value, time.Duration(r.rnd.IntN(2))*time.Hour)
				}
				return nil
			})
			if err != nil && !strings.HasPrefix(err.Error(), "OOM") {
				return err
			}
			return nil
		})
	}
	r.note("there is room again")
	r.do(func(ctx context.Context, c *redis.Client) error {
		if err := errors.Join(c.ConfigSet(ctx, "maxmemory", "0").Err(), c.ConfigSet(ctx, "maxmemory-policy", "noeviction").Err()); err != nil {
			return err
		}
		return eachKey(ctx, c, "filler:*", func(key string) error { return c.Unlink(ctx, key).Err() })
	})
}

func eachKey(ctx context.Context, c *redis.Client, pattern string, do func(key string) error) error {
	keys := c.Scan(ctx, 0, pattern, 1000).Iterator()
	for keys.Next(ctx) {
		if err := do(keys.Val()); err != nil {
			return err
		}
	}
	return keys.Err()
}
