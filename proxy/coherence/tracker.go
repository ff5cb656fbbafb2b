package coherence

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// DefaultSlots is the size of a tracker: 32 MiB, and 4 MiB for pages and groups.
const DefaultSlots = 1 << 22

// namedSlots is how many slots a tracker has for pages and groups, beside so many.
func namedSlots(slots int) int { return max(slots/8, 1) }

// Tracker is a process's picture of what last changed when. It has a fixed
// size: a table of LSNs indexed by hash, so that a collision can only make
// something stale too early. An unchanged answer of k dependencies loses half
// its kind every 0.69 · slots / (k · tags moved per second).
//
// All methods may be called concurrently; Judge and Stamp take no lock.
type Tracker struct {
	maxStaleness time.Duration
	slots        int
	catalog      atomic.Pointer[Catalog]
	epoch        atomic.Pointer[epoch] // nil until the first Begin
	rows         sync.Map              // table name → *atomic.Uint64, rows changed
	watchers     watchers
}

// epoch is what is known within one unbroken run of the change stream.
//
// Invariant: visible <= known, and every change at or before known is in slots.
// Known decides what is stale; visible is what a fill is stamped with, because
// PostgreSQL sends a commit to a logical-replication client before other
// sessions can see it. Kept by Apply, which raises slots, known, visible in
// that order; see TestTracker_BumpsBeforeItKnows.
type epoch struct {
	name    string
	slots   []atomic.Uint64 // those of tags and floors, and then those of pages and groups
	named   int             // where the latter begin
	used    atomic.Int64
	known   atomic.Uint64
	visible atomic.Uint64
	fresh   atomic.Pointer[time.Time] // every commit acknowledged before it is in slots
}

// NewTracker makes a tracker that calls nothing fresh yet. slots is a power of
// two; evidence older than maxStaleness proves nothing.
func NewTracker(slots int, maxStaleness time.Duration) *Tracker {
	if slots <= 0 || slots&(slots-1) != 0 {
		panic(fmt.Sprintf("coherence: %d slots: not a power of two", slots))
	}
	return &Tracker{maxStaleness: maxStaleness, slots: slots}
}

// Begin starts an epoch: everything stored before it is stale. Whoever begins
// it vouches that every change after at will be applied.
func (t *Tracker) Begin(name string, at LSN) {
	e := t.newEpoch(name)
	e.known.Store(uint64(at))
	t.epoch.Store(e)
}

func (t *Tracker) newEpoch(name string) *epoch {
	return &epoch{name: name, slots: make([]atomic.Uint64, t.slots+namedSlots(t.slots)), named: t.slots}
}

// Epoch is the name of the current epoch, or "" before the first.
func (t *Tracker) Epoch() string {
	if e := t.epoch.Load(); e != nil {
		return e.name
	}
	return ""
}

// Checkpoint is all that the tracker knows of its epoch. It may be called while
// records are applied: visible and known are read before the slots, so that
// every change up to them is in it.
func (t *Tracker) Checkpoint() Checkpoint {
	e := t.epoch.Load()
	if e == nil {
		return Checkpoint{Slots: t.slots, Changes: func(func(Change) bool) {}}
	}
	return Checkpoint{
		Epoch: e.name, Slots: t.slots,
		Visible: LSN(e.visible.Load()), Known: LSN(e.known.Load()),
		Changes: func(yield func(Change) bool) {
			for i := range e.slots {
				if at := LSN(e.slots[i].Load()); at != 0 && !yield(Change{Hash: Hash(i), At: at}) {
					return
				}
			}
		},
	}
}

// Load takes a checkpoint. One of another epoch begins it: everything stored
// before is stale. It vouches for nothing; a beat does.
func (t *Tracker) Load(c Checkpoint) {
	e := t.epoch.Load()
	begins := e == nil || e.name != c.Epoch
	if begins {
		e = t.newEpoch(c.Epoch)
	}
	for change := range c.Changes {
		if change.Hash < Hash(c.Slots+namedSlots(c.Slots)) {
			e.raiseAll(change, c.Slots)
		}
	}
	raise(&e.known, uint64(c.Known))
	raise(&e.visible, uint64(c.Visible))
	if begins { // all of it, before anything is judged by it
		t.epoch.Store(e)
	}
}

// Apply takes a record of the current epoch; one of another epoch says nothing
// here. It returns ErrGap, and vouches for nothing until the next beat or
// epoch, if the record begins after what is known.
func (t *Tracker) Apply(r Record) error {
	e := t.epoch.Load()
	if e == nil || r.Epoch != e.name {
		return nil
	}
	if r.From > LSN(e.known.Load()) {
		e.fresh.Store(nil)
		return fmt.Errorf("%w: known up to %s, next record begins at %s", ErrGap, LSN(e.known.Load()), r.From)
	}
	for _, c := range r.Changes {
		e.raise(c)
	}
	known := raise(&e.known, uint64(r.To))
	raise(&e.visible, uint64(r.Visible))
	for _, c := range r.Tables {
		t.count(c)
	}
	t.watchers.tell(&r, LSN(known))
	return nil
}

// Beat says that every commit acknowledged before m, by this process's clock,
// is at or below known. It may come by two ways: the later m counts.
func (t *Tracker) Beat(name string, m time.Time) {
	e := t.epoch.Load()
	if e == nil || e.name != name {
		return
	}
	for {
		was := e.fresh.Load()
		if was != nil && !was.Before(m) || e.fresh.CompareAndSwap(was, &m) {
			return
		}
	}
}

// Wait returns once everything up to lsn is known. It asks again and again,
// which costs nothing on the way of a record.
func (t *Tracker) Wait(ctx context.Context, lsn LSN) error {
	const every = 200 * time.Microsecond
	for {
		if e := t.epoch.Load(); e != nil && LSN(e.known.Load()) >= lsn {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(every):
		}
	}
}

// Outdate makes stale, in this process alone, what depends on one of these hashes
// and is as of now or before: whoever asks for it next gets what it has become. It
// is for what somebody has said to have changed and that the change stream has yet
// to say, with the position that all processes go by.
//
// That position is not known, but it will be past all that is known now, and what
// was read before the call is as of no later than that (see Stamp). So the hashes
// move to just past it. Data of a source that is ahead of this process is left to
// the change stream.
func (t *Tracker) Outdate(hashes ...Hash) {
	e := t.epoch.Load()
	if e == nil {
		return // nothing is fresh here, and nothing can be stored
	}
	at := LSN(e.known.Load()) + 1
	for _, h := range hashes {
		e.raise(Change{h, at})
	}
}

// SetCatalog replaces what the tracker takes for published.
func (t *Tracker) SetCatalog(c *Catalog) { t.catalog.Store(c) }

// Catalog is what SetCatalog was last given, or nil.
func (t *Tracker) Catalog() *Catalog { return t.catalog.Load() }

// Stamp is the position that a fetch beginning now may be stamped with: data
// read from here on reflects every commit up to it. It is the zero Position as
// long as nothing is known.
//
// Why visible, and why before: 1. A row changes; its commit is decoded and its
// tag moves to L. 2. A fill begins, and its snapshot still sees the old row.
// 3. The fill is stored as of known, which is L: stale for ever, and fresh by
// comparison. As of visible, which is before L, it is stale from birth.
func (t *Tracker) Stamp() Position {
	e := t.epoch.Load()
	if e == nil || e.visible.Load() == 0 {
		return Position{}
	}
	return Position{Epoch: e.name, LSN: LSN(e.visible.Load())}
}

// Known is the position up to which every change is in the tracker, or the zero
// Position.
func (t *Tracker) Known() Position {
	e := t.epoch.Load()
	if e == nil || e.known.Load() == 0 {
		return Position{}
	}
	return Position{Epoch: e.name, LSN: LSN(e.known.Load())}
}

// AsOfRequest is the As-Of-LSN of data that was read from the database after the
// request for it had come: as of then, whenever that was.
const AsOfRequest = "request"

// AsOf is the position of data that its source states to be as of stated (the
// text of an As-Of-LSN header, "" without one), and whose fetch began at stamp.
// valid reports that the source speaks this language, so that the tags it names
// are all there are. A statement later than what is known is not compared with
// anything yet, and the stamp stands. One of another epoch, or that does not
// parse, makes the position unknown, the zero Position: the source has data of
// its own, from before a gap perhaps, and the stamp says nothing of that.
func (t *Tracker) AsOf(stamp Position, stated string) (asOf Position, valid bool) {
	switch stated {
	case "":
		return stamp, false
	case AsOfRequest:
		return stamp, stamp != Position{}
	}
	p, err := ParsePosition(stated)
	e := t.epoch.Load()
	switch {
	case err != nil || e == nil || p.Epoch != e.name || p.Epoch != stamp.Epoch:
		return Position{}, false
	case p.LSN > LSN(e.known.Load()):
		return stamp, true
	}
	return p, true
}

// Verdict is what can be said of a stored answer.
type Verdict uint8

const (
	// Fresh answers contain every commit that was acknowledged more than
	// max-staleness before the question.
	Fresh Verdict = iota
	// Changed answers depend on something that changed since.
	Changed
	// OtherEpoch answers are of an earlier run of the change stream.
	OtherEpoch
	// Unproven answers may be fresh, but the evidence is too old to say so.
	Unproven
)

func (v Verdict) String() string {
	return [...]string{"fresh", "changed", "epoch", "unproven"}[v]
}

// Judge compares an answer's position with what its dependencies have become.
//
// Freshness is read before the slots: 1. Judge finds the slots unchanged.
// 2. A commit moves one, and a beat vouches for it. 3. Judge reads that beat,
// and calls fresh what it compared before. Read first, the beat vouches only
// for changes that are in the slots already.
func (t *Tracker) Judge(asOf Position, deps Dependencies, now time.Time) Verdict {
	e := t.epoch.Load()
	if e == nil {
		return Unproven
	}
	if asOf.Epoch != e.name {
		return OtherEpoch
	}
	m := e.fresh.Load()
	for _, d := range deps {
		if LSN(e.slot(d).Load()) > asOf.LSN {
			return Changed
		}
	}
	if m == nil || since(*m, now) > t.maxStaleness {
		return Unproven
	}
	return Fresh
}

// Cause names a table whose change made an answer with these tags stale, or ""
// where it cannot be told. whole answers depended on the whole database.
func (t *Tracker) Cause(asOf Position, tags []Tag, whole bool) string {
	e, c := t.epoch.Load(), t.catalog.Load()
	if e == nil || c == nil || asOf.Epoch != e.name {
		return ""
	}
	if !whole {
		for _, tag := range tags {
			if e.movedAt(tag.Table()) > asOf.LSN {
				return string(tag.Table())
			}
		}
		return ""
	}
	last := e.movedAt(Any)
	for name := range c.Tables {
		if e.movedAt(TableTag(name)) == last && last > asOf.LSN {
			return name
		}
	}
	return ""
}

// Progress is a tracker's state, for people.
type Progress struct {
	Epoch          string
	Known, Visible LSN
	FreshAge       time.Duration // since "fresh as of"; negative if there is no evidence
	Slots, Used    int
	Rows           map[string]uint64 // rows changed, by table
}

// Progress reports where the tracker stands.
func (t *Tracker) Progress(now time.Time) Progress {
	p := Progress{FreshAge: -1, Slots: t.slots, Rows: map[string]uint64{}}
	t.rows.Range(func(table, n any) bool {
		p.Rows[table.(string)] = n.(*atomic.Uint64).Load()
		return true
	})
	e := t.epoch.Load()
	if e == nil {
		return p
	}
	if m := e.fresh.Load(); m != nil {
		p.FreshAge = since(*m, now)
	}
	p.Epoch, p.Used = e.name, int(e.used.Load())
	p.Visible, p.Known = LSN(e.visible.Load()), LSN(e.known.Load())
	return p
}

// Vouches reports whether the evidence is young enough to call anything fresh.
func (t *Tracker) Vouches(now time.Time) bool {
	e := t.epoch.Load()
	if e == nil {
		return false
	}
	m := e.fresh.Load()
	return m != nil && since(*m, now) <= t.maxStaleness
}

func (e *epoch) slot(h Hash) *atomic.Uint64 {
	if h.IsNamed() {
		return &e.slots[e.named+int(h)&(len(e.slots)-e.named-1)]
	}
	return &e.slots[int(h)&(e.named-1)]
}

func (e *epoch) raise(c Change) {
	if raise(e.slot(c.Hash), uint64(c.At)) == 0 && !c.Hash.IsNamed() {
		e.used.Add(1)
	}
}

// raiseAll raises every slot that a hash may have here which has this one in a
// tracker of so many slots: both numbers are the hash's last bits.
func (e *epoch) raiseAll(c Change, slots int) {
	h, all := c.Hash, e.named
	if h >= Hash(slots) {
		h, all, slots = h-Hash(slots)|byName, len(e.slots)-e.named, namedSlots(slots)
	}
	e.raise(Change{h, c.At})
	for slot := int(h&^byName) + slots; slot < all; slot += slots {
		e.raise(Change{Hash(slot) | h&byName, c.At})
	}
}

func (e *epoch) movedAt(t Tag) LSN { return LSN(e.slot(t.Hash()).Load()) }

func (t *Tracker) count(c TableChanges) {
	n, ok := t.rows.Load(c.Table)
	if !ok {
		n, _ = t.rows.LoadOrStore(c.Table, new(atomic.Uint64))
	}
	n.(*atomic.Uint64).Add(uint64(c.Rows))
}

// raise sets v to at least x, and returns what it was.
func raise(v *atomic.Uint64, x uint64) uint64 {
	for {
		old := v.Load()
		if old >= x || v.CompareAndSwap(old, x) {
			return old
		}
	}
}

// since is the time from m to now, by the clock that says more: the monotonic
// one stops while the machine is suspended, the other may be set back.
func since(m, now time.Time) time.Duration {
	return max(now.Sub(m), now.Round(0).Sub(m.Round(0)))
}
