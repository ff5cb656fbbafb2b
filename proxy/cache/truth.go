package cache

import (
	"time"

	"walcache/proxy/coherence"
)

// Truth says what is known of the database: *coherence.Tracker, or Unwatched.
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

// Unwatched makes an ordinary cache, for which nothing ever changes and time
// alone runs out.
type Unwatched struct{}

var unwatched coherence.Catalog

// Stamp is a position like any other, since none is ever compared.
func (Unwatched) Stamp() coherence.Position { return coherence.Position{Epoch: "unwatched"} }

// Known is none: there is nothing that a source could wait for.
func (Unwatched) Known() coherence.Position { return coherence.Position{} }

// AsOf believes nobody.
func (Unwatched) AsOf(stamp coherence.Position, _ string) (coherence.Position, bool) {
	return stamp, false
}

// Judge calls everything fresh.
func (Unwatched) Judge(coherence.Position, coherence.Dependencies, time.Time) coherence.Verdict {
	return coherence.Fresh
}

// Catalog is empty and not blind.
func (Unwatched) Catalog() *coherence.Catalog { return &unwatched }

// Vouches is false: a client that asks for proof gets the origin's answer.
func (Unwatched) Vouches(time.Time) bool { return false }

// Why has nothing to say.
func (Unwatched) Why(coherence.Position, []coherence.Tag) []coherence.Move { return nil }

// MovedAt is nowhere.
func (Unwatched) MovedAt(coherence.Hash) coherence.LSN { return 0 }

// EmptiedAt is nowhere.
func (Unwatched) EmptiedAt() coherence.Position { return coherence.Position{} }

// Cause is never asked for.
func (Unwatched) Cause(coherence.Position, []coherence.Tag, bool) string { return "" }
