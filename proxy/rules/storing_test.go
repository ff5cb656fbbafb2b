package rules

import (
	"net/http"
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
		name     string // with the section of RFC 9111, or what it is instead
		q        Asker
		status   int
		header   http.Header
		refusal  string
		lifetime time.Duration
	}{
		// No word from the origin.
		{"implicit", anonymous, 200, header(), "", ttl},
		{"implicit 203", anonymous, 203, header(), "", ttl},
		{"implicit 301", anonymous, 301, header(), "", ttl},
		{"implicit 308", anonymous, 308, header(), "", ttl},
		{"implicit 404", anonymous, 404, header(), "", ttl},
		{"implicit 410", anonymous, 410, header(), "", ttl},
		{"implicit 204", anonymous, 204, header(), RefusedStatus, 0},
		{"implicit 302", anonymous, 302, header(), RefusedStatus, 0},
		{"implicit 403", anonymous, 403, header(), RefusedStatus, 0},
		{"implicit 500", anonymous, 500, header(), RefusedStatus, 0},
		{"implicit 501", anonymous, 501, header(), RefusedStatus, 0},
		{"implicit with a cookie", withCookie, 200, header(), RefusedCredentials, 0},
		{"implicit with a token", withToken, 200, header(), RefusedCredentials, 0},
		{"implicit with Set-Cookie", anonymous, 200, header("Set-Cookie: a=1"), RefusedSetCookie, 0},
		{"implicit that varies by Cookie", anonymous, 200, header("Vary: Accept, cookie"), RefusedVary, 0},
		{"implicit that varies by Authorization", anonymous, 200, header("Vary: Authorization"), RefusedVary, 0},
		{"implicit with Pragma", anonymous, 200, header("Pragma: no-cache"), RefusedNoCache, 0},
		{"implicit with public", anonymous, 200, header("Cache-Control: public"), "", ttl},
		{"implicit with an Age", anonymous, 200, header("Age: 900"), RefusedExpired, 0},

		// 4.2.1: which lifetime counts.
		{"4.2.1 max-age", anonymous, 200, header("Cache-Control: max-age=60"), "", time.Minute},
		{"4.2.1 s-maxage wins", anonymous, 200, header("Cache-Control: max-age=60, s-maxage=120"), "", 2 * time.Minute},
		{"4.2.1 s-maxage=0 wins", anonymous, 200, header("Cache-Control: max-age=60, s-maxage=0"), RefusedExpired, 0},
		{"4.2.1 Expires", anonymous, 200, header(inTheFuture), "", 10 * time.Minute},
		{"4.2.1 Expires counts from Date", anonymous, 200, header(inTheFuture, longAgoDated), "", 11 * time.Minute},
		{"4.2.1 max-age beats Expires", anonymous, 200, header(inTheFuture, "Cache-Control: max-age=60"), "", time.Minute},
		{"4.2.1 the shortest of two", anonymous, 200, header("Cache-Control: max-age=60, max-age=30"), "", 30 * time.Second},
		{"4.2.1 two lines", anonymous, 200, header("Cache-Control: public", "Cache-Control: max-age=60"), "", time.Minute},
		{"4.2.1 what cannot be read is stale", anonymous, 200, header("Cache-Control: max-age=soon"), RefusedExpired, 0},
		{"4.2.1 a negative time is stale", anonymous, 200, header("Cache-Control: max-age=-1"), RefusedExpired, 0},
		{"4.2.1 quoted", anonymous, 200, header(`Cache-Control: max-age="60"`), "", time.Minute},
		{"4.2.1 upper case", anonymous, 200, header(`Cache-Control: MAX-AGE=60`), "", time.Minute},
		{"1.2.2 an enormous time", anonymous, 200, header("Cache-Control: max-age=99999999999999999999"), "", 24 * time.Hour},
		{"5.3 Expires: 0", anonymous, 200, header("Expires: 0"), RefusedExpired, 0},
		{"5.3 two Expires", anonymous, 200, header(inTheFuture, inTheFuture), RefusedExpired, 0},
		{"explicit 302", anonymous, 302, header("Cache-Control: max-age=60"), "", time.Minute},
		{"explicit 500", anonymous, 500, header("Cache-Control: max-age=60"), "", time.Minute},
		{"4.2.3 older than its lifetime", anonymous, 200, header("Cache-Control: max-age=60", "Age: 60"), RefusedExpired, 0},
		{"4.2.3 dated before its lifetime", anonymous, 200, header("Cache-Control: max-age=60", longAgoDated), RefusedExpired, 0},
		{"stale, but of use while it is refreshed", anonymous, 200, header("Cache-Control: max-age=0, stale-while-revalidate=60"), "", 0},

		// 3: what may not be stored.
		{"3 no-store", anonymous, 200, header("Cache-Control: max-age=60, no-store"), RefusedNoStore, 0},
		{"3 private", anonymous, 200, header("Cache-Control: max-age=60, private"), RefusedPrivate, 0},
		{"5.2.2.7 private for some fields", anonymous, 200, header(`Cache-Control: private="a, b", max-age=60`), RefusedPrivate, 0},
		{"5.2.2.4 no-cache", anonymous, 200, header("Cache-Control: max-age=60, no-cache"), RefusedNoCache, 0},
		{"4.1 Vary: *", anonymous, 200, header("Cache-Control: max-age=60", "Vary: Accept, *"), RefusedVary, 0},
		{"Vary by the client's address", anonymous, 200, header("Cache-Control: max-age=60", "Vary: X-Forwarded-For"), RefusedVary, 0},
		{"206", anonymous, 206, header("Cache-Control: max-age=60"), RefusedStatus, 0},
		{"304", anonymous, 304, header("Cache-Control: max-age=60"), RefusedStatus, 0},
		{"event stream", anonymous, 200, header("Content-Type: text/event-stream; charset=utf-8"), RefusedStream, 0},

		// 3.5: Authorization.
		{"3.5 max-age alone", withToken, 200, header("Cache-Control: max-age=60"), RefusedCredentials, 0},
		{"3.5 public", withToken, 200, header("Cache-Control: max-age=60, public"), "", time.Minute},
		{"3.5 s-maxage", withToken, 200, header("Cache-Control: s-maxage=60"), "", time.Minute},
		{"3.5 must-revalidate", withToken, 200, header("Cache-Control: max-age=60, must-revalidate"), "", time.Minute},
		{"a cookie does not matter", withCookie, 200, header("Cache-Control: max-age=60"), "", time.Minute},
		{"Set-Cookie", anonymous, 200, header("Cache-Control: max-age=60", "Set-Cookie: a=1"), RefusedSetCookie, 0},
		{"Set-Cookie, public", anonymous, 200, header("Cache-Control: max-age=60, public", "Set-Cookie: a=1"), "", time.Minute},
		{"Set-Cookie, s-maxage", anonymous, 200, header("Cache-Control: s-maxage=60", "Set-Cookie: a=1"), "", time.Minute},

		// RFC 9213.
		{"targeted wins", anonymous, 200, header("Cache-Control: no-cache, private", "CDN-Cache-Control: max-age=60"), "", time.Minute},
		{"targeted forbids", anonymous, 200, header("Cache-Control: max-age=60", "CDN-Cache-Control: no-store"), RefusedNoStore, 0},
		{"targeted replaces Expires", anonymous, 200, header("Expires: 0", "CDN-Cache-Control: public"), "", ttl},
		{"targeted does not parse", anonymous, 200, header("Cache-Control: max-age=60", "CDN-Cache-Control: max-age=120, =="), "", time.Minute},
		{"targeted is no dictionary", anonymous, 200, header("Cache-Control: no-store", "CDN-Cache-Control: MAX-AGE=60"), RefusedNoStore, 0},
		{"targeted is empty", anonymous, 200, header("Cache-Control: no-store", "CDN-Cache-Control: "), RefusedNoStore, 0},
		{"targeted with a string for a time", anonymous, 200, header(`CDN-Cache-Control: max-age="60"`), RefusedExpired, 0},
		{"targeted with a false", anonymous, 200, header(`CDN-Cache-Control: max-age=60, no-store=?0`), "", time.Minute},
		{"targeted with a value for private", anonymous, 200, header(`CDN-Cache-Control: max-age=60, private="a"`), RefusedPrivate, 0},
		{"targeted public with a value", withToken, 200, header(`CDN-Cache-Control: max-age=60, public=1`), "", time.Minute},
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
	got := p.Terms(anonymous, Reply{200, header(dayAgo, dateNow), 1, true}, noon, noon)
	if got.Refusal != "" || got.Lifetime != 24*time.Hour/10 {
		t.Errorf("refused %q, lifetime %s", got.Refusal, got.Lifetime)
	}
	if got := p.Terms(anonymous, Reply{200, header(), 1, true}, noon, noon); got.Refusal != RefusedExpired {
		t.Errorf("refused %q", got.Refusal)
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

// RFC 9111, section 4.2.3.
func TestInitialAge(t *testing.T) {
	for _, test := range []struct {
		header http.Header
		delay  time.Duration
		want   time.Duration
	}{
		{header(), 0, 0},
		{header(), 2 * time.Second, 2 * time.Second},
		{header("Age: 30"), 2 * time.Second, 32 * time.Second},
		{header(longAgoDated), 2 * time.Second, 62 * time.Second},
		{header(longAgoDated, "Age: 300"), 0, 300 * time.Second},
		{header("Age: x"), 0, 0},
		{header(inTheFuture, "Date: Sun, 22 Nov 2026 13:00:00 GMT"), 0, 0},
	} {
		if got := initialAge(test.header, noon, noon.Add(test.delay)); got != test.want {
			t.Errorf("%v after %s: %s, want %s", test.header, test.delay, got, test.want)
		}
	}
}
