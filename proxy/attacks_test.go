package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"walcache/proxy/cache"
	"walcache/proxy/sandbox/sandboxtest"
)

// The tests of attacks_*_test.go are hostile clients, and services that make
// mistakes, before and behind a whole proxy. Each logs, in lines that begin with
// "attack:", what came back and what was stored.

// attacked is a proxy before a service of the test's own.
type attacked struct {
	*system
	mu  sync.Mutex // guards the following
	got []*http.Request
}

// attack runs a proxy before a service. adjust may be nil.
func attack(t *testing.T, service http.HandlerFunc, adjust func(*options)) *attacked {
	t.Helper()
	a := &attacked{}
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		a.got = append(a.got, r)
		a.mu.Unlock()
		service(w, r)
	}))
	t.Cleanup(upstream.Close)
	a.system = attackAt(t, upstream.URL, adjust)
	return a
}

// attackAt does so for a service that is there. On a busy machine proofs of
// freshness may be late, and no attack is about that.
func attackAt(t *testing.T, upstream string, adjust func(*options)) *system {
	t.Helper()
	return start(t, sandboxtest.Postgres(t), func(o *options) {
		o.origin.Upstream, o.maxStaleness = upstream, time.Minute
		if adjust != nil {
			adjust(o)
		}
	})
}

// requests are those that reached the service since they were last asked for.
func (a *attacked) requests() []*http.Request {
	a.mu.Lock()
	defer a.mu.Unlock()
	got := a.got
	a.got = nil
	return got
}

// dial opens a connection on which a test says what it likes.
func (s *system) dial() net.Conn {
	s.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		s.t.Fatal(err)
	}
	return conn
}

// speak sends bytes as they are, and returns the answers until the proxy closes.
func (s *system) speak(text string) (all []response) {
	s.t.Helper()
	conn := s.dial()
	defer conn.Close()
	go func() { _, _ = io.WriteString(conn, text) }() // it may be more than is read
	method, _, _ := strings.Cut(text, " ")
	for r := bufio.NewReader(conn); ; method = "GET" {
		res, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil {
			return all
		}
		body, err := io.ReadAll(res.Body)
		if err != nil {
			body = append(body, " and broken off"...)
		}
		all = append(all, response{res.StatusCode, res.Header, string(body)})
	}
}

// hostField is the Host field that most requests have.
const hostField = "Host: shop.example"

// asking is the text of a request, the last of its connection. Lines may have
// another Host.
func asking(method, target string, lines ...string) string {
	if !slices.ContainsFunc(lines, func(line string) bool { return strings.HasPrefix(line, "Host:") }) {
		lines = append(lines, hostField)
	}
	connection := "Connection: close"
	if i := slices.IndexFunc(lines, func(line string) bool { return strings.HasPrefix(line, "Connection: ") }); i >= 0 {
		connection = lines[i] + ", close"
		lines = slices.Delete(slices.Clone(lines), i, i+1)
	}
	return method + " " + target + " HTTP/1.1\r\n" + strings.Join(append(slices.Clone(lines), connection), "\r\n") + "\r\n\r\n"
}

// ask sends a GET, byte for byte, and returns its answer.
func (s *system) ask(target string, lines ...string) response {
	s.t.Helper()
	return s.one(asking("GET", target, lines...))
}

// one sends a request that has one answer.
func (s *system) one(text string) response {
	s.t.Helper()
	all := s.speak(text)
	if len(all) != 1 {
		s.t.Fatalf("%d answers to %.200q", len(all), text)
	}
	return all[0]
}

// stored is what the admin port says is stored under a URL of shop.example.
func (s *system) stored(target string) []cache.Variant {
	s.t.Helper()
	r := ask(s.t, s.admin+"/entries?format=json&url="+url.QueryEscape("http://shop.example"+target))
	var found struct{ Entries []cache.Variant }
	if err := json.Unmarshal([]byte(r.body), &found); err != nil || r.status != 200 {
		s.t.Fatalf("entries of %s: %d %s", target, r.status, r.body)
	}
	return found.Entries
}

// tell logs what came of an attack.
func tell(t *testing.T, what string, cameBack any, stored any) {
	t.Helper()
	t.Logf("attack: %s | %v | %v", what, cameBack, stored)
}

// String is the answer for people.
func (r response) String() string {
	return fmt.Sprintf("%d %.60q (%s)", r.status, r.body, strings.TrimPrefix(r.header.Get("Cache-Status"), "walcache; "))
}

// spellings are ways to write /account, and what looks like a file below it, that
// some service takes for /account.
var spellings = []string{
	"/account", "/account/", "/account/x.css", "/account.css", "/account;.css", "/account;x.css", "/account/;x.css",
	"/account/..;/x.css", "/account/%2e%2e/x.css", "/x/../account", "/x/%2e%2e/account", "/x/..%2faccount", "/x/%2e%2e%2faccount",
	"/./account", "/%2e/account", "//account", "///account", "/account//", "/account%2f", "/account%2fx.css", "/account%2Fx.css",
	"/account%00", "/account%00.css", "/account%0a", "/account%0a.css", "/account%20.css", "/account%23x.css", "/account%3fx.css",
	"/account%3bx.css", `/account\x.css`, `/x\..\account`, "/account%5cx.css", "/%61ccount", "/%2561ccount", "/ACCOUNT", "/Account",
	"/account?", "/account?x.css", "/account??", "/account?/../x.css", "/account/%c0%ae%c0%ae/x.css", "/account.", "/account~", "/account%",
	"/account#x.css", "/account#", "/account\tx.css", "/account\x00", "/account\x80.css", "http://shop.example/account", "account", "*", "",
}

// TestAttack_EverySpellingOfAPathIsAPageOfItsOwn asks for what services take for
// the same in all the ways that there are: the key is what goes upstream, byte for
// byte, so that no two of them share an answer. What no target may have is refused.
func TestAttack_EverySpellingOfAPathIsAPageOfItsOwn(t *testing.T) {
	a := attack(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.RequestURI) }, nil)
	refused := 0
	for _, target := range spellings {
		a.requests()
		first := a.ask(target)
		if first.status == 400 {
			refused++
			if got := a.requests(); len(got) != 0 {
				t.Errorf("%q reached the service as %q", target, got[0].RequestURI)
			}
			tell(t, fmt.Sprintf("spelling %q", target), "400", "nothing")
			continue
		}
		second := a.ask(target)
		if first.status != 200 || first.hit() || first.body != target || !second.hit() || second.body != target {
			t.Errorf("%q: %s, then %s", target, first, second)
		}
		if n := len(a.stored(target)); n != 1 {
			t.Errorf("%q: %d are stored", target, n)
		}
		tell(t, fmt.Sprintf("spelling %q", target), first, "under these bytes")
	}
	if refused != 10 {
		t.Errorf("%d spellings were refused", refused)
	}
}

// TestAttack_EverySpellingOfAHostIsAPageOfItsOwn does so for hosts.
func TestAttack_EverySpellingOfAHostIsAPageOfItsOwn(t *testing.T) {
	a := attack(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Host) }, nil)
	for _, host := range []string{"shop.example", "SHOP.example", "shop.example.", "shop.example:80", "shop.example:8001", "shop.example:", "[::1]", "[::1]:80", "shop%2eexample"} {
		first, second := a.ask("/", "Host: "+host), a.ask("/", "Host: "+host)
		if first.hit() || first.body != host || !second.hit() || second.body != host {
			t.Errorf("%q: %s, then %s", host, first, second)
		}
		tell(t, fmt.Sprintf("host %q", host), first, "under this host")
	}
	a.requests()
	for _, lines := range [][]string{
		{"Host: shop.example", "Host: evil.example"}, {"Host: shop.example, evil.example"}, {"Host: shop.example/x"}, {"Host: evil@shop.example"},
		{"Host: shop.example:80:80"}, {"Host: shop.example:x"}, {"Host: "}, {"Host: shop.example\x00"}, {"Host: shop.example evil"}, {" Host: x", "Host: shop.example"},
	} {
		r := a.ask("/refused", lines...)
		if r.status != 400 || len(a.requests()) != 0 {
			t.Errorf("%q: %s", lines, r)
		}
		tell(t, fmt.Sprintf("host lines %q", lines), r.status, "nothing")
	}
}

// TestAttack_APersonalPageReachesNobodyElse has somebody who is logged in open a
// link to their own page that ends like that of a file, and then asks for the same
// without being logged in (web cache deception).
func TestAttack_APersonalPageReachesNobodyElse(t *testing.T) {
	type flavour struct {
		what   string
		victim string // what shows who asks
		says   [2]string
	}
	flavours := []flavour{
		{"a cookie, and nothing said of caching", "Cookie: session=victim", [2]string{}},
		{"Authorization, and nothing said of caching", "Authorization: Bearer victim", [2]string{}},
		{"Authorization and max-age", "Authorization: Bearer victim", [2]string{"Cache-Control", "max-age=60"}},
		{"an API key in capitals and underscores", "X_API_KEY: victim", [2]string{}},
		{"private", "Cookie: session=victim", [2]string{"Cache-Control", "private, max-age=60"}},
		{"no-store", "Cookie: session=victim", [2]string{"Cache-Control", "no-store"}},
		{"Set-Cookie without a session yet", "X-Whatever: victim", [2]string{"Set-Cookie", "session=victim"}},
		{"Set-Cookie and max-age", "Cookie: session=victim", [2]string{"Set-Cookie", "session=victim"}},
		{"Vary: Cookie", "Cookie: session=victim", [2]string{"Vary", "Cookie"}},
		{"Vary: *", "Cookie: session=victim", [2]string{"Vary", "*"}},
	}
	says := http.Header{}
	a := attack(t, func(w http.ResponseWriter, r *http.Request) {
		for name, values := range says {
			w.Header()[name] = values
		}
		who := "nobody"
		for _, values := range r.Header {
			if strings.Contains(strings.Join(values, " "), "victim") {
				who = "victim"
			}
		}
		_, _ = io.WriteString(w, "the page of "+who)
	}, nil)
	for n, f := range flavours {
		says = http.Header{}
		if f.says[0] != "" {
			says.Set(f.says[0], f.says[1])
		}
		if f.what == "Set-Cookie and max-age" {
			says.Set("Cache-Control", "max-age=60")
		}
		for _, target := range spellings[:32] {
			target = strings.Replace(target, "ccount", fmt.Sprintf("ccount%d", n), 1)
			own := a.ask(target, f.victim)
			anothers := a.ask(target)
			if own.body != "the page of victim" || anothers.hit() || anothers.body != "the page of nobody" {
				t.Errorf("%s, %s: %s, and then to another %s", f.what, target, own, anothers)
			}
			if says.Get("Set-Cookie") != "" && len(a.stored(target)) != 0 {
				t.Errorf("%s, %s: stored", f.what, target)
			}
		}
		tell(t, "deception: "+f.what, "to another: their own", "nothing of the victim's")
	}
}

// TestAttack_BypassIsNotWalkedAround spells a path that is to pass through in ways
// that services take for the same.
func TestAttack_BypassIsNotWalkedAround(t *testing.T) {
	a := attack(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.RequestURI) },
		func(o *options) { o.cache.Bypass = []string{"/admin/*", "/cart*"} })
	for _, target := range []string{
		"/admin/", "/admin/x", "/admin//x", "//admin/x", "/./admin/x", "/x/../admin/x", "/x/%2e%2e/admin/x", "/x%2f..%2fadmin/x", "/%61dmin/x", "/admin%2fx", "/admin%2Fx",
		"/admin/?x", "/admin/x;y", "/admin;x/y", "/;x/admin/y", "/x/..;/admin/y", "/x/..;z=1/admin/y", "/admin/..;/x", "/admin/x%00", `/admin\x`, "/admin%5cx", `\admin\x`,
		"/ADMIN/x", "/Admin/x", "/%2561dmin/x", "/admin%252fx", "/cart", "/cart;x", "/CART", "/admin%3bx/y", "/admin/%2e%2e/x",
	} {
		r := a.ask(target)
		if r.status != 400 && !strings.Contains(r.header.Get("Cache-Status"), "detail=path") {
			t.Errorf("%s: %s", target, r)
		}
		tell(t, fmt.Sprintf("bypass as %q", target), r, "")
	}
}
