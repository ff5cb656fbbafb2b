package cache

import (
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
	body             []byte
}

// answer makes the response to a request, a 304 if the client has it already
// (RFC 9110, section 13.2.1: only in place of a success).
func (e *Entry) answer(h http.Header, age, cacheStatus []string) answer {
	if e.status == http.StatusOK && rules.NotModified(h, e.etag, e.lastModified) {
		return answer{http.StatusNotModified, e.notModified, age, cacheStatus, nil}
	}
	return answer{e.status, e.fields, age, cacheStatus, e.body}
}

// write sends an answer through net/http.
func (a answer) write(w http.ResponseWriter, head bool) (sent int) {
	h := w.Header()
	for _, f := range a.fields {
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

// hit answers from a fresh entry, and reports whether it is one to be timed. It
// takes no lock, but for one hit of 64 whose URL has been forgotten (uses.keep).
func (c *Cache) hit(w http.ResponseWriter, q *request, f found, now time.Time) (sampled bool) {
	m := f.entry.hitAt(now, f.layer)
	status := m.cacheStatus
	if q.wantsProof() {
		status = f.entry.statusLines(hitStatus(f.entry, now, "proven"))
	}
	sent := f.entry.answer(q.header, m.age, status).write(w, q.head)
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
	e.answer(q.header, age, e.statusLines(how.String())).write(w, q.head)
}

// sendFailure answers that there is no response of the upstream.
func sendFailure(w http.ResponseWriter, f *origin.Failure, how forwarded) {
	how.addTo(w.Header())
	f.Write(w)
}
