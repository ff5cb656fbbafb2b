package cache_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"
	"time"
)

// What is neither the answer nor its body passes too.

func TestEarlyHints_ReachTheClientOfAFetch(t *testing.T) {
	upstream := newScript()
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Link", "</style.css>; rel=preload")
		rw.WriteHeader(http.StatusEarlyHints)
		upstream.write(rw, r)
	})
	hints := make(chan int, 1)
	trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		if h.Get("Link") != "" {
			hints <- code
		}
		return nil
	}}
	leader := w.start(httptrace.WithClientTrace(t.Context(), trace), "/a")
	if code := <-hints; code != http.StatusEarlyHints { // before there is an answer
		t.Errorf("%d", code)
	}
	other := w.start(t.Context(), "/a")
	eventually(t, "the other waits", func() bool { return w.cache.Stats().Waiting == 1 })
	upstream.pieces <- "x"
	close(upstream.pieces)
	for _, d := range []*download{<-leader, <-other} {
		d.wantNext("x")
		d.wantEnd()
	}
	w.wantHit(w.get("/a"), "x")
}

// Trailers are for the client whose request it was, and keep nobody from sharing
// and storing the body.
func TestTrailers_DoNotKeepWaitersFromTheBody(t *testing.T) {
	g := newGate()
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		g.pass(r)
		rw.Header().Set("Trailer", "X-Sum")
		fmt.Fprint(rw, "body")
		_ = http.NewResponseController(rw).Flush()
		rw.Header().Set("X-Sum", "42")
	})
	leader, others := w.startAll(t.Context(), 1, "/a")
	close(g.open)
	first, other := <-leader, <-others[0]
	for _, d := range []*download{first, other} {
		d.wantNext("body")
		d.wantEnd()
	}
	if got := first.Trailer.Get("X-Sum"); got != "42" {
		t.Errorf("the trailer is %q", got)
	}
	w.wantHit(w.get("/a"), "body")
}

// Whether a body is to be sent the upstream decides, and not the proxy.
func TestExpect_IsAnsweredByTheUpstream(t *testing.T) {
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/refused" {
			rw.WriteHeader(http.StatusForbidden)
			return
		}
		_, _ = io.Copy(rw, r.Body)
	})
	for path, want := range map[string]string{"/taken": "HTTP/1.1 100 Continue", "/refused": "HTTP/1.1 403 Forbidden"} {
		conn, err := net.Dial("tcp", w.proxy.Listener.Addr().String())
		must(t, err)
		defer conn.Close()
		must(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n", path)
		answer := bufio.NewReader(conn)
		line, err := answer.ReadString('\n')
		if strings.TrimSpace(line) != want {
			t.Errorf("%s: %q, %v", path, line, err)
		}
		if path == "/refused" {
			continue
		}
		_, err = answer.ReadString('\n')
		must(t, err)
		_, err = io.WriteString(conn, "hello")
		must(t, err)
		res, err := http.ReadResponse(answer, nil)
		must(t, err)
		if body, err := io.ReadAll(res.Body); string(body) != "hello" {
			t.Errorf("%q, %v", body, err)
		}
	}
}

// A body that a client sends goes on as it arrives, whether its length is known
// or not.
func TestRequestBody_GoesOnAsItArrives(t *testing.T) {
	pieces := make(chan string)
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		for buf := make([]byte, 3); ; {
			if _, err := io.ReadFull(r.Body, buf); err != nil {
				return
			}
			pieces <- string(buf)
		}
	})
	for name, length := range map[string]int64{"length": 6, "chunked": -1} {
		body, in := io.Pipe()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.proxy.URL+"/a", body)
		must(t, err)
		req.ContentLength = length
		done := make(chan error, 1)
		go func() {
			res, err := w.client.Do(req)
			if err == nil {
				err = res.Body.Close()
			}
			done <- err
		}()
		for _, piece := range []string{"one", "two"} {
			_, err = io.WriteString(in, piece)
			must(t, err)
			if got := <-pieces; got != piece { // before the next is sent
				t.Errorf("%s: %q", name, got)
			}
		}
		must(t, in.Close())
		must(t, <-done)
	}
}
