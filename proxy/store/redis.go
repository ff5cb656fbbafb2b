package store

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"walcache/proxy/cache"
	"walcache/proxy/redisurl"
)

// RedisConfig says where pages are shared, and how much of them.
type RedisConfig struct {
	// URL is what redisurl.Open takes.
	URL string
	// Prefix is what all keys begin with.
	Prefix string
	// MaxObject is the length, in bytes, of the longest body to keep.
	MaxObject int64
	// Budget is how long a Get may take, all in all; 0 is 50 ms.
	Budget time.Duration
	// Log gets what an operator should know; nil is nobody.
	Log *slog.Logger
}

const (
	defaultBudget = 50 * time.Millisecond
	// headRoom is for the header fields of a page's answers, and its key.
	headRoom = 256 << 10
)

// Redis holds pages for all processes that share it, each under the key
// PREFIXpage:SCHEME://HOST/TARGET. A page expires there when it can be of no use
// any more. Beside them are leases, by which processes agree on who of them
// fetches a page (lease.go).
//
// Nobody waits for it. A Get has a budget, and after a few that failed in a row
// it returns at once until Redis answers again (breaker.go). A Set only puts a
// page in line (writer.go), and where Redis is short of memory pages are not
// written, because the change log lives there too (room.go).
type Redis struct {
	client  redis.UniversalClient
	prefix  string // of pages
	leases  string // the prefix of leases
	limit   int    // bytes of an encoded page
	budget  time.Duration
	log     *slog.Logger
	breaker breaker
	queue   *queue
	watch   watch
	count   redisCounters

	stop       context.CancelFunc // ends all goroutines
	writing    sync.WaitGroup     // the writer
	background sync.WaitGroup     // all others
}

// NewRedis makes a store and begins to watch its server, which may be away. The
// error is about the URL alone.
func NewRedis(c RedisConfig) (*Redis, error) {
	client, err := redisurl.Open(c.URL, nil)
	if err != nil {
		return nil, err
	}
	if c.Budget == 0 {
		c.Budget = defaultBudget
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	ctx, stop := context.WithCancel(context.Background())
	r := &Redis{
		client:  client,
		prefix:  c.Prefix + "page:",
		leases:  c.Prefix + "lease:",
		limit:   int(c.MaxObject) + headRoom,
		budget:  c.Budget,
		log:     c.Log.With("component", "store", "redis", redisurl.Address(c.URL)),
		breaker: breaker{tripped: make(chan struct{}, 1)},
		queue:   newQueue(),
		stop:    stop,
	}
	r.writing.Go(func() { r.write(ctx) })
	r.background.Go(func() { r.keepWatch(ctx) })
	r.background.Go(func() { r.keepBreaker(ctx) })
	return r, nil
}

// closeTime is how long Close takes at most, about.
const closeTime = time.Second

// Close writes what is in line, if Redis takes it within a second, and ends
// what NewRedis began.
func (r *Redis) Close() error {
	r.queue.close()
	late := time.AfterFunc(closeTime, r.stop)
	r.writing.Wait()
	late.Stop()
	r.stop()
	r.background.Wait()
	return r.client.Close()
}

// name is a page's key in Redis.
func (r *Redis) name(key cache.Key) string { return r.prefix + key.String() }

// Get returns the page under a key, or nil.
func (r *Redis) Get(ctx context.Context, key cache.Key) *cache.Page {
	r.count.gets.Add(1)
	if r.breaker.isOpen() {
		r.count.skipped.Add(1)
		return nil
	}
	asked := time.Now()
	data, left, err := r.read(ctx, r.name(key), asked.Add(r.budget))
	if err != nil {
		r.count.failures.Add(1)
		if time.Since(asked) >= r.budget {
			r.count.overBudget.Add(1)
		}
		r.breaker.failed(r.name(key), err)
		return nil
	}
	r.breaker.succeeded()
	if left == absent || left == 0 { // or its last millisecond
		r.count.misses.Add(1)
		return nil
	}
	page, err := cache.DecodePage(data, key, left, asked)
	if err != nil {
		r.count.corrupt.Add(1)
		return nil
	}
	r.count.hits.Add(1)
	return page
}

// absent is what PTTL answers for a key that does not exist.
const absent = time.Duration(-2)

// read reads what is under a name, and how long it will be there. No more is
// asked for than a page may have, since it need not be one; what is longer, or
// of another type, comes back as no page.
//
// The time left is asked for twice, and the lesser counts:
//
//  1. The time left is read. 2. Another process puts a page there that has
//     waited in line for long, and so has less time left. 3. That page is read,
//     and seems to be younger than it is.
//
// With the time left read after the page it goes wrong the other way round. A
// transaction would do, but Redis refuses any when it is out of memory.
func (r *Redis) read(ctx context.Context, name string, deadline time.Time) (data []byte, left time.Duration, err error) {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	pipe := r.client.Pipeline()
	before := pipe.PTTL(ctx, name)
	value := pipe.GetRange(ctx, name, 0, int64(r.limit))
	after := pipe.PTTL(ctx, name)
	if _, err := pipe.Exec(ctx); err != nil && !redis.HasErrorPrefix(err, "WRONGTYPE") {
		return nil, 0, err
	}
	if data, err = value.Bytes(); err != nil || len(data) > r.limit {
		data = nil
	}
	return data, min(before.Val(), after.Val()), nil
}

// Set puts a page in line to be written, in the place of an older one. then, if
// it is not nil, is called once that is done or given up.
func (r *Redis) Set(key cache.Key, page *cache.Page, then func(written bool)) {
	w := waiting{key: key, page: page}
	if then != nil {
		w.then = append(w.then, then)
	}
	if !r.queue.put(w) {
		r.drop(droppedBehind, w)
	}
}

// Delete puts in line that what is under a key be removed.
func (r *Redis) Delete(key cache.Key) {
	if w := (waiting{key: key}); !r.queue.put(w) {
		r.drop(droppedBehind, w)
	}
}
