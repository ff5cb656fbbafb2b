package wire

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// wellFormed are requests as they may be, and their bodies.
var wellFormed = []struct{ request, body string }{
	{get("/"), ""},
	{browser, ""},
	{"GET / HTTP/1.0\r\n\r\n", ""},
	{"GET / HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n", ""},
	{"OPTIONS * HTTP/1.1\r\n" + host + "\r\n", ""},
	{"M-SEARCH! /x HTTP/1.1\r\n" + host + "\r\n", ""},
	{get("//x//y/../z;a=b?c=%zz&{d}|e^`\"<>\\"), ""},
	{get("/%2F%20?a?b"), ""},
	{get("/http://h/"), ""},
	{get("/" + strings.Repeat("x", 8000)), ""},
	{"GET / HTTP/1.1\r\nHost: [::1]:8001\r\n\r\n", ""},
	{"GET / HTTP/1.1\r\nhost:127.0.0.1:\r\n\r\n", ""},
	{"GET / HTTP/1.1\r\nHOST:\ta_b.example\t \r\n\r\n", ""},
	{get("/", "Empty:", "Tab: a\tb", "Latin: \xe4\xff", "X_Under: 1", "!#$%&'*+-.^_`|~: 1"), ""},
	{get("/", manyFields(99, 600)...), ""},
	{get("/", "A: "+strings.Repeat("x", 16000)), ""},
	{post("Content-Length: 0", ""), ""},
	{post("Content-Length: 005", "hello"), "hello"},
	{post("Content-Length: 10000", strings.Repeat("0123456789", 1000)), strings.Repeat("0123456789", 1000)},
	{"GET / HTTP/1.1\r\n" + host + "Content-Length: 3\r\n\r\nfat", "fat"},
	{post("Transfer-Encoding: chunked", "0\r\n\r\n"), ""},
	{post("transfer-encoding:  CHUNKED ", "5\r\nhello\r\n0\r\n\r\n"), "hello"},
	{post("Transfer-Encoding: chunked", "5\r\nhello\r\n00A;x=\"y\";z\r\n0123456789\r\n00\r\nSum: 42\r\nMore:\r\n\r\n"), "hello0123456789"},
	{post("Transfer-Encoding: chunked\r\nTrailer: Sum, More", "1388\r\n"+strings.Repeat("x", 5000)+"\r\n0\r\n\r\n"), strings.Repeat("x", 5000)},
}

func TestConn_PassesGoodRequestsAsTheyAre(t *testing.T) {
	var whole strings.Builder
	for _, test := range wellFormed {
		whole.WriteString(test.request)
		for _, size := range []int{1, 2, 7, 4096, 1 << 20} {
			c := newConn(newTape(test.request, size), Limits{})
			got, err := io.ReadAll(c)
			if err != nil || string(got) != test.request {
				t.Errorf("%.80q in pieces of %d: %q, %v", test.request, size, got, err)
			}
		}
	}
	// And one after the other on one connection, whatever piece they come in.
	for _, sizes := range [][]int{{1}, {3, 1, 4, 1, 5, 9}, {4096}, {100000}} {
		got := readAll(t, newConn(newTape(whole.String(), sizes...), Limits{}), whole.String())
		for i, test := range wellFormed {
			if i >= len(got) || got[i].body != test.body {
				t.Fatalf("pieces of %d: request %d (%.80q) is not among %d, or has another body", sizes, i, test.request, len(got))
			}
		}
	}
}

// exchange is a request that net/http has read.
type exchange struct {
	*http.Request
	body string
}

// unchanged wants what is written to be what was sent, but for empty lines.
type unchanged struct {
	t    testing.TB
	sent string
}

func (u *unchanged) Write(p []byte) (int, error) {
	rest, ok := strings.CutPrefix(u.sent, string(p))
	if !ok {
		rest, ok = strings.CutPrefix(u.sent, "\r\n"+string(p))
	}
	if !ok {
		u.t.Fatalf("%q passed of %q", p, u.sent)
	}
	u.sent = rest
	return len(p), nil
}

// readAll reads requests as net/http's server does until there are no more, and
// checks each against what Conn has found, and against what was sent.
func readAll(t testing.TB, c *Conn, sent string) (all []exchange) {
	t.Helper()
	r := bufio.NewReader(io.TeeReader(c, &unchanged{t, sent}))
	for {
		req, err := http.ReadRequest(r)
		if err != nil {
			if err != io.EOF { // and not ErrUnexpectedEOF: a head passes whole or not at all
				t.Fatalf("net/http cannot read what passed: %v", err)
			}
			return all
		}
		sameHead(t, c.Head(), req)
		body, err := io.ReadAll(req.Body)
		if err != nil {
			if c.body.step == ended && !excessive(err) {
				t.Fatalf("net/http cannot read the body of %s %s: %v", req.Method, req.RequestURI, err)
			}
			return all
		}
		if r.Buffered() > 0 || c.pass > 0 || c.body.step != ended {
			t.Fatalf("%s %s ends elsewhere for net/http: %d bytes left there, %d here, at step %d", req.Method, req.RequestURI, r.Buffered(), c.pass, c.body.step)
		}
		if n := c.Head().length; n >= 0 && n != int64(len(body)) {
			t.Fatalf("%s %s has %d bytes for net/http and not %d", req.Method, req.RequestURI, len(body), n)
		}
		all = append(all, exchange{req, string(body)})
		c.answering = false // as Serve does
	}
}

// excessive is where net/http gives up: tiny chunks with long extensions.
func excessive(err error) bool { return strings.Contains(err.Error(), "too much non-data") }

// sameHead wants the same head for both.
func sameHead(t testing.TB, h *Head, req *http.Request) {
	t.Helper()
	if req.Method != string(h.Method()) || req.RequestURI != string(h.Target()) || req.Host != string(h.Host()) ||
		req.ProtoMajor != 1 || req.ProtoMinor != h.Minor() || req.ContentLength != h.Length() {
		t.Fatalf("net/http reads %s %s %s 1.%d %d, and not %s %s %s 1.%d %d", req.Method, req.RequestURI, req.Host, req.ProtoMinor, req.ContentLength,
			h.Method(), h.Target(), h.Host(), h.Minor(), h.Length())
	}
	mine := http.Header{}
	for i := range h.Fields() {
		name, value := h.Field(i)
		mine.Add(string(name), string(value))
	}
	if mine.Get("Pragma") == "no-cache" && mine["Cache-Control"] == nil {
		mine.Set("Cache-Control", "no-cache") // as net/http has it
	}
	mine.Del("Host")
	mine.Del("Transfer-Encoding")
	if req.ContentLength < 0 {
		mine.Del("Trailer")
	}
	if fmt.Sprint(mine) != fmt.Sprint(req.Header) {
		t.Fatalf("net/http reads %v and not %v", req.Header, mine)
	}
}

// brokenBodies are bodies that are not chunked as they should be.
var brokenBodies = []struct {
	why  Reason
	body string
}{
	{Chunk, "5\nhello\r\n0\r\n\r\n"},
	{Chunk, "5\r\nhello\n0\r\n\r\n"},
	{Chunk, "5\r\nhello0\r\n\r\n"},
	{Chunk, "5\r\nhello!\r\n0\r\n\r\n"},
	{Chunk, "\r\n5\r\nhello\r\n"},
	{Chunk, " 5\r\nhello\r\n"},
	{Chunk, "5 \r\nhello\r\n"},
	{Chunk, "5 ;x\r\nhello\r\n"},
	{Chunk, "0x5\r\nhello\r\n"},
	{Chunk, "+5\r\nhello\r\n"},
	{Chunk, "-5\r\nhello\r\n"},
	{Chunk, "5_0\r\nhello\r\n"},
	{Chunk, "g\r\n"},
	{Chunk, ";x\r\n"},
	{Chunk, "5\rx\r\nhello\r\n"},
	{Chunk, "5;x\x00\r\nhello\r\n"},
	{Chunk, "5;x\ny\r\nhello\r\n"},
	{Chunk, "5;" + strings.Repeat("x", 300) + "\r\nhello\r\n"},
	{Chunk, "1000000000000000\r\n"},
	{Chunk, "ffffffffffffffff1\r\n"},
	{LineEnding, "0\r\n\n"},
	{LineEnding, "0\r\nA: b\n\r\n"},
	{Folded, "0\r\nA: b\r\n c\r\n\r\n"},
	{FieldName, "0\r\nA : b\r\n\r\n"},
	{FieldName, "0\r\n" + get("/smuggled")},
	{FieldValue, "0\r\nA: \x00\r\n\r\n"},
	{Trailer, "0\r\nContent-Length: 5\r\n\r\n"},
	{Trailer, "0\r\ntransfer-encoding: chunked\r\n\r\n"},
	{Trailer, "0\r\nHost: other\r\n\r\n"},
	{Trailer, "0\r\nA: " + strings.Repeat("x", 5000) + "\r\n\r\n"},
}

func TestConn_EndsABodyThatIsNotChunkedAsItShouldBe(t *testing.T) {
	for _, test := range brokenBodies {
		for _, size := range []int{1, 3, 1 << 20} {
			c := newConn(newTape(post("Transfer-Encoding: chunked", test.body+get("/next")), size), Limits{})
			_, err := io.ReadAll(c)
			if e := (*Error)(nil); !errors.As(err, &e) || e.Reason != test.why || e.Status() != 400 {
				t.Errorf("%q: %v, want %q", test.body, err, refusals[test.why].text)
			}
		}
		s := serve(t, Limits{}, echo)
		c := s.dial()
		c.send(post("Transfer-Encoding: chunked", test.body+get("/next")))
		if res, _ := c.answer("POST"); res.StatusCode != 400 {
			t.Errorf("%q: %d", test.body, res.StatusCode)
		}
		c.ends()
		if got := s.count.Refused(); got[test.why.String()] != 1 {
			t.Errorf("%q: counted %v", test.body, got)
		}
	}
}

// A handler that does not look at the body does not see that it is broken; what
// follows it is no request all the same.
func TestConn_TakesNothingFromBehindABrokenBody(t *testing.T) {
	for _, test := range brokenBodies {
		asked := make(chan string, 2)
		s := serve(t, Limits{}, func(_ http.ResponseWriter, r *http.Request) { asked <- r.RequestURI })
		c := s.dial()
		c.send(post("Transfer-Encoding: chunked", test.body+get("/next")))
		if res, _ := c.answer("POST"); res.StatusCode != 200 {
			t.Errorf("%q: %d", test.body, res.StatusCode)
		}
		c.ends()
		if len(asked) != 1 {
			t.Errorf("%q: two requests were read", test.body)
		}
	}
}

func TestConn_AnswersWhatCameBeforeARefusal(t *testing.T) {
	for _, test := range malformed {
		t.Run(test.why.String(), func(t *testing.T) {
			t.Parallel()
			began, finish := make(chan string, 3), make(chan struct{})
			s := serve(t, Limits{}, func(w http.ResponseWriter, r *http.Request) {
				began <- r.RequestURI
				<-finish
				w.Header().Set("Content-Length", "5000")
				for range 5 {
					_, _ = io.WriteString(w, strings.Repeat("x", 1000))
					_ = http.NewResponseController(w).Flush()
				}
			})
			c := s.dial()
			c.send(get("/first") + get("/second") + test.request)
			<-began // and what follows is there to be read
			close(finish)
			for range 2 {
				if res, body := c.answer("GET"); res.StatusCode != 200 || len(body) != 5000 {
					t.Errorf("before %q: %d %q", test.request, res.StatusCode, body)
				}
			}
			method, _, _ := strings.Cut(test.request, " ")
			if res, _ := c.answer(method); res.StatusCode != refusals[test.why].status {
				t.Errorf("%q: %d", test.request, res.StatusCode)
			}
			c.ends()
			if second := <-began; second != "/second" || len(began) > 0 {
				t.Errorf("after %q: %d more requests were read", test.request, len(began))
			}
		})
	}
}

func TestServe_AnswersPipelinedRequestsInOrder(t *testing.T) {
	s := serve(t, Limits{}, echo)
	c := s.dial()
	var all strings.Builder
	const rounds = 20
	for range rounds {
		for _, test := range wellFormed {
			if !strings.Contains(test.request, "HTTP/1.0") {
				all.WriteString(test.request)
			}
		}
	}
	go func() { _, _ = io.WriteString(c.Conn, all.String()) }()
	for range rounds {
		for _, test := range wellFormed {
			if strings.Contains(test.request, "HTTP/1.0") {
				continue
			}
			method, rest, _ := strings.Cut(test.request, " ")
			target, _, _ := strings.Cut(rest, " ")
			res, body := c.answer(method)
			if seen := res.Header.Get("Seen"); res.StatusCode != 200 || body != test.body || !strings.HasPrefix(seen, method+" "+target+" ") {
				t.Fatalf("%.80q: %d, seen %.80q, %q", test.request, res.StatusCode, seen, body)
			}
		}
	}
	if got := s.count.Refused(); len(got) > 0 {
		t.Errorf("refused: %v", got)
	}
}

func TestServe_TakesRequestsAByteAtATime(t *testing.T) {
	s := serve(t, Limits{}, echo)
	c := s.dial()
	for _, request := range []string{get("/a"), post("Content-Length: 3", "abc"), post("Transfer-Encoding: chunked", "3\r\nabc\r\n0\r\nA: b\r\n\r\n"), get("/b")} {
		for i := range len(request) {
			c.send(request[i : i+1])
		}
		method, _, _ := strings.Cut(request, " ")
		if res, body := c.answer(method); res.StatusCode != 200 || method == "POST" && body != "abc" {
			t.Errorf("%q: %d %q", request, res.StatusCode, body)
		}
	}
}

func TestServe_AsksForABodyThatWaits(t *testing.T) {
	s := serve(t, Limits{}, echo)
	c := s.dial()
	for range 2 {
		c.send(post("Content-Length: 5\r\nExpect: 100-continue", ""))
		if line, err := c.r.ReadString('\n'); err != nil || line != "HTTP/1.1 100 Continue\r\n" {
			t.Fatalf("%q, %v", line, err)
		}
		_, err := c.r.ReadString('\n')
		must(t, err)
		c.send("hello")
		if res, body := c.answer("POST"); res.StatusCode != 200 || body != "hello" {
			t.Errorf("%d %q", res.StatusCode, body)
		}
	}
	c.send(post("Content-Length: 5\r\nExpect: something", ""))
	if res, _ := c.answer("POST"); res.StatusCode != 417 {
		t.Errorf("an unknown expectation: %d", res.StatusCode)
	}
}

func TestConn_SkipsOneEmptyLineBeforeARequest(t *testing.T) {
	s := serve(t, Limits{}, echo)
	c := s.dial()
	c.send(post("Content-Length: 1", "x") + "\r\n" + get("/a") + "\r\n" + get("/b"))
	for _, method := range []string{"POST", "GET", "GET"} {
		if res, _ := c.answer(method); res.StatusCode != 200 {
			t.Errorf("%s: %d", method, res.StatusCode)
		}
	}
	c.send("\r\n\r\n" + get("/c"))
	if res, _ := c.answer("GET"); res.StatusCode != 400 {
		t.Errorf("two lines: %d", res.StatusCode)
	}
}
