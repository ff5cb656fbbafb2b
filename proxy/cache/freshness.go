package cache

import (
	"mime"
	"net/http"
	"slices"
	"time"
)

// reply is what the cache needs to know of an upstream's response.
type reply struct {
	status int
	header http.Header
	length int64 // of the body, in bytes; -1 if it is not known beforehand
	framed bool  // the end of the body can be told from a broken connection
}

// terms are the terms on which a response may be stored and reused.
type terms struct {
	// refusal names why it may not be stored, or is "".
	refusal string
	// shared says that it may answer other requests that waited for it, even
	// if it is refused: nothing in it is one client's own.
	shared bool
	// explicit says that the origin itself gave a lifetime. Without that, it
	// answers only requests that carry nothing of a user's.
	explicit bool
	// forAuthorized says that it may answer requests with Authorization (RFC
	// 9111, section 3.5).
	forAuthorized bool

	vary                     []string
	initialAge, lifetime     time.Duration
	whileRevalidate, ifError time.Duration // how long after its lifetime; RFC 5861
}

// The reasons why a response is not stored, as Cache-Status and the statistics
// name them.
const (
	refusedStatus      = "status"
	refusedNoStore     = "no-store"
	refusedNoCache     = "no-cache"
	refusedPrivate     = "private"
	refusedVary        = "vary"
	refusedStream      = "event-stream"
	refusedUnframed    = "unframed"
	refusedTooLarge    = "too-large"
	refusedCredentials = "credentials"
	refusedSetCookie   = "set-cookie"
	refusedExpired     = "expired"
	refusedUnproven    = "unproven"
	refusedBlind       = "blind"
	refusedOff         = "off"
	refusedBroken      = "broken"
)

// policy is the part of the configuration that decides what may be stored.
type policy struct {
	ttl, maxTTL    time.Duration
	maxObject      int64
	storeSetCookie bool
}

// terms decides whether the answer to a request may be stored, and for how
// long: RFC 9111, section 3, and where the origin gives no lifetime, a stricter
// list, because an origin that says nothing did not think of a shared cache.
func (p policy) terms(q *request, r reply, requested, received time.Time) terms {
	rules, targeted := parseTargeted(r.header["Cdn-Cache-Control"])
	if !targeted {
		rules = parseCacheControl(r.header["Cache-Control"])
	}
	t := terms{vary: varies(r.header)}
	t.lifetime, t.explicit = explicitLifetime(rules, targeted, r.header, received)
	t.forAuthorized = t.explicit && (rules.public || rules.sMaxAge != unset || rules.mustRevalidate)

	if t.refusal = p.forbidden(rules, t.vary, r); t.refusal != "" {
		return t
	}
	if t.explicit {
		t.refusal = p.refuseExplicit(q, rules, r, t)
	} else {
		t.lifetime = p.implicitLifetime(r.header, received)
		t.refusal = refuseImplicit(q, r, t)
	}
	if t.refusal != "" {
		return t
	}
	t.shared = true
	t.initialAge = initialAge(r.header, requested, received)
	t.lifetime = min(t.lifetime, p.maxTTL)
	if !rules.mustRevalidate && !rules.proxyRevalidate {
		// An s-maxage forbids stale answers too, unless its origin allows them in
		// the same breath.
		t.whileRevalidate = min(max(rules.whileRevalidate, 0), p.maxTTL)
		t.ifError = min(max(rules.ifError, 0), p.maxTTL)
	}
	switch {
	case !t.explicit && !implicitStatus[r.status]:
		// An error page is not kept. It is for those who wait for it all the same,
		// or they would all ask a service that is failing. Any other answer says
		// something of who asked, such as "log in first".
		t.refusal, t.shared = refusedStatus, r.status >= 500
	case t.initialAge >= t.lifetime+max(t.whileRevalidate, t.ifError):
		t.refusal, t.shared = refusedExpired, false
	}
	return t
}

// varies lists the request fields that select among a URL's answers. One with
// a content coding depends on Accept-Encoding also where its origin forgot to
// say so: a client that cannot decode it must not get it.
func varies(h http.Header) []string {
	names := fieldNames(h["Vary"])
	if len(h["Content-Encoding"]) > 0 && !slices.Contains(names, "Accept-Encoding") {
		names = append(names, "Accept-Encoding")
	}
	return names
}

// forbidden names what forbids any shared cache to store a response.
func (p policy) forbidden(rules directives, vary []string, r reply) string {
	kind, _, _ := mime.ParseMediaType(r.header.Get("Content-Type"))
	switch {
	case rules.noStore:
		return refusedNoStore
	case rules.private:
		return refusedPrivate
	case rules.noCache:
		return refusedNoCache
	case slices.ContainsFunc(vary, unknowable):
		return refusedVary
	case r.status < 200, r.status == http.StatusPartialContent, r.status == http.StatusNotModified:
		return refusedStatus
	case kind == "text/event-stream":
		return refusedStream
	case !r.framed:
		return refusedUnframed
	case r.length > p.maxObject:
		return refusedTooLarge
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

func (p policy) refuseExplicit(q *request, rules directives, r reply, t terms) string {
	switch {
	case q.authorization && !t.forAuthorized:
		return refusedCredentials
	case len(r.header["Set-Cookie"]) > 0 && !rules.public && rules.sMaxAge == unset && !p.storeSetCookie:
		return refusedSetCookie
	}
	return ""
}

func refuseImplicit(q *request, r reply, t terms) string {
	switch {
	case q.credentials:
		return refusedCredentials
	case len(r.header["Set-Cookie"]) > 0:
		return refusedSetCookie
	case slices.Contains(t.vary, "Cookie"), slices.Contains(t.vary, "Authorization"):
		return refusedVary
	case len(r.header["Pragma"]) > 0:
		return refusedNoCache // from before Cache-Control, and never said of a page to be cached
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
func explicitLifetime(rules directives, targeted bool, h http.Header, received time.Time) (lifetime time.Duration, explicit bool) {
	switch {
	case rules.sMaxAge != unset:
		return rules.sMaxAge, true
	case rules.maxAge != unset:
		return rules.maxAge, true
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
func (p policy) implicitLifetime(h http.Header, received time.Time) time.Duration {
	if p.ttl > 0 {
		return p.ttl
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
