package queryset

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"walcache/backend/db"
	"walcache/proxy/coherence"
)

// round is one run of the function that Consistent was given.
type round struct {
	snapshot *db.Queries        // nil: from the cache alone
	stamp    coherence.Position // of the snapshot, from before it was taken
	truth    Truth              // who gave the stamp; nil without a cache

	mu     sync.Mutex // guards the following, and the snapshot's connection
	done   []reading
	missed bool // the cache did not have everything
}

type roundKey struct{}

func roundOf(ctx context.Context) *round {
	r, _ := ctx.Value(roundKey{}).(*round)
	return r
}

// errMissed ends a round that reads from the cache alone.
var errMissed = errors.New("queryset: not in the cache; return this error as it is")

// Consistent calls read, which reads more than once for one answer, so that all
// that it reads is as of the same moment: a list and its count never disagree.
// read gets a context to read with, and returns what the Querier returned. It
// may be called twice, and what it did the first time counts for nothing then.
//
// The answer is made from the cache if that has all of it, and all of it was the
// same at one position; else from one snapshot of the database, all of it. Never
// from both:
//
//  1. The cache has the list. 2. A row is added. 3. The count, which the cache
//     has not, is read from the database, and has the new row; this process does
//     not know of it yet, so that nothing tells it of the list.
//
// Nor from entries that hold up to what is known, and have more than that,
// because one of them may have been read at 3. So an entry also says up to where
// its data goes at most; see verified.
func (q *Querier) Consistent(ctx context.Context, read func(ctx context.Context) error) error {
	if roundOf(ctx) != nil {
		return read(ctx) // part of another one
	}
	if done, err := q.fromCache(ctx, read); done {
		return err
	}
	return q.fromSnapshot(ctx, read)
}

// fromCache reports whether the cache had everything. Then err is that of read.
func (q *Querier) fromCache(ctx context.Context, read func(ctx context.Context) error) (done bool, err error) {
	reads := readsOf(ctx)
	if !q.cache.open(ctx, reads) {
		return false, nil
	}
	r := new(round)
	err = read(context.WithValue(ctx, roundKey{}, r))
	if r.missed || !q.cache.verified(r.done) {
		return false, nil
	}
	reads.note(r.done...)
	return true, err
}

// verified reports whether everything was the same at one position, known.
//
// An entry has every commit up to asOf, and none after until. If until is not
// past what is known, and nothing that it depends on changed after asOf as far as
// is known, then no commit in between matters to it: it is what a snapshot at
// known would see, no less and no more. And known is read first, so that it is
// the same for all.
func (c *cache) verified(done []reading) bool {
	known, now := c.truth.Known(), time.Now()
	for i, d := range done {
		if d.asOf.Epoch != known.Epoch || d.until > known.LSN {
			c.count.ahead.Add(1)
			return false
		}
		if c.truth.Judge(d.asOf, d.deps, now) != coherence.Fresh {
			c.count.moved.Add(1)
			return false
		}
		done[i].asOf = later(d.asOf, known)
	}
	return true
}

// beginner can begin a transaction of its own: a pool, or a connection. Who has
// a transaction already has its snapshot as well.
type beginner interface {
	BeginTx(context.Context, pgx.TxOptions) (pgx.Tx, error)
}

// fromSnapshot reads everything in one transaction.
func (q *Querier) fromSnapshot(ctx context.Context, read func(ctx context.Context) error) (err error) {
	conns, ok := q.conns.(beginner)
	if !ok {
		return read(ctx)
	}
	r := &round{truth: q.cache.follow()}
	if r.truth != nil {
		r.stamp = r.truth.Stamp() // before the snapshot, which the first query takes
	}
	tx, err := conns.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return fmt.Errorf("begin to read: %w", err)
	}
	defer func() {
		// A request that ends early costs a connection its query, not its life.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTime)
		defer cancel()
		if end := tx.Rollback(ctx); err == nil && end != nil {
			err = fmt.Errorf("end reading: %w", end)
		}
	}()
	r.snapshot = db.New(tx)
	err = read(context.WithValue(ctx, roundKey{}, r))
	readsOf(ctx).note(r.done...)
	return err
}

// endTime is how long a transaction may take to end.
const endTime = time.Second

// readInRound reads as the round does.
func (s *statement[A, R]) readInRound(ctx context.Context, q *Querier, round *round, arg A, key string, tags []coherence.Tag) ([]R, error) {
	round.mu.Lock()
	defer round.mu.Unlock()
	deps, ok := q.cache.follows(ctx, readsOf(ctx), tags)
	if round.snapshot != nil {
		rows, err := s.run(round.snapshot, ctx, arg)
		round.done = append(round.done, reading{tags: tags, deps: deps, truth: round.truth, asOf: round.stamp, direct: true})
		if err == nil && ok {
			s.keep(q.cache, key, tags, deps, entry[R]{asOf: round.stamp, rows: rows})
		}
		return rows, err
	}
	if ok && !round.missed {
		if e, r := s.lookUp(q.cache, key, deps, tags); e != nil {
			round.done = append(round.done, r)
			return e.rows, nil
		}
	}
	round.missed = true
	return nil, errMissed
}
