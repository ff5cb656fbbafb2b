package coherence

import "errors"

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

// ErrGap says that a record begins after what is known: something between was
// missed, and nothing may be called fresh until it has been made good.
var ErrGap = errors.New("gap in the change stream")
