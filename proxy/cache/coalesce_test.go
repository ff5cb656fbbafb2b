package cache_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"walcache/proxy/cache"
	"walcache/proxy/coherence"
)

// together sends n requests at the same time and returns what came back.
func (w *world) together(n int, target string, lines func(i int) []string) []reply {
	w.t.Helper()
	replies := make([]reply, n)
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			var header []string
			if lines != nil {
				header = lines(i)
			}
			replies[i], errs[i] = w.try(context.Background(), http.MethodGet, target, header...)
		})
	}
	wg.Wait()
	for _, err := range errs {
		must(w.t, err)
	}
	return replies
}

// gate is an upstream that holds its answers back until it is opened.
type gate struct {
	open    chan struct{}
	at, max atomic.Int64 // requests inside
}

func newGate() *gate { return &gate{open: make(chan struct{})} }

func (g *gate) pass(r *http.Request) {
	for at, most := g.at.Add(1), g.max.Load(); at > most && !g.max.CompareAndSwap(most, at); most = g.max.Load() {
	}
	defer g.at.Add(-1)
	select {
	case <-g.open:
	case <-r.Context().Done():
	}
}

func TestMiss_AThousandColdRequestsAreOneFetch(t *testing.T) {
	w := newWorld(t, text("list"))
	for _, r := range w.together(1000, "/a", nil) {
		if r.body != "list" || r.status != http.StatusOK {
			t.Fatalf("got %d %q", r.status, r.body)
		}
	}
	w.wantFetches(1)
	s := w.cache.Stats()
	if s.Coalesced+s.Hits["memory"] != 999 || s.Misses["uri-miss"] != s.Coalesced+1 {
		t.Errorf("%d coalesced, %d hits, misses %v", s.Coalesced, s.Hits["memory"], s.Misses)
	}
}

func TestMiss_WaitersAreMarkedCollapsed(t *testing.T) {
	g := newGate()
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) { g.pass(r); fmt.Fprint(rw, "x") })
	go func() {
		eventually(t, "19 wait", func() bool { return w.cache.Stats().Waiting == 19 })
		close(g.open)
	}()
	collapsed := 0
	for _, r := range w.together(20, "/a", nil) {
		if strings.Contains(r.says(), "collapsed") {
			w.wantSays(r, "fwd=uri-miss", "fwd-status=200", "stored", "collapsed")
			collapsed++
		}
	}
	if collapsed == 0 {
		t.Error("none of 20 was collapsed")
	}
	w.wantFetches(1)
}

// A request that arrives while a fetch is running may not have its answer if
// that is stale when it ends: the fetch may have read before a write whose end
// the client has seen.
func TestMiss_WhoArrivesDuringAFetchDoesNotGetWhatItReadBeforeAChange(t *testing.T) {
	var reads atomic.Int64
	reading, changed := make(chan struct{}), make(chan struct{})
	w := newWorld(t, func(rw http.ResponseWriter, _ *http.Request) {
		n := reads.Add(1)
		if n == 1 {
			close(reading)
			<-changed
		}
		fmt.Fprint(rw, n)
	})
	first := make(chan reply)
	go func() { r, _ := w.try(context.Background(), http.MethodGet, "/a"); first <- r }()
	<-reading
	w.db.commit("properties")
	go func() {
		eventually(t, "the others wait", func() bool { return w.cache.Stats().Waiting == 50 })
		close(changed)
	}()
	for _, r := range w.together(50, "/a", nil) {
		if r.body != "2" {
			t.Errorf("got %q, not what was read once for all who came after the change", r.body)
		}
	}
	if r := <-first; r.body != "1" {
		t.Errorf("the first got %q", r.body)
	}
	w.wantFetches(2)
}

// A tag that changes all the time: nothing stored is ever fresh, and still the
// upstream sees at most two requests at a time.
func TestMiss_AKeyThatNeverStaysFreshHasAtMostTwoFetchesAtATime(t *testing.T) {
	var at, most atomic.Int64
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		for n, m := at.Add(1), most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		time.Sleep(5 * time.Millisecond) // a query takes its time
		at.Add(-1)
		fmt.Fprint(rw, "x")
	})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			w.db.commit("properties")
			time.Sleep(time.Millisecond)
		}
	})
	var answered atomic.Int64
	for range 200 {
		wg.Go(func() {
			for ctx.Err() == nil {
				if r, err := w.try(ctx, http.MethodGet, "/a"); err == nil && r.body == "x" {
					answered.Add(1)
				}
			}
		})
	}
	eventually(t, "all have been answered a few times", func() bool { return answered.Load() >= 1000 })
	stop()
	wg.Wait()
	t.Logf("%d answers, %d fetches, at most %d at a time", answered.Load(), w.fetches.Load(), most.Load())
	if most.Load() > 2 {
		t.Errorf("%d fetches at a time", most.Load())
	}
}

// Requests for a key whose answers are private do not wait for one another.
func TestHitForMiss_PrivateAnswersAreFetchedInParallel(t *testing.T) {
	g := newGate()
	var private, held atomic.Bool
	private.Store(true)
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		if held.Load() {
			g.pass(r)
		}
		if private.Load() {
			rw.Header().Set("Cache-Control", "private")
		}
		fmt.Fprint(rw, "x")
	})
	w.wantSays(w.get("/a"), "fwd=uri-miss", "detail=private")
	held.Store(true)
	go func() {
		eventually(t, "10 are at the upstream", func() bool { return g.at.Load() == 10 })
		held.Store(false)
		close(g.open)
	}()
	w.together(10, "/a", nil)
	if g.max.Load() != 10 {
		t.Errorf("%d at a time", g.max.Load())
	}
	private.Store(false)
	w.get("/a")
	w.wantHit(w.get("/a"), "x")
}

// The answer turns out to be for one client only: those who waited for it do
// not now wait for one another.
func TestHitForMiss_WaitersLeaveWhenTheHeaderSaysPrivate(t *testing.T) {
	header, body := newGate(), newGate()
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		header.pass(r)
		rw.Header().Set("Cache-Control", "private")
		http.NewResponseController(rw).Flush()
		body.pass(r)
		fmt.Fprint(rw, "x")
	})
	go func() {
		eventually(t, "9 wait", func() bool { return w.cache.Stats().Waiting == 9 })
		close(header.open)
		eventually(t, "10 are at the upstream", func() bool { return body.at.Load() == 10 })
		close(body.open)
	}()
	w.together(10, "/a", nil)
	w.wantFetches(10)
}

func TestFailure_IsSharedByWhoWaits(t *testing.T) {
	g := newGate()
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		g.pass(r)
		panic(http.ErrAbortHandler) // the connection breaks
	})
	go func() {
		eventually(t, "19 wait", func() bool { return w.cache.Stats().Waiting == 19 })
		close(g.open)
	}()
	for _, r := range w.together(20, "/a", nil) {
		if r.status != http.StatusBadGateway || !strings.Contains(r.body, "upstream") {
			t.Errorf("got %d %q", r.status, r.body)
		}
		w.wantSays(r, "fwd=uri-miss")
	}
	w.wantFetches(1)
}

// An error page is not stored, and still a service that is failing is not asked
// by everyone at once.
func TestFailure_AnErrorPageIsSharedAndNotStored(t *testing.T) {
	g := newGate()
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		g.pass(r)
		rw.WriteHeader(http.StatusInternalServerError)
		fmt.Fprint(rw, "oops")
	})
	go func() {
		eventually(t, "19 wait", func() bool { return w.cache.Stats().Waiting == 19 })
		close(g.open)
	}()
	for _, r := range w.together(20, "/a", nil) {
		if r.status != http.StatusInternalServerError || r.body != "oops" {
			t.Errorf("got %d %q", r.status, r.body)
		}
	}
	if n := w.fetches.Load(); n > 2 {
		t.Errorf("%d fetches of an error page", n)
	}
	w.wantSays(w.get("/a"), "fwd=uri-miss", "detail=status")
}

// meddler lets a test do something when a verdict has been given.
type meddler struct {
	*database
	then atomic.Pointer[func(coherence.Verdict)]
}

func (m *meddler) Judge(asOf coherence.Position, deps coherence.Dependencies, now time.Time) coherence.Verdict {
	v := m.database.Judge(asOf, deps, now)
	if then := m.then.Swap(nil); then != nil {
		(*then)(v)
	}
	return v
}

// Who is about to lead a flight finds a fresh answer after all. Before it can
// hand that on, the row changes, and somebody who knows of it comes to wait.
func TestMiss_WhoComesAfterAChangeDoesNotGetWhatWasFreshBefore(t *testing.T) {
	var row atomic.Int64
	m := &meddler{}
	w := newWorld(t, func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprint(rw, row.Load()) }, func(c *cache.Config) {
		m.database = c.Truth.(*database)
		c.Truth = m
	})
	change := func() { row.Add(1); w.db.commit("users") }
	w.get("/a")
	change()
	late := make(chan reply, 1)
	findsItFresh := func(v coherence.Verdict) {
		if v != coherence.Fresh {
			t.Errorf("what has just been stored is %v", v)
		}
		change()
		go func() { r, _ := w.try(context.Background(), http.MethodGet, "/a"); late <- r }()
		eventually(t, "the other waits", func() bool { return w.cache.Stats().Waiting == 1 })
	}
	findsItChanged := func(coherence.Verdict) {
		w.get("/a")
		m.then.Store(&findsItFresh)
	}
	m.then.Store(&findsItChanged)
	w.get("/a")
	if r := <-late; r.body != "2" {
		t.Errorf("got %q, read before a change that it may have known of (%s)", r.body, r.says())
	}
}

// A client that has closed its side of the connection has left, as far as
// net/http can tell, but it may read what it is sent.
func TestWaiter_ThatHasClosedItsSideGetsNoEmptyAnswer(t *testing.T) {
	g := newGate()
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) { g.pass(r); fmt.Fprint(rw, "x") })
	defer close(g.open)
	go func() { _, _ = w.try(context.Background(), http.MethodGet, "/a") }()
	eventually(t, "the leader is at the upstream", func() bool { return g.at.Load() == 1 })
	conn, err := net.Dial("tcp", w.proxy.Listener.Addr().String())
	must(t, err)
	defer conn.Close()
	fmt.Fprintf(conn, "GET /a HTTP/1.1\r\nHost: %s\r\n\r\n", w.proxy.Listener.Addr())
	eventually(t, "it waits", func() bool { return w.cache.Stats().Waiting == 1 })
	must(t, conn.(*net.TCPConn).CloseWrite())
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	must(t, err)
	defer res.Body.Close()
	if res.StatusCode != http.StatusBadGateway {
		t.Errorf("%s", res.Status)
	}
}

// Whatever clients and the upstream do, nothing of it stays behind.
func TestNothingIsLeftOver(t *testing.T) {
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		n := rand.IntN(8)
		if n == 0 {
			rw.Header().Set("Cache-Control", "private")
		}
		if n == 1 {
			panic(http.ErrAbortHandler)
		}
		if n == 2 {
			rw.WriteHeader(http.StatusServiceUnavailable)
		}
		fmt.Fprint(rw, strings.Repeat("x", rand.IntN(100_000)))
		if n == 3 {
			_ = http.NewResponseController(rw).Flush()
			panic(http.ErrAbortHandler)
		}
	}, func(c *cache.Config) {
		c.MaxFetches, c.QueueTimeout = 4, 5*time.Millisecond
		c.MaxObject, c.Grace = 50_000, time.Millisecond
	})
	before := runtime.NumGoroutine()
	var clients sync.WaitGroup
	for range 16 {
		clients.Go(func() {
			for range 100 {
				ctx, leave := context.WithTimeout(context.Background(), time.Duration(rand.IntN(10_000))*time.Microsecond)
				_, _ = w.try(ctx, http.MethodGet, fmt.Sprint("/", rand.IntN(3))) // what comes of it is not what is tested
				w.db.commit("users")
				leave()
			}
		})
	}
	clients.Wait()
	eventually(t, "nobody is at the upstream or waits", func() bool {
		s := w.cache.Stats()
		return s.Fetches.Now == 0 && s.Waiting == 0
	})
	w.proxy.CloseClientConnections()
	w.upstream.CloseClientConnections()
	eventually(t, "all goroutines have ended", func() bool { return runtime.NumGoroutine() <= before })
}

func TestLeader_WhoseClientLeavesDoesNotFailTheWaiters(t *testing.T) {
	g := newGate()
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) { g.pass(r); fmt.Fprint(rw, "x") })
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan error)
	go func() { _, err := w.try(ctx, http.MethodGet, "/a"); left <- err }()
	eventually(t, "the leader is at the upstream", func() bool { return g.at.Load() == 1 })
	waiter := make(chan reply)
	go func() { r, _ := w.try(t.Context(), http.MethodGet, "/a"); waiter <- r }()
	eventually(t, "the other waits", func() bool { return w.cache.Stats().Waiting == 1 })
	leave()
	if err := <-left; err == nil {
		t.Fatal("the leader's client got an answer")
	}
	close(g.open)
	if r := <-waiter; r.body != "x" {
		t.Errorf("the waiter got %d %q", r.status, r.body)
	}
	w.wantFetches(1)
	w.wantHit(w.get("/a"), "x")
}

// Past the limit the copy is given up, and the stream goes on.
func TestLongBody_IsStreamedAndNotStored(t *testing.T) {
	body := strings.Repeat("0123456789", 100_000)
	for _, framing := range []string{"length", "chunked"} {
		t.Run(framing, func(t *testing.T) {
			w := newWorld(t, func(rw http.ResponseWriter, _ *http.Request) {
				if framing == "length" {
					rw.Header().Set("Content-Length", fmt.Sprint(len(body)))
				}
				fmt.Fprint(rw, body)
			}, func(c *cache.Config) { c.MaxObject = 10_000 })
			for _, r := range w.together(20, "/a", nil) {
				if r.body != body {
					t.Fatalf("got %d bytes of %d", len(r.body), len(body))
				}
			}
			if got := w.get("/a"); got.isHit() || got.body != body {
				t.Errorf("%s, %d bytes", got.says(), len(got.body))
			}
			if w.cache.Stats().Refused["too-large"] == 0 {
				t.Errorf("refused %v", w.cache.Stats().Refused)
			}
		})
	}
}

func TestSlowClient_DoesNotHoldUpTheCopy(t *testing.T) {
	body := strings.Repeat("0123456789", 400_000) // more than the sockets hold
	w := newWorld(t, text(body))
	res, err := w.client.Get(w.proxy.URL + "/a") // and read nothing
	must(t, err)
	defer res.Body.Close()
	eventually(t, "the answer is stored", func() bool { return w.cache.Stats().Stored == 1 })
	w.wantHit(w.get("/a"), body)
	w.wantFetches(1)
}
