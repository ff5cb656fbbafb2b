package cache

import (
	"context"
	"io"
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// waiter is a request that waits for a flight that another one leads.
type waiter struct {
	c       *Cache
	w       http.ResponseWriter
	client  context.Context
	q       *request
	miss    found
	flight  *flight
	arrival uint64 // of the request, as flights.now
}

// result is what came of waiting.
type result uint8

const (
	answered  result = iota
	asksAgain        // together with others whom this flight did not serve
	onItsOwn         // nobody else's answer will do
)

// bodyPatience is how long those who cannot have an answer as it arrives wait
// for its end, once its header is there. For the header they wait as long as the
// upstream may take: a slow query is what must not run twice.
const bodyPatience = time.Second

// await answers the request with what the flight brings, as it arrives if it
// may have that, or else when the flight has landed.
func (wt *waiter) await() result {
	f := wt.flight
	body := newSeat(wt.client, aborter(wt.w))
	wt.c.flights.sit(f, body)
	defer wt.c.flights.leave(f, body)
	if !wt.wait(f.heard, nil) {
		return wt.left()
	}
	if f.arriving != nil && wt.follow(f.arriving, body) {
		return answered
	}
	wt.c.flights.leave(f, body)
	patience := time.NewTimer(bodyPatience)
	defer patience.Stop()
	if !wt.wait(f.done, patience.C) {
		return wt.left()
	}
	select {
	case <-f.done:
		return wt.share(f.outcome)
	default:
		return asksAgain
	}
}

// wait waits until something has happened, or there is no more patience. It
// reports whether the client is still there.
func (wt *waiter) wait(what <-chan struct{}, patience <-chan time.Time) bool {
	wt.c.count.waiting.Add(1)
	defer wt.c.count.waiting.Add(-1)
	select {
	case <-what:
	case <-patience:
	case <-wt.client.Done():
		return false
	}
	return true
}

func (wt *waiter) left() result {
	sendFailure(wt.w, nobody, missed(wt.miss.reason, ""))
	return answered
}

// mayHave reports whether the request may have the flight's answer: the flight
// began after it arrived, or the answer is fresh now.
//
// That is enough also while the answer is still arriving:
//
//  1. A fetch begins: a stamp is read, and then data, some of it before the
//     header is there and some of it after.
//  2. A row changes, and the change is acknowledged.
//  3. A request arrives, and waits for the fetch.
//  4. The header is there. What the answer depends on is compared, and has not
//     moved since the stamp, up to some moment at most max-staleness before 3.
//  5. A row changes, and more data is read.
//
// What was read before 4 is as fresh as a hit would be: a change at 2 that it
// lacks would be seen there, unless it is younger than the bound. What is read
// after 4 was read after the request arrived, and so contains 2 in any case. That
// it may lack what changes after 4, and is stale when the fetch ends, is for
// those to heed who arrive later: each compares for itself.
func (wt *waiter) mayHave(e *Entry) bool {
	return e.matches(wt.q) && e.permits(wt.q) &&
		(wt.flight.beganAfter(wt.arrival) || wt.c.standFor(wt.q, e, time.Now()).fresh)
}

// follow answers the request with an answer that is arriving, if it may have it,
// as it arrives.
func (wt *waiter) follow(a *arriving, body *seat) bool {
	e := a.head()
	if !wt.mayHave(e) || len(wt.q.header["Range"]) > 0 { // a part is cut out of the whole
		return false
	}
	if wt.servesStale(e.status) {
		return true
	}
	age := []string{strconv.FormatInt(int64(e.age(time.Now())/time.Second), 10)}
	answer := e.answer(wt.q, age, e.statusLines(wt.collapsed(e, a.refusal).String()))
	hasBody := answer.status == e.status && !wt.q.head
	if hasBody && body.stream == nil {
		return false // it came when the beginning was gone
	}
	wt.counted()
	answer.write(wt.w, true)
	if hasBody {
		body.copyTo(wt.w)
	}
	return true
}

// share answers the request with the outcome of the flight, if it may have it.
func (wt *waiter) share(o outcome) result {
	switch {
	case o.alone():
		return onItsOwn
	case o.failure != nil:
		wt.counted()
		wt.c.answerFailure(wt.w, wt.q, wt.miss, o.failure, true)
	case !wt.mayHave(o.entry):
		return asksAgain
	case wt.servesStale(o.entry.status):
	default:
		wt.counted()
		wt.c.send(wt.w, wt.q, o.entry, wt.collapsed(o.entry, o.refusal))
	}
	return answered
}

// servesStale answers with what is there instead of an error, if that is
// allowed.
func (wt *waiter) servesStale(status int) bool {
	if !failing(status) || wt.c.fallback(wt.miss, false) == nil {
		return false
	}
	wt.counted()
	wt.c.sendStale(wt.w, wt.q, wt.miss.entry, wt.miss.reason, status)
	return true
}

// collapsed says that the answer is that to another request.
func (wt *waiter) collapsed(e *Entry, refusal string) forwarded {
	how := missed(wt.miss.reason, refusal)
	how.status, how.stored, how.collapsed = e.status, refusal == "", true
	return how
}

func (wt *waiter) counted() {
	wt.c.countMiss(wt.q, wt.miss)
	wt.c.count.coalesced.Add(1)
}

// hasLength sets the length of the body of an answer that is arriving; -1 if it
// is not known.
func (e *Entry) hasLength(length int64) {
	e.fields = slices.DeleteFunc(e.fields, func(f field) bool { return f.name == "Content-Length" })
	if length >= 0 && e.status != http.StatusNoContent {
		e.add("Content-Length", []string{strconv.FormatInt(length, 10)})
	}
}

// copyTo sends the body to the client, all there is at a time, and lets nothing
// lie while there is no more. One that breaks off breaks off the response as
// httputil.ReverseProxy does it, or the client would take it for whole.
func (r *seat) copyTo(w http.ResponseWriter) {
	client := http.NewResponseController(w)
	for {
		data, err := r.take(math.MaxInt)
		switch {
		case len(data) > 0:
			if _, err := w.Write(data); err != nil {
				panic(http.ErrAbortHandler)
			}
		case err == io.EOF:
			return
		case err != nil:
			panic(http.ErrAbortHandler)
		default:
			_ = client.Flush() // an error comes back with the next Write
			r.wait()
		}
	}
}

// aborter returns what ends a write to a client that takes nothing. The response
// is then broken off.
func aborter(w http.ResponseWriter) func() {
	return func() { _ = http.NewResponseController(w).SetWriteDeadline(time.Unix(1, 0)) }
}
