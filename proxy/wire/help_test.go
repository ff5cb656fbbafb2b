package wire

import (
	"bufio"
	"bytes"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// site is a server behind the reader.
type site struct {
	t      testing.TB
	at     string
	count  *Counters
	server *http.Server
}

func serve(t testing.TB, limits Limits, h http.HandlerFunc) *site {
	t.Helper()
	return serveWith(t, Config{Limits: limits}, h)
}

func serveWith(t testing.TB, c Config, h http.HandlerFunc, tune ...func(*http.Server)) *site {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	s := &site{t: t, at: l.Addr().String(), count: &Counters{}}
	c.Counters = s.count
	s.server = &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 64 << 10,
		DisableGeneralOptionsHandler: true, ErrorLog: log.New(io.Discard, "", 0),
	}
	for _, f := range tune {
		f(s.server)
	}
	served := make(chan error, 1)
	go func() { served <- Serve(s.server, l, c) }()
	t.Cleanup(func() {
		_ = s.server.Close()
		if err := <-served; err != http.ErrServerClosed {
			t.Error(err)
		}
	})
	return s
}

// client is a connection to a site, on which bytes are sent as they are.
type client struct {
	net.Conn
	t testing.TB
	r *bufio.Reader
}

func (s *site) dial() *client {
	s.t.Helper()
	conn, err := net.Dial("tcp", s.at)
	must(s.t, err)
	s.t.Cleanup(func() { _ = conn.Close() })
	must(s.t, conn.SetDeadline(time.Now().Add(20*time.Second)))
	return &client{conn, s.t, bufio.NewReader(conn)}
}

func (c *client) send(text string) {
	c.t.Helper()
	_, err := io.WriteString(c.Conn, text)
	must(c.t, err)
}

// answer reads the response to a request of a method, and its body.
func (c *client) answer(method string) (*http.Response, string) {
	c.t.Helper()
	res, err := http.ReadResponse(c.r, &http.Request{Method: method})
	must(c.t, err)
	body, err := io.ReadAll(res.Body)
	must(c.t, err)
	return res, string(body)
}

// ends wants the connection to be closed, with nothing more on it.
func (c *client) ends() {
	c.t.Helper()
	rest, err := io.ReadAll(c.r)
	if err != nil || len(rest) > 0 {
		c.t.Errorf("after the end came %q, %v", rest, err)
	}
}

// echo answers with what a handler sees of a request.
func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	w.Header().Set("Seen", r.Method+" "+r.RequestURI+" "+r.Host)
	_, _ = w.Write(body)
}

// tape is a connection whose client sends pieces, one a read, and then nothing.
type tape struct {
	net.Conn // nil: what a Conn does not call
	pieces   [][]byte
	written  bytes.Buffer
}

func (t *tape) Read(p []byte) (int, error) {
	if len(t.pieces) == 0 {
		return 0, io.EOF
	}
	n := copy(p, t.pieces[0])
	if t.pieces[0] = t.pieces[0][n:]; len(t.pieces[0]) == 0 {
		t.pieces = t.pieces[1:]
	}
	return n, nil
}

func (t *tape) Write(p []byte) (int, error)     { return t.written.Write(p) }
func (t *tape) SetReadDeadline(time.Time) error { return nil }
func (t *tape) Close() error                    { return nil }
func newTape(text string, sizes ...int) *tape {
	t := &tape{}
	for i := 0; len(text) > 0; i++ {
		n := len(text)
		if len(sizes) > 0 {
			n = min(n, max(1, sizes[i%len(sizes)]))
		}
		t.pieces = append(t.pieces, []byte(text[:n]))
		text = text[n:]
	}
	return t
}

func newConn(nc net.Conn, l Limits) *Conn {
	l = l.orDefaults()
	return &Conn{Conn: nc, limits: &l, count: &Counters{}}
}

const host = "Host: h\r\n"

func get(target string, fields ...string) string {
	return "GET " + target + " HTTP/1.1\r\n" + host + strings.Join(append(fields, ""), "\r\n") + "\r\n"
}
