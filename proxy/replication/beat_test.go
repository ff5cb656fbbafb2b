package replication

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"walcache/proxy/coherence"
	"walcache/proxy/sandbox/sandboxtest"
)

// Whoever waits for a beat gives up when the database is away, again and again.
func TestBeats_WhoGaveUpIsForgotten(t *testing.T) {
	b := newBeats()
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	for range 1000 {
		if proven, err := b.next().wait(gone); proven || err == nil {
			t.Fatal("there was no beat")
		}
	}
	if n := len(b.waiting); n > 1 {
		t.Errorf("%d who gave up are still waited with", n)
	}
}

func waits(t *testing.T, b *beats) error {
	proven, err := b.next().wait(t.Context())
	if err == nil && !proven {
		err = errors.New("nobody beats any more")
	}
	return err
}

func TestBeats_OneThatFailedIsWaitedForAgain(t *testing.T) {
	b := newBeats()
	ended := make(chan error, 2)
	go func() { ended <- waits(t, b) }()
	<-b.wake
	taken := b.take()
	go func() { ended <- waits(t, b) }()
	<-b.wake
	b.giveBack(taken)
	select {
	case err := <-ended:
		t.Fatalf("a beat that failed counted: %v", err)
	default:
	}
	tell(b.take(), true)
	for range 2 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// One who asks while a beat is under way must get the next: the server's
// position was sampled before.
func TestBeats_OneUnderWayCountsForNobodyElse(t *testing.T) {
	b := newBeats()
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { first <- waits(t, b) }()
	<-b.wake
	taken := b.take()
	go func() { second <- waits(t, b) }()
	<-b.wake
	tell(taken, true)
	if err := <-first; err != nil {
		t.Error(err)
	}
	select {
	case <-second:
		t.Error("a beat that began before counted")
	default:
	}
	tell(b.take(), true)
	if err := <-second; err != nil {
		t.Error(err)
	}
}

// Commits that nothing flushes are visible, and an idle server does not send
// them on its own.
func TestCatchUp_SeesAsynchronousCommits(t *testing.T) {
	t.Parallel()
	p := sandboxtest.OwnPostgres(t, map[string]string{"fsync": "off", "wal_writer_delay": "10s", "synchronous_commit": "off"})
	dsn := p.DSN("")
	db := open(t, dsn, properties, "INSERT INTO properties (location) VALUES ('a')")
	l, tracker := follow(t, Config{DatabaseURL: dsn})
	settled(t, l, tracker, "properties")
	caughtUp(t, l, tracker)
	row := read(t, tracker, coherence.RowTag("properties", "id", "1"))
	for range 50 {
		row.at = tracker.Stamp()
		exec(t, db, "UPDATE properties SET price = price + 1")
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		err := l.CatchUp(ctx)
		cancel()
		if v := row.verdict(tracker); err != nil || v != coherence.Changed {
			t.Fatalf("after catching up: %s, %v", v, err)
		}
	}
}

// A beat vouches for every commit that was acknowledged before it began.
func TestBeat_VouchesOnlyForWhatIsKnown(t *testing.T) {
	t.Parallel()
	p := sandboxtest.OwnPostgres(t, map[string]string{"fsync": "off", "wal_writer_delay": "10s", "synchronous_commit": "off"})
	dsn := p.DSN("")
	db := open(t, dsn, properties, "INSERT INTO properties (location) VALUES ('a')")
	type commit struct {
		acknowledged time.Time
		after        coherence.LSN // its record ends later
	}
	var mu sync.Mutex // guards the following
	var commits []commit
	beats := 0
	tracker := coherence.NewTracker(1<<10, bound)
	sink := &recorder{memory: remember(tracker), vouch: func(m time.Time) {
		mu.Lock()
		defer mu.Unlock()
		beats++
		for _, c := range commits {
			if known := tracker.Progress(m).Known; c.acknowledged.Before(m) && known <= c.after {
				t.Errorf("a beat vouches for a commit after %s, and %s is known", c.after, known)
			}
		}
		commits = nil
	}}
	l, stop := launch(t, Config{DatabaseURL: dsn}, sink)
	settled(t, l, tracker, "properties")
	for done := false; !done; {
		lsn, err := coherence.ParseLSN(query[string](t, db, "SELECT pg_current_wal_insert_lsn()::text"))
		if err != nil {
			t.Fatal(err)
		}
		exec(t, db, "UPDATE properties SET price = price + 1")
		mu.Lock()
		commits = append(commits, commit{time.Now(), lsn})
		done = beats > 15
		mu.Unlock()
	}
	stop()
}

// A leader that has nothing to say but beats hears by them that another leads.
func TestSession_ABeatThatIsNotTakenEndsIt(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	open(t, dsn, properties)
	sink := remember(coherence.NewTracker(1<<16, time.Hour))
	l, _ := launch(t, Config{DatabaseURL: dsn}, sink)
	settled(t, l, sink.Tracker, "properties")
	sink.locked(func() { sink.silent = errors.New("another process leads the cluster") })
	eventually(t, "another session", func() bool { s := l.Status(); return s.Sessions == 2 && s.State == stateStreaming })
	if sink.leads != 2 || sink.yields != 1 {
		t.Errorf("led %d times, yielded %d times", sink.leads, sink.yields)
	}
}

// Whoever waits for a beat is not forgotten when another process comes to lead.
func TestListener_CatchUpOutlivesTheSlot(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	open(t, dsn, properties)
	sink := remember(coherence.NewTracker(1<<16, time.Hour))
	leader, _ := launch(t, Config{DatabaseURL: dsn}, sink)
	settled(t, leader, sink.Tracker, "properties")

	l := New(leader.config, sink) // which has not begun: nobody beats
	t.Cleanup(l.witness.Close)
	caught := make(chan error)
	go func() { caught <- l.CatchUp(t.Context()) }()
	eventually(t, "someone to wait for a beat", func() bool {
		l.beats.mu.Lock()
		defer l.beats.mu.Unlock()
		return len(l.beats.waiting) > 0
	})
	s := &session{Listener: l}
	s.waiting(&Slot{ActivePID: 1}, nil)
	if err := <-caught; err != nil {
		t.Error(err)
	}
}

// 1. A table is taken off its publication. 2. Its row is updated. A beat that
// begins after 2 would vouch for the old row.
func TestBeat_VouchesForNothingThatIsNotPublished(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	db := open(t, dsn, properties, twoProperties)
	sink := &latestBeat{memory: remember(coherence.NewTracker(1<<16, time.Hour)), at: map[string]time.Time{}}
	l, _ := launch(t, Config{DatabaseURL: dsn}, sink)
	for range 5 {
		settled(t, l, sink.Tracker, "properties")
		epoch := sink.Epoch()
		exec(t, db, "ALTER PUBLICATION walcache_updates DROP TABLE properties", "UPDATE properties SET price = price + 1")
		committed := time.Now()
		eventually(t, "another epoch", func() bool { return sink.Epoch() != epoch && l.Status().State == stateStreaming })
		sink.locked(func() {
			if at := sink.at[epoch]; at.After(committed) {
				t.Errorf("a beat vouches for what was committed %v before it", at.Sub(committed))
			}
		})
	}
}

// A table that is dropped takes its place in the publication with it, which is
// no reason to begin again.
func TestBeat_GoesOnWhenATableIsDropped(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	db := open(t, dsn, properties, "CREATE TABLE passing (id int PRIMARY KEY)")
	sink := remember(coherence.NewTracker(1<<16, time.Hour))
	l, _ := launch(t, Config{DatabaseURL: dsn}, sink)
	settled(t, l, sink.Tracker, "properties", "passing")
	exec(t, db, "DROP TABLE passing")
	caughtUp(t, l, sink.Tracker)
	eventually(t, "the table to be forgotten", func() bool { return sink.Catalog().Tables["passing"].Columns == nil })
	if s := l.Status(); s.Sessions != 1 || s.Epochs != 1 {
		t.Errorf("%d sessions, %d epochs: %s", s.Sessions, s.Epochs, s.Reason)
	}
}

// latestBeat keeps the latest beat of each epoch.
type latestBeat struct {
	*memory
	at map[string]time.Time
}

func (b *latestBeat) Beat(epoch string, m time.Time) error {
	b.locked(func() { b.at[epoch] = m })
	return b.memory.Beat(epoch, m)
}

// Whoever reads the catalogs waits for a beat before what it has found counts,
// and beats wait for whoever reads the catalogs where not all is published.
func TestBeat_AndWatchDoNotWaitForEachOther(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	db := open(t, dsn, properties, "CREATE TABLE other (id int PRIMARY KEY, x int)")
	sink := remember(coherence.NewTracker(1<<16, 2*time.Second))
	l, _ := launch(t, Config{DatabaseURL: dsn}, sink)
	settled(t, l, sink.Tracker, "properties", "other")
	caughtUp(t, l, sink.Tracker)
	exec(t, db, "ALTER TABLE other DROP COLUMN id") // its key: it cannot be published any more
	eventually(t, "the table to be blind, and the rest fresh", func() bool {
		return slices.Contains(sink.Catalog().Blind, "other") && sink.Vouches(time.Now()) && l.Status().State == stateStreaming
	})
	for i := range 20 { // a table that passes, at any moment of its being published
		exec(t, db, "CREATE TABLE passing (id int PRIMARY KEY)")
		eventually(t, "the table to be published", func() bool {
			return query[int](t, db, "SELECT count(*) FROM pg_publication_rel WHERE prrelid = 'passing'::regclass") == 1
		})
		exec(t, db, fmt.Sprintf("SELECT pg_sleep(%d * 0.001)", i%10), "DROP TABLE passing")
		caughtUp(t, l, sink.Tracker)
	}
}
