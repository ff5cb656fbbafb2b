package rules

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// header makes a header of lines of the form "Name: value".
func header(lines ...string) http.Header {
	h := http.Header{}
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		h.Add(name, value)
	}
	return h
}

var (
	noon         = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	testPolicy   = Policy{TTL: 15 * time.Minute, MaxTTL: 24 * time.Hour, MaxObject: 1000}
	anonymous    = Asker{}
	withCookie   = Asker{Credentials: true}
	withToken    = Asker{Authorization: true, Credentials: true}
	inTheFuture  = "Expires: Sun, 22 Nov 2026 12:10:00 GMT"
	dateNow      = "Date: Sun, 22 Nov 2026 12:00:00 GMT"
	dayAgo       = "Last-Modified: Sat, 21 Nov 2026 12:00:00 GMT"
	longAgoDated = "Date: Sun, 22 Nov 2026 11:59:00 GMT"
)

func TestTerms(t *testing.T) {
	const ttl = 15 * time.Minute
	for _, test := range []struct {
		name     string // with the section of RFC 9111, or RFC and section; or "own" where it is a policy of ours
		q        Asker
		status   int
		header   http.Header
		refusal  string
		lifetime time.Duration
	}{
		// No word from the origin.
		{"own 200", anonymous, 200, header(), "", ttl},
		{"own 203", anonymous, 203, header(), "", ttl},
		{"own 301", anonymous, 301, header(), "", ttl},
		{"own 308", anonymous, 308, header(), "", ttl},
		{"own 404", anonymous, 404, header(), "", ttl},
		{"own 410", anonymous, 410, header(), "", ttl},
		{"own 204", anonymous, 204, header(), RefusedStatus, 0},
		{"own 302", anonymous, 302, header(), RefusedStatus, 0},
		{"own 403", anonymous, 403, header(), RefusedStatus, 0},
		{"own 500", anonymous, 500, header(), RefusedStatus, 0},
		{"own 501", anonymous, 501, header(), RefusedStatus, 0},
		{"own 599", anonymous, 599, header(), RefusedStatus, 0},
		{"own 204, public", anonymous, 204, header("Cache-Control: public"), RefusedStatus, 0},
		{"own a cookie", withCookie, 200, header(), RefusedCredentials, 0},
		{"own a token", withToken, 200, header(), RefusedCredentials, 0},
		{"own Set-Cookie", anonymous, 200, header("Set-Cookie: a=1"), RefusedSetCookie, 0},
		{"own Set-Cookie that is not to be stored", anonymous, 200, header("Set-Cookie: a=1", `Cache-Control: no-cache="set-cookie"`), "", ttl},
		{"own varies by Cookie", anonymous, 200, header("Vary: Accept, cookie"), RefusedVary, 0},
		{"own varies by Authorization", anonymous, 200, header("Vary: Authorization"), RefusedVary, 0},
		{"own Pragma", anonymous, 200, header("Pragma: no-cache"), RefusedNoCache, 0},
		{"own public", anonymous, 200, header("Cache-Control: public"), "", ttl},
		{"own an Age", anonymous, 200, header("Age: 900"), RefusedExpired, 0},

		// 4.2.1: which lifetime counts.
		{"4.2.1 max-age", anonymous, 200, header("Cache-Control: max-age=60"), "", time.Minute},
		{"4.2.1 s-maxage wins", anonymous, 200, header("Cache-Control: max-age=60, s-maxage=120"), "", 2 * time.Minute},
		{"4.2.1 s-maxage wins from before", anonymous, 200, header("Cache-Control: s-maxage=120, max-age=60"), "", 2 * time.Minute},
		{"4.2.1 s-maxage wins from another line", anonymous, 200, header("Cache-Control: max-age=60", "Cache-Control: s-maxage=120"), "", 2 * time.Minute},
		{"4.2.1 s-maxage=0 wins", anonymous, 200, header("Cache-Control: max-age=60, s-maxage=0"), RefusedExpired, 0},
		{"4.2.1 s-maxage that cannot be read wins", anonymous, 200, header("Cache-Control: max-age=60, s-maxage=x"), RefusedExpired, 0},
		{"4.2.1 Expires", anonymous, 200, header(inTheFuture), "", 10 * time.Minute},
		{"4.2.1 Expires counts from Date", anonymous, 200, header(inTheFuture, longAgoDated), "", 11 * time.Minute},
		{"4.2.1 Expires counts from Date, in the past", anonymous, 200, header("Expires: Sun, 22 Nov 2026 11:00:00 GMT", "Date: Sun, 22 Nov 2026 10:00:00 GMT"), RefusedExpired, 0},
		{"4.2.1 Expires counts from Date, in the future", anonymous, 200, header("Expires: Sun, 22 Nov 2026 14:00:00 GMT", "Date: Sun, 22 Nov 2026 13:00:00 GMT"), "", time.Hour},
		{"4.2.1 Expires before Date", anonymous, 200, header(inTheFuture, "Date: Sun, 22 Nov 2026 13:00:00 GMT"), RefusedExpired, 0},
		{"4.2.1 Expires as Date", anonymous, 200, header("Expires: Sun, 22 Nov 2026 12:00:00 GMT", dateNow), RefusedExpired, 0},
		{"4.2.1 Expires with a Date that cannot be read", anonymous, 200, header(inTheFuture, "Date: foo"), "", 10 * time.Minute},
		{"4.2.1 max-age beats Expires", anonymous, 200, header(inTheFuture, "Cache-Control: max-age=60"), "", time.Minute},
		{"4.2.1 max-age beats Expires in the past", anonymous, 200, header("Expires: Sun, 22 Nov 2026 11:00:00 GMT", "Cache-Control: max-age=60"), "", time.Minute},
		{"4.2.1 max-age beats Expires that cannot be read", anonymous, 200, header("Expires: 0", "Cache-Control: max-age=60"), "", time.Minute},
		{"4.2.1 max-age=0 beats Expires", anonymous, 200, header(inTheFuture, "Cache-Control: max-age=0"), RefusedExpired, 0},
		{"4.2.1 the shortest of two", anonymous, 200, header("Cache-Control: max-age=60, max-age=30"), "", 30 * time.Second},
		{"4.2.1 two lines", anonymous, 200, header("Cache-Control: public", "Cache-Control: max-age=60"), "", time.Minute},
		{"4.2.1 what cannot be read is stale", anonymous, 200, header("Cache-Control: max-age=soon"), RefusedExpired, 0},
		{"4.2.1 a negative time is stale", anonymous, 200, header("Cache-Control: max-age=-1"), RefusedExpired, 0},
		{"4.2.1 single quotes are stale", anonymous, 200, header("Cache-Control: max-age='3600'"), RefusedExpired, 0},
		{"4.2.1 white space is stale", anonymous, 200, header("Cache-Control: max-age =3600"), RefusedExpired, 0},
		{"4.2.1 quoted", anonymous, 200, header(`Cache-Control: max-age="60"`), "", time.Minute},
		{"4.2.1 upper case", anonymous, 200, header(`Cache-Control: MAX-AGE=60`), "", time.Minute},
		{"4.2.1 beside an extension", anonymous, 200, header(`Cache-Control: foobar, max-age=60`), "", time.Minute},
		{"1.2.2 an enormous time", anonymous, 200, header("Cache-Control: max-age=99999999999999999999"), "", 24 * time.Hour},
		{"5.3 Expires: 0", anonymous, 200, header("Expires: 0"), RefusedExpired, 0},
		{"5.3 an empty Expires", anonymous, 200, header("Expires: "), RefusedExpired, 0},
		{"5.3 two Expires", anonymous, 200, header(inTheFuture, inTheFuture), RefusedExpired, 0},
		{"5.3 Expires of RFC 850", anonymous, 200, header("Expires: Sunday, 22-Nov-26 12:10:00 GMT"), "", 10 * time.Minute},
		{"5.3 Expires of asctime", anonymous, 200, header("Expires: Sun Nov 22 12:10:00 2026"), "", 10 * time.Minute},
		{"5.3 Expires in another zone", anonymous, 200, header("Expires: Sun, 22 Nov 2026 12:10:00 UTC"), RefusedExpired, 0},
		{"5.3 Expires far away", anonymous, 200, header("Expires: Fri, 31 Dec 9999 23:59:59 GMT"), "", 24 * time.Hour},
		{"4.2.3 older than its lifetime", anonymous, 200, header("Cache-Control: max-age=60", "Age: 60"), RefusedExpired, 0},
		{"4.2.3 younger than its lifetime", anonymous, 200, header("Cache-Control: max-age=60", "Age: 59"), "", time.Minute},
		{"4.2.3 dated before its lifetime", anonymous, 200, header("Cache-Control: max-age=60", longAgoDated), RefusedExpired, 0},
		{"4.2.3 older than Expires, dated in the future", anonymous, 200, header(inTheFuture, "Date: Sun, 22 Nov 2026 12:09:50 GMT", "Age: 15"), RefusedExpired, 0},
		{"5.1 the first Age counts", anonymous, 200, header("Cache-Control: max-age=60", "Age: 60, 0"), RefusedExpired, 0},
		{"5.1 an Age that is none", anonymous, 200, header("Cache-Control: max-age=60", "Age: 99.5"), "", time.Minute},
		{"5861-3 stale, but of use while it is refreshed", anonymous, 200, header("Cache-Control: max-age=0, stale-while-revalidate=60"), "", 0},

		// 3: what may be stored, and what may not.
		{"3 explicit 204", anonymous, 204, header("Cache-Control: max-age=60"), "", time.Minute},
		{"3 explicit 299", anonymous, 299, header("Cache-Control: max-age=60"), "", time.Minute},
		{"3 explicit 302", anonymous, 302, header("Cache-Control: max-age=60"), "", time.Minute},
		{"3 explicit 303", anonymous, 303, header("Cache-Control: max-age=60"), "", time.Minute},
		{"3 explicit 307", anonymous, 307, header("Cache-Control: max-age=60"), "", time.Minute},
		{"3 explicit 400", anonymous, 400, header("Cache-Control: max-age=60"), "", time.Minute},
		{"3 explicit 403", anonymous, 403, header("Cache-Control: max-age=60"), "", time.Minute},
		{"3 explicit 499", anonymous, 499, header("Cache-Control: max-age=60"), "", time.Minute},
		{"3 explicit 500", anonymous, 500, header("Cache-Control: max-age=60"), "", time.Minute},
		{"3 explicit 503", anonymous, 503, header("Cache-Control: max-age=60"), "", time.Minute},
		{"3 explicit 599", anonymous, 599, header("Cache-Control: max-age=60"), "", time.Minute},
		{"3 explicit 299, expired", anonymous, 299, header("Cache-Control: max-age=60", "Age: 61"), RefusedExpired, 0},
		{"3 explicit 599, expired", anonymous, 599, header("Cache-Control: max-age=60", "Age: 61"), RefusedExpired, 0},
		{"3 explicit 404 by Expires", anonymous, 404, header(inTheFuture), "", 10 * time.Minute},
		{"3 an interim answer", anonymous, 103, header("Cache-Control: max-age=60"), RefusedStatus, 0},
		{"3 206", anonymous, 206, header("Cache-Control: max-age=60"), RefusedStatus, 0},
		{"3 206, public", anonymous, 206, header("Cache-Control: max-age=60, public", "Content-Range: bytes 0-9/10"), RefusedStatus, 0},
		{"3 304", anonymous, 304, header("Cache-Control: max-age=60"), RefusedStatus, 0},
		{"5.2.2.5 no-store", anonymous, 200, header("Cache-Control: max-age=60, no-store"), RefusedNoStore, 0},
		{"5.2.2.5 no-store in capitals", anonymous, 200, header("Cache-Control: No-StOrE, max-age=60"), RefusedNoStore, 0},
		{"5.2.2.5 no-store on another line", anonymous, 200, header("Cache-Control: max-age=60", "Cache-Control: no-store"), RefusedNoStore, 0},
		{"5.2.2.5 no-store with an argument", anonymous, 200, header("Cache-Control: max-age=60, no-store=x"), RefusedNoStore, 0},
		{"5.2.2.5 no-store behind a quote that does not end", anonymous, 200, header(`Cache-Control: max-age=60, x="a, no-store`), RefusedNoStore, 0},
		{"5.2.2.3 must-understand, understood", anonymous, 200, header("Cache-Control: max-age=60, must-understand"), "", time.Minute},
		{"5.2.2.3 must-understand lifts no-store", anonymous, 200, header("Cache-Control: max-age=60, must-understand, no-store"), "", time.Minute},
		{"5.2.2.3 must-understand lifts no-store of a 404", anonymous, 404, header("Cache-Control: no-store, must-understand, max-age=60"), "", time.Minute},
		{"5.2.2.3 must-understand does not lift private", anonymous, 200, header("Cache-Control: max-age=60, must-understand, private"), RefusedPrivate, 0},
		{"5.2.2.3 must-understand, 299", anonymous, 299, header("Cache-Control: max-age=60, must-understand"), RefusedStatus, 0},
		{"5.2.2.3 must-understand, 499", anonymous, 499, header("Cache-Control: max-age=60, must-understand"), RefusedStatus, 0},
		{"5.2.2.3 must-understand, 599 and no-store", anonymous, 599, header("Cache-Control: max-age=60, must-understand, no-store"), RefusedStatus, 0},
		{"5.2.2.3 must-understand, 226", anonymous, 226, header("Cache-Control: max-age=60, must-understand"), RefusedStatus, 0},
		{"5.2.2.3 must-understand, 206", anonymous, 206, header("Cache-Control: max-age=60, must-understand"), RefusedStatus, 0},
		{"5.2.2.7 private", anonymous, 200, header("Cache-Control: max-age=60, private"), RefusedPrivate, 0},
		{"5.2.2.7 private wins over public", anonymous, 200, header("Cache-Control: max-age=60, private, public"), RefusedPrivate, 0},
		{"5.2.2.7 private for some fields", anonymous, 200, header(`Cache-Control: private="a, b", max-age=60`), "", time.Minute},
		{"5.2.2.7 private for no field", anonymous, 200, header(`Cache-Control: private="", max-age=60`), RefusedPrivate, 0},
		{"5.2.2.7 private for what is no field", anonymous, 200, header(`Cache-Control: private="{}", max-age=60`), RefusedPrivate, 0},
		{"5.2.2.7 private without quotes", anonymous, 200, header(`Cache-Control: private=a, max-age=60`), RefusedPrivate, 0},
		{"5.2.2.7 private for Set-Cookie", anonymous, 200, header(`Cache-Control: private="Set-Cookie", max-age=60`, "Set-Cookie: a=1"), "", time.Minute},
		{"5.2.2.7 private for another field than Set-Cookie", anonymous, 200, header(`Cache-Control: private="X", max-age=60`, "Set-Cookie: a=1"), RefusedSetCookie, 0},
		{"5.2.2.4 no-cache, no validator", anonymous, 200, header("Cache-Control: max-age=60, no-cache"), RefusedNoCache, 0},
		{"5.2.2.4 no-cache, ETag", anonymous, 200, header("Cache-Control: max-age=60, no-cache", `Etag: "x"`), "", time.Minute},
		{"5.2.2.4 no-cache alone, ETag", anonymous, 200, header("Cache-Control: no-cache", `Etag: W/"x"`), "", ttl},
		{"5.2.2.4 no-cache alone, Last-Modified", anonymous, 200, header("Cache-Control: no-cache", dayAgo), "", ttl},
		{"5.2.2.4 no-cache, an ETag that is none", anonymous, 200, header("Cache-Control: no-cache", "Etag: x"), RefusedNoCache, 0},
		{"5.2.2.4 no-cache, a Last-Modified that is none", anonymous, 200, header("Cache-Control: no-cache", "Last-Modified: never"), RefusedNoCache, 0},
		{"5.2.2.4 no-cache, a cookie", withCookie, 200, header("Cache-Control: no-cache", `Etag: "x"`), RefusedCredentials, 0},
		{"own no-cache beside a lifetime, a cookie", withCookie, 200, header("Cache-Control: no-cache, max-age=60", `Etag: "x"`), RefusedCredentials, 0},
		{"own expired on arrival, a cookie", withCookie, 200, header("Cache-Control: max-age=0", `Etag: "x"`), RefusedCredentials, 0},
		{"own expired on arrival, a token", withToken, 200, header("Cache-Control: max-age=0, must-revalidate", `Etag: "x"`), RefusedCredentials, 0},
		{"own expired on arrival, a cookie, public", withCookie, 200, header("Cache-Control: max-age=0, public", `Etag: "x"`), "", 0},
		{"own expired on arrival, a token, s-maxage", withToken, 200, header("Cache-Control: s-maxage=0", `Etag: "x"`), "", 0},
		{"5.2.2.4 no-cache for a field", anonymous, 200, header(`Cache-Control: no-cache="x", max-age=60`), "", time.Minute},
		{"5.2.2.4 no-cache for Set-Cookie", anonymous, 200, header(`Cache-Control: no-cache="Set-Cookie", max-age=60`, "Set-Cookie: a=1"), "", time.Minute},
		{"5.2.2.4 no-cache for the whole wins", anonymous, 200, header(`Cache-Control: no-cache="x", no-cache, max-age=60`), RefusedNoCache, 0},
		{"5.4 Pragma beside a lifetime means nothing", anonymous, 200, header("Cache-Control: max-age=60", "Pragma: no-cache"), "", time.Minute},
		{"4.1 Vary: *", anonymous, 200, header("Cache-Control: max-age=60", "Vary: *"), RefusedVary, 0},
		{"4.1 Vary: *, *", anonymous, 200, header("Cache-Control: max-age=60", "Vary: *, *"), RefusedVary, 0},
		{"4.1 Vary: Accept, *", anonymous, 200, header("Cache-Control: max-age=60", "Vary: Accept, *"), RefusedVary, 0},
		{"4.1 Vary: *, Accept", anonymous, 200, header("Cache-Control: max-age=60", "Vary: *, Accept"), RefusedVary, 0},
		{"4.1 Vary: , *", anonymous, 200, header("Cache-Control: max-age=60", "Vary: , *"), RefusedVary, 0},
		{"4.1 Vary: * on another line", anonymous, 200, header("Cache-Control: max-age=60", "Vary: Accept", "Vary: *"), RefusedVary, 0},
		{"4.1 Vary: * behind an empty line", anonymous, 200, header("Cache-Control: max-age=60", "Vary: ", "Vary: *"), RefusedVary, 0},
		{"own Vary by what is no name", anonymous, 200, header("Cache-Control: max-age=60", `Vary: "Cookie"`), RefusedVary, 0},
		{"own Vary by the client's address", anonymous, 200, header("Cache-Control: max-age=60", "Vary: X-Forwarded-For"), RefusedVary, 0},
		{"own event stream", anonymous, 200, header("Content-Type: text/event-stream; charset=utf-8"), RefusedStream, 0},

		// 3.5: Authorization.
		{"3.5 max-age alone", withToken, 200, header("Cache-Control: max-age=60"), RefusedCredentials, 0},
		{"3.5 Expires alone", withToken, 200, header(inTheFuture), RefusedCredentials, 0},
		{"3.5 public", withToken, 200, header("Cache-Control: max-age=60, public"), "", time.Minute},
		{"3.5 public without a lifetime", withToken, 200, header("Cache-Control: public"), RefusedCredentials, 0},
		{"3.5 s-maxage", withToken, 200, header("Cache-Control: s-maxage=60"), "", time.Minute},
		{"3.5 must-revalidate", withToken, 200, header("Cache-Control: max-age=60, must-revalidate"), "", time.Minute},
		{"3.5 proxy-revalidate", withToken, 200, header("Cache-Control: max-age=60, proxy-revalidate"), RefusedCredentials, 0},
		{"3.5 private wins over public", withToken, 200, header("Cache-Control: max-age=60, public, private"), RefusedPrivate, 0},
		{"3.5 no-cache and public", withToken, 200, header("Cache-Control: max-age=60, public, no-cache", `Etag: "x"`), "", time.Minute},
		{"3 a cookie does not matter", withCookie, 200, header("Cache-Control: max-age=60"), "", time.Minute},
		{"own Set-Cookie with a lifetime", anonymous, 200, header("Cache-Control: max-age=60", "Set-Cookie: a=1"), RefusedSetCookie, 0},
		{"own Set-Cookie, public", anonymous, 200, header("Cache-Control: max-age=60, public", "Set-Cookie: a=1"), "", time.Minute},
		{"own Set-Cookie, s-maxage", anonymous, 200, header("Cache-Control: s-maxage=60", "Set-Cookie: a=1"), "", time.Minute},

		// RFC 9213.
		{"9213-2.2 targeted wins", anonymous, 200, header("Cache-Control: no-cache, private", "CDN-Cache-Control: max-age=60"), "", time.Minute},
		{"9213-2.2 targeted wins over no-store", anonymous, 200, header("Cache-Control: no-store", "CDN-Cache-Control: max-age=60"), "", time.Minute},
		{"9213-2.2 targeted forbids", anonymous, 200, header("Cache-Control: max-age=60", "CDN-Cache-Control: no-store"), RefusedNoStore, 0},
		{"9213-2.2 targeted is private", anonymous, 200, header("Cache-Control: max-age=60", inTheFuture, "CDN-Cache-Control: private"), RefusedPrivate, 0},
		{"9213-2.2 targeted is no-cache", anonymous, 200, header("Cache-Control: max-age=60", inTheFuture, "CDN-Cache-Control: no-cache"), RefusedNoCache, 0},
		{"9213-2.2 targeted is shorter", anonymous, 200, header("Cache-Control: max-age=60", "CDN-Cache-Control: max-age=1"), "", time.Second},
		{"9213-2.2 targeted is 0", anonymous, 200, header(inTheFuture, "CDN-Cache-Control: max-age=0"), RefusedExpired, 0},
		{"9213-2.2 targeted and Age", anonymous, 200, header("Age: 7200", "CDN-Cache-Control: max-age=3600"), RefusedExpired, 0},
		{"9213-2.2 targeted replaces Expires", anonymous, 200, header("Expires: 0", "CDN-Cache-Control: public"), "", ttl},
		{"9213-2.2 targeted does not parse", anonymous, 200, header("Cache-Control: max-age=60", "CDN-Cache-Control: max-age=120, =="), "", time.Minute},
		{"9213-2.2 targeted is no dictionary", anonymous, 200, header("Cache-Control: no-store", "CDN-Cache-Control: MAX-AGE=60"), RefusedNoStore, 0},
		{"9213-2.2 targeted is empty", anonymous, 200, header("Cache-Control: no-store", "CDN-Cache-Control: "), RefusedNoStore, 0},
		{"9213-2.1 targeted with a string for a time", anonymous, 200, header(`CDN-Cache-Control: max-age="60"`), RefusedExpired, 0},
		{"9213-2.1 targeted with a false", anonymous, 200, header(`CDN-Cache-Control: max-age=60, no-store=?0`), "", time.Minute},
		{"9213-2.1 targeted with fields for private", anonymous, 200, header(`CDN-Cache-Control: max-age=60, private="a"`), "", time.Minute},
		{"9213-2.1 targeted with a token for private", anonymous, 200, header(`CDN-Cache-Control: max-age=60, private=a`), RefusedPrivate, 0},
		{"9213-2.1 targeted public with a value", withToken, 200, header(`CDN-Cache-Control: max-age=60, public=1`), "", time.Minute},
		{"9213-2.1 targeted must-revalidate with a string", withToken, 200, header(`CDN-Cache-Control: max-age=60, must-revalidate="x"`), RefusedCredentials, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := Reply{test.status, test.header, 10, true}
			got := testPolicy.Terms(test.q, r, noon, noon)
			if got.Refusal != test.refusal || test.refusal == "" && got.Lifetime != test.lifetime {
				t.Errorf("refused %q, lifetime %s", got.Refusal, got.Lifetime)
			}
		})
	}
}

// Whom an answer is for that its origin has to confirm. A cookie is no key, and a
// version of a page may have one entity tag for all who are logged in.
func TestTerms_WhatIsToBeConfirmedIsForUsersOnlyIfItIsForEveryone(t *testing.T) {
	for control, want := range map[string]bool{
		"max-age=0":                       false,
		"max-age=60, no-cache":            false,
		"max-age=0, must-revalidate":      false,
		"max-age=0, public":               true,
		"s-maxage=0":                      true,
		"max-age=60":                      true,
		"max-age=0, stale-if-error=60":    true,
		"max-age=60, no-cache, s-maxage=": true,
	} {
		h := header("Cache-Control: "+control, `Etag: "x"`)
		if got := testPolicy.Terms(anonymous, Reply{200, h, 1, true}, noon, noon); got.Refusal != "" || got.Explicit != want {
			t.Errorf("%s: refused %q, explicit %v", control, got.Refusal, got.Explicit)
		}
	}
}

// What a stored answer may be used for.
func TestTerms_OfReuse(t *testing.T) {
	const m = time.Minute
	etag := `Etag: "x"`
	for _, test := range []struct {
		name   string
		header http.Header
		want   Terms // of which Revalidate, NoStale, Omit and the windows are compared
	}{
		{"4.2.4 max-age", header("Cache-Control: max-age=60"), Terms{}},
		{"4.2.4 must-revalidate", header("Cache-Control: max-age=60, must-revalidate"), Terms{NoStale: true}},
		{"4.2.4 proxy-revalidate", header("Cache-Control: max-age=60, proxy-revalidate"), Terms{NoStale: true}},
		{"4.2.4 s-maxage", header("Cache-Control: s-maxage=60"), Terms{NoStale: true}},
		{"4.2.4 no-cache", header("Cache-Control: no-cache", etag), Terms{NoStale: true, Revalidate: true}},
		{"4.2.4 no-cache beside a lifetime", header("Cache-Control: max-age=60, no-cache", etag), Terms{NoStale: true, Revalidate: true}},
		{"4.2.4 no-cache for a field", header(`Cache-Control: max-age=60, no-cache="x-user"`, etag), Terms{Omit: []string{"X-User"}}},
		{"4.3 expired on arrival", header("Cache-Control: max-age=0", etag), Terms{Revalidate: true}},
		{"4.3 expired on arrival, must-revalidate", header("Cache-Control: max-age=0, must-revalidate", etag), Terms{Revalidate: true, NoStale: true}},
		{"4.3 expired on arrival by its Age", header("Cache-Control: max-age=60", "Age: 60", dayAgo), Terms{Revalidate: true}},
		{"5861-3 while it is refreshed", header("Cache-Control: max-age=60, stale-while-revalidate=60"), Terms{WhileRevalidate: m}},
		{"5861-4 if the upstream fails", header("Cache-Control: max-age=60, stale-if-error=60"), Terms{IfError: m}},
		{"5861-3 not with must-revalidate", header("Cache-Control: max-age=60, stale-while-revalidate=60, must-revalidate"), Terms{NoStale: true}},
		{"5861-4 not with proxy-revalidate", header("Cache-Control: max-age=60, stale-if-error=60, proxy-revalidate"), Terms{NoStale: true}},
		{"5861-3 not with no-cache", header("Cache-Control: max-age=60, stale-while-revalidate=60, no-cache", etag), Terms{NoStale: true, Revalidate: true}},
		{"5861-3 with s-maxage", header("Cache-Control: s-maxage=60, stale-while-revalidate=60"), Terms{NoStale: true, WhileRevalidate: m}},
		{"5861-3 expired on arrival", header("Cache-Control: max-age=0, stale-while-revalidate=60", etag), Terms{WhileRevalidate: m}},
		{"5861-4 longer than anything is kept", header("Cache-Control: max-age=60, stale-if-error=999999999"), Terms{IfError: 24 * time.Hour}},
		{"9213-2.1 fields of the targeted one", header(`CDN-Cache-Control: max-age=60, private="a, b"`, `Cache-Control: private="c"`), Terms{Omit: []string{"A", "B"}}},
		{"8246-2 immutable is about clients", header("Cache-Control: max-age=60, immutable"), Terms{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := testPolicy.Terms(anonymous, Reply{200, test.header, 10, true}, noon, noon)
			want := test.want
			if got.Refusal != "" || got.Revalidate != want.Revalidate || got.NoStale != want.NoStale || !slices.Equal(got.Omit, want.Omit) ||
				got.WhileRevalidate != want.WhileRevalidate || got.IfError != want.IfError {
				t.Errorf("got %+v", got)
			}
			if got.Shared == got.Revalidate {
				t.Errorf("what needs a confirmation for each request is shared, or what does not is not: %+v", got)
			}
		})
	}
}

func TestTerms_OfABodyWhoseEndCannotBeToldOrThatIsTooLong(t *testing.T) {
	if got := testPolicy.Terms(anonymous, Reply{200, header(), -1, false}, noon, noon); got.Refusal != RefusedUnframed {
		t.Errorf("refused %q", got.Refusal)
	}
	if got := testPolicy.Terms(anonymous, Reply{200, header(), 1001, true}, noon, noon); got.Refusal != RefusedTooLarge {
		t.Errorf("refused %q", got.Refusal)
	}
}

func TestTerms_OnlyAnErrorPageIsSharedWithoutBeingStored(t *testing.T) {
	for _, test := range []struct {
		status int
		header http.Header
		shared bool
	}{
		{500, header(), true},
		{503, header("Retry-After: 1"), true},
		{500, header("Cache-Control: private"), false},
		{500, header("Set-Cookie: a=1"), false},
		{500, header("Cache-Control: no-cache", `Etag: "x"`), false},
		{302, header(), false},
		{403, header(), false},
	} {
		got := testPolicy.Terms(anonymous, Reply{test.status, test.header, 1, true}, noon, noon)
		if got.Shared != test.shared || got.Refusal == "" {
			t.Errorf("%d %v: shared %v, refused %q", test.status, test.header, got.Shared, got.Refusal)
		}
	}
}

func TestTerms_WithoutATTLFollowTheHeuristic(t *testing.T) {
	p := testPolicy
	p.TTL = 0
	const tenth = 24 * time.Hour / 10
	for _, test := range []struct {
		name     string
		status   int
		header   http.Header
		refusal  string
		lifetime time.Duration
	}{
		{"9110-15.1 200", 200, header(dayAgo, dateNow), "", tenth},
		{"9110-15.1 203", 203, header(dayAgo, dateNow), "", tenth},
		{"9110-15.1 204", 204, header(dayAgo, dateNow), "", tenth},
		{"9110-15.1 206", 206, header(dayAgo, dateNow), RefusedStatus, 0},
		{"9110-15.1 300", 300, header(dayAgo, dateNow), "", tenth},
		{"9110-15.1 301", 301, header(dayAgo, dateNow), "", tenth},
		{"9110-15.1 308", 308, header(dayAgo, dateNow), "", tenth},
		{"9110-15.1 404", 404, header(dayAgo, dateNow), "", tenth},
		{"9110-15.1 405", 405, header(dayAgo, dateNow), "", tenth},
		{"9110-15.1 410", 410, header(dayAgo, dateNow), "", tenth},
		{"9110-15.1 414", 414, header(dayAgo, dateNow), "", tenth},
		{"9110-15.1 501", 501, header(dayAgo, dateNow), "", tenth},
		{"9110-15.1 201", 201, header(dayAgo, dateNow), RefusedStatus, 0},
		{"9110-15.1 202", 202, header(dayAgo, dateNow), RefusedStatus, 0},
		{"9110-15.1 302", 302, header(dayAgo, dateNow), RefusedStatus, 0},
		{"9110-15.1 403", 403, header(dayAgo, dateNow), RefusedStatus, 0},
		{"9110-15.1 502", 502, header(dayAgo, dateNow), RefusedStatus, 0},
		{"9110-15.1 503", 503, header(dayAgo, dateNow), RefusedStatus, 0},
		{"9110-15.1 504", 504, header(dayAgo, dateNow), RefusedStatus, 0},
		{"9110-15.1 599", 599, header(dayAgo, dateNow), RefusedStatus, 0},
		{"5.2.2.9 599, public", 599, header(dayAgo, dateNow, "Cache-Control: public"), "", tenth},
		{"5.2.2.9 302, public", 302, header(dayAgo, dateNow, "Cache-Control: public"), "", tenth},
		{"5.2.2.9 206, public", 206, header(dayAgo, dateNow, "Cache-Control: public"), RefusedStatus, 0},
		{"4.2.2 no Last-Modified", 200, header(dateNow), RefusedExpired, 0},
		{"4.2.2 no Last-Modified, public", 200, header(dateNow, "Cache-Control: public"), RefusedExpired, 0},
		{"4.2.2 no Last-Modified, and an ETag to confirm it by", 200, header(dateNow, `Etag: "x"`), "", 0},
		{"4.2.2 Last-Modified that cannot be read", 200, header(dateNow, "Last-Modified: x"), RefusedExpired, 0},
		{"4.2.2 Last-Modified in the future", 200, header(dateNow, "Last-Modified: Sun, 22 Nov 2026 13:00:00 GMT"), "", 0},
		{"4.2.2 by Date, not by the time of arrival", 200, header(longAgoDated, "Last-Modified: Sun, 22 Nov 2026 11:39:00 GMT", "Age: 0"), "", 2 * time.Minute},
		{"4.2.2 capped", 200, header(dateNow, "Last-Modified: Sun, 22 Nov 2006 12:00:00 GMT"), "", 24 * time.Hour},
		{"own Set-Cookie", 200, header(dayAgo, dateNow, "Set-Cookie: a=1"), RefusedSetCookie, 0},
		{"own Pragma", 200, header(dayAgo, dateNow, "Pragma: x"), RefusedNoCache, 0},
		{"own varies by Cookie", 200, header(dayAgo, dateNow, "Vary: Cookie"), RefusedVary, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := p.Terms(anonymous, Reply{test.status, test.header, 1, true}, noon, noon)
			if got.Refusal != test.refusal || test.refusal == "" && got.Lifetime != test.lifetime {
				t.Errorf("refused %q, lifetime %s", got.Refusal, got.Lifetime)
			}
			// Without a lifetime it is stored to be asked about, and for nothing else.
			if got.Refusal == "" && got.Revalidate != (got.Lifetime == 0) {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestTerms_StoreSetCookieLiftsTheRuleForExplicitAnswers(t *testing.T) {
	p := testPolicy
	p.StoreSetCookie = true
	for _, test := range []struct{ control, refusal string }{{"max-age=60", ""}, {"public", RefusedSetCookie}} {
		h := header("Set-Cookie: a=1", "Cache-Control: "+test.control)
		if got := p.Terms(anonymous, Reply{200, h, 1, true}, noon, noon); got.Refusal != test.refusal {
			t.Errorf("%s: refused %q", test.control, got.Refusal)
		}
	}
}
