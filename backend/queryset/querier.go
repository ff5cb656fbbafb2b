// Package queryset runs the service's queries and notes, along each request,
// under which tags they read: the answer made from them holds until one of
// these tags moves.
//
// A handler names no tag. Each read has one line here that says the tags of
// its query, and a test holds these lines against the query as PostgreSQL
// parses it: a table that no tag names, or a column value that the query does
// not insist on, fails.
package queryset

import (
	"context"
	"strconv"

	"walcache/backend/db"
	"walcache/proxy/coherence"
)

//go:generate go tool sqlc generate --file ../../sqlc.yaml

// Querier answers the read queries of package db. It is safe for concurrent
// use as far as its connections are; a pool is.
type Querier struct {
	db *db.Queries
}

// New returns a Querier that reads from conns.
func New(conns db.DBTX) *Querier {
	return &Querier{db: db.New(conns)}
}

// ListProperties returns all properties, newest first.
func (q *Querier) ListProperties(ctx context.Context) ([]db.ListPropertiesRow, error) {
	note(ctx, coherence.TableTag("properties"))
	return q.db.ListProperties(ctx)
}

// ListPropertiesByLocation returns the properties of one location, newest
// first.
func (q *Querier) ListPropertiesByLocation(ctx context.Context, location string) ([]db.ListPropertiesByLocationRow, error) {
	note(ctx, coherence.RowTag("properties", "location", location))
	return q.db.ListPropertiesByLocation(ctx, location)
}

// GetProperty returns one property, or pgx.ErrNoRows.
func (q *Querier) GetProperty(ctx context.Context, id int64) (db.GetPropertyRow, error) {
	note(ctx, coherence.RowTag("properties", "id", strconv.FormatInt(id, 10)))
	return q.db.GetProperty(ctx, id)
}

// CountProperties returns how many properties there are.
func (q *Querier) CountProperties(ctx context.Context) (int64, error) {
	note(ctx, coherence.TableTag("properties"))
	return q.db.CountProperties(ctx)
}
