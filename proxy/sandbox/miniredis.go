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

// clockStep is how late a key of an in-process Redis may expire. Each time its
// clock moves, the next command walks through all keys: with 10,000 of them and
// a clock that never stands still, every command took 2.7 ms.
const clockStep = 100 * time.Millisecond

// Miniredis is a Redis server in this process, for machines without one. It has
// no memory limit of its own, so while it holds more than half of MiniredisLimit
// the keys that expire soonest go; the other half is for what comes in meanwhile.
// Keys that do not expire stay, as under Redis's policy volatile-ttl.
type Miniredis struct {
	redis    *miniredis.Miniredis
	password string
	limit    int           // in bytes
	written  atomic.Int64  // bytes in arguments of commands since the last sweep
	wake     chan struct{} // tells the keeper that much was written
	stop     func()        // ends the keeper, once
	kept     chan struct{} // closed when the keeper has ended
}

// StartMiniredis starts a server on the port of 127.0.0.1; 0 picks a free one.
func StartMiniredis(port int) (*Miniredis, error) {
	return startMiniredis(port, MiniredisLimit)
}

func startMiniredis(port, limit int) (*Miniredis, error) {
	stop := make(chan struct{})
	m := &Miniredis{
		redis:    miniredis.NewMiniRedis(),
		password: rand.Text(),
		limit:    limit,
		wake:     make(chan struct{}, 1),
		stop:     sync.OnceFunc(func() { close(stop) }),
		kept:     make(chan struct{}),
	}
	m.redis.RequireAuth(m.password)
	if err := m.redis.StartAddr(net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err != nil {
		return nil, fmt.Errorf("start in-process Redis: %w", err)
	}
	m.redis.SetTime(time.Now())
	m.redis.ClockTTL(true) // without it no key ever expires
	m.redis.Server().SetPreHook(m.count)
	go m.keep(stop)
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
	<-m.kept
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

// keep moves the clock, and sweeps when much was written.
func (m *Miniredis) keep(stop <-chan struct{}) {
	defer close(m.kept)
	clock := time.NewTicker(clockStep)
	defer clock.Stop()
	for {
		select {
		case <-clock.C:
			m.redis.SetTime(time.Now())
		case <-m.wake:
			m.written.Store(0)
			m.sweep()
		case <-stop:
			return
		}
	}
}

// sweep deletes keys down to half of the limit. It runs beside the commands, not
// before one: those that a Lua script calls come by count while the script holds
// the lock that a sweep needs.
func (m *Miniredis) sweep() {
	type volatile struct {
		key  string
		size int
		ttl  time.Duration
	}
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
		if total <= m.limit/2 {
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
