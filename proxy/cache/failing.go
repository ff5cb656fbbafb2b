package cache

import (
	"context"
	"errors"
	"net/http"
	"time"

	"walcache/proxy/origin"
	"walcache/proxy/rules"
)

// failing reports whether a response says that the upstream fails (RFC 5861,
// section 4).
func failing(status int) bool {
	switch status {
	case http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// nobody answers a client that has left, or to net/http seems to: one that has
// closed its side of the connection may still read, and without an answer it
// would get an empty 200.
var nobody = &origin.Failure{Status: http.StatusBadGateway, Err: errNobody}

// fallback is what may be served while the upstream fails, or nil. It is away if
// it does not answer at all, which is more than to answer that it fails: then
// there is nobody who could say that the data is another (RFC 9111, section
// 4.2.4).
func (c *Cache) fallback(miss found, away bool) *Entry {
	if miss.entry == nil {
		return nil
	}
	if s := c.stand(miss.entry, time.Now()); s.fresh || s.ifError || s.ifAway && away {
		return miss.entry
	}
	return nil
}

// failed answers the client of a fetch with something else than the upstream's
// response.
func (t *fetch) failed(w http.ResponseWriter, err error) {
	switch err {
	case errNobody:
		sendFailure(w, nobody, t.how)
		return
	case errNotModified:
		t.sendNotModified(w)
		return
	case errUnconfirmed:
		t.again = true
		return
	case errServeStale:
		t.c.sendStale(w, &t.q, t.miss.entry, t.miss.reason, t.response.StatusCode)
		return
	}
	var f *origin.Failure
	if !errors.As(err, &f) {
		f = &origin.Failure{Status: http.StatusBadGateway, Err: err}
	}
	t.land(outcome{failure: f})
	if f.Status != http.StatusServiceUnavailable && !errors.Is(err, context.Canceled) {
		t.c.count.failed.Add(1)
	}
	t.c.answerFailure(w, &t.q, t.miss, f, false)
}

// answerFailure answers a request whose fetch failed: from what is there, if
// that is allowed.
func (c *Cache) answerFailure(w http.ResponseWriter, q *request, miss found, f *origin.Failure, collapsed bool) {
	away := f.Status == http.StatusBadGateway || f.Status == http.StatusGatewayTimeout // and not our own queue
	if e := c.fallback(miss, away); e != nil {
		c.sendStale(w, q, e, miss.reason, 0)
		return
	}
	how := missed(miss.reason, "")
	how.collapsed = collapsed
	sendFailure(w, f, how)
}

// sendStale answers with an entry that is not fresh. status is that of the
// upstream's response, or 0.
func (c *Cache) sendStale(w http.ResponseWriter, q *request, e *Entry, reason string, status int) {
	c.count.stale.add(reason)
	c.send(w, q, e, forwarded{why: "stale", status: status, detail: reason})
}

// hasAlready evaluates the client's preconditions on the upstream's response. A
// 304 would lose a Set-Cookie.
func (t *fetch) hasAlready() bool {
	return len(t.response.Header["Set-Cookie"]) == 0 &&
		rules.Evaluate(http.MethodGet, t.q.header, t.response.StatusCode, rules.ValidatorsOf(t.header)) == rules.NotModified
}

// sendNotModified answers with a 304 in the place of a 200 that the client has.
func (t *fetch) sendNotModified(w http.ResponseWriter) {
	var fields []field
	for name, values := range t.header {
		if repeatedBy304(name) {
			fields = append(fields, field{name, values})
		}
	}
	status := append(t.header["Cache-Status"], t.how.String())
	answer{status: http.StatusNotModified, fields: fields, age: t.header["Age"], cacheStatus: status}.write(w, t.q.head)
}
