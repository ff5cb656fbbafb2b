package main

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/redis/go-redis/v9"
	"github.com/urfave/cli/v2"

	"walcache/proxy/redisurl"
	"walcache/proxy/replication"
)

// uninstallCommand is `proxy uninstall`.
func uninstallCommand(c *cli.Context) error {
	if c.Args().Present() {
		return usagef("uninstall takes no %q", c.Args().First())
	}
	config, err := databaseConfig(c)
	if err != nil {
		return err
	}
	shared, err := redisOptions(c)
	if err != nil {
		return err
	}
	dryRun := c.Bool("dry-run")
	// The database first: a proxy that still runs keeps it from going further.
	statements, err := replication.Uninstall(c.Context, config, dryRun)
	if err != nil {
		return err
	}
	for _, sql := range statements {
		fmt.Fprintln(c.App.Writer, sql+";")
	}
	keys := int64(0)
	if shared.url != "" {
		if keys, err = removeKeys(c.Context, shared, dryRun); err != nil {
			return fmt.Errorf("--redis-url: remove keys: %w", err)
		}
	}
	switch {
	case keys > 0 && dryRun:
		fmt.Fprintf(c.App.Writer, "-- and %d keys %s* in Redis\n", keys, shared.prefix)
	case keys > 0:
		fmt.Fprintf(c.App.Writer, "-- removed %d keys %s* from Redis\n", keys, shared.prefix)
	case len(statements) == 0:
		fmt.Fprintln(c.App.Writer, "nothing of this proxy is left")
	}
	return nil
}

// removeKeys removes what is stored under a prefix, on every node, a little at
// a time so that nobody waits for it. It returns how many keys there were.
func removeKeys(ctx context.Context, shared redisConfig, dryRun bool) (int64, error) {
	client, err := redisurl.Open(shared.url, nil)
	if err != nil {
		return 0, err
	}
	defer func() { _ = client.Close() }()
	var n atomic.Int64
	sweep := func(ctx context.Context, node redis.UniversalClient) error {
		keys := node.Scan(ctx, 0, escapeGlob(shared.prefix)+"*", 1000).Iterator()
		for keys.Next(ctx) {
			n.Add(1)
			if dryRun {
				continue
			}
			if err := node.Unlink(ctx, keys.Val()).Err(); err != nil {
				return err
			}
		}
		return keys.Err()
	}
	if cluster, ok := client.(*redis.ClusterClient); ok {
		err = cluster.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error { return sweep(ctx, node) })
	} else {
		err = sweep(ctx, client)
	}
	return n.Load(), err
}

// escapeGlob makes a pattern of SCAN that matches a text alone.
func escapeGlob(text string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(text)
}
