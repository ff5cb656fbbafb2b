package cache

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"

	"walcache/proxy/coherence"
	"walcache/proxy/origin"
	"walcache/proxy/rules"
)

// pass forwards a request that the cache does not answer, streaming in both
// directions. limit may be nil.
func (c *Cache) pass(w http.ResponseWriter, r *http.Request, v origin.View, limit *limiter, how forwarded) {
	release := func() {}
	if limit != nil {
		var err error
		if release, err = limit.acquire(r.Context()); err != nil {
			c.passFailed(w, err, how)
			return
		}
	}
	defer release()
	c.origin.Forward(w, r, v, &origin.Exchange{
		Request: c.require,
		Response: func(res *http.Response) error {
			release()
			takeContract(res.Header)
			how.status = res.StatusCode
			how.addTo(res.Header)
			if rules.Unsafe(r.Method) {
				c.awaitWrite(r.Context(), c.invalidate(v, res.StatusCode, res.Header))
			}
			return nil
		},
		Failed: func(w http.ResponseWriter, err error) { c.passFailed(w, err, how) },
	})
}

// require tells a service that has a cache of its own what this proxy knows to
// have changed, so that it does not answer with less.
//
// 1. A client writes; the answer comes once this proxy knows of it. 2. The client
// reads; the page is stale, and is asked for. 3. The service, a moment behind,
// answers from a queryset that was read before 1.
func (c *Cache) require(h http.Header) {
	if known := c.truth.Known(); known != (coherence.Position{}) {
		h.Set("Min-LSN", known.String())
	}
	if c.compressor != nil {
		nameOrigins(h)
	}
}

func (c *Cache) passFailed(w http.ResponseWriter, err error, how forwarded) {
	var f *origin.Failure
	if errors.As(err, &f) {
		if f.Status >= 500 && f.Status != http.StatusServiceUnavailable && !errors.Is(err, context.Canceled) { // else it is not the upstream's
			c.count.failed.Add(1)
		}
		sendFailure(w, f, how)
	}
}

// isBypassed reports whether a pattern matches the path of a target: as sent,
// decoded, or in one of the forms that a service may take to be the same, with a
// slash at its end and without. A path too many costs a fetch, one too few is
// somebody's page in the cache.
func (c *Cache) isBypassed(target, decoded string) bool {
	raw, _, _ := strings.Cut(target, "?")
	simplest, loosest := path.Clean(decoded), loosest(decoded)
	return slices.ContainsFunc([]string{raw, decoded, simplest, simplest + "/", loosest, loosest + "/"}, func(path string) bool {
		return anyMatches(c.bypass, path)
	})
}

// loosest is what the most lenient of services take a path for: decoded once more,
// with "\\" for "/", without parameters behind ";" (RFC 3986, section 3.3), which
// servlets cut off before they look at dots, and in small letters.
func loosest(decoded string) string {
	for range 2 {
		if again, err := url.PathUnescape(decoded); err == nil {
			decoded = again
		}
	}
	segments := strings.Split(strings.ReplaceAll(decoded, `\`, "/"), "/")
	for i, segment := range segments {
		segments[i], _, _ = strings.Cut(segment, ";")
	}
	return strings.ToLower(path.Clean("/" + strings.Join(segments, "/")))
}

// contract is what a service says to this proxy alone.
type contract struct {
	asOf string // As-Of-LSN; "" if there is none
	tags []string
}

// takeContract takes it out of a response: a client has no use for it, and
// another cache behind this one must not act on it.
func takeContract(h http.Header) contract {
	c := contract{
		asOf: strings.Join(h["As-Of-Lsn"], ", "), // more than one are no position
		tags: h["Cache-Groups"],
	}
	for _, name := range []string{"As-Of-Lsn", "Cache-Groups", "Cdn-Cache-Control"} {
		delete(h, name)
	}
	return c
}
