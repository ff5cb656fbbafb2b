package queryset

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"reflect"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"walcache/backend/db"
)

// How long an entry lives at most. Nobody relies on it: an entry that changed
// is stale however long it would live.
const (
	querysetLife = time.Hour
	countLife    = 30 * time.Minute
)

// statement is a query of package db, and how what it returns is kept. A query
// that returns one row or none is one that returns a list of them.
type statement[A, R any] struct {
	run   func(*db.Queries, context.Context, A) ([]R, error)
	rows  codec[R]
	life  time.Duration
	shape uint64
}

// newStatement makes a statement. Its shape is a hash of the SQL and of what is
// read from it: an entry of another shape was written by another release of this
// service, and is none here. A deploy is not a row change.
func newStatement[A, R any](rows codec[R], life time.Duration, run func(*db.Queries, context.Context, A) ([]R, error)) *statement[A, R] {
	var sent recorder
	var arg A
	if _, err := run(db.New(&sent), context.Background(), arg); !errors.Is(err, errRecorded) {
		panic(fmt.Sprintf("queryset: %T sends no query: %v", run, err))
	}
	h := fnv.New64a()
	fmt.Fprintf(h, "%s\x00%s", sent.sql, fieldsOf(reflect.TypeFor[R]()))
	return &statement[A, R]{run: run, rows: rows, life: life, shape: h.Sum64()}
}

// many is for a query that returns any number of rows.
func many[A, R any](rows codec[R], life time.Duration, run func(*db.Queries, context.Context, A) ([]R, error)) *statement[A, R] {
	return newStatement(rows, life, run)
}

// one is for a query that returns a row or pgx.ErrNoRows. That there is none is
// an answer like any other.
func one[A, R any](rows codec[R], life time.Duration, run func(*db.Queries, context.Context, A) (R, error)) *statement[A, R] {
	return newStatement(rows, life, func(queries *db.Queries, ctx context.Context, arg A) ([]R, error) {
		row, err := run(queries, ctx, arg)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			return nil, nil
		case err != nil:
			return nil, err
		}
		return []R{row}, nil
	})
}

// none is the argument of a query that takes none.
type none struct{}

func plain[R any](run func(*db.Queries, context.Context) (R, error)) func(*db.Queries, context.Context, none) (R, error) {
	return func(queries *db.Queries, ctx context.Context, _ none) (R, error) { return run(queries, ctx) }
}

// first is the row of a query that returns one.
func first[R any](rows []R, err error) (R, error) {
	if err == nil && len(rows) == 0 {
		err = pgx.ErrNoRows
	}
	if err != nil {
		var nothing R
		return nothing, err
	}
	return rows[0], nil
}

// fieldsOf names the fields of a row, and their types.
func fieldsOf(t reflect.Type) (fields string) {
	if t.Kind() != reflect.Struct {
		return t.String()
	}
	for i := range t.NumField() {
		fields += fmt.Sprintln(t.Field(i).Name, t.Field(i).Type)
	}
	return fields
}

// recorder is a connection that takes note of the query that it is sent, and
// fails.
type recorder struct {
	db.DBTX
	sql string
}

var errRecorded = errors.New("queryset: recorded and not sent")

func (r *recorder) Query(_ context.Context, sql string, _ ...any) (pgx.Rows, error) {
	r.sql = sql
	return nil, errRecorded
}

func (r *recorder) QueryRow(_ context.Context, sql string, _ ...any) pgx.Row {
	r.sql = sql
	return recorded{}
}

func (r *recorder) Exec(_ context.Context, sql string, _ ...any) (pgconn.CommandTag, error) {
	r.sql = sql
	return pgconn.CommandTag{}, errRecorded
}

type recorded struct{}

func (recorded) Scan(...any) error { return errRecorded }
