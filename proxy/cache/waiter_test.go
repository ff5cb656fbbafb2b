package cache_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"walcache/proxy/cache"
)

// script is an upstream that writes a piece of its answer whenever a test says
// so, the header with the first, and ends when the test does.
type script struct {
	pieces chan string
	broken atomic.Bool // it breaks off at the end
}

func newScript() *script { return &script{pieces: make(chan string)} }

func (s *script) write(rw http.ResponseWriter, r *http.Request) {
	for {
		select {
		case piece, more := <-s.pieces:
			if !more && s.broken.Load() {
				panic(http.ErrAbortHandler)
			}
			if !more {
				return
			}
			fmt.Fprint(rw, piece)
			_ = http.NewResponseController(rw).Flush()
		case <-r.Context().Done():
			return
		}
	}
}

// download is an answer that a client reads piece by piece.
type download struct {
	t *testing.T
	*http.Response
	text *bufio.Reader
	err  error
}

// start sends a request and returns the answer when its header is there.
func (w *world) start(ctx context.Context, target string, lines ...string) chan *download {
	started := make(chan *download, 1)
	go func() {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.proxy.URL+target, nil)
		if err != nil {
			w.t.Error(err)
		}
		for _, line := range lines {
			name, value, _ := strings.Cut(line, ": ")
			req.Header.Add(name, value)
		}
		d := &download{t: w.t}
		if d.Response, d.err = w.client.Do(req); d.err == nil {
			d.text = bufio.NewReader(d.Body)
			w.t.Cleanup(func() { _ = d.Body.Close() })
		}
		started <- d
	}()
	return started
}

// startAll has one lead a fetch and others wait for it.
func (w *world) startAll(ctx context.Context, waiters int64, target string) (leader chan *download, others []chan *download) {
	w.t.Helper()
	was := w.fetches.Load()
	leader = w.start(ctx, target)
	eventually(w.t, "one is at the upstream", func() bool { return w.fetches.Load() == was+1 })
	for range waiters {
		others = append(others, w.start(w.t.Context(), target))
	}
	eventually(w.t, "the others wait", func() bool { return w.cache.Stats().Waiting == waiters })
	return leader, others
}

func (d *download) wantNext(text string) {
	d.t.Helper()
	must(d.t, d.err)
	got := make([]byte, len(text))
	if _, err := io.ReadFull(d.text, got); err != nil || string(got) != text {
		d.t.Fatalf("got %q, %v, want %q", got, err, text)
	}
}

func (d *download) wantEnd() {
	d.t.Helper()
	if rest, err := io.ReadAll(d.text); err != nil || len(rest) > 0 {
		d.t.Fatalf("got %q, %v, want the end", rest, err)
	}
}

func says(d *download) string { return reply{header: d.Header}.says() }

// Each gets the header and every piece as it arrives, with or without a length.
func TestWaiters_GetTheBodyAsItArrives(t *testing.T) {
	for _, framing := range []string{"length", "chunked"} {
		t.Run(framing, func(t *testing.T) {
			upstream := newScript()
			w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
				if framing == "length" {
					rw.Header().Set("Content-Length", "8")
				}
				upstream.write(rw, r)
			})
			leader, others := w.startAll(t.Context(), 5, "/a")
			upstream.pieces <- "" // the header
			all := []*download{<-leader}
			for _, other := range others {
				all = append(all, <-other)
			}
			for i, d := range all {
				must(t, d.err)
				if strings.Contains(says(d), "collapsed") != (i > 0) || !strings.Contains(says(d), "fwd=uri-miss; fwd-status=200; stored") {
					t.Errorf("%d: %s", i, says(d))
				}
			}
			for i, piece := range []string{"one", "two"} {
				upstream.pieces <- piece
				for _, d := range all {
					d.wantNext(piece)
				}
				// Who comes now gets what has arrived, and then the rest.
				late := <-w.start(t.Context(), "/a")
				late.wantNext([]string{"one", "onetwo"}[i])
				all = append(all, late)
			}
			upstream.pieces <- "3!"
			close(upstream.pieces)
			for _, d := range all {
				d.wantNext("3!")
				d.wantEnd()
			}
			w.wantFetches(1)
			w.wantHit(w.get("/a"), "onetwo3!")
		})
	}
}

// A client that has the answer is told so as soon as that is known.
func TestWaiters_WhoHaveTheAnswerDoNotWaitForItsBody(t *testing.T) {
	upstream := newScript()
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("ETag", `"v1"`)
		upstream.write(rw, r)
	})
	leader, _ := w.startAll(t.Context(), 0, "/a")
	other := w.start(t.Context(), "/a", `If-None-Match: "v1"`)
	eventually(t, "the other waits", func() bool { return w.cache.Stats().Waiting == 1 })
	upstream.pieces <- "x"
	d := <-other
	must(t, d.err)
	if d.StatusCode != http.StatusNotModified || d.Header.Get("ETag") != `"v1"` || !strings.Contains(says(d), "collapsed") {
		t.Errorf("%d %v", d.StatusCode, d.Header)
	}
	close(upstream.pieces)
	first := <-leader
	first.wantNext("x")
	first.wantEnd()
	w.wantFetches(1)
}

// The row changes after the header, while the body arrives. Who asked before
// that may have it. Who asks after it may not, and does not wait for its end
// either: one next fetch serves all of them, as it arrives.
func TestWaiters_WhoArriveAfterAChangeShareTheNextFetch(t *testing.T) {
	first, second := newScript(), newScript()
	var n atomic.Int64
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		if n.Add(1) == 1 {
			first.write(rw, r)
			return
		}
		second.write(rw, r)
	})
	leader, others := w.startAll(t.Context(), 2, "/a")
	first.pieces <- "old"
	before := []*download{<-leader, <-others[0], <-others[1]}
	w.db.commit("properties")
	var after []chan *download
	for range 20 {
		after = append(after, w.start(t.Context(), "/a"))
	}
	eventually(t, "somebody asks again", func() bool { return n.Load() == 2 })
	eventually(t, "the others wait", func() bool { return w.cache.Stats().Waiting == 19 })
	second.pieces <- "new"
	for _, started := range after {
		d := <-started
		d.wantNext("new")
		defer d.wantEnd()
	}
	first.pieces <- "!"
	close(first.pieces)
	for _, d := range before {
		d.wantNext("old!")
		d.wantEnd()
	}
	w.wantFetches(2)
	close(second.pieces)
	eventually(t, "both are stored", func() bool { return w.cache.Stats().Stored == 2 })
	w.wantHit(w.get("/a"), "new")
}

// Of what is not known to be fresh nothing is given to who came too late for it
// while it arrives.
func TestWaiters_WhoArriveInDoubtAskForThemselves(t *testing.T) {
	first, second := newScript(), newScript()
	var n atomic.Int64
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		if n.Add(1) == 1 {
			first.write(rw, r)
			return
		}
		second.write(rw, r)
	})
	leader, _ := w.startAll(t.Context(), 0, "/a")
	first.pieces <- "1"
	(<-leader).wantNext("1")
	w.db.doubt()
	late := w.start(t.Context(), "/a")
	second.pieces <- "2"
	(<-late).wantNext("2")
	close(first.pieces)
	close(second.pieces)
}

// A body that breaks off does so for all, and nobody takes a part for the whole.
func TestWaiters_GetABrokenBodyAsBroken(t *testing.T) {
	for _, framing := range []string{"length", "chunked"} {
		t.Run(framing, func(t *testing.T) {
			upstream := newScript()
			upstream.broken.Store(true)
			w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
				if framing == "length" {
					rw.Header().Set("Content-Length", "10")
				}
				upstream.write(rw, r)
			})
			leader, others := w.startAll(t.Context(), 5, "/a")
			upstream.pieces <- "begin"
			all := append(others, leader)
			for i, started := range all {
				d := <-started
				d.wantNext("begin")
				if i == len(all)-1 {
					close(upstream.pieces)
				}
				defer func() {
					if rest, err := io.ReadAll(d.text); err == nil {
						t.Errorf("%d: got %q as if it were complete", i, rest)
					}
				}()
			}
			eventually(t, "it is refused", func() bool { return w.cache.Stats().Refused["broken"] == 1 })
			if s := w.cache.Stats(); s.Stored != 0 {
				t.Errorf("stored %d", s.Stored)
			}
		})
	}
}

// The client whose request fetched it goes away in the middle, and those who wait
// too, but for one.
func TestWaiters_DoNotNeedTheLeader(t *testing.T) {
	upstream := newScript()
	w := newWorld(t, upstream.write)
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	leader, others := w.startAll(ctx, 1, "/a")
	impatient := w.start(ctx, "/a")
	upstream.pieces <- "be"
	(<-leader).wantNext("be")
	(<-impatient).wantNext("be")
	other := <-others[0]
	other.wantNext("be")
	leave()
	upstream.pieces <- "gin"
	other.wantNext("gin")
	close(upstream.pieces)
	other.wantEnd()
	w.wantFetches(1)
	w.wantHit(w.get("/a"), "begin")
}

// And if all have left it is kept anyway.
func TestFill_GoesOnWithoutAnyClient(t *testing.T) {
	upstream := newScript()
	w := newWorld(t, upstream.write)
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	leader, _ := w.startAll(ctx, 0, "/a")
	upstream.pieces <- "be"
	(<-leader).wantNext("be")
	leave()
	upstream.pieces <- "gin"
	close(upstream.pieces)
	eventually(t, "it is stored", func() bool { return w.cache.Stats().Stored == 1 })
	w.wantHit(w.get("/a"), "begin")
}

// What is too long to be stored is shared by those who wait all the same.
func TestLongBody_IsSharedByWhoWaits(t *testing.T) {
	const limit, length, block = 256 << 10, 2 << 20, 16 << 10
	for _, framing := range []string{"length", "chunked"} {
		t.Run(framing, func(t *testing.T) {
			g := newGate()
			w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
				g.pass(r)
				if framing == "length" {
					rw.Header().Set("Content-Length", fmt.Sprint(length))
				}
				for i := range length / block {
					fmt.Fprintf(rw, "%*d", block, i)
				}
			}, func(c *cache.Config) { c.MaxObject = limit })
			leader, others := w.startAll(t.Context(), 8, "/a")
			close(g.open)
			var wg sync.WaitGroup
			for _, started := range append(others, leader) {
				wg.Go(func() {
					d := <-started
					if d.err != nil {
						t.Error(d.err)
						return
					}
					got := make([]byte, block)
					for i := range length / block {
						if _, err := io.ReadFull(d.text, got); string(got) != fmt.Sprintf("%*d", block, i) {
							t.Errorf("block %d is %q, %v", i, got, err)
							return
						}
					}
					if _, err := d.text.ReadByte(); err != io.EOF {
						t.Errorf("after the end: %v", err)
					}
				})
			}
			wg.Wait()
			w.wantFetches(1)
			if s := w.cache.Stats(); s.Stored != 0 || s.Refused["too-large"] != 1 || s.CutOff != 0 {
				t.Errorf("stored %d, refused %v, cut off %d", s.Stored, s.Refused, s.CutOff)
			}
		})
	}
}

// An endless body passes as it arrives, and ends upstream with its last client.
func TestLongBody_EndsWithItsLastClient(t *testing.T) {
	g := newGate()
	ended := make(chan struct{})
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		defer close(ended)
		g.pass(r)
		for r.Context().Err() == nil {
			if _, err := io.WriteString(rw, strings.Repeat("x", 1000)); err != nil {
				return
			}
		}
	}, func(c *cache.Config) { c.MaxObject = 100_000 })
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	leader, others := w.startAll(ctx, 1, "/a")
	close(g.open)
	mebibyte := strings.Repeat("x", 1<<20)
	first, second := <-leader, <-others[0]
	first.wantNext("x")
	leave()
	second.wantNext(mebibyte)
	select {
	case <-ended:
		t.Fatal("the upstream is left while somebody reads")
	default:
	}
	must(t, second.Body.Close())
	<-ended
}

// Nobody can have another's event stream.
func TestEventStream_IsNotShared(t *testing.T) {
	g := newGate()
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		n := g.max.Load()
		g.pass(r)
		rw.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprintf(rw, "data: %d\n\n", n)
		_ = http.NewResponseController(rw).Flush()
		<-r.Context().Done()
	})
	leader, others := w.startAll(t.Context(), 4, "/events")
	close(g.open)
	for i, started := range append(others, leader) {
		d := <-started
		d.wantNext("data: ")
		if strings.Contains(says(d), "collapsed") {
			t.Errorf("%d: %s", i, says(d))
		}
	}
	w.wantFetches(5)
	if now := w.cache.Stats().Fetches.Now; now != 0 {
		t.Errorf("open streams hold %d slots", now)
	}
}

// A thousand wait for one body that comes in pieces; some leave. All get the
// whole of it, and nothing of them stays behind.
func TestWaiters_AThousandShareOneBody(t *testing.T) {
	const pieces = 10
	piece := strings.Repeat("0123456789", 100)
	upstream := newScript()
	w := newWorld(t, upstream.write)
	before := runtime.NumGoroutine()
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	leader, some := w.startAll(ctx, 50, "/a")
	for range 50 {
		some = append(some, w.start(ctx, "/a"))
	}
	for range 900 {
		some = append(some, w.start(t.Context(), "/a"))
	}
	eventually(t, "1000 wait", func() bool { return w.cache.Stats().Waiting == 1000 })
	var got atomic.Int64
	var wg sync.WaitGroup
	for _, started := range append(some, leader) {
		wg.Go(func() {
			d := <-started
			if d.err != nil {
				return
			}
			body, err := io.ReadAll(d.text)
			_ = d.Body.Close()
			if err == nil && string(body) == strings.Repeat(piece, pieces) {
				got.Add(1)
			}
		})
	}
	for i := range pieces {
		upstream.pieces <- piece
		if i == pieces/2 {
			leave()
		}
	}
	close(upstream.pieces)
	wg.Wait()
	if got.Load() < 950 {
		t.Errorf("%d got the body, 950 stayed", got.Load())
	}
	w.wantFetches(1)
	w.client.CloseIdleConnections()
	w.proxy.CloseClientConnections()
	w.upstream.CloseClientConnections()
	eventually(t, "all goroutines have ended", func() bool { return runtime.NumGoroutine() <= before })
	if s := w.cache.Stats(); s.Fetches.Now != 0 || s.Waiting != 0 {
		t.Errorf("%d slots are held, %d wait", s.Fetches.Now, s.Waiting)
	}
}

// stuck is a client that takes nothing, until its write is ended for it.
type stuck struct {
	header http.Header
	ended  chan struct{}
}

func (s *stuck) Header() http.Header { return s.header }
func (s *stuck) WriteHeader(int)     {}
func (s *stuck) Write([]byte) (int, error) {
	<-s.ended
	return 0, os.ErrDeadlineExceeded
}
func (s *stuck) SetWriteDeadline(time.Time) error { close(s.ended); return nil }

// A client that takes nothing holds up those who wait for the same long body for
// a while, and then its answer is broken off.
func TestSlowClient_IsCutOffWhenItHoldsUpOthers(t *testing.T) {
	const length = 1 << 20
	inBubble(t, func(rw http.ResponseWriter, r *http.Request) {
		time.Sleep(time.Second)
		fmt.Fprint(rw, strings.Repeat("x", length))
	}, []change{func(c *cache.Config) { c.MaxObject = 100_000 }}, func(b *bubble) {
		began := time.Now()
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				if got := b.get(b.t.Context(), "/a"); len(got.body) != length {
					t.Errorf("got %d bytes", len(got.body))
				}
			})
		}
		synctest.Wait() // one of them leads
		wg.Go(func() {
			defer func() {
				if got := recover(); got != http.ErrAbortHandler {
					t.Errorf("the slow one ended with %v", got)
				}
			}()
			b.cache.ServeHTTP(&stuck{http.Header{}, make(chan struct{})}, httptest.NewRequest(http.MethodGet, "/a", nil))
		})
		wg.Wait()
		if took := time.Since(began); took < 11*time.Second || took > 12*time.Second {
			t.Errorf("the others waited %s", took)
		}
		if s := b.cache.Stats(); s.CutOff != 1 || s.Fetches.Total != 1 {
			t.Errorf("%d cut off, %d fetches", s.CutOff, s.Fetches.Total)
		}
	})
}

// BenchmarkFill is a miss that is stored, from upstream to client, both on
// kept-alive connections.
func BenchmarkFill(b *testing.B) {
	for _, size := range []int{2 << 10, 256 << 10} {
		for _, framing := range []string{"length", "chunked"} {
			b.Run(fmt.Sprintf("%dKiB %s", size>>10, framing), func(b *testing.B) {
				body := strings.Repeat("x", size)
				upstream := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
					if framing == "length" {
						rw.Header().Set("Content-Length", fmt.Sprint(size))
					} else {
						_ = http.NewResponseController(rw).Flush()
					}
					_, _ = io.WriteString(rw, body)
				}))
				defer upstream.Close()
				proxy := httptest.NewServer(newCache(b, upstream.URL, newDatabase()))
				defer proxy.Close()
				b.ReportAllocs()
				for n := 0; b.Loop(); n++ {
					res, err := http.Get(proxy.URL + "/" + fmt.Sprint(n))
					if err != nil {
						b.Fatal(err)
					}
					if got, err := io.Copy(io.Discard, res.Body); got != int64(size) || err != nil {
						b.Fatal(got, err)
					}
					_ = res.Body.Close()
				}
			})
		}
	}
}
