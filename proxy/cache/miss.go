package cache

import (
	"context"
	"net/http"
	"time"
)

// rounds is how many flights a request waits for. Two are enough, unless what
// it waits for turns out to be a variant for others.
const rounds = 3

// miss answers a request for which there is nothing fresh in the store: from a
// fetch that it leads, one that it waits for, or one of its own.
func (c *Cache) miss(w http.ResponseWriter, r *http.Request, q request, page *Page, miss found) {
	arrival := c.flights.now()
	var waited *flight
	for range rounds {
		if !c.mayWait(&q, page) {
			break
		}
		f, lead := c.flights.join(q.flightKey(page), waited)
		if lead {
			c.lead(w, r, q, miss, f)
			return
		}
		waits := waiter{c: c, w: w, client: r.Context(), q: &q, miss: miss, flight: f, arrival: arrival}
		result := waits.await()
		if result == answered {
			return
		}
		if result == onItsOwn {
			break
		}
		waited = f
		page = c.store.Get(q.key)
	}
	c.countMiss(&q, miss)
	c.fetch(r.Context(), w, r, q, miss, nil)
}

// mayWait reports whether a request may wait for others' answers, and they for
// its own. With credentials it may only where the origin has said that they do
// not matter.
func (c *Cache) mayWait(q *request, page *Page) bool {
	if c.marks.has(q.key) {
		return false
	}
	e := page.match(q)
	return !q.Credentials || e != nil && e.permits(q)
}

// lead makes the fetch that others wait for.
func (c *Cache) lead(w http.ResponseWriter, r *http.Request, q request, miss found, f *flight) {
	// 1. A request finds nothing fresh. 2. The flight that fetches it lands. 3.
	// The request finds no flight, and so leads one: for what is in the store by
	// now.
	again := c.look(&q, c.store.Get(q.key), Memory, time.Now())
	if !again.fresh {
		again = c.elsewhere(&q, f)
	}
	if again.fresh {
		c.flights.end(f, outcome{entry: again.entry})
		c.hit(w, &q, again, time.Now())
		return
	}
	c.countMiss(&q, miss)
	c.fetch(r.Context(), w, r, q, miss, f)
}

// refresh has one request replace what is served stale meanwhile.
func (c *Cache) refresh(r *http.Request, q request, page *Page, stale found) {
	f, lead := c.flights.join(q.flightKey(page), nil)
	if !lead {
		return
	}
	// The client does not wait for it, so to the fetch it has left already. It
	// ends by the upstream's timeout, and by that of a copy.
	gone, leave := context.WithCancel(context.Background())
	leave()
	r = r.Clone(context.Background())
	r.Method, q.head = http.MethodGet, false // the answer to a HEAD has no body to store
	q.header = endToEnd(r.Header)
	go func() {
		if elsewhere := c.elsewhere(&q, f); elsewhere.fresh {
			c.flights.end(f, outcome{entry: elsewhere.entry})
			return
		}
		c.fetch(gone, nowhere{}, r, q, stale, f)
	}()
}

// nowhere is the client of a refresh.
type nowhere struct{}

func (nowhere) Header() http.Header         { return http.Header{} }
func (nowhere) Write(p []byte) (int, error) { return len(p), nil }
func (nowhere) WriteHeader(int)             {}
