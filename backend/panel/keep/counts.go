package keep

import (
	"context"
	"time"
)

// Counts counts for every process in Redis, and in the memory of this one beside
// it: the larger counts. Under memory pressure a Redis that also has a cache in it
// evicts counts like anything else that expires, and whoever fills that cache by
// asking for pages would reset what keeps them from guessing passwords.
type Counts struct {
	Shared *Redis
	own    Memory
}

// Count adds one to the count of a key in both places.
func (c *Counts) Count(ctx context.Context, key string, within time.Duration) (int64, time.Duration, error) {
	own, left, err := c.own.Count(ctx, key, within)
	if err != nil {
		return 0, 0, err
	}
	shared, sharedLeft, err := c.Shared.Count(ctx, key, within)
	if err != nil || shared > own {
		return shared, sharedLeft, err
	}
	return own, left, nil
}

// Uncount takes one back in both.
func (c *Counts) Uncount(ctx context.Context, key string) error {
	if err := c.own.Uncount(ctx, key); err != nil {
		return err
	}
	return c.Shared.Uncount(ctx, key)
}
