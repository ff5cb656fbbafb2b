package main

import (
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"walcache/proxy/sandbox/sandboxtest"
)

// mirror is a service whose page has everything that it was told: what a client
// makes up gets into it unless the proxy keeps it away.
func mirror(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	fmt.Fprintf(w, "%s %s %s %s", r.Method, r.Host, r.RequestURI, body)
	for name, values := range r.Header {
		if name != "Via" && !strings.HasPrefix(name, "Trace") && name != "X-Request-Id" {
			fmt.Fprintf(w, " %s: %s", name, values)
		}
	}
}

// poison sends a request, and then asks for the same as anybody would. What came of
// the first may not be in what the second gets.
func (a *attacked) poison(what, target, text string) (came response) {
	a.t.Helper()
	a.requests()
	came = a.one(text)
	next := a.ask(target)
	if strings.Contains(next.body, "evil") || next.status != 200 {
		a.t.Errorf("%s: the next client got %s", what, next)
	}
	says := "nothing"
	switch {
	case next.hit():
		says = "an answer without it"
	case strings.Contains(came.header.Get("Cache-Status"), "stored"):
		says = "apart from the others'"
	}
	tell(a.t, what, came, says)
	return came
}

// reached reports whether anything evil has reached the service since poison.
func (a *attacked) reached() bool {
	for i, r := range a.requests() {
		for name, values := range r.Header {
			if i == 0 && strings.Contains(name+strings.Join(values, " "), "evil") {
				return true
			}
		}
	}
	return false
}

// TestAttack_ABodyOrAnotherMethodPoisonsNoPage sends what a service may answer
// otherwise than the GET that it looks like.
func TestAttack_ABodyOrAnotherMethodPoisonsNoPage(t *testing.T) {
	a := attack(t, mirror, nil)
	for i, test := range []struct{ what, method, line, body, want string }{
		{"GET with a body", "GET", "Content-Length: 8", "q=<evil>", "detail=body"},
		{"GET with a chunked body", "GET", "Transfer-Encoding: chunked", "8\r\nq=<evil>\r\n0\r\n\r\n", "detail=body"},
		{"HEAD with a body", "HEAD", "Content-Length: 8", "q=<evil>", "detail=body"},
		{"POST", "POST", "Content-Length: 8", "q=<evil>", "fwd=method"},
		{"_method in a body", "POST", "Content-Length: 12", "_method=evil", "fwd=method"},
		{"a method that there is not", "EVIL", "X: y", "", "fwd=method"},
		{"a method in small letters", "get", "X: evil", "", "fwd=method"},
	} {
		target := fmt.Sprintf("/fat%d", i)
		came := a.poison(test.what, target, asking(test.method, target, test.line)+test.body)
		if !strings.Contains(came.header.Get("Cache-Status"), test.want) {
			t.Errorf("%s: %s", test.what, came)
		}
	}
	if came := a.poison("_method in a query", "/query", asking("GET", "/query?_method=evil")); !strings.Contains(came.body, "evil") {
		t.Errorf("a query did not go on: %s", came)
	}
}

// unkeyed are fields by which a client speaks of the way that its request came, or
// asks a service for something else than its request line does.
var unkeyed = []string{
	"X-Forwarded-Host", "X-Forwarded-Scheme", "X-Forwarded-Proto", "X-Forwarded-Prefix", "X-Forwarded-Port", "X-Forwarded-Server", "X-Forwarded-Ssl",
	"X-Forwarded-For", "X-Forwarded-Path", "X-Forwarded-Uri", "X-Real-IP", "Forwarded", "X-Original-URL", "X-Rewrite-URL", "X-Host",
	"X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override",
	"X_Forwarded_Host", "X_FORWARDED_HOST", "X-Forwarded_Host", "x_forwarded-proto", "X_Original_URL", "X_Rewrite_URL", "X_HTTP_Method_Override", "X_Host", "X_Real_IP",
}

// TestAttack_NobodyIsBelievedWhereTheirRequestCameFrom poisons by fields that are in
// no key: those of strangers never reach the service.
func TestAttack_NobodyIsBelievedWhereTheirRequestCameFrom(t *testing.T) {
	a := attack(t, mirror, nil)
	for _, name := range unkeyed {
		target := "/" + name
		a.poison(name+" of a stranger", target, asking("GET", target, name+": evil"))
		if a.reached() {
			t.Errorf("%s reached the service", name)
		}
	}
	for _, line := range []string{"X-Forwarded-Host: evil", "X-HTTP-Method-Override: evil", "As-Of-LSN: evil", "Min-LSN: evil"} {
		body := "1\r\nx\r\n0\r\n" + line + "\r\n\r\n"
		name, _, _ := strings.Cut(line, ":")
		a.poison(line+" behind a body", "/trailer", asking("POST", "/trailer", "Transfer-Encoding: chunked", "Trailer: "+name)+body)
		for _, r := range a.requests() {
			if len(r.Trailer[http.CanonicalHeaderKey(name)]) > 0 {
				t.Errorf("%s reached the service behind a body", name)
			}
		}
	}
}

// TestAttack_WhatATrustedProxySaysIsPartOfTheKey has the same said by a proxy that
// is believed, as it passes on what its own client made up.
func TestAttack_WhatATrustedProxySaysIsPartOfTheKey(t *testing.T) {
	a := attack(t, mirror, func(o *options) { o.origin.Trusted = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} })
	for _, name := range unkeyed {
		target := "/" + name
		canonical := http.CanonicalHeaderKey(strings.ReplaceAll(name, "_", "-"))
		if canonical == "X-Forwarded-For" || canonical == "X-Real-Ip" {
			continue // of an answer that depends on these the service has to say so
		}
		came := a.poison(name+" of a trusted proxy", target, asking("GET", target, name+": evil"))
		if !strings.Contains(came.body, "evil") {
			t.Errorf("%s did not reach the service: %s", name, came)
		}
	}
}

// TestAttack_WhatATrustedProxySaysIsNoPartOfAnotherKey has a client choose what its
// proxy says of a request, so that both together look like another request.
func TestAttack_WhatATrustedProxySaysIsNoPartOfAnotherKey(t *testing.T) {
	share := sharing(t)
	adjust := func(o *options) {
		share(o)
		o.origin.Trusted = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	}
	a := attack(t, mirror, adjust)
	for i, pair := range [][2]string{
		{asking("GET", "/b/c", "X-Forwarded-Prefix: /a"), asking("GET", "/c", "X-Forwarded-Prefix: /a/b")},
		{asking("GET", "/b/c", "X-Forwarded-Proto: https"), asking("GET", "/c", "X-Forwarded-Proto: https/b")},
		{asking("GET", "/x", "X-Forwarded-Host: a, b"), asking("GET", "/x", "X-Forwarded-Host: a", "X-Forwarded-Host: b")},
	} {
		before := a.pages.Stats()
		first, second := a.one(pair[0]), a.one(pair[1])
		if second.hit() || first.body == second.body {
			t.Errorf("pair %d: %s, then %s", i, first, second)
		}
		if again := a.one(pair[1]); again.body != second.body {
			t.Errorf("pair %d: %s, then %s", i, second, again)
		}
		sandboxtest.Eventually(t, 10*time.Second, func() error {
			if now := a.pages.Stats(); now.Writes < before.Writes+2 {
				return fmt.Errorf("%d pages are in Redis", now.Writes-before.Writes)
			}
			return nil
		})
		tell(t, fmt.Sprintf("what a trusted proxy says and a path that add up to the same, %d", i), "each their own", "apart")
	}
	other := a.another(func(o *options) {
		adjust(o)
		o.origin.Upstream = "http://127.0.0.1:1"
	})
	other.awaitVouching()
	for _, text := range []string{asking("GET", "/b/c", "X-Forwarded-Prefix: /a"), asking("GET", "/c", "X-Forwarded-Prefix: /a/b")} {
		if r := other.one(text); !r.hit() {
			t.Errorf("in Redis one took the place of the other: %s", r)
		}
	}
}

// TestAttack_HopByHopTakesNothingFromAKey names fields in Connection that the
// service's answer depends on: it is stored as that of a request without them.
func TestAttack_HopByHopTakesNothingFromAKey(t *testing.T) {
	a := attack(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Vary", "Accept-Language")
		mirror(w, r)
	}, nil)
	for i, line := range []string{"Cookie: evil=1", "Authorization: Bearer evil", "X-Api-Key: evil", "Accept-Language: evil", "X-Forwarded-For: evil", "Range: evil", "If-None-Match: evil", "X-Walcache-Token: evil", "Host: evil.example"} {
		name, _, _ := strings.Cut(line, ":")
		target := fmt.Sprintf("/hop%d", i)
		text := asking("GET", target, hostField, line, "Connection: "+name)
		if name == "Host" {
			text = asking("GET", target, hostField, "Connection: Host")
		}
		a.poison("Connection: "+name, target, text)
		if a.reached() {
			t.Errorf("%s reached the service", name)
		}
	}
	for _, name := range []string{"X-Forwarded-Host", "X-Forwarded-For", "Via", "Accept-Encoding", "Min-LSN"} { // that the proxy sets
		a.requests()
		a.ask("/"+name, "Connection: "+name)
		if r := a.requests()[0]; len(r.Header[http.CanonicalHeaderKey(name)]) == 0 {
			t.Errorf("a client took %s away: %v", name, r.Header)
		}
	}
}

// TestAttack_AcceptEncodingMakesFourVariantsAtMost writes the field in many ways, of
// which some forbid everything.
func TestAttack_AcceptEncodingMakesFourVariantsAtMost(t *testing.T) {
	a := attack(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Vary", "Accept-Encoding")
		w.Header().Set("Content-Type", "application/x-coding")
		_, _ = io.WriteString(w, r.Header.Get("Accept-Encoding"))
	}, nil)
	seen := map[string]bool{}
	for i := range 60 {
		ways := []string{"gzip", "gzip;q=%.3f", "br;q=0.%d, gzip", "zstd, x%d", "identity;q=0, *;q=0, x%d", "x%d", "GZIP , x%d", "*;q=0.%d", ", ,, x%d", "gzip;q=evil%d", "deflate;q=1, br;q=0.0%d", `"%d`}
		field := strings.ReplaceAll(ways[i%len(ways)], "%.3f", "%d")
		if strings.Contains(field, "%d") {
			field = fmt.Sprintf(field, i)
		}
		r := a.ask("/coding", "Accept-Encoding: "+field)
		seen[r.body] = true
		if !slices.Contains([]string{"zstd", "br", "gzip", "identity"}, r.body) {
			t.Errorf("%s: %s", field, r)
		}
	}
	if n := len(a.stored("/coding")); n > 4 || n != len(seen) {
		t.Errorf("%d variants of %v", n, seen)
	}
	tell(t, "60 ways to write Accept-Encoding", len(seen), "as many variants")
}

// TestAttack_APartOrARefusalIsNotStoredAsThePage asks for parts, with preconditions
// and with HEAD: what comes back is nobody else's page.
func TestAttack_APartOrARefusalIsNotStoredAsThePage(t *testing.T) {
	page := strings.Repeat("0123456789", 100)
	a := attack(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"v1"`)
		w.Header().Set("Cache-Control", "max-age=60")
		if r.Header.Get("Expect") != "" {
			w.Header().Del("Cache-Control")
			w.WriteHeader(http.StatusPreconditionFailed)
			return
		}
		http.ServeContent(w, r, "page.txt", time.Unix(1e9, 0), strings.NewReader(page))
	}, nil)
	for i, test := range []struct {
		what  string
		lines []string
		came  []int
	}{
		{"a part", []string{"Range: bytes=0-4"}, []int{206}},
		{"a part beyond the end", []string{"Range: bytes=5000-"}, []int{416}},
		{"several parts", []string{"Range: bytes=0-1,5-6"}, []int{206}},
		{"a thousand overlapping parts", []string{"Range: bytes=" + strings.Repeat("0-,", 1000) + "0-"}, []int{200}},
		{"parts of another unit", []string{"Range: lines=1-2"}, []int{200, 416}},
		{"a malformed range", []string{"Range: bytes=evil"}, []int{200, 416}},
		{"two ranges in two fields", []string{"Range: bytes=0-1", "Range: bytes=2-3"}, []int{200, 206}},
		{"a range by its old name", []string{"Request-Range: bytes=0-1"}, []int{200}},
		{"If-None-Match of the page", []string{`If-None-Match: "v1"`}, []int{304}},
		{"If-None-Match of anything", []string{"If-None-Match: *"}, []int{304}},
		{"If-Modified-Since", []string{"If-Modified-Since: Sun, 22 Nov 2026 12:00:00 GMT"}, []int{304}},
		{"If-Match of none", []string{`If-Match: "evil"`}, []int{412}},
		{"If-Unmodified-Since", []string{"If-Unmodified-Since: Thu, 01 Jan 1970 00:00:00 GMT"}, []int{412}},
		{"If-Range of none", []string{"Range: bytes=0-1", `If-Range: "evil"`}, []int{200}},
		{"an expectation that there is not", []string{"Expect: evil"}, []int{417}},
		{"an expectation without a body", []string{"Expect: 100-continue"}, []int{200, 412}},
	} {
		target := fmt.Sprintf("/part%d", i)
		came := a.ask(target, test.lines...)
		if !slices.Contains(test.came, came.status) || len(came.body) > len(page)+500 {
			t.Errorf("%s: %s", test.what, came)
		}
		next, again := a.ask(target), a.ask(target)
		if next.status != 200 || next.body != page || again.status != 200 || again.body != page {
			t.Errorf("after %s others get %s, then %s", test.what, next, again)
		}
		tell(t, test.what, came.status, map[bool]string{true: "the whole page", false: "nothing"}[next.hit()])
		// And of what is stored now nothing longer than it comes.
		if r := a.ask(target, test.lines...); len(r.body) > len(page) {
			t.Errorf("%s of what is stored: %d bytes of %d", test.what, len(r.body), len(page))
		}
	}
	for _, target := range []string{"/head", "/head?x"} {
		if came := a.one(asking("HEAD", target)); came.status != 200 || came.body != "" {
			t.Errorf("HEAD: %s", came)
		}
		if r := a.ask(target); r.body != page {
			t.Errorf("after HEAD others get %s", r)
		}
	}
	tell(t, "HEAD before any GET", "200 without a body", "nothing")
}

// TestAttack_APageOfErrorsIsNotStored makes a service refuse a request that the
// proxy lets through, such as by a header that is larger than the service takes
// (cache-poisoned denial of service).
func TestAttack_APageOfErrorsIsNotStored(t *testing.T) {
	for _, ttl := range []time.Duration{15 * time.Minute, 0} {
		a := attack(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Last-Modified", "Sun, 01 Nov 2020 12:00:00 GMT")
			switch status := 0; {
			case r.Header.Get("X-Status") != "":
				_, _ = fmt.Sscan(r.Header.Get("X-Status"), &status)
				w.WriteHeader(status)
			case len(fmt.Sprint(r.Header)) > 8<<10:
				w.WriteHeader(431)
			}
			_, _ = io.WriteString(w, "page")
		}, func(o *options) { o.cache.TTL = ttl })
		filler := strings.Repeat("x", 10<<10)
		for i, line := range []string{"X-Large: " + filler, "X-Status: 400", "X-Status: 401", "X-Status: 403", "X-Status: 406", "X-Status: 411", "X-Status: 413", "X-Status: 415",
			"X-Status: 417", "X-Status: 429", "X-Status: 431", "X-Status: 500", "X-Status: 502", "X-Status: 503"} {
			target := fmt.Sprintf("/error%d", i)
			came := a.ask(target, line)
			next := a.ask(target)
			if came.status < 400 || next.status != 200 || next.hit() {
				t.Errorf("ttl %s, %.20s: %s, then %s", ttl, line, came, next)
			}
			tell(t, fmt.Sprintf("an error by %.20s, --ttl %s", line, ttl), came.status, "nothing")
		}
	}
}

// TestAttack_AnErrorThatTheServiceGivesALifetimeIsItsOwnWord is the limit of that.
func TestAttack_AnErrorThatTheServiceGivesALifetimeIsItsOwnWord(t *testing.T) {
	a := attack(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		if r.Header.Get("X-Evil") != "" {
			w.WriteHeader(400)
		}
	}, nil)
	came := a.ask("/page", "X-Evil: 1")
	tell(t, "an error that the service says may be stored", came, a.ask("/page"))
	a.one(asking("POST", "/page", "Content-Length: 0")) // which anybody's write ends
	if r := a.ask("/page"); r.status != 200 {
		t.Errorf("after a write: %s", r)
	}
}

// TestAttack_WhatTwoReadersMaySplitDifferentlyIsRefused sends one message that is
// two to some readers (request smuggling), and looks for the second of them. The
// tables are those of package wire; this is a whole proxy.
func TestAttack_WhatTwoReadersMaySplitDifferentlyIsRefused(t *testing.T) {
	a := attack(t, mirror, nil)
	const evil = "GET /evil HTTP/1.1\r\nHost: shop.example\r\n\r\n"
	chunkedEvil := fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(evil), evil)
	post := func(lines ...string) string {
		return "POST / HTTP/1.1\r\nHost: shop.example\r\n" + strings.Join(lines, "\r\n") + "\r\n\r\n"
	}
	length := fmt.Sprintf("Content-Length: %d", len(evil)+5)
	for _, test := range []struct {
		what, text string
		statuses   []int
	}{
		{"CL.TE", post(length, "Transfer-Encoding: chunked") + "0\r\n\r\n" + evil, []int{400}},
		{"TE.CL", post("Transfer-Encoding: chunked", "Content-Length: 4") + chunkedEvil, []int{400}},
		{"TE.TE", post("Transfer-Encoding: chunked", "Transfer-Encoding: identity") + "0\r\n\r\n" + evil, []int{400}},
		{"TE with a space before the colon", post("Transfer-Encoding : chunked") + "0\r\n\r\n" + evil, []int{400}},
		{"TE folded", post("Transfer-Encoding:\r\n chunked") + "0\r\n\r\n" + evil, []int{501}},
		{"TE that is not known", post("Transfer-Encoding: xchunked") + "0\r\n\r\n" + evil, []int{501}},
		{"CL twice", post("Content-Length: 0", length) + "0\r\n\r\n" + evil, []int{400}},
		{"CL with a sign", post("Content-Length: +0") + evil, []int{400}},
		{"bare line feeds", "POST / HTTP/1.1\nHost: shop.example\nContent-Length: 0\n\n" + evil, []int{400}},
		{"a chunk size that overflows", post("Transfer-Encoding: chunked") + "ffffffffffffffff1\r\n" + evil, nil},
		{"a chunk without its end", post("Transfer-Encoding: chunked") + "1\r\nxx0\r\n\r\n" + evil, nil},
		{"a body that GET has not announced", asking("GET", "/first") + evil, []int{200}},
		{"TE in HTTP/1.0", "POST / HTTP/1.0\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + evil, []int{400}},
		{"an upgrade to HTTP/2", "GET /first HTTP/1.1\r\nHost: shop.example\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n\r\n" + evil, []int{200}},
		{"a request line of HTTP/0.9", "GET /\r\n\r\n" + evil, []int{400}},
		{"CONNECT", "CONNECT shop.example:80 HTTP/1.1\r\nHost: shop.example\r\n\r\n" + evil, []int{400}},
		{"an absolute URL of another host", "GET http://evil.example/evil HTTP/1.1\r\nHost: shop.example\r\n\r\n" + evil, []int{400}},
	} {
		var statuses []int
		for _, r := range a.speak(test.text) {
			statuses = append(statuses, r.status)
		}
		if test.statuses != nil && !slices.Equal(statuses, test.statuses) || len(statuses) > 1 || test.statuses == nil && (len(statuses) == 0 || statuses[0] < 400) {
			t.Errorf("%s: %v", test.what, statuses)
		}
		for _, r := range a.requests() {
			if r.RequestURI == "/evil" || r.Host != "shop.example" {
				t.Errorf("%s: the service got %s", test.what, r.RequestURI)
			}
		}
		tell(t, test.what, fmt.Sprint(statuses, ", then it closes"), len(a.stored("/evil")))
	}
	// What is well-formed is answered in order, each with its own.
	all := a.speak("GET /1 HTTP/1.1\r\nHost: shop.example\r\n\r\nGET /2 HTTP/1.1\r\nHost: other.example\r\nCookie: a=b\r\n\r\nGET /1 HTTP/1.1\r\nHost: shop.example\r\n\r\n" + asking("GET", "/3"))
	if len(all) != 4 || !strings.HasPrefix(all[0].body, "GET shop.example /1 ") || !strings.HasPrefix(all[1].body, "GET other.example /2 ") ||
		all[2].body != all[0].body || !all[2].hit() || !strings.HasPrefix(all[3].body, "GET shop.example /3 ") {
		t.Errorf("a pipeline: %v", all)
	}
	tell(t, "four requests in one packet", "four answers in order", "each under its own key")
}

// TestAttack_HTTP10IsAnsweredAsItself asks as old clients do, also without a host.
func TestAttack_HTTP10IsAnsweredAsItself(t *testing.T) {
	a := attack(t, mirror, nil)
	for _, test := range []struct{ what, text string }{
		{"HTTP/1.0", "GET /old HTTP/1.0\r\nHost: shop.example\r\n\r\n"},
		{"HTTP/1.0 that keeps the connection", "GET /old HTTP/1.0\r\nHost: shop.example\r\nConnection: keep-alive\r\n\r\nGET /old HTTP/1.0\r\nHost: shop.example\r\n\r\n"},
		{"HTTP/1.0 without a host", "GET /old HTTP/1.0\r\n\r\n"},
	} {
		all := a.speak(test.text)
		for _, r := range all {
			if r.status != 200 || strings.Contains(r.header.Get("Transfer-Encoding"), "chunked") {
				t.Errorf("%s: %s", test.what, r)
			}
		}
		if len(all) != strings.Count(test.text, "GET") {
			t.Errorf("%s: %d answers", test.what, len(all))
		}
		tell(t, test.what, all[0], "under the host that it gave")
	}
	if r := a.ask("/old"); !r.hit() || !strings.HasPrefix(r.body, "GET shop.example /old ") {
		t.Errorf("after that: %s", r)
	}
}
