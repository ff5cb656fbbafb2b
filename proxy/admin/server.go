// Package admin is the operator's port: is the proxy alive and ready, what does
// it know of the database, what does it hold, and what do its counters say. It
// reads from all other parts, and none knows of it. What it changes it changes by a
// message in the change stream.
//
//	/healthz   200 while the process answers
//	/readyz    200 while it takes requests; says whether it vouches for freshness
//	/status    all of it as JSON, for people and scripts
//	/metrics   the same as counters and gauges, for Prometheus
//	/cache/…   off, on and purge, on every process; these need the token
//
// The port is on loopback unless told otherwise; package guard decides who gets in.
package admin

import (
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"walcache/proxy/cache"
	"walcache/proxy/changelog"
	"walcache/proxy/coherence"
	"walcache/proxy/guard"
	"walcache/proxy/replication"
	"walcache/proxy/store"
)

// Config says who may use the admin port.
type Config struct {
	Addr  net.Addr // that it listens on
	Token string   // "" refuses every call that needs one
	Hosts []string // names it is reached under, besides this machine's addresses
	// Trusting lets who sits at this machine change things without a token: in a
	// demo, or to debug.
	Trusting bool
}

// Sources are the parts that the admin port reads from. What a process does not
// have is nil: an ordinary cache has none of the first four, one that only
// listens neither cache nor pages, one that only follows no listener.
type Sources struct {
	Tracker   *coherence.Tracker
	Log       *changelog.Log
	Listener  *replication.Listener
	Announcer Announcer
	Cache     *cache.Cache
	Memory    *store.Memory
	Pages     *store.Redis
}

// Server answers on the admin port.
type Server struct {
	http.Handler
	sources  Sources
	began    time.Time
	proven   atomic.Bool // freshness was, once
	draining atomic.Bool
}

// New makes a server.
func New(config Config, sources Sources) *Server {
	s := &Server{sources: sources, began: time.Now()}
	g := guard.Guard{Token: config.Token, Hosts: config.Hosts, Open: guard.Loopback(config.Addr), Trusting: config.Trusting}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", s.healthz)
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.Handle("GET /metrics", s.metrics())
	mux.Handle("GET /status", g.Reads(http.HandlerFunc(s.status)))
	s.controls(mux, g)
	s.Handler = g.Protect(mux)
	return s
}

// Drain makes /readyz say no from now on: the proxy is about to stop.
func (s *Server) Drain() { s.draining.Store(true) }

func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) {
	guard.WriteJSON(w, http.StatusOK, map[string]string{"status": "alive"})
}

// readyAnyway is how long after its start a proxy that cannot vouch for
// freshness takes requests all the same: they pass through to the service.
const readyAnyway = 10 * time.Second

// readyz is not ready before freshness was first proven, or some time has
// passed, and while draining. It does not follow PostgreSQL's hiccups, nor a new
// epoch that is still without proof: they would take every proxy out of
// rotation at once.
func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	vouches := s.vouches()
	answer := map[string]any{"status": "ready", "vouches": vouches}
	code := http.StatusOK
	switch {
	case s.draining.Load():
		answer["status"], code = "draining", http.StatusServiceUnavailable
	case s.starting():
		answer["status"], code = "starting", http.StatusServiceUnavailable
	}
	guard.WriteJSON(w, code, answer)
}

func (s *Server) starting() bool {
	if s.sources.Tracker == nil || s.sources.Tracker.Progress(time.Now()).FreshAge >= 0 {
		s.proven.Store(true)
	}
	return !s.proven.Load() && time.Since(s.began) < readyAnyway
}

// vouches reports whether a hit now would be proven fresh.
func (s *Server) vouches() bool {
	return s.sources.Tracker != nil && s.sources.Tracker.Vouches(time.Now())
}
