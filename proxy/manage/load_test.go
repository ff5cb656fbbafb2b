package manage

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"walcache/proxy/sandbox/sandboxtest"
)

// listening is the proxy's own port, where it can be connected to.
func (p *proxy) listening() (*Manager, *httptest.Server) {
	p.t.Helper()
	s := httptest.NewUnstartedServer(nil)
	p.Addr = s.Listener.Addr().String()
	m := p.manager()
	s.Config.Handler = p.front(m)
	s.Start()
	p.t.Cleanup(s.Close)
	return m, s
}

// both are the two ports, and where an operation is on each.
func (p *proxy) both(m *Manager, name, admin string) map[string]func(body string, lines ...string) *httptest.ResponseRecorder {
	front, back := p.front(m), p.back(m)
	ports := map[string]func(string, ...string) *httptest.ResponseRecorder{
		"back": func(body string, lines ...string) *httptest.ResponseRecorder {
			return send(back, http.MethodPost, admin, body, append(lines, bearer)...)
		},
	}
	if name != "" {
		ports["front"] = func(body string, lines ...string) *httptest.ResponseRecorder {
			return send(front, http.MethodPost, p.Prefix+name+"/", body, append(lines, bearer)...)
		}
	}
	return ports
}

func TestLoad_Guard(t *testing.T) { wantGuarded(t, newProxy(t), "cache-load-test") }

func TestLoad_CountsWhatClientsGet(t *testing.T) {
	p := newProxy(t)
	p.service.answers(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/private") {
			w.Header().Set("Cache-Control", "no-store")
		}
		if r.URL.Path == "/missing/" {
			w.WriteHeader(http.StatusNotFound)
		}
		fmt.Fprint(w, "0123456789")
	})
	m, _ := p.listening()
	for port, ask := range p.both(m, "cache-load-test", "/cache/load-test") {
		p.get("/properties/", "Host: shop.example", "Accept: application/json")
		var r loadResult
		w := ask(`{"paths": ["/properties/", "/private/?a=%20b", "/missing/"], "requests": 90, "connections": 3, "host": "shop.example"}`)
		into(t, w, &r)
		if w.Code != http.StatusOK || !r.Success || r.Requests != 90 || r.OperationsCount != 90 || r.Failed != 0 || r.TimeIsUp {
			t.Fatalf("%s: %d %s", port, w.Code, w.Body)
		}
		if r.Statuses["200"] != 60 || r.Statuses["404"] != 30 || r.Bytes != 900 {
			t.Errorf("%s: statuses %v, %d bytes", port, r.Statuses, r.Bytes)
		}
		misses := 0
		for _, n := range r.Misses {
			misses += n
		}
		if r.Hits["memory"] < 30 || misses < 30 || r.Hits["memory"]+r.Hits["redis"]+misses != 90 {
			t.Errorf("%s: hits %v, misses %v", port, r.Hits, r.Misses)
		}
		if l := r.Latency; l["p50"] <= 0 || l["p90"] < l["p50"] || l["p99"] < l["p90"] || l["max"] < l["p99"] || r.Rate <= 0 {
			t.Errorf("%s: %v, %.0f a second", port, l, r.Rate)
		}
	}
}

func TestLoad_AsksWithoutBeingToldForThePageOfThePrefixUnderTheOperatorsHost(t *testing.T) {
	p := newProxy(t)
	var mu sync.Mutex
	asked := map[string]bool{}
	p.service.answers(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked[r.Host+r.RequestURI] = true
	})
	m, _ := p.listening()
	ports := p.both(m, "cache-load-test", "/cache/load-test")
	for _, w := range []*httptest.ResponseRecorder{ports["front"]("", "Host: shop.example"), ports["back"]("requests=3", "Host: 127.0.0.1:8003", "Content-Type: application/x-www-form-urlencoded")} {
		if w.Code != http.StatusOK {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		if m := object(t, w); m["note"] != "Check /properties/redis-metrics/ to see updated statistics" || m["message"] == "" || m["timestamp"] == "" {
			t.Errorf("%v", m)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(asked) != 2 || !asked["shop.example/properties/"] || !asked[p.Addr+"/properties/"] {
		t.Errorf("asked for %v", asked)
	}
}

func TestLoad_WhatCannotBeMeantIsRefusedAndSendsNothing(t *testing.T) {
	p := newProxy(t)
	m, _ := p.listening()
	for port, ask := range p.both(m, "cache-load-test", "/cache/load-test") {
		for body, names := range map[string]string{
			`{`:                                   "JSON",
			`[]`:                                  "JSON",
			`null`:                                "JSON",
			`{} {}`:                               "JSON",
			`{"request": 5}`:                      "request",
			`{"requests": {}}`:                    "requests",
			`{"requests": 0}`:                     "1 to 10000",
			`{"requests": 10001}`:                 "1 to 10000",
			`{"requests": -1}`:                    "1 to 10000",
			`{"requests": 1.5}`:                   "1 to 10000",
			`{"requests": 1e99}`:                  "1 to 10000",
			`{"requests": [1, 2]}`:                "more than once",
			`{"connections": 65}`:                 "1 to 64",
			`{"seconds": 31}`:                     "1 to 30",
			`{"host": "evil.example/x"}`:          "host",
			`{"host": "a\r\nX: y"}`:               "host",
			`{"host": "user@shop.example"}`:       "host",
			`{"host": "shop.example:99999999"}`:   "host",
			`{"host": "shop.example:65536"}`:      "host",
			`{"host": "shop.example:0"}`:          "host",
			`{"host": "shop.example:"}`:           "host",
			`{"host": "[::1]:x"}`:                 "host",
			`{"accept": "a\nb"}`:                  "accept",
			`{"paths": ["properties/"]}`:          "one slash",
			`{"paths": [""]}`:                     "one slash",
			`{"paths": ["//evil.example/"]}`:      "one slash",
			`{"paths": ["http://evil.example/"]}`: "one slash",
			`{"paths": ["/a b"]}`:                 "percent-encoded",
			`{"paths": ["/a\r\nX-Y: z"]}`:         "percent-encoded",
			`{"paths": ["/ä"]}`:                   "percent-encoded",
			`{"paths": ["/#x"]}`:                  "percent-encoded",
			`{"paths": ["/%zz"]}`:                 "percent-encoded",
			`{"paths": ["/properties/redis-metrics/events/"]}`:         "operators",
			`{"paths": ["/properties/cache%2Dclear/"]}`:                "operators",
			`{"paths": ["/properties/cache-status"]}`:                  "operators",
			`{"paths": ["/` + strings.Repeat("x", 5000) + `"]}`:        "4 KiB",
			`{"paths": ["/"` + strings.Repeat(`,"/"`, 100) + `]}`:      "100",
			`{"paths": ["` + strings.Repeat("x", maxAsked) + `"]}`:     "65536",
			`{"paths": ["/properties/redis-metrics/?format=json"]}`:    "operators",
			`{"requests": "5", "connections": "x", "seconds": "soon"}`: "connections",
		} {
			w := ask(body)
			o := object(t, w)
			if said := fmt.Sprint(o["error"]); w.Code != http.StatusBadRequest || !strings.Contains(said, names) || o["try"] == nil {
				t.Errorf("%s: %.60s: %d %s", port, body, w.Code, w.Body)
			}
		}
	}
	if w := p.both(m, "", "/cache/load-test")["back"]("", "Content-Type: text/plain"); w.Code != http.StatusOK {
		t.Errorf("no body: %d %s", w.Code, w.Body)
	}
	if n := p.service.fetches.Load(); n != 1 {
		t.Errorf("%d requests went to the service", n)
	}
}

// stalled has the service answer nothing until the function is called.
func (s *service) stalled() (arrived chan struct{}, goOn func()) {
	arrived, free := make(chan struct{}, maxRequests), make(chan struct{})
	s.answers(func(w http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-free
	})
	return arrived, sync.OnceFunc(func() { close(free) })
}

func TestLoad_OneAtATimeAndAClientThatGoesAwayEndsIt(t *testing.T) {
	p := newProxy(t)
	arrived, goOn := p.service.stalled()
	m, s := p.listening()
	defer goOn()
	ctx, leave := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL+"/properties/cache-load-test/", strings.NewReader(`{"seconds": 30}`))
	p.must(err)
	req.Header.Set("Authorization", "Bearer "+token)
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		if res, err := http.DefaultClient.Do(req); err == nil {
			res.Body.Close()
			t.Error("it was answered")
		}
	}()
	<-arrived
	ask := p.both(m, "cache-load-test", "/cache/load-test")["back"]
	if w := ask(""); w.Code != http.StatusConflict || object(t, w)["try"] == nil {
		t.Errorf("a second one: %d %s", w.Code, w.Body)
	}
	leave()
	<-gone
	sandboxtest.Eventually(t, patience, func() error {
		if !m.loading.TryLock() {
			return fmt.Errorf("it goes on without its client")
		}
		m.loading.Unlock()
		return nil
	})
}

func TestLoad_EndsWhenTheTimeIsUpAndSaysSo(t *testing.T) {
	p := newProxy(t)
	_, goOn := p.service.stalled()
	defer goOn()
	m, _ := p.listening()
	var r loadResult
	w := p.both(m, "", "/cache/load-test")["back"](`{"seconds": 1}`)
	into(t, w, &r)
	if w.Code != http.StatusBadGateway || r.Success || !r.TimeIsUp || r.Requests != 0 || r.Seconds < 1 ||
		r.Error != "no request was answered within 1s" || r.Try == "" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// TestLoad_IsNoSuccessWhereTheServiceIsNone has the service answer the paths with
// the statuses that they begin with.
func TestLoad_IsNoSuccessWhereTheServiceIsNone(t *testing.T) {
	p := newProxy(t)
	p.service.answers(func(w http.ResponseWriter, r *http.Request) {
		status, _ := strconv.Atoi(strings.Split(r.URL.Path, "/")[1])
		w.Header().Set("Location", "/elsewhere/")
		w.WriteHeader(status)
	})
	m, _ := p.listening()
	for paths, want := range map[string]struct {
		status int
		says   string // "" for a success
	}{
		`"/502/"`:           {http.StatusBadGateway, "6 of 6 answers say that the service failed"},
		`"/404/"`:           {http.StatusBadGateway, "none of 6 answers"},
		`"/200/", "/503/"`:  {http.StatusOK, "3 of 6 answers say that the service failed"},
		`"/200/", "/404/"`:  {http.StatusOK, ""},
		`"/301/", "/403/a"`: {http.StatusOK, ""},
	} {
		var r loadResult
		w := p.both(m, "", "/cache/load-test")["back"](`{"requests": 6, "paths": [` + paths + `]}`)
		into(t, w, &r)
		if w.Code != want.status || r.Success != (want.says == "") || r.Success != (r.Error == "") || !strings.Contains(r.Error, want.says) || !strings.Contains(r.Message, want.says) {
			t.Errorf("%s: %d %s", paths, w.Code, w.Body)
		}
	}
}

func TestLoad_SaysWhatItCouldNotConnectTo(t *testing.T) {
	p := newProxy(t)
	m, s := p.listening()
	s.Close()
	var r loadResult
	w := p.both(m, "", "/cache/load-test")["back"](`{"requests": 3}`)
	into(t, w, &r)
	if w.Code != http.StatusBadGateway || r.Success || r.Failed != 3 || !strings.Contains(r.Error, p.Addr) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestLoad_TellsHowFarItIs(t *testing.T) {
	p := newProxy(t)
	p.service.answers(func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Cache-Control", "no-store") })
	_, s := p.listening()
	req, err := http.NewRequest(http.MethodPost, s.URL+"/properties/cache-load-test/?requests=2000", nil)
	p.must(err)
	req.Header = http.Header{"Authorization": {"Bearer " + token}, "Accept": {lines}}
	res, err := http.DefaultClient.Do(req)
	p.must(err)
	defer res.Body.Close()
	if res.Header.Get("Content-Type") != lines || res.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("header %v", res.Header)
	}
	said := json.NewDecoder(res.Body)
	last := map[string]any{}
	var done []float64
	for said.More() {
		clear(last)
		p.must(said.Decode(&last))
		if n, ok := last["done"].(float64); ok {
			done = append(done, n)
			if last["of"] != 2000.0 {
				t.Errorf("%v", last)
			}
		}
	}
	if len(done) == 0 || !slices.IsSorted(done) || last["requests"] != 2000.0 {
		t.Errorf("told %v, then %v", done, last)
	}
}

func TestLoad_Quantiles(t *testing.T) {
	var times []time.Duration
	for i := range 100 {
		times = append(times, time.Duration(i+1))
	}
	for percent, want := range map[int]time.Duration{1: 1, 50: 50, 90: 90, 99: 99, 100: 100} {
		if got := quantile(times, percent); got != want {
			t.Errorf("%d%%: %d", percent, got)
		}
	}
	if quantile(nil, 50) != 0 || quantile(times[:1], 1) != 1 {
		t.Error("of none or one")
	}
}
