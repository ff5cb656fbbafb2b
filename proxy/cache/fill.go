package cache

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
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
	abort  func()      // ends a write to the client that does not end

	// evaluates says that the client's preconditions are kept from the upstream,
	// whose 304 would be of no use to others, and evaluated here. What is for one
	// client only goes to it whole: a 304 would lose its Set-Cookie.
	evaluates bool
	asked     []*Entry // what is stored, and the upstream is asked about
	again     bool     // it is to be asked without
	confirmed *Entry   // the one of them that a 304 selects; nil if there was none

	release  func() // gives back the slot
	began    time.Time
	stamp    coherence.Position
	received time.Time

	response *http.Response
	header   http.Header // of the response, without ours
	said     contract
	targeted []string // see Entry.targeted
	terms    rules.Terms
	how      forwarded
	kept     *seat // of the body, for the client; nil if no copy is kept
}

// Answers other than the upstream's own, as Exchange.Response names them.
var (
	errNobody      = errors.New("the client has left")
	errNotModified = errors.New("the client has this answer")
	errUnconfirmed = errors.New("the upstream confirms what it was not asked about")
	errServeStale  = errors.New("the upstream fails, and there is an older answer")
)

// fetch asks the upstream on behalf of a client. If there is a flight, this
// leads it: whatever happens, it is ended.
func (c *Cache) fetch(client context.Context, w http.ResponseWriter, r *http.Request, q request, miss found, f *flight) {
	// A fetch does not end with its client as long as others may want what it
	// brings.
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	t := &fetch{c: c, q: q, miss: miss, flight: f, client: client, cancel: cancel, abort: aborter(w), release: func() {}}
	stored := c.askable(&q)
	t.evaluates = f != nil || !q.Credentials && (len(stored) > 0 || !c.marks.has(q.key))
	if t.evaluates {
		t.asked = stored
	}
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
	t.ask(w, r.WithContext(ctx))
	if t.again {
		t.asked = nil
		delete(w.Header(), origin.RequestID) // of the first
		t.ask(w, r.WithContext(ctx))
	}
}

func (t *fetch) ask(w http.ResponseWriter, r *http.Request) {
	t.begin()
	// Judged after the stamp was read: what changed before it is seen here, and what
	// changes later makes the answer stale from birth.
	t.asked = slices.DeleteFunc(t.asked, func(e *Entry) bool { return !t.c.canTell(e, time.Now()) })
	t.c.origin.Forward(w, r, t.q.view, &origin.Exchange{
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
	t.q.reduce(h)
	if t.evaluates {
		rules.Condition(h, t.validators())
	}
}

// reduce leaves of what a client accepts the one thing that it likes best.
func (q *request) reduce(h http.Header) {
	h.Set("Accept-Encoding", rules.ReduceEncoding(q.header["Accept-Encoding"]))
	for _, name := range [...]string{"Accept", "Accept-Language"} {
		if len(q.header[name]) > 0 {
			h.Set(name, q.fieldValue(name)) // what it is stored under
		}
	}
}

// answered decides what becomes of the response, when its header has arrived.
func (t *fetch) answered(res *http.Response) error {
	c, status := t.c, res.StatusCode
	t.response, t.received = res, time.Now()
	if status == http.StatusNotModified && len(t.asked) > 0 && !t.confirms(res) {
		return errUnconfirmed
	}
	t.terms = t.termsOf(res)
	if t.terms.Shared {
		c.addVary(res)
	}
	t.targeted = res.Header["Cdn-Cache-Control"]
	t.said = takeContract(res.Header)
	t.header = rules.Storable(res.Header, t.terms.Omit).Clone()
	var p provenance
	refusal := t.terms.Refusal
	if refusal == "" {
		p, refusal = c.prove(t.q.key, t.stamp, t.said)
	}
	t.keepOrRefuse(p, refusal)
	t.how = missed(t.miss.reason, refusal)
	t.how.status, t.how.stored = status, refusal == ""
	t.how.addTo(res.Header)
	switch {
	case t.client.Err() != nil:
		return errNobody
	case failing(status) && c.fallback(t.miss, false) != nil:
		return errServeStale
	case t.evaluates && (t.terms.Shared || refusal == "") && res.StatusCode == http.StatusOK && t.hasAlready():
		return errNotModified
	}
	return nil
}

// keepOrRefuse keeps what is to be stored, or is for others who wait for it.
func (t *fetch) keepOrRefuse(p provenance, refusal string) {
	if refusal == "" && !t.terms.Shared {
		// It is kept for one client after the other, and none of them waits.
		t.c.marks.set(t.q.key)
		t.land(outcome{})
	}
	switch {
	case refusal != "" && (!t.terms.Shared || t.flight == nil):
		if t.confirmed != nil {
			t.c.forbidden(&t.q, t.confirmed, t.terms)
		}
		t.refuse(refusal)
	case t.confirmed != nil:
		t.copied(t.confirmed.body, nil)
		t.release()
	default:
		t.keepCopy(p, refusal)
	}
}

func replyOf(res *http.Response) rules.Reply {
	framed := res.ContentLength >= 0 || len(res.TransferEncoding) > 0
	return rules.Reply{Status: res.StatusCode, Header: res.Header, Length: res.ContentLength, Framed: framed}
}

// termsOf are the terms of the response. What is longer than what is stored may
// all the same be shared with those who wait for it.
func (t *fetch) termsOf(res *http.Response) rules.Terms {
	reply := replyOf(res)
	tooLong := reply.Length > t.c.policy.MaxObject
	if tooLong {
		reply.Length = -1
	}
	terms := t.c.policy.Terms(t.q.Asker, reply, t.began, t.received)
	if tooLong && terms.Refusal == "" {
		terms.Refusal = rules.RefusedTooLarge
	}
	return terms
}

// keepCopy has the body copied on its way to the client and to those who wait.
func (t *fetch) keepCopy(p provenance, refusal string) {
	if t.detach != nil {
		t.detach()
	}
	body := newStream(t.response.Body, t.response.ContentLength, t.c.policy.MaxObject, t.cancel, func(body []byte, err error) {
		t.copied(body, err)
		t.release()
	})
	body.cut = func() { t.c.count.cutOff.Add(1) }
	t.kept = newSeat(t.client, t.abort)
	body.join(t.kept)
	t.response.Body = t.kept
	if t.flight != nil && t.terms.Shared {
		head := sync.OnceValue(func() *Entry { return t.head(p, refusal) }) // if anybody waits
		t.c.flights.show(t.flight, &arriving{head, refusal, body})
	}
}

// head is an entry of the response without its body. What is too long for an
// entry is judged like one, by those who ask while it arrives.
func (t *fetch) head(p provenance, refusal string) *Entry {
	if refusal == rules.RefusedTooLarge {
		p, refusal = t.c.prove(t.q.key, t.stamp, t.said)
	}
	e := t.entry(nil)
	e.hasLength(t.response.ContentLength)
	if refusal == "" {
		e.hasProvenance(p, t.began)
	}
	return e
}

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
	e := t.entry(body)
	refusal := t.terms.Refusal
	if refusal == "" {
		var p provenance
		if p, refusal = c.prove(t.q.key, t.stamp, t.said); refusal == "" {
			e.hasProvenance(p, t.began)
			c.put(t.q.key, e, t.flight.written())
			if t.terms.Shared {
				c.marks.clear(t.q.key)
			}
		}
	}
	if refusal != "" {
		c.count.refused.add(refusal)
	}
	t.land(outcome{entry: e, refusal: refusal})
}

// entry makes one of the response.
func (t *fetch) entry(body []byte) *Entry {
	e := newEntry(t.response.StatusCode, t.header, body, t.terms, t.q.fieldValues(t.terms.Vary), t.received)
	e.targeted = t.targeted
	return e
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
