package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"walcache/proxy/sandbox/sandboxtest"
)

// signalled is what a test of signals says.
type signalled struct {
	Passed     bool     `json:"passed"`
	Success    bool     `json:"success"`
	Verdict    string   `json:"verdict"`
	Failures   []string `json:"failures"`
	Disturbed  []string `json:"disturbed"`
	LeftBehind int      `json:"left_behind"`
	Swept      int      `json:"swept"`
	Before     struct {
		List bool `json:"all_properties_cached"`
	} `json:"cache_before"`
	After struct {
		List bool `json:"all_properties_cached"`
	} `json:"cache_after"`
	Steps []struct {
		Step string
		Tags []struct {
			Tag, Before, After string
			Moved              bool
		}
		Answers []struct {
			What, Was, Is string
			After         float64 `json:"after_ms"`
		}
		Controls []struct{ What, Outcome, Why string }
	}
}

// managed has a proxy answer operators, who may change data.
func managed(shared func(*options)) func(*options) {
	return func(o *options) {
		shared(o)
		o.manage = manageOptions{prefix: "/properties/", apiToken: apiToken}
	}
}

// ask asks for an operation at a proxy's own port, and returns the answer as it is.
func operation(ctx context.Context, base, name, body string) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/properties/"+name+"/", strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Authorization", "Bearer a secret")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return res.StatusCode, text, err
}

// testSignals has a proxy test until it could prove something: on a machine that
// stands still for two seconds nothing is called fresh.
func testSignals(t *testing.T, base string) (r signalled) {
	t.Helper()
	sandboxtest.Eventually(t, time.Minute, func() error {
		status, text, err := operation(t.Context(), base, "test-signals", "")
		var bad error
		r, bad = decode[signalled](string(text))
		switch err = errors.Join(err, bad); {
		case status == http.StatusConflict: // the one before cleans up
			return fmt.Errorf("%s", text)
		case strings.Contains(r.Verdict, "proves nothing") || len(r.Disturbed) > 0:
			return errors.New(r.Verdict)
		case err != nil || status != http.StatusOK || !r.Passed || !r.Success || r.LeftBehind != 0:
			t.Fatalf("%d, %v: %s", status, err, text)
		}
		return nil
	})
	return r
}

// content is all that is in the table.
func content(t *testing.T, db *pgxpool.Pool) (rows string) {
	t.Helper()
	if err := db.QueryRow(context.Background(), "SELECT count(*) || ' rows ' || coalesce(md5(string_agg(p::text, ';' ORDER BY id)), '') FROM properties p").Scan(&rows); err != nil {
		t.Fatal(err)
	}
	return rows
}

func TestSignals_EveryAnswerFollowsAndNothingElseGoesStale(t *testing.T) {
	s := start(t, sandboxtest.Postgres(t), managed(sharing(t)))
	s.rows(20)
	sandboxtest.Eventually(t, time.Minute, func() error { // the service comes to follow later than the proxy
		if r, err := s.fetch(s.direct + "/properties/"); err != nil || !strings.Contains(r.body, `"cached":true`) {
			return fmt.Errorf("%v: %.200s", err, r.body)
		}
		return nil
	})
	before := content(t, s.db)
	r := testSignals(t, s.url)
	if len(r.Steps) != 3 || len(r.Disturbed) > 0 {
		t.Fatalf("%+v", r)
	}
	want := map[string][]string{"create": {"list", "location", "own page"},
		"change": {"list", "own page", "location", "other location"}, "delete": {"list", "own page", "other location"}}
	for _, step := range r.Steps {
		for i, a := range step.Answers {
			if a.What != want[step.Step][i] || a.Was != "hit" && a.Was != "" {
				t.Errorf("%s: %+v", step.Step, a)
			}
		}
		for _, tag := range step.Tags {
			if !tag.Moved || tag.Before == tag.After {
				t.Errorf("%s: %+v", step.Step, tag)
			}
		}
		if len(step.Controls) != 2 {
			t.Errorf("%s: controls %+v", step.Step, step.Controls)
		}
		for _, c := range step.Controls {
			if c.Outcome != "hit" {
				t.Errorf("%s: %+v", step.Step, c)
			}
		}
	}
	if !r.Before.List || r.After.List {
		t.Errorf("the list was cached before: %t, and counted after: %t", r.Before.List, r.After.List)
	}
	if after := content(t, s.db); after != before {
		t.Errorf("%s before, %s after", before, after)
	}
	t.Log(r.Verdict)
}

func TestSignals_AnEmptyTableIsEnough(t *testing.T) {
	s := start(t, sandboxtest.Postgres(t), managed(sharing(t)))
	testSignals(t, s.url)
	if n := content(t, s.db); !strings.HasPrefix(n, "0 rows") {
		t.Error(n)
	}
}

func TestSignals_TwoProxiesAtOnceDoNotDisturbEachOther(t *testing.T) {
	shared := managed(sharing(t))
	first := start(t, sandboxtest.Postgres(t), shared)
	first.rows(20)
	second := first.another(shared)
	second.awaitVouching()
	before := content(t, first.db)
	var both sync.WaitGroup
	for _, s := range []*system{first, second} {
		both.Go(func() {
			for range 2 {
				status, text, err := operation(t.Context(), s.url, "test-signals", "")
				r, bad := decode[signalled](string(text))
				unproven := strings.Contains(r.Verdict, "proves nothing") // by a machine that stood still
				if errors.Join(err, bad) != nil || r.LeftBehind != 0 || !unproven && (status != http.StatusOK || !r.Passed) {
					t.Errorf("%d, %v: %s", status, err, text)
				}
			}
		})
	}
	both.Wait()
	if after := content(t, first.db); after != before {
		t.Errorf("%s before, %s after", before, after)
	}
}

// gate is the service, behind somebody who holds up a write: before the service
// gets it, or its answer.
type gate struct {
	*httptest.Server
	mu     sync.Mutex // guards the following
	method string     // that is held up; "" for none
	answer bool       // it is the answer
	held   chan struct{}
	free   chan struct{}
}

func newGate(t *testing.T, service string) *gate {
	t.Helper()
	target, err := url.Parse(service)
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{}
	proxy := &httputil.ReverseProxy{Transport: g, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) },
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) }}
	g.Server = httptest.NewServer(proxy)
	t.Cleanup(g.Close)
	return g
}

// hold has the next request of a method held up, or its answer.
func (g *gate) hold(method string, answer bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.method, g.answer, g.held, g.free = method, answer, make(chan struct{}), make(chan struct{})
}

// pass lets it go on.
func (g *gate) pass() { close(g.free) }

func (g *gate) RoundTrip(r *http.Request) (*http.Response, error) {
	g.mu.Lock()
	holds, answer, held, free := g.method == r.Method, g.answer, g.held, g.free
	if holds {
		g.method = ""
	}
	g.mu.Unlock()
	wait := func() error {
		close(held)
		select {
		case <-free:
			return nil
		case <-r.Context().Done():
			return r.Context().Err()
		}
	}
	if holds && !answer {
		var body []byte
		var err error
		if r.Body != nil {
			body, err = io.ReadAll(r.Body) // or nobody hears that the client is gone
		}
		if err = errors.Join(err, wait()); err != nil {
			return nil, err
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	res, err := http.DefaultTransport.RoundTrip(r)
	if holds && answer && err == nil {
		if err := wait(); err != nil {
			return nil, errors.Join(err, res.Body.Close())
		}
	}
	return res, err
}

// stops are the moments at which a test of signals is ended.
var stops = []struct {
	name   string
	method string
	answer bool
}{
	{"before create", http.MethodPost, false},
	{"after create", http.MethodPost, true},
	{"after change", http.MethodPatch, true},
	{"before delete", http.MethodDelete, false},
	{"after delete", http.MethodDelete, true},
}

// await waits until the request is held up.
func (g *gate) await(t *testing.T) {
	t.Helper()
	select {
	case <-g.held:
	case <-time.After(time.Minute):
		t.Fatal("nothing came to be held up")
	}
}

func TestSignals_AClientThatGoesAwayLeavesNothingBehind(t *testing.T) {
	shared := managed(sharing(t))
	first := start(t, sandboxtest.Postgres(t), shared)
	first.rows(5)
	g := newGate(t, first.direct)
	s := first.another(func(o *options) { shared(o); o.origin.Upstream = g.URL })
	s.awaitVouching()
	before := content(t, s.db)
	for _, stop := range stops {
		g.hold(stop.method, stop.answer)
		ctx, leave := context.WithCancel(t.Context())
		gone := make(chan error, 1)
		go func() {
			status, err := http.StatusConflict, error(nil)
			for status == http.StatusConflict { // while the one before cleans up
				status, _, err = operation(ctx, s.url, "test-signals", "")
			}
			gone <- err
		}()
		g.await(t)
		held := content(t, s.db)
		leave()
		if err := <-gone; !errors.Is(err, context.Canceled) {
			t.Fatalf("%s: %v", stop.name, err)
		}
		g.pass()
		testSignals(t, s.url) // begins once the one before has cleaned up
		if after := content(t, s.db); after != before {
			t.Errorf("%s: %s before, %s after", stop.name, before, after)
		} else {
			t.Logf("client gone %-14s %.8s -> %.8s -> %.8s", stop.name, before, held, after)
		}
	}
}

// child is a proxy in a process of its own.
type child struct {
	cmd *exec.Cmd
	at  chan string // where it serves
	url string      // once it is awaited
}

// kill is what nobody can do anything about.
func (c *child) kill(t *testing.T) {
	t.Helper()
	if err := c.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = c.cmd.Wait() // it was killed
}

// launchChild runs the program.
func (s *system) launchChild(program, upstream string, o options) *child {
	s.t.Helper()
	c := &child{at: make(chan string, 1), cmd: exec.Command(program, "serve", "--addr=127.0.0.1:0", "--admin-addr=127.0.0.1:0", "--upstream="+upstream,
		"--listen=false", "--prefix="+o.redis.prefix, "--manage-prefix=/properties/")}
	c.cmd.Env = append(os.Environ(), "DATABASE_URL="+s.dsn, "REDIS_URL="+o.redis.url, "API_TOKEN="+apiToken, "ADMIN_TOKEN=a secret")
	c.cmd.Dir = s.t.TempDir()
	log, err := c.cmd.StderrPipe()
	if err == nil {
		err = c.cmd.Start()
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = c.cmd.Process.Kill() })
	go func() {
		lines := bufio.NewScanner(log)
		for lines.Scan() {
			var said struct{ Msg, Addr string }
			if json.Unmarshal(bytes.TrimSpace(lines.Bytes()), &said) == nil && said.Msg == "serving" {
				c.at <- said.Addr
			}
		}
	}()
	return c
}

// awaitChild waits until it serves, and vouches.
func (s *system) awaitChild(c *child) {
	s.t.Helper()
	select {
	case addr := <-c.at:
		c.url = "http://" + addr
	case <-time.After(time.Minute):
		s.t.Fatal("the program does not serve")
	}
	sandboxtest.Eventually(s.t, time.Minute, func() error {
		r, err := s.fetch(c.url + row(1))
		if err != nil || !r.hit() {
			return fmt.Errorf("%v: %s", err, r.header.Get("Cache-Status"))
		}
		return nil
	})
}

// TestSignals_AKilledProcessLeavesNothingBehindOnceAnotherHasTested kills a proxy
// in the middle of its test. Rows that are too young to be nobody's stay, so time
// passes at once: they are made older.
func TestSignals_AKilledProcessLeavesNothingBehindOnceAnotherHasTested(t *testing.T) {
	program := filepath.Join(t.TempDir(), "proxy")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	shared := managed(sharing(t))
	var o options
	shared(&o)
	s := start(t, sandboxtest.Postgres(t), shared)
	s.rows(5)
	g := newGate(t, s.direct)
	before := content(t, s.db)
	var children []*child
	for range len(stops) + 1 {
		children = append(children, s.launchChild(program, g.URL, o))
	}
	s.awaitChild(children[0])
	for i, stop := range stops {
		c, next := children[i], children[i+1]
		g.hold(stop.method, stop.answer)
		died := make(chan error, 1)
		go func() {
			_, _, err := operation(t.Context(), c.url, "test-signals", "")
			died <- err
		}()
		g.await(t)
		c.kill(t)
		if err := <-died; err == nil {
			t.Fatalf("%s: a killed process has answered", stop.name)
		}
		killed := content(t, s.db)
		s.exec("UPDATE properties SET created_at = created_at - interval '1 hour' WHERE title LIKE 'walcache signal test %'")
		s.awaitChild(next)
		testSignals(t, next.url)
		if after := content(t, s.db); after != before {
			t.Errorf("%s: %s before, %s after", stop.name, before, after)
		} else {
			t.Logf("SIGKILL %-14s %.8s -> %.8s -> %.8s", stop.name, before, killed, after)
		}
	}
}

func TestSignals_AProbeReachesEveryProcess(t *testing.T) {
	shared := managed(sharing(t))
	first := start(t, sandboxtest.Postgres(t), shared)
	first.rows(5)
	second := first.another(func(o *options) { shared(o); o.manage.apiToken = "" })
	second.awaitVouching()
	second.warm(row(1))
	status, text, err := operation(t.Context(), second.url, "test-signals", `{"probe": true}`)
	type spread struct{ Min, P50, Max float64 }
	r, bad := decode[struct {
		Passed     bool
		Rounds     int
		Processes  int
		Here       spread `json:"here_ms"`
		Everywhere spread `json:"everywhere_ms"`
		Verdict    string
	}](string(text))
	if err = errors.Join(err, bad); err != nil || status != http.StatusOK || !r.Passed || r.Rounds != 10 || r.Processes < 2 {
		t.Fatalf("%d, %v: %s", status, err, text)
	}
	if r.Here.Min <= 0 || r.Here.P50 < r.Here.Min || r.Here.Max < r.Here.P50 || r.Everywhere.Min < r.Here.Min {
		t.Errorf("%s", text)
	}
	if got := second.get(row(1)); !got.hit() {
		t.Errorf("after a probe: %s", got.header.Get("Cache-Status"))
	}
	t.Log(r.Verdict)
}

// TestSignals_WhatIsWarmedIsWhatALoadTestHits has the other two that send requests
// to this proxy do so before a real service.
func TestSignals_WhatIsWarmedIsWhatALoadTestHits(t *testing.T) {
	s := start(t, sandboxtest.Postgres(t), managed(sharing(t)))
	s.rows(5)
	req, err := http.NewRequest(http.MethodPost, s.admin+"/cache/warm", strings.NewReader(`{"paths": ["/properties/", "/properties/1/"], "host": "shop.example"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer a secret")
	res, err := s.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	r, bad := decode[struct{ Asked, Warmed, Failed int }](string(text))
	if err = errors.Join(err, bad); err != nil || r.Asked != 4 || r.Warmed != 4 { // HTML and JSON of both
		t.Fatalf("%v: %s", err, text)
	}
	sandboxtest.Eventually(t, time.Minute, func() error { // a machine that stands still makes misses
		status, text, err := operation(t.Context(), s.url, "cache-load-test", `{"paths": ["/properties/", "/properties/1/"], "host": "shop.example", "requests": 400}`)
		l, bad := decode[struct {
			Requests int
			Hits     map[string]int
		}](string(text))
		if err = errors.Join(err, bad); err != nil || status != http.StatusOK || l.Requests != 400 || l.Hits["memory"] != 400 {
			return fmt.Errorf("%d, %v: %s", status, err, text)
		}
		return nil
	})
}

func TestSignals_WithoutATokenOfTheServiceItSaysWhatToDo(t *testing.T) {
	s := start(t, sandboxtest.Postgres(t), func(o *options) { o.manage.prefix = "/properties/" })
	status, text, err := operation(t.Context(), s.url, "test-signals", "")
	if err != nil || status != http.StatusForbidden || !strings.Contains(string(text), "API_TOKEN") || !strings.Contains(string(text), "--probe") {
		t.Errorf("%d, %v: %s", status, err, text)
	}
}
