package queryset

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"walcache/proxy/coherence"
)

// read returns what the query returns: from the cache under a key while that
// holds, else from the database. The tags are those of what the query reads.
func (s *statement[A, R]) read(ctx context.Context, q *Querier, arg A, key string, tags ...coherence.Tag) ([]R, error) {
	reads := readsOf(ctx)
	if round := roundOf(ctx); round != nil {
		return s.readInRound(ctx, q, round, arg, key, tags)
	}
	deps, ok := q.cache.follows(ctx, reads, tags)
	if !ok {
		return s.readDirect(ctx, q, reads, arg, tags)
	}
	if e, r := s.lookUp(q.cache, key, deps, tags); e != nil {
		reads.note(r)
		return e.rows, nil
	}
	return s.readShared(ctx, q, reads, arg, key, tags, deps)
}

// readDirect reads past the cache.
func (s *statement[A, R]) readDirect(ctx context.Context, q *Querier, reads *Reads, arg A, tags []coherence.Tag) ([]R, error) {
	r := reading{tags: tags, truth: q.cache.follow(), direct: true}
	if r.truth != nil {
		q.cache.count.past.Add(1)
		r.asOf = r.truth.Stamp()
	}
	reads.note(r)
	return s.run(q.db, ctx, arg)
}

// lookUp returns what the cache has under a key, if that holds, and what to note
// of it. Who asks at the same time for the same is served by one look; each
// judges by itself.
func (s *statement[A, R]) lookUp(c *cache, key string, deps coherence.Dependencies, tags []coherence.Tag) (*entry[R], reading) {
	v, _, _ := c.looks.Do(key, func() (any, error) { return s.look(c, key), nil })
	l, ok := v.(look[R])
	if !ok || l.entry == nil {
		c.count.nothing(l.why)
		return nil, reading{}
	}
	e := l.entry
	known := c.truth.Known() // before it is judged
	verdict := c.truth.Judge(e.asOf, deps, time.Now())
	c.count.judged(verdict)
	if verdict != coherence.Fresh {
		return nil, reading{}
	}
	return e, reading{tags: tags, deps: deps, truth: c.truth, asOf: later(e.asOf, known), until: e.until}
}

// later is the later of two positions, or the first if they cannot be compared.
func later(p, other coherence.Position) coherence.Position {
	if other.Epoch == p.Epoch && other.LSN > p.LSN {
		return other
	}
	return p
}

// look is what a look into Redis found: an entry, or why there is none.
type look[R any] struct {
	entry *entry[R]
	why   why
}

func (s *statement[A, R]) look(c *cache, key string) look[R] {
	data, text, why := c.get(key)
	if why != found {
		return look[R]{why: why}
	}
	e, err := decode(s.rows, c.prefix+key, s.shape, data, text)
	if err != nil {
		return look[R]{why: foreign}
	}
	return look[R]{entry: e}
}

// answer is what the database answered to whoever asked for the same.
type answer[R any] struct {
	entry[R]
	began time.Time
}

// abandoned is the error of who asked the database and did not wait.
type abandoned struct{ error }

func (a abandoned) Unwrap() error { return a.error }

// readShared reads from the database, together with those who ask for the same.
//
// A request takes the answer of a query that began after it arrived; it would
// have got none that is newer. Of one that began before it takes it as it would
// take it from the cache: if nothing changed since. Else it asks again, and what
// it then waits for began when the one before had ended, which is after it
// arrived.
func (s *statement[A, R]) readShared(ctx context.Context, q *Querier, reads *Reads, arg A, key string, tags []coherence.Tag, deps coherence.Dependencies) ([]R, error) {
	c := q.cache
	for {
		own := false
		flight := c.queries.DoChan(key, func() (any, error) {
			own = true
			return s.query(ctx, q, arg, key, tags, deps)
		})
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case result := <-flight:
			var left abandoned
			if errors.As(result.Err, &left) && ctx.Err() == nil {
				continue // it was somebody else who left
			}
			if result.Err != nil {
				return nil, result.Err
			}
			a := result.Val.(*answer[R])
			r := reading{tags: tags, deps: deps, truth: c.truth, asOf: a.asOf, direct: a.began.After(reads.arrived)}
			if !r.direct && c.truth.Judge(a.asOf, deps, time.Now()) != coherence.Fresh {
				continue
			}
			if !own {
				c.count.shared.Add(1)
			}
			reads.note(r)
			return a.rows, nil
		}
	}
}

// query asks the database, and has the answer kept. It runs in a goroutine that
// nobody else would recover.
//
// The stamp is taken before the query, and is what is visible, not what is
// known: see coherence.Tracker.Stamp.
func (s *statement[A, R]) query(ctx context.Context, q *Querier, arg A, key string, tags []coherence.Tag, deps coherence.Dependencies) (a *answer[R], err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
		}
	}()
	a = &answer[R]{began: time.Now()}
	a.asOf = q.cache.truth.Stamp()
	a.rows, err = s.run(q.db, ctx, arg)
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, abandoned{err}
	case err != nil:
		return nil, err
	}
	s.keep(q.cache, key, tags, deps, a.entry)
	return a, nil
}

// keep has an entry written when there is time.
func (s *statement[A, R]) keep(c *cache, key string, tags []coherence.Tag, deps coherence.Dependencies, e entry[R]) {
	if e.asOf == (coherence.Position{}) {
		return
	}
	about := coherence.Kept{Key: c.prefix + key, AsOf: e.asOf, Tags: tags}
	c.put(job{
		key: about.Key, deps: deps, asOf: e.asOf, life: s.life,
		size: sizeOf(s.rows, about, e.rows),
		encode: func(until coherence.LSN) []byte {
			about.Until, about.Stored = until, time.Now()
			return encode(s.rows, s.shape, about, e.rows)
		},
	})
}
