package faults

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const writers = 4

// execer is a connection or a transaction.
type execer interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// writer changes rows, one transaction after the other, on a connection of its
// own.
type writer struct {
	*run
	rnd   *rand.Rand
	pause time.Duration // between two transactions, on average
	conn  *pgx.Conn     // nil until connected
}

// write goes on until stop is closed. A connection that breaks is replaced.
func (w *writer) write(stop <-chan struct{}) {
	defer func() {
		if w.conn != nil {
			_ = w.conn.Close(context.Background())
		}
	}()
	next := time.NewTimer(0)
	for {
		select {
		case <-stop:
			return
		case <-next.C:
		}
		next.Reset(time.Duration(w.rnd.ExpFloat64() * float64(w.pause)))
		if err := w.once(); err != nil {
			w.refused.Add(1)
			if w.conn != nil && w.conn.IsClosed() {
				w.conn = nil
			}
		}
	}
}

// once runs one transaction. Its deadline is far beyond any fault's end.
func (w *writer) once() error {
	w.model.crash.RLock()
	defer w.model.crash.RUnlock()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if w.conn == nil {
		conn, err := pgx.Connect(ctx, w.postgres.DSN("")+"&application_name=writer")
		if err != nil {
			return err
		}
		w.conn = conn
	}
	ids := w.choose()
	for _, id := range ids {
		w.model.rows[id].writing.Lock()
		defer w.model.rows[id].writing.Unlock()
	}
	return w.change(ctx, ids)
}

// choose picks rows, hot ones most of the time, in the order in which every
// writer locks them.
func (w *writer) choose() []int {
	n := 1
	if w.rnd.IntN(10) == 0 {
		n = 2 + w.rnd.IntN(5)
	}
	var ids []int
	for range n {
		id := 1 + w.rnd.IntN(hotRows)
		if w.rnd.IntN(5) == 0 {
			id = 1 + hotRows + w.rnd.IntN(rows-hotRows)
		}
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// change moves rows to new states in one transaction, or takes it back. What is
// not committed leaves no trace in the model: no answer may ever have it.
func (w *writer) change(ctx context.Context, ids []int) error {
	tx, err := w.conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(context.Background()) }() // fails where the connection has
	states := make([]state, len(ids))
	for i, id := range ids {
		states[i] = w.next(id)
		if err := put(ctx, tx, id, states[i].version, states[i].place); err != nil {
			return err
		}
	}
	if w.rnd.IntN(12) == 0 {
		return tx.Rollback(ctx)
	}
	for i, id := range ids {
		states[i].began = time.Now()
		w.model.rows[id].begin(states[i])
	}
	if err := tx.Commit(ctx); err != nil {
		return err // it may have happened
	}
	now := time.Now()
	for _, id := range ids {
		w.model.rows[id].ack(now)
	}
	w.commits.Add(1)
	return nil
}

// next is a state that the row has not been in: one in ten moves it, and one in
// forty deletes it.
func (w *writer) next(id int) state {
	s := state{version: w.model.rows[id].version(), place: place(id % places)}
	switch kind := w.rnd.IntN(40); {
	case kind == 0:
		return state{}
	case kind <= 4:
		s.place = place(w.rnd.IntN(places))
	}
	return s
}

// put makes a row what it is to be, whatever it was: after a commit that nobody
// acknowledged its writer does not know.
func put(ctx context.Context, db execer, id, version int, place string) error {
	sql, args := "DELETE FROM properties WHERE id = $1", []any{id}
	if version != 0 {
		sql = `INSERT INTO properties (id, title, description, price, location) VALUES ($1, 'row', '', $2::bigint / 100.0, $3)
			ON CONFLICT (id) DO UPDATE SET price = excluded.price, location = excluded.location`
		args = append(args, version, place)
	}
	_, err := db.Exec(ctx, sql, args...)
	return err
}
