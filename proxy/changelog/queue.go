package changelog

import (
	"cmp"
	"iter"
	"slices"

	"walcache/proxy/coherence"
)

// queue is what is still to be appended, in order. Records that follow one
// another become one, so that the log keeps up with any number of commits.
type queue struct {
	items   []entry
	changes int
}

func (q *queue) push(e entry) {
	if e.record != nil {
		q.changes += len(e.record.Changes)
		if n := len(q.items); n > 0 && q.items[n-1].record != nil && extend(q.items[n-1].record, e.record) {
			return
		}
		r := *e.record // whose slices are the caller's
		r.Changes, r.Tables = slices.Clone(r.Changes), slices.Clone(r.Tables)
		e.record = &r
	}
	q.items = append(q.items, e)
}

func (q *queue) pop() (e entry, ok bool) {
	if len(q.items) == 0 {
		return e, false
	}
	e, q.items[0] = q.items[0], entry{} // or the slice would keep it
	q.items = q.items[1:]
	if e.record != nil {
		q.changes -= len(e.record.Changes)
	}
	return e, true
}

// enough changes make a record that is not extended any more.
const enough = 8 * maxChanges

// extend makes one record of two, if the second begins where the first ends, or
// says only what is visible.
func extend(r, next *coherence.Record) bool {
	if r.From == r.To && len(r.Changes) == 0 && next.From > r.From { // r says only what is visible
		r.From, r.To = next.From, next.From
	}
	saysLittle := next.From <= r.To && len(next.Changes) == 0
	if next.Epoch != r.Epoch || len(r.Changes) > enough || next.From != r.To && !saysLittle {
		return false
	}
	r.To, r.Visible = max(r.To, next.To), max(r.Visible, next.Visible)
	r.Committed = cmp.Or(r.Committed, next.Committed)
	r.Changes = append(r.Changes, next.Changes...)
	for _, t := range next.Tables {
		r.Tables = addRows(r.Tables, t)
	}
	return true
}

func addRows(tables []coherence.TableChanges, t coherence.TableChanges) []coherence.TableChanges {
	for i := range tables {
		if tables[i].Table == t.Table {
			tables[i].Rows += t.Rows
			return tables
		}
	}
	return append(tables, t)
}

// maxChanges bounds a record in the log to 16 KiB: a change takes 8 bytes, and
// one that shares its position with no other some 6 more.
const maxChanges = 1100

// pieces cuts a record into some that the log takes.
//
// They have to follow one another like any others, or the loss of one would
// never be found out. Between two commits there is room to tell pieces of the
// second apart: no commit ends there, so that it is true of any position in
// between that everything up to it is known. A change takes up far more than a
// byte of WAL.
func pieces(r coherence.Record) iter.Seq[coherence.Record] {
	return func(yield func(coherence.Record) bool) {
		if len(r.Changes) > maxChanges { // or what comes last may be of the first position
			slices.SortStableFunc(r.Changes, func(a, b coherence.Change) int { return cmp.Compare(a.At, b.At) })
		}
		for len(r.Changes) > maxChanges {
			piece := coherence.Record{Epoch: r.Epoch, From: r.From, Changes: r.Changes[:maxChanges], Committed: r.Committed}
			piece.To = endOf(piece, r.Changes[maxChanges].At)
			if !yield(piece) {
				return
			}
			r.From, r.Changes = piece.To, r.Changes[maxChanges:]
		}
		yield(r)
	}
}

// endOf is up to where a piece says everything, if the next change is of the
// commit that ends at next.
func endOf(piece coherence.Record, next coherence.LSN) coherence.LSN {
	end := piece.From
	for _, c := range piece.Changes {
		if c.At < next {
			end = max(end, c.At)
		}
	}
	if last := piece.Changes[len(piece.Changes)-1].At; last == next && end+1 < next {
		return end + 1
	}
	return end
}
