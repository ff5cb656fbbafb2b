package cache

import (
	"net/url"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/maypok86/otter/v2"
)

// use is what is asked of one URL. It outlives what is stored under it, so that
// what people want can be fetched again after everything was cleared.
type use struct {
	key    Key
	route  *route
	hits   atomic.Uint64
	misses atomic.Uint64
}

// route is what is asked of the URLs of one shape.
type route struct {
	name           string
	hits, hitBytes [layers]atomic.Uint64
	misses         atomic.Uint64
	reasons        tally // of misses
}

const (
	maxUses   = 8 << 20 // bytes of URLs that are remembered
	perUse    = 256     // bytes beside the URL
	maxRoutes = 256
	restRoute = "(other)" // of those that came when there were so many already
)

// uses are the URLs that are asked for most, and all routes.
type uses struct {
	byKey *otter.Cache[Key, *use]

	mu     sync.Mutex // guards the following
	routes map[string]*route
}

func newUses() (*uses, error) {
	byKey, err := otter.New(&otter.Options[Key, *use]{
		MaximumWeight: maxUses,
		Weigher:       func(k Key, _ *use) uint32 { return uint32(k.Size() + perUse) },
	})
	if err != nil {
		return nil, err
	}
	return &uses{byKey: byKey, routes: map[string]*route{}}, nil
}

// of is the use of a URL. Hits have it in their entry; everything else asks here.
func (u *uses) of(key Key) *use {
	if known, ok := u.byKey.GetIfPresent(key); ok {
		return known
	}
	made := &use{key: key, route: u.route(routeOf(key.Target))}
	known, _ := u.byKey.SetIfAbsent(key, made)
	return known
}

// keep remembers that a URL is asked for, which hits do not say by themselves:
// or the one of which all are hits would be the first to be forgotten.
func (u *uses) keep(known *use) {
	if _, ok := u.byKey.GetIfPresent(known.key); !ok {
		u.byKey.SetIfAbsent(known.key, known)
	}
}

func (u *uses) route(name string) *route {
	u.mu.Lock()
	defer u.mu.Unlock()
	if _, ok := u.routes[name]; !ok && len(u.routes) >= maxRoutes {
		name = restRoute
	}
	r, ok := u.routes[name]
	if !ok {
		r = &route{name: name}
		u.routes[name] = r
	}
	return r
}

func (u *uses) all() []*route {
	u.mu.Lock()
	defer u.mu.Unlock()
	routes := make([]*route, 0, len(u.routes))
	for _, r := range u.routes {
		routes = append(routes, r)
	}
	return routes
}

// routeOf is the shape of a request's target: its path, with {} in the place of
// what looks like the name of one thing among many, and without a query.
func routeOf(target string) string {
	path, query, asked := strings.Cut(target, "?")
	segments := strings.Split(path, "/")
	for i, s := range segments {
		if namesOneOfMany(s) {
			segments[i] = "{}"
		}
	}
	name := strings.Join(segments, "/")
	if !asked {
		return name
	}
	return name + "?" + parameters(query)
}

// namesOneOfMany reports whether a segment of a path is a number, a UUID, a hash
// or the like: it has a digit and is nothing but digits, or is long.
func namesOneOfMany(s string) bool {
	digits := 0
	for i := range len(s) {
		if '0' <= s[i] && s[i] <= '9' {
			digits++
		}
	}
	return digits > 0 && (digits == len(s) || len(s) >= 16)
}

// parameters are the names in a query, in their order, as far as they are few.
func parameters(query string) string {
	const most = 8
	var names []string
	for pair := range strings.SplitSeq(query, "&") {
		name, _, _ := strings.Cut(pair, "=")
		if plain, err := url.QueryUnescape(name); err != nil || plain != name || len(name) > 32 || namesOneOfMany(name) || len(names) == most {
			return "…"
		}
		names = append(names, name)
	}
	return strings.Join(names, "&")
}
