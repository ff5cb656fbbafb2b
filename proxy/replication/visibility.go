package replication

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"walcache/proxy/coherence"
)

// A commit is sent to a logical-replication client before other sessions can
// see it: PostgreSQL writes the commit record, and only then takes the
// transaction out of the list of those in progress; with a synchronous standby,
// as late as the standby likes. Nor is the order of visibility that of the
// commit records. So there are two questions, and the barrier answers the
// second: what is known to have changed, and up to where is every commit seen
// by every new snapshot?

// barrier holds the commits that are decoded and not yet known to be visible.
//
// Invariant: every commit at or below visible is seen by any snapshot taken
// from now on. Kept by pass; see TestBarrier_WaitsForEveryTransaction.
type barrier struct {
	mu       sync.Mutex // guards the following
	pending  []pendingCommit
	received coherence.LSN // every commit at or below it was given to add
	visible  coherence.LSN
}

type pendingCommit struct {
	xid uint32
	end coherence.LSN
}

// add takes a decoded commit. xid 0 was no transaction.
func (b *barrier) add(xid uint32, end coherence.LSN) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.received = max(b.received, end)
	b.pending = append(b.pending, pendingCommit{xid, end})
}

// advance says that the stream has no commit before lsn that was not added. It
// returns visible, which has come with it if nothing is pending.
func (b *barrier) advance(lsn coherence.LSN) (visible coherence.LSN) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.received = max(b.received, lsn)
	if len(b.pending) == 0 {
		b.visible = max(b.visible, b.received)
	}
	return b.visible
}

// pass lets through, in the order of their commit records, the commits that the
// snapshot sees, up to the first that it does not see. It returns visible and
// how many still wait.
func (b *barrier) pass(s snapshot) (visible coherence.LSN, waiting int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for n < len(b.pending) && (b.pending[n].xid == 0 || s.sees(b.pending[n].xid)) {
		b.visible = max(b.visible, b.pending[n].end)
		n++
	}
	b.pending = append(b.pending[:0], b.pending[n:]...)
	if len(b.pending) == 0 {
		b.visible = max(b.visible, b.received)
	}
	return b.visible, len(b.pending)
}

// position reports visible and how many commits wait to become so.
func (b *barrier) position() (visible coherence.LSN, waiting int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.visible, len(b.pending)
}

// snapshot is pg_current_snapshot(): transactions below xmin are seen, those
// from xmax on are not, and of those between all but running.
type snapshot struct {
	xmin, xmax uint64
	running    map[uint64]bool
}

func parseSnapshot(text string) (s snapshot, err error) {
	parts := strings.SplitN(text, ":", 3)
	if len(parts) != 3 {
		return s, fmt.Errorf("snapshot %q", text)
	}
	if s.xmin, err = strconv.ParseUint(parts[0], 10, 64); err != nil {
		return s, err
	}
	if s.xmax, err = strconv.ParseUint(parts[1], 10, 64); err != nil || parts[2] == "" {
		return s, err
	}
	s.running = map[uint64]bool{}
	for xid := range strings.SplitSeq(parts[2], ",") {
		n, err := strconv.ParseUint(xid, 10, 64)
		if err != nil {
			return s, err
		}
		s.running[n] = true
	}
	return s, nil
}

// sees compares modulo 2^32: the stream has 32 bits of what the snapshot has
// 64 of, and no two transactions alive are 2^31 apart.
func (s snapshot) sees(xid uint32) bool {
	full := s.xmax + uint64(int64(int32(xid-uint32(s.xmax))))
	return full < s.xmin || full < s.xmax && !s.running[full]
}

// observation is what one round trip to the server tells.
type observation struct {
	snapshot snapshot
	insert   coherence.LSN // every commit acknowledged before the query ends at or below it
}

func observe(ctx context.Context, db *pgx.Conn) (o observation, err error) {
	var snap, insert string
	err = db.QueryRow(ctx, "SELECT pg_current_snapshot()::text, pg_current_wal_insert_lsn()::text").Scan(&snap, &insert)
	if err != nil {
		return o, fmt.Errorf("observe the server: %w", err)
	}
	if o.insert, err = coherence.ParseLSN(insert); err != nil {
		return o, err
	}
	o.snapshot, err = parseSnapshot(snap)
	return o, err
}

// reliance is what has to be as it was for the stream to carry every change:
// publications, and the places of tables in them.
type reliance struct {
	names    []string
	versions string
	places   []uint32
}

// published reports whether all of it is as it was.
func (r *reliance) published(ctx context.Context, db *pgx.Conn) (published bool, err error) {
	err = db.QueryRow(ctx, "SELECT ("+versions+") = $2 AND cardinality($3::oid[]) = (SELECT count(*) FROM pg_publication_rel WHERE oid = ANY ($3))",
		r.names, r.versions, r.places).Scan(&published)
	if err != nil {
		return false, fmt.Errorf("look whether all is published: %w", err)
	}
	return published, nil
}

// observer owns a connection to the server that the stream comes from. Each
// round trip on it serves whoever waits: the barrier, and a beat.
type observer struct {
	db      *pgx.Conn
	barrier *barrier
	passed  func(visible coherence.LSN) error // visible may have moved
	wake    chan struct{}                     // holds one token while commits wait
	urgent  chan struct{}                     // holds one token while someone asks
	relies  atomic.Pointer[reliance]          // what a sample looks at; nil looks at nothing

	mu    sync.Mutex // guards the following
	asked []chan sample
}

// sample is what a beat counts on.
type sample struct {
	insert    coherence.LSN // the server's insert position
	published bool          // everything that was committed before is in the stream
}

func newObserver(db *pgx.Conn, b *barrier, passed func(coherence.LSN) error) *observer {
	return &observer{db: db, barrier: b, passed: passed, wake: make(chan struct{}, 1), urgent: make(chan struct{}, 1)}
}

// sample returns a sample of some moment after the call.
//
// 1. A table is taken off its publication. 2. Its row is updated, which does not
// reach the stream. 3. A beat's position is sampled, and the stream comes past
// it: as if there had been no update. So the publications are looked at after
// the beat has begun; who comes across 1 every second is too late by that.
func (o *observer) sample(ctx context.Context) (sample, error) {
	answer := make(chan sample, 1)
	o.mu.Lock()
	o.asked = append(o.asked, answer)
	o.mu.Unlock()
	put(o.urgent)
	select {
	case s := <-answer:
		return s, nil
	case <-ctx.Done():
		return sample{}, ctx.Err()
	}
}

// nudge says that commits wait to become visible. It never blocks.
func (o *observer) nudge() { put(o.wake) }

// put leaves a token in a channel that holds one.
func put(token chan struct{}) {
	select {
	case token <- struct{}{}:
	default:
	}
}

// run observes whenever there is work. While commits stay invisible it asks
// again, ever more slowly: the wait may be for a synchronous standby.
func (o *observer) run(ctx context.Context) error {
	const shortest, longest = 100 * time.Microsecond, 20 * time.Millisecond
	pause, last := shortest, coherence.LSN(0)
	rested := time.Now()
	for {
		if !o.await(ctx, rested) {
			return ctx.Err()
		}
		o.mu.Lock()
		asked := o.asked
		o.asked = nil
		o.mu.Unlock()
		began := time.Now()
		seen, err := observe(ctx, o.db)
		if err != nil {
			return err
		}
		rested = time.Now().Add(restFor * time.Since(began))
		if err := o.answer(ctx, asked, seen.insert); err != nil {
			return err
		}
		visible, waiting := o.barrier.pass(seen.snapshot)
		if err := o.passed(visible); err != nil {
			return err
		}
		if visible > last {
			pause, last = shortest, visible
		}
		if waiting == 0 {
			continue
		}
		time.AfterFunc(pause, o.nudge)
		pause = min(2*pause, longest)
	}
}

func (o *observer) answer(ctx context.Context, asked []chan sample, insert coherence.LSN) (err error) {
	if len(asked) == 0 {
		return nil
	}
	s := sample{insert, true}
	if r := o.relies.Load(); r != nil {
		if s.published, err = r.published(ctx, o.db); err != nil {
			return err
		}
	}
	for _, answer := range asked {
		answer <- s
	}
	return nil
}

// restFor is how long the observer rests, in times of what it took. Where commits
// come one upon the other, one round trip for each would take more of both
// machines than all the rest: 50,000 commits were read in 0.9 s without any, and
// in 7.6 s with as many as there was time for.
const restFor = 4

// await returns true when there is work: at once if someone asks, and if there
// are only commits to be seen, not before the observer has rested.
func (o *observer) await(ctx context.Context, rested time.Time) bool {
	select {
	case <-ctx.Done():
		return false
	case <-o.urgent:
		return true
	case <-o.wake:
	}
	select {
	case <-ctx.Done():
		return false
	case <-o.urgent:
	case <-time.After(time.Until(rested)):
	}
	return true
}
