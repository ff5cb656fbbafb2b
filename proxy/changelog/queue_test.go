package changelog

import (
	"math/rand/v2"
	"slices"
	"testing"

	"walcache/proxy/coherence"
)

// What pieces say is true: a tracker that takes them knows at each moment what
// they say that it knows, and in the end what the record says.
func TestPieces_SayNothingThatIsNotSoYet(t *testing.T) {
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 0))
		r := coherence.Record{Epoch: "e", From: 1000, Visible: 1500, Tables: []coherence.TableChanges{{Table: "t", Rows: 5}}}
		at := r.From
		for range 1 + random.IntN(20) {
			at += coherence.LSN(1 + random.IntN(2000))
			for range random.IntN(1 + 1500*random.IntN(2)) {
				r.Changes = append(r.Changes, coherence.Change{Hash: coherence.Hash(random.Uint64()), At: at})
			}
		}
		r.To = at + coherence.LSN(random.IntN(3))
		if seed%3 == 0 { // as when records of two leaders are merged
			random.Shuffle(len(r.Changes), func(i, j int) { r.Changes[i], r.Changes[j] = r.Changes[j], r.Changes[i] })
		}
		all := slices.Clone(r.Changes)
		known, said := r.From, map[coherence.Change]bool{}
		var last coherence.Record
		for piece := range pieces(r) {
			last = piece
			if size := len((&entry{epoch: "epoch-of-16-bytes", record: &piece}).encode()); size > 16<<10 {
				t.Fatalf("seed %d: a piece of %d bytes", seed, size)
			}
			if piece.From != known {
				t.Fatalf("seed %d: a piece begins at %s, and the one before ended at %s", seed, piece.From, known)
			}
			for _, c := range piece.Changes {
				said[c] = true
			}
			known = piece.To
			for _, c := range all {
				if c.At <= known && !said[c] {
					t.Fatalf("seed %d: a piece says that everything up to %s is known, and lacks a change at %s", seed, known, c.At)
				}
			}
		}
		if known != r.To || last.Visible != r.Visible || len(last.Tables) != 1 || len(said) == 0 && len(all) > 0 {
			t.Errorf("seed %d: the pieces end at %s, visible %s", seed, known, last.Visible)
		}
		for _, c := range all {
			if !said[c] {
				t.Fatalf("seed %d: %+v is in no piece", seed, c)
			}
		}
	}
}

// The loss of any piece is a gap.
func TestPieces_OfOneCommitFollowEachOther(t *testing.T) {
	r := coherence.Record{Epoch: "e", From: 1000, To: 900_000}
	for i := range 100 * maxChanges {
		r.Changes = append(r.Changes, coherence.Change{Hash: coherence.Hash(i), At: r.To})
	}
	n, from := 0, r.From-1
	for piece := range pieces(r) {
		if piece.From <= from || piece.To <= piece.From {
			t.Fatalf("piece %d is from %s to %s, and the one before began at %s", n, piece.From, piece.To, from)
		}
		n, from = n+1, piece.From
	}
	if n != 100 {
		t.Errorf("%d pieces", n)
	}
}

// What is queued says the same in the end, in the same order, however records
// are joined.
func TestQueue_SaysWhatItWasTold(t *testing.T) {
	for seed := range uint64(30) {
		random := rand.New(rand.NewPCG(seed, 1))
		var q queue
		direct, queued := coherence.NewTracker(1<<10, 1), coherence.NewTracker(1<<10, 1)
		direct.Begin("e", 100)
		queued.Begin("e", 100)
		take := func() {
			e, ok := q.pop()
			if !ok || e.record == nil {
				return
			}
			for piece := range pieces(*e.record) {
				if err := queued.Apply(piece); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
			}
		}
		at, visible := coherence.LSN(100), coherence.LSN(100)
		for range 200 {
			r := coherence.Record{Epoch: "e", From: at, To: at}
			switch random.IntN(6) {
			case 0:
				visible = min(at, visible+coherence.LSN(random.IntN(2000)))
				r = coherence.Record{Epoch: "e", From: visible, To: visible, Visible: visible}
			case 1: // again, as after a take-over
				r.From -= min(at-100, coherence.LSN(random.IntN(500)))
				r.Changes = []coherence.Change{{Hash: coherence.Hash(random.IntN(1 << 10)), At: r.From}}
			case 2:
				q.push(entry{epoch: "e", beat: &beat{}})
				continue
			case 3:
				take()
				continue
			default:
				at += coherence.LSN(1 + random.IntN(1000))
				r.To = at
				for range random.IntN(1 + 800*random.IntN(3)*random.IntN(2)) {
					r.Changes = append(r.Changes, coherence.Change{Hash: coherence.Hash(random.IntN(1 << 10)), At: at})
				}
				r.Tables = []coherence.TableChanges{{Table: "t", Rows: 1}}
			}
			if err := direct.Apply(r); err != nil {
				t.Fatal(err)
			}
			q.push(entry{epoch: "e", record: &r})
			if len(q.items) > 0 && q.changes < 0 {
				t.Fatalf("seed %d: %d changes wait", seed, q.changes)
			}
		}
		for len(q.items) > 0 {
			take()
		}
		if q.changes != 0 {
			t.Errorf("seed %d: %d changes wait in an empty queue", seed, q.changes)
		}
		compareTrackers(t, seed, direct, queued)
	}
}

func compareTrackers(t *testing.T, seed uint64, want, got *coherence.Tracker) {
	t.Helper()
	w, g := want.Checkpoint(), got.Checkpoint()
	if w.Known != g.Known || w.Visible != g.Visible {
		t.Fatalf("seed %d: known %s, visible %s; want %s, %s", seed, g.Known, g.Visible, w.Known, w.Visible)
	}
	if !slices.Equal(slices.Collect(w.Changes), slices.Collect(g.Changes)) {
		t.Fatalf("seed %d: the slots differ", seed)
	}
}
