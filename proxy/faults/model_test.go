package faults

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"
)

// bound is the promise: --max-staleness of the proxies, by default.
const bound = 2 * time.Second

const (
	rows    = 120
	hotRows = 12 // the first ones, which are written far more often
	places  = 12
)

func place(i int) string { return fmt.Sprintf("Zürich, Kreis %d/%d", i, places) }

// state is what a row was from one commit to the next. No two states of a row
// have the same version, but for those in which it is not there, which have 0.
type state struct {
	version  int
	place    string    // "" while there is no row
	began    time.Time // its commit is about to be sent
	acked    time.Time // its commit was seen to succeed; zero if that is not known
	vanished time.Time // a crash was seen to have undone it; zero if none did
}

// outlived reports whether a request sent at that time is too late to be
// answered with the state.
func (s state) outlived(sent time.Time) bool {
	return !s.vanished.IsZero() && s.vanished.Add(bound).Before(sent)
}

// history is what one row has been, in order of its commits.
type history struct {
	writing sync.Mutex // held while a transaction changes the row, so that the order holds

	mu     sync.Mutex // guards the following
	next   int        // version
	states []state
}

// version is one that no state of the row has had.
func (h *history) version() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.next++
	return h.next
}

// begin notes that a commit is about to be sent; the caller holds writing until
// it has ended.
func (h *history) begin(s state) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.states = append(h.states, s)
}

// ack notes that the commit begun last has succeeded.
func (h *history) ack(at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.states[len(h.states)-1].acked = at
}

// claim is what an answer says of a row.
type claim struct {
	id      int
	version int    // 0: the answer does not have the row
	place   string // of a row that it has
	among   string // what it could have the row among: one place, or "" for any
}

func (c claim) fits(s state) bool {
	if c.version == 0 {
		return s.place == "" || c.among != "" && s.place != c.among
	}
	return s.place == c.place && s.version == c.version
}

func (c claim) String() string {
	switch {
	case c.version != 0:
		return fmt.Sprintf("row %d version %d in %q", c.id, c.version, c.place)
	case c.among != "":
		return fmt.Sprintf("row %d not in %q", c.id, c.among)
	}
	return fmt.Sprintf("row %d missing", c.id)
}

// lag is how far an answer is behind one row.
type lag struct {
	age    time.Duration // since what it lacks was acknowledged; 0 if it lacks nothing
	lacks  state         // the first thing that it lacks
	claim  claim
	wrong  bool // what it says of the row was never so, or has been undone by a crash
	latest state
}

func (l lag) broken() bool { return l.wrong || l.age > bound }

// explain says what is wrong, with times since began.
func (l lag) explain(began time.Time) string {
	if l.wrong {
		return fmt.Sprintf("%s was never so, or was undone by a crash; latest is version %d in %q", l.claim, l.latest.version, l.latest.place)
	}
	return fmt.Sprintf("%s lacks version %d in %q, acknowledged at %s, %s before the request",
		l.claim, l.lacks.version, l.lacks.place, since(began, l.lacks.acked), l.age.Round(time.Millisecond))
}

// judge says how far a claim is behind the row, for a request sent and answered
// at those times. It is taken for the newest state that it fits.
func (h *history) judge(c claim, sent, answered time.Time) lag {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, s := range slices.Backward(h.states) {
		if c.fits(s) && s.began.Before(answered) && !s.outlived(sent) {
			return behind(c, h.states[i+1:], sent)
		}
	}
	return lag{claim: c, wrong: true, latest: h.states[len(h.states)-1]}
}

// behind counts from the first that the answer lacks: it has been stale since.
func behind(c claim, later []state, sent time.Time) lag {
	for _, s := range later {
		if s.vanished.IsZero() && !s.acked.IsZero() && s.acked.Before(sent) {
			return lag{age: sent.Sub(s.acked), lacks: s, claim: c}
		}
	}
	return lag{claim: c}
}

// model is the history of the database, as far as clients of it can know.
type model struct {
	crash sync.RWMutex // held by whoever writes, and for writing while what a crash undid is looked for
	rows  [rows + 1]history
}

// judge returns the worst of what an answer claims.
func (m *model) judge(claims []claim, sent, answered time.Time) lag {
	var worst lag
	for _, c := range claims {
		l := m.rows[c.id].judge(c, sent, answered)
		if l.wrong {
			return l
		}
		if l.age >= worst.age {
			worst = l
		}
	}
	return worst
}

// begin makes what the database has the only state of each row.
func (m *model) begin(found []claim) {
	now := time.Now()
	for _, c := range found {
		h := &m.rows[c.id]
		h.mu.Lock()
		h.states = []state{{version: c.version, place: c.place, began: now, acked: now}}
		h.next = max(h.next, c.version)
		h.mu.Unlock()
	}
}

// crashed notes what a crash has undone: all that came after what the database
// still has. Nobody writes meanwhile.
func (m *model) crashed(found []claim) (undone int) {
	now := time.Now()
	for _, c := range found {
		h := &m.rows[c.id]
		h.mu.Lock()
		for i, s := range slices.Backward(h.states) {
			if c.fits(s) {
				break
			}
			h.states[i].vanished = now
			if !s.acked.IsZero() {
				undone++
			}
		}
		h.mu.Unlock()
	}
	return undone
}

// check wants the database to have every commit that it acknowledged, and none
// that was never sent. If it fails it is the database or this model that is
// wrong, and no cache. Nobody writes meanwhile.
func (m *model) check(found []claim, began time.Time) error {
	now := time.Now()
	for _, c := range found {
		if l := m.rows[c.id].judge(c, now, now); l.wrong || l.age > 0 {
			return fmt.Errorf("the database: %s", l.explain(began))
		}
	}
	return nil
}

// lastAck is when the last commit was acknowledged.
func (m *model) lastAck() (last time.Time) {
	for i := range m.rows[1:] {
		h := &m.rows[i+1]
		h.mu.Lock()
		for _, s := range h.states {
			if s.acked.After(last) {
				last = s.acked
			}
		}
		h.mu.Unlock()
	}
	return last
}

// since is a time of the schedule, from its beginning.
func since(began, t time.Time) time.Duration { return t.Sub(began).Round(time.Millisecond) }

// middle is the median, and the zero value of nothing.
func middle[T cmp.Ordered](of []T) (median T) {
	if len(of) == 0 {
		return median
	}
	sorted := slices.Sorted(slices.Values(of))
	return sorted[(len(sorted)-1)/2]
}

// most is the largest, and the zero value of nothing.
func most[T cmp.Ordered](of []T) (largest T) {
	if len(of) == 0 {
		return largest
	}
	return slices.Max(of)
}
