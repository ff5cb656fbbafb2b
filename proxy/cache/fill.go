package cache

import (
	"context"
	"errors"
	"net/http"
	"time"

	"walcache/proxy/coherence"
	"walcache/proxy/origin"
	"walcache/proxy/rules"
)

// fetch is one request to the upstream whose answer goes to a client as it
// arrives, and may be stored and shared.
type fetch struct {
	c      *Cache
	q      request
	miss   found           // why it is made, and what may be served if it fails
	flight *flight         // those who wait for it; nil if nobody may
	client context.Context // ends when the client leaves
	cancel context.CancelFunc
	detach func() bool // ends what cancels the fetch when the client leaves

	// evaluates says that the client's preconditions are kept from the upstream,
	// whose 304 would be of no use to others, and evaluated here. What is for one
	// client only goes to it whole: a 304 would lose its Set-Cookie.
	evaluates bool

	release  func() // gives back the slot
	began    time.Time
	stamp    coherence.Position
	received time.Time

	response *http.Response
	header   http.Header // of the response, without ours
	said     contract
	terms    rules.Terms
	how      forwarded
	kept     *copiedBody // nil if no copy is kept
}

// Answers other than the upstream's own, as Exchange.Response names them.
var (
	errNobody      = errors.New("the client has left")
	errNotModified = errors.New("the client has this answer")
	errServeStale  = errors.New("the upstream fails, and there is an older answer")
)

// fetch asks the upstream on behalf of a client. If there is a flight, this
// leads it: whatever happens, it is ended.
func (c *Cache) fetch(client context.Context, w http.ResponseWriter, r *http.Request, q request, miss found, f *flight) {
	// A fetch does not end with its client as long as others may want what it
	// brings.
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	t := &fetch{c: c, q: q, miss: miss, flight: f, client: client, cancel: cancel, release: func() {}}
	t.evaluates = f != nil || !q.Credentials && !c.marks.has(q.key)
	defer t.leave()
	queue := ctx
	if f == nil {
		t.detach = context.AfterFunc(client, cancel)
		defer t.detach()
		queue = client
	}
	release, err := c.fetches.acquire(queue)
	if err != nil {
		t.failed(w, err)
		return
	}
	t.release = release
	t.begin()
	c.origin.Forward(w, r.WithContext(ctx), q.view, &origin.Exchange{
		Request:  t.alter,
		Response: t.answered,
		Failed:   t.failed,
	})
}

// begin reads the stamp, before the request goes upstream.
//
//  1. A fill reads a row.
//  2. The row changes, and its tag moves to a position.
//  3. The fill is stored, with the old row, as of a position read now: later
//     than the tag's, and so fresh by comparison, for ever.
//
// As of a position read before 1, the tag's is later, and the answer is stale
// from birth. That the position is one of commits that every new snapshot sees
// is the other half; see coherence.Tracker.Stamp.
func (t *fetch) begin() {
	if t.flight != nil {
		t.c.flights.begin(t.flight)
	}
	t.began = time.Now()
	t.stamp = t.c.truth.Stamp()
}

// alter makes the request one whose answer is good for others too.
func (t *fetch) alter(h http.Header) {
	t.c.require(h)
	h.Set("Accept-Encoding", rules.ReduceEncoding(t.q.header["Accept-Encoding"]))
	if reduced := rules.ReduceAccept(t.q.header["Accept"], t.q.mediaTypes); reduced != "" {
		h.Set("Accept", reduced)
	}
	if t.evaluates {
		h.Del("If-None-Match")
		h.Del("If-Modified-Since")
	}
}

// answered decides what becomes of the response, when its header has arrived.
func (t *fetch) answered(res *http.Response) error {
	c := t.c
	t.response, t.received = res, time.Now()
	t.terms = c.policy.Terms(t.q.Asker, replyOf(res), t.began, t.received)
	t.said = takeContract(res.Header)
	t.header = res.Header.Clone()
	refusal := t.terms.Refusal
	if refusal == "" {
		_, refusal = c.prove(t.q.key, t.stamp, t.said)
	}
	if t.terms.Shared && (refusal == "" || t.flight != nil) {
		t.keepCopy()
	} else {
		t.refuse(refusal)
	}
	t.how = missed(t.miss.reason, refusal)
	t.how.status, t.how.stored = res.StatusCode, refusal == ""
	t.how.addTo(res.Header)
	switch {
	case t.client.Err() != nil:
		return errNobody
	case failing(res.StatusCode) && c.fallback(t.miss) != nil:
		return errServeStale
	case t.evaluates && t.terms.Shared && res.StatusCode == http.StatusOK && t.hasAlready():
		return errNotModified
	}
	return nil
}

func replyOf(res *http.Response) rules.Reply {
	framed := res.ContentLength >= 0 || len(res.TransferEncoding) > 0
	return rules.Reply{Status: res.StatusCode, Header: res.Header, Length: res.ContentLength, Framed: framed}
}

// keepCopy has the body copied on its way to the client. Waiters get what is
// left of their patience for it.
func (t *fetch) keepCopy() {
	if t.detach != nil {
		t.detach()
	}
	impatience := time.AfterFunc(bodyPatience, func() { t.land(outcome{}) }) // no harm if nobody waits
	t.kept = newCopiedBody(t.response.Body, t.response.ContentLength, t.c.policy.MaxObject, t.cancel, func(body []byte, err error) {
		impatience.Stop()
		t.copied(body, err)
		t.release()
	})
	t.response.Body = t.kept
	context.AfterFunc(t.client, t.kept.abandon)
}

// bodyPatience is how long those who wait for an answer wait for its body, once
// they could have had its header themselves. For the header they wait as long
// as the upstream may take: a slow query is what must not run twice.
const bodyPatience = time.Second

// refuse lets go of an answer that is for one client only, or too long.
func (t *fetch) refuse(reason string) {
	t.c.count.refused.add(reason)
	// Nothing follows from an error, a 304 that a client asked for, or what a
	// user gets, for the requests of others.
	status := t.response.StatusCode
	if !t.terms.Shared && status < 500 && status != http.StatusNotModified && (t.flight != nil || !t.q.Credentials) {
		t.c.marks.set(t.q.key)
	}
	t.land(outcome{})
	t.release()
	context.AfterFunc(t.client, t.cancel)
}

// copied takes the copy of the body, or the reason why there is none.
func (t *fetch) copied(body []byte, err error) {
	c := t.c
	if errors.Is(err, errTooLong) {
		c.count.refused.add(rules.RefusedTooLarge)
		c.marks.set(t.q.key)
		t.land(outcome{})
		return
	}
	if err != nil {
		c.count.refused.add(refusedBroken)
		t.land(outcome{failure: &origin.Failure{Status: http.StatusBadGateway, Err: err}})
		return
	}
	e := newEntry(t.response.StatusCode, t.header, body, t.terms, t.q.fieldValues(t.terms.Vary), t.received)
	refusal := t.terms.Refusal
	if refusal == "" {
		var p provenance
		if p, refusal = c.prove(t.q.key, t.stamp, t.said); refusal == "" {
			e.hasProvenance(p, t.began)
			c.put(t.q.key, e)
			c.marks.clear(t.q.key)
		}
	}
	if refusal != "" {
		c.count.refused.add(refusal)
	}
	t.land(outcome{entry: e, refusal: refusal})
}

// land ends the flight, if there is one.
func (t *fetch) land(o outcome) {
	if t.flight != nil {
		t.c.flights.end(t.flight, o)
	}
}

// leave is called when the client has been answered, or the answering panicked.
func (t *fetch) leave() {
	if t.kept != nil {
		_ = t.kept.Close() // the copy goes on without the client
		return
	}
	t.land(outcome{})
	t.release()
	t.cancel()
}
