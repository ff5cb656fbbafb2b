package admin

import (
	"encoding/base64"
	"net"
	"net/http"
	"testing"
)

// What a guard lets in is tested beside it. These see that it stands before every
// path.

func basic(user, password string) string {
	return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

func TestGuard_StandsBeforeEveryPath(t *testing.T) {
	s := New(Config{Addr: loopback, Hosts: []string{"ops.example.com"}}, newProxy(t).sources)
	for line, want := range map[string]int{
		"Host: ops.example.com":      0,
		"Host: evil.example.com":     http.StatusMisdirectedRequest,
		"Sec-Fetch-Site: cross-site": http.StatusForbidden,
	} {
		for _, path := range []string{"/", "/healthz", "/readyz", "/status", "/metrics", "/entries?tag=*", "/cache/status", "/nothing"} {
			w := send(s, "GET", path, line)
			if want != 0 && w.Code != want || want == 0 && (w.Code == http.StatusMisdirectedRequest || w.Code == http.StatusForbidden) {
				t.Errorf("%s, %s: %d", line, path, w.Code)
			}
		}
	}
	for _, line := range []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site", "Origin: http://evil.example"} {
		if w := send(s, "POST", "/status", line); w.Code != 403 {
			t.Errorf("%s: %d", line, w.Code)
		}
	}
	if w := send(s, "POST", "/status", "Sec-Fetch-Site: same-origin"); w.Code != 405 {
		t.Errorf("same origin: %d", w.Code)
	}
}

func TestGuard_OffLoopbackStatusNeedsTheToken(t *testing.T) {
	s := New(Config{Addr: everywhere, Token: "a secret"}, newProxy(t).sources)
	for line, want := range map[string]int{bearer: 200, basic("anybody", "a secret"): 200, bearer + "s": 401, "X-Nothing: here": 401} {
		if w := send(s, "GET", "/status", line); w.Code != want {
			t.Errorf("%s: %d", line, w.Code)
		}
	}
	if w := send(New(Config{Addr: everywhere}, newProxy(t).sources), "GET", "/status"); w.Code != 403 {
		t.Errorf("where no token is set: %d %s", w.Code, w.Body)
	}
}

func TestGuard_HealthAndMetricsNeedNoTokenAnywhere(t *testing.T) {
	for _, token := range []string{"", "a secret"} {
		s := New(Config{Addr: everywhere, Token: token}, ordinary(t).sources)
		for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
			if w := send(s, "GET", path); w.Code != 200 {
				t.Errorf("%s: %d", path, w.Code)
			}
		}
	}
}

func TestGuard_OnLoopbackStatusNeedsNoToken(t *testing.T) {
	for _, addr := range []net.Addr{loopback, &net.TCPAddr{IP: net.IPv6loopback, Port: 8003}} {
		if w := send(New(Config{Addr: addr, Token: "a secret"}, newProxy(t).sources), "GET", "/status"); w.Code != 200 {
			t.Errorf("%s: %d", addr, w.Code)
		}
	}
}
