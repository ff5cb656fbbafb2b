package coherence

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"
)

// commitTo is a record of one change and one row, that follows another.
func commitTo(from, to LSN) Record {
	return Record{
		Epoch: "e", From: from, To: to, Visible: from, Committed: time.UnixMicro(int64(to)).UTC(),
		Changes: []Change{{Hash(to), to}}, Tables: []TableChanges{{"t", 1}},
	}
}

// watch watches until the test ends, or until stop is called.
func watch(t testing.TB, tr *Tracker) (seen <-chan Seen, stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	return tr.Watch(ctx), cancel
}

// next is what is seen next; something is on its way.
func next(t *testing.T, seen <-chan Seen) Seen {
	t.Helper()
	select {
	case s, open := <-seen:
		if !open {
			t.Fatal("nobody watches any more")
		}
		return s
	case <-time.After(time.Minute):
		t.Fatal("nothing is seen")
	}
	return Seen{}
}

func TestWatch_ShowsWhatChanged(t *testing.T) {
	tr := begun(time.Now())
	seen, _ := watch(t, tr)
	before := time.Now()
	r := commitTo(100, 200)
	apply(t, tr, r)
	got := next(t, seen)
	if got.Known.Before(before) || got.Known.After(time.Now()) {
		t.Errorf("known at %s, and applied at %s", got.Known, before)
	}
	if got.Epoch != "e" || got.To != 200 || got.More != 0 || !got.Committed.Equal(r.Committed) ||
		!slices.Equal(got.Tables, r.Tables) || !slices.Equal(got.Hashes, []Hash{200}) {
		t.Errorf("%+v", got)
	}
	r.Changes[0], r.Tables[0] = Change{}, TableChanges{} // they are the caller's
	if got.Hashes[0] != 200 || got.Tables[0].Rows != 1 {
		t.Errorf("%+v", got)
	}
}

// Once is said by known, which everything moves that comes by any way.
func TestWatch_ShowsEveryRecordOnce(t *testing.T) {
	tr := begun(time.Now())
	seen, _ := watch(t, tr)
	joined := commitTo(100, 300)
	joined.Changes = append(joined.Changes, Change{200, 200})
	for _, r := range []Record{
		{Epoch: "e", From: 100, To: 150, Visible: 100},   // moves positions only
		{Epoch: "d", To: 400, Changes: []Change{{1, 1}}}, // another epoch
		commitTo(150, 200),
		commitTo(150, 200), // from the log
		commitTo(200, 300),
		{Epoch: "e", From: 300, To: 300, Visible: 300},
		joined,                           // the same again, joined
		commitTo(100, 150),               // a listener that begins again further back
		{Epoch: "e", From: 290, To: 350}, // moves known past
		commitTo(340, 350),               // what was known by then
		{Epoch: "e", From: 300, To: 400, Changes: []Change{{7, 400}}}, // begins before and ends past
	} {
		apply(t, tr, r)
	}
	if err := tr.Apply(commitTo(900, 1000)); err == nil { // beyond a gap
		t.Fatal("a record is taken from beyond a gap")
	}
	apply(t, tr, commitTo(400, 500))
	for _, want := range []LSN{200, 300, 400, 500} {
		if got := next(t, seen); got.To != want {
			t.Fatalf("seen is %+v, and next is the one that ends at %s", got, want)
		}
	}
}

// Two that apply the same records at a time tell each of them once, in
// whatever order they come.
func TestWatch_ShowsWhatComesByTwoWaysOnce(t *testing.T) {
	const records = 200 // fewer than a buffer holds
	tr := begun(time.Now())
	seen, _ := watch(t, tr)
	var ways sync.WaitGroup
	for range 2 {
		ways.Go(func() {
			for at := LSN(100); at < 100+records; at++ {
				if err := tr.Apply(commitTo(at, at+1)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	ways.Wait()
	times := map[LSN]int{}
	for range records {
		s := next(t, seen)
		times[s.To]++
		if tr.Known().LSN < s.To {
			t.Errorf("%s is told before it is known", s.To)
		}
	}
	if len(times) != records || tr.Missed() != 0 {
		t.Errorf("%d records of %d are told, and %d missed", len(times), records, tr.Missed())
	}
}

func TestWatch_CopiesNoMoreThanItShows(t *testing.T) {
	tr := begun(time.Now())
	seen, _ := watch(t, tr)
	r, rows := Record{Epoch: "e", From: 100, To: 200}, 0
	for i := range 1000 {
		r.Changes = append(r.Changes, Change{Hash(i), 200})
		r.Tables = append(r.Tables, TableChanges{fmt.Sprint(i), i})
		rows += i
	}
	apply(t, tr, r)
	got := next(t, seen)
	if len(got.Hashes) != seenAtMost || cap(got.Hashes) > seenAtMost || got.More != 1000-seenAtMost {
		t.Errorf("%d hashes and %d more", len(got.Hashes), got.More)
	}
	for _, table := range got.Tables {
		rows -= table.Rows
	}
	if last := got.Tables[len(got.Tables)-1]; len(got.Tables) != seenAtMost || last.Table != Everything || rows != 0 {
		t.Errorf("%d tables, the last %+v; %d rows are in none", len(got.Tables), last, rows)
	}
}

// A watcher that reads nothing misses what does not fit, and holds up neither
// Apply nor those who read.
func TestWatch_NobodyWaitsForAWatcher(t *testing.T) {
	const records = 3 * watchBuffer
	tr := begun(time.Now())
	_, _ = watch(t, tr)
	reads, stop := watch(t, tr)
	for at := LSN(100); at < 100+records; at++ {
		apply(t, tr, commitTo(at, at+1))
		if s := next(t, reads); s.To != at+1 {
			t.Fatalf("%d is seen after %d", s.To, at)
		}
	}
	if missed := tr.Missed(); missed < records-watchBuffer-1 || missed > records-watchBuffer { // one may have left the buffer
		t.Errorf("%d are missed", missed)
	}
	stop()
	for range reads { // ends when the channel is closed
	}
}

func TestWatch_EndsWithItsContext(t *testing.T) {
	tr := begun(time.Now())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range tr.Watch(ctx) {
	}
	if tr.watchers.all.Load() != nil {
		t.Error("somebody still watches")
	}
}

func TestWatch_CostsNothingWhereNobodyWatches(t *testing.T) {
	tr := begun(time.Now())
	r := commitTo(100, 200)
	if n := testing.AllocsPerRun(1000, func() {
		if err := tr.Apply(r); err != nil {
			t.Fatal(err)
		}
		r.From, r.To = r.To, r.To+1
	}); n != 0 {
		t.Errorf("%v allocations to apply a record", n)
	}
}

func TestWatch_IsSafeForConcurrentUse(t *testing.T) {
	tr := begun(time.Now())
	ctx, cancel := context.WithCancel(t.Context())
	var applying, watching sync.WaitGroup
	for range 2 {
		applying.Go(func() {
			for at := LSN(100); at < 5000; at++ {
				if err := tr.Apply(commitTo(100, at+1)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 4 {
		watching.Go(func() {
			for ctx.Err() == nil {
				brief, stop := context.WithCancel(ctx)
				seen := tr.Watch(brief)
				if s, open := <-seen; open && (s.To <= 100 || len(s.Hashes) != 1) {
					t.Errorf("%+v", s)
				}
				stop()
				for range seen {
				}
			}
		})
	}
	applying.Wait()
	cancel()
	watching.Wait()
	if tr.watchers.all.Load() != nil {
		t.Error("somebody still watches")
	}
}

// BenchmarkApply applies a commit of four tags: while nobody watches, with
// somebody who reads, and with somebody who does not.
func BenchmarkApply(b *testing.B) {
	for name, watch := range map[string]func(*Tracker){
		"unwatched": func(*Tracker) {},
		"watched": func(tr *Tracker) {
			seen := tr.Watch(b.Context())
			go func() {
				for range seen {
				}
			}()
		},
		"stuck": func(tr *Tracker) { _ = tr.Watch(b.Context()) },
	} {
		b.Run(name, func(b *testing.B) {
			tr := NewTracker(1<<16, bound)
			tr.Begin("e", 100)
			watch(tr)
			r := Record{Epoch: "e", From: 100, To: 101, Changes: make([]Change, 4), Tables: []TableChanges{{"t", 1}}}
			b.ReportAllocs()
			for b.Loop() {
				for i := range r.Changes {
					r.Changes[i] = Change{Hash(i), r.To}
				}
				if err := tr.Apply(r); err != nil {
					b.Fatal(err)
				}
				r.From, r.To = r.To, r.To+1
			}
		})
	}
}
