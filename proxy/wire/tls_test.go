package wire

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// certified makes a certificate for this machine.
var certified = sync.OnceValue(func() *tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
})

func secureSite(t *testing.T, l Limits, h http.HandlerFunc) *site {
	return serveWith(t, Config{Limits: l, Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return certified(), nil }}, h)
}

// shake dials and shakes hands for a protocol.
func (s *site) shake(protocol string) *client {
	s.t.Helper()
	c := s.dial()
	secure := tls.Client(c.Conn, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}})
	must(s.t, secure.HandshakeContext(s.t.Context()))
	if got := secure.ConnectionState().NegotiatedProtocol; got != protocol {
		s.t.Fatalf("speaks %q and not %q", got, protocol)
	}
	c.Conn = secure
	c.r.Reset(secure)
	return c
}

func TestServe_SpeaksBothVersionsOverTLS(t *testing.T) {
	s := secureSite(t, Limits{}, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		fmt.Fprintf(w, "%s %t %s %s", r.Proto, r.TLS != nil, r.Host, body)
	})
	for _, second := range []bool{false, true} {
		protocols, proto := &http.Protocols{}, "HTTP/1.1"
		protocols.SetHTTP1(!second)
		if protocols.SetHTTP2(second); second {
			proto = "HTTP/2.0"
		}
		c := &http.Client{Transport: &http.Transport{Protocols: protocols, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
		defer c.CloseIdleConnections()
		for _, body := range []string{"", "hello", strings.Repeat("x", 1<<20)} {
			res, err := c.Post("https://"+s.at+"/a?b", "text/plain", strings.NewReader(body))
			must(t, err)
			got, err := io.ReadAll(res.Body)
			must(t, errors.Join(err, res.Body.Close()))
			if want := proto + " true " + s.at + " " + body; string(got) != want {
				t.Errorf("%.60q, want %.60q", got, want)
			}
		}
	}
	if got := s.count.Refused(); len(got) > 0 {
		t.Errorf("refused: %v", got)
	}
}

func TestServe_IsAsStrictOverTLS(t *testing.T) {
	s := secureSite(t, Limits{}, echo)
	for i, test := range malformed {
		c := s.shake("http/1.1")
		c.send(get("/first") + test.request)
		if res, _ := c.answer("GET"); res.StatusCode != 200 {
			t.Errorf("before %.80q: %d", test.request, res.StatusCode)
		}
		method, _, _ := strings.Cut(test.request, " ")
		if res, _ := c.answer(method); res.StatusCode != refusals[test.why].status {
			t.Errorf("%.80q: %d", test.request, res.StatusCode)
		}
		c.ends()
		if i == 20 {
			break // the rest is the same code
		}
	}
}

func TestServe_TellsWhoSpeaksHTTPToAPortWithTLS(t *testing.T) {
	s := secureSite(t, Limits{}, echo)
	c := s.dial()
	c.send(get("/"))
	if res, body := c.answer("GET"); res.StatusCode != 400 || !strings.Contains(body, "https://") {
		t.Errorf("%d %q", res.StatusCode, body)
	}
	c.ends()
	if got := s.count.Refused(); got["plain-text"] != 1 {
		t.Errorf("counted %v", got)
	}
}

func TestServe_RefusesOldTLS(t *testing.T) {
	s := secureSite(t, Limits{}, echo)
	err := tls.Client(s.dial(), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}).HandshakeContext(t.Context())
	if err == nil {
		t.Error("TLS 1.1 was spoken")
	}
}

func TestServe_AHandshakeThatNeverEndsHoldsNothingUp(t *testing.T) {
	s := secureSite(t, Limits{HeadTime: 2 * time.Second}, echo)
	var slow []*client
	for range 50 {
		c := s.dial()
		c.send("\x16\x03")
		slow = append(slow, c)
	}
	c := s.shake("http/1.1")
	c.send(get("/"))
	if res, _ := c.answer("GET"); res.StatusCode != 200 {
		t.Errorf("%d", res.StatusCode)
	}
	for _, c := range slow {
		c.ends()
	}
}

func TestServe_AClientThatNeverReadsIsCutOffOverTLSToo(t *testing.T) {
	ended := make(chan error, 1)
	s := secureSite(t, Limits{Pause: 100 * time.Millisecond}, func(w http.ResponseWriter, _ *http.Request) {
		_, err := io.Copy(w, endlessly{})
		ended <- err
	})
	c := s.shake("http/1.1")
	c.send(get("/"))
	if err := <-ended; err == nil {
		t.Error("it was written for ever")
	}
	if got := s.count.Refused(); got["slow-reader"] != 1 {
		t.Errorf("counted %v", got)
	}
}

// framer speaks HTTP/2 by hand.
type framer struct {
	*http2.Framer
	t    *testing.T
	text bytes.Buffer
	head *hpack.Encoder
	next uint32
}

func (s *site) framer(t *testing.T, settings ...http2.Setting) *framer {
	t.Helper()
	c := s.shake("h2")
	c.send(http2.ClientPreface)
	f := &framer{Framer: http2.NewFramer(c.Conn, c.Conn), t: t, next: 1}
	f.head = hpack.NewEncoder(&f.text)
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	must(t, f.WriteSettings(settings...))
	return f
}

// ask sends a request of "name: value" lines, and a body if it is not empty.
func (f *framer) ask(body string, lines ...string) uint32 {
	f.t.Helper()
	id := f.next
	f.next += 2
	f.text.Reset()
	for _, line := range lines {
		i := strings.Index(line[1:], ":") + 1 // pseudo-headers begin with a colon
		must(f.t, f.head.WriteField(hpack.HeaderField{Name: line[:i], Value: strings.TrimPrefix(line[i+1:], " ")}))
	}
	block := f.text.Bytes()
	first := block[:min(len(block), 16<<10)]
	must(f.t, f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: first, EndHeaders: len(first) == len(block), EndStream: body == ""}))
	for block = block[len(first):]; len(block) > 0; {
		part := block[:min(len(block), 16<<10)]
		block = block[len(part):]
		must(f.t, f.WriteContinuation(id, len(block) == 0, part))
	}
	if body != "" {
		must(f.t, f.WriteData(id, true, []byte(body)))
	}
	return id
}

// outcome is a status, or how the stream or the connection ended.
func (f *framer) outcome(id uint32) string {
	f.t.Helper()
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return "closed"
		}
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			if frame.StreamID == id {
				return frame.PseudoValue("status")
			}
		case *http2.RSTStreamFrame:
			if frame.StreamID == id {
				return frame.ErrCode.String()
			}
		case *http2.GoAwayFrame:
			return "closed: " + frame.ErrCode.String()
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				must(f.t, f.WriteSettingsAck())
			}
		}
	}
}

var usual = []string{":method: GET", ":scheme: https", ":authority: h", ":path: /"}

func with(lines ...string) []string { return append(append([]string{}, usual...), lines...) }

// instead replaces pseudo-headers by name; "" leaves one out.
func instead(name, line string) (all []string) {
	for _, u := range usual {
		switch {
		case !strings.HasPrefix(u, name+":"):
			all = append(all, u)
		case line != "":
			all = append(all, line)
		}
	}
	return all
}

func TestHTTP2(t *testing.T) {
	const protocolError = "PROTOCOL_ERROR"
	for _, test := range []struct {
		what    string
		request []string
		body    string
		want    string
		counted string
	}{
		{"well-formed", usual, "", "200", ""},
		{"with a body", with("content-length: 5"), "hello", "200", ""},
		{"te: trailers", with("te: trailers"), "", "200", ""},
		{"the same host twice", with("host: h"), "", "200", ""},
		{"host instead of :authority", append(instead(":authority", ""), "host: h"), "", "200", ""},
		{"an asterisk", []string{":method: OPTIONS", ":scheme: https", ":authority: h", ":path: *"}, "", "200", ""},
		// RFC 9113, section 8.2.
		{"upper case", with("Accept: x"), "", protocolError, ""},
		{"a space in a name", with("a b: x"), "", protocolError, ""},
		{"a colon in a name", with("a:b: x"), "", "200", ""}, // name a, value b: x
		{"an empty name", with(" : x"), "", protocolError, ""},
		{"a line feed in a value", with("a: b\nc: d"), "", protocolError, ""},
		{"a NUL in a value", with("a: b\x00"), "", protocolError, ""},
		{"connection", with("connection: close"), "", "400", ""},
		{"keep-alive", with("keep-alive: 5"), "", "400", ""},
		{"proxy-connection", with("proxy-connection: close"), "", "400", ""},
		{"transfer-encoding", with("transfer-encoding: chunked"), "", "400", ""},
		{"upgrade", with("upgrade: websocket"), "", "400", ""},
		{"te", with("te: gzip"), "", "400", ""},
		// Section 8.3.
		{"no method", instead(":method", ""), "", protocolError, ""},
		{"no scheme", instead(":scheme", ""), "", protocolError, ""},
		{"no path", instead(":path", ""), "", protocolError, ""},
		{"an empty path", instead(":path", ":path: "), "", protocolError, ""},
		{"two methods", append([]string{":method: GET"}, usual...), "", protocolError, ""},
		{"two paths", append([]string{":path: /a"}, usual...), "", protocolError, ""},
		{"an unknown pseudo-header", append([]string{":x: y"}, usual...), "", protocolError, ""},
		{"one of a response", append([]string{":status: 200"}, usual...), "", protocolError, ""},
		{"one behind a field", append([]string{"a: b"}, usual...), "", protocolError, ""},
		{"a method that is none", instead(":method", ":method: G T"), "", "400", "request-line"},
		{"another scheme", instead(":scheme", ":scheme: ftp"), "", protocolError, ""},
		{"http over TLS", instead(":scheme", ":scheme: http"), "", "200", ""}, // the handler sees TLS
		{"a host beside another", with("host: other"), "", "400", "host"},
		{"two hosts", with("host: h", "host: h"), "", "400", "host"},
		{"no host", instead(":authority", ""), "", "400", "host"},
		{"a host that is none", instead(":authority", ":authority: a b"), "", "400", "host"},
		{"a host with a path", instead(":authority", ":authority: h/x"), "", "400", "host"},
		{"a user", instead(":authority", ":authority: u@h"), "", protocolError, ""},
		{"a target that is none", instead(":path", ":path: x"), "", protocolError, ""},
		{"an absolute target", instead(":path", ":path: https://other/x"), "", "400", "absolute-form"},
		{"a fragment", instead(":path", ":path: /a#b"), "", "400", "target"},
		{"a space", instead(":path", ":path: /a b"), "", "400", "target"},
		{"non-ASCII", instead(":path", ":path: /\xc3\xbc"), "", "400", "target"},
		{"half an escape", instead(":path", ":path: /%2"), "", protocolError, ""},
		{"an asterisk with GET", instead(":path", ":path: *"), "", "400", "target"},
		{"a request line in a target", instead(":path", ":path: / HTTP/1.1\r\nHost: h"), "", protocolError, ""},
		{"connect", []string{":method: CONNECT", ":authority: h:443"}, "", "400", "connect"},
		{"connect with a protocol", []string{":method: CONNECT", ":protocol: websocket", ":scheme: https", ":authority: h", ":path: /"}, "", protocolError, ""},
		// Section 8.1.1.
		{"a length that is too small", with("content-length: 3"), "hello", protocolError, ""},
		{"a length that is too large", with("content-length: 9"), "hello", "error", ""},
		{"a length without a body", with("content-length: 5"), "", "400", "content-length"},
		{"two lengths", with("content-length: 5", "content-length: 5"), "hello", "400", "content-length"},
		{"a signed length", with("content-length: +5"), "hello", "error", ""},
		{"a list of lengths", with("content-length: 5, 5"), "hello", "error", ""},
		// Limits.
		{"many fields", with(strings.Split(strings.Repeat("a: b\n", 101), "\n")[:101]...), "", "431", "head-too-large"},
		{"large fields", with(strings.Split(strings.TrimSpace(strings.Repeat("a: "+strings.Repeat("x", 1000)+"\n", 70)), "\n")...), "", "431", ""},
		{"a large field", with("a: " + strings.Repeat("x", 70<<10)), "", "closed: COMPRESSION_ERROR", ""},
	} {
		t.Run(test.what, func(t *testing.T) {
			t.Parallel()
			s := secureSite(t, Limits{}, func(w http.ResponseWriter, r *http.Request) {
				if r.Host != "h" || r.TLS == nil || r.Header["Host"] != nil {
					t.Errorf("host %q, %v", r.Host, r.Header)
				}
				echo(w, r)
			})
			f := s.framer(t)
			got := f.outcome(f.ask(test.body, test.request...))
			if test.want == "error" { // by which of the two depends on what arrives first
				if got != "400" && got != protocolError {
					t.Errorf("%s", got)
				}
				return
			}
			if got != test.want {
				t.Errorf("%s, want %s", got, test.want)
			}
			if counted := s.count.Refused(); test.counted != "" && counted[test.counted] != 1 || test.counted == "" && len(counted) > 0 {
				t.Errorf("counted %v", counted)
			}
			if id := f.next; got == "200" || got == "400" { // and the connection is as good as before
				if got := f.outcome(f.ask("", usual...)); got != "200" {
					t.Errorf("stream %d: %s", id, got)
				}
			}
		})
	}
}

func TestHTTP2_SaysHowManyStreamsAndHowLargeAHeadMayBe(t *testing.T) {
	s := secureSite(t, Limits{}, echo)
	f := s.framer(t)
	frame, err := f.ReadFrame()
	must(t, err)
	settings := frame.(*http2.SettingsFrame)
	if n, _ := settings.Value(http2.SettingMaxConcurrentStreams); n != 250 {
		t.Errorf("%d streams", n)
	}
	if n, _ := settings.Value(http2.SettingMaxHeaderListSize); n < 64<<10 || n > 70<<10 {
		t.Errorf("%d bytes of header", n)
	}
}

// The connection is alive all the time: its flow control is not.
func TestHTTP2_AClientThatNeverReadsIsCutOff(t *testing.T) {
	ended := make(chan error, 2)
	s := secureSite(t, Limits{Pause: 100 * time.Millisecond}, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/short" { // it fits into a buffer, and nobody takes it
			_, err := io.WriteString(w, "short")
			ended <- err
			return
		}
		_, err := io.Copy(w, endlessly{})
		ended <- err
	})
	f := s.framer(t, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	id := f.ask("", usual...)
	if got := f.outcome(id); got != "200" {
		t.Fatal(got)
	}
	if got := f.outcome(id); got == "200" {
		t.Error(got)
	}
	if err := <-ended; err == nil {
		t.Error("it was written for ever")
	}
	if got := s.count.Refused(); got["slow-reader"] != 1 {
		t.Errorf("counted %v", got)
	}
	id = f.ask("", instead(":path", ":path: /short")...)
	if got := f.outcome(id); got != "200" {
		t.Fatal(got)
	}
	if got := f.outcome(id); got == "200" {
		t.Error(got)
	}
}

func TestHTTP2_ABodyThatRestsIsCutOff(t *testing.T) {
	ended := make(chan error, 1)
	s := secureSite(t, Limits{Pause: 100 * time.Millisecond}, func(w http.ResponseWriter, r *http.Request) {
		_, err := io.ReadAll(r.Body)
		ended <- err
		w.WriteHeader(400)
	})
	f := s.framer(t)
	must(t, f.head.WriteField(hpack.HeaderField{Name: ":method", Value: "POST"}))
	for _, line := range usual[1:] {
		name, value, _ := strings.Cut(line[1:], ": ")
		must(t, f.head.WriteField(hpack.HeaderField{Name: ":" + name, Value: value}))
	}
	must(t, f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: f.text.Bytes(), EndHeaders: true}))
	must(t, f.WriteData(1, false, []byte("part")))
	if e := (*Error)(nil); !errors.As(<-ended, &e) || e.Reason != SlowBody {
		t.Errorf("the handler got %v", e)
	}
}

// A handler may be silent for as long as it likes: only clients are cut off.
func TestHTTP2_SilenceIsNoPause(t *testing.T) {
	const pause = time.Second
	s := secureSite(t, Limits{Pause: pause}, func(w http.ResponseWriter, r *http.Request) {
		for range 2 {
			_, _ = io.WriteString(w, "event\n")
			must(t, http.NewResponseController(w).Flush())
			time.Sleep(pause + pause/2)
		}
	})
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	c := &http.Client{Transport: &http.Transport{Protocols: &protocols, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer c.CloseIdleConnections()
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "https://"+s.at+"/", nil)
	must(t, err)
	res, err := c.Do(req)
	must(t, err)
	defer res.Body.Close()
	if body, err := io.ReadAll(res.Body); err != nil || string(body) != strings.Repeat("event\n", 2) {
		t.Errorf("%q, %v", body, err)
	}
}
