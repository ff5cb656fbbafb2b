package coherence

import (
	"errors"
	"iter"
	"time"
)

// Record is the one thing that is said about the database: in this epoch,
// after From and up to To, these tags and floors changed, and every commit up
// to Visible is seen by every new snapshot. It is a fact that stays true, so
// it may arrive late, twice or from a follower that has been replaced.
type Record struct {
	Epoch    string
	From, To LSN
	Visible  LSN
	Changes  []Change
	Tables   []TableChanges

	// Committed is when the first commit in it was made that changed something,
	// by the server's clock; zero where there was none, or nobody said when. A
	// piece of a record has that of the whole. For people: nothing is judged by it.
	Committed time.Time
}

// Change is a tag or a floor, and the end of the last commit that moved it.
type Change struct {
	Hash Hash
	At   LSN
}

// TableChanges counts the changed rows of a table in a record, for people.
type TableChanges struct {
	Table string
	Rows  int
}

// Checkpoint is a record from zero: the epoch begins with it for whoever loads
// it. Its changes name slots of a tracker and not tags, so that it is no larger
// than a tracker; one of another size takes it too.
type Checkpoint struct {
	Epoch          string
	Known, Visible LSN
	Slots          int              // a power of two
	Changes        iter.Seq[Change] // Hash is the number of a slot; those from Slots on are of pages and groups
}

// Past is what is known of the database when a follower of its change stream
// takes over: from records, by whomever they were made.
type Past struct {
	Epoch          string // "" if nothing is known
	Known, Visible LSN
	State          []byte // what the followers before left to the next
}

// ErrGap says that a record begins after what is known: something between was
// missed, and nothing may be called fresh until it has been made good.
var ErrGap = errors.New("gap in the change stream")
