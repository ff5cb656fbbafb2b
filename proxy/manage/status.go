package manage

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"walcache/proxy/cache"
	"walcache/proxy/coherence"
	"walcache/proxy/guard"
	"walcache/proxy/querysets"
	"walcache/proxy/redisurl"
)

// Status is what cache-status answers. Times are seconds, sizes bytes.
type Status struct {
	Pages     PageStatus     `json:"page_cache"`
	Querysets QuerysetStatus `json:"queryset_cache"`
	Coherence *Coherence     `json:"coherence"`  // null for an ordinary cache
	LastClear *LastClear     `json:"last_clear"` // asked of this process; null if none was
	Timestamp string         `json:"timestamp"`
	Error     string         `json:"error,omitempty"`
	Try       string         `json:"try,omitempty"`
}

// PageStatus is what is kept of whole answers.
type PageStatus struct {
	Backend  string            `json:"backend"`
	Location string            `json:"location"`       // of Redis, without a password; "" without one
	IsCached bool              `json:"page_is_cached"` // a fresh answer for it is stored
	Key      string            `json:"cache_key_example"`
	URL      string            `json:"url"`      // that this is about
	Variants []cache.Variant   `json:"variants"` // of that page
	Stored   Stored            `json:"stored"`   // of all pages
	Hits     map[string]uint64 `json:"hits"`     // by layer
}

// Stored is how much there is in each layer.
type Stored struct {
	Memory StoredHere   `json:"memory"`
	Redis  *StoredBelow `json:"redis"` // null without Redis
}

// StoredHere is about what this process keeps.
type StoredHere struct {
	Pages int    `json:"pages"`
	Bytes uint64 `json:"bytes"`
}

// StoredBelow is about what all processes share.
type StoredBelow struct {
	Pages   int64 `json:"pages"`
	AtLeast bool  `json:"at_least"` // counting them took too long, or Redis does not answer
}

// QuerysetStatus is what services keep of what they read.
type QuerysetStatus struct {
	All      bool             `json:"all_properties_cached"` // it is there, and would be used now
	Count    bool             `json:"property_count_cached"`
	Keys     QuerysetKeys     `json:"cache_keys"`
	Timeouts QuerysetTimeouts `json:"cache_timeouts"`
	List     []Queryset       `json:"querysets"`
	More     bool             `json:"more"` // there are others
}

// QuerysetKeys are the keys of the two querysets that people ask for, without what
// all keys begin with.
type QuerysetKeys struct {
	All   string `json:"ALL_PROPERTIES"`
	Count string `json:"PROPERTY_COUNT"`
}

// QuerysetTimeouts are how long a service keeps a list and a count at most.
type QuerysetTimeouts struct {
	Lists  int `json:"PROPERTIES"`
	Counts int `json:"COUNT"`
}

// Queryset is one, and how it stands.
type Queryset struct {
	Key     string        `json:"key"`
	State   string        `json:"state"`       // absent, present, corrupt, expired, or as coherence.Verdict says
	Age     *float64      `json:"age_seconds"` // null where that is not known
	TTL     *float64      `json:"ttl_seconds"` // null where it is not there, or never expires
	Bytes   int64         `json:"bytes"`
	Rows    int           `json:"rows"`
	Tags    []string      `json:"tags"`
	AsOf    string        `json:"as_of"`
	Moved   []cache.Moved `json:"moved"` // what made it stale, the latest first
	Problem string        `json:"problem,omitempty"`
}

// Coherence is what this process knows of the database.
type Coherence struct {
	Vouches  bool     `json:"vouches"` // it can prove what it calls fresh
	Epoch    string   `json:"epoch"`
	Known    string   `json:"known"`
	FreshAge *float64 `json:"fresh_as_of_age_seconds"` // null before the first proof
	Off      bool     `json:"off"`                     // caching was switched off by an operator
}

// statusWithin bounds how long a look at Redis takes, and then one at a page.
const statusWithin = 5 * time.Second

func (m *Manager) status(w http.ResponseWriter, r *http.Request) {
	seen := m.survey.read(r.Context(), m.look)
	ctx, cancel := context.WithTimeout(r.Context(), statusWithin)
	defer cancel()
	s := Status{Coherence: m.coherence(), LastClear: m.lastClear(), Timestamp: time.Now().UTC().Format(stamp)}
	var err error
	if s.Pages, err = m.pageStatus(ctx, m.pageOf(r), seen); err != nil {
		guard.WriteJSON(w, http.StatusBadRequest, guard.Problem("?url: "+err.Error(),
			"?url=https://host/path, percent-encoded, as clients ask for it"))
		return
	}
	status := http.StatusOK
	if s.Querysets, err = m.querysetStatus(seen, s.off()); err != nil {
		status, s.Error, s.Try = http.StatusServiceUnavailable, m.away(err), "see whether Redis runs, and whether --redis-url (REDIS_URL) names it; memory is as said"
	}
	guard.WriteJSON(w, status, s)
}

func (s *Status) off() bool { return s.Coherence != nil && s.Coherence.Off }

// pageOf is the URL of the page that a status is about: the one asked for, or the
// page below whose path the operations are, under the name that the client knows
// this proxy by. On the admin port, which has another name, that is the one by
// which the page is asked for most.
func (m *Manager) pageOf(r *http.Request) string {
	if text := r.URL.Query().Get("url"); text != "" {
		return text
	}
	scheme, path := "http", cmp.Or(m.Prefix, "/")
	if r.TLS != nil {
		scheme = "https"
	}
	if m.isFront(r) {
		return scheme + "://" + r.Host + path
	}
	if m.Cache != nil {
		for _, page := range m.Cache.Hottest(someHot) {
			if u, err := url.Parse(page.URL); err == nil && u.RequestURI() == path {
				return page.URL
			}
		}
	}
	return m.scheme() + "://" + m.Addr + path
}

// scheme is that of the URLs that clients ask for.
func (m *Manager) scheme() string {
	if m.TLS {
		return "https"
	}
	return "http"
}

// someHot is among how many of the most requested pages one is looked for.
const someHot = 1000

// inRedis is what Redis has, as far as that takes going through its keys.
type inRedis struct {
	pages     *StoredBelow // nil without Redis
	querysets []querysets.Queryset
	more      bool // there are others
	err       error
}

// look goes through the keys. Each look is work for Redis, which pages wait for
// meanwhile.
func (m *Manager) look(ctx context.Context) (seen inRedis) {
	if m.redis == nil {
		return seen
	}
	seen.pages = m.countPages(ctx)
	seen.querysets, seen.more, seen.err = querysets.List(ctx, m.redis, m.RedisPrefix, shownQuerysets)
	return seen
}

// survey looks once for everybody who asks within a second, and for one at a
// time: any number of statuses cost Redis no more than one a second does. How
// what was seen stands is judged for each anew.
type survey struct {
	shared time.Duration // how long what was seen is shared

	mu   sync.Mutex // guards the following, and is held by who looks
	at   time.Time
	seen inRedis // replaced and never written to
}

// read looks, or returns what was seen just now. A client that leaves in the
// middle does not take the look from those who wait for it.
func (s *survey) read(ctx context.Context, look func(context.Context) inRedis) inRedis {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.at.IsZero() && time.Since(s.at) < s.shared {
		return s.seen
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), statusWithin)
	defer cancel()
	s.seen = look(ctx)
	s.at = time.Now()
	return s.seen
}

// pageStatus looks at the variants of a page, and at how much there is beside it.
// The error is about the URL.
func (m *Manager) pageStatus(ctx context.Context, page string, seen inRedis) (p PageStatus, err error) {
	key, err := m.Cache.KeyOf(page)
	if err != nil {
		return p, err
	}
	p = PageStatus{Backend: m.backend(), URL: page, Key: m.RedisPrefix + "page:" + key.String(), Variants: []cache.Variant{}, Hits: map[string]uint64{}}
	if m.redis != nil {
		p.Location = redisurl.Address(m.RedisURL)
	}
	p.Stored = Stored{m.storedHere(), seen.pages}
	if m.Cache == nil { // and so no page
		p.URL, p.Key = "", ""
		return p, nil
	}
	p.Hits = m.Cache.Stats().Hits
	variants, err := m.Cache.Inspect(ctx, page)
	for _, v := range variants {
		p.Variants = append(p.Variants, v)
		p.IsCached = p.IsCached || v.State == coherence.Fresh.String()
	}
	return p, err
}

// stored says how much there is in each layer, about.
func (m *Manager) stored(ctx context.Context) (s Stored) {
	s.Memory = m.storedHere()
	if m.redis != nil {
		s.Redis = m.countPages(ctx)
	}
	return s
}

func (m *Manager) storedHere() (s StoredHere) {
	if m.Memory != nil {
		s = StoredHere{m.Memory.Pages(), m.Memory.Bytes()}
	}
	return s
}

const (
	// countTime is how long pages are counted: of many millions a number that says
	// "at least" is as good.
	countTime = 200 * time.Millisecond
	// countAtOnce is how many keys a server looks at before it answers others again.
	countAtOnce = 1000
)

var (
	literal = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`)
	errLate = errors.New("took too long")
)

// countPages counts what Redis has of pages, on every server. A key may count
// twice while a server grows its table.
func (m *Manager) countPages(ctx context.Context) *StoredBelow {
	began, pattern := time.Now(), literal.Replace(m.RedisPrefix)+"page:*"
	var pages atomic.Int64
	count := func(ctx context.Context, server *redis.Client) error {
		for cursor := uint64(0); ; {
			keys, next, err := server.Scan(ctx, cursor, pattern, countAtOnce).Result()
			pages.Add(int64(len(keys)))
			if cursor = next; err != nil || cursor == 0 {
				return err
			}
			if time.Since(began) > countTime {
				return errLate
			}
		}
	}
	var err error
	switch client := m.redis.(type) {
	case *redis.ClusterClient:
		err = client.ForEachMaster(ctx, count)
	case *redis.Client:
		err = count(ctx, client)
	}
	return &StoredBelow{Pages: pages.Load(), AtLeast: err != nil}
}

// shownQuerysets is how many a status shows beside those that people ask for.
const shownQuerysets = 100

func (m *Manager) querysetStatus(seen inRedis, off bool) (QuerysetStatus, error) {
	s := QuerysetStatus{
		Keys:     QuerysetKeys{querysets.Known[0], querysets.Known[1]},
		Timeouts: QuerysetTimeouts{Lists: 3600, Counts: 1800},
		List:     []Queryset{},
		More:     seen.more,
	}
	now := time.Now()
	for _, kept := range seen.querysets {
		q := m.judged(kept, now)
		s.List = append(s.List, q)
		used := q.State == coherence.Fresh.String() && !off
		s.All = s.All || used && kept.Name == s.Keys.All
		s.Count = s.Count || used && kept.Name == s.Keys.Count
	}
	return s, seen.err
}

// judged says how a queryset stands, by what is known here.
func (m *Manager) judged(kept querysets.Queryset, now time.Time) Queryset {
	q := Queryset{
		Key: kept.Key, State: m.state(kept, now), Bytes: kept.Bytes, Rows: kept.Rows,
		Tags: []string{}, Moved: []cache.Moved{},
	}
	if kept.Present && kept.TTL >= 0 {
		q.TTL = new(kept.TTL.Seconds())
	}
	if kept.Problem != nil {
		q.Problem = kept.Problem.Error()
	}
	if !kept.Present || kept.Problem != nil {
		return q
	}
	q.Age, q.AsOf = new(kept.Age.Seconds()), kept.AsOf.String()
	for _, tag := range kept.Tags {
		q.Tags = append(q.Tags, string(tag))
	}
	if m.Tracker == nil {
		return q
	}
	for _, move := range m.Tracker.Why(kept.AsOf, kept.Tags) {
		q.Moved = append(q.Moved, cache.Moved{What: move.Name, From: kept.AsOf.LSN.String(), To: move.At.String()})
	}
	return q
}

// state is whether a queryset would be used now: by what service it was kept, and
// whether that can read it, nobody knows here. Present is what cannot be judged.
func (m *Manager) state(kept querysets.Queryset, now time.Time) string {
	switch {
	case !kept.Present:
		return "absent"
	case errors.Is(kept.Problem, coherence.ErrCorrupt):
		return "corrupt"
	case kept.Problem != nil || m.Tracker == nil:
		return "present"
	case kept.TTL == 0:
		return "expired"
	}
	catalog := m.Tracker.Catalog()
	deps, whole := catalog.Narrow(kept.Tags)
	verdict := m.Tracker.Judge(kept.AsOf, deps, now)
	if verdict == coherence.Fresh && whole && (catalog == nil || len(catalog.Blind) > 0) {
		verdict = coherence.Unproven // not all that it depends on is known
	}
	return verdict.String()
}

// coherence is nil for an ordinary cache.
func (m *Manager) coherence() *Coherence {
	if m.Tracker == nil {
		return nil
	}
	now := time.Now()
	p, catalog := m.Tracker.Progress(now), m.Tracker.Catalog()
	c := &Coherence{Vouches: m.Tracker.Vouches(now), Epoch: p.Epoch, Known: p.Known.String(), Off: catalog != nil && catalog.Off}
	if p.FreshAge >= 0 {
		c.FreshAge = new(p.FreshAge.Seconds())
	}
	return c
}
