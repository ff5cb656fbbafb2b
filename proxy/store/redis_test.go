package store_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"walcache/proxy/cache"
	"walcache/proxy/coherence"
	"walcache/proxy/origin"
	"walcache/proxy/redisurl"
	"walcache/proxy/sandbox"
	"walcache/proxy/sandbox/sandboxtest"
	"walcache/proxy/store"
)

func TestMain(m *testing.M) { sandboxtest.Main(m) }

const (
	epoch    = "e1"
	patience = 30 * time.Second
	// unhurried is a budget that a machine under load keeps, for tests of what
	// Redis holds and not of how long it takes.
	unhurried = 20 * time.Second
)

// process is one proxy: a cache with memory and tracker of its own.
type process struct {
	t       *testing.T
	tracker *coherence.Tracker
	redis   *store.Redis
	cache   *cache.Cache
}

// upstream is a service that counts what it is asked.
type upstream struct {
	*httptest.Server
	fetches atomic.Int64
}

func newUpstream(t *testing.T, h http.HandlerFunc) *upstream {
	u := &upstream{}
	u.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u.fetches.Add(1)
		h(w, r)
	}))
	t.Cleanup(u.Close)
	return u
}

// numbered answers with how many answers it has given.
func numbered() http.HandlerFunc {
	var n atomic.Int64
	return func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, n.Add(1)) }
}

func openRedis(t *testing.T, url, prefix string, budget time.Duration) *store.Redis {
	t.Helper()
	r, err := store.NewRedis(store.RedisConfig{URL: url, Prefix: prefix, MaxObject: cache.Defaults().MaxObject, Budget: budget})
	must(t, err)
	t.Cleanup(func() { must(t, r.Close()) })
	return r
}

func newProcess(t *testing.T, u *upstream, r *store.Redis, changes ...func(*cache.Config)) *process {
	t.Helper()
	p := &process{t: t, redis: r, tracker: coherence.NewTracker(1<<12, 1000*time.Hour)}
	p.tracker.SetCatalog(&coherence.Catalog{Tables: map[string]coherence.Table{"users": {}, "orders": {}}})
	p.tracker.Begin(epoch, 100)
	p.changed(100)
	p.tracker.Beat(epoch, time.Now())
	o, err := origin.New(origin.Config{Upstream: u.URL, Timeout: time.Minute})
	must(t, err)
	t.Cleanup(o.Close)
	memory, err := store.NewMemory(64 << 20)
	must(t, err)
	t.Cleanup(memory.Close)
	config := cache.Defaults()
	config.Origin, config.Store, config.Below, config.Truth = o, memory, r, p.tracker
	for _, change := range changes {
		change(&config)
	}
	p.cache, err = cache.New(config)
	must(t, err)
	return p
}

// changed tells the process of a commit to rows with these tags.
func (p *process) changed(at coherence.LSN, tags ...coherence.Tag) {
	p.t.Helper()
	changes := []coherence.Change{{Hash: coherence.Any.Hash(), At: at}}
	for _, tag := range tags {
		changes = append(changes, coherence.Change{Hash: tag.Hash(), At: at})
	}
	must(p.t, p.tracker.Apply(coherence.Record{Epoch: epoch, To: at, Visible: at, Changes: changes}))
}

type reply struct {
	*http.Response
	body string
}

func (p *process) get(target string, lines ...string) reply {
	p.t.Helper()
	r := httptest.NewRequest(http.MethodGet, target, nil)
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Add(name, value)
	}
	w := httptest.NewRecorder()
	p.cache.ServeHTTP(w, r)
	res := w.Result()
	body, err := io.ReadAll(res.Body)
	must(p.t, err)
	return reply{res, string(body)}
}

// want asks, and checks body and Cache-Status.
func (p *process) want(target, body, says string) {
	p.t.Helper()
	if r := p.get(target); r.body != body || !strings.Contains(r.says(), says) {
		p.t.Errorf("%s: got %q (%s), want %q (%s)", target, r.body, r.says(), body, says)
	}
}

func (r reply) says() string { return r.Header.Get("Cache-Status") }

// written waits until n pages are in Redis.
func written(t *testing.T, r *store.Redis, n uint64) {
	t.Helper()
	sandboxtest.Eventually(t, patience, func() error {
		if s := r.Stats(); s.Writes < n {
			return fmt.Errorf("%d of %d pages written: %+v", s.Writes, n, s)
		}
		return nil
	})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestRedis_WhatOneStoredTheOtherServes(t *testing.T) {
	url, prefix := sandboxtest.Redis(t)
	u := newUpstream(t, numbered())
	a := newProcess(t, u, openRedis(t, url, prefix, unhurried))
	b := newProcess(t, u, openRedis(t, url, prefix, unhurried))
	a.want("/x", "1", "fwd=uri-miss")
	written(t, a.redis, 1)
	b.want("/x", "1", "detail=redis")
	b.want("/x", "1", "detail=memory")
	if s := b.cache.Stats(); s.Hits["redis"] != 1 || s.Hits["memory"] != 1 {
		t.Errorf("hits %v", s.Hits)
	}
	if s := b.redis.Stats(); s.Gets != 1 || s.Hits != 1 {
		t.Errorf("%+v", s)
	}
}

// Without coherence nobody else could tell that a page has been invalidated. It is
// removed, also where one is still in line that was stored before.
func TestRedis_WhatIsInvalidatedWithoutCoherenceIsRemoved(t *testing.T) {
	url, prefix := sandboxtest.Redis(t)
	u := newUpstream(t, numbered())
	ordinary := func(c *cache.Config) { c.Truth = cache.NewUnwatched() }
	a := newProcess(t, u, openRedis(t, url, prefix, unhurried), ordinary)
	db := client(t, url)
	for n := range 20 {
		a.cache.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/x", nil))
		if n%2 == 0 {
			sandboxtest.Eventually(t, patience, func() error { return db.Get(t.Context(), key(prefix, "/x")).Err() })
		}
		a.cache.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/x", nil))
		sandboxtest.Eventually(t, patience, func() error {
			if n := db.Exists(t.Context(), key(prefix, "/x")).Val(); n > 0 || a.redis.Stats().Queue > 0 {
				return errors.New("it is still there")
			}
			return nil
		})
	}
}

func client(t *testing.T, url string) redis.UniversalClient {
	t.Helper()
	c, err := redisurl.Open(url, nil)
	must(t, err)
	t.Cleanup(func() { must(t, c.Close()) })
	return c
}

// key is that of a page of example.com, the host of httptest.NewRequest.
func key(prefix, target string) string { return prefix + "page:http://example.com" + target }

func TestRedis_KeysAreReadableAndExpire(t *testing.T) {
	url, prefix := sandboxtest.Redis(t)
	u := newUpstream(t, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Cache-Control", "max-age=100") })
	a := newProcess(t, u, openRedis(t, url, prefix, unhurried))
	a.get("/x?a=b%20c")
	written(t, a.redis, 1)
	left, err := client(t, url).PTTL(t.Context(), key(prefix, "/x?a=b%20c")).Result()
	if err != nil || left > 100*time.Second || left < 100*time.Second-patience {
		t.Errorf("expires in %v, %v", left, err)
	}
}

func TestRedis_ARestartedProcessIsWarm(t *testing.T) {
	url, prefix := sandboxtest.Redis(t)
	u := newUpstream(t, numbered())
	r, err := store.NewRedis(store.RedisConfig{URL: url, Prefix: prefix, MaxObject: 1 << 20, Budget: unhurried})
	must(t, err)
	before := newProcess(t, u, r)
	for i := range 50 {
		before.get(fmt.Sprint("/", i))
	}
	must(t, r.Close()) // writes what is in line
	after := newProcess(t, u, openRedis(t, url, prefix, unhurried))
	for i := range 50 {
		after.want(fmt.Sprint("/", i), fmt.Sprint(i+1), "detail=redis")
	}
	if n := u.fetches.Load(); n != 50 {
		t.Errorf("%d fetches", n)
	}
}

// Whatever else is under a page's key is a miss, and is replaced.
func TestRedis_WhatIsNoPageIsAMissAndReplaced(t *testing.T) {
	url, prefix := sandboxtest.Redis(t)
	c := client(t, url)
	x := key(prefix, "/x")
	for name, spoil := range map[string]func(page string) error{
		"garbage":          func(string) error { return c.Set(t.Context(), x, "garbage", time.Hour).Err() },
		"a truncated page": func(page string) error { return c.Set(t.Context(), x, page[:len(page)-1], time.Hour).Err() },
		"a flipped bit": func(page string) error {
			return c.Set(t.Context(), x, page[:20]+string(page[20]^1)+page[21:], 10*time.Minute).Err()
		},
		"the page of another key": func(page string) error { return c.Copy(t.Context(), key(prefix, "/y"), x, 0, true).Err() },
		"a page for ever":         func(string) error { return c.Persist(t.Context(), x).Err() },
		"a page for too long":     func(string) error { return c.Expire(t.Context(), x, time.Hour).Err() },
		"more than a page": func(page string) error {
			return c.Set(t.Context(), x, page+strings.Repeat("x", 20<<20), time.Minute).Err()
		},
		"a list": func(string) error { c.Del(t.Context(), x); return c.RPush(t.Context(), x, "a").Err() },
		"a stream": func(string) error {
			c.Del(t.Context(), x)
			return c.XAdd(t.Context(), &redis.XAddArgs{Stream: x, Values: []string{"a", "b"}}).Err()
		},
	} {
		t.Run(name, func(t *testing.T) {
			u := newUpstream(t, numbered())
			a := newProcess(t, u, openRedis(t, url, prefix, unhurried))
			must(t, c.Del(t.Context(), x, key(prefix, "/y")).Err())
			a.get("/x")
			a.get("/y")
			written(t, a.redis, 2)
			page, err := c.Get(t.Context(), x).Result()
			must(t, err)
			must(t, spoil(page))
			b := newProcess(t, u, openRedis(t, url, prefix, unhurried))
			b.want("/x", "3", "fwd=uri-miss; fwd-status=200; stored")
			if s := b.redis.Stats(); s.Corrupt == 0 || s.Failures != 0 || s.Hits != 0 {
				t.Errorf("%+v", s)
			}
			written(t, b.redis, 1)
			newProcess(t, u, openRedis(t, url, prefix, unhurried)).want("/x", "3", "detail=redis")
		})
	}
}

// every is each way in which Redis can be run, with its servers that hold data.
var every = map[string]func(t *testing.T) (url string, servers []*sandbox.Redis){
	"single": func(t *testing.T) (string, []*sandbox.Redis) {
		r := sandboxtest.OwnRedis(t)
		return r.URL(), []*sandbox.Redis{r}
	},
	"cluster": func(t *testing.T) (string, []*sandbox.Redis) {
		c := sandboxtest.OwnRedisCluster(t)
		return c.URL(), c.Nodes
	},
	"sentinel": func(t *testing.T) (string, []*sandbox.Redis) {
		s := sandboxtest.OwnRedisSentinel(t)
		return s.URL(), s.Servers
	},
}

func everyWay(t *testing.T, test func(t *testing.T, url string, servers []*sandbox.Redis)) {
	for name, start := range every {
		t.Run(name, func(t *testing.T) {
			url, servers := start(t)
			test(t, url, servers)
		})
	}
}

// all does something to all servers.
func all(t *testing.T, servers []*sandbox.Redis, do func(*sandbox.Redis) error) {
	t.Helper()
	for _, s := range servers {
		must(t, do(s))
	}
}

func TestRedis_PagesAreSharedHoweverItIsRun(t *testing.T) {
	everyWay(t, func(t *testing.T, url string, _ []*sandbox.Redis) {
		const pages = 60 // some for each node of a cluster
		u := newUpstream(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.URL.Path) })
		a := newProcess(t, u, openRedis(t, url, "wc:", unhurried))
		b := newProcess(t, u, openRedis(t, url, "wc:", unhurried))
		for i := range pages {
			a.get(fmt.Sprint("/", i))
		}
		written(t, a.redis, pages)
		for i := range pages {
			target := fmt.Sprint("/", i)
			b.want(target, target, "detail=redis")
			b.want(target, target, "detail=memory")
		}
		if s := b.redis.Stats(); s.Hits != pages || s.Failures != 0 || s.Opened != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// bounded is far more than the budget of a Get, and far less than a server
// stands still.
const bounded = 5 * time.Second

// hurried asks while Redis is away, and checks that nobody waits for it.
func (p *process) hurried(target, body, says string) {
	p.t.Helper()
	began := time.Now()
	p.want(target, body, says)
	if took := time.Since(began); took > bounded {
		p.t.Errorf("%s took %v", target, took)
	}
}

// untilOpen asks for pages until the breaker is open, with an upstream of paths.
func (p *process) untilOpen() {
	p.t.Helper()
	p.untilOpenBy(func(i int) {
		target := fmt.Sprint("/absent", i)
		p.hurried(target, target, "fwd=uri-miss; fwd-status=200; stored")
	})
}

func (p *process) untilOpenBy(ask func(i int)) {
	p.t.Helper()
	n := 0
	sandboxtest.Eventually(p.t, patience, func() error {
		n++
		ask(n)
		if s := p.redis.Stats(); !s.BreakerOpen {
			return fmt.Errorf("closed after %d requests: %+v", n, s)
		}
		return nil
	})
}

// untilClosed waits until Redis is asked again, without asking.
func (p *process) untilClosed() {
	p.t.Helper()
	sandboxtest.Eventually(p.t, 2*patience, func() error {
		if s := p.redis.Stats(); s.BreakerOpen {
			return fmt.Errorf("open: %+v", s)
		}
		return nil
	})
}

// stored waits until a new process finds a page that this one has stored.
func (p *process) stored(u *upstream, url, target string) {
	p.t.Helper()
	sandboxtest.Eventually(p.t, 2*patience, func() error {
		p.get(target)
		other := newProcess(p.t, u, openRedis(p.t, url, "wc:", unhurried))
		if r := other.get(target); !strings.Contains(r.says(), "detail=redis") {
			return fmt.Errorf("%s: %s, %+v", target, r.says(), p.redis.Stats())
		}
		return nil
	})
}

func paths(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.URL.Path) }

func TestRedis_FrozenNobodyWaitsForIt(t *testing.T) {
	everyWay(t, func(t *testing.T, url string, servers []*sandbox.Redis) {
		u := newUpstream(t, paths)
		a := newProcess(t, u, openRedis(t, url, "wc:", 0))
		a.stored(u, url, "/x")
		all(t, servers, (*sandbox.Redis).Pause)
		a.untilOpen()
		a.hurried("/x", "/x", "detail=memory")
		before := a.redis.Stats()
		for i := range 200 {
			target := fmt.Sprint("/skipped", i)
			a.hurried(target, target, "fwd=uri-miss")
		}
		if s := a.redis.Stats(); s.Skipped < before.Skipped+200 || s.Failures > before.Failures+2 { // a write may fail yet
			t.Errorf("before %+v, after %+v", before, s)
		}
		if s := a.redis.Stats(); s.OverBudget == 0 || s.Opened != 1 {
			t.Errorf("%+v", s)
		}
		all(t, servers, (*sandbox.Redis).Resume)
		a.untilClosed()
		a.stored(u, url, "/y")
	})
}

func TestRedis_KilledAndBack(t *testing.T) {
	r := sandboxtest.OwnRedis(t)
	u := newUpstream(t, paths)
	a := newProcess(t, u, openRedis(t, r.URL(), "wc:", 0))
	a.stored(u, r.URL(), "/x")
	must(t, r.Kill())
	a.untilOpen()
	a.hurried("/x", "/x", "detail=memory")
	must(t, r.Start(t.Context()))
	a.untilClosed()
	a.stored(u, r.URL(), "/y")
}

func TestRedis_MayBeAwayAtTheStart(t *testing.T) {
	r := sandboxtest.OwnRedis(t)
	must(t, r.Stop(t.Context()))
	u := newUpstream(t, paths)
	a := newProcess(t, u, openRedis(t, r.URL(), "wc:", 0))
	a.hurried("/x", "/x", "fwd=uri-miss; fwd-status=200; stored")
	a.hurried("/x", "/x", "detail=memory")
	must(t, r.Start(t.Context()))
	a.stored(u, r.URL(), "/y")
}

func TestRedis_ItsPrimaryIsReplaced(t *testing.T) {
	s := sandboxtest.OwnRedisSentinel(t)
	u := newUpstream(t, paths)
	a := newProcess(t, u, openRedis(t, s.URL(), "wc:", 0))
	a.stored(u, s.URL(), "/x")
	must(t, s.Servers[0].Kill())
	a.untilOpen()
	a.untilClosed()
	a.stored(u, s.URL(), "/y")
}

// Two nodes of three go on serving while one stands still.
func TestRedis_ANodeOfAClusterIsFrozen(t *testing.T) {
	cluster := sandboxtest.OwnRedisCluster(t)
	u := newUpstream(t, paths)
	a := newProcess(t, u, openRedis(t, cluster.URL(), "wc:", 0))
	a.stored(u, cluster.URL(), "/x")
	must(t, cluster.Nodes[1].Pause())
	for i := range 30 {
		target := fmt.Sprint("/", i)
		a.hurried(target, target, "fwd=uri-miss; fwd-status=200; stored")
	}
	must(t, cluster.Nodes[1].Resume())
	a.untilClosed()
	for i := range 6 { // some for each node
		a.stored(u, cluster.URL(), fmt.Sprint("/after", i))
	}
}
