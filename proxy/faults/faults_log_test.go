package faults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/redis/go-redis/v9"
)

// What the proxies keep in Redis, under the default prefix.
const (
	logKey        = "wc:log"
	checkpointKey = "wc:checkpoint"
	pageKeys      = "wc:page:*"
)

// logFaults are what happens to what the proxies keep in Redis.
func logFaults() []fault {
	return []fault{
		{name: "log-trimmed", strike: trimLog},
		{name: "log-deleted", strike: deleteLog},
		{name: "log-foreign", strike: foreignLog},
		{name: "log-old", strike: func(r *run) { r.putBack(logKey) }},
		{name: "checkpoint-missing", strike: deleteCheckpoint},
		{name: "checkpoint-old", strike: func(r *run) { r.putBack(checkpointKey) }},
		{name: "checkpoint-foreign", strike: foreignCheckpoint},
		{name: "log-and-checkpoint-old", strike: func(r *run) { r.putBack(logKey, checkpointKey) }},
		{name: "pages-corrupted", strike: corruptPages},
	}
}

// makeRead makes somebody read what the log and the checkpoint say now, or leaves it
// to those who do by themselves.
func (r *run) makeRead() {
	switch r.rnd.IntN(4) {
	case 0:
		r.kill(r.leader())
	case 1:
		r.kill(r.followers()[0])
	case 2:
		r.note("drop every connection to Redis")
		r.do(func(ctx context.Context, c *redis.Client) error {
			return c.Do(ctx, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes").Err()
		})
	}
}

func trimLog(r *run) {
	r.strike("XTRIM of the log")
	r.do(func(ctx context.Context, c *redis.Client) error { return c.XTrimMaxLen(ctx, logKey, 0).Err() })
	r.makeRead()
}

func deleteLog(r *run) {
	r.strike("DEL of the log")
	r.do(func(ctx context.Context, c *redis.Client) error { return c.Del(ctx, logKey).Err() })
	r.makeRead()
}

// foreignLog writes what is no entry of ours into the log, or puts something
// else in its place.
func foreignLog(r *run) {
	how := one(r, "an entry that is not ours", "entries cut short", "a string in the place of")
	r.strike(how + " in the log")
	r.do(func(ctx context.Context, c *redis.Client) error {
		switch how {
		case "an entry that is not ours":
			return c.XAdd(ctx, &redis.XAddArgs{Stream: logKey, Values: map[string]any{"e": noise(r.rnd, 100), "other": "field"}}).Err()
		case "entries cut short":
			return repeatCutShort(ctx, c)
		}
		return errors.Join(c.Del(ctx, logKey).Err(), c.Set(ctx, logKey, noise(r.rnd, 100), 0).Err())
	})
	r.makeRead()
}

// repeatCutShort appends the log's last entries again, each without its end.
func repeatCutShort(ctx context.Context, c *redis.Client) error {
	entries, err := c.XRevRangeN(ctx, logKey, "+", "-", 10).Result()
	for _, e := range entries {
		for name, value := range e.Values {
			text := fmt.Sprint(value)
			e.Values[name] = text[:len(text)*2/3]
		}
		err = errors.Join(err, c.XAdd(ctx, &redis.XAddArgs{Stream: logKey, Values: e.Values}).Err())
	}
	return err
}

func noise(rnd *rand.Rand, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rnd.Uint32())
	}
	return string(b)
}

func deleteCheckpoint(r *run) {
	r.strike("DEL of the checkpoint")
	r.do(func(ctx context.Context, c *redis.Client) error { return c.Del(ctx, checkpointKey).Err() })
	if r.rnd.IntN(2) == 0 {
		trimLog(r) // then somebody needs it
		return
	}
	r.makeRead()
}

// putBack gives keys the values that they had a while before, as a restored
// backup or a replica that was behind would.
func (r *run) putBack(keys ...string) {
	values := map[string]string{}
	r.do(func(ctx context.Context, c *redis.Client) error {
		for _, key := range keys {
			value, err := c.Dump(ctx, key).Result()
			if err != nil {
				return fmt.Errorf("DUMP %s: %w", key, err)
			}
			values[key] = value
		}
		return nil
	})
	r.hold(500*time.Millisecond, 5*time.Second)
	r.strike(fmt.Sprintf("put back what was in %v", keys))
	r.do(func(ctx context.Context, c *redis.Client) error {
		for _, key := range keys {
			if err := c.RestoreReplace(ctx, key, 0, values[key]).Err(); err != nil {
				return err
			}
		}
		return nil
	})
	r.makeRead()
}

// foreignCheckpoint puts something else in its place.
func foreignCheckpoint(r *run) {
	how := one(r, "noise", "its beginning", "itself with one bit changed", "a list")
	r.strike(how + " in the place of the checkpoint")
	r.do(func(ctx context.Context, c *redis.Client) error {
		value, err := c.Get(ctx, checkpointKey).Bytes()
		if err != nil && !errors.Is(err, redis.Nil) {
			return err
		}
		if how == "a list" {
			return errors.Join(c.Del(ctx, checkpointKey).Err(), c.LPush(ctx, checkpointKey, "something").Err())
		}
		return c.Set(ctx, checkpointKey, spoil(r.rnd, how, value), 0).Err()
	})
	if r.rnd.IntN(2) == 0 {
		trimLog(r) // then somebody needs it
		return
	}
	r.makeRead()
}

// spoil makes a value one that nobody wrote.
func spoil(rnd *rand.Rand, how string, value []byte) string {
	switch {
	case how == "noise" || len(value) == 0:
		return noise(rnd, 1000)
	case how == "its beginning":
		return string(value[:rnd.IntN(len(value))])
	}
	value[rnd.IntN(len(value))] ^= 1 << rnd.IntN(8)
	return string(value)
}

// corruptPages spoils every stored page, and has somebody read them.
func corruptPages(r *run) {
	r.strike("corrupt stored pages")
	r.do(func(ctx context.Context, c *redis.Client) error {
		rnd := rand.New(rand.NewPCG(r.seed, corruptStream)) // how many pages there are does not follow from the seed
		return eachKey(ctx, c, pageKeys, func(key string) error {
			value, err := c.Get(ctx, key).Bytes()
			if err != nil {
				return nil // gone, or something else
			}
			how := []string{"noise", "its beginning", "one bit changed"}[rnd.IntN(3)]
			return c.Set(ctx, key, spoil(rnd, how, value), time.Minute).Err()
		})
	})
	r.kill(r.followers()[0])
}
