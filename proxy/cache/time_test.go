package cache_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"walcache/proxy/cache"
	"walcache/proxy/origin"
	"walcache/proxy/store"
)

// bubble is a proxy and its upstream in a synctest bubble, where time passes
// when all wait for it. They are connected by pipes: a bubble cannot tell that
// nothing will come from a socket.
type bubble struct {
	t     *testing.T
	db    *database
	cache *cache.Cache
}

func inBubble(t *testing.T, upstream http.HandlerFunc, changes []change, test func(*bubble)) {
	synctest.Test(t, func(t *testing.T) {
		serve(t, upstream, func(o *origin.Origin) { newBubble(t, o, changes, test) })
	})
}

// serve runs an upstream while do runs.
func serve(t *testing.T, upstream http.HandlerFunc, do func(*origin.Origin)) {
	conns := make(pipes)
	server := &http.Server{Handler: upstream}
	go func() { _ = server.Serve(conns) }()
	o, err := origin.New(origin.Config{Upstream: "http://upstream", Timeout: 10 * time.Second, Dial: conns.dial})
	must(t, err)
	do(o)
	synctest.Wait() // for a connection that is still being made
	o.Close()
	must(t, server.Close())
}

func newBubble(t *testing.T, o *origin.Origin, changes []change, test func(*bubble)) {
	memory, err := store.NewMemory(1 << 20)
	must(t, err)
	b := &bubble{t: t, db: newDatabase()}
	config := cache.Defaults()
	config.Origin, config.Store, config.Truth = o, memory, b.db
	for _, change := range changes {
		change(&config)
	}
	b.cache, err = cache.New(config)
	must(t, err)
	test(b)
	memory.Close()
}

// serveUnwatched is a bubble without a database.
func serveUnwatched(t *testing.T, upstream http.HandlerFunc, do func(get func(lines ...string) reply)) {
	serve(t, upstream, func(o *origin.Origin) {
		unwatched := func(c *cache.Config) { c.Truth = cache.NewUnwatched() }
		newBubble(t, o, []change{unwatched}, func(b *bubble) {
			do(func(lines ...string) reply { return b.get(b.t.Context(), "/a", lines...) })
		})
	})
}

// pipes is a net.Listener and a dialer of it.
type pipes chan net.Conn

func (p pipes) dial(context.Context, string, string) (net.Conn, error) {
	here, there := net.Pipe()
	p <- there
	return here, nil
}

func (p pipes) Accept() (net.Conn, error) {
	conn, ok := <-p
	if !ok {
		return nil, net.ErrClosed
	}
	return conn, nil
}

func (p pipes) Close() error   { close(p); return nil }
func (p pipes) Addr() net.Addr { return &net.UnixAddr{} }

func (b *bubble) get(ctx context.Context, target string, lines ...string) reply {
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Add(name, value)
	}
	w := httptest.NewRecorder()
	b.cache.ServeHTTP(w, r)
	return reply{w.Code, w.Header(), w.Body.String()}
}

func (b *bubble) want(body, says string) {
	b.t.Helper()
	if r := b.get(b.t.Context(), "/a"); r.body != body || !strings.Contains(r.says(), says) {
		b.t.Errorf("got %q, %q, want %q, %q", r.body, r.says(), body, says)
	}
}

func TestTTL_EndsAnAnswer(t *testing.T) {
	inBubble(t, counted(), nil, func(b *bubble) {
		b.want("1", "fwd=uri-miss")
		time.Sleep(time.Second)
		b.want("1", "hit; ttl=899; ")
		if got := b.get(b.t.Context(), "/a").header.Get("Age"); got != "1" {
			t.Errorf("Age is %q", got)
		}
		time.Sleep(15*time.Minute - 2*time.Second)
		b.want("1", "hit; ttl=1; ")
		time.Sleep(time.Second)
		b.want("2", "stored")
	})
}

func TestTTL_IsBoundedByMaxTTL(t *testing.T) {
	inBubble(t, counted("Cache-Control: max-age=31536000"), nil, func(b *bubble) {
		b.want("1", "fwd=uri-miss")
		time.Sleep(24*time.Hour - time.Second)
		b.want("1", "hit; ttl=1; ")
		time.Sleep(time.Second)
		b.want("2", "stored")
	})
}

func TestAge_CountsTheTimeOnTheWay(t *testing.T) {
	inBubble(t, func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(3 * time.Second)
		text("x", "Age: 10")(w, r)
	}, nil, func(b *bubble) {
		b.want("x", "fwd=uri-miss")
		time.Sleep(5 * time.Second)
		if got := b.get(b.t.Context(), "/a").header.Get("Age"); got != "18" {
			t.Errorf("Age is %q, want 10 + 3 + 5", got)
		}
	})
}

func TestWindows_End(t *testing.T) {
	lines := "Cache-Control: max-age=60, stale-while-revalidate=30, stale-if-error=90"
	inBubble(t, once(text("old", lines), errorPage), nil, func(b *bubble) {
		b.want("old", "fwd=uri-miss")
		time.Sleep(89 * time.Second)
		b.want("old", "fwd=stale; detail=expired") // and the refresh fails
		synctest.Wait()
		time.Sleep(time.Second)
		b.want("old", "fwd=stale; fwd-status=503; detail=expired")
		time.Sleep(60 * time.Second)
		b.want("down", "fwd-status=503")
	})
}

func TestGrace_Ends(t *testing.T) {
	grace := func(c *cache.Config) { c.Grace = 2 * time.Second }
	inBubble(t, once(text("old"), errorPage), []change{grace}, func(b *bubble) {
		b.want("old", "fwd=uri-miss")
		b.db.commit("users")
		time.Sleep(2*time.Second - time.Nanosecond)
		b.want("old", "fwd=stale; detail=changed")
		time.Sleep(time.Nanosecond)
		b.want("down", "fwd=stale; fwd-status=503; detail=changed")
	})
}

func TestServeChangedIfError_Ends(t *testing.T) {
	outage := func(c *cache.Config) { c.ServeChangedIfError = time.Hour }
	inBubble(t, once(text("old"), errorPage), []change{outage}, func(b *bubble) {
		b.want("old", "fwd=uri-miss")
		b.db.commit("users")
		time.Sleep(time.Hour - time.Second)
		b.want("old", "fwd=stale; fwd-status=503; detail=changed")
		time.Sleep(time.Second)
		b.want("down", "fwd-status=503")
	})
}

// A key whose answers were private is coalesced again after a minute.
func TestHitForMiss_IsForgottenAfterAMinute(t *testing.T) {
	var n atomic.Int64
	inBubble(t, func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1) == 1 {
			w.Header().Set("Cache-Control", "private")
		}
		time.Sleep(time.Second)
		fmt.Fprint(w, "x")
	}, nil, func(b *bubble) {
		b.want("x", "detail=private")
		time.Sleep(time.Minute)
		for range 10 {
			go b.get(b.t.Context(), "/a")
		}
		time.Sleep(2 * time.Second)
		if n.Load() != 2 {
			t.Errorf("%d fetches, want the private one and one for all", n.Load())
		}
	})
}

// A body that does not end holds no slot for ever, and ends with its client.
func TestCopy_OfAnEndlessBodyIsGivenUp(t *testing.T) {
	for name, clientStays := range map[string]time.Duration{"its client leaves": 0, "its client stays": time.Hour} {
		t.Run(name, func(t *testing.T) {
			var ended atomic.Bool
			inBubble(t, func(w http.ResponseWriter, r *http.Request) {
				for r.Context().Err() == nil {
					fmt.Fprint(w, "x")
					_ = http.NewResponseController(w).Flush()
					time.Sleep(time.Second)
				}
				ended.Store(true)
			}, nil, func(b *bubble) {
				want := func(slots int64, over bool) {
					t.Helper()
					synctest.Wait()
					if got := b.cache.Stats().Fetches.Now; got != slots || ended.Load() != over {
						t.Errorf("%d slots held, ended: %v; want %d, %v", got, ended.Load(), slots, over)
					}
				}
				ctx, leave := context.WithTimeout(b.t.Context(), max(clientStays, time.Millisecond))
				defer leave()
				go b.get(ctx, "/a")
				time.Sleep(29500 * time.Millisecond)
				want(1, false)
				time.Sleep(2 * time.Second)
				want(0, clientStays == 0)
				time.Sleep(clientStays)
				want(0, true)
			})
		})
	}
}

// Waiting for the header has no limit but the upstream's.
func TestSlowQuery_RunsOnceForAllWhoWait(t *testing.T) {
	var n atomic.Int64
	inBubble(t, func(w http.ResponseWriter, r *http.Request) {
		n.Add(1)
		time.Sleep(9 * time.Second)
		_, _ = io.WriteString(w, "x")
	}, nil, func(b *bubble) {
		for range 100 {
			go func() {
				if r := b.get(b.t.Context(), "/a"); r.body != "x" {
					t.Errorf("%d %q", r.status, r.body)
				}
			}()
		}
		time.Sleep(10 * time.Second)
		if n.Load() != 1 {
			t.Errorf("the query ran %d times", n.Load())
		}
	})
}

func TestQueue_IsFirstComeFirstServed(t *testing.T) {
	var order []string
	one := func(c *cache.Config) { c.MaxFetches = 1 }
	inBubble(t, func(w http.ResponseWriter, r *http.Request) {
		order = append(order, r.URL.Path)
		time.Sleep(time.Second)
	}, []change{one}, func(b *bubble) {
		for _, target := range []string{"/1", "/2", "/3", "/4"} {
			go b.get(b.t.Context(), target)
			synctest.Wait()
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if got := strings.Join(order, ""); got != "/1/2/3/4" {
			t.Errorf("%s", got)
		}
	})
}

// A page was private once, and now browsers that have it ask whether it has
// changed: that says nothing of what others may have.
func TestHitForMiss_IsNotProlongedByAnswersWithoutABody(t *testing.T) {
	var n atomic.Int64
	inBubble(t, func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1) == 1 {
			w.Header().Set("Cache-Control", "private")
		}
		w.Header().Set("ETag", `"v1"`)
		if r.Header.Get("If-None-Match") != "" {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		fmt.Fprint(w, "x")
	}, nil, func(b *bubble) {
		b.want("x", "detail=private")
		for range 5 {
			time.Sleep(15 * time.Second)
			if r := b.get(b.t.Context(), "/a", `If-None-Match: "v1"`); r.status != http.StatusNotModified {
				b.t.Errorf("%d", r.status)
			}
		}
		b.want("x", "hit; ")
	})
}
