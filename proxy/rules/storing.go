package rules

import (
	"mime"
	"net/http"
	"slices"
	"time"

	"golang.org/x/net/http/httpguts"
)

// Asker is what a request says of who is asking.
type Asker struct {
	Authorization bool
	Credentials   bool // Authorization, a Cookie that is not ignored, or a private field
}

// Reply is what the cache needs to know of an upstream's response.
type Reply struct {
	Status int
	Header http.Header
	Length int64 // of the body, in bytes; -1 if it is not known beforehand
	Framed bool  // the end of the body can be told from a broken connection
}

// Terms are the terms on which a response may be stored and reused.
type Terms struct {
	// Refusal names why it may not be stored, or is "".
	Refusal string
	// Shared says that it may answer other requests that waited for it, even
	// if it is refused: nothing in it is one client's own.
	Shared bool
	// Explicit says that the origin itself gave a lifetime. Without that, it
	// answers only requests that carry nothing of a user's.
	Explicit bool
	// ForAuthorized says that it may answer requests with Authorization (RFC
	// 9111, section 3.5).
	ForAuthorized bool
	// Revalidate says that it may be stored, because it has a validator, and may
	// answer nobody but whom it was fetched for until its origin has confirmed it
	// for the request at hand: no-cache (RFC 9111, section 5.2.2.4), or an age
	// beyond its lifetime when it came. Lifetime says nothing then of how long it
	// is worth keeping, and Shared is false.
	Revalidate bool
	// NoStale says that it may not be served stale just because the upstream
	// cannot be asked (RFC 9111, section 4.2.4). WhileRevalidate and IfError are
	// its origin's own permission, and are zero where they do not count.
	NoStale bool
	// Omit names fields, in canonical spelling, that are for the client of this
	// answer and not stored with it (see Storable): no-cache="f" and private="f"
	// (RFC 9111, sections 5.2.2.4 and 5.2.2.7).
	Omit []string

	Vary                     []string
	InitialAge, Lifetime     time.Duration
	WhileRevalidate, IfError time.Duration // how long after its lifetime; RFC 5861
}

// The reasons why a response is not stored, as Cache-Status and the statistics
// name them.
const (
	RefusedStatus      = "status"
	RefusedNoStore     = "no-store"
	RefusedNoCache     = "no-cache"
	RefusedPrivate     = "private"
	RefusedVary        = "vary"
	RefusedStream      = "event-stream"
	RefusedUnframed    = "unframed"
	RefusedTooLarge    = "too-large"
	RefusedCredentials = "credentials"
	RefusedSetCookie   = "set-cookie"
	RefusedExpired     = "expired"
)

// Policy is the part of the configuration that decides what may be stored.
type Policy struct {
	TTL, MaxTTL    time.Duration
	MaxObject      int64
	StoreSetCookie bool
}

// Terms decides whether the answer to a GET may be stored, and for how long:
// RFC 9111, section 3, and where the origin gives no lifetime, a stricter
// list, because an origin that says nothing did not think of a shared cache.
func (p Policy) Terms(q Asker, r Reply, requested, received time.Time) Terms {
	d, targeted := ParseTargeted(r.Header["Cdn-Cache-Control"])
	if !targeted {
		d = ParseCacheControl(r.Header["Cache-Control"])
	}
	t := Terms{Vary: varies(r.Header), Omit: slices.Concat(d.NoCacheFields, d.PrivateFields)}
	t.Lifetime, t.Explicit = explicitLifetime(d, targeted, r.Header, received)
	t.ForAuthorized = t.Explicit && (d.forEveryone() || d.MustRevalidate)

	if t.Refusal = p.forbidden(d, t.Vary, r); t.Refusal != "" {
		return t
	}
	if t.Explicit {
		t.Refusal = p.refuseExplicit(q, d, r, t)
	} else {
		t.Lifetime = p.implicitLifetime(r.Header, received)
		t.Refusal = refuseImplicit(q, r, t)
	}
	if t.Refusal != "" {
		return t
	}
	t.InitialAge = initialAge(r.Header, requested, received)
	t.Lifetime = min(t.Lifetime, p.MaxTTL)
	t.NoStale = d.NoCache || d.MustRevalidate || d.ProxyRevalidate || d.SMaxAge != Unset
	if !d.NoCache && !d.MustRevalidate && !d.ProxyRevalidate {
		// An s-maxage forbids stale answers too, unless its origin allows them in
		// the same breath.
		t.WhileRevalidate = min(max(d.WhileRevalidate, 0), p.MaxTTL)
		t.IfError = min(max(d.IfError, 0), p.MaxTTL)
	}
	expired := t.InitialAge >= t.Lifetime+max(t.WhileRevalidate, t.IfError)
	t.Revalidate = d.NoCache || expired
	t.Shared = !t.Revalidate
	switch {
	case !t.Explicit && !p.storesImplicitly(r.Status, d):
		// An error page is not kept. It is for those who wait for it all the same,
		// or they would all ask a service that is failing. Any other answer says
		// something of who asked, such as "log in first".
		t.Refusal, t.Shared = RefusedStatus, !d.NoCache && r.Status >= 500
	case t.Revalidate:
		t.confirmable(q, d, r)
	}
	return t
}

// confirmable makes the terms those of an answer that is of use only as what the
// origin confirms. A validator tells the versions of a page apart, and not
// always whose page it is; so a lifetime that is over, or that does not count,
// says nothing of users, unless the answer is for everyone by its origin's word.
func (t *Terms) confirmable(q Asker, d Directives, r Reply) {
	if !d.forEveryone() {
		t.Explicit, t.ForAuthorized = false, false
	}
	switch has := ValidatorsOf(r.Header).Any(); {
	case !has && d.NoCache:
		t.Refusal = RefusedNoCache
	case !has:
		t.Refusal = RefusedExpired
	case q.Credentials && !d.forEveryone():
		t.Refusal = RefusedCredentials
	}
}

// varies lists the request fields that select among a URL's answers. One with
// a content coding depends on Accept-Encoding also where its origin forgot to
// say so: a client that cannot decode it must not get it.
func varies(h http.Header) []string {
	names := FieldNames(h["Vary"])
	if len(h["Content-Encoding"]) > 0 && !slices.Contains(names, "Accept-Encoding") {
		names = append(names, "Accept-Encoding")
	}
	return names
}

// forbidden names what forbids any shared cache to store a response.
func (p Policy) forbidden(d Directives, vary []string, r Reply) string {
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch {
	case d.MustUnderstand && !understood(r.Status):
		return RefusedStatus
	case d.NoStore && !d.MustUnderstand: // RFC 9111, section 5.2.2.3
		return RefusedNoStore
	case d.Private:
		return RefusedPrivate
	case slices.ContainsFunc(vary, unknowable):
		return RefusedVary
	case r.Status < 200, r.Status == http.StatusPartialContent, r.Status == http.StatusNotModified, ofOneRequest[r.Status]:
		return RefusedStatus
	case kind == "text/event-stream":
		return RefusedStream
	case !r.Framed:
		return RefusedUnframed
	case r.Length > p.MaxObject:
		return RefusedTooLarge
	}
	return ""
}

// ofOneRequest are the status codes that say something of one request's length,
// form or moment, which Vary cannot name: stored, they would let one client's
// mistake shut out all others.
var ofOneRequest = map[int]bool{
	http.StatusRequestTimeout:               true,
	http.StatusLengthRequired:               true,
	http.StatusPreconditionFailed:           true,
	http.StatusRequestEntityTooLarge:        true,
	http.StatusUnsupportedMediaType:         true,
	http.StatusRequestedRangeNotSatisfiable: true,
	http.StatusExpectationFailed:            true,
	http.StatusMisdirectedRequest:           true,
	http.StatusTooEarly:                     true,
	http.StatusPreconditionRequired:         true,
	http.StatusRequestHeaderFieldsTooLarge:  true,
}

// unknowable reports whether the value of a field that Vary names cannot be
// told from the request of a client, because the upstream sees another one: it
// names the client's address, or one request. The value of what is no name at all
// cannot be told either; "*" is a name by its letters.
func unknowable(name string) bool {
	switch name {
	case "*", "Forwarded", "X-Forwarded-For", "X-Real-Ip", "Via", "X-Request-Id", "Traceparent", "Tracestate":
		return true
	}
	return !httpguts.ValidHeaderFieldName(name)
}

func (p Policy) refuseExplicit(q Asker, d Directives, r Reply, t Terms) string {
	switch {
	case q.Authorization && !t.ForAuthorized:
		return RefusedCredentials
	case setsCookie(r, t) && !d.forEveryone() && !p.StoreSetCookie:
		return RefusedSetCookie
	}
	return ""
}

func refuseImplicit(q Asker, r Reply, t Terms) string {
	switch {
	case q.Credentials:
		return RefusedCredentials
	case setsCookie(r, t):
		return RefusedSetCookie
	case slices.Contains(t.Vary, "Cookie"), slices.Contains(t.Vary, "Authorization"):
		return RefusedVary
	case len(r.Header["Pragma"]) > 0:
		return RefusedNoCache // from before Cache-Control, and never said of a page to be cached
	}
	return ""
}

// setsCookie reports whether a Set-Cookie would be stored.
func setsCookie(r Reply, t Terms) bool {
	return len(r.Header["Set-Cookie"]) > 0 && !slices.Contains(t.Omit, "Set-Cookie")
}

// implicitStatus are the status codes that are stored for the operator's TTL
// without being told to.
var implicitStatus = map[int]bool{
	http.StatusOK:                   true,
	http.StatusNonAuthoritativeInfo: true,
	http.StatusMovedPermanently:     true,
	http.StatusPermanentRedirect:    true,
	http.StatusNotFound:             true,
	http.StatusGone:                 true,
}

// heuristicStatus are those that RFC 9110, section 15.1, lets any cache store
// without being told to. A 206 is not stored here.
var heuristicStatus = map[int]bool{
	http.StatusOK:                   true,
	http.StatusNonAuthoritativeInfo: true,
	http.StatusNoContent:            true,
	http.StatusMultipleChoices:      true,
	http.StatusMovedPermanently:     true,
	http.StatusPermanentRedirect:    true,
	http.StatusNotFound:             true,
	http.StatusMethodNotAllowed:     true,
	http.StatusGone:                 true,
	http.StatusRequestURITooLong:    true,
	http.StatusNotImplemented:       true,
}

// storesImplicitly reports whether a status is stored where the origin gives no
// lifetime. A TTL is the operator's word and not the origin's: fewer are.
func (p Policy) storesImplicitly(status int, d Directives) bool {
	if p.TTL > 0 {
		return implicitStatus[status]
	}
	return heuristicStatus[status] || d.Public
}

// understood reports whether this cache does with a status what its
// specification says of caching it, as must-understand demands (RFC 9111,
// section 5.2.2.3): it is one of RFC 9110, section 15.
func understood(status int) bool {
	switch {
	case status >= 200 && status <= 205,
		status >= 300 && status <= 303, status == 305, status == 307, status == 308,
		status >= 400 && status <= 417, status == 421, status == 422, status == 426,
		status >= 500 && status <= 505:
		return true
	}
	return false
}
