package guard

import (
	"encoding/base64"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
)

const token = "a secret"

// send asks a handler from this machine, with header lines of the form "Name:
// value"; Host is one of them.
func send(h http.Handler, method string, lines ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "/status", nil)
	r.Host, r.RemoteAddr = "127.0.0.1:8003", "127.0.0.1:50000"
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		if name == "Host" {
			r.Host = value
		} else {
			r.Header.Set(name, value)
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// open is what is guarded.
var open = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { WriteJSON(w, http.StatusOK, "in") })

// wantsProblem looks for what a refusal says.
func wantsProblem(t *testing.T, w *httptest.ResponseRecorder) {
	t.Helper()
	var p struct{ Error, Try string }
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || p.Error == "" || p.Try == "" || w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}
}

func TestProtect_ANameThatIsNotThisMachinesGets421(t *testing.T) {
	h := Guard{Hosts: []string{"ops.example.com"}}.Protect(open)
	for host, want := range map[string]int{
		"127.0.0.1:8003":         200,
		"127.0.0.1":              200,
		"127.8.8.8:1":            200, // all of 127/8 is loopback
		"localhost:8003":         200,
		"LOCALHOST":              200,
		"[::1]:8003":             200,
		"[::1]":                  200,
		"[::ffff:127.0.0.1]:80":  200,
		"ops.example.com":        200,
		"Ops.Example.com:443":    200,
		"evil.example.com:8003":  421,
		"localhost.evil.example": 421,
		"127.0.0.1.nip.io:8003":  421,
		"x.ops.example.com":      421,
		"0.0.0.0:8003":           421, // browsers let pages reach it
		"[::]:8003":              421,
		"192.0.2.1:8003":         421,
		"[2001:db8::1]:8003":     421,
		"":                       421,
	} {
		w := send(h, "GET", "Host: "+host)
		if w.Code != want {
			t.Errorf("Host %q: %d", host, w.Code)
		}
		if want != 200 && !strings.Contains(w.Body.String(), "--admin-hosts") {
			t.Errorf("Host %q: %s", host, w.Body)
		}
	}
}

func TestProtect_EveryAddressOfThisMachineIsOne(t *testing.T) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		ip, _, err := net.ParseCIDR(a.String())
		if err != nil {
			t.Fatal(err)
		}
		host := net.JoinHostPort(ip.String(), "8003")
		if w := send(Guard{}.Protect(open), "GET", "Host: "+host); w.Code != 200 {
			t.Errorf("Host %s: %d", host, w.Code)
		}
	}
}

func TestProtect_APageOfAnotherSiteGetsNothing(t *testing.T) {
	const (
		cross, same, navigates = "Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: navigate"
		image                  = "Sec-Fetch-Mode: no-cors"
	)
	for _, c := range []struct {
		method string
		lines  []string
		want   int
	}{
		{"GET", nil, 200}, // no browser, or one that is too old to say
		{"POST", nil, 200},
		{"GET", []string{"Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: cors"}, 200},
		{"POST", []string{"Sec-Fetch-Site: same-origin", navigates}, 200},
		{"GET", []string{"Sec-Fetch-Site: none", navigates, "Sec-Fetch-Dest: document"}, 200}, // typed
		{"GET", []string{cross, navigates, "Sec-Fetch-Dest: document"}, 200},                  // a link
		{"GET", []string{same, navigates}, 200},
		{"HEAD", []string{cross, navigates}, 200},
		{"GET", []string{cross, image, "Sec-Fetch-Dest: image"}, 403},
		{"GET", []string{same, image}, 403},
		{"GET", []string{cross}, 403},
		{"GET", []string{cross, "Sec-Fetch-Mode: cors"}, 403},
		{"HEAD", []string{cross, "Sec-Fetch-Mode: cors"}, 403},
		{"OPTIONS", []string{cross, "Sec-Fetch-Mode: cors"}, 403},
		{"GET", []string{cross, navigates, "Sec-Fetch-Dest: iframe"}, 403},
		{"GET", []string{cross, navigates, "Sec-Fetch-Dest: object"}, 403},
		{"POST", []string{cross, navigates}, 403},
		{"POST", []string{same}, 403},
		{"POST", []string{"Origin: http://evil.example"}, 403},
	} {
		w := send(Guard{}.Protect(open), c.method, c.lines...)
		if w.Code != c.want {
			t.Errorf("%s %q: %d, want %d", c.method, c.lines, w.Code, c.want)
		}
		if c.want == 403 {
			wantsProblem(t, w)
		}
	}
}

func basic(user, password string) string {
	return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

func TestReads_NeedTheTokenUnlessTheyAreOpen(t *testing.T) {
	h := Guard{Token: token}.Reads(open)
	for line, want := range map[string]int{
		"Authorization: Bearer " + token:  200,
		"Authorization: bearer " + token:  200,
		basic("", token):                  200,
		basic("anybody", token):           200,
		"X-Nothing: here":                 401,
		"Authorization: Bearer ":          401,
		"Authorization: Bearer a secre":   401,
		"Authorization: Bearer a secrets": 401,
		"Authorization: " + token:         401,
		basic(token, ""):                  401,
		basic("anybody", "wrong"):         401,
	} {
		w := send(h, "GET", line)
		if w.Code != want {
			t.Errorf("%s: %d", line, w.Code)
		}
		if w.Code == 401 && !strings.HasPrefix(w.Header().Get("WWW-Authenticate"), "Basic ") {
			t.Errorf("%s: a browser is not told how to ask for the token", line)
		}
		if w.Code != 200 && strings.Contains(w.Body.String(), token) {
			t.Errorf("%s: the token is in %s", line, w.Body)
		}
	}
	if w := send(Guard{Token: token, Open: true}.Reads(open), "GET"); w.Code != 200 {
		t.Errorf("where reading is open: %d", w.Code)
	}
}

func TestChanges_NeedTheTokenUnlessWhoeverSitsHereIsTrusted(t *testing.T) {
	for _, c := range []struct {
		guard Guard
		lines []string
		want  int
	}{
		{Guard{Token: token, Open: true, OpenHere: true}, nil, 401},
		{Guard{Token: token}, []string{"Authorization: Bearer another"}, 401},
		{Guard{Token: token}, []string{"Authorization: Bearer " + token}, 200},
		{Guard{Open: true}, nil, 403},
		{Guard{Trusting: true}, nil, 200},
		{Guard{Trusting: true}, []string{"Host: localhost:8003"}, 200},
		{Guard{Trusting: true}, []string{"Host: ops.example"}, 403},
		{Guard{Trusting: true}, []string{"X-Forwarded-For: 10.0.0.1"}, 403},
		{Guard{Trusting: true}, []string{"X-Real-IP: 10.0.0.1"}, 403},
		{Guard{Trusting: true}, []string{"Forwarded: for=10.0.0.1"}, 403},
		{Guard{Trusting: true}, []string{"Via: 1.1 x"}, 403},
	} {
		if w := send(c.guard.Changes(open), "POST", c.lines...); w.Code != c.want {
			t.Errorf("%+v %q: %d, want %d", c.guard, c.lines, w.Code, c.want)
		}
	}
}

func TestGuard_WithoutATokenEveryCallThatNeedsOneSaysHowToSetIt(t *testing.T) {
	for _, line := range []string{"X-Nothing: here", "Authorization: Bearer ", basic("anybody", "")} {
		for _, h := range []http.Handler{Guard{}.Reads(open), Guard{}.Changes(open)} {
			w := send(h, "GET", line)
			if w.Code != 403 || !strings.Contains(w.Body.String(), "ADMIN_TOKEN") {
				t.Errorf("%s: %d %s", line, w.Code, w.Body)
			}
		}
	}
}

func TestKeep_TakesOutOnlyTheTokenOfABrowser(t *testing.T) {
	for line, kept := range map[string]bool{
		basic("anybody", token):          false,
		basic("anybody", "another"):      true, // the service's own
		"Authorization: Bearer " + token: true,
	} {
		r := httptest.NewRequest("GET", "/", nil)
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Set(name, value)
		Guard{Token: token}.Keep(r)
		if r.Header.Get("Authorization") == value != kept {
			t.Errorf("%s: %v", line, r.Header)
		}
	}
}

// How long a comparison takes cannot be measured reliably here, so this keeps
// the function that does it.
func TestGuard_ComparesTokensInConstantTime(t *testing.T) {
	source, err := os.ReadFile("guard.go")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(source), "subtle.ConstantTimeCompare(given[:], want[:]) == 1") || strings.Contains(string(source), "== g.Token") {
		t.Error("tokens are not compared with crypto/subtle")
	}
}
