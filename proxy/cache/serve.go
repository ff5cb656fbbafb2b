package cache

import (
	"fmt"
	"net/http"
	"strconv"
	"time"

	"walcache/proxy/origin"
	"walcache/proxy/rules"
)

// answer is a response made from an entry, ready to be sent by any means. What
// it refers to is shared with other answers and may not be changed.
type answer struct {
	status           int
	fields           []field
	age, cacheStatus []string
	part             []field // that take the place of those of the whole body, if this is a part
	body             []byte
	unclean          bool // see Entry
}

// answer makes the response to a request: a 304 if the client has it already, or
// the part that it asks for. A request with If-Match or If-Unmodified-Since does
// not come here (cannotUse).
func (e *Entry) answer(q *request, age, cacheStatus []string) answer {
	a := answer{status: e.status, fields: e.fields, age: age, cacheStatus: cacheStatus, body: e.body, unclean: e.unclean}
	switch {
	case rules.Evaluate(http.MethodGet, q.header, e.status, e.validators) == rules.NotModified:
		a.status, a.fields, a.body = http.StatusNotModified, e.notModified, nil
	case e.status == http.StatusOK && len(q.header["Range"]) > 0 && !q.head:
		e.cut(&a, q.header)
	}
	return a
}

// cut makes the answer with the whole of a body the one to a request for a part
// of it (RFC 9110, sections 14.2, 15.3.7 and 15.5.17).
func (e *Entry) cut(a *answer, h http.Header) {
	size := int64(len(e.body))
	r, outcome := rules.RangeOf(h, e.validators, size)
	switch outcome {
	case rules.Partial:
		a.status, a.body = http.StatusPartialContent, e.body[r.First:r.Last+1]
		a.part = []field{
			{"Content-Length", []string{strconv.Itoa(len(a.body))}},
			{"Content-Range", []string{fmt.Sprintf("bytes %d-%d/%d", r.First, r.Last, size)}},
		}
	case rules.Unsatisfiable:
		a.status, a.fields, a.body = http.StatusRequestedRangeNotSatisfiable, nil, nil
		a.part = []field{
			{"Content-Length", []string{"0"}},
			{"Content-Range", []string{fmt.Sprintf("bytes */%d", size)}},
		}
	}
}

// write sends an answer through net/http.
func (a answer) write(w http.ResponseWriter, head bool) (sent int) {
	h := w.Header()
	for _, f := range a.fields {
		h[f.name] = f.values
	}
	for _, f := range a.part {
		h[f.name] = f.values
	}
	if a.age != nil {
		h["Age"] = a.age
	}
	h["Cache-Status"] = a.cacheStatus
	w.WriteHeader(a.status)
	if !head && len(a.body) > 0 {
		// A client that is gone gets nothing, and there is nobody to tell.
		sent, _ = w.Write(a.body)
	}
	return sent
}

// sampleEvery is how many hits pass from one that is timed to the next, of a route
// and a layer, and from one by which a URL is remembered to the next.
const sampleEvery = 64

// hit answers from a fresh entry, and reports whether it is one to be timed.
func (c *Cache) hit(w http.ResponseWriter, q *request, f found, now time.Time) (sampled bool) {
	return c.countHit(f, c.answerHit(q, f, now).write(w, q.head))
}

// answerHit makes the response of a hit.
func (c *Cache) answerHit(q *request, f found, now time.Time) answer {
	m := f.entry.hitAt(now, f.layer)
	status := m.cacheStatus
	if f.detail != "" {
		status = f.entry.statusLines(hitStatus(f.entry, now, f.detail))
	}
	return c.form(q, f.entry).answer(q, m.age, status)
}

// countHit counts a hit and the bytes of its body, and reports whether it is one to
// be timed. It takes no lock, but for one hit of 64 whose URL has been forgotten
// (uses.keep).
func (c *Cache) countHit(f found, sent int) (sampled bool) {
	u := f.entry.use
	u.route.hitBytes[f.layer].Add(uint64(sent))
	if u.hits.Add(1)%sampleEvery == 0 {
		c.uses.keep(u)
	}
	return u.route.hits[f.layer].Add(1)%sampleEvery == 0
}

// hitStatus is our member of Cache-Status for a hit.
func hitStatus(e *Entry, now time.Time, detail string) string {
	ttl := int64((e.terms.Lifetime - e.age(now)) / time.Second)
	return origin.Pseudonym + "; hit; ttl=" + strconv.FormatInt(ttl, 10) + "; detail=" + detail
}

// send answers with an entry that is not a hit: fetched for another request,
// or stale.
func (c *Cache) send(w http.ResponseWriter, q *request, e *Entry, how forwarded) {
	age := []string{strconv.FormatInt(int64(e.age(time.Now())/time.Second), 10)}
	c.form(q, e).answer(q, age, e.statusLines(how.String())).write(w, q.head)
}

// sendFailure answers that there is no response of the upstream.
func sendFailure(w http.ResponseWriter, f *origin.Failure, how forwarded) {
	how.addTo(w.Header())
	f.Write(w)
}
