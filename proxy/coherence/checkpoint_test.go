package coherence

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// A tracker that loads the checkpoint of another judges as that one does, or
// stricter where its size is another.
func TestTracker_LoadsWhatAnotherKnows(t *testing.T) {
	now := time.Now()
	tr := begun(now)
	var tags []Hash
	for i := range 300 {
		h := RowTag("t", "id", fmt.Sprint(i)).Hash()
		tags = append(tags, h)
		apply(t, tr, Record{Epoch: "e", From: 100, To: LSN(200 + i), Visible: LSN(150 + i), Changes: []Change{{h, LSN(200 + i)}}})
	}
	for _, slots := range []int{1 << 4, 1 << 9, 1 << 10, 1 << 11, 1 << 14} {
		other := NewTracker(slots, bound)
		other.Load(tr.Checkpoint())
		if p := other.Progress(now); p.Epoch != "e" || p.Known != 499 || p.Visible != 449 || other.Vouches(now) {
			t.Fatalf("%d slots: %+v", slots, p)
		}
		for range 2000 {
			h, as := Hash(rand.Uint64()), LSN(150+rand.IntN(400))
			if rand.IntN(2) == 0 {
				h = tags[rand.IntN(len(tags))]
			}
			want, got := tr.Judge(at(as), Dependencies{h}, now), other.Judge(at(as), Dependencies{h}, now)
			if (want == Changed) != (got == Changed) && (want == Changed || slots == 1<<10) {
				t.Fatalf("%d slots: %x as of %d is %s, and was %s", slots, h, as, got, want)
			}
		}
	}
}

func TestTracker_MergesACheckpointOfItsEpoch(t *testing.T) {
	now := time.Now()
	tr := begun(now)
	apply(t, tr, Record{Epoch: "e", From: 100, To: 300, Visible: 300, Changes: []Change{{1, 250}, {2, 300}}})
	tr.Load(Checkpoint{Epoch: "e", Known: 280, Visible: 200, Slots: 1 << 10, Changes: func(yield func(Change) bool) {
		_ = yield(Change{1, 150}) && yield(Change{2, 120}) && yield(Change{3, 280})
	}})
	if p := tr.Progress(now); p.Known != 300 || p.Visible != 300 || p.Used != 3 {
		t.Errorf("an earlier checkpoint made it %+v", p)
	}
	for h, want := range map[Hash]LSN{1: 250, 2: 300, 3: 280} {
		if v := tr.Judge(at(want), Dependencies{h}, now); v != Fresh {
			t.Errorf("%d as of %d: %s", h, want, v)
		}
		if v := tr.Judge(at(want-1), Dependencies{h}, now); v != Changed {
			t.Errorf("%d as of %d: %s", h, want-1, v)
		}
	}
	tr.Load(Checkpoint{Epoch: "f", Known: 50, Visible: 50, Slots: 1 << 10, Changes: func(func(Change) bool) {}})
	if v := tr.Judge(at(300), nil, now); v != OtherEpoch || tr.Vouches(now) || tr.Epoch() != "f" {
		t.Errorf("after a checkpoint of another epoch: %s", v)
	}
}

func TestTracker_TheLaterBeatCounts(t *testing.T) {
	now := time.Now()
	tr := begun(now)
	tr.Beat("e", now.Add(-time.Second))
	if age := tr.Progress(now).FreshAge; age != 0 {
		t.Errorf("an earlier beat made it %v old", age)
	}
	tr.Beat("e", now.Add(time.Second))
	if age := tr.Progress(now.Add(time.Second)).FreshAge; age != 0 {
		t.Errorf("after a later beat it is %v old", age)
	}
}

func TestTracker_WaitsForAPosition(t *testing.T) {
	tr := NewTracker(1<<10, bound)
	known := make(chan error, 1)
	go func() { known <- tr.Wait(t.Context(), 200) }()
	tr.Begin("e", 100)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	if err := tr.Wait(ctx, 101); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("what is not known: %v", err)
	}
	apply(t, tr, Record{Epoch: "e", From: 100, To: 200})
	if err := <-known; err != nil {
		t.Error(err)
	}
}
