package manage

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"walcache/proxy/guard"
	"walcache/proxy/redisurl"
	"walcache/proxy/web"
)

// monitor reports figures: of Redis as it counts them itself, and of this process.
//
//	metrics_redis.go    what Redis says of itself, over all servers of a cluster
//	metrics_proxy.go    what this process knows of itself
//	metrics_rating.go   a rating and recommendations by hits and misses alone
//	metrics_advice.go   what stands out, why it matters, and what to do
//	metrics_history.go  the last five minutes, a sample a second
//	metrics_page.go     all of it as a page
//	metrics_events.go   what changes on that page, as it changes
type monitor struct {
	Config
	Sources
	redis   redis.UniversalClient // nil without one
	began   time.Time
	history *History

	watching Streams       // of events
	stopped  chan struct{} // closed once streams have to end
	stop     func()        // closes it, once

	mu   sync.Mutex // guards the following, and is held by who renders
	last rendered   // parts of the page, as of a sample
}

func newMonitor(c Config, s Sources, client redis.UniversalClient) *monitor {
	stopped := make(chan struct{})
	return &monitor{
		Config: c, Sources: s, redis: client, began: time.Now(), history: newHistory(s),
		stopped: stopped, stop: sync.OnceFunc(func() { close(stopped) }),
	}
}

// run keeps the history until ctx ends, which ends all streams of events too.
func (m *monitor) run(ctx context.Context) {
	defer m.stop()
	m.history.run(ctx)
}

// report is what redis-metrics answers.
type report struct {
	Success         bool          `json:"success"`
	Error           string        `json:"error,omitempty"`
	Metrics         *figures      `json:"metrics"` // null while Redis is away
	Recommendations []string      `json:"recommendations,omitempty"`
	Timestamp       int64         `json:"timestamp"` // seconds since 1970
	Proxy           proxyFigures  `json:"proxy"`
	Redis           *redisFigures `json:"redis"` // null without Redis, and while it is away
	Advice          []advice      `json:"advice"`
	Source          source        `json:"source"`
}

// figures are those that are the same for any cache on Redis.
type figures struct {
	Performance performance         `json:"cache_performance"`
	Memory      memoryUsage         `json:"memory_usage"`
	Connections connections         `json:"connection_stats"`
	Server      serverInfo          `json:"server_info"`
	Keyspace    map[string]keyspace `json:"keyspace_info"`
	Analysis    analysis            `json:"analysis"`
}

// source says who counted what is in figures.
type source struct {
	Redis string   `json:"redis"`      // its kind; none where there is none
	Ours  []string `json:"this_proxy"` // the figures that this process counted, in place of Redis
	Note  string   `json:"note,omitempty"`
}

// read looks at everything once.
func (m *monitor) read(ctx context.Context) report {
	at := time.Now()
	r := report{Success: true, Timestamp: at.Unix(), Proxy: readProxy(m.Sources, m.history, m.began), Source: source{Redis: "none", Ours: []string{}}}
	if m.redis == nil {
		r.Metrics = m.withoutRedis(&r.Source)
	} else if reading, err := readRedis(ctx, m.redis, m.RedisPrefix); err != nil {
		r.away(redisurl.Address(m.RedisURL), err)
	} else {
		r.Redis = &reading.figures
		r.Source.Redis = reading.figures.Kind
		r.Metrics = m.figures(reading, &r.Source)
	}
	if m := r.Metrics; m != nil {
		m.Performance, m.Analysis = rate(m.Performance.Hits, m.Performance.Misses)
	}
	r.Advice = advise(facts{r.Proxy, r.Redis, m.blind(), at})
	return r
}

// figures are those of a reading. What a server in this process does not count
// comes from our own counters.
func (m *monitor) figures(r redisReading, s *source) *figures {
	f := &figures{performance{Hits: r.hits, Misses: r.misses}, r.memory, r.connections, r.server, r.keyspace, analysis{}}
	if r.complete {
		return f
	}
	s.Ours = []string{"cache_performance", "memory_usage", "server_info"}
	s.Note = "The Redis in this process counts its connections and commands alone. Hits and misses are those of pages that this proxy asked it for, memory is that of the pages in this process."
	f.Performance = performance{}
	if m.Pages != nil {
		stats := m.Pages.Stats()
		f.Performance = performance{Hits: stats.Hits, Misses: stats.Misses}
	}
	f.Memory, f.Server = m.ownMemory(), newServerInfo("in-process", time.Since(m.began))
	return f
}

// withoutRedis are figures of this process's own memory.
func (m *monitor) withoutRedis(s *source) *figures {
	s.Ours = []string{"cache_performance", "memory_usage", "connection_stats", "server_info", "keyspace_info"}
	s.Note = "There is no Redis (--redis-url): hits, misses and memory are those of this process. It counts no connections."
	stats := readCounters(m.Sources).stats
	return &figures{
		performance{Hits: total(stats.Hits), Misses: total(stats.Misses)}, m.ownMemory(), connections{},
		newServerInfo("none", time.Since(m.began)), map[string]keyspace{}, analysis{},
	}
}

func (m *monitor) ownMemory() memoryUsage {
	if m.Memory == nil {
		return memoryUsage{Human: human(0)}
	}
	bytes := m.Memory.Bytes()
	return memoryUsage{bytes, human(bytes)}
}

// away says that Redis did not answer. Neither its name nor an error of go-redis
// has the password in it.
func (r *report) away(address string, err error) {
	r.Success, r.Error = false, "Error retrieving Redis cache metrics from "+address+": "+err.Error()
	r.Recommendations = []string{
		"Check if Redis server is running at " + address,
		"Verify the connection settings in --redis-url (REDIS_URL); proxy doctor tries them",
		"Answers are not in danger meanwhile: the proxy serves from its own memory what it can prove fresh, and fetches the rest",
	}
	r.Source.Redis = "away"
}

// blind are the tables whose updates cannot be seen.
func (m *monitor) blind() []string {
	if m.Listener != nil {
		return m.Listener.Status().Blind
	}
	if m.Tracker != nil && m.Tracker.Catalog() != nil {
		return m.Tracker.Catalog().Blind
	}
	return nil
}

// serve answers with figures: JSON or a page, as ?format= says, or else Accept.
func (m *monitor) serve(w http.ResponseWriter, r *http.Request) {
	at := m.place(r)
	asJSON := at.json
	switch r.URL.Query().Get("format") {
	case "json":
		asJSON = true
	case "html":
		asJSON = false
	case "":
		w.Header().Add("Vary", "Accept")
		asJSON = web.PrefersJSON(r.Header.Values("Accept"), asJSON)
	default:
		guard.WriteJSON(w, http.StatusBadRequest, guard.Problem("format is neither json nor html", "leave it out, or ask for ?format=json"))
		return
	}
	report := m.read(r.Context())
	status := http.StatusOK
	if !report.Success {
		status = http.StatusServiceUnavailable
	}
	if asJSON {
		guard.WriteJSON(w, status, report)
		return
	}
	m.writePage(w, status, at, report)
}

// History is what this process did in the last five minutes.
func (m *Manager) History() *History { return m.monitor.history }

// Drain ends all streams of events. A server that stops waits for its requests,
// and they have no other end.
func (m *Manager) Drain() { m.monitor.stop() }

func (m *Manager) metrics(w http.ResponseWriter, r *http.Request) { m.monitor.serve(w, r) }

func (m *Manager) metricsEvents(w http.ResponseWriter, r *http.Request) {
	m.monitor.serveEvents(w, r)
}
