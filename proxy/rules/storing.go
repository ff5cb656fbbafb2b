package rules

import (
	"mime"
	"net/http"
	"slices"
	"time"
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

// Terms decides whether the answer to a request may be stored, and for how
// long: RFC 9111, section 3, and where the origin gives no lifetime, a stricter
// list, because an origin that says nothing did not think of a shared cache.
func (p Policy) Terms(q Asker, r Reply, requested, received time.Time) Terms {
	d, targeted := ParseTargeted(r.Header["Cdn-Cache-Control"])
	if !targeted {
		d = ParseCacheControl(r.Header["Cache-Control"])
	}
	t := Terms{Vary: varies(r.Header)}
	t.Lifetime, t.Explicit = explicitLifetime(d, targeted, r.Header, received)
	t.ForAuthorized = t.Explicit && (d.Public || d.SMaxAge != Unset || d.MustRevalidate)

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
	t.Shared = true
	t.InitialAge = initialAge(r.Header, requested, received)
	t.Lifetime = min(t.Lifetime, p.MaxTTL)
	if !d.MustRevalidate && !d.ProxyRevalidate {
		// An s-maxage forbids stale answers too, unless its origin allows them in
		// the same breath.
		t.WhileRevalidate = min(max(d.WhileRevalidate, 0), p.MaxTTL)
		t.IfError = min(max(d.IfError, 0), p.MaxTTL)
	}
	switch {
	case !t.Explicit && !implicitStatus[r.Status]:
		// An error page is not kept. It is for those who wait for it all the same,
		// or they would all ask a service that is failing. Any other answer says
		// something of who asked, such as "log in first".
		t.Refusal, t.Shared = RefusedStatus, r.Status >= 500
	case t.InitialAge >= t.Lifetime+max(t.WhileRevalidate, t.IfError):
		t.Refusal, t.Shared = RefusedExpired, false
	}
	return t
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
	case d.NoStore:
		return RefusedNoStore
	case d.Private:
		return RefusedPrivate
	case d.NoCache:
		return RefusedNoCache
	case slices.ContainsFunc(vary, unknowable):
		return RefusedVary
	case r.Status < 200, r.Status == http.StatusPartialContent, r.Status == http.StatusNotModified:
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

// unknowable reports whether the value of a field that Vary names cannot be
// told from the request of a client, because the upstream sees another one: it
// names the client's address.
func unknowable(name string) bool {
	switch name {
	case "*", "Forwarded", "X-Forwarded-For", "X-Real-Ip", "Via":
		return true
	}
	return false
}

func (p Policy) refuseExplicit(q Asker, d Directives, r Reply, t Terms) string {
	switch {
	case q.Authorization && !t.ForAuthorized:
		return RefusedCredentials
	case len(r.Header["Set-Cookie"]) > 0 && !d.Public && d.SMaxAge == Unset && !p.StoreSetCookie:
		return RefusedSetCookie
	}
	return ""
}

func refuseImplicit(q Asker, r Reply, t Terms) string {
	switch {
	case q.Credentials:
		return RefusedCredentials
	case len(r.Header["Set-Cookie"]) > 0:
		return RefusedSetCookie
	case slices.Contains(t.Vary, "Cookie"), slices.Contains(t.Vary, "Authorization"):
		return RefusedVary
	case len(r.Header["Pragma"]) > 0:
		return RefusedNoCache // from before Cache-Control, and never said of a page to be cached
	}
	return ""
}

// implicitStatus are the status codes that are stored without being told to.
var implicitStatus = map[int]bool{
	http.StatusOK:                   true,
	http.StatusNonAuthoritativeInfo: true,
	http.StatusMovedPermanently:     true,
	http.StatusPermanentRedirect:    true,
	http.StatusNotFound:             true,
	http.StatusGone:                 true,
}

// explicitLifetime is the freshness lifetime that the origin gave (RFC 9111,
// section 4.2.1). A targeted field replaces Expires too (RFC 9213, section 2.2).
func explicitLifetime(d Directives, targeted bool, h http.Header, received time.Time) (lifetime time.Duration, explicit bool) {
	switch {
	case d.SMaxAge != Unset:
		return d.SMaxAge, true
	case d.MaxAge != Unset:
		return d.MaxAge, true
	case targeted || len(h["Expires"]) == 0:
		return 0, false
	}
	expires, err := http.ParseTime(h.Get("Expires"))
	if err != nil || len(h["Expires"]) > 1 {
		return 0, true // such as "0": in the past
	}
	return max(expires.Sub(date(h, received)), 0), true
}

// implicitLifetime is the lifetime of a response whose origin gave none: the
// one configured, or a tenth of the time since its last modification (RFC
// 9111, section 4.2.2).
func (p Policy) implicitLifetime(h http.Header, received time.Time) time.Duration {
	if p.TTL > 0 {
		return p.TTL
	}
	modified, err := http.ParseTime(h.Get("Last-Modified"))
	if err != nil {
		return 0
	}
	return max(date(h, received).Sub(modified)/10, 0)
}

// date is when the response was made, or received if it does not say.
func date(h http.Header, received time.Time) time.Time {
	if t, err := http.ParseTime(h.Get("Date")); err == nil {
		return t
	}
	return received
}

// initialAge is a response's age on arrival (RFC 9111, section 4.2.3).
func initialAge(h http.Header, requested, received time.Time) time.Duration {
	apparent := received.Sub(date(h, received))
	corrected := deltaSeconds(h.Get("Age")) + received.Sub(requested)
	return max(apparent, corrected, 0)
}
