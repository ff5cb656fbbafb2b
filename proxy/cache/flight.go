package cache

import (
	"sync"

	"walcache/proxy/origin"
)

// flights are the fetches that others may wait for, at most one for each key
// at a time.
//
// begun ──► heard ──► landed      its header is there, and its body is, or there
// will be none.
//
// Who waits for one may take its answer if the fetch began after it arrived,
// or if the answer is fresh, when its header is there or when the fetch ends.
// Else it waits for the next one, which began later than it arrived and will
// do. So at most two requests for a key are on their way upstream for however
// many ask, also while what they ask for never stays fresh; more only where
// bodies take longer than bodyPatience.
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
	key    flightKey
	number uint64  // the how manieth to begin; 0 until it has. Guarded by flights.mu
	landed bool    // Guarded by flights.mu
	next   *flight // for those whom this one did not serve. Guarded by flights.mu

	// seats are of those who wait for the header: each will read from the
	// beginning of the body, if it may, however late it is told. Guarded by
	// flights.mu.
	seats    map[*seat]struct{}
	arriving *arriving     // set before heard is closed; nil if it is for nobody else
	heard    chan struct{} // closed when there is something arriving, or an outcome
	outcome  outcome       // set before done is closed
	lease    *lease        // of this fetch among all processes; nil if it has none. Set before it begins
	done     chan struct{} // closed when there is an outcome
}

// arriving is an answer whose header is there.
type arriving struct {
	head    func() *Entry // the entry that it will be, without its body
	refusal string        // why that will not be in the store, or ""
	body    *stream       // from which nobody need read
}

// outcome is what there is for those who waited. It is one of three.
type outcome struct {
	entry   *Entry          // an answer that any request may have that it matches
	refusal string          // why the entry is not in the store, or ""
	failure *origin.Failure // there is none, for anybody
	// Neither: the answer is for one client, or its body is too long to be kept.
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
	if lead = f == nil || f == waited; lead {
		f = &flight{key: key, heard: make(chan struct{}), done: make(chan struct{})}
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

// sit has a reader read what arrives, or will, from its beginning.
func (fs *flights) sit(f *flight, r *seat) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	switch {
	case f.arriving != nil:
		f.arriving.body.join(r)
	case !f.landed:
		if f.seats == nil {
			f.seats = map[*seat]struct{}{}
		}
		f.seats[r] = struct{}{}
	}
}

// leave says that a reader reads no more, if it ever did.
func (fs *flights) leave(f *flight, r *seat) {
	fs.mu.Lock()
	delete(f.seats, r)
	fs.mu.Unlock()
	r.leave()
}

// show gives those who wait the answer as it arrives.
func (fs *flights) show(f *flight, a *arriving) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for r := range f.seats {
		a.body.join(r)
	}
	f.arriving, f.seats = a, nil
	close(f.heard)
}

// end gives those who wait the outcome, and makes way for the next flight. Only
// the first call for a flight counts.
func (fs *flights) end(f *flight, o outcome) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if f.landed {
		return
	}
	f.landed, f.outcome, f.seats = true, o, nil
	if fs.running[f.key] == f {
		delete(fs.running, f.key)
	}
	if f.arriving == nil {
		close(f.heard)
	}
	close(f.done)
	f.lease.landed(o.entry != nil && o.refusal == "")
}

// beganAfter reports whether a flight that has been heard of began after a
// moment. One that never began read nothing then.
func (f *flight) beganAfter(moment uint64) bool { return f.number > moment }
