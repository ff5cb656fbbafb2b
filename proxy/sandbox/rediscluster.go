package sandbox

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// RedisCluster is a private Redis Cluster of primaries alone, that share one
// password. A part of it that does not answer is not replaced: then all of it is
// down until that comes back.
type RedisCluster struct {
	Nodes    []*Redis
	password string
}

const (
	clusterSlots = 16384
	// clusterTimeout is after how many milliseconds a node that does not answer
	// is given up; more than a busy machine lets one wait.
	clusterTimeout = 2000
)

// StartRedisCluster starts a cluster of n nodes below a directory, and returns
// once all of them answer for all slots.
func StartRedisCluster(ctx context.Context, dir string, n int) (*RedisCluster, error) {
	c := &RedisCluster{password: rand.Text()}
	if err := c.start(ctx, dir, n); err != nil {
		return nil, errors.Join(fmt.Errorf("start a Redis Cluster: %w", err), c.Kill())
	}
	return c, nil
}

func (c *RedisCluster) start(ctx context.Context, dir string, n int) error {
	var buses []int
	for i := range n {
		node, err := newRedis(filepath.Join(dir, "node-"+strconv.Itoa(i+1)), c.password)
		if err != nil {
			return err
		}
		bus, err := node.startInCluster(ctx)
		if err != nil {
			return err
		}
		c.Nodes, buses = append(c.Nodes, node), append(buses, bus)
	}
	for i, node := range c.Nodes {
		if err := node.do(func(client *redis.Client) error {
			first, last := i*clusterSlots/n, (i+1)*clusterSlots/n-1
			return errors.Join(
				client.Do(ctx, "cluster", "set-config-epoch", i+1).Err(), // each its own, or they would have to agree
				client.ClusterAddSlotsRange(ctx, first, last).Err(),
				client.Do(ctx, "cluster", "meet", "127.0.0.1", c.Nodes[0].Port(), buses[0]).Err())
		}); err != nil {
			return err
		}
	}
	for _, node := range c.Nodes {
		if err := node.await(ctx, func(client *redis.Client) bool { return isWhole(ctx, client, n) }); err != nil {
			return err
		}
	}
	return nil
}

// startInCluster starts a node on two free ports, that for clients and the one
// that it returns, for the other nodes.
func (r *Redis) startInCluster(ctx context.Context) (bus int, err error) {
	err = startOnPort(0, func(port int) error {
		if bus, err = freePort(); err != nil {
			return err
		}
		r.settings = []string{
			"cluster-enabled yes",
			"cluster-config-file nodes.conf",
			fmt.Sprintf("cluster-node-timeout %d", clusterTimeout),
			fmt.Sprintf("cluster-port %d", bus),
		}
		err := r.startOn(ctx, port)
		if err != nil && portFree(bus) != nil {
			return errors.Join(errPortTaken, err)
		}
		return err
	})
	return bus, err
}

// isWhole reports whether a node knows n nodes that serve all slots.
func isWhole(ctx context.Context, client *redis.Client, n int) bool {
	info, err := client.ClusterInfo(ctx).Result()
	return err == nil && strings.Contains(info, "cluster_state:ok") &&
		strings.Contains(info, fmt.Sprintf("cluster_size:%d\r", n))
}

// URL of the cluster, as package redisurl reads it, password included.
func (c *RedisCluster) URL() string {
	return "redis+cluster://:" + c.password + "@" + addresses(c.Nodes)
}

func addresses(servers []*Redis) string {
	var list []string
	for _, s := range servers {
		list = append(list, loopback(s.Port()))
	}
	return strings.Join(list, ",")
}

// Stop stops all nodes in good order.
func (c *RedisCluster) Stop(ctx context.Context) error {
	var errs []error
	for _, node := range c.Nodes {
		errs = append(errs, node.Stop(ctx))
	}
	return errors.Join(errs...)
}

// Kill kills all nodes.
func (c *RedisCluster) Kill() error {
	var errs []error
	for _, node := range c.Nodes {
		errs = append(errs, node.Kill())
	}
	return errors.Join(errs...)
}

// do runs something on a short connection.
func (r *Redis) do(do func(*redis.Client) error) error {
	client := redisClient(r.Port(), r.password)
	defer client.Close()
	return do(client)
}

// await polls for a fact about a server.
func (r *Redis) await(ctx context.Context, fact func(*redis.Client) bool) error {
	return r.do(func(client *redis.Client) error {
		for !fact(client) {
			select {
			case <-ctx.Done():
				return fmt.Errorf("%s in %s is not ready: %w", r.program, r.dir, ctx.Err())
			case <-time.After(pollInterval):
			}
		}
		return nil
	})
}
