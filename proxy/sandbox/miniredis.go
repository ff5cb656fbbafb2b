package sandbox

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/alicebob/miniredis/v2"
	miniserver "github.com/alicebob/miniredis/v2/server"
)

// MiniredisLimit bounds the bytes that an in-process Redis holds.
const MiniredisLimit = 64 << 20

// Miniredis is a Redis server in this process, for machines without one. It has
// no memory limit of its own, so when it nears MiniredisLimit the keys that
// expire soonest go; keys that do not expire stay, as under volatile-ttl.
type Miniredis struct {
	redis    *miniredis.Miniredis
	password string
	limit    int           // in bytes
	written  atomic.Int64  // bytes in arguments of commands since the last sweep
	wake     chan struct{} // tells the sweeper that much was written
	stop     func()        // ends the sweeper, once
	swept    chan struct{} // closed when the sweeper has ended
}

// StartMiniredis starts a server on the port of 127.0.0.1; 0 picks a free one.
func StartMiniredis(port int) (*Miniredis, error) {
	return startMiniredis(port, MiniredisLimit)
}

func startMiniredis(port int, limit int) (*Miniredis, error) {
	stop := make(chan struct{})
	m := &Miniredis{
		redis:    miniredis.NewMiniRedis(),
		password: rand.Text(),
		limit:    limit,
		wake:     make(chan struct{}, 1),
		stop:     sync.OnceFunc(func() { close(stop) }),
		swept:    make(chan struct{}),
	}
	m.redis.RequireAuth(m.password)
	if err := m.redis.StartAddr(net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err != nil {
		return nil, fmt.Errorf("start in-process Redis: %w", err)
	}
	m.redis.ClockTTL(true) // without it no key ever expires
	m.redis.Server().SetPreHook(m.count)
	go m.sweepWhenFull(stop)
	return m, nil
}

// URL of the server, password included.
func (m *Miniredis) URL() string {
	return redisURL(m.redis.Server().Addr().Port, m.password)
}

// Stop ends the server.
func (m *Miniredis) Stop(context.Context) error {
	m.redis.Close()
	m.stop()
	<-m.swept
	return nil
}

// count sees every command before it runs. All data comes in as arguments, so
// what was written since the last sweep is at most what was counted.
func (m *Miniredis) count(_ *miniserver.Peer, _ string, args ...string) bool {
	n := 0
	for _, arg := range args {
		n += len(arg)
	}
	if m.written.Add(int64(n)) > int64(m.limit/8) {
		select {
		case m.wake <- struct{}{}:
		default: // it is awake already
		}
	}
	return false // the command is not handled yet
}

func (m *Miniredis) sweepWhenFull(stop <-chan struct{}) {
	defer close(m.swept)
	for {
		select {
		case <-m.wake:
			m.written.Store(0)
			m.sweep()
		case <-stop:
			return
		}
	}
}

// sweep deletes keys down to 3/4 of the limit: an eighth may be written before
// the next sweep, and another while that runs.
func (m *Miniredis) sweep() {
	type volatile struct {
		key  string
		size int
		ttl  time.Duration
	}
	// By way of the database, since methods of the server itself first look for
	// expired keys, through all keys, each time.
	db := m.redis.DB(0)
	total := 0
	var keys []volatile
	for _, key := range db.Keys() {
		size := sizeOf(db, key)
		total += size
		if ttl := db.TTL(key); ttl > 0 {
			keys = append(keys, volatile{key, size, ttl})
		}
	}
	slices.SortFunc(keys, func(a, b volatile) int { return cmp.Compare(a.ttl, b.ttl) })
	for _, k := range keys {
		if total <= m.limit*3/4 {
			return
		}
		db.Del(k.key)
		total -= k.size
	}
}

// sizeOf a key and its value, roughly: the bytes, and what Go needs around
// them. A key that has just gone has no size; nor have types not used here.
func sizeOf(db *miniredis.RedisDB, key string) int {
	const overhead = 128
	size := overhead + len(key)
	switch db.Type(key) {
	case "string":
		value, _ := db.Get(key)
		size += len(value)
	case "hash":
		fields, _ := db.HKeys(key)
		for _, field := range fields {
			size += overhead + len(field) + len(db.HGet(key, field))
		}
	case "stream":
		entries, _ := db.Stream(key)
		for _, entry := range entries {
			size += overhead + len(entry.ID)
			for _, value := range entry.Values {
				size += len(value)
			}
		}
	case "set":
		members, _ := db.Members(key)
		for _, member := range members {
			size += overhead + len(member)
		}
	case "zset":
		scores, _ := db.SortedSet(key)
		for member := range scores {
			size += overhead + len(member)
		}
	}
	return size
}
