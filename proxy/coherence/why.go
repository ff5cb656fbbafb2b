package coherence

import "slices"

// Move says that something an answer depends on changed, and where that was
// last.
type Move struct {
	Name string `json:"name"` // a tag, or "floor" and what it is of
	At   LSN    `json:"-"`
}

// Why says which of the things that an answer with these tags depends on moved
// after a position, the latest first. It is for people: it spells out what Judge asks,
// for an answer that is stored now; one that was stored under another catalog may
// depend on something else. Slots are shared, so that the name may be that of
// another tag of the same slot. It is empty for a position of another epoch, all
// of which is stale.
func (t *Tracker) Why(asOf Position, tags []Tag) []Move {
	e := t.epoch.Load()
	if e == nil || asOf.Epoch != e.name {
		return nil
	}
	named, _ := t.catalog.Load().narrow(tags)
	var moves []Move
	for _, d := range named {
		if at := LSN(e.slot(d.hash()).Load()); at > asOf.LSN {
			moves = append(moves, Move{d.String(), at})
		}
	}
	slices.SortStableFunc(moves, func(a, b Move) int { return int(min(max(int64(b.At-a.At), -1), 1)) })
	return moves
}

// MovedAt is where a tag or a floor moved last, as far as the tracker remembers;
// 0 if it never did in this epoch.
func (t *Tracker) MovedAt(h Hash) LSN {
	if e := t.epoch.Load(); e != nil {
		return LSN(e.slot(h).Load())
	}
	return 0
}

// EmptiedAt is the position at which everything was last made stale at once, and
// the zero Position if that has not happened in this epoch.
func (t *Tracker) EmptiedAt() Position {
	e := t.epoch.Load()
	if e == nil {
		return Position{}
	}
	if at := LSN(e.slot(TableFloor(Everything)).Load()); at > 0 {
		return Position{Epoch: e.name, LSN: at}
	}
	return Position{}
}
