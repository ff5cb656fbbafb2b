package querysets

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// scanCount is how many keys a server looks at before it answers others again.
	scanCount = 1000
	// findTime is how long names are looked for: there may be far more pages than
	// querysets, and a server has to look at them all.
	findTime = 2 * time.Second
)

// find returns the names of at most limit keys that begin with a prefix, without
// it and without the known ones, sorted.
func find(ctx context.Context, client redis.UniversalClient, prefix string, limit int) (names []string, more bool, err error) {
	began := time.Now()
	var mu sync.Mutex // guards the following
	found := map[string]bool{}
	late := false
	err = scan(ctx, client, prefix, func(_ context.Context, keys []string) (goOn bool, err error) {
		mu.Lock()
		defer mu.Unlock()
		for _, key := range keys {
			if name := strings.TrimPrefix(key, prefix); !slices.Contains(Known, name) {
				found[name] = true // it may come twice
			}
		}
		late = late || time.Since(began) > findTime
		return !late && len(found) <= limit, nil
	})
	for name := range found {
		names = append(names, name)
	}
	slices.Sort(names)
	return names[:min(max(limit, 0), len(names))], late || len(names) > limit, err
}

// scan calls do with the keys that begin with a prefix, some at a time, until it
// says otherwise: for each server by itself, and for several at the same time. A
// key that was there all the while is among them, once or more often.
func scan(ctx context.Context, client redis.UniversalClient, prefix string, do func(ctx context.Context, keys []string) (goOn bool, err error)) error {
	return each(ctx, client, func(ctx context.Context, server *redis.Client) error {
		for cursor := uint64(0); ; {
			keys, next, err := server.Scan(ctx, cursor, escape.Replace(prefix)+"*", scanCount).Result()
			if err != nil {
				return err
			}
			if goOn, err := do(ctx, keys); err != nil || !goOn {
				return err
			}
			if cursor = next; cursor == 0 {
				return nil
			}
		}
	})
}

// escape makes a pattern that matches a text alone.
var escape = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`)

// each calls do for every server that takes writes, several at a time.
func each(ctx context.Context, client redis.UniversalClient, do func(context.Context, *redis.Client) error) error {
	switch client := client.(type) {
	case *redis.ClusterClient:
		return client.ForEachMaster(ctx, do)
	case *redis.Client:
		return do(ctx, client)
	}
	return fmt.Errorf("a %T is no client that redisurl makes", client)
}
