package coherence

import (
	"errors"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"
)

const bound = 2 * time.Second

// begun is a tracker in epoch "e", at 100, that vouches for now.
func begun(now time.Time) *Tracker {
	tr := NewTracker(1<<10, bound)
	tr.Begin("e", 100)
	tr.Beat("e", now)
	return tr
}

func apply(t *testing.T, tr *Tracker, r Record) {
	t.Helper()
	if err := tr.Apply(r); err != nil {
		t.Fatal(err)
	}
}

func at(lsn LSN) Position { return Position{Epoch: "e", LSN: lsn} }

func TestTracker_JudgesByPosition(t *testing.T) {
	now := time.Now()
	tr := begun(now)
	row, other := RowTag("t", "id", "1").Hash(), RowTag("t", "id", "2").Hash()
	apply(t, tr, Record{Epoch: "e", From: 100, To: 200, Visible: 200, Changes: []Change{{row, 150}}})
	for _, c := range []struct {
		what string
		at   Position
		deps Dependencies
		now  time.Time
		want Verdict
	}{
		{"read before the change", at(149), Dependencies{row}, now, Changed},
		{"read at the change", at(150), Dependencies{row}, now, Fresh},
		{"another row", at(100), Dependencies{other}, now, Fresh},
		{"the second of two rows", at(100), Dependencies{other, row}, now, Changed},
		{"as old as evidence may be", at(150), Dependencies{row}, now.Add(bound), Fresh},
		{"after the evidence", at(150), Dependencies{row}, now.Add(bound + 1), Unproven},
		{"changed, and after the evidence", at(149), Dependencies{row}, now.Add(bound + 1), Changed},
		{"another epoch", Position{Epoch: "f", LSN: 999}, nil, now, OtherEpoch},
		{"no position", Position{}, nil, now, OtherEpoch},
	} {
		if v := tr.Judge(c.at, c.deps, c.now); v != c.want {
			t.Errorf("%s: %s, want %s", c.what, v, c.want)
		}
	}
}

func TestTracker_VouchesForNothingAtFirst(t *testing.T) {
	now := time.Now()
	tr := NewTracker(1<<10, bound)
	if v := tr.Judge(at(1), nil, now); v != Unproven || tr.Vouches(now) {
		t.Errorf("before the first epoch: %s", v)
	}
	tr.Beat("e", now)
	if tr.Stamp() != (Position{}) || tr.Vouches(now) {
		t.Error("a beat before the first epoch counts")
	}
	tr.Begin("e", 100)
	if v := tr.Judge(at(100), nil, now); v != Unproven || tr.Vouches(now) {
		t.Errorf("before the first beat: %s", v)
	}
	if s := tr.Stamp(); s != (Position{}) {
		t.Errorf("stamp %v while nothing is known to be visible", s)
	}
}

func TestTracker_StampsWithVisibleAndNotWithKnown(t *testing.T) {
	tr := begun(time.Now())
	apply(t, tr, Record{Epoch: "e", From: 100, To: 200, Visible: 120})
	if s := tr.Stamp(); s != at(120) {
		t.Errorf("stamp %v", s)
	}
	apply(t, tr, Record{Epoch: "e", From: 100, To: 110, Visible: 105}) // late
	if p := tr.Progress(time.Now()); p.Known != 200 || p.Visible != 120 {
		t.Errorf("a late record moved known to %s and visible to %s", p.Known, p.Visible)
	}
}

// A reader that sees known finds every change up to it, and one that sees
// visible finds it known.
func TestTracker_BumpsBeforeItKnows(t *testing.T) {
	const records, width = 20000, 64
	tr := NewTracker(1<<16, bound)
	tr.Begin("e", 0)
	changes := make([]Change, width)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for lsn := LSN(1); lsn <= records; lsn++ {
			for i := range changes {
				changes[i] = Change{Hash(i), lsn}
			}
			if err := tr.Apply(Record{Epoch: "e", From: lsn - 1, To: lsn, Visible: lsn, Changes: changes}); err != nil {
				t.Error(err)
			}
		}
	}()
	for checks := 0; ; checks++ {
		select {
		case <-done:
			t.Logf("%d checks", checks)
			return
		default:
		}
		p := tr.Progress(time.Now())
		if p.Visible > p.Known {
			t.Fatalf("visible %s is beyond known %s", p.Visible, p.Known)
		}
		if p.Known > 0 && tr.Judge(at(p.Known-1), Dependencies{width - 1}, time.Now()) != Changed {
			t.Fatalf("%s is known, and its last change is not", p.Known)
		}
	}
}

// 1. Judge compares a tag. 2. The tag moves, and a beat vouches for it. 3. Judge
// must not take that beat for evidence of what it compared before.
func TestJudge_ReadsFreshnessBeforeItCompares(t *testing.T) {
	const rounds = 5000
	tr := NewTracker(1<<10, time.Hour)
	tr.Begin("e", 0)
	moving := Hash(7)
	deps := Dependencies{moving}
	var others []Change // so that the change takes a while, and the comparison longer
	for i := range Hash(900) {
		deps = append(deps, 100+i, 100+i, 100+i)
		others = append(others, Change{100 + i, 0})
	}
	var next atomic.Uint64
	done := make(chan struct{})
	go func() {
		defer close(done)
		for lsn := LSN(1); lsn <= rounds; lsn++ {
			if err := tr.Apply(Record{Epoch: "e", From: rounds + 1}); !errors.Is(err, ErrGap) { // ends vouching
				t.Error(err)
			}
			next.Store(uint64(lsn))
			if err := tr.Apply(Record{Epoch: "e", From: lsn - 1, To: lsn, Changes: append(slices.Clone(others), Change{moving, lsn})}); err != nil {
				t.Error(err)
			}
			tr.Beat("e", time.Now())
		}
	}()
	for {
		select {
		case <-done:
			return
		default:
		}
		if lsn := LSN(next.Load()); lsn > 0 && tr.Judge(at(lsn-1), deps, time.Now()) == Fresh {
			t.Fatalf("an answer as of %d is called fresh, by a beat that came after the change at %d", lsn-1, lsn)
		}
	}
}

func TestTracker_AGapEndsVouchingUntilTheNextBeat(t *testing.T) {
	now := time.Now()
	tr := begun(now)
	h := TableTag("t").Hash()
	err := tr.Apply(Record{Epoch: "e", From: 101, To: 200, Visible: 200, Changes: []Change{{h, 150}}})
	if !errors.Is(err, ErrGap) {
		t.Fatalf("got %v", err)
	}
	if p := tr.Progress(now); p.Known != 100 || p.Visible != 0 || p.Used != 0 {
		t.Errorf("a record after a gap was applied: %+v", p)
	}
	if v := tr.Judge(at(100), Dependencies{h}, now); v != Unproven {
		t.Errorf("after a gap: %s", v)
	}
	apply(t, tr, Record{Epoch: "e", From: 50, To: 200, Visible: 200, Changes: []Change{{h, 150}}})
	tr.Beat("e", now)
	if v := tr.Judge(at(200), Dependencies{h}, now); v != Fresh {
		t.Errorf("after the gap was closed: %s", v)
	}
}

func TestTracker_IgnoresOtherEpochs(t *testing.T) {
	now := time.Now()
	tr := NewTracker(1<<10, bound)
	h := TableTag("t").Hash()
	apply(t, tr, Record{Epoch: "e", To: 7}) // before the first
	tr.Begin("e", 100)
	apply(t, tr, Record{Epoch: "d", From: 9999, To: 10000, Visible: 10000, Changes: []Change{{h, 10000}}})
	tr.Beat("d", now)
	if p := tr.Progress(now); p.Known != 100 || p.Visible != 0 || p.Used != 0 || p.FreshAge >= 0 {
		t.Errorf("a record or beat of another epoch counted: %+v", p)
	}
	tr.Beat("e", now)
	apply(t, tr, Record{Epoch: "e", From: 100, To: 200, Visible: 200, Changes: []Change{{h, 200}}})
	tr.Begin("f", 50)
	if v := tr.Judge(at(200), nil, now); v != OtherEpoch {
		t.Errorf("an answer of the epoch before: %s", v)
	}
	if v := tr.Judge(Position{"f", 50}, Dependencies{h}, now); v != Unproven {
		t.Errorf("the evidence or a change of the epoch before counts: %s", v)
	}
}

func TestTracker_AsOfTakesOnlyWhatItCanCompare(t *testing.T) {
	tr := begun(time.Now())
	apply(t, tr, Record{Epoch: "e", From: 100, To: 200, Visible: 150})
	for _, c := range []struct {
		stamp  Position
		stated string
		want   Position
		valid  bool
	}{
		{at(120), "0/64;epoch=e", at(100), true}, // older than the stamp: a cache inside the source
		{at(120), "0/C8;epoch=e", at(200), true}, // as late as known
		{at(120), "0/C9;epoch=e", at(120), true}, // later
		{at(120), "request", at(120), true},
		{at(120), "", at(120), false},
		{at(120), "Request", Position{}, false},
		{at(120), "0/64;epoch=f", Position{}, false}, // from before a gap perhaps
		{at(120), "0/64;epoch=e, 0/64;epoch=e", Position{}, false},
		{at(120), "request, request", Position{}, false},
		{Position{"d", 120}, "0/64;epoch=e", Position{}, false}, // the epoch began during the fetch
		{Position{}, "0/64;epoch=e", Position{}, false},
		{Position{}, "request", Position{}, false},
	} {
		got, valid := tr.AsOf(c.stamp, c.stated)
		if got != c.want || valid != c.valid {
			t.Errorf("stated %q: %v, %t; want %v", c.stated, got, valid, c.want)
		}
	}
	if got, valid := NewTracker(2, bound).AsOf(Position{}, "0/64;epoch=e"); valid || got != (Position{}) {
		t.Errorf("before the first epoch: %v", got)
	}
}

func TestTracker_CauseNamesATable(t *testing.T) {
	tr := begun(time.Now())
	tr.SetCatalog(&Catalog{Tables: map[string]Table{"t": {}, "u": {}}})
	apply(t, tr, Record{Epoch: "e", From: 100, To: 200, Changes: []Change{
		{TableTag("t").Hash(), 150}, {TableTag("u").Hash(), 200}, {Any.Hash(), 200},
	}})
	for _, c := range []struct {
		at    Position
		tags  []Tag
		whole bool
		want  string
	}{
		{at(100), []Tag{"t/id=1"}, false, "t"},
		{at(100), []Tag{"v", "u"}, false, "u"},
		{at(150), []Tag{"t/id=1"}, false, ""},
		{at(100), nil, true, "u"},
		{at(200), nil, true, ""},
		{Position{"d", 100}, []Tag{"t"}, false, ""},
	} {
		if got := tr.Cause(c.at, c.tags, c.whole); got != c.want {
			t.Errorf("%v, whole %t, as of %v: %q, want %q", c.tags, c.whole, c.at, got, c.want)
		}
	}
}

func TestTracker_CountsRowsAndSlots(t *testing.T) {
	tr := begun(time.Now())
	for range 2 {
		apply(t, tr, Record{
			Epoch: "e", From: 100, To: 101, Changes: []Change{{1, 101}, {2, 101}, {1, 101}},
			Tables: []TableChanges{{"t", 3}},
		})
	}
	if p := tr.Progress(time.Now()); p.Used != 2 || p.Slots != 1<<10 || p.Rows["t"] != 6 {
		t.Errorf("%+v", p)
	}
}

func TestTracker_TakesPowersOfTwoOnly(t *testing.T) {
	for _, n := range []int{0, -4, 3, 1000} {
		func() {
			defer func() { _ = recover() }()
			NewTracker(n, bound)
			t.Errorf("%d slots taken", n)
		}()
	}
}

// A machine that was suspended stops the monotonic clock, and a clock that was
// set back stops the other: time has passed if either says so.
func TestSince_BelievesTheClockThatSaysMore(t *testing.T) {
	m := time.Now()
	for _, c := range []struct {
		what            string
		monotonic, wall time.Duration
		want            time.Duration
	}{
		{"both run", 5 * time.Second, 5 * time.Second, 5 * time.Second},
		{"suspended", 0, time.Hour, time.Hour},
		{"set back", 5 * time.Second, -time.Hour, 5 * time.Second},
	} {
		now := shiftWall(m.Add(c.monotonic), c.wall-c.monotonic)
		if d := since(m, now); d != c.want {
			t.Errorf("%s: %v, want %v", c.what, d, c.want)
		}
		tr := begun(m)
		fresh := c.want <= bound
		if got := tr.Judge(at(100), nil, now) == Fresh; got != fresh || tr.Vouches(now) != fresh {
			t.Errorf("%s: fresh %t, vouches %t; want %t", c.what, got, tr.Vouches(now), fresh)
		}
	}
}

// shiftWall moves the wall clock of a reading and leaves the monotonic one,
// which package time offers no way to do: the first word of a Time holds the
// wall clock's seconds above 30 bits of nanoseconds.
func shiftWall(t time.Time, by time.Duration) time.Time {
	word := (*uint64)(unsafe.Pointer(&t))
	*word += uint64(int64(by/time.Second)) << 30
	return t
}

func TestTracker_IsSafeForConcurrentUse(t *testing.T) {
	tr := NewTracker(1<<8, bound)
	tr.SetCatalog(published)
	var all sync.WaitGroup
	for w := range 4 {
		all.Go(func() {
			for i := LSN(1); i <= 500; i++ {
				now := time.Now()
				switch w {
				case 0:
					if i%100 == 1 {
						tr.Begin("e", 0)
						tr.SetCatalog(published)
					}
					tr.Beat("e", now)
				default:
					_ = tr.Apply(Record{Epoch: "e", To: i, Visible: i, Changes: []Change{{Hash(i), i}}, Tables: []TableChanges{{"t", 1}}})
				}
				stamp := tr.Stamp()
				tr.Judge(stamp, Dependencies{Hash(i)}, now)
				tr.AsOf(stamp, "0/1;epoch=e")
				tr.Cause(stamp, []Tag{"t"}, i%2 == 0)
				tr.Progress(now)
				tr.Vouches(now)
			}
		})
	}
	all.Wait()
}

// Whoever finds URLs for every slot there is makes no more stale than pages.
func TestTracker_WhatClientsNameMovesNoTag(t *testing.T) {
	now := time.Now()
	tr := begun(now)
	deps := append(WholeDatabase(), ColumnFloor("t", "c"))
	for i := range 1 << 10 {
		deps = append(deps, RowTag("t", "c", strconv.Itoa(i)).Hash())
	}
	var all []Change
	for i := range 1 << 14 {
		all = append(all, Change{PageHash(strconv.Itoa(i)), 200}, Change{GroupHash("http://a", strconv.Itoa(i)), 200})
	}
	apply(t, tr, Record{Epoch: "e", From: 100, To: 200, Visible: 200, Changes: all})
	tr.Outdate(PageHash("a"))
	for _, slots := range []int{1 << 4, 1 << 9, 1 << 10, 1 << 11, 1 << 14} {
		other := NewTracker(slots, bound)
		other.Load(tr.Checkpoint())
		other.Beat("e", now)
		if v := other.Judge(at(100), deps, now); v != Fresh {
			t.Errorf("%d slots: tags and floors are %s", slots, v)
		}
		for _, c := range all[:100] {
			if v := other.Judge(at(199), Dependencies{c.Hash}, now); v != Changed {
				t.Errorf("%d slots: %x is %s", slots, c.Hash, v)
			}
		}
		if p := other.Progress(now); p.Used != 0 {
			t.Errorf("%d slots: %d are taken for used by tags", slots, p.Used)
		}
	}
}

func TestTracker_OutdatesWhatIsAsOfNowUntilTheChangeStreamGoesOn(t *testing.T) {
	now := time.Now()
	tr := NewTracker(1<<10, bound)
	page, other := PageHash("http://a/1"), PageHash("http://a/2")
	tr.Outdate(page) // of no epoch
	tr.Begin("e", 100)
	tr.Beat("e", now)
	apply(t, tr, Record{Epoch: "e", From: 100, To: 200, Visible: 150})
	tr.Outdate(page)
	for _, c := range []struct {
		what string
		as   LSN
		h    Hash
		want Verdict
	}{
		{"read before", 150, page, Changed},
		{"as of the latest that is known", 200, page, Changed},
		{"read once the change stream went on", 201, page, Fresh},
		{"another page", 150, other, Fresh},
	} {
		if v := tr.Judge(at(c.as), Dependencies{c.h}, now); v != c.want {
			t.Errorf("%s: %s", c.what, v)
		}
	}
	if k := tr.Known(); k != at(200) {
		t.Errorf("%s is known", k)
	}
	apply(t, tr, Record{Epoch: "e", From: 200, To: 300, Visible: 300, Changes: []Change{{page, 300}}})
	if v := tr.Judge(at(299), Dependencies{page}, now); v != Changed {
		t.Errorf("read before the message: %s", v)
	}
}
