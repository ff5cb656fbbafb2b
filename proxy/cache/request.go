package cache

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"walcache/proxy/guard"
	"walcache/proxy/origin"
	"walcache/proxy/rules"
)

// request is what the cache needs to know of a request.
type request struct {
	view   origin.View
	key    Key
	head   bool
	header http.Header // as the upstream gets it
	asks   rules.Directives
	// honoured says that no stored answer will do for who asks for proof.
	honoured bool
	rules.Asker

	mediaTypes []string // that Accept is reduced to
}

// newRequest reads a GET or a HEAD.
func (c *Cache) newRequest(r *http.Request, v origin.View) request {
	h := endToEnd(r.Header)
	honoured := c.takeToken(h) || c.honourClients
	q := request{
		view:       v,
		key:        Key{v.Scheme, v.Host, v.Target},
		head:       r.Method == http.MethodHead,
		header:     h,
		asks:       rules.Asks(h),
		honoured:   honoured,
		mediaTypes: c.mediaTypes,
	}
	q.Authorization = len(h["Authorization"]) > 0
	q.Credentials = q.Authorization || c.hasCookie(h["Cookie"]) || c.hasPrivate(h)
	return q
}

// hasPrivate reports whether there is a private field, in any spelling: to a service
// behind CGI or WSGI "_" and "-" are the same, and api_key is what some clients
// send.
func (c *Cache) hasPrivate(h http.Header) bool {
	for _, name := range c.privateHeaders {
		if len(h[name]) > 0 {
			return true
		}
	}
	for name := range h {
		if strings.Contains(name, "_") && slices.Contains(c.privateHeaders, http.CanonicalHeaderKey(strings.ReplaceAll(name, "_", "-"))) {
			return true
		}
	}
	return false
}

// takeToken takes an operator's token out of a header, so that no answer varies by
// it, and reports whether it was there and is right.
func (c *Cache) takeToken(h http.Header) bool {
	tokens, ok := h[origin.OperatorToken]
	if !ok {
		return false
	}
	delete(h, origin.OperatorToken)
	return len(tokens) == 1 && guard.IsToken(tokens[0], c.token)
}

// endToEnd is a request's header as the upstream gets it: without the fields
// that Connection names (RFC 9110, section 7.6.1). Or a client could have the
// answer to a request without a field stored as that to a request with it.
func endToEnd(h http.Header) http.Header {
	lines := h["Connection"]
	if len(lines) == 0 || len(lines) == 1 && strings.EqualFold(lines[0], "keep-alive") && h["Keep-Alive"] == nil {
		return h // as nearly all clients send it
	}
	named := rules.FieldNames(lines)
	if !slices.ContainsFunc(named, func(name string) bool { return h[name] != nil }) {
		return h
	}
	h = h.Clone()
	for _, name := range named {
		delete(h, name)
	}
	return h
}

// takes reports whether a client takes an answer of an age and a lifetime, by
// no-cache, Pragma, max-age and min-fresh. max-age=0 takes none: to say so is
// what it is for.
func (q *request) takes(age, lifetime time.Duration) bool {
	switch a := &q.asks; {
	case a.NoCache, a.MaxAge == 0:
		return false
	case a.MaxAge != rules.Unset && age > a.MaxAge:
		return false
	}
	return q.asks.MinFresh == rules.Unset || lifetime-age >= q.asks.MinFresh
}

// hasCookie reports whether there is a cookie that is not ignored.
func (c *Cache) hasCookie(lines []string) bool {
	if len(c.ignoreCookies) == 0 {
		return len(lines) > 0
	}
	for _, line := range lines {
		for cookie := range strings.SplitSeq(line, ";") {
			name, _, _ := strings.Cut(cookie, "=")
			if name = strings.TrimSpace(name); name != "" && !anyMatches(c.ignoreCookies, name) {
				return true
			}
		}
	}
	return false
}

// bypassPath is what cannotUse says of a path that the operator named.
const bypassPath = "path"

// cannotUse names what keeps a GET or HEAD away from the cache altogether, or
// "". Ranges are not among it: a fresh answer serves them in full.
func (c *Cache) cannotUse(r *http.Request, v origin.View) string {
	switch {
	case len(c.bypass) > 0 && c.isBypassed(r.RequestURI, r.URL.Path):
		return bypassPath
	case len(r.Header["Upgrade"]) > 0:
		return "upgrade"
	case r.ContentLength != 0:
		return "body"
	case v.Overridden:
		return "override"
	case len(v.Scheme)+len(v.Host)+len(v.Target) > maxKey:
		return "key-too-long"
	case len(r.Header["If-Match"]) > 0 || len(r.Header["If-Unmodified-Since"]) > 0:
		return "precondition" // only the origin can tell (RFC 9111, section 4.3.2)
	}
	return ""
}
