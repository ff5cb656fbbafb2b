package keep

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// patience bounds one operation, whatever the client's own limits are.
const patience = 2 * time.Second

// Redis keeps values on a server. Each of its errors is ErrNone or an ErrAway.
type Redis struct {
	client redis.UniversalClient
	prefix string
}

// NewRedis returns what keeps values under keys that begin with the prefix.
func NewRedis(client redis.UniversalClient, prefix string) *Redis {
	return &Redis{client, prefix}
}

// Get returns a value and lets it live for ttl from now.
func (k *Redis) Get(ctx context.Context, key string, ttl time.Duration) (value string, err error) {
	err = k.do(ctx, func(ctx context.Context) error {
		value, err = k.client.GetEx(ctx, k.prefix+key, ttl).Result()
		return err
	})
	return value, err
}

// Set keeps a value for ttl.
func (k *Redis) Set(ctx context.Context, key, value string, ttl time.Duration) error {
	return k.do(ctx, func(ctx context.Context) error {
		return k.client.Set(ctx, k.prefix+key, value, ttl).Err()
	})
}

// Replace is Set where there is a value, else ErrNone.
func (k *Redis) Replace(ctx context.Context, key, value string, ttl time.Duration) error {
	return k.do(ctx, func(ctx context.Context) error {
		return k.client.SetArgs(ctx, k.prefix+key, value, redis.SetArgs{Mode: "XX", TTL: ttl}).Err()
	})
}

// Delete forgets a value, if there is one.
func (k *Redis) Delete(ctx context.Context, key string) error {
	return k.do(ctx, func(ctx context.Context) error {
		return k.client.Del(ctx, k.prefix+key).Err()
	})
}

// count adds one, and sets the time to live of a new count in the same step: a
// count that lost it would never end.
//
//	KEYS[1]  the count
//	ARGV[1]  its time to live, in milliseconds
//	returns  {the count, the time left, in milliseconds}
var count = redis.NewScript(`
local n = redis.call('INCR', KEYS[1])
if n == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
return {n, redis.call('PTTL', KEYS[1])}
`)

// uncount takes one away from a count that is still there: DECR alone would
// begin one below zero that never ends.
//
//	KEYS[1]  the count
var uncount = redis.NewScript(`
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('DECR', KEYS[1]) end
return 0
`)

// Count adds one to the count of a key, which begins with the first and ends
// within after it. It returns the count and the time left.
func (k *Redis) Count(ctx context.Context, key string, within time.Duration) (n int64, left time.Duration, err error) {
	err = k.do(ctx, func(ctx context.Context) error {
		answer, err := count.Run(ctx, k.client, []string{k.prefix + key}, within.Milliseconds()).Int64Slice()
		if err == nil {
			n, left = answer[0], time.Duration(answer[1])*time.Millisecond
		}
		return err
	})
	return n, left, err
}

// Uncount takes back one that was counted.
func (k *Redis) Uncount(ctx context.Context, key string) error {
	return k.do(ctx, func(ctx context.Context) error {
		return uncount.Run(ctx, k.client, []string{k.prefix + key}).Err()
	})
}

func (k *Redis) do(ctx context.Context, operation func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := operation(ctx)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, redis.Nil):
		return ErrNone
	}
	return fmt.Errorf("%w: %w", ErrAway, err)
}
