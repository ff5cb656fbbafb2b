package origin_test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/netip"
	"net/textproto"
	"slices"
	"strings"
	"testing"
	"time"

	"walcache/proxy/origin"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newProxy serves an Origin that does nothing but forward.
func newProxy(t *testing.T, c origin.Config) *httptest.Server {
	t.Helper()
	o, err := origin.New(c)
	must(t, err)
	t.Cleanup(o.Close)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fail := func(w http.ResponseWriter, err error) {
			var f *origin.Failure
			if !errors.As(err, &f) {
				f = &origin.Failure{Status: http.StatusTeapot, Err: err}
			}
			f.Write(w)
		}
		v, err := o.View(r)
		if err != nil {
			fail(w, &origin.Failure{Status: http.StatusBadRequest, Err: err})
			return
		}
		o.Forward(w, r, v, &origin.Exchange{Response: func(*http.Response) error { return nil }, Failed: fail})
	}))
	t.Cleanup(proxy.Close)
	return proxy
}

// recorder is an upstream that keeps the bytes of the requests it gets.
type recorder struct {
	url  string
	seen chan string // the head of each request
}

func newRecorder(t *testing.T) *recorder {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	rec := &recorder{url: "http://" + l.Addr().String(), seen: make(chan string, 1)}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go rec.serve(conn)
		}
	}()
	return rec
}

func (rec *recorder) serve(conn net.Conn) {
	defer conn.Close()
	var head strings.Builder
	for r := bufio.NewReader(conn); ; {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		head.WriteString(line)
		if line == "\r\n" {
			break
		}
	}
	rec.seen <- head.String()
	_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
}

// send writes bytes to a server and returns the status line of the answer.
func send(t *testing.T, server *httptest.Server, request string) string {
	t.Helper()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	must(t, err)
	defer conn.Close()
	must(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	_, err = io.WriteString(conn, request)
	must(t, err)
	line, err := bufio.NewReader(conn).ReadString('\n')
	must(t, err)
	return strings.TrimSpace(line)
}

func TestForward_SendsTheTargetByteForByte(t *testing.T) {
	upstream := newRecorder(t)
	proxy := newProxy(t, origin.Config{Upstream: upstream.url})
	for _, target := range []string{
		"/", "/?", "/a", "/a?", "/a?b=%zz&c;d", "//x/y", "//x/y?", "//x//y?a=b", "///", "/a//b/./c/../d/",
		"/a%2Fb/../c", "/%61", "/{x}|", "/a^b`c\"<>\\", "/ü/日本", "/\xff\xfe", "/a?ü=\xff", "/a:b@c", "/a#b", "/?a?b", "/*",
		"//x%2Fy", "/" + strings.Repeat("long", 1000),
	} {
		status := send(t, proxy, "GET "+target+" HTTP/1.1\r\nHost: example.com\r\n\r\n")
		if status != "HTTP/1.1 200 OK" {
			t.Errorf("%q: %s", target, status)
			continue
		}
		line, _, _ := strings.Cut(<-upstream.seen, "\r\n")
		if want := "GET " + target + " HTTP/1.1"; line != want {
			t.Errorf("sent %q, want %q", line, want)
		}
	}
}

func TestForward_MakesAnAbsoluteTargetAPath(t *testing.T) {
	upstream := newRecorder(t)
	proxy := newProxy(t, origin.Config{Upstream: upstream.url})
	for target, want := range map[string]string{
		"http://example.org/x?y":  "/x?y",
		"http://example.org":      "/",
		"http://example.org?y":    "/?y",
		"https://example.org//x":  "//x",
		"HTTP://example.org/%2Fx": "/%2Fx",
	} {
		send(t, proxy, "GET "+target+" HTTP/1.1\r\nHost: other.com\r\n\r\n")
		head := <-upstream.seen
		if line, _, _ := strings.Cut(head, "\r\n"); line != "GET "+want+" HTTP/1.1" {
			t.Errorf("%s became %q", target, line)
		}
		if !strings.Contains(head, "\r\nHost: example.org\r\n") {
			t.Errorf("%s: Host is not that of the target: %q", target, head)
		}
	}
}

func TestForward_RefusesATargetThatItCannotReproduce(t *testing.T) {
	proxy := newProxy(t, origin.Config{Upstream: newRecorder(t).url})
	for _, request := range []string{
		"GET //x/{y} HTTP/1.1", "GET //x/\xff HTTP/1.1", "GET ftp://example.com/x HTTP/1.1",
		"CONNECT example.com:80 HTTP/1.1", "CONNECT /x HTTP/1.1", "GET * HTTP/1.1",
	} {
		if got := send(t, proxy, request+"\r\nHost: example.com\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 400 ") {
			t.Errorf("%q: %s", request, got)
		}
	}
}

// fields are the lines of a recorded head, without the request line.
func fields(head string) http.Header {
	h, _ := textproto.NewReader(bufio.NewReader(strings.NewReader(head[strings.Index(head, "\n")+1:]))).ReadMIMEHeader()
	return http.Header(h)
}

const claims = "Forwarded: for=6.6.6.6;host=evil\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Proto: https\r\n" +
	"X-Forwarded-Prefix: /evil\r\nX_Forwarded_Host: evil\r\nX-Real-IP: 6.6.6.6\r\nX-Original-URL: /evil\r\nX-Rewrite-URL: /evil\r\n" +
	"X-HTTP-Method-Override: DELETE\r\nX-Host: evil\r\n" +
	"As-Of-LSN: 0/1;epoch=e\r\nMin-LSN: 0/1;epoch=e\r\nCache-Groups: \"x\"\r\nX-Kept: yes\r\nConnection: X-Hop\r\nX-Hop: evil\r\n"

func TestForward_DoesNotBelieveAStranger(t *testing.T) {
	upstream := newRecorder(t)
	proxy := newProxy(t, origin.Config{Upstream: upstream.url})
	send(t, proxy, "GET / HTTP/1.1\r\nHost: example.com\r\n"+claims+"\r\n")
	head := <-upstream.seen
	if strings.Contains(head, "evil") || strings.Contains(head, "6.6.6.6") || strings.Contains(head, "epoch") || strings.Contains(head, "DELETE") {
		t.Errorf("a stranger's claims went upstream:\n%s", head)
	}
	for name, want := range map[string]string{
		"Host": "example.com", "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Host": "example.com", "X-Forwarded-Proto": "http",
		"X-Kept": "yes", "Via": "1.1 walcache", "User-Agent": "", "Accept-Encoding": "",
	} {
		if got := fields(head).Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

func TestForward_BelievesATrustedProxy(t *testing.T) {
	upstream := newRecorder(t)
	proxy := newProxy(t, origin.Config{Upstream: upstream.url, Trusted: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	send(t, proxy, "GET / HTTP/1.1\r\nHost: example.com\r\nVia: 1.0 edge\r\n"+claims+"\r\n")
	got := fields(<-upstream.seen)
	for name, want := range map[string][]string{
		"X-Forwarded-For": {"6.6.6.6, 127.0.0.1"}, "X-Forwarded-Host": {"evil"}, "X-Forwarded-Proto": {"https"},
		"Forwarded": {"for=6.6.6.6;host=evil"}, "X-Real-Ip": {"6.6.6.6"}, "X-Original-Url": {"/evil"},
		"As-Of-Lsn": nil, "Min-Lsn": nil, "Cache-Groups": nil, "X-Hop": nil, "Via": {"1.0 edge", "1.1 walcache"},
	} {
		if !slices.Equal(got[name], want) {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
}

// A service that speaks HTTP/2 would take whatever came through.
func TestForward_DoesNotOpenATunnelForHTTP2(t *testing.T) {
	upstream := newRecorder(t)
	proxy := newProxy(t, origin.Config{Upstream: upstream.url})
	send(t, proxy, "GET / HTTP/1.1\r\nHost: example.com\r\nConnection: Upgrade\r\nUpgrade: H2C\r\nHTTP2-Settings: AAMAAABk\r\n\r\n")
	if head := <-upstream.seen; strings.Contains(strings.ToLower(head), "upgrade") {
		t.Errorf("the upgrade went on:\n%s", head)
	}
}

func TestForward_SendsAnotherHostIfToldTo(t *testing.T) {
	upstream := newRecorder(t)
	proxy := newProxy(t, origin.Config{Upstream: upstream.url, Host: "internal"})
	send(t, proxy, "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
	if got := fields(<-upstream.seen); got.Get("Host") != "internal" || got.Get("X-Forwarded-Host") != "example.com" {
		t.Errorf("Host %q, X-Forwarded-Host %q", got.Get("Host"), got.Get("X-Forwarded-Host"))
	}
}

// What a trusted proxy says of scheme and host selects among answers, so that
// one made for another host is never served; what a stranger says does not.
func TestView_ContainsWhatIsBelieved(t *testing.T) {
	view := func(trusted bool, secure bool, lines ...string) origin.View {
		c := origin.Config{Upstream: "http://127.0.0.1:1"}
		if trusted {
			c.Trusted = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
		}
		o, err := origin.New(c)
		must(t, err)
		r := httptest.NewRequest(http.MethodGet, "/x", nil) // from 192.0.2.1
		if secure {
			r.TLS = &tls.ConnectionState{}
		}
		for _, line := range lines {
			name, value, _ := strings.Cut(line, ": ")
			r.Header.Add(name, value)
		}
		v, err := o.View(r)
		must(t, err)
		return v
	}
	plain := view(false, false)
	if plain != (origin.View{Scheme: "http", Host: "example.com", Target: "/x"}) {
		t.Errorf("plain: %+v", plain)
	}
	if v := view(false, true); v.Scheme != "https" {
		t.Errorf("over TLS: %+v", v)
	}
	if v := view(false, false, "X-Forwarded-Proto: https", "X-Forwarded-Host: evil", "X-Original-URL: /y"); v != plain {
		t.Errorf("a stranger was believed: %+v", v)
	}
	if v := view(true, false, "X-Forwarded-Proto: https"); v.Scheme != "https" {
		t.Errorf("a trusted proxy was not believed: %+v", v)
	}
	if v := view(true, false, "X-Forwarded-Host: other"); v.Host == plain.Host || v.Overridden {
		t.Errorf("the host is not part of the view: %+v", v)
	}
	if v := view(true, false, "X-Forwarded-For: 6.6.6.6", "X-Real-IP: 6.6.6.6"); v != plain {
		t.Errorf("the client's address is part of the view: %+v", v)
	}
	for _, line := range []string{"X-Original-URL: /y", "X-HTTP-Method-Override: PUT", "Forwarded: host=y", "X_Host: y"} {
		if v := view(true, false, line); !v.Overridden {
			t.Errorf("%s: %+v", line, v)
		}
	}
}

func TestFailure_SaysWhatToCheck(t *testing.T) {
	hung := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer hung.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	must(t, l.Close()) // nobody listens here
	for _, test := range []struct {
		upstream string
		status   int
		says     string
	}{
		{"http://" + l.Addr().String(), 502, "Check that the service is running"},
		{hung.URL, 504, "did not answer in time"},
		{garbage(t), 502, "Check that the service is running"},
	} {
		proxy := newProxy(t, origin.Config{Upstream: test.upstream, Timeout: 50 * time.Millisecond})
		res, err := http.Get(proxy.URL)
		must(t, err)
		body, err := io.ReadAll(res.Body)
		must(t, err)
		must(t, res.Body.Close())
		if res.StatusCode != test.status || !strings.Contains(string(body), test.says) || strings.Contains(string(body), "127.0.0.1") {
			t.Errorf("%d %s", res.StatusCode, body)
		}
		if res.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%d may be cached", res.StatusCode)
		}
	}
}

// garbage is an upstream that speaks no HTTP.
func garbage(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, "HTTP/1.1 000 none\r\n\r\n")
			_ = conn.Close()
		}
	}()
	return "http://" + l.Addr().String()
}

func TestForward_PassesEarlyHintsAndTrailers(t *testing.T) {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Set("Trailer", "X-Sum")
		fmt.Fprint(w, "body")
		w.Header().Set("X-Sum", "42")
	}))
	defer upstream.Close()
	proxy := newProxy(t, origin.Config{Upstream: upstream.URL})
	var hints int
	trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, _ textproto.MIMEHeader) error { hints = code; return nil }}
	req, err := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), http.MethodGet, proxy.URL, nil)
	must(t, err)
	res, err := http.DefaultClient.Do(req)
	must(t, err)
	body, err := io.ReadAll(res.Body)
	must(t, err)
	must(t, res.Body.Close())
	if hints != http.StatusEarlyHints || string(body) != "body" || res.Trailer.Get("X-Sum") != "42" {
		t.Errorf("hints %d, body %q, trailer %v", hints, body, res.Trailer)
	}
	if got := res.Header.Get("Via"); got != "1.1 walcache" {
		t.Errorf("Via is %q", got)
	}
}

func TestNew_RefusesAnUpstreamThatIsNoAddress(t *testing.T) {
	for _, upstream := range []string{"", "localhost:8002", "ftp://x", "http://", "http://x/path", "http://user:secret@x", "http://user:secret@x:y", "http://x?y"} {
		_, err := origin.New(origin.Config{Upstream: upstream})
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", upstream, err)
		}
	}
}
