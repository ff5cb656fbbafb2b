package admin

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// ready asks whether a port is, and what it says.
func ready(t *testing.T, s *Server) (code int, status string, vouches bool) {
	t.Helper()
	w := send(s, "GET", "/readyz")
	answer := object(t, w)
	return w.Code, answer["status"].(string), answer["vouches"].(bool)
}

func wantReady(t *testing.T, s *Server, code int, status string, vouches bool) {
	t.Helper()
	if c, st, v := ready(t, s); c != code || st != status || v != vouches {
		t.Errorf("%d %s, vouches %t; want %d %s, %t", c, st, v, code, status, vouches)
	}
}

func TestReadyz_FromTheFirstBeatOnWhateverHappens(t *testing.T) {
	p := newProxy(t)
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{Addr: loopback}, p.sources)
		wantReady(t, s, 503, "starting", false)
		p.sources.Tracker.Begin(epoch, p.at)
		wantReady(t, s, 503, "starting", false)
		p.beat()
		wantReady(t, s, 200, "ready", true)
		time.Sleep(2*time.Second + time.Millisecond)
		wantReady(t, s, 200, "ready", false)
		p.beat()
		wantReady(t, s, 200, "ready", true)
		p.sources.Tracker.Begin("e2", p.at) // what was proven of e1 says nothing
		wantReady(t, s, 200, "ready", false)
		s.Drain()
		wantReady(t, s, 503, "draining", false)
	})
}

func TestReadyz_AfterTenSecondsWithoutProof(t *testing.T) {
	p := newProxy(t)
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{Addr: loopback}, p.sources)
		time.Sleep(readyAnyway - time.Millisecond)
		wantReady(t, s, 503, "starting", false)
		time.Sleep(time.Millisecond)
		wantReady(t, s, 200, "ready", false)
		s.Drain()
		wantReady(t, s, 503, "draining", false)
	})
}

func TestReadyz_AnOrdinaryCacheIsAtOnceAndNeverVouches(t *testing.T) {
	wantReady(t, New(Config{Addr: loopback}, ordinary(t).sources), 200, "ready", false)
}

func TestHealthz_IsAliveWhileDraining(t *testing.T) {
	s := New(Config{Addr: loopback}, newProxy(t).sources)
	s.Drain()
	if w := send(s, "GET", "/healthz"); w.Code != 200 || object(t, w)["status"] != "alive" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestServer_OtherMethodsAreNotAllowed(t *testing.T) {
	s := New(Config{Addr: loopback}, newProxy(t).sources)
	for _, path := range []string{"/healthz", "/readyz", "/status", "/metrics"} {
		for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS"} {
			if w := send(s, method, path); w.Code != 405 || !strings.Contains(w.Header().Get("Allow"), "GET") {
				t.Errorf("%s %s: %d, Allow %q", method, path, w.Code, w.Header().Get("Allow"))
			}
		}
	}
	if w := send(s, "HEAD", "/healthz"); w.Code != 200 {
		t.Errorf("HEAD: %d", w.Code)
	}
}
