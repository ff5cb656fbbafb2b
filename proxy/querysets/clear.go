package querysets

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

// Kind is what may be cleared. There are no others: the log of changes, its
// checkpoint and who is logged in live under the same prefix, and stay.
type Kind int

const (
	Querysets Kind = iota // PREFIXqs:*
	Pages                 // PREFIXpage:*
)

// infix is what follows the prefix in the keys of a kind.
func (k Kind) infix() string { return [...]string{"qs:", "page:"}[k] }

// Clear removes all that is kept of these kinds, a little at a time so that
// nobody waits for it, and returns how many keys of each there were, up to an
// error too. What is stored meanwhile may stay.
//
// Redis frees the memory in the background. No epoch begins: a page that a proxy
// has in its own memory is as good as before.
func Clear(ctx context.Context, client redis.UniversalClient, prefix string, kinds ...Kind) (removed map[Kind]int64, err error) {
	removed = map[Kind]int64{}
	var mu sync.Mutex // guards removed
	err = scan(ctx, client, prefix, func(ctx context.Context, keys []string) (goOn bool, err error) {
		for _, kind := range kinds {
			n, err := unlink(ctx, client, of(kind, prefix, keys))
			mu.Lock()
			removed[kind] += n
			mu.Unlock()
			if err != nil {
				return false, err
			}
		}
		return true, nil
	})
	if err != nil {
		return removed, fmt.Errorf("clear %s*: %w", prefix, err)
	}
	return removed, nil
}

// of returns those of the keys that are of a kind.
func of(kind Kind, prefix string, keys []string) (some []string) {
	for _, key := range keys {
		if strings.HasPrefix(key, prefix+kind.infix()) {
			some = append(some, key)
		}
	}
	return some
}

// unlink removes keys, each by a command of its own: in a cluster they are in
// different slots. It returns how many were there.
func unlink(ctx context.Context, client redis.UniversalClient, keys []string) (n int64, err error) {
	for keys := range slices.Chunk(keys, batch) {
		replies, err := client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
			for _, key := range keys {
				pipe.Unlink(ctx, key)
			}
			return nil
		})
		for _, reply := range replies {
			n += reply.(*redis.IntCmd).Val()
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}
