package queryset

import (
	"context"
	"errors"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	lookEvery = 2 * time.Second
	lookTime  = time.Second

	// reserve is the memory, in bytes, that is left to the change log, where Redis
	// has a limit and makes no room by itself; of a small one, a quarter.
	reserve = 96 << 20
)

// keepRoom looks every now and then how much may be written.
//
// The change log lives in the same Redis. Where that evicts nothing, entries
// would fill it up, and then nobody would hear of changes any more.
func (c *cache) keepRoom(ctx context.Context) {
	full := false // as said last
	for {
		if room, err := c.roomNow(ctx); err == nil {
			c.room.Store(room)
		}
		switch left := c.room.Load() > 0; {
		case !left && !full:
			c.log.Warn("Redis is nearly full: what is left is for the change log, and querysets are not written there",
				"try", "a larger maxmemory, or maxmemory-policy volatile-lru")
		case left && full:
			c.log.Info("Redis has room for querysets again")
		}
		full = c.room.Load() <= 0
		if !sleep(ctx, lookEvery) {
			return
		}
	}
}

// roomNow returns the room, in bytes, of the server that has the least.
func (c *cache) roomNow(ctx context.Context) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	var mu sync.Mutex // guards room
	room := int64(math.MaxInt64)
	ask := func(ctx context.Context, server *redis.Client) error {
		memory, err := server.Info(ctx, "memory").Result()
		var answer redis.Error
		if err != nil && !errors.As(err, &answer) { // one that has no such command has no limit
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		room = min(room, roomOf(memory))
		return nil
	}
	var err error
	switch client := c.client.(type) {
	case *redis.ClusterClient:
		err = client.ForEachMaster(ctx, ask)
	case *redis.Client:
		err = ask(ctx, client)
	}
	return room, err
}

// roomOf is how many bytes a server has room for, by what it says of its memory.
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
