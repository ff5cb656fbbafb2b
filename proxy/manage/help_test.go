package manage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"walcache/proxy/cache"
	"walcache/proxy/changelog"
	"walcache/proxy/coherence"
	"walcache/proxy/guard"
	"walcache/proxy/origin"
	"walcache/proxy/redisurl"
	"walcache/proxy/sandbox/sandboxtest"
	"walcache/proxy/store"
)

func TestMain(m *testing.M) { sandboxtest.Main(m) }

const (
	epoch    = "e1"
	patience = 30 * time.Second
	// unhurried is a budget that a machine under load keeps.
	unhurried = 20 * time.Second

	host   = "127.0.0.1:8001" // that clients ask
	token  = "a secret"
	bearer = "Authorization: Bearer " + token
)

// proxy is a cache before a service, with memory, pages in a real Redis, and a
// tracker that the test moves. Sources and Config may be changed until manager
// is called.
type proxy struct {
	t *testing.T
	Sources
	Config
	client  redis.UniversalClient // of its Redis
	service *service
	stream  *stream // nil without coherence
}

// newProxy is a proxy on the Redis that tests share, which proves everything
// fresh for as long as a test takes.
func newProxy(t *testing.T, changes ...func(*cache.Config)) *proxy {
	t.Helper()
	url, prefix := sandboxtest.Redis(t)
	return newProxyOn(t, url, prefix, changes...)
}

// newProxyOn is one on a Redis that the test gives; "" is none.
func newProxyOn(t *testing.T, url, prefix string, changes ...func(*cache.Config)) *proxy {
	t.Helper()
	tracker := coherence.NewTracker(1<<12, 1000*time.Hour)
	tracker.SetCatalog(&coherence.Catalog{Tables: map[string]coherence.Table{
		"properties": {Columns: map[string]coherence.Kind{"id": coherence.Integer, "location": coherence.Text}},
		"users":      {},
	}})
	tracker.Begin(epoch, 100)
	p := build(t, url, prefix, tracker, changes)
	p.Tracker, p.Records = tracker, changelog.New(tracker, p.Log)
	_, err := p.Records.Lead(t.Context())
	p.must(err)
	p.stream = &stream{p: p, at: 100}
	p.Announcer = p.stream
	p.stream.commit()
	tracker.Beat(epoch, time.Now())
	return p
}

// ordinary is a proxy without coherence.
func ordinary(t *testing.T, changes ...func(*cache.Config)) *proxy {
	t.Helper()
	url, prefix := sandboxtest.Redis(t)
	return build(t, url, prefix, cache.NewUnwatched(), changes)
}

func build(t *testing.T, url, prefix string, truth cache.Truth, changes []func(*cache.Config)) *proxy {
	t.Helper()
	p := &proxy{t: t, service: newService(t)}
	p.Config = Config{
		Prefix: "/properties/", Guard: guard.Guard{Token: token, Hosts: []string{"shop.example"}}, Addr: host,
		Upstream: p.service.URL, RedisURL: url, RedisPrefix: prefix, Log: slog.New(slog.DiscardHandler),
	}
	o, err := origin.New(origin.Config{Upstream: p.service.URL, Timeout: time.Minute})
	p.must(err)
	t.Cleanup(o.Close)
	p.Memory, err = store.NewMemory(64 << 20)
	p.must(err)
	t.Cleanup(p.Memory.Close)
	config := cache.Defaults()
	config.Origin, config.Store, config.Truth, config.TrustTags = o, p.Memory, truth, true
	if url != "" {
		p.client, err = redisurl.Open(url, func(o *redis.UniversalOptions) { o.ReadTimeout, o.WriteTimeout = patience, patience })
		p.must(err)
		t.Cleanup(func() { _ = p.client.Close() })
		p.Pages, err = store.NewRedis(store.RedisConfig{URL: url, Prefix: prefix, MaxObject: config.MaxObject, Budget: unhurried})
		p.must(err)
		t.Cleanup(func() { p.must(p.Pages.Close()) })
		config.Below = p.Pages
	}
	for _, change := range changes {
		change(&config)
	}
	p.Cache, err = cache.New(config)
	p.must(err)
	return p
}

func (p *proxy) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// manager makes what the test is about. It runs until the test ends.
func (p *proxy) manager() *Manager {
	p.t.Helper()
	m, err := New(p.Config, p.Sources)
	p.must(err)
	m.survey.shared = 0 // tests change what is there, and look at once
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	p.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			p.t.Error(err)
		}
	})
	return m
}

// front is the proxy's own port, and back the admin port.
func (p *proxy) front(m *Manager) http.Handler { return m.Before(p.Cache) }

func (p *proxy) back(m *Manager) http.Handler {
	mux := http.NewServeMux()
	m.Register(mux, p.Guard)
	return p.Guard.Protect(mux)
}

// service answers its paths with how often each was asked, under the tag that
// the path begins with, unless answer says otherwise.
type service struct {
	*httptest.Server
	fetches atomic.Int64
	answer  atomic.Pointer[http.HandlerFunc]
}

func newService(t *testing.T) *service {
	s := &service{}
	var mu sync.Mutex
	asked := map[string]int{}
	s.answers(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked[r.RequestURI]++
		n := asked[r.RequestURI]
		mu.Unlock()
		table, _, _ := strings.Cut(strings.Trim(r.URL.Path, "/"), "/")
		w.Header().Set("Cache-Groups", `"`+table+`"`)
		fmt.Fprint(w, n)
	})
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.fetches.Add(1)
		(*s.answer.Load())(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *service) answers(h http.HandlerFunc) { s.answer.Store(&h) }

// stream is a change stream in which what is committed or announced is known at
// once.
type stream struct {
	p    *proxy
	mu   sync.Mutex // guards the following
	at   coherence.LSN
	said []string
	err  error // if not nil, nothing can be announced
}

func (s *stream) Announce(_ context.Context, lines ...string) (coherence.LSN, error) {
	if s.err != nil {
		return 0, s.err
	}
	var hashes []coherence.Hash
	for _, line := range lines {
		switch verb, name, _ := strings.Cut(line, " "); {
		case line == "floor "+coherence.Everything:
			hashes = append(hashes, coherence.TableFloor(name), coherence.Any.Hash())
		case verb == "bump":
			hashes = append(hashes, coherence.Tag(name).Hash())
		case verb == "purge":
			hashes = append(hashes, coherence.PageHash(name))
		case line != "":
			return 0, errors.New("not understood: " + line)
		}
	}
	at := s.change(hashes...)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.said = append(s.said, lines...)
	return at, nil
}

// commit changes rows with these tags.
func (s *stream) commit(tags ...coherence.Tag) coherence.LSN {
	hashes := []coherence.Hash{coherence.Any.Hash()}
	for _, tag := range tags {
		hashes = append(hashes, tag.Hash(), tag.Table().Hash())
	}
	return s.change(hashes...)
}

func (s *stream) change(hashes ...coherence.Hash) coherence.LSN {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at += 10
	var changes []coherence.Change
	for _, h := range hashes {
		changes = append(changes, coherence.Change{Hash: h, At: s.at})
	}
	s.p.must(s.p.Records.Apply(coherence.Record{Epoch: epoch, To: s.at, Visible: s.at, Changes: changes}))
	return s.at
}

// lines are what was announced so far.
func (s *stream) lines() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string{}, s.said...)
}

// get asks the cache, as clients of this proxy do.
func (p *proxy) get(path string, lines ...string) *httptest.ResponseRecorder {
	return send(p.Cache, http.MethodGet, path, "", lines...)
}

// hit reports whether an answer came from what is stored.
func hit(w *httptest.ResponseRecorder) bool {
	return strings.Contains(w.Header().Get("Cache-Status"), "; hit")
}

// written waits until n pages are in Redis.
func (p *proxy) written(n uint64) {
	p.t.Helper()
	sandboxtest.Eventually(p.t, patience, func() error {
		if s := p.Pages.Stats(); s.Writes < n {
			return fmt.Errorf("%d of %d pages written: %+v", s.Writes, n, s)
		}
		return nil
	})
}

// keep keeps a queryset in Redis, as of a position, as services do.
func (p *proxy) keep(name string, at coherence.LSN, rows int, tags ...coherence.Tag) {
	p.t.Helper()
	key := p.RedisPrefix + "qs:" + name
	kept := coherence.Kept{Key: key, AsOf: coherence.Position{Epoch: epoch, LSN: at}, Until: at, Tags: tags, Stored: time.Now(), Rows: rows}
	p.must(p.client.Set(p.t.Context(), key, kept.Append(nil), time.Hour).Err())
}

// keys are those in Redis that begin with the prefix and this.
func (p *proxy) keys(begin string) []string {
	p.t.Helper()
	keys, err := p.client.Keys(p.t.Context(), p.RedisPrefix+begin+"*").Result()
	p.must(err)
	return keys
}

// send asks with header lines of the form "Name: value"; Host is one of them.
func send(h http.Handler, method, target, body string, lines ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Host, r.RemoteAddr = host, "127.0.0.1:50000"
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		if name == "Host" {
			r.Host = value
			continue
		}
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// object is an answer's JSON, which nobody may store.
func object(t *testing.T, w *httptest.ResponseRecorder) (m map[string]any) {
	t.Helper()
	into(t, w, &m)
	return m
}

func into(t *testing.T, w *httptest.ResponseRecorder, v any) {
	t.Helper()
	if err := json.Unmarshal(w.Body.Bytes(), v); err != nil {
		t.Fatalf("%d %v in %s", w.Code, err, w.Body)
	}
	if h := w.Header(); h.Get("Content-Type") != "application/json" || h.Get("Cache-Control") != "no-store" {
		t.Errorf("header %v", h)
	}
}

// wantGuarded checks who gets in to the operation of a name, through both ports,
// and that it was not done for anybody else.
func wantGuarded(t *testing.T, p *proxy, name string) {
	t.Helper()
	m := p.manager()
	for _, op := range operations {
		if op.name != name {
			continue
		}
		for port, target := range map[string]string{"front": p.Prefix + name + "/", "back": op.admin} {
			h := p.front(m)
			if port == "back" {
				h = p.back(m)
			}
			t.Run(port, func(t *testing.T) { wantRefusals(t, h, op, target) })
		}
		p.Guard = guard.Guard{}
		closed := send(p.front(p.manager()), op.method, p.Prefix+name+"/", "", bearer)
		if m := object(t, closed); closed.Code != http.StatusForbidden || !strings.Contains(fmt.Sprint(m["try"]), "ADMIN_TOKEN") {
			t.Errorf("where no token is set: %d %v", closed.Code, m)
		}
		return
	}
	t.Fatalf("there is no operation %s", name)
}

func wantRefusals(t *testing.T, h http.Handler, op operation, target string) {
	safe := op.method == http.MethodGet
	allow := map[bool]string{true: "GET, HEAD", false: "POST"}[safe]
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY"} {
		if strings.Contains(allow, method) {
			continue
		}
		w := send(h, method, target, "{", bearer)
		if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != allow {
			t.Errorf("%s: %d, Allow %q", method, w.Code, w.Header().Get("Allow"))
		}
	}
	type refusal struct {
		what   string
		status int
		lines  []string
	}
	refusals := []refusal{
		{"no token", 401, nil},
		{"a wrong token", 401, []string{"Authorization: Bearer another"}},
		{"a token that goes on", 401, []string{bearer + "s"}},
		{"a foreign name", 421, []string{bearer, "Host: evil.example"}},
		{"a foreign name, no token", 421, []string{"Host: evil.example"}},
	}
	refusals = append(refusals, refusal{"another site", 403, []string{bearer, "Sec-Fetch-Site: cross-site"}},
		refusal{"a neighbouring site", 403, []string{bearer, "Sec-Fetch-Site: same-site"}})
	if safe { // who only reads from another origin, without a browser, cannot be told from others
		refusals = append(refusals, refusal{"a foreign origin", 401, []string{"Origin: http://evil.example"}})
	} else {
		refusals = append(refusals, refusal{"a foreign origin", 403, []string{bearer, "Origin: http://evil.example"}})
	}
	for _, c := range refusals {
		w := send(h, op.method, target, "", c.lines...)
		if w.Code != c.status || strings.Contains(w.Body.String(), token) || w.Header().Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: %d, want %d: %s", c.what, w.Code, c.status, w.Body)
		}
		if m := object(t, w); m["error"] == nil || m["try"] == nil {
			t.Errorf("%s: %v", c.what, m)
		}
	}
}
