package cache

import (
	"crypto/rand"
	"sync/atomic"
	"time"

	"walcache/proxy/coherence"
)

// Truth says what is known of the database: *coherence.Tracker, or *Unwatched.
type Truth interface {
	// Stamp is a position that whatever is read from now on reflects, or the
	// zero Position.
	Stamp() coherence.Position
	// Known is the position up to which all that changed is known, or the zero
	// Position.
	Known() coherence.Position
	// AsOf is the position that a source states, if it can be believed.
	AsOf(stamp coherence.Position, stated string) (asOf coherence.Position, valid bool)
	// Judge says whether something as of a position still holds.
	Judge(asOf coherence.Position, deps coherence.Dependencies, now time.Time) coherence.Verdict
	// Outdate makes stale here what depends on one of these hashes, of pages and
	// groups, and was read before the call.
	Outdate(hashes ...coherence.Hash)
	// Catalog says which tags may narrow what an answer depends on.
	Catalog() *coherence.Catalog
	// Vouches reports whether Judge calls anything fresh because it knows so.
	Vouches(now time.Time) bool
	// Why says which of the things that an answer with these tags depends on
	// moved after a position, and MovedAt where one moved last.
	Why(asOf coherence.Position, tags []coherence.Tag) []coherence.Move
	MovedAt(h coherence.Hash) coherence.LSN
	// EmptiedAt is where everything was last made stale at once, or the zero
	// Position.
	EmptiedAt() coherence.Position
	// Cause names a table whose change made something stale, or "".
	Cause(asOf coherence.Position, tags []coherence.Tag, whole bool) string
}

// Unwatched makes an ordinary cache, for which the database never changes: time
// runs out, and requests make stale what their answers name.
//
// It counts how often they did, and its positions are counts, in an epoch of
// this process. An answer that another process stored has a count of that one,
// which says nothing here: so it is stale once its page or a group of it was
// made stale here at all, and otherwise fresh until its time is over. All methods
// may be called concurrently; Judge and Stamp take no lock.
type Unwatched struct {
	epoch string
	count atomic.Uint64
	slots [1 << 18]atomic.Uint64 // the count when a page or a group was last made stale, by hash
}

// NewUnwatched makes one. It takes 2 MiB.
func NewUnwatched() *Unwatched { return &Unwatched{epoch: "unwatched-" + rand.Text()} }

func (u *Unwatched) slot(h coherence.Hash) *atomic.Uint64 {
	return &u.slots[h%coherence.Hash(len(u.slots))]
}

var unwatched coherence.Catalog

// Stamp is the count of now.
func (u *Unwatched) Stamp() coherence.Position {
	return coherence.Position{Epoch: u.epoch, LSN: coherence.LSN(u.count.Load())}
}

// Outdate counts, and has the hashes have that count: whatever was read before has
// a lower one.
func (u *Unwatched) Outdate(hashes ...coherence.Hash) {
	if len(hashes) == 0 {
		return
	}
	now := u.count.Add(1)
	for _, h := range hashes {
		slot := u.slot(h)
		for was := slot.Load(); was < now && !slot.CompareAndSwap(was, now); {
			was = slot.Load()
		}
	}
}

// Judge calls fresh what was not made stale since. Tags and floors never move.
func (u *Unwatched) Judge(asOf coherence.Position, deps coherence.Dependencies, _ time.Time) coherence.Verdict {
	count := uint64(asOf.LSN)
	if asOf.Epoch != u.epoch {
		count = 0
	}
	for _, d := range deps {
		if d.IsNamed() && u.slot(d).Load() > count {
			return coherence.Changed
		}
	}
	return coherence.Fresh
}

// Known is none: there is nothing that a source could wait for.
func (*Unwatched) Known() coherence.Position { return coherence.Position{} }

// AsOf believes nobody.
func (*Unwatched) AsOf(stamp coherence.Position, _ string) (coherence.Position, bool) {
	return stamp, false
}

// Catalog is empty and not blind.
func (*Unwatched) Catalog() *coherence.Catalog { return &unwatched }

// Vouches is false: a client that asks for proof gets the origin's answer.
func (*Unwatched) Vouches(time.Time) bool { return false }

// Why has nothing to say.
func (*Unwatched) Why(coherence.Position, []coherence.Tag) []coherence.Move { return nil }

// MovedAt is nowhere: nothing has a position that others could look up.
func (*Unwatched) MovedAt(coherence.Hash) coherence.LSN { return 0 }

// EmptiedAt is nowhere.
func (*Unwatched) EmptiedAt() coherence.Position { return coherence.Position{} }

// Cause is never asked for.
func (*Unwatched) Cause(coherence.Position, []coherence.Tag, bool) string { return "" }
