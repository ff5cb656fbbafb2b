package replication

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"walcache/proxy/coherence"
	"walcache/proxy/sandbox/sandboxtest"
)

func page(n int) coherence.Hash {
	return coherence.PageHash("http://shop.example/" + fmt.Sprint(n))
}

func newInvalidator(t *testing.T, dsn string) *Invalidator {
	t.Helper()
	log, _ := logging(t)
	i := NewInvalidator(NewWitness(dsn), log)
	t.Cleanup(i.Close)
	return i
}

// Who has waited for it knows of the pages and of all that was committed before,
// also where nothing but the message itself has it flushed, and with no beat.
func TestInvalidator_IsWaitedForByThePositionOfItsMessage(t *testing.T) {
	t.Parallel()
	p := sandboxtest.OwnPostgres(t, map[string]string{"fsync": "off", "wal_writer_delay": "10s", "synchronous_commit": "off"})
	dsn := p.DSN("")
	db := open(t, dsn, properties, twoProperties)
	tracker := coherence.NewTracker(1<<16, time.Hour)
	sink := remember(tracker)
	l, _ := launch(t, Config{DatabaseURL: dsn}, sink)
	settled(t, l, tracker, "properties")
	i := newInvalidator(t, dsn)
	var took []time.Duration
	for n := range 30 {
		caughtUp(t, l, tracker)
		row, other := read(t, tracker, "properties/id=1"), read(t, tracker, "properties/id=2")
		one, two := answer{row.at, coherence.Dependencies{page(1)}}, answer{row.at, coherence.Dependencies{page(2)}}
		exec(t, db, fmt.Sprintf("UPDATE properties SET price = %d WHERE id = 1", n))
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		began := time.Now()
		err := i.Invalidate(ctx, []coherence.Hash{page(1)}, sink.Wait)
		took = append(took, time.Since(began))
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		if one.verdict(tracker) != coherence.Changed || row.verdict(tracker) != coherence.Changed ||
			two.verdict(tracker) != coherence.Fresh || other.verdict(tracker) != coherence.Fresh {
			t.Fatalf("%d: page %s, row %s; another page %s, another row %s", n,
				one.verdict(tracker), row.verdict(tracker), two.verdict(tracker), other.verdict(tracker))
		}
	}
	t.Logf("it took %v", took)
}

// However many come together, few messages are sent, and each hash is in one.
func TestInvalidator_SendsTogetherWhatComesTogether(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	db := open(t, dsn, properties)
	exec(t, db, "SELECT pg_create_logical_replication_slot(current_database(), 'pgoutput')")
	t.Cleanup(func() { exec(t, db, "SELECT pg_drop_replication_slot(current_database())") })
	i := newInvalidator(t, dsn)
	const writers, each = 32, 20
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for n := range each {
				err := i.Invalidate(t.Context(), []coherence.Hash{page(1), page(w*each + n + 2)}, func(_ context.Context, at coherence.LSN) error {
					if at == 0 {
						t.Error("no position")
					}
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	exec(t, db, "CREATE PUBLICATION everything")
	n := query[int](t, db, `SELECT count(*) FROM pg_logical_slot_peek_binary_changes(current_database(), NULL, NULL,
		'proto_version', '1', 'publication_names', 'everything', 'messages', 'on') WHERE data > '\x4d00' AND data < '\x4d01'`)
	if n == 0 || n > writers*each/2 {
		t.Errorf("%d messages of %d writes", n, writers*each)
	}
}

// What could not be told is told once it can be, although nobody waits any more.
func TestInvalidator_TellsOnceTheDatabaseAnswersAgain(t *testing.T) {
	t.Parallel()
	p := sandboxtest.OwnPostgres(t, map[string]string{"fsync": "off"})
	dsn := p.DSN("")
	open(t, dsn, properties)
	tracker := coherence.NewTracker(1<<16, time.Hour)
	sink := remember(tracker)
	l, _ := launch(t, Config{DatabaseURL: dsn}, sink)
	settled(t, l, tracker, "properties")
	log, lines := logging(t)
	i := NewInvalidator(NewWitness(dsn), log)
	t.Cleanup(i.Close)
	stopServer(t, p)
	gone, leave := context.WithCancel(t.Context())
	leave()
	for n := range 3 {
		if err := i.Invalidate(gone, []coherence.Hash{page(n)}, sink.Wait); err == nil {
			t.Fatal("there is no server")
		}
	}
	eventually(t, "a line in the log", func() bool { return lines.count("cannot tell other processes") == 1 })
	startServer(t, p)
	for n := range 3 {
		eventually(t, "the message", func() bool { return tracker.MovedAt(page(n)) > 0 })
	}
	eventually(t, "a line in the log", func() bool { return lines.count("are told again") == 1 })
}

// What is too much to keep becomes everything.
func TestInvalidator_OfTooManyMakesEverything(t *testing.T) {
	i := &Invalidator{closed: true}
	var n *notice
	for k := range maxNotice + 10 {
		n = i.add([]coherence.Hash{page(k)})
	}
	if n.line() != "floor *" || len(n.hashes) > maxNotice {
		t.Errorf("%d hashes, %.20q", len(n.hashes), n.line())
	}
}
