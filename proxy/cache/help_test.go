package cache_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"walcache/proxy/cache"
	"walcache/proxy/coherence"
	"walcache/proxy/origin"
	"walcache/proxy/store"
)

// The database of these tests is a tracker that is driven by hand. Its one
// epoch is "e1", and its tables are those of the catalog.
const epoch = "e1"

type database struct {
	*coherence.Tracker
	mu sync.Mutex
	at coherence.LSN // guarded by mu
}

func newDatabase() *database {
	d := &database{Tracker: coherence.NewTracker(1<<15, 1000*time.Hour), at: 100}
	d.SetCatalog(&coherence.Catalog{Tables: map[string]coherence.Table{
		"properties": {Columns: map[string]coherence.Kind{"id": coherence.Integer, "location": coherence.Text}},
		"users":      {},
	}})
	d.Begin(epoch, d.at)
	d.apply()
	d.Beat(epoch, time.Now())
	return d
}

func (d *database) apply(changes ...coherence.Change) {
	err := d.Apply(coherence.Record{Epoch: epoch, From: 0, To: d.at, Visible: d.at, Changes: changes})
	if err != nil {
		panic(err)
	}
}

// commit changes rows with these tags, visible at once.
func (d *database) commit(tags ...coherence.Tag) coherence.LSN {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.at += 10
	changes := []coherence.Change{{Hash: coherence.Any.Hash(), At: d.at}}
	for _, tag := range tags {
		changes = append(changes,
			coherence.Change{Hash: tag.Hash(), At: d.at},
			coherence.Change{Hash: tag.Table().Hash(), At: d.at})
	}
	d.apply(changes...)
	return d.at
}

// doubt takes away what proves anything fresh, by a gap in the records.
func (d *database) doubt() {
	if err := d.Apply(coherence.Record{Epoch: epoch, From: 1 << 40, To: 1 << 40}); err == nil {
		panic("a gap was overlooked")
	}
}

// world is a proxy between a client and an upstream, all real.
type world struct {
	t        *testing.T
	db       *database
	cache    *cache.Cache
	proxy    *httptest.Server
	upstream *httptest.Server
	client   *http.Client
	fetches  atomic.Int64 // requests that reached the upstream
}

type change func(*cache.Config)

func newWorld(t *testing.T, upstream http.HandlerFunc, changes ...change) *world {
	t.Helper()
	w := &world{t: t, db: newDatabase()}
	w.upstream = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.fetches.Add(1)
		upstream(rw, r)
	}))
	t.Cleanup(w.upstream.Close)
	w.cache = newCache(t, w.upstream.URL, w.db, changes...)
	w.proxy = httptest.NewServer(w.cache)
	t.Cleanup(w.proxy.Close)
	w.client = &http.Client{
		Transport:     &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 1000},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	t.Cleanup(w.client.CloseIdleConnections)
	return w
}

func newCache(t testing.TB, upstream string, truth cache.Truth, changes ...change) *cache.Cache {
	t.Helper()
	o, err := origin.New(origin.Config{Upstream: upstream, Timeout: 10 * time.Second})
	must(t, err)
	t.Cleanup(o.Close)
	memory, err := store.NewMemory(64 << 20)
	must(t, err)
	t.Cleanup(memory.Close)
	config := cache.Defaults()
	config.Origin, config.Store, config.Truth = o, memory, truth
	for _, change := range changes {
		change(&config)
	}
	c, err := cache.New(config)
	must(t, err)
	return c
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// reply is a response as a client gets it.
type reply struct {
	status int
	header http.Header
	body   string
}

// says is our member of Cache-Status.
func (r reply) says() string {
	lines := r.header.Values("Cache-Status")
	if len(lines) == 0 {
		return ""
	}
	return lines[len(lines)-1]
}

func (r reply) isHit() bool { return strings.HasPrefix(r.says(), "walcache; hit") }

// do sends a request with header lines of the form "Name: value".
func (w *world) do(method, target string, lines ...string) reply {
	w.t.Helper()
	r, err := w.try(context.Background(), method, target, lines...)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

func (w *world) get(target string, lines ...string) reply {
	w.t.Helper()
	return w.do(http.MethodGet, target, lines...)
}

func (w *world) try(ctx context.Context, method, target string, lines ...string) (reply, error) {
	req, err := http.NewRequestWithContext(ctx, method, w.proxy.URL+target, nil)
	if err != nil {
		return reply{}, err
	}
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		req.Header.Add(name, value)
	}
	res, err := w.client.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return reply{res.StatusCode, res.Header, string(body)}, err
}

func (w *world) wantFetches(n int64) {
	w.t.Helper()
	if got := w.fetches.Load(); got != n {
		w.t.Errorf("%d requests reached the upstream, want %d", got, n)
	}
}

func (w *world) wantHit(r reply, body string) {
	w.t.Helper()
	if !r.isHit() || r.body != body {
		w.t.Errorf("got %q (%s), want a hit of %q", r.body, r.says(), body)
	}
}

func (w *world) wantSays(r reply, parts ...string) {
	w.t.Helper()
	for _, part := range parts {
		if !strings.Contains(r.says()+";", "; "+part+";") {
			w.t.Errorf("Cache-Status is %q, want %q in it", r.says(), part)
		}
	}
}

// eventually waits for a fact.
func eventually(t *testing.T, what string, fact func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !fact(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// text answers with a body.
func text(body string, lines ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for _, line := range lines {
			name, value, _ := strings.Cut(line, ": ")
			w.Header().Add(name, value)
		}
		_, _ = io.WriteString(w, body)
	}
}

// rawUpstream answers each connection's first request with these bytes, and
// closes it.
func rawUpstream(t *testing.T, answer string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				var request strings.Builder
				buf := make([]byte, 4096)
				for !strings.Contains(request.String(), "\r\n\r\n") {
					n, err := conn.Read(buf)
					if err != nil {
						return
					}
					request.Write(buf[:n])
				}
				_, _ = io.WriteString(conn, answer)
			}()
		}
	}()
	return "http://" + l.Addr().String()
}
