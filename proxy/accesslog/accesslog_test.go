package accesslog_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"walcache/proxy/accesslog"
	"walcache/proxy/origin"
)

// logged is a server whose answers are logged.
type logged struct {
	*httptest.Server
	t    *testing.T
	log  *accesslog.Log
	file string
	stop func() // returns once everything is written
}

func newLogged(t *testing.T, h http.HandlerFunc, trusted ...netip.Prefix) *logged {
	t.Helper()
	l := &logged{t: t, file: filepath.Join(t.TempDir(), "access.log")}
	var err error
	if l.log, err = accesslog.Open(accesslog.Config{File: l.file, Trusted: trusted}); err != nil {
		t.Fatal(err)
	}
	l.stop = running(t, l.log)
	l.Server = httptest.NewServer(l.log.Handler(h))
	l.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	t.Cleanup(l.Close)
	return l
}

// running has a log written until the function that it returns is called.
func running(t *testing.T, l *accesslog.Log) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- l.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// send writes a request as it stands, and returns the whole answer.
func (l *logged) send(request string) string {
	l.t.Helper()
	conn, err := net.Dial("tcp", l.Listener.Addr().String())
	if err != nil {
		l.t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		l.t.Fatal(err)
	}
	answer, _ := io.ReadAll(conn) // until it is cut off, if that is what the test is about
	return string(answer)
}

func (l *logged) get(target string, lines ...string) string {
	l.t.Helper()
	lines = append([]string{"GET " + target + " HTTP/1.1", "Host: shop.example", "Connection: close"}, lines...)
	return l.send(strings.Join(lines, "\r\n") + "\r\n\r\n")
}

// lines waits for so many lines, and returns them.
func (l *logged) lines(n int) (all []accesslog.Line) {
	l.t.Helper()
	text := awaitLines(l.t, l.file, n)
	for line := range strings.Lines(text) {
		var parsed accesslog.Line
		if err := json.Unmarshal([]byte(line), &parsed); err != nil {
			l.t.Fatalf("%v: %s", err, line)
		}
		all = append(all, parsed)
	}
	return all
}

func awaitLines(t *testing.T, file string, n int) string {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Count(text, []byte("\n")) >= n {
			return string(text)
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %d lines:\n%s", n, text)
		}
	}
}

func TestLine_SaysWhatWasAskedAndAnswered(t *testing.T) {
	l := newLogged(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Add("Cache-Status", "inner; hit")
		w.Header().Add("Cache-Status", "walcache; hit; ttl=9; detail=memory")
		w.WriteHeader(http.StatusAccepted)
		_, _ = io.WriteString(w, "hello")
	})
	began := time.Now()
	l.get("/a%20b/?page=2&q=&page=3", "User-Agent: test/1", "Referer: https://shop.example/from?token=x#y", "X-Request-Id: mine", "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	got := l.lines(1)[0]
	if got.Time.Before(began.Add(-time.Millisecond)) || got.Time.After(time.Now()) || got.Duration <= 0 || got.FirstByte <= 0 || got.FirstByte > got.Duration {
		t.Errorf("times: %+v", got)
	}
	got.Time, got.Duration, got.FirstByte = time.Time{}, 0, 0
	want := accesslog.Line{Method: "GET", Host: "shop.example", Path: "/a%20b/", Query: []string{"page", "q", "page"}, Proto: "HTTP/1.1",
		Status: 202, Bytes: 5, Cache: "walcache; hit; ttl=9; detail=memory", Client: "127.0.0.1", UserAgent: "test/1",
		Referer: "https://shop.example/from", RequestID: "mine", Trace: "4bf92f3577b34da6a3ce929d0e0e4736"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// A request with something secret wherever a client can put it.
func TestLine_HasNothingSecret(t *testing.T) {
	l := newLogged(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Set-Cookie", "session=S3CRET")
		w.Header().Set("Location", "/?token=S3CRET")
		w.Header().Set("Cache-Status", "elsewhere; key=S3CRET")
		_, _ = io.WriteString(w, "S3CRET")
	})
	for _, target := range []string{
		"/?token=S3CRET&S3CRET&a=b%26S3CRET", "/?S3CRET", "http://user:S3CRET@shop.example/?token=S3CRET", "/?a=b;token=S3CRET", "/x?#S3CRET",
	} {
		for _, referer := range []string{
			"https://user:S3CRET@shop.example/?token=S3CRET", "https://shop.example/#S3CRET", "mailto:S3CRET", ":S3CRET", "https://%zz/?S3CRET", "/?S3CRET", "//S3CRET@host/",
		} {
			l.get(target, "Authorization: Bearer S3CRET", "Proxy-Authorization: S3CRET", "Cookie: session=S3CRET", "X-Walcache-Token: S3CRET",
				"X-Api-Key: S3CRET", "Tracestate: a=S3CRET", "X-Forwarded-For: S3CRET", "Referer: "+referer)
		}
	}
	l.send("POST / HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\nContent-Length: 12\r\n\r\ntoken=S3CRET")
	l.lines(5*7 + 1)
	if text := awaitLines(t, l.file, 1); strings.Contains(text, "S3CRET") {
		t.Errorf("%s", text)
	}
}

func TestLine_IsBoundedAndOneLineWhateverIsSent(t *testing.T) {
	l := newLogged(t, func(http.ResponseWriter, *http.Request) {})
	long := strings.Repeat("x", 10_000)
	l.get("/"+long+"?"+strings.Repeat(long+"=1&", 4)+strings.Repeat("n=1&", 2000), "User-Agent: "+long, "Referer: http://h/"+long, "X-Request-Id: "+long)
	l.get("/\xff\xfe\xc3\"\\\x80?\xff=1", "User-Agent: \xff\"},{\tx", "Referer: http://h/\xff", "X-Request-Id: a\"b")
	if lines := l.lines(2); len(lines[0].Path) != 2<<10 || len(lines[0].UserAgent) != 256 || len(lines[0].Query) != 32 || len(lines[0].RequestID) != 32 ||
		!strings.HasPrefix(lines[1].Path, "/\ufffd\ufffd\ufffd\"\\") {
		t.Errorf("%+v", lines)
	}
	for line := range strings.Lines(awaitLines(t, l.file, 2)) {
		if len(line) > 8<<10 {
			t.Errorf("%d bytes: %s", len(line), line)
		}
	}
}

func TestLine_ClientIsWhoATrustedProxyNames(t *testing.T) {
	answer := func(http.ResponseWriter, *http.Request) {}
	for _, c := range []struct{ trusted, forwarded, want string }{
		{"", "10.0.0.1", "127.0.0.1"},
		{"127.0.0.0/8", "", "127.0.0.1"},
		{"127.0.0.0/8", "10.0.0.1", "10.0.0.1"},
		{"127.0.0.0/8", "6.6.6.6, 10.0.0.1,127.0.0.9", "10.0.0.1"},
		{"127.0.0.0/8", "6.6.6.6, nonsense", "127.0.0.1"},
		{"127.0.0.0/8", "2001:db8::1%eth0", "2001:db8::1"},
	} {
		var trusted []netip.Prefix
		if c.trusted != "" {
			trusted = append(trusted, netip.MustParsePrefix(c.trusted))
		}
		l := newLogged(t, answer, trusted...)
		l.get("/", "X-Forwarded-For: "+c.forwarded)
		l.stop()
		if got := l.lines(1)[0].Client; got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}

func TestHandler_KnowsTheAnswerHoweverItIsWritten(t *testing.T) {
	l := newLogged(t, func(w http.ResponseWriter, r *http.Request) {
		c := http.NewResponseController(w)
		switch r.URL.Path {
		case "/nothing":
		case "/hints":
			w.Header().Set("Link", "</a>")
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusProcessing)
			clear(w.Header()) // as httputil.ReverseProxy does
			w.WriteHeader(http.StatusNotFound)
			w.WriteHeader(http.StatusOK) // too late
		case "/flush":
			if err := c.Flush(); err != nil {
				t.Error(err)
			}
			_, _ = io.WriteString(w, "abc")
		case "/copy":
			_, _ = io.Copy(w, struct{ io.Reader }{strings.NewReader("abcd")})
		case "/deadline":
			if err := c.SetWriteDeadline(time.Now().Add(time.Hour)); err != nil {
				t.Error(err)
			}
		case "/not-modified":
			w.WriteHeader(http.StatusNotModified)
			_, _ = io.WriteString(w, "abc")
		case "/abort":
			_, _ = io.WriteString(w, "ab")
			_ = c.Flush()
			panic(http.ErrAbortHandler)
		case "/bug":
			panic("a bug")
		case "/hijack":
			conn, _, err := c.Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\n\r\n")
			_ = conn.Close()
		}
	})
	type want struct {
		path    string
		status  int
		bytes   int64
		aborted bool
	}
	wants := []want{
		{"/nothing", 200, 0, false}, {"/hints", 404, 0, false}, {"/flush", 200, 3, false}, {"/copy", 200, 4, false}, {"/deadline", 200, 0, false},
		{"/not-modified", 304, 0, false}, {"/abort", 200, 2, true}, {"/bug", 0, 0, true}, {"/hijack", 101, 0, false},
	}
	var answers []string
	for _, want := range wants {
		answers = append(answers, l.get(want.path))
	}
	l.send("HEAD /copy HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
	for _, got := range l.lines(len(wants) + 1) {
		i := slices.IndexFunc(wants, func(w want) bool { return w.path == got.Path })
		want, answer := wants[i], answers[i]
		if got.Method == http.MethodHead {
			want.bytes = 0
		}
		if got.Path != want.path || got.Status != want.status || got.Bytes != want.bytes || got.Aborted != want.aborted {
			t.Errorf("%s: %+v", want.path, got)
		}
		if id := "X-Request-Id: " + got.RequestID + "\r\n"; got.Status != 0 && got.Status != 101 && got.Method != http.MethodHead && strings.Count(answer, id) != 1 {
			t.Errorf("%s: %q is not once in the answer:\n%s", want.path, id, answer)
		}
	}
}

// An upgrade through the proxy's own origin, whose both ends go on to speak.
func TestHandler_LetsConnectionsUpgrade(t *testing.T) {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		line, _ := buffered.ReadString('\n')
		_, _ = io.WriteString(conn, r.Header.Get("X-Request-Id")+" "+line)
	}))
	defer upstream.Close()
	o, err := origin.New(origin.Config{Upstream: upstream.URL})
	if err != nil {
		t.Fatal(err)
	}
	l := newLogged(t, func(w http.ResponseWriter, r *http.Request) {
		v, _ := o.View(r)
		o.Forward(w, r, v, &origin.Exchange{Response: func(*http.Response) error { return nil }, Failed: func(http.ResponseWriter, error) {}})
	})
	conn, err := net.Dial("tcp", l.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET /up HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: echo\r\nX-Request-Id: mine\r\n\r\n")
	reader := bufio.NewReader(conn)
	res, err := http.ReadResponse(reader, nil)
	if err != nil || res.StatusCode != 101 || fmt.Sprint(res.Header["X-Request-Id"]) != "[mine]" {
		t.Fatalf("%v %+v", err, res)
	}
	fmt.Fprint(conn, "ping\n")
	if line, err := reader.ReadString('\n'); line != "mine ping\n" {
		t.Errorf("%q %v", line, err)
	}
	_ = conn.Close()
	if got := l.lines(1)[0]; got.Status != 101 || got.RequestID != "mine" {
		t.Errorf("%+v", got)
	}
}

func TestLog_GoesOnWhereThePathLeads(t *testing.T) {
	l := newLogged(t, func(http.ResponseWriter, *http.Request) {})
	l.get("/before")
	l.lines(1)
	rotated := l.file + ".1"
	if err := os.Rename(l.file, rotated); err != nil {
		t.Fatal(err)
	}
	l.get("/between")
	if err := l.log.Reopen(); err != nil {
		t.Fatal(err)
	}
	l.get("/after")
	l.stop()
	if text := awaitLines(t, rotated, 2); !strings.Contains(text, "/before") || !strings.Contains(text, "/between") {
		t.Errorf("%s", text)
	}
	if text := awaitLines(t, l.file, 1); !strings.Contains(text, "/after") || strings.Count(text, "\n") != 1 {
		t.Errorf("%s", text)
	}
	if info, err := os.Stat(l.file); err != nil || info.Mode().Perm()&^0o640 != 0 {
		t.Errorf("%v %v", info.Mode(), err)
	}
}

func TestLog_AppendsAndWritesOnIfItCannotReopen(t *testing.T) {
	l := newLogged(t, func(http.ResponseWriter, *http.Request) {})
	l.get("/1")
	l.lines(1)
	away := l.file + ".away"
	if err := errors.Join(os.Rename(l.file, away), os.Mkdir(l.file, 0o700)); err != nil {
		t.Fatal(err)
	}
	if err := l.log.Reopen(); err == nil || !strings.Contains(err.Error(), l.file) || !strings.Contains(err.Error(), "\n  try: ") {
		t.Errorf("%v", err)
	}
	l.get("/2")
	awaitLines(t, away, 2)
	l.stop()
	again, err := accesslog.Open(accesslog.Config{File: away})
	if err != nil {
		t.Fatal(err)
	}
	stop := running(t, again)
	again.Add(accesslog.Line{Path: "/3"})
	stop()
	if text := awaitLines(t, away, 3); !strings.Contains(text, "/1") {
		t.Errorf("%s", text)
	}
}

func TestOpen_SaysWhatIsWrongAndWhatToDo(t *testing.T) {
	dir := t.TempDir()
	for file, try := range map[string]string{
		dir:                           "name a file that can be written",
		filepath.Join(dir, "no", "x"): "make its directory first",
	} {
		_, err := accesslog.Open(accesslog.Config{File: file})
		if err == nil || !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), try) {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// gate is a file that takes what it is given only once it is open, and if it is
// limited, of each write so many bytes.
type gate struct {
	open    chan struct{}
	mu      sync.Mutex // guards the following
	limited int        // -1 if it is not
	text    bytes.Buffer
}

func (g *gate) Write(p []byte) (int, error) {
	<-g.open
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.limited >= 0 && g.limited < len(p) {
		g.text.Write(p[:g.limited])
		return g.limited, errors.New("no space left")
	}
	return g.text.Write(p)
}

func (g *gate) limit(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.limited = n
}

func (g *gate) String() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.text.String()
}

func TestLog_LosesLinesRatherThanWait(t *testing.T) {
	out := &gate{open: make(chan struct{}), limited: -1}
	said := &gate{open: make(chan struct{}), limited: -1}
	close(said.open)
	l, err := accesslog.Open(accesslog.Config{File: "-", Stdout: out, Log: slog.New(slog.NewTextHandler(said, nil))})
	if err != nil {
		t.Fatal(err)
	}
	stop := running(t, l)
	line := accesslog.Line{Path: strings.Repeat("x", 1000)}
	const n = 20_000 // 20 MB
	for range n {
		l.Add(line)
	}
	close(out.open)
	stop()
	written := strings.Count(out.String(), "\n")
	var lost int
	for text := range strings.Lines(said.String()) {
		_, number, _ := strings.Cut(text, " lost=")
		var some int
		if _, err := fmt.Sscan(number, &some); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		lost += some
	}
	if written+lost != n || written < 1000 || lost < n/4 {
		t.Errorf("%d written and %d lost of %d; said\n%s", written, lost, n, said)
	}
	if times := strings.Count(said.String(), "\n"); times > 2 {
		t.Errorf("said %d times", times)
	}
}

func TestLog_NoLineFollowsHalfOfAnother(t *testing.T) {
	out := &gate{open: make(chan struct{}), limited: 10}
	close(out.open)
	l, err := accesslog.Open(accesslog.Config{File: "-", Stdout: out})
	if err != nil {
		t.Fatal(err)
	}
	stop := running(t, l)
	l.Add(accesslog.Line{Path: "/1"})
	for deadline := time.Now().Add(20 * time.Second); out.String() == ""; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain for half a line")
		}
	}
	out.limit(-1)
	l.Add(accesslog.Line{Path: "/2"})
	stop()
	lines := strings.Split(out.String(), "\n")
	if len(lines) != 3 || len(lines[0]) != 10 || !json.Valid([]byte(lines[1])) || !strings.Contains(lines[1], "/2") {
		t.Errorf("%q", lines)
	}
}

// BenchmarkHandler is what logging adds to an answer.
func BenchmarkHandler(b *testing.B) {
	l, err := accesslog.Open(accesslog.Config{File: filepath.Join(b.TempDir(), "access.log")})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- l.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	h := l.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }))
	r := httptest.NewRequest(http.MethodGet, "/properties/1/?lang=en", nil)
	r.Header.Set("User-Agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0 Safari/537.36")
	w := httptest.NewRecorder()
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(w, r)
	}
}
