package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"walcache/proxy/sandbox/sandboxtest"
)

// lines is what a command has printed so far.
type lines struct {
	mu  sync.Mutex // guards the following
	all bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String()
}

// serving is a `proxy serve` that runs.
type serving struct {
	t          *testing.T
	url, admin string
	log        *lines
	stop       context.CancelFunc // what SIGTERM does
	ended      chan int           // its exit code
}

var servingAt = regexp.MustCompile(`"msg":"serving",.*"addr":"([^"]+)","admin":"([^"]+)",`)

// serveWith types `proxy serve` with flags, and returns once it serves.
func serveWith(t *testing.T, flags ...string) *serving {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s := &serving{t: t, log: &lines{}, stop: cancel, ended: make(chan int, 1)}
	args := append([]string{"proxy", "serve", "--addr=127.0.0.1:0", "--admin-addr=127.0.0.1:0"}, flags...)
	go func() { s.ended <- run(ctx, args, io.Discard, s.log) }()
	t.Cleanup(func() {
		s.stop()
		if t.Failed() {
			t.Log(s.log)
		}
	})
	sandboxtest.Eventually(t, 10*time.Second, func() error {
		at := servingAt.FindStringSubmatch(s.log.String())
		if at == nil {
			return errors.New(s.log.String())
		}
		s.url, s.admin = "http://"+at[1], "http://"+at[2]
		return nil
	})
	return s
}

// exits stops it, if it has not ended, and wants its exit code.
func (s *serving) exits(want int) {
	s.t.Helper()
	s.stop()
	select {
	case code := <-s.ended:
		if code != want {
			s.t.Errorf("exit %d", code)
		}
	case <-time.After(30 * time.Second):
		s.t.Fatal("it does not end")
	}
}

func ask(t *testing.T, url string) response {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response{res.StatusCode, res.Header, string(body)}
}

// hello is a service whose answers may be stored.
func hello(t *testing.T) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("hello")) }))
	t.Cleanup(s.Close)
	return s
}

func TestServe_WrongConfigurationEndsItWithWhatWhereAndWhatToDo(t *testing.T) {
	cleanEnv(t)
	p := sandboxtest.OwnPostgres(t, map[string]string{"wal_level": "replica"})
	s := serveWith(t, "--database-url", p.DSN(""))
	select {
	case code := <-s.ended:
		want := fmt.Sprintf("proxy: cannot follow 127.0.0.1:%d/postgres: wal_level is \"replica\"\n  try: ALTER SYSTEM SET wal_level = logical, then restart PostgreSQL\n", p.Port())
		if code != 1 || !strings.HasSuffix(s.log.String(), want) {
			t.Errorf("exit %d, and not\n%s", code, want)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("it does not end")
	}
	noPassword(t, p.DSN(""), s.log.String())
}

func noPassword(t *testing.T, dsn, printed string) {
	t.Helper()
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(printed, config.Password) {
		t.Errorf("the password is in\n%s", printed)
	}
}

func TestServe_StartsWithPostgreSQLAndTheServiceAwayAndIsCoherentOnceTheyCome(t *testing.T) {
	cleanEnv(t)
	p := sandboxtest.OwnPostgres(t, map[string]string{"fsync": "off"})
	if err := p.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	service := hello(t)
	addr := service.Listener.Addr().String()
	service.Close()

	s := serveWith(t, "--database-url", p.DSN(""), "--upstream", "http://"+addr)
	if res := ask(t, s.url); res.status != 502 {
		t.Errorf("without a service: %d %s", res.status, res.body)
	}
	at, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	service = httptest.NewUnstartedServer(service.Config.Handler)
	service.Listener = at
	service.Start()
	defer service.Close()
	for range 3 {
		if res := ask(t, s.url); res.status != 200 || res.body != "hello" || res.hit() {
			t.Errorf("without PostgreSQL: %d %s", res.status, res.header)
		}
	}
	if res := ask(t, s.admin+"/readyz"); res.status != 503 || !strings.Contains(res.body, "starting") {
		t.Errorf("ready without PostgreSQL: %d %s", res.status, res.body)
	}
	if res := ask(t, s.admin+"/status"); !strings.Contains(res.body, "connection refused") {
		t.Errorf("the status does not say why: %s", res.body)
	} else {
		noPassword(t, p.DSN(""), res.body)
	}
	if err := p.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	sandboxtest.Eventually(t, 30*time.Second, func() error {
		if res := ask(t, s.url); !res.hit() {
			return errors.New(res.header.Get("Cache-Status"))
		}
		return nil
	})
	if res := ask(t, s.admin+"/readyz"); res.status != 200 || !strings.Contains(res.body, `"vouches": true`) {
		t.Errorf("ready: %d %s", res.status, res.body)
	}
	s.exits(0)
	noPassword(t, p.DSN(""), s.log.String())
}

func TestServe_AHitWritesNoLine(t *testing.T) {
	cleanEnv(t)
	s := serveWith(t, "--no-coherence", "--log-level=debug", "--upstream", hello(t).URL)
	hits := 0
	for range 100 {
		if ask(t, s.url).hit() {
			hits++
		}
	}
	s.exits(0)
	said := regexp.MustCompile(`"msg":"([^"]+)"`).FindAllStringSubmatch(s.log.String(), -1)
	if hits < 99 || len(said) != 2 || said[0][1] != "serving" || said[1][1] != "stopped" {
		t.Errorf("%d hits, and\n%s", hits, s.log)
	}
}

func TestServe_StoppingFinishesWhatIsUnderWayAndSaysSo(t *testing.T) {
	cleanEnv(t)
	arrived, finish := make(chan struct{}), make(chan struct{})
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(arrived)
		<-finish
		_, _ = w.Write([]byte("late"))
	}))
	defer service.Close()
	s := serveWith(t, "--no-coherence", "--upstream", service.URL)
	answered := make(chan response, 1)
	go func() { answered <- ask(t, s.url) }()
	<-arrived
	s.stop()
	sandboxtest.Eventually(t, 5*time.Second, func() error {
		if res := ask(t, s.admin+"/readyz"); res.status != 503 || !strings.Contains(res.body, "draining") {
			return fmt.Errorf("%d %s", res.status, res.body)
		}
		if _, err := http.Get(s.url); err == nil {
			return errors.New("it takes new requests")
		}
		return nil
	})
	if res := ask(t, s.admin+"/healthz"); res.status != 200 {
		t.Errorf("health while draining: %d", res.status)
	}
	close(finish)
	if res := <-answered; res.status != 200 || res.body != "late" {
		t.Errorf("the request under way got %d %q", res.status, res.body)
	}
	s.exits(0)
	if _, err := http.Get(s.admin + "/healthz"); err == nil {
		t.Error("the admin port answers after the end")
	}
}

func TestUninstall_RemovesWhatServeLeftAndNotWhileItRuns(t *testing.T) {
	cleanEnv(t)
	dsn := sandboxtest.Postgres(t)
	name := "cli_" + dsn[strings.LastIndex(dsn, "/")+1:strings.LastIndex(dsn, "?")]
	flags := []string{"--database-url", dsn, "--slot", name, "--publication", name}
	s := serveWith(t, append(flags, "--upstream", hello(t).URL)...)
	sandboxtest.Eventually(t, 30*time.Second, func() error {
		if res := ask(t, s.url); !res.hit() {
			return errors.New(res.header.Get("Cache-Status"))
		}
		return nil
	})
	uninstall := func(more ...string) (int, string, string) {
		return typedFor(time.Minute, append(append([]string{"uninstall"}, flags...), more...)...)
	}
	if code, stdout, stderr := uninstall(); code != 1 || stdout != "" || !strings.Contains(stderr, "is held by pid") {
		t.Errorf("while it runs: exit %d\n%s%s", code, stdout, stderr)
	}
	s.exits(0)
	statements := fmt.Sprintf("SELECT pg_drop_replication_slot('%s');\nDROP PUBLICATION \"%s\";\nDROP PUBLICATION \"%s_updates\";\n", name, name, name)
	sandboxtest.Eventually(t, 10*time.Second, func() error { // the server needs a moment to see that it is gone
		if code, stdout, stderr := uninstall("--dry-run"); code != 0 || stdout != statements {
			return fmt.Errorf("dry run: exit %d\n%s%s", code, stdout, stderr)
		}
		if code, stdout, stderr := uninstall(); code != 0 || stdout != statements {
			return fmt.Errorf("exit %d\n%s%s", code, stdout, stderr)
		}
		return nil
	})
	if code, stdout, _ := uninstall(); code != 0 || stdout != "nothing of this proxy is left\n" {
		t.Errorf("again: exit %d\n%s", code, stdout)
	}
}
