package cache

import (
	"cmp"
	"context"
	"errors"
	"net/url"
	"slices"
	"strings"
	"time"

	"walcache/proxy/coherence"
	"walcache/proxy/rules"
)

// Variant is a stored answer, and how it stands, for people. Times are seconds,
// sizes bytes.
type Variant struct {
	URL      string            `json:"url"`
	Layer    string            `json:"layer"` // memory or redis
	Varied   map[string]string `json:"varied"`
	Status   int               `json:"status"`
	Bytes    int               `json:"bytes"`
	State    string            `json:"state"` // fresh, expired, or as coherence.Verdict says
	Age      float64           `json:"age_seconds"`
	TTL      float64           `json:"ttl_seconds"` // below 0 once expired
	AsOf     string            `json:"as_of"`
	Tags     []string          `json:"tags"`
	Whole    bool              `json:"depends_on_everything"`
	Moved    []Moved           `json:"moved"` // what made it stale, the latest first
	Requests uint64            `json:"hits"`
}

// Moved is something that an answer depends on, and that changed.
type Moved struct {
	What string `json:"what"` // a tag, a floor, a group, or the purge of the URL
	From string `json:"from"` // that the answer is as of
	To   string `json:"to"`
}

// Requested is how often a URL was asked for.
type Requested struct {
	URL    string `json:"url"`
	Exact  bool   `json:"exact"` // the URL says all that the page is kept under; a trusted proxy may have said more
	Route  string `json:"route"`
	Hits   uint64 `json:"hits"`
	Misses uint64 `json:"misses"`
}

// RouteStats is how often the URLs of one shape were asked for.
type RouteStats struct {
	Route   string            `json:"route"`
	Hits    uint64            `json:"hits"`
	Misses  uint64            `json:"misses"`
	Reasons map[string]uint64 `json:"misses_by_reason"`
}

// Inspect looks at what is stored under a URL, in memory and below, and changes
// nothing. The error is about the URL.
func (c *Cache) Inspect(ctx context.Context, text string) ([]Variant, error) {
	key, err := c.KeyOf(text)
	if err != nil {
		return nil, err
	}
	var found []Variant
	for _, key := range c.alike(key) {
		found = append(found, c.variants(key, c.store.Get(key), Memory)...)
		if c.below != nil {
			found = append(found, c.variants(key, c.below.Get(ctx, key), Redis)...)
		}
	}
	return found, nil
}

// alike are the keys that clients name by one URL: it, and those under which a
// trusted proxy said more, as far as they are remembered.
func (c *Cache) alike(key Key) []Key {
	const most = 8
	keys := []Key{key}
	for k := range c.uses.byKey.All() {
		if k.Target == key.Target && k != key && len(keys) < most && k.URL() == key.URL() {
			keys = append(keys, k)
		}
	}
	return keys
}

// Search looks at what is stored in memory, and returns up to limit of the
// answers that match, and how many there are. It looks at every page, unless ctx
// ends before: that is the error.
func (c *Cache) Search(ctx context.Context, match func(url string, tags []coherence.Tag) bool, limit int) (some []Variant, total int, err error) {
	for key, page := range c.store.All() {
		if err := ctx.Err(); err != nil {
			return nil, 0, err
		}
		for _, e := range page.entries {
			if !match(key.URL(), e.tags) {
				continue
			}
			if total++; len(some) < limit {
				some = append(some, c.variant(key, e, Memory))
			}
		}
	}
	return some, total, nil
}

func (c *Cache) variants(key Key, page *Page, layer Layer) []Variant {
	if page == nil {
		return nil
	}
	var all []Variant
	for _, e := range page.entries {
		all = append(all, c.variant(key, e, layer))
	}
	return all
}

func (c *Cache) variant(key Key, e *Entry, layer Layer) Variant {
	now := time.Now()
	age := e.age(now)
	v := Variant{
		URL: key.URL(), Layer: layer.String(), Varied: map[string]string{}, Status: e.status, Bytes: len(e.body), State: "fresh",
		Age: age.Seconds(), TTL: e.ends().Sub(now).Seconds(),
		AsOf: e.asOf.String(), Tags: []string{}, Whole: e.whole, Moved: []Moved{},
	}
	if s := c.stand(e, now); !s.fresh {
		v.State = s.reason
	}
	for i, name := range e.terms.Vary {
		v.Varied[name] = e.varied[i]
	}
	for _, tag := range e.tags {
		v.Tags = append(v.Tags, string(tag))
	}
	for _, m := range c.moves(key, e) {
		v.Moved = append(v.Moved, Moved{m.Name, e.asOf.LSN.String(), m.At.String()})
	}
	if e.use != nil {
		v.Requests = e.use.hits.Load()
	}
	return v
}

// moves spells out what Judge compares: what the entry depends on, and the URL
// itself, that may have been purged.
func (c *Cache) moves(key Key, e *Entry) []coherence.Move {
	if e.asOf.Epoch != c.truth.Known().Epoch {
		return nil
	}
	var moves []coherence.Move
	if e.whole {
		moves = c.truth.Why(e.asOf, nil)
		for _, tag := range e.tags {
			if at := c.truth.MovedAt(tag.Hash()); at > e.asOf.LSN {
				moves = append(moves, coherence.Move{Name: string(tag), At: at})
			}
		}
	} else {
		moves = c.truth.Why(e.asOf, e.tags)
	}
	if at := c.truth.MovedAt(key.hash()); at > e.asOf.LSN {
		moves = append(moves, coherence.Move{Name: "purge of the URL", At: at})
	}
	for _, tag := range e.tags[:min(len(e.tags), maxGroups)] {
		if at := c.truth.MovedAt(key.group(string(tag))); at > e.asOf.LSN {
			moves = append(moves, coherence.Move{Name: "group " + string(tag), At: at})
		}
	}
	slices.SortStableFunc(moves, func(a, b coherence.Move) int { return cmp.Compare(b.At, a.At) })
	return moves
}

// Hottest returns the n URLs that were asked for most, of those that are
// remembered: the most used of the last few thousand.
func (c *Cache) Hottest(n int) []Requested {
	var all []Requested
	for key, u := range c.uses.byKey.All() {
		all = append(all, Requested{key.URL(), key.String() == key.URL(), u.route.name, u.hits.Load(), u.misses.Load()})
	}
	slices.SortFunc(all, func(a, b Requested) int {
		return cmp.Or(cmp.Compare(b.Hits+b.Misses, a.Hits+a.Misses), strings.Compare(a.URL, b.URL))
	})
	return all[:min(n, len(all))]
}

// Routes returns what was asked of each route, those with the most misses first.
func (c *Cache) Routes() []RouteStats {
	var all []RouteStats
	for _, r := range c.uses.all() {
		s := RouteStats{Route: r.name, Misses: r.misses.Load(), Reasons: r.reasons.read()}
		for l := range r.hits {
			s.Hits += r.hits[l].Load()
		}
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b RouteStats) int {
		return cmp.Or(cmp.Compare(b.Misses, a.Misses), strings.Compare(a.Route, b.Route))
	})
	return all
}

// Times returns how long hits and misses took, from the request's header to the
// end of the answer. Of the hits of a route one in 64 is timed, in each layer.
func (c *Cache) Times() (hits, misses Histogram) {
	return c.count.hitTimes.read(), c.count.missTimes.read()
}

// TagOf is the tag of a hash, if an answer that depends on it was stored lately.
func (c *Cache) TagOf(h coherence.Hash) (coherence.Tag, bool) { return c.names.Of(h) }

// ServesChanged reports whether what has changed may still be served, for a while
// or while the upstream fails: then it is of use although nothing is fresh.
func (c *Cache) ServesChanged() bool { return c.tolerance.window() > 0 }

// Free removes from memory what can be of no use since everything was made stale
// at once, in this epoch or by another, and returns how many pages and bytes that
// were. What may still be served although it changed stays until its time is over.
func (c *Cache) Free() (pages int, bytes uint64) {
	emptied := c.emptied()
	if emptied.Epoch == "" || c.ServesChanged() {
		return 0, 0
	}
	for key, page := range c.store.All() {
		if page.isBefore(emptied) && c.remove(key, page) {
			pages++
			bytes += uint64(key.Size() + page.Size())
		}
	}
	return pages, bytes
}

// remove removes a page from memory, unless another has taken its place.
func (c *Cache) remove(key Key, page *Page) bool {
	mu := c.lock(key)
	mu.Lock()
	defer mu.Unlock()
	if c.store.Get(key) != page {
		return false
	}
	c.store.Delete(key)
	return true
}

// emptied is where everything was last made stale at once: in this epoch, or at
// its beginning.
func (c *Cache) emptied() coherence.Position {
	if at := c.truth.EmptiedAt(); at != (coherence.Position{}) {
		return at
	}
	return coherence.Position{Epoch: c.truth.Known().Epoch}
}

// isBefore reports whether everything in a page is as of before a position, or
// of another epoch.
func (p *Page) isBefore(at coherence.Position) bool {
	return !slices.ContainsFunc(p.entries, func(e *Entry) bool {
		return e.asOf.Epoch == at.Epoch && e.asOf.LSN >= at.LSN
	})
}

// Keep frees memory whenever everything was made stale at once, until ctx ends.
func (c *Cache) Keep(ctx context.Context) error {
	const every = time.Second
	freed := c.emptied()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if at := c.emptied(); at != freed {
			c.Free()
			freed = at
		}
	}
}

// KeyOf is the key of the page that a client gets who asks for a URL. c may be
// nil, of a process that has no cache.
func (c *Cache) KeyOf(text string) (Key, error) {
	key, err := ParseKey(text)
	if c != nil {
		key.Target = c.ignoreQuery.reduce(key.Target)
	}
	return key, err
}

// ParseKey reads a URL as a client asks for it, path and query byte for byte.
func ParseKey(text string) (Key, error) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || strings.Contains(text, "#") || u.User != nil {
		return Key{}, errors.New("the url is not what a client asks for, such as https://host/path?query")
	}
	_, rest, _ := strings.Cut(text, "://")
	host, target := rest, "/"
	if end := strings.IndexAny(rest, "/?"); end >= 0 {
		host, target = rest[:end], rest[end:]
	}
	if target[0] == '?' {
		target = "/" + target
	}
	return Key{u.Scheme, host, target}, nil
}

// NewSample makes a page of one answer, for whoever wants to know whether a
// store keeps it as long as it should.
func NewSample(body []byte, lifetime time.Duration) *Page {
	now := time.Now()
	e := newEntry(200, nil, body, rules.Terms{Shared: true, Lifetime: lifetime}, nil, now)
	return newPage([]*Entry{e}, tolerance{})
}

// Sample is the body of the first answer of a page, nil if there is none.
func (p *Page) Sample() []byte {
	if p == nil {
		return nil
	}
	return p.entries[0].body
}
