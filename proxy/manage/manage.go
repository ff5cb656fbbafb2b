// Package manage is what operators ask of the whole cache and have it do: how it
// stands, clear it, try it, load it, warm it, see whether changes arrive. The
// same operations answer at two places: below a prefix on the proxy's own port,
// where people with a browser look for them, and on the admin port, where
// `proxy cache …` asks.
//
//	/properties/cache-status/      /cache/status        status.go   what is kept, how it stands and why
//	/properties/cache-clear/       /cache/clear         clear.go    everything anew, on every process
//	/properties/cache-test/        /cache/test          try.go      write, read, expire, read again, through both layers
//	/properties/test-signals/      /cache/test-signals  signals.go  change the data, watch the answers follow
//	/properties/cache-load-test/   /cache/load-test     load.go     many requests, on this proxy alone
//	/properties/redis-metrics/     /cache/metrics       metrics.go  figures, a rating and what to do; a page with plots
//	                               /cache/warm          warm.go     fetch what people ask for
//
// It reads from all other parts, and none knows of it. Package guard decides who
// gets in. What it asks of the proxy it asks as a client would (ask.go), so that
// what it reports is what clients get.
package manage

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"walcache/proxy/cache"
	"walcache/proxy/changelog"
	"walcache/proxy/coherence"
	"walcache/proxy/guard"
	"walcache/proxy/redisurl"
	"walcache/proxy/replication"
	"walcache/proxy/store"
)

// Config says where the operations answer, and what they may use.
type Config struct {
	// Prefix is the path on the proxy's port that the operations are below, such
	// as /properties/; "" leaves them to the admin port.
	Prefix string
	// Guard decides who gets in at that prefix.
	Guard guard.Guard
	// Addr is where clients reach this proxy on this machine, such as
	// 127.0.0.1:8001: the load test goes there.
	Addr string
	// TLS says that clients use https.
	TLS bool
	// Upstream is the service's URL, and APIToken what it lets programs write
	// with; "" if it is not known, and then nothing is written.
	Upstream, APIToken string
	// RedisURL and RedisPrefix name what the processes share; "" if nothing.
	RedisURL, RedisPrefix string
	Log                   *slog.Logger
}

// Sources are the parts that are asked. What a process does not have is nil.
type Sources struct {
	Tracker   *coherence.Tracker
	Records   *changelog.Log
	Listener  *replication.Listener
	Announcer Announcer
	Cache     *cache.Cache
	Memory    *store.Memory
	Pages     *store.Redis
}

// Announcer puts lines into the database's change stream, and returns a position
// after them.
type Announcer interface {
	Announce(ctx context.Context, lines ...string) (coherence.LSN, error)
}

// Manager does what operators ask. Its methods may be called concurrently.
type Manager struct {
	Config
	Sources
	redis redis.UniversalClient // nil without one

	monitor *monitor
	survey  survey  // of Redis, for those who ask how it stands
	freeing freeing // of the memory that clears give back

	loading, signalling, trying sync.Mutex // held by the one of each that runs
}

// New makes a manager. It connects to nothing yet; the error is about the URL of
// Redis.
func New(c Config, s Sources) (*Manager, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.Log = c.Log.With("component", "manage")
	m := &Manager{Config: c, Sources: s, survey: survey{shared: time.Second}}
	if c.RedisURL != "" {
		client, err := redisurl.Open(c.RedisURL, nil)
		if err != nil {
			return nil, fmt.Errorf("redis: %w", err)
		}
		m.redis = client
	}
	m.monitor = newMonitor(m.Config, m.Sources, m.redis)
	return m, nil
}

// Run does what goes on without being asked, until ctx ends. It returns once what
// was asked for and outlives its request has ended too.
func (m *Manager) Run(ctx context.Context) error {
	var sweeping sync.WaitGroup
	sweeping.Go(func() { m.sweep(ctx) })
	m.monitor.run(ctx)
	sweeping.Wait()
	m.settle()
	var err error
	if m.redis != nil {
		err = m.redis.Close()
	}
	m.freeing.ended.Wait()
	return err
}

// operation is something that operators ask for.
type operation struct {
	name   string // of the path below the prefix; "" if there is none
	admin  string // of the path on the admin port
	method string
	// reads is that it is let in as what only reads. What costs more than a look is
	// let in as what changes things.
	reads bool
	usage string // what a request of another method is told
	serve func(*Manager, http.ResponseWriter, *http.Request)
}

var operations = []operation{
	{"cache-status", "/cache/status", http.MethodGet, true, "to see what is kept and how it stands", (*Manager).status},
	{"cache-clear", "/cache/clear", http.MethodPost, false, "to clear the property cache", (*Manager).clear},
	{"cache-test", "/cache/test", http.MethodGet, false, "to see whether both layers keep and expire", (*Manager).try},
	{"test-signals", "/cache/test-signals", http.MethodPost, false, "to change the data and watch the answers follow", (*Manager).signals},
	{"cache-load-test", "/cache/load-test", http.MethodPost, false, "to generate cache load for testing metrics", (*Manager).load},
	{"redis-metrics", "/cache/metrics", http.MethodGet, true, "to see figures, a rating and what to do", (*Manager).metrics},
	{"redis-metrics/events", "/cache/metrics/events", http.MethodGet, true, "to have them as they change", (*Manager).metricsEvents},
	{"", "/cache/warm", http.MethodPost, false, "to fetch what people ask for", (*Manager).warm},
}

// Register answers on the admin port's mux.
func (m *Manager) Register(mux *http.ServeMux, g guard.Guard) {
	for _, op := range operations {
		mux.Handle(op.admin, m.handler(op, g))
	}
}

// Before answers the paths below the prefix, and leaves all others to next, which
// never sees the operator's token. It costs a request to next a comparison and a
// look at its header, and one below the prefix a look into a map.
func (m *Manager) Before(next http.Handler) http.Handler {
	if m.Prefix == "" {
		return next
	}
	handlers := map[string]http.Handler{}
	for _, op := range operations {
		if op.name == "" {
			continue
		}
		handlers[op.name+"/"] = m.Guard.Protect(m.handler(op, m.Guard))
		handlers[op.name] = withSlash
	}
	static, assets := m.MetricsAssets()
	assets = m.Guard.Protect(assets)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if rest, ok := strings.CutPrefix(r.URL.Path, m.Prefix); ok {
			if h, ok := handlers[rest]; ok {
				h.ServeHTTP(w, r)
				return
			}
			if strings.HasPrefix(r.URL.Path, static) {
				assets.ServeHTTP(w, r)
				return
			}
		}
		m.Guard.Keep(r)
		next.ServeHTTP(w, r)
	})
}

// Concerns reports whether Before does anything but hand a request to next. It may
// say so of one that is none of Before's.
func (m *Manager) Concerns(r *http.Request) bool {
	if m.Prefix == "" {
		return false
	}
	if len(r.Header["Authorization"]) > 0 {
		return true // it may have the token
	}
	rest, ok := strings.CutPrefix(r.URL.Path, m.Prefix)
	if !ok {
		return false
	}
	for i := range operations {
		if name := operations[i].name; name != "" && strings.HasPrefix(rest, name) {
			return true // such as an asset
		}
	}
	return false
}

// withSlash sends who forgot the slash at the end to where it is. A POST stays
// one (RFC 9110, section 15.4.9).
var withSlash = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	target := r.URL.EscapedPath() + "/"
	if r.URL.RawQuery != "" {
		target += "?" + r.URL.RawQuery
	}
	status := http.StatusMovedPermanently
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		status = http.StatusPermanentRedirect
	}
	w.Header().Set("Cache-Control", "no-store")
	http.Redirect(w, r, target, status)
})

// handler lets in who may, with the method that the operation takes.
func (m *Manager) handler(op operation, g guard.Guard) http.Handler {
	serve := http.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { op.serve(m, w, r) }))
	if op.reads {
		serve = g.Reads(serve)
	} else {
		serve = g.Changes(serve)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == op.method || r.Method == http.MethodHead && op.method == http.MethodGet {
			serve.ServeHTTP(w, r)
			return
		}
		otherMethod(w, op.method, op.usage)
	})
}

// otherMethod tells a request which method it should have had, and what for.
func otherMethod(w http.ResponseWriter, method, usage string) {
	allow := method
	if method == http.MethodGet {
		allow = "GET, HEAD"
	}
	w.Header().Set("Allow", allow)
	guard.WriteJSON(w, http.StatusMethodNotAllowed, map[string]string{
		"error": "Only " + method + " requests are allowed",
		"usage": "Send a " + method + " request to this endpoint " + usage,
	})
}

// stamp is the time as answers give it.
const stamp = "2006-01-02 15:04:05"
