package wire

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"
)

// memory answers what is below /hit, says what it saw, and then makes all of it
// unreadable.
type memory struct {
	answered atomic.Int64
	large    []byte // what /hit/large is answered with
}

func (m *memory) Answer(r *http.Request, buf []byte) (head, body []byte, ok bool) {
	if !strings.HasPrefix(r.URL.Path, "/hit") {
		return nil, nil, false
	}
	m.answered.Add(1)
	body = []byte("hit " + r.RequestURI)
	if r.URL.Path == "/hit/large" {
		body = m.large
	}
	head = fmt.Appendf(buf, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nSeen: %s %s %s %t\r\n\r\n", len(body), r.Method, r.RequestURI, r.Host, r.TLS != nil)
	if r.Method == http.MethodHead {
		body = nil
	}
	poison(r)
	return head, body, true
}

// poison overwrites what the strings of a request are made of.
func poison(r *http.Request) {
	wipe := func(s string) {
		if s != "" {
			b := unsafe.Slice(unsafe.StringData(s), len(s))
			copy(b, bytes.Repeat([]byte{0}, len(b)))
		}
	}
	wipe(r.RequestURI)
	wipe(r.Host)
	for _, values := range r.Header {
		wipe(values[0])
	}
}

func answering(t *testing.T, m *memory, tune ...func(*http.Server)) *site {
	return serveWith(t, Config{Hits: m}, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "slow "+r.RequestURI)
	}, tune...)
}

// woken is a connection on which requests are answered at once: net/http has read
// one before, and until just after its answer may read what comes.
func (s *site) woken(m *memory) *client {
	c := s.dial()
	for before := m.answered.Load(); m.answered.Load() == before; {
		c.send(get("/hit"))
		c.answer("GET")
	}
	return c
}

func TestAnswer_KeepsTheOrderOfPipelinedRequests(t *testing.T) {
	m := &memory{}
	s := answering(t, m)
	for _, size := range []int{1, 7, 100, 1 << 20} { // bytes a write
		c := s.woken(m)
		var sent strings.Builder
		var want []string
		for i := range 200 {
			target := fmt.Sprintf("/%s/%d", []string{"hit", "slow"}[i*i/3%2], i)
			sent.WriteString(get(target))
			if i%50 == 49 {
				sent.WriteString("\r\n") // an empty line before the next
			}
			want = append(want, target)
		}
		go func() {
			for rest := sent.String(); rest != ""; {
				n := min(size, len(rest))
				if _, err := io.WriteString(c.Conn, rest[:n]); err != nil {
					t.Error(err)
					return
				}
				rest = rest[n:]
			}
		}()
		for _, want := range want {
			// A request that came while another was answered may be net/http's.
			if _, body := c.answer("GET"); strings.TrimPrefix(strings.TrimPrefix(body, "slow "), "hit ") != want {
				t.Fatalf("%q, want %q", body, want)
			}
		}
	}
	if m.answered.Load() == 0 {
		t.Error("none was answered at once")
	}
}

func TestAnswer_IsForPlainRequestsAlone(t *testing.T) {
	m := &memory{}
	s := answering(t, m)
	for _, test := range []struct {
		request string
		atOnce  bool
	}{
		{get("/hit"), true},
		{get("/hit?a=%zz&b=/..//"), true},
		{get("/hit%20x"), true},
		{get("/hit", "Connection: Keep-Alive"), true},
		{get("/hit", "X-Never-Seen: 1"), true},
		{get("/hit", "a_b: 1", "a-b: 1", "Cookie: a=b", "Authorization: x"), true},
		{strings.Replace(get("/hit"), "GET", "HEAD", 1), true},
		{get("/hit%zz"), false}, // not a URL to net/http
		{get("//hit"), false},
		{get("/hit", "Accept: a", "Accept: b"), false},
		{get("/hit", "Connection: close"), false},
		{get("/hit", "Connection: x"), false},
		{get("/hit", "Content-Length: 0"), false},
		{get("/hit", "Range: bytes=0-1"), false},
		{get("/hit", "If-Range: x"), false},
		{get("/hit", "if-match: x"), false},
		{get("/hit", "If-Unmodified-Since: x"), false},
		{get("/hit", "Pragma: no-cache"), false},
		{get("/hit", "Expect: 100-continue"), false},
		{get("/hit", "TE: trailers"), false},
		{get("/hit", "Keep-Alive: 1"), false},
		{get("/hit", "Upgrade: x"), false},
		{get("/hit", fieldsOf(70)...), false},
		{get("/hit", strings.Repeat("x", 100)+": 1"), false},
		{strings.Replace(get("/hit"), "HTTP/1.1", "HTTP/1.0", 1), false},
		{strings.Replace(get("/hit"), "GET", "DELETE", 1), false},
		{post("Transfer-Encoding: chunked", "0\r\n\r\n"), false},
	} {
		got := false
		for range 2 { // the first time, a name may be learnt
			c := s.woken(m)
			before := m.answered.Load()
			c.send(test.request)
			method, _, _ := strings.Cut(test.request, " ")
			c.answer(method)
			got = m.answered.Load() > before
		}
		if got != test.atOnce {
			t.Errorf("%q answered at once: %t, want %t", test.request, got, test.atOnce)
		}
	}
}

func fieldsOf(n int) (fields []string) {
	for i := range n {
		fields = append(fields, fmt.Sprintf("X-%d: 1", i%2000))
	}
	return fields
}

// What an Answerer sees is what a Handler would.
func TestLent_IsTheRequestThatNetHTTPReads(t *testing.T) {
	for _, test := range wellFormed {
		sameAsNetHTTP(t, test.request)
	}
}

func FuzzLent(f *testing.F) {
	for _, test := range wellFormed {
		f.Add(test.request)
	}
	f.Add(get("/%41?%", "a_b: c", "x-y:  z\t", "Cookie: \xff"))
	f.Fuzz(func(t *testing.T, sent string) { sameAsNetHTTP(t, sent) })
}

func sameAsNetHTTP(t *testing.T, sent string) {
	t.Helper()
	var h Head
	l := Limits{}.orDefaults()
	n, why := h.read([]byte(sent), &l)
	r := lents.New().(*lent)
	if n == 0 || why != allowed {
		return
	}
	r.fill(&h) // which may learn
	if !r.fill(&h) {
		return
	}
	want, err := http.ReadRequest(bufio.NewReader(strings.NewReader(sent)))
	if err != nil {
		t.Fatalf("%q: net/http: %v", sent, err)
	}
	if r.Method != want.Method || r.RequestURI != want.RequestURI || r.Host != want.Host || r.ContentLength != want.ContentLength ||
		!reflect.DeepEqual(*r.URL, url.URL{Path: want.URL.Path, RawQuery: want.URL.RawQuery, ForceQuery: want.URL.ForceQuery}) ||
		!reflect.DeepEqual(r.Header, want.Header) {
		t.Errorf("%q: %+v %v %v, want %+v %v %v", sent, r.URL, r.Host, r.Header, want.URL, want.Host, want.Header)
	}
}

func TestAnswer_KnowsWhoAsksOverTLS(t *testing.T) {
	m := &memory{}
	s := serveWith(t, Config{Hits: m, Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return certified(), nil }}, echo)
	c := s.shake("http/1.1")
	for m.answered.Load() == 0 {
		c.send(get("/hit"))
		if res, _ := c.answer("GET"); m.answered.Load() > 0 && res.Header.Get("Seen") != "GET /hit h true" {
			t.Errorf("%v", res.Header)
		}
	}
}

// A server that shuts down takes the connection for idle, and closes it only when
// the answer is out. Then nothing is answered any more.
func TestAnswer_IsFinishedBeforeAServerHasShutDown(t *testing.T) {
	m := &memory{large: bytes.Repeat([]byte("0123456789abcdef"), 1<<20)}
	s := answering(t, m)
	c := s.woken(m)
	before := m.answered.Load()
	c.send(get("/hit/large") + get("/hit"))
	_, err := c.r.Peek(1) // it is being written
	must(t, err)
	down := make(chan error, 1)
	go func() { down <- s.server.Shutdown(context.Background()) }()
	for closing := false; !closing; closing = s.refusesConnections() {
	}
	res, err := http.ReadResponse(c.r, nil)
	must(t, err)
	if n, err := io.Copy(io.Discard, res.Body); n != int64(len(m.large)) || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	must(t, <-down)
	if rest, _ := io.ReadAll(c.r); len(rest) > 0 || m.answered.Load() != before+1 {
		t.Errorf("after shutting down came %d bytes of %d answers", len(rest), m.answered.Load()-before)
	}
}

func (s *site) refusesConnections() bool {
	conn, err := net.Dial("tcp", s.at)
	if err == nil {
		_ = conn.Close()
	}
	return err != nil
}

func TestAnswer_AClientThatNeverReadsIsCutOff(t *testing.T) {
	m := &memory{large: make([]byte, 64<<20)}
	s := serveWith(t, Config{Hits: m, Limits: Limits{Pause: 100 * time.Millisecond}}, echo)
	c := s.woken(m)
	c.send(get("/hit/large"))
	for deadline := time.Now().Add(15 * time.Second); s.count.Refused()["slow-reader"] == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it was written for ever")
		}
	}
}

// A connection that is busy with what is answered here does not count as idle.
func TestAnswer_PutsOffTheEndOfAnIdleConnection(t *testing.T) {
	c := newConn(newTape(get("/hit")+get("/hit")), Limits{})
	c.hits, c.idle, c.closing, c.remote, c.idleTime = &memory{}, true, new(atomic.Int64), "1.2.3.4:5", time.Minute
	given := time.Now().Add(time.Second)
	must(t, c.SetReadDeadline(given))
	if _, err := c.Read(make([]byte, 10)); err != io.EOF {
		t.Fatal(err)
	}
	if c.given.Sub(given) < 50*time.Second {
		t.Errorf("it ends %s later", c.given.Sub(given))
	}
}

func TestLent_CostsNoAllocation(t *testing.T) {
	var h Head
	l, text, r := Limits{}.orDefaults(), []byte(browser), lents.New().(*lent)
	if n := testing.AllocsPerRun(100, func() {
		h.reset()
		if _, why := h.read(text, &l); why != allowed || !r.fill(&h) {
			t.Fatal("not for an Answerer")
		}
	}); n != 0 {
		t.Errorf("%v allocations a request", n)
	}
}
