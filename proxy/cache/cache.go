package cache

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"walcache/proxy/coherence"
	"walcache/proxy/origin"
	"walcache/proxy/rules"
)

// Config is what a Cache is made from. Defaults has a value for everything but
// the first three.
type Config struct {
	Origin *origin.Origin
	Store  Store
	Truth  Truth
	// Below is where pages live beyond this process; nil for nowhere.
	Below Below

	// TTL is the lifetime of an answer whose origin gave none; with 0 it is a
	// tenth of the time since its last modification. MaxTTL bounds every lifetime.
	TTL, MaxTTL time.Duration
	// Grace is how old data may be, since it was read, to be served although it
	// changed, while one request refreshes it.
	Grace time.Duration
	// ServeChangedIfError is the same while the upstream fails.
	ServeChangedIfError time.Duration
	// MaxObject is the length, in bytes, of the longest body that is stored.
	MaxObject int64
	// MaxFetches is how many requests may be at the upstream at a time, GET and
	// HEAD, and as many of all other methods. Others wait, for QueueTimeout.
	MaxFetches   int
	QueueTimeout time.Duration
	// CatchUp returns once Truth knows of everything committed before the call.
	// If it is not nil, the answer to a write waits for it, for WriteWait.
	CatchUp   func(context.Context) error
	WriteWait time.Duration
	// TrustTags lets Cache-Groups narrow what an answer depends on without a
	// position beside it.
	TrustTags bool
	// StoreSetCookie stores answers with Set-Cookie whose origin gave a lifetime.
	StoreSetCookie bool
	// IgnoreCookies are patterns of the names of cookies that say nothing of who
	// is asking. "*" stands for any characters.
	IgnoreCookies []string
	// PrivateHeaders are fields that say who is asking, like Authorization.
	PrivateHeaders []string
	// MediaTypes are those that the origin chooses from by Accept. The field is
	// reduced to the one that it ranks first, so that a page has a variant for each
	// and not one for each way in which clients write the field; where it likes two
	// of them alike it is left as it is.
	MediaTypes []string
	// Bypass are patterns of paths that are never answered from the cache. "*"
	// stands for any characters, slashes too.
	Bypass []string
	// Log gets what an operator should know; nil is nobody. A hit is not logged.
	Log *slog.Logger
}

// Defaults is a configuration that lacks Origin, Store and Truth.
func Defaults() Config {
	return Config{
		TTL:          15 * time.Minute,
		MaxTTL:       24 * time.Hour,
		MaxObject:    8 << 20,
		MaxFetches:   128,
		QueueTimeout: 5 * time.Second,
		WriteWait:    50 * time.Millisecond,
		PrivateHeaders: []string{
			"X-Api-Key", "Api-Key", "X-Auth-Token", "X-Access-Token", "X-Session-Id",
			"X-User-Id", "X-Forwarded-User", "X-Remote-User", "X-Csrf-Token",
		},
	}
}

// Cache is an http.Handler that answers from what is stored if it can prove it
// fresh, and everything else from the origin.
type Cache struct {
	origin    *origin.Origin
	store     Store
	below     Below // nil if there is none
	truth     Truth
	policy    rules.Policy
	tolerance tolerance

	trustTags      bool
	catchUp        func(context.Context) error
	writeWait      time.Duration
	ignoreCookies  []glob
	privateHeaders []string
	mediaTypes     []string
	bypass         []glob
	log            *slog.Logger

	fetches, writes *limiter
	flights         *flights
	loads           singleflight.Group // from below, by key
	marks           *marks
	uses            *uses
	names           coherence.Names // of tags that something here depends on
	count           counters

	seed  maphash.Seed
	locks [64]sync.Mutex // by hash of a key: held to replace its page
}

// New makes a Cache.
func New(c Config) (*Cache, error) {
	if c.Origin == nil || c.Store == nil || c.Truth == nil {
		return nil, errors.New("cache: Origin, Store and Truth are needed")
	}
	if c.MaxFetches < 1 {
		return nil, fmt.Errorf("cache: at most %d fetches would be none", c.MaxFetches)
	}
	ignore, err := parseGlobs(c.IgnoreCookies)
	if err != nil {
		return nil, fmt.Errorf("cache: cookies to ignore: %w", err)
	}
	bypass, err := parseGlobs(c.Bypass)
	if err != nil {
		return nil, fmt.Errorf("cache: paths to bypass: %w", err)
	}
	uses, err := newUses()
	if err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Cache{
		uses:           uses,
		origin:         c.Origin,
		store:          c.Store,
		below:          c.Below,
		truth:          c.Truth,
		policy:         rules.Policy{TTL: c.TTL, MaxTTL: c.MaxTTL, MaxObject: c.MaxObject, StoreSetCookie: c.StoreSetCookie},
		tolerance:      tolerance{c.Grace, c.ServeChangedIfError},
		trustTags:      c.TrustTags,
		catchUp:        c.CatchUp,
		writeWait:      c.WriteWait,
		ignoreCookies:  ignore,
		privateHeaders: inBothSpellings(rules.FieldNames(c.PrivateHeaders)),
		mediaTypes:     c.MediaTypes,
		bypass:         bypass,
		log:            c.Log.With("component", "cache"),
		fetches:        newLimiter(c.MaxFetches, c.QueueTimeout),
		writes:         newLimiter(c.MaxFetches, c.QueueTimeout),
		flights:        newFlights(),
		marks:          newMarks(),
		seed:           maphash.MakeSeed(),
	}, nil
}

// ServeHTTP answers from what is stored, or from the origin.
func (c *Cache) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	now := began
	view, err := c.origin.View(r)
	if err != nil {
		sendFailure(w, &origin.Failure{Status: http.StatusBadRequest, Err: err}, forwarded{detail: "target"})
		return
	}
	limit, reads := c.writes, r.Method == http.MethodGet || r.Method == http.MethodHead
	if reads {
		limit = nil // as for all that bypasses
	}
	switch {
	case c.off():
		c.bypassed(w, r, view, limit, forwarded{why: "bypass", detail: "off"})
		return
	case !reads:
		c.bypassed(w, r, view, limit, forwarded{why: "method"})
		return
	}
	if why := c.cannotUse(r, view); why != "" {
		c.bypassed(w, r, view, nil, forwarded{why: "bypass", detail: why})
		return
	}
	q := c.newRequest(r, view)
	page := c.store.Get(q.key)
	f := c.look(&q, page, Memory, now)
	if !f.fresh && c.below != nil && f.mendable() && !q.asks.NoStore && !c.marks.has(q.key) {
		page, f = c.lookBelow(r.Context(), &q, page, f)
		now = time.Now()
	}
	switch {
	case f.fresh && !q.asks.NoStore:
		if sampled := c.hit(w, &q, f, now); sampled {
			c.count.hitTimes.add(time.Since(began))
		}
	case r.Context().Err() != nil: // while the layer below was asked
		sendFailure(w, nobody, missed(f.reason, ""))
	case q.asks.OnlyIfCached:
		sendFailure(w, &origin.Failure{Status: http.StatusGatewayTimeout, Err: errNotCached}, forwarded{detail: "only-if-cached"})
	case q.asks.NoStore:
		c.bypassed(w, r, view, c.fetches, forwarded{why: "request", detail: "no-store"})
	case len(r.Header["Range"]) > 0:
		c.bypassed(w, r, view, c.fetches, forwarded{why: "bypass", detail: "range"})
	case f.whileRefreshing:
		c.countMiss(&q, f)
		c.refresh(r, q, page, f)
		c.sendStale(w, &q, f.entry, f.reason, 0)
	case q.head:
		c.countMiss(&q, f)
		c.pass(w, r, view, c.fetches, missed(f.reason, "head"))
	default:
		c.miss(w, r, q, page, f)
		c.count.missTimes.add(time.Since(began))
	}
}

// off reports whether an operator has switched caching off.
func (c *Cache) off() bool {
	catalog := c.truth.Catalog()
	return catalog != nil && catalog.Off
}

var errNotCached = errors.New("only-if-cached, and there is no fresh answer")

func (c *Cache) bypassed(w http.ResponseWriter, r *http.Request, v origin.View, limit *limiter, how forwarded) {
	reason := how.detail
	if reason == "" {
		reason = how.why
	}
	c.count.bypassed.add(reason)
	c.pass(w, r, v, limit, how)
}

// put stores an entry under a key, unless it can be of no use by now.
func (c *Cache) put(key Key, e *Entry) {
	mu := c.lock(key)
	mu.Lock()
	defer mu.Unlock()
	keep, now := c.tolerance.window(), time.Now()
	if !now.Before(e.useless(keep)) {
		return
	}
	e.use = c.uses.of(key)
	c.names.Remember(e.tags)
	page := c.store.Get(key).with(e, keep, now)
	c.store.Set(key, page)
	if c.below != nil {
		c.below.Set(key, page)
	}
	c.count.stored.Add(1)
}

// lock is held to replace the page under a key.
func (c *Cache) lock(key Key) *sync.Mutex {
	return &c.locks[maphash.Comparable(c.seed, key)%uint64(len(c.locks))]
}

// countMiss counts a request that the store could not answer.
func (c *Cache) countMiss(q *request, f found) {
	u := c.uses.of(q.key)
	u.misses.Add(1)
	u.route.misses.Add(1)
	u.route.reasons.add(f.reason)
	c.count.misses.add(f.reason)
	if f.reason != missChanged {
		return
	}
	if table := c.truth.Cause(f.entry.asOf, f.entry.tags, f.entry.whole); table != "" {
		c.count.turned.add(table)
	}
}
