package cache

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"walcache/proxy/coherence"
	"walcache/proxy/origin"
	"walcache/proxy/rules"
)

// What is stored is confirmed by the upstream where that knows validators (RFC
// 9111, section 4.3): an answer that expired or changed need not be sent again
// if it turns out to be what the upstream would send.
//
//	fetch ──► which of these? ──► 304: this one ──► its body, with the 304's header
//	      ▲        (askable)  │        (confirmed)       stored as of this fetch
//	      └── 304: another ◄──┼
//	        (once, without)   └► anything else is an answer like any other
//
// Invariant: a 304 vouches for the answer to its own request, as of the stamp
// that was read before that was sent, and for nothing else. So what is made of
// it is a new entry with the provenance of a fetch; what was stored, with its
// own position, does not become fresh by it, and neither do other variants with
// the same entity tag, whose data may have changed apart. Kept by fetch.copied;
// see TestValidate_RacingWithAChangeIsBornStale and
// TestValidate_FreshensNoOtherVariant.

// askable are the stored answers that the upstream can be asked about on behalf
// of a request, the newest first: those that the client may have, and can read if
// they are not what it would be answered from anyway. A 304 speaks of a 200 (RFC
// 9110, section 15.4.5).
//
// Of a variant for others only a strong entity tag counts, which no two variants
// have (RFC 9110, section 8.8.1):
//
//  1. A page is stored for one tenant, with a Last-Modified. 2. Another tenant
//     asks, and the upstream is asked for what was modified since. 3. The page of
//     the second was not, says the 304, and the second gets that of the first.
func (c *Cache) askable(q *request) []*Entry {
	page := c.store.Get(q.key)
	if page == nil {
		return nil
	}
	coding := rules.ReduceEncoding(q.header["Accept-Encoding"])
	return slices.DeleteFunc(slices.Clone(page.entries), func(e *Entry) bool {
		if e.status != http.StatusOK || !e.permits(q) || !e.validators.Any() {
			return true
		}
		encoded, etag := e.value("Content-Encoding"), e.validators.ETag
		readable := encoded == "" || encoded == coding
		tells := etag != "" && !strings.HasPrefix(etag, "W/")
		return !e.matches(q) && !(readable && tells && !c.isPersonal(e.terms.Vary))
	})
}

// isPersonal reports whether answers that vary by some fields are for one user
// each. A service that counts versions may have one entity tag for all of them,
// against the rules.
func (c *Cache) isPersonal(vary []string) bool {
	return slices.ContainsFunc(vary, func(name string) bool {
		return name == "Cookie" || name == "Authorization" || slices.Contains(c.privateHeaders, name)
	})
}

// canTell reports whether an answer's validator tells it from all later ones. A
// date of modification counts in seconds:
//
//  1. A row changes, and a second time within the same second. 2. What is stored
//     was read in between, and has that second for its Last-Modified. 3. The
//     upstream is asked for what was modified since, and says that nothing was.
//
// So where something may have changed, the date counts only if it was long over
// when the answer was made (RFC 9110, section 8.8.2.2, which is content with one
// second; but an answer may be dated a while after its data was read).
func (c *Cache) canTell(e *Entry, now time.Time) bool {
	const while = time.Minute
	v := e.validators
	switch {
	case v.ETag != "":
		return true
	case v.LastModified.IsZero():
		return false
	}
	return v.Date.Sub(v.LastModified) >= while || c.truth.Judge(e.asOf, e.deps, now) == coherence.Fresh
}

// validators are those of what is asked about.
func (t *fetch) validators() []rules.Validators {
	all := make([]rules.Validators, len(t.asked))
	for i, e := range t.asked {
		all[i] = e.validators
		if !e.matches(&t.q) {
			all[i].LastModified = time.Time{}
		}
	}
	return all
}

// confirms makes a 304 the answer that it stands for: the stored one, with the
// header that it has from now on. It reports whether there is one.
//
// 1. The upstream compares entity tags, and they are alike. 2. A row changes. 3.
// The 304 arrives, and what is stored would be fresh as of now. It is as of the
// stamp from before 1 (fetch.begin), and so stale from birth.
func (t *fetch) confirms(res *http.Response) bool {
	selected := rules.Selected(res.Header, t.validators())
	if len(selected) == 0 {
		return false
	}
	t.confirmed = t.likest(selected)
	_ = res.Body.Close() // of a 304 there is none
	e := t.confirmed
	res.Header = rules.Freshen(e.header(), res.Header)
	res.StatusCode, res.ContentLength = e.status, int64(len(e.body))
	res.Body = io.NopCloser(bytes.NewReader(e.body))
	return true
}

// likest is, of several that are alike, the one that the client would be answered
// from.
func (t *fetch) likest(selected []int) *Entry {
	for _, i := range selected {
		if e := t.asked[i]; e.matches(&t.q) {
			return e
		}
	}
	return t.asked[selected[0]]
}

// header is the stored header as it came, for another answer to freshen. What the
// origin said to caches alone is in it, and stays said unless it is said anew;
// what it said of the data (takeContract) is not, and counts only as said anew.
func (e *Entry) header() http.Header {
	h := make(http.Header, len(e.fields)+1)
	for _, f := range e.fields {
		h[f.name] = f.values
	}
	delete(h, "Vary") // to which ours may have been added
	if len(e.terms.Vary) > 0 {
		h["Vary"] = e.terms.Vary
	}
	if len(e.targeted) > 0 {
		h["Cdn-Cache-Control"] = e.targeted
	}
	return h
}

// forbidden removes a stored answer, if the terms of the one that confirmed it
// let nobody keep it any more.
func (c *Cache) forbidden(q *request, e *Entry, t rules.Terms) {
	if t.Refusal == rules.RefusedNoStore || t.Refusal == rules.RefusedPrivate {
		c.replace(q.key, e, nil)
	}
}

// replace puts an entry in the place of another, or none if it is nil, unless
// that is not stored any more.
func (c *Cache) replace(key Key, old, e *Entry) {
	mu := c.lock(key)
	mu.Lock()
	defer mu.Unlock()
	page := c.store.Get(key)
	if page == nil || !slices.Contains(page.entries, old) {
		return
	}
	rest := slices.DeleteFunc(slices.Clone(page.entries), func(o *Entry) bool { return o == old })
	if e != nil {
		c.adopt(key, e)
		e.inherit(old)
		rest = slices.Insert(rest, 0, e)
	}
	switch {
	case len(rest) > 0:
		page = newPage(rest, c.tolerance)
		c.store.Set(key, page)
		c.offer(key, page, nil)
	default:
		c.store.Delete(key)
		if c.below != nil {
			c.below.Delete(key)
		}
	}
}

// head forwards a HEAD, and learns from the answer how the answer to GET stands
// that is stored.
func (c *Cache) head(w http.ResponseWriter, r *http.Request, q request, miss found) {
	how := missed(miss.reason, "head")
	release, err := c.fetches.acquire(r.Context())
	if err != nil {
		c.passFailed(w, err, how)
		return
	}
	defer release()
	began := time.Now()
	c.origin.Forward(w, r, q.view, &origin.Exchange{
		Request: func(h http.Header) {
			c.require(h)
			q.reduce(h)
		},
		Response: func(res *http.Response) error {
			release()
			if miss.entry != nil && res.StatusCode == http.StatusOK {
				c.learn(&q, miss.entry, res.Header, began)
			}
			takeContract(res.Header)
			how.status = res.StatusCode
			how.addTo(res.Header)
			return nil
		},
		Failed: func(w http.ResponseWriter, err error) {
			var f *origin.Failure
			if errors.As(err, &f) {
				c.count.failed.Add(1)
				c.answerFailure(w, &q, miss, f, false)
			}
		},
	})
}

// learn takes note of the header that a GET would have had now (RFC 9111, section
// 4.3.5).
//
// Invariant: a HEAD makes nothing fresh that changed. It may have been answered
// from less than a GET is, so what it confirms lives on, by time, and stays as
// of the position that it had. See TestHead_MakesNothingFreshThatChanged.
func (c *Cache) learn(q *request, e *Entry, h http.Header, began time.Time) {
	stored := e.header()
	if e.status != http.StatusOK || !rules.SameRepresentation(h, stored) {
		c.replace(q.key, e, nil)
		return
	}
	received := time.Now()
	if !c.canTell(e, received) {
		return // and its Date may not move away from its Last-Modified
	}
	h = rules.Freshen(stored, h)
	terms := c.policy.Terms(q.Asker, rules.Reply{Status: e.status, Header: h, Length: int64(len(e.body)), Framed: true}, began, received)
	if terms.Refusal != "" {
		c.forbidden(q, e, terms)
		return
	}
	targeted := h["Cdn-Cache-Control"]
	takeContract(h)
	confirmed := newEntry(e.status, rules.Storable(h, terms.Omit), e.body, terms, q.fieldValues(terms.Vary), received)
	confirmed.asOf, confirmed.deps, confirmed.tags, confirmed.whole = e.asOf, e.deps, e.tags, e.whole
	confirmed.readAt, confirmed.targeted = e.readAt, targeted
	c.replace(q.key, e, confirmed)
}
