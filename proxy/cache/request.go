package cache

import (
	"net/http"
	"slices"
	"strings"

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
	rules.Asker

	mediaTypes []string // that Accept is reduced to
}

// newRequest reads a GET or a HEAD.
func (c *Cache) newRequest(r *http.Request, v origin.View) request {
	h := endToEnd(r.Header)
	q := request{
		view:       v,
		key:        Key{v.Scheme, v.Host, v.Target},
		head:       r.Method == http.MethodHead,
		header:     h,
		asks:       rules.Asks(h),
		mediaTypes: c.mediaTypes,
	}
	q.Authorization = len(h["Authorization"]) > 0
	q.Credentials = q.Authorization || c.hasCookie(h["Cookie"])
	for _, name := range c.privateHeaders {
		q.Credentials = q.Credentials || len(h[name]) > 0
	}
	return q
}

// endToEnd is a request's header as the upstream gets it: without the fields
// that Connection names (RFC 9110, section 7.6.1). Or a client could have the
// answer to a request without a field stored as that to a request with it.
func endToEnd(h http.Header) http.Header {
	named := rules.FieldNames(h["Connection"])
	if !slices.ContainsFunc(named, func(name string) bool { return h[name] != nil }) {
		return h
	}
	h = h.Clone()
	for _, name := range named {
		delete(h, name)
	}
	return h
}

// wantsProof reports whether a client asks for an answer that its origin
// vouches for: no-cache, max-age=0 or Pragma.
func (q *request) wantsProof() bool { return q.asks.NoCache || q.asks.MaxAge == 0 }

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

// cannotUse names what keeps a GET or HEAD away from the cache altogether, or
// "". Ranges are not among it: a fresh answer serves them in full.
func (c *Cache) cannotUse(r *http.Request, v origin.View) string {
	switch {
	case len(c.bypass) > 0 && c.isBypassed(r):
		return "path"
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
