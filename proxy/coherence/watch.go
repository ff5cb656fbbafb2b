package coherence

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Seen is a record as a watcher gets it: what changed, and when that was known
// here. What is in it is shared with other watchers, and is not to be written to.
type Seen struct {
	Epoch string
	To    LSN

	// Committed is the record's (see Record), and Known is when this process knew
	// all of it, by its own clock. Where the database is on another machine the
	// delay between them is that of two clocks, and may even be negative: it is as
	// it was found, and whoever shows it decides what to make of that.
	Committed, Known time.Time

	Tables []TableChanges // at most 64; the last of more is Everything, with the rows of the rest
	Hashes []Hash         // at most 64 of what moved; one may come again where the record is of several commits
	More   int            // that were left out
}

const (
	// watchBuffer is how many records a watcher may be behind.
	watchBuffer = 256
	// seenAtMost bounds what is copied of a record, in tables and in hashes.
	seenAtMost = 64
)

// watchers are those who look on while records are applied.
//
// Invariant: who applies a record never waits for a watcher. Without one Apply
// reads one pointer for it; with any number it copies at most seenAtMost tables
// and hashes, once, and leaves them in the buffer of each, or nowhere where that
// is full. How soon something is known to have changed must not depend on who
// looks on. Kept by tell; see TestWatch_NobodyWaitsForAWatcher and
// TestWatch_CostsNothingWhereNobodyWatches, and BenchmarkApply for the price.
type watchers struct {
	all    atomic.Pointer[[]chan Seen] // nil while nobody watches; replaced and never written to
	missed atomic.Uint64
	mu     sync.Mutex // held by who replaces all
}

// Watch returns what Apply learns from now on, as it happens, until ctx ends,
// which closes the channel. A watcher that is behind by more than 256 records
// misses some (see Missed).
//
// Every record is told once, by however many ways it comes, and nothing that
// only moves positions. A process that leads applies what its listener says, and
// reads the same from the change log again, joined with what came before and
// after or cut in pieces; a listener that has been restarted says the last ten
// seconds again. So what is told is a record that known was moved by, and known
// moves past a position once. A record that ends past what is known and begins
// before is told whole. What a checkpoint brings is not told: it is no record.
//
// When a record is told it is known already, and what it names has moved.
func (t *Tracker) Watch(ctx context.Context) <-chan Seen {
	told, out := make(chan Seen, watchBuffer), make(chan Seen)
	t.watchers.replace(func(all []chan Seen) []chan Seen { return append(all, told) })
	go func() {
		defer close(out)
		defer t.watchers.replace(func(all []chan Seen) []chan Seen {
			return slices.DeleteFunc(all, func(c chan Seen) bool { return c == told })
		})
		for {
			select {
			case <-ctx.Done():
				return
			case s := <-told:
				select {
				case <-ctx.Done():
					return
				case out <- s:
				}
			}
		}
	}()
	return out
}

// Missed counts the records that a watcher did not get because it was behind,
// over all watchers there ever were.
func (t *Tracker) Missed() uint64 { return t.watchers.missed.Load() }

// replace gives change a copy, so that whoever reads the old one goes on.
func (w *watchers) replace(change func([]chan Seen) []chan Seen) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []chan Seen
	if was := w.all.Load(); was != nil {
		all = slices.Clone(*was)
	}
	if all = change(all); len(all) == 0 {
		w.all.Store(nil)
		return
	}
	w.all.Store(&all)
}

// tell tells those who watch of a record that was applied. known is up to where
// everything was known before.
func (w *watchers) tell(r *Record, known LSN) {
	if all := w.all.Load(); all != nil {
		w.tellAll(*all, r, known)
	}
}

func (w *watchers) tellAll(all []chan Seen, r *Record, known LSN) {
	if r.To <= known || len(r.Changes) == 0 && len(r.Tables) == 0 {
		return
	}
	s := r.seen(time.Now())
	for _, watcher := range all {
		select {
		case watcher <- s:
		default:
			w.missed.Add(1)
		}
	}
}

// seen copies what a watcher gets: the record's own slices may be written to
// again, and are as long as they are.
func (r *Record) seen(known time.Time) Seen {
	s := Seen{Epoch: r.Epoch, To: r.To, Committed: r.Committed, Known: known, Tables: firstTables(r.Tables)}
	first := r.Changes[:min(len(r.Changes), seenAtMost)]
	s.Hashes, s.More = make([]Hash, len(first)), len(r.Changes)-len(first)
	for i, c := range first {
		s.Hashes[i] = c.Hash
	}
	return s
}

func firstTables(tables []TableChanges) []TableChanges {
	if len(tables) <= seenAtMost {
		return slices.Clone(tables)
	}
	first := slices.Clone(tables[:seenAtMost])
	last := &first[seenAtMost-1]
	last.Table = Everything
	for _, t := range tables[seenAtMost:] {
		last.Rows += t.Rows
	}
	return first
}
