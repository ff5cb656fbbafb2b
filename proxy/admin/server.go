// Package admin is the operator's port: is the proxy alive and ready, what does
// it know of the database, what does it hold, and what do its counters say. It
// reads from all other parts, and none knows of it. What it changes it changes by a
// message in the change stream.
//
//	/          all of it as a page that stays up to date     page.go, templates/
//	/events, /changes/events   what keeps it so              events.go, changes.go
//	/entries   what is stored under a URL or a tag, and why  entries.go
//	/confirm/… asks once more, before what touches all       forms.go
//	/status    how things stand as JSON, for scripts         status.go
//	/metrics   the same as counters and gauges, for Prometheus
//	/cache/…   off, on and purge, on every process; these need the token (control.go,
//	           and package manage for the others)
//	/healthz   200 while the process answers
//	/readyz    200 while it takes requests; says whether it vouches for freshness
//
// A browser's form asks for the same as a script with JSON, of the same handlers;
// forms.go puts the answer into words.
//
// The port is on loopback unless told otherwise; package guard decides who gets in.
package admin

import (
	"context"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"walcache/proxy/guard"
	"walcache/proxy/manage"
	"walcache/proxy/web"
	"walcache/proxy/wire"
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
// have is nil: an ordinary cache has neither tracker nor records, one that only
// listens neither cache nor pages, one that only follows no listener.
type Sources struct {
	manage.Sources
	Manager *manage.Manager // of the operations below /cache/
	History History         // for the plots
	Refused *wire.Counters  // requests that no handler has seen; nil if nobody counts
}

// History is what the process did lately, a sample a second. After returns the
// samples after the one of an ID, the ID of the last, and what is closed once
// there is another.
type History interface {
	After(id string) (samples []manage.Sample, last string, more <-chan struct{})
}

// Server answers on the admin port.
type Server struct {
	http.Handler
	sources Sources
	began   time.Time
	proven  atomic.Bool // freshness was, once
	serving context.Context
	drain   context.CancelFunc // ends serving

	pages     web.Pages
	parts     recent
	changes   changes
	said      outcomes
	listeners manage.Streams // of events
}

// New makes a server.
func New(config Config, sources Sources) *Server {
	s := &Server{sources: sources, began: time.Now(), pages: parsePages()}
	s.serving, s.drain = context.WithCancel(context.Background())
	s.changes.start(s.began)
	g := guard.Guard{Token: config.Token, Hosts: config.Hosts, Open: guard.Loopback(config.Addr), Trusting: config.Trusting}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", s.healthz)
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.Handle("GET /metrics", s.metrics())
	mux.Handle("GET /status", g.Reads(http.HandlerFunc(s.status)))
	s.show(mux, g)
	s.controls(mux, g)
	if sources.Manager != nil {
		sources.Manager.Register(mux, g)
	}
	s.Handler = g.Protect(s.forms(mux))
	return s
}

// show is what people look at.
func (s *Server) show(mux *http.ServeMux, g guard.Guard) {
	for path, h := range map[string]http.Handler{
		"GET /{$}":            http.HandlerFunc(s.page),
		"GET /entries":        http.HandlerFunc(s.entries),
		"GET /confirm/{what}": http.HandlerFunc(s.confirm),
		"GET /events":         s.streams(s.statusEvents),
		"GET /changes/events": s.streams(s.changeEvents),
		"GET /operator.css":   own("operator.css"),
		"GET /operator.js":    own("operator.js"),
		"GET /static/":        web.Assets(),
	} {
		mux.Handle(path, g.Reads(h))
	}
}

// Drain makes /readyz say no from now on, and ends the streams of events: the
// proxy is about to stop.
func (s *Server) Drain() { s.drain() }

func (s *Server) draining() bool { return s.serving.Err() != nil }

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
	case s.draining():
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
