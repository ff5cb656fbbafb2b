package cache

import (
	"context"
	"errors"
	"net/http"
	"path"
	"slices"
	"strings"

	"walcache/proxy/coherence"
	"walcache/proxy/origin"
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
			if unsafe(r.Method) {
				c.awaitWrite(r.Context())
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
}

func (c *Cache) passFailed(w http.ResponseWriter, err error, how forwarded) {
	var f *origin.Failure
	if errors.As(err, &f) {
		c.count.failed.Add(1)
		sendFailure(w, f, how)
	}
}

// awaitWrite waits until the cache knows of what a request has written, so that
// whoever is told that it succeeded will not read what was before. It does not
// wait for long: what was read before it is at most as stale as without it.
func (c *Cache) awaitWrite(ctx context.Context) {
	if c.catchUp == nil || c.writeWait <= 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, c.writeWait)
	defer cancel()
	if err := c.catchUp(ctx); err != nil {
		c.count.writeWaits.Add(1)
		c.log.Debug("answered a write before all its changes were known", "err", err)
	}
}

// unsafe reports whether a method may change something (RFC 9110, section
// 9.2.1).
func unsafe(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return false
	}
	return true
}

// isBypassed reports whether a pattern matches the path: as sent, decoded, or
// in the simplest of the forms that a service may take to be the same, with a
// slash at its end and without.
func (c *Cache) isBypassed(r *http.Request) bool {
	raw, _, _ := strings.Cut(r.RequestURI, "?")
	simplest := path.Clean(r.URL.Path)
	return slices.ContainsFunc([]string{raw, r.URL.Path, simplest, simplest + "/"}, func(path string) bool {
		return anyMatches(c.bypass, path)
	})
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
