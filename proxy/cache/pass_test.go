package cache_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"walcache/proxy/cache"
)

func TestEventStream_ArrivesUnbuffered(t *testing.T) {
	next, left := make(chan string), make(chan struct{})
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		defer close(left)
		rw.Header().Set("Content-Type", "text/event-stream")
		for {
			select {
			case event := <-next:
				fmt.Fprintf(rw, "data: %s\n", event)
				http.NewResponseController(rw).Flush()
			case <-r.Context().Done():
				return
			}
		}
	}, func(c *cache.Config) { c.MaxFetches = 1 })
	go func() { next <- "0" }()
	res, err := w.client.Get(w.proxy.URL + "/events")
	must(t, err)
	lines := bufio.NewScanner(res.Body)
	for i := range 3 {
		if i > 0 {
			next <- fmt.Sprint(i)
		}
		if !lines.Scan() || lines.Text() != fmt.Sprintf("data: %d", i) {
			t.Fatalf("%q, %v", lines.Text(), lines.Err())
		}
	}
	if got := w.cache.Stats().Fetches.Now; got != 0 {
		t.Errorf("an open stream holds %d slots", got)
	}
	must(t, res.Body.Close())
	select { // the upstream learns that the client has left
	case <-left:
	case <-time.After(10 * time.Second):
		t.Error("the stream goes on without its client")
	}
}

func TestChunks_ArriveUnbufferedWhileACopyIsKept(t *testing.T) {
	next := make(chan string)
	w := newWorld(t, func(rw http.ResponseWriter, _ *http.Request) {
		for chunk := range next {
			fmt.Fprintln(rw, chunk)
			http.NewResponseController(rw).Flush()
		}
	})
	go func() { next <- "0" }()
	res, err := w.client.Get(w.proxy.URL + "/a")
	must(t, err)
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	for i := range 3 {
		if i > 0 {
			next <- fmt.Sprint(i)
		}
		if !lines.Scan() || lines.Text() != fmt.Sprint(i) {
			t.Fatalf("%q, %v", lines.Text(), lines.Err())
		}
	}
	close(next)
	if lines.Scan() {
		t.Errorf("%q", lines.Text())
	}
	w.wantHit(w.get("/a"), "0\n1\n2\n")
}

func TestUpgrade_Passes(t *testing.T) {
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		conn, buf, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+r.Header.Get("Upgrade")+"\r\n\r\n")
		_, _ = io.Copy(conn, buf) // an echo
	})
	conn, err := net.Dial("tcp", w.proxy.Listener.Addr().String())
	must(t, err)
	defer conn.Close()
	must(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	_, err = io.WriteString(conn, "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	must(t, err)
	r := bufio.NewReader(conn)
	res, err := http.ReadResponse(r, nil)
	must(t, err)
	if res.StatusCode != http.StatusSwitchingProtocols || !strings.Contains(res.Header.Get("Cache-Status"), "fwd=bypass") {
		t.Fatalf("%d %v", res.StatusCode, res.Header)
	}
	_, err = io.WriteString(conn, "hello\n")
	must(t, err)
	if line, err := r.ReadString('\n'); line != "hello\n" {
		t.Errorf("%q %v", line, err)
	}
}

// Who is told that a write succeeded does not read what was before it.
func TestWrite_IsAnsweredOnceItsChangesAreKnown(t *testing.T) {
	var row atomic.Int64
	var w *world
	var committed atomic.Bool
	w = newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPatch {
			row.Add(1)
			committed.Store(true) // and the change stream does not know yet
		}
		fmt.Fprint(rw, row.Load())
	}, func(c *cache.Config) {
		c.WriteWait = 10 * time.Second
		c.CatchUp = func(context.Context) error {
			if committed.Swap(false) {
				w.db.commit("properties")
			}
			return nil
		}
	})
	for i := range 1000 {
		w.get("/a")
		w.do(http.MethodPatch, "/a")
		if r := w.get("/a"); r.body != fmt.Sprint(i+1) {
			t.Fatalf("after write %d: %q", i+1, r.body)
		}
	}
}

func TestWrite_DoesNotWaitForLong(t *testing.T) {
	w := newWorld(t, text("ok"), func(c *cache.Config) {
		c.WriteWait = 10 * time.Millisecond
		c.CatchUp = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	})
	for _, method := range []string{http.MethodPost, http.MethodGet, http.MethodOptions} {
		if r := w.do(method, "/a"); r.status != http.StatusOK {
			t.Errorf("%s: %d", method, r.status)
		}
	}
	if got := w.cache.Stats().WriteWaitsTimedOut; got != 1 {
		t.Errorf("%d waits timed out, want that of the POST", got)
	}
}

func TestContract_StaysBetweenServiceAndProxy(t *testing.T) {
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		for _, name := range []string{"As-Of-LSN", "Cache-Groups"} {
			if r.Header.Get(name) != "" {
				t.Errorf("a client's %s went upstream", name)
			}
		}
		if got := strings.Join(r.Header.Values("Min-LSN"), "; "); got != "0/64;epoch="+epoch {
			t.Errorf("Min-LSN %q, want what the proxy knows", got)
		}
		text("x", "As-Of-LSN: 0/1;epoch="+epoch, `Cache-Groups: "users"`, "CDN-Cache-Control: max-age=60", "Cache-Control: no-cache")(rw, r)
	})
	for _, method := range []string{http.MethodGet, http.MethodGet, http.MethodPost, http.MethodHead} {
		r := w.do(method, "/a", "As-Of-LSN: 0/1;epoch="+epoch, "Min-LSN: 0/1;epoch="+epoch, `Cache-Groups: "users"`)
		for _, name := range []string{"As-Of-LSN", "Cache-Groups", "CDN-Cache-Control"} {
			if r.header.Get(name) != "" {
				t.Errorf("%s: %s went to the client", method, name)
			}
		}
		if r.header.Get("Cache-Control") != "no-cache" {
			t.Errorf("%s: what the origin tells clients is lost", method)
		}
	}
}

func TestCacheStatus_IsOnEveryResponse(t *testing.T) {
	w := newWorld(t, func(rw http.ResponseWriter, _ *http.Request) { breakOff(rw) })
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost} {
		r := w.do(method, "/a")
		if r.status != http.StatusBadGateway || !strings.HasPrefix(r.says(), "walcache; fwd=") {
			t.Errorf("%s: %d %q", method, r.status, r.says())
		}
	}
	if got := w.cache.Stats().Failed; got != 3 {
		t.Errorf("%d failed", got)
	}
}
