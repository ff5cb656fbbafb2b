package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"walcache/proxy/sandbox/sandboxtest"
)

// rawService is one that answers each request with bytes as they are. It closes
// the connection behind what ends in "<close>".
func rawService(t *testing.T, answer func(*http.Request) string) (url string) {
	t.Helper()
	at := listen(t)
	var all sync.WaitGroup
	ended, end := context.WithCancel(context.Background())
	serve := func(conn net.Conn) {
		defer conn.Close()
		defer context.AfterFunc(ended, func() { _ = conn.Close() })()
		for r := bufio.NewReader(conn); ; {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, req.Body)
			text, closes := strings.CutSuffix(answer(req), "<close>")
			if _, err := io.WriteString(conn, text); err != nil || closes {
				return
			}
		}
	}
	all.Go(func() {
		for {
			conn, err := at.Accept()
			if err != nil {
				return
			}
			all.Go(func() { serve(conn) })
		}
	})
	t.Cleanup(func() {
		_ = at.Close()
		end()
		all.Wait()
	})
	return "http://" + at.Addr().String()
}

const goodAnswer = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 4\r\n\r\ngood"

// wholeAllTheSame is the one of the malformed answers that is read: a field whose
// name ends in a space reaches no client, and the rest is whole.
const wholeAllTheSame = "a field name with a space"

// TestAttack_AMalformedAnswerIsNeverStored has a service answer what is no HTTP, or
// no whole answer, and then as it should.
func TestAttack_AMalformedAnswerIsNeverStored(t *testing.T) {
	var mu sync.Mutex // guards the following
	var bad string
	set := func(text string) {
		mu.Lock()
		defer mu.Unlock()
		bad = text
	}
	s := attackAt(t, rawService(t, func(*http.Request) string {
		mu.Lock()
		defer mu.Unlock()
		return bad
	}), nil)
	const ok = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n"
	refused := func(r response) bool { return r.status == 502 }
	broken := func(r response) bool { return strings.HasSuffix(r.body, "and broken off") }
	harmless := func(r response) bool { // no field of another's making
		return r.status == 502 || r.status == 200 && !strings.Contains(fmt.Sprint(r.header), "evil")
	}
	for i, test := range []struct {
		what, answer string
		want         func(response) bool
	}{
		{"no HTTP", "evil\r\n\r\n<close>", refused},
		{"nothing", "<close>", refused},
		{"a status that is none", "HTTP/1.1 20 OK\r\n\r\n<close>", refused},
		{"a status of four digits", "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n<close>", refused},
		{"status 000", "HTTP/1.1 000 OK\r\nContent-Length: 0\r\n\r\n<close>", refused},
		{"a field without a colon", ok + "evil\r\n\r\n<close>", refused},
		{wholeAllTheSame, ok + "Set-Cookie : a=evil\r\nContent-Length: 4\r\n\r\nevil<close>", harmless},
		{"a carriage return in a value", ok + "X: a\rSet-Cookie: a=evil\r\nContent-Length: 4\r\n\r\nevil<close>", harmless},
		{"a carriage return in Location", "HTTP/1.1 302 Found\r\nLocation: /a\rSet-Cookie: a=evil\r\nContent-Length: 0\r\n\r\n<close>", func(r response) bool { return r.status == 302 && r.header.Get("Set-Cookie") == "" || r.status == 502 }},
		{"NUL in a value", ok + "X: a\x00b\r\nContent-Length: 4\r\n\r\nevil<close>", harmless},
		{"two lengths", ok + "Content-Length: 4\r\nContent-Length: 2\r\n\r\nevil<close>", refused},
		{"a length that is none", ok + "Content-Length: -1\r\n\r\nevil<close>", refused},
		{"a coding that there is not", ok + "Transfer-Encoding: evil\r\n\r\nevil<close>", refused},
		{"a head that ends early", ok + "X: a<close>", refused},
		{"a body shorter than it says", ok + "Content-Length: 100\r\n\r\nevil<close>", broken},
		{"a chunk shorter than it says", ok + "Transfer-Encoding: chunked\r\n\r\n64\r\nevil<close>", broken},
		{"chunks without their end", ok + "Transfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n<close>", broken},
		{"a chunk size that is none", ok + "Transfer-Encoding: chunked\r\n\r\n4\r\nevil\r\nxyz\r\n<close>", broken},
		{"a body that ends with the connection", ok + "\r\nevil<close>", func(r response) bool { return r.status == 200 }},
		{"a body of HTTP/1.0", "HTTP/1.0 200 OK\r\nCache-Control: max-age=60\r\n\r\nevil<close>", func(r response) bool { return r.status == 200 }},
		{"a part that nobody asked for", "HTTP/1.1 206 Partial Content\r\nCache-Control: max-age=60\r\nContent-Range: bytes 0-3/100\r\nContent-Length: 4\r\n\r\nevil", func(r response) bool { return r.status == 206 }},
		{"a 304 that nobody asked for", "HTTP/1.1 304 Not Modified\r\nCache-Control: max-age=60\r\nETag: \"evil\"\r\n\r\n", func(r response) bool { return r.status == 304 }},
		{"a switch of protocols that nobody asked for", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: evil\r\n\r\n<close>", refused},
	} {
		target := fmt.Sprintf("/bad%d", i)
		set(test.answer)
		came := s.ask(target)
		if !test.want(came) {
			t.Errorf("%s: %s", test.what, came)
		}
		stored := len(s.stored(target))
		set(goodAnswer)
		next := s.ask(target)
		if whole := test.what == wholeAllTheSame; !whole && (stored != 0 || next.status != 200 || next.body != "good") {
			t.Errorf("after %s: %s, %d are stored", test.what, next, stored)
		}
		tell(t, "the service answers "+test.what, came, stored)
	}
}

// TestAttack_WhatFollowsAnAnswerIsNotTheNextOne has a service send more than its
// answer's length: the rest looks like an answer, and is nobody's.
func TestAttack_WhatFollowsAnAnswerIsNotTheNextOne(t *testing.T) {
	const evil = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 4\r\n\r\nevil"
	for _, test := range []struct{ what, method, answer string }{
		{"a body longer than it says", "GET", goodAnswer + evil},
		{"a body behind 304", "GET", "HTTP/1.1 304 Not Modified\r\n\r\n" + evil},
		{"a body behind 204", "GET", "HTTP/1.1 204 No Content\r\n\r\n" + evil},
		{"a body behind a length of 0", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" + evil},
		{"a body behind the last chunk", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n0\r\n\r\n" + evil},
		{"a body for HEAD", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + evil},
		{"an answer to POST and one more", "POST", goodAnswer + evil},
	} {
		t.Run(test.what, func(t *testing.T) {
			s := attackAt(t, rawService(t, func(*http.Request) string { return test.answer }), nil)
			got := map[string]int{}
			var mu sync.Mutex // guards got
			var all sync.WaitGroup
			for worker := range 16 {
				all.Go(func() {
					for i := range 30 {
						req, err := http.NewRequest(test.method, fmt.Sprintf("%s/%d/%d", s.url, worker, i), nil)
						if err != nil {
							t.Error(err)
							return
						}
						res, err := s.client.Do(req)
						if err != nil {
							t.Error(err)
							return
						}
						body, _ := io.ReadAll(res.Body)
						_ = res.Body.Close()
						mu.Lock()
						got[fmt.Sprint(res.StatusCode, " ", string(body))]++
						mu.Unlock()
					}
				})
			}
			all.Wait()
			for answer, n := range got {
				if strings.Contains(answer, "evil") {
					t.Errorf("%d requests got what followed another's answer", n)
				}
			}
			tell(t, "the service sends "+test.what, got, "")
		})
	}
}

// TestAttack_AHugeHeaderIsBounded has a service send more and more of it.
func TestAttack_AHugeHeaderIsBounded(t *testing.T) {
	a := attack(t, func(w http.ResponseWriter, r *http.Request) {
		var name string
		var n int
		_, _ = fmt.Sscanf(r.URL.Path, "/%1s%d", &name, &n)
		many := func(format string) string {
			var b strings.Builder
			for i := range n {
				fmt.Fprintf(&b, format, i)
			}
			return b.String()
		}
		switch name {
		case "h": // a header of so many KiB
			for i := range n {
				w.Header().Set(fmt.Sprint("X-", i), strings.Repeat("x", 1<<10))
			}
		case "c":
			w.Header().Set("Cache-Control", "max-age=60, "+many("x%d, "))
		case "q":
			w.Header().Set("Cache-Control", "max-age=60, "+many(`"x%d, `))
		case "v":
			w.Header().Set("Vary", many("X-%d, ")+"Accept-Language")
		case "g":
			w.Header().Set("As-Of-LSN", "request")
			w.Header().Set("Cache-Groups", many(`"properties/id=%d", `)+`"properties"`)
		}
		_, _ = io.WriteString(w, "page")
	}, nil)
	const most = 6 << 20
	for _, test := range []struct {
		what, target string
		statuses     []int
	}{
		{"a header of 200 KiB", "/h200", []int{200}},
		{"a header of 12 MiB", "/h12288", []int{502}},
		{"Cache-Control of 1 MB", "/c125000", []int{200, 502}},
		{"Cache-Control of 1 MB of quotes that do not end", "/q125000", []int{200, 502}},
		{"Vary with 10,000 names", "/v10000", []int{200}},
		{"10,000 tags", "/g10000", []int{200}},
	} {
		before := a.memory.Bytes()
		came, again := a.ask(test.target), a.ask(test.target)
		if !slices.Contains(test.statuses, came.status) || again.status != came.status {
			t.Errorf("%s: %s, then %s", test.what, came, again)
		}
		var size uint64
		if after := a.memory.Bytes(); after > before {
			size = after - before
		}
		if size > most {
			t.Errorf("%s takes %d bytes", test.what, size)
		}
		tell(t, test.what, came, fmt.Sprintf("%d bytes; the next gets %s", size, again))
	}
	if entries := a.stored("/g10000"); len(entries) != 1 || len(entries[0].Tags) == 0 {
		t.Errorf("10,000 tags: %d entries", len(entries))
	}
	a.exec(`INSERT INTO properties (title, description, price, location) VALUES ('x', 'x', 1, 'x')`)
	a.caughtUp()
	if r := a.ask("/g10000"); r.hit() {
		t.Errorf("after a change that 10,000 tags name: %s", r)
	}
}

// TestAttack_NothingIsDecompressed has a service send a small body that grows to 16
// MiB: it passes, and is stored, as it is.
func TestAttack_NothingIsDecompressed(t *testing.T) {
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	for range 16 {
		_, _ = z.Write(make([]byte, 1<<20))
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	a := attack(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Set("Content-Type", "text/plain")
		_, _ = w.Write(bomb.Bytes())
	}, func(o *options) { o.cache.Compress = true })
	for _, coding := range []string{"gzip", "br", "identity"} {
		if r := a.ask("/bomb", "Accept-Encoding: "+coding); r.body != bomb.String() || r.header.Get("Content-Encoding") != "gzip" {
			t.Errorf("%s: %d bytes", coding, len(r.body))
		}
	}
	if n := a.memory.Bytes(); n > 1<<20 {
		t.Errorf("%d bytes of memory for %d of body", n, bomb.Len())
	}
	tell(t, "gzip of 16 MiB", fmt.Sprint(bomb.Len(), " bytes as they are"), fmt.Sprint(a.memory.Bytes(), " bytes in all"))
}

// TestAttack_AnAnswerThatIsNotReadHoldsUpNobody asks for a page and never reads it,
// while others ask for the same: cold, so that they wait for the fetch that it
// leads, and stored.
func TestAttack_AnAnswerThatIsNotReadHoldsUpNobody(t *testing.T) {
	page := strings.Repeat("0123456789abcdef", 6<<16) // 6 MiB: more than lies in buffers
	a := attack(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/x-page") // that is not compressed
		_, _ = io.WriteString(w, page)
	}, nil)
	for _, how := range []string{"cold", "stored"} {
		for range 8 {
			conn := a.dial()
			_ = conn.(*net.TCPConn).SetReadBuffer(4 << 10)
			if _, err := io.WriteString(conn, asking("GET", "/large")); err != nil {
				t.Fatal(err)
			}
		}
		sandboxtest.Eventually(t, 10*time.Second, func() error {
			if a.cache.Stats().Fetches.Total == 0 {
				return errors.New("nobody has asked")
			}
			return nil
		})
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				if r := a.ask("/large"); r.body != page {
					t.Errorf("%s: %s of %d bytes", how, r, len(r.body))
				}
			})
		}
		all.Wait()
		tell(t, "8 clients that never read, "+how, "4 others get 6 MiB each", fmt.Sprint(len(a.stored("/large")), " page, fetched ", len(a.requests()), " times"))
	}
}
