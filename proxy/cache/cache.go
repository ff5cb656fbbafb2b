package cache

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
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
	// ExpiredIfError is how long after its lifetime an answer may be served that is
	// not known to have changed, while the upstream does not answer at all.
	ExpiredIfError time.Duration
	// MaxObject is the length, in bytes, of the longest body that is stored, and
	// about what is held of a longer one that several clients read.
	MaxObject int64
	// MaxFetches is how many requests may be at the upstream at a time, GET and
	// HEAD, and as many of all other methods. Others wait, for QueueTimeout.
	MaxFetches   int
	QueueTimeout time.Duration
	// CatchUp returns once Truth knows of everything committed before the call.
	// If it is not nil, the answer to a write waits for it, for WriteWait.
	CatchUp   func(context.Context) error
	WriteWait time.Duration
	// Announce tells every process, in the change stream, that these hashes of pages
	// and groups have moved, and then is as CatchUp. It tells them even if it returns
	// an error, because ctx ended; nil tells nobody.
	Announce func(ctx context.Context, moved []coherence.Hash) error
	// TrustTags lets Cache-Groups narrow what an answer depends on without a
	// position beside it.
	TrustTags bool
	// Compress keeps text that the origin sends uncompressed in the codings that
	// clients ask for, too.
	Compress bool
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
	// IgnoreQuery are patterns of the names of query parameters that say nothing of
	// what is asked for. They are neither in a page's key nor sent on.
	IgnoreQuery []string
	// HonourClients has a client's no-cache, max-age=0 and Pragma always fetch anew.
	// Otherwise an answer that is proven fresh is as good.
	HonourClients bool
	// Token is what operators send as origin.OperatorToken to have theirs honoured
	// all the same; "" is nobody's.
	Token string
	// Log gets what an operator should know; nil is nobody. A hit is not logged.
	Log *slog.Logger
}

// Defaults is a configuration that lacks Origin, Store and Truth.
func Defaults() Config {
	return Config{
		TTL:            15 * time.Minute,
		MaxTTL:         24 * time.Hour,
		ExpiredIfError: time.Minute,
		MaxObject:      8 << 20,
		MaxFetches:     128,
		QueueTimeout:   5 * time.Second,
		WriteWait:      50 * time.Millisecond,
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
	tellAll        func(context.Context, []coherence.Hash) error
	writeWait      time.Duration
	ignoreCookies  []glob
	privateHeaders []string
	mediaTypes     []string
	bypass         []glob
	ignoreQuery    ignoredQuery
	honourClients  bool
	token          string
	compressor     *compressor // nil if nothing is compressed
	log            *slog.Logger

	fetches, writes *limiter
	flights         *flights
	loads           singleflight.Group // from below, by key
	marks           *marks
	process         string        // what begins the names of all who hold leases here
	leases          atomic.Uint64 // how many have been asked for
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
	ignoreQuery, err := parseGlobs(c.IgnoreQuery)
	if err != nil {
		return nil, fmt.Errorf("cache: query parameters to ignore: %w", err)
	}
	uses, err := newUses()
	if err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	compressor, err := newCompressor(c.Compress)
	if err != nil {
		return nil, fmt.Errorf("cache: compressing: %w", err)
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
		tolerance:      tolerance{c.Grace, c.ServeChangedIfError, c.ExpiredIfError},
		trustTags:      c.TrustTags,
		catchUp:        c.CatchUp,
		tellAll:        c.Announce,
		writeWait:      c.WriteWait,
		ignoreCookies:  ignore,
		privateHeaders: rules.FieldNames(c.PrivateHeaders),
		mediaTypes:     c.MediaTypes,
		bypass:         bypass,
		ignoreQuery:    ignoreQuery,
		honourClients:  c.HonourClients,
		token:          c.Token,
		compressor:     compressor,
		log:            c.Log.With("component", "cache"),
		fetches:        newLimiter(c.MaxFetches, c.QueueTimeout),
		writes:         newLimiter(c.MaxFetches, c.QueueTimeout),
		flights:        newFlights(),
		marks:          newMarks(),
		process:        rand.Text() + "/",
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
		if why != bypassPath {
			limit = c.fetches // or any client could choose not to wait in line
		}
		c.bypassed(w, r, view, limit, forwarded{why: "bypass", detail: why})
		return
	}
	q, page, f := c.find(r, &view, now)
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
		sendFailure(w, notCached, forwarded{detail: "only-if-cached"})
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
		c.head(w, r, q, f)
	default:
		c.miss(w, r, q, page, f)
		c.count.missTimes.add(time.Since(began))
	}
}

// find looks for the answer to a GET or HEAD in memory. It takes out of the view what
// is ignored.
func (c *Cache) find(r *http.Request, view *origin.View, now time.Time) (request, *Page, found) {
	view.Target = c.ignoreQuery.reduce(view.Target)
	q := c.newRequest(r, *view)
	page := c.store.Get(q.key)
	return q, page, c.look(&q, page, Memory, now)
}

// off reports whether an operator has switched caching off.
func (c *Cache) off() bool {
	catalog := c.truth.Catalog()
	return catalog != nil && catalog.Off
}

// notCached answers who asks for what is stored alone (RFC 9111, section 5.2.1.7).
var notCached = &origin.Failure{
	Status: http.StatusGatewayTimeout, Err: errors.New("only-if-cached, and there is no fresh answer"),
	Advice: "Nothing fresh is stored for this request, and only-if-cached asks for nothing else. Ask without it.",
}

func (c *Cache) bypassed(w http.ResponseWriter, r *http.Request, v origin.View, limit *limiter, how forwarded) {
	reason := how.detail
	if reason == "" {
		reason = how.why
	}
	c.count.bypassed.add(reason)
	c.pass(w, r, v, limit, how)
}

// put stores an entry under a key, unless it can be of no use by now. written is
// told whether it is in the layer below, when it is there or will not be; it may be nil.
func (c *Cache) put(key Key, e *Entry, written func(bool)) {
	mu := c.lock(key)
	mu.Lock()
	defer mu.Unlock()
	now := time.Now()
	if !now.Before(e.forgotten(c.tolerance)) {
		if written != nil {
			written(false)
		}
		return
	}
	c.adopt(key, e)
	page := c.store.Get(key).with(e, c.tolerance, now)
	c.store.Set(key, page)
	c.offer(key, page, written)
	c.count.stored.Add(1)
}

// adopt makes an entry one of this cache, before it is shared.
func (c *Cache) adopt(key Key, e *Entry) {
	e.use = c.uses.of(key)
	c.names.Remember(e.tags)
	if c.compressor != nil {
		e.addVary()
	}
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
