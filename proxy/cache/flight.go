package cache

import (
	"sync"

	"walcache/proxy/origin"
)

// flights are the fetches that others may wait for, at most one for each key
// at a time.
//
// Who waits for one may take its answer if the fetch began after it arrived,
// or if the answer is fresh when the fetch ends. Else it waits for the next
// one, which began later than it arrived and will do. So at most two requests
// for a key are on their way upstream for however many ask, also while what
// they ask for never stays fresh.
type flights struct {
	mu      sync.Mutex // guards the following, and what flight says
	running map[flightKey]*flight
	begun   uint64 // how many have begun
}

// flightKey names the requests that one fetch can answer.
type flightKey struct {
	page    Key
	variant string
}

// flight is one such fetch.
type flight struct {
	key     flightKey
	number  uint64        // the how manieth to begin; 0 until it has. Guarded by flights.mu
	landed  bool          // Guarded by flights.mu
	next    *flight       // for those whom this one did not serve. Guarded by flights.mu
	outcome outcome       // set before done is closed
	done    chan struct{} // closed when there is an outcome
}

// outcome is what there is for those who waited. It is one of three.
type outcome struct {
	entry   *Entry          // an answer that any request may have that it matches
	refusal string          // why the entry is not in the store, or ""
	failure *origin.Failure // there is none, for anybody
	// Neither: the answer is for one client, too long, or too slow to wait for.
}

func newFlights() *flights { return &flights{running: map[flightKey]*flight{}} }

// alone reports whether everybody has to ask for themselves.
func (o outcome) alone() bool { return o.entry == nil && o.failure == nil }

// now is a moment in the order of beginnings: a flight whose number is above it
// begins after it.
func (fs *flights) now() uint64 {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.begun
}

// join returns the running flight for a key, or a new one that the caller has
// to lead. All who have waited for one in vain get the same next one, also who
// is so late to join it that it has landed.
func (fs *flights) join(key flightKey, waited *flight) (f *flight, lead bool) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if waited != nil && waited.next != nil && waited.next.key == key {
		return waited.next, false
	}
	f = fs.running[key]
	if lead = f == nil; lead {
		f = &flight{key: key, done: make(chan struct{})}
		fs.running[key] = f
	}
	if waited != nil {
		waited.next = f
	}
	return f, lead
}

// begin says that from here on data is read.
func (fs *flights) begin(f *flight) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.begun++
	f.number = fs.begun
}

// end gives those who wait the outcome, and makes way for the next flight. Only
// the first call for a flight counts.
func (fs *flights) end(f *flight, o outcome) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if f.landed {
		return
	}
	f.landed, f.outcome = true, o
	delete(fs.running, f.key)
	close(f.done)
}

// beganAfter reports whether a flight that has landed began after a moment. One
// that never began read nothing then.
func (f *flight) beganAfter(moment uint64) bool { return f.number > moment }
