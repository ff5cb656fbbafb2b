package queryset

import (
	"context"
	"log/slog"
	"math"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/singleflight"

	"walcache/backend/db"
	"walcache/proxy/coherence"
)

// Truth says what is known of the database. *coherence.Tracker is one.
type Truth interface {
	// Stamp is a position that whatever is read from now on reflects, or the
	// zero Position.
	Stamp() coherence.Position
	// Known is the position up to which every change is known, or the zero one.
	Known() coherence.Position
	// Judge says whether something as of a position still holds.
	Judge(asOf coherence.Position, deps coherence.Dependencies, now time.Time) coherence.Verdict
	// Vouches reports whether Judge calls anything fresh.
	Vouches(now time.Time) bool
	// Catalog says which tags narrow what something depends on, or nil.
	Catalog() *coherence.Catalog
	// Wait returns once everything up to lsn is known, or with the error of ctx.
	Wait(ctx context.Context, lsn coherence.LSN) error
}

// Config is what a caching Querier needs.
type Config struct {
	// Client is the Redis that entries are in. Whoever made it closes it.
	Client redis.UniversalClient
	// Prefix is what all keys begin with; entries are under PREFIXqs:.
	Prefix string
	// Truth follows the database that the Querier reads.
	Truth Truth
	// Budget is how long a look into Redis may take; 0 is 50 ms.
	Budget time.Duration
	// Log gets what an operator should know; nil is nobody.
	Log *slog.Logger
}

const defaultBudget = 50 * time.Millisecond

// cache is what a Querier keeps, and how it is kept.
type cache struct {
	client  redis.UniversalClient
	prefix  string
	truth   Truth
	budget  time.Duration
	log     *slog.Logger
	conns   db.DBTX
	looks   singleflight.Group // into Redis, by key
	queries singleflight.Group // to the database, by key
	queue   chan job
	queued  atomic.Int64 // bytes, in line or just being written
	room    atomic.Int64 // bytes that may be written until keepRoom looks again
	breaker breaker
	count   counters
}

// NewCached returns a Querier that reads from conns and keeps what it read in
// Redis. conns is a pool: it is used by several goroutines at once. Nothing is
// written before Run runs.
func NewCached(conns db.DBTX, c Config) *Querier {
	if c.Budget == 0 {
		c.Budget = defaultBudget
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	q := New(conns)
	q.cache = &cache{
		client: c.Client, prefix: c.Prefix + "qs:", truth: c.Truth, budget: c.Budget, log: c.Log.With("component", "queryset"), conns: conns,
		queue: make(chan job, queueEntries), breaker: breaker{tripped: make(chan string, 1)},
	}
	q.cache.room.Store(math.MaxInt64) // until keepRoom has looked
	return q
}

// Run writes what is to be kept, and watches over the cache, until ctx ends; it
// returns nil then. What still waits to be written is dropped.
func (q *Querier) Run(ctx context.Context) error {
	if q.cache == nil {
		<-ctx.Done()
		return nil
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { q.cache.write(ctx); return nil })
	group.Go(func() error { q.cache.keepBreaker(ctx); return nil })
	group.Go(func() error { q.cache.keepRoom(ctx); return nil })
	group.Go(func() error { q.cache.watchTruth(ctx); return nil })
	return group.Wait()
}

// Stats reports what the cache did so far; nil without one.
func (q *Querier) Stats() *Stats {
	if q.cache == nil {
		return nil
	}
	return q.cache.stats()
}

// follow is the cache's truth, or nil without a cache.
func (c *cache) follow() Truth {
	if c == nil {
		return nil
	}
	return c.truth
}

// open reports whether a request may be answered from the cache.
func (c *cache) open(ctx context.Context, reads *Reads) bool {
	if c == nil || reads == nil || !c.truth.Vouches(time.Now()) {
		return false
	}
	catalog := c.truth.Catalog()
	return catalog != nil && !catalog.Off && reads.mayUse(ctx, c.truth)
}

// follows returns what a read with these tags depends on, and whether it may be
// answered from the cache and kept there.
func (c *cache) follows(ctx context.Context, reads *Reads, tags []coherence.Tag) (deps coherence.Dependencies, ok bool) {
	if !c.open(ctx, reads) {
		return nil, false
	}
	catalog := c.truth.Catalog()
	deps, whole := catalog.Narrow(tags)
	return deps, !whole || len(catalog.Blind) == 0
}

// get returns what Redis has under a key, as bytes and as the same string, or why
// that is nothing. No more is asked for than an entry may have, since what is
// there need not be one.
//
// The time does not depend on who asks: others may wait for the same.
func (c *cache) get(key string) (data []byte, text string, why why) {
	if c.breaker.isOpen() {
		return nil, "", skipped
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.budget)
	defer cancel()
	name := c.prefix + key
	value := c.client.GetRange(ctx, name, 0, maxEntry)
	data, err := value.Bytes()
	switch {
	case err != nil && redis.HasErrorPrefix(err, "WRONGTYPE"):
		why = foreign
	case err != nil:
		c.breaker.failed(name)
		return nil, "", failed
	case len(data) == 0:
		why = absent
	}
	c.breaker.succeeded()
	return data, value.Val(), why
}

// breaker keeps requests away from a Redis that does not answer.
//
//	closed ──5 failures in a row──► open ──a probe is answered──► closed
type breaker struct {
	failures atomic.Int32 // in a row
	open     atomic.Bool
	tripped  chan string // holds the key that failed last when it has opened
}

const (
	breakAfter = 5 // failures
	probeTime  = 250 * time.Millisecond
	probeEvery = 250 * time.Millisecond
)

func (b *breaker) isOpen() bool { return b.open.Load() }

func (b *breaker) succeeded() {
	if b.failures.Load() != 0 {
		b.failures.Store(0)
	}
}

func (b *breaker) failed(key string) {
	if b.failures.Add(1) >= breakAfter && b.open.CompareAndSwap(false, true) {
		b.tripped <- key // keepBreaker took the one before when it closed
	}
}

// keepBreaker probes while the breaker is open: the server that did not answer,
// which in a cluster is known by the key.
func (c *cache) keepBreaker(ctx context.Context) {
	for {
		var key string
		select {
		case key = <-c.breaker.tripped:
		case <-ctx.Done():
			return
		}
		c.log.Warn("Redis does not answer; querysets are neither read nor written there")
		began := time.Now()
		for c.probe(ctx, key) != nil {
			if !sleep(ctx, probeEvery) {
				return
			}
		}
		c.breaker.failures.Store(0)
		c.breaker.open.Store(false)
		c.log.Info("Redis answers again", "after", time.Since(began).Round(time.Millisecond))
	}
}

func (c *cache) probe(ctx context.Context, key string) error {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	return c.client.PTTL(ctx, key).Err()
}

// watchTruth says when nothing can be answered from the cache because nothing
// proves it, for longer than a hiccup, and when it can again.
func (c *cache) watchTruth(ctx context.Context) {
	const every, hiccup = time.Second, 10 * time.Second
	since, said := time.Now(), false
	for sleep(ctx, every) {
		switch vouches := c.truth.Vouches(time.Now()); {
		case vouches && said:
			c.log.Info("querysets are cached again")
			fallthrough
		case vouches:
			since, said = time.Now(), false
		case !said && time.Since(since) > hiccup:
			said = true
			c.log.Warn("querysets are not cached: nothing says what changes in the database",
				"try", "a proxy, or `proxy listen`, on the same database, Redis and prefix")
		}
	}
}

// sleep reports whether it was not cut short.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
