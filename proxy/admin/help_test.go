package admin

import (
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"walcache/proxy/cache"
	"walcache/proxy/changelog"
	"walcache/proxy/coherence"
	"walcache/proxy/origin"
	"walcache/proxy/replication"
	"walcache/proxy/sandbox/sandboxtest"
	"walcache/proxy/store"
)

func TestMain(m *testing.M) { sandboxtest.Main(m) }

const epoch = "e1"

// loopback is an admin address that only this machine reaches, and everywhere
// one that all do.
var (
	loopback   = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8003}
	everywhere = &net.TCPAddr{IP: net.IPv4zero, Port: 8003}
)

// proxy is what an admin port reads from: a cache before a service, a tracker
// that is driven by hand, and a listener that does not run.
type proxy struct {
	t       *testing.T
	sources Sources
	at      coherence.LSN
}

func newProxy(t *testing.T) *proxy { return newProxyWithin(t, 2*time.Second) }

// newCalmProxy is one whose evidence is good for as long as a test takes.
func newCalmProxy(t *testing.T) *proxy { return newProxyWithin(t, time.Hour) }

func newProxyWithin(t *testing.T, maxStaleness time.Duration) *proxy {
	t.Helper()
	p := &proxy{t: t, at: 100}
	p.sources.Tracker = coherence.NewTracker(1<<12, maxStaleness)
	log := slog.New(slog.DiscardHandler)
	p.sources.Records = changelog.New(p.sources.Tracker, log)
	p.sources.Listener = replication.New(replication.Config{Log: log}, p.sources.Records)
	p.sources.Tracker.SetCatalog(&coherence.Catalog{Tables: map[string]coherence.Table{"properties": {}, "users": {}}})
	p.cached(p.sources.Tracker)
	return p
}

// ordinary is a proxy without coherence.
func ordinary(t *testing.T) *proxy {
	p := &proxy{t: t}
	p.cached(cache.NewUnwatched())
	return p
}

// cached puts a cache before a service that answers /t with the tag t.
func (p *proxy) cached(truth cache.Truth) {
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Groups", `"`+strings.Trim(r.URL.Path, "/")+`"`)
		_, _ = w.Write([]byte("hello"))
	}))
	p.t.Cleanup(service.Close)
	o, err := origin.New(origin.Config{Upstream: service.URL, Timeout: time.Minute})
	p.must(err)
	p.t.Cleanup(o.Close)
	p.sources.Memory, err = store.NewMemory(1 << 20)
	p.must(err)
	p.t.Cleanup(p.sources.Memory.Close)
	config := cache.Defaults()
	config.Origin, config.Store, config.Truth, config.TrustTags = o, p.sources.Memory, truth, true
	p.sources.Cache, err = cache.New(config)
	p.must(err)
}

func (p *proxy) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// beat begins the epoch if none has, and proves everything known now.
func (p *proxy) beat() {
	if p.sources.Tracker.Progress(time.Now()).Epoch == "" {
		p.sources.Tracker.Begin(epoch, p.at)
	}
	p.must(p.sources.Tracker.Apply(coherence.Record{Epoch: epoch, To: p.at, Visible: p.at}))
	p.sources.Tracker.Beat(epoch, time.Now())
}

// commit changes rows of a table.
func (p *proxy) commit(table string, rows int) {
	p.at += 10
	p.must(p.sources.Tracker.Apply(coherence.Record{Epoch: epoch, To: p.at, Visible: p.at,
		Changes: []coherence.Change{{Hash: coherence.TableTag(table).Hash(), At: p.at}, {Hash: coherence.Any.Hash(), At: p.at}},
		Tables:  []coherence.TableChanges{{Table: table, Rows: rows}}}))
}

// ask sends requests through the cache, and returns the last Cache-Status.
func (p *proxy) ask(paths ...string) (how string) {
	for _, path := range paths {
		w := httptest.NewRecorder()
		p.sources.Cache.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		how = w.Header().Get("Cache-Status")
	}
	return how
}

// send asks an admin port, with header lines of the form "Name: value"; Host is
// one of them.
func send(s http.Handler, method, path string, lines ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, nil)
	r.Host = "127.0.0.1:8003"
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		if name == "Host" {
			r.Host = value
		} else {
			r.Header.Set(name, value)
		}
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

func object(t *testing.T, w *httptest.ResponseRecorder) (m map[string]any) {
	t.Helper()
	if err := json.Unmarshal(w.Body.Bytes(), &m); err != nil {
		t.Fatalf("%v in %s", err, w.Body)
	}
	if how := w.Header(); how.Get("Content-Type") != "application/json" || how.Get("Cache-Control") != "no-store" {
		t.Errorf("header %v", how)
	}
	return m
}
