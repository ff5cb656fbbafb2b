package wire

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"
)

// upgrading is a service that answers an upgrade, and from then on echoes.
func upgrading(t *testing.T) http.HandlerFunc {
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "websocket" {
			_, _ = io.WriteString(w, "plain "+r.RequestURI)
			return
		}
		conn, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		_, _ = io.Copy(conn, rw)
	}))
	t.Cleanup(service.Close)
	u, err := url.Parse(service.URL)
	must(t, err)
	return httputil.NewSingleHostReverseProxy(u).ServeHTTP
}

func TestServe_UpgradesPassRaw(t *testing.T) {
	s := serve(t, Limits{}, upgrading(t))
	// What comes early is held back, and then it is raw, whatever it looks like.
	for _, early := range []string{"", "early", get("/x"), "\x00\n\n", strings.Repeat("\x81", 60<<10)} {
		c := s.dial()
		c.send(get("/ws", "Connection: Upgrade", "Upgrade: websocket") + early)
		res, err := http.ReadResponse(c.r, nil)
		must(t, err)
		if res.StatusCode != 101 {
			t.Fatalf("%d", res.StatusCode)
		}
		for _, sent := range []string{early, "\x81\x00 raw \n", strings.Repeat("\xff\n", 50<<10)} {
			if sent != early {
				go func() { _, _ = io.WriteString(c.Conn, sent) }()
			}
			back := make([]byte, len(sent))
			if _, err := io.ReadFull(c.r, back); err != nil || string(back) != sent {
				t.Fatalf("%.20q came back as %.20q, %v", sent, back, err)
			}
		}
	}
	if got := s.count.Refused(); len(got) > 0 {
		t.Errorf("refused: %v", got)
	}
}

func TestServe_AnUpgradeThatIsNoneIsFollowedByRequests(t *testing.T) {
	s := serve(t, Limits{}, upgrading(t))
	c := s.dial()
	c.send(get("/a", "Connection: Upgrade", "Upgrade: other") + get("/b") + get("/c", "Connection: Upgrade", "Upgrade: other") + "GET /d HTTP/1.1\n" + host + "\r\n")
	for _, want := range []string{"plain /a", "plain /b", "plain /c"} {
		if res, body := c.answer("GET"); res.StatusCode != 200 || body != want {
			t.Errorf("%d %q, want %q", res.StatusCode, body, want)
		}
	}
	if res, _ := c.answer("GET"); res.StatusCode != 400 {
		t.Errorf("a malformed request after them: %d", res.StatusCode)
	}
	c.ends()
}

func TestServe_TooMuchBeforeAnUpgradeEndsIt(t *testing.T) {
	gone := make(chan struct{})
	s := serve(t, Limits{}, func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		close(gone)
	})
	c := s.dial()
	go func() {
		_, _ = io.WriteString(c.Conn, get("/", "Connection: Upgrade", "Upgrade: websocket")+strings.Repeat("x", 1<<20))
	}()
	<-gone
	if got := s.count.Refused(); got["early-bytes"] != 1 {
		t.Errorf("counted %v", got)
	}
}

func TestServe_AHandlerLearnsThatItsClientIsGone(t *testing.T) {
	began, gone := make(chan struct{}), make(chan struct{})
	s := serve(t, Limits{}, func(_ http.ResponseWriter, r *http.Request) {
		close(began)
		<-r.Context().Done()
		close(gone)
	})
	c := s.dial()
	c.send(get("/"))
	<-began
	must(t, c.Close())
	<-gone
}

func TestServe_AHeadThatTricklesIsCutOff(t *testing.T) {
	s := serve(t, Limits{HeadTime: 100 * time.Millisecond}, echo)
	for _, before := range []string{"", get("/first")} { // a new connection, and one that was idle
		c := s.dial()
		if c.send(before); before != "" {
			c.answer("GET")
		}
		stop := make(chan struct{})
		go func() {
			for _, b := range []byte("GET / HTTP/1.1\r\nHost: h\r\nA: " + strings.Repeat("x", 10000)) {
				select {
				case <-stop:
					return
				case <-time.After(5 * time.Millisecond):
					_, _ = c.Conn.Write([]byte{b})
				}
			}
		}()
		if res, _ := c.answer("GET"); res.StatusCode != 408 {
			t.Errorf("%d", res.StatusCode)
		}
		close(stop)
		c.ends()
	}
	if got := s.count.Refused(); got["slow-head"] != 2 {
		t.Errorf("counted %v", got)
	}
}

// The time of a head that came early begins when it is its turn.
func TestServe_APartOfAHeadMayWaitForTheAnswerBefore(t *testing.T) {
	const headTime = 50 * time.Millisecond
	s := serve(t, Limits{HeadTime: headTime}, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			select {
			case <-r.Context().Done():
				t.Error("the request was given up")
			case <-time.After(4 * headTime):
			}
		}
		echo(w, r)
	})
	c := s.dial()
	c.send(get("/slow") + "GET /b HTTP/1.1\r\n")
	if res, _ := c.answer("GET"); res.StatusCode != 200 {
		t.Errorf("%d", res.StatusCode)
	}
	if res, _ := c.answer("GET"); res.StatusCode != 408 {
		t.Errorf("what never came: %d", res.StatusCode)
	}
}

func TestServe_AnIdleConnectionEndsWithoutAWord(t *testing.T) {
	s := serveWith(t, Config{}, echo, func(s *http.Server) { s.IdleTimeout = 50 * time.Millisecond })
	c := s.dial()
	c.send(get("/"))
	c.answer("GET")
	c.ends()
	if got := s.count.Refused(); len(got) > 0 {
		t.Errorf("counted %v", got)
	}
}

func TestServe_ABodyThatRestsIsCutOff(t *testing.T) {
	failed := make(chan error, 2)
	s := serve(t, Limits{Pause: 100 * time.Millisecond}, func(w http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		failed <- err
		w.WriteHeader(http.StatusBadRequest)
	})
	for _, request := range []string{post("Content-Length: 100", "part"), post("Transfer-Encoding: chunked", "5\r\nhel")} {
		c := s.dial()
		c.send(request)
		if res, _ := c.answer("POST"); res.StatusCode != 400 {
			t.Errorf("%d", res.StatusCode)
		}
		c.ends()
		if e := (*Error)(nil); !errors.As(<-failed, &e) || e.Reason != SlowBody {
			t.Errorf("the handler got %v", e)
		}
	}
	if got := s.count.Refused(); got["slow-body"] != 2 {
		t.Errorf("counted %v", got)
	}
}

// A handler may end while somebody still reads the body for it, as the proxy's
// does when the service answers early; net/http wakes that reader with a deadline
// in the past, which is no pause of the client.
func TestServe_ABodyThatNobodyWantsHoldsNothingUp(t *testing.T) {
	reading := make(chan struct{})
	s := serve(t, Limits{}, func(w http.ResponseWriter, r *http.Request) {
		var b [5]byte
		_, err := io.ReadFull(r.Body, b[:])
		must(t, err)
		go func() { close(reading); _, _ = r.Body.Read(b[:]) }()
		<-reading
		_ = http.NewResponseController(w).EnableFullDuplex()
		_, _ = io.WriteString(w, "early")
	})
	c := s.dial()
	c.send(post("Content-Length: 1000000", "hello"))
	if _, body := c.answer("POST"); body != "early" {
		t.Errorf("%q", body)
	}
	if got := s.count.Refused(); len(got) > 0 {
		t.Errorf("counted %v", got)
	}
}

func TestServe_AClientThatNeverReadsIsCutOff(t *testing.T) {
	ended := make(chan error, 1)
	s := serve(t, Limits{Pause: 100 * time.Millisecond}, func(w http.ResponseWriter, _ *http.Request) {
		_, err := io.Copy(w, endlessly{})
		ended <- err
	})
	c := s.dial()
	c.send(get("/"))
	if err := <-ended; err == nil {
		t.Error("it was written for ever")
	}
	if got := s.count.Refused(); got["slow-reader"] != 1 {
		t.Errorf("counted %v", got)
	}
}

type endlessly struct{}

func (endlessly) Read(p []byte) (int, error) { return len(p), nil }

func TestServe_ShutsDownWithConnectionsIdle(t *testing.T) {
	s := serve(t, Limits{}, echo)
	c := s.dial()
	c.send(get("/"))
	c.answer("GET")
	must(t, s.server.Shutdown(t.Context()))
	c.ends()
}
