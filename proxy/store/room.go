package store

import (
	"context"
	"errors"
	"math"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// watch is what was last seen of the servers. Of several the worst counts: that
// with the least room, and the one whose clock is behind.
type watch struct {
	room  atomic.Int64          // bytes of pages that may be written until the next look
	clock atomic.Pointer[clock] // nil until the first look
	until atomic.Int64          // when a page may be tried again that there was no memory for, Unix time in ns
}

// pausing reports whether nothing is written because there was no memory for it
// a moment ago.
func (w *watch) pausing() bool { return time.Now().UnixNano() < w.until.Load() }

// full reports whether no page is written because there is no memory for it.
func (w *watch) full() bool { return w.pausing() || w.clock.Load() != nil && w.room.Load() <= 0 }

const (
	lookEvery = 2 * time.Second
	lookTime  = time.Second
	// reserve is the memory, in bytes, that is left to the change log, where
	// Redis has a limit and makes no room by itself; of a small one, a quarter.
	reserve = 96 << 20
)

// clock is what a server's clock said at some moment here.
type clock struct {
	said time.Time
	here time.Time // just after
}

// at is what the server's clock says at a moment here, or a little less.
func (c *clock) at(here time.Time) time.Time { return c.said.Add(here.Sub(c.here)) }

// keepWatch looks at the servers every now and then, and says what follows from
// it. Until it has seen them once nothing is written.
func (r *Redis) keepWatch(ctx context.Context) {
	unseen, full := false, false // as said last
	for ctx.Err() == nil {
		if !r.breaker.isOpen() {
			err := r.look(ctx)
			r.say(&unseen, err != nil && ctx.Err() == nil, "cannot look at Redis", "can look at Redis again", "error", err)
		}
		pause := firstPause
		if r.watch.clock.Load() != nil {
			pause = lookEvery
			r.say(&full, r.watch.room.Load() <= 0, "Redis is nearly full: what is left is for the change log, and pages are not written there",
				"Redis has room for pages again", "try", moreMemory)
		}
		sleep(ctx, pause)
	}
}

const moreMemory = "a larger maxmemory, or maxmemory-policy volatile-lru"

// say logs that something has become bad, or good again, if that is news.
func (r *Redis) say(was *bool, is bool, bad, good string, details ...any) {
	switch {
	case is && !*was:
		r.log.Warn(bad, details...)
	case *was && !is:
		r.log.Info(good)
	}
	*was = is
}

// look reads time and memory of every server that takes writes.
func (r *Redis) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	var mu sync.Mutex // guards the following
	var slowest *clock
	room := int64(math.MaxInt64)
	err := r.each(ctx, func(ctx context.Context, server *redis.Client) error {
		said, err := server.Time(ctx).Result()
		if err != nil {
			return err
		}
		c := &clock{said, time.Now()}
		memory, err := server.Info(ctx, "memory").Result()
		var answer redis.Error
		if err != nil && !errors.As(err, &answer) { // one that has no such command has no limit
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		if slowest == nil || c.at(c.here).Before(slowest.at(c.here)) {
			slowest = c
		}
		room = min(room, roomOf(memory))
		return nil
	})
	if slowest == nil {
		return err
	}
	r.watch.clock.Store(slowest)
	r.watch.room.Store(room)
	return err
}

// each calls do for every server that takes writes, several at a time.
func (r *Redis) each(ctx context.Context, do func(context.Context, *redis.Client) error) error {
	switch client := r.client.(type) {
	case *redis.ClusterClient:
		return client.ForEachMaster(ctx, do)
	case *redis.Client:
		return do(ctx, client)
	}
	return errors.New("no client that redisurl makes")
}

// roomOf is how many bytes of pages a server has room for, by what it says of
// its memory.
func roomOf(info string) int64 {
	fields := map[string]string{}
	for line := range strings.Lines(info) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		fields[name] = value
	}
	used, errUsed := strconv.ParseInt(fields["used_memory"], 10, 64)
	limit, errLimit := strconv.ParseInt(fields["maxmemory"], 10, 64)
	if errUsed != nil || errLimit != nil || limit == 0 || fields["maxmemory_policy"] != "noeviction" {
		return math.MaxInt64
	}
	return limit - min(reserve, limit/4) - used
}
