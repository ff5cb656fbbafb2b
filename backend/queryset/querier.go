// Package queryset runs the service's queries, keeps what they return in Redis,
// and notes along each request what was read: under which tags, and as of when.
//
//	handler ──► Querier ──► Redis, under PREFIXqs:      while what is there holds
//	              │    └──► PostgreSQL                  else; what it returns is kept
//	              └──► Reads ──► Cache-Groups, As-Of-LSN
//
// A handler names no tag and no key. Each query has one line here that says the
// tags of what it reads, and a test holds these lines against the query as
// PostgreSQL parses it: a table that no tag names, or a column value that the
// query does not insist on, fails.
//
//	ctx, reads := queryset.Collect(r.Context())
//	reads.Require(r.Header.Get("Min-LSN"))
//	property, err := q.GetProperty(ctx, id)                    // one read
//	err = q.Consistent(ctx, func(ctx context.Context) error {  // several that have to agree
//		rows, err = q.SearchProperties(ctx, …)
//		…
//		count, err = q.CountSearchedProperties(ctx, …)
//		return err
//	})
//	… reads.Tags(), reads.AsOf()
//
// # What is promised
//
// What a Querier returns contains every commit that was acknowledged longer
// before the request than the tracker's evidence may be old, and everything that
// the request requires.
//
// An entry is kept with two positions. Every commit up to asOf is in it: that is
// what was visible before the query ran. No commit after until is in it: that is
// where the server wrote after the query had run. With asOf it is told that an
// entry is not too old, as everywhere: it is stale when one of its tags moved
// later. With until it is told that it is not too new, which matters only to
// those who read more than once (Consistent): two entries may both hold as far as
// is known, and one of them have a change that this process has yet to hear of.
//
//	        asOf            until
//	─────────┼───────────────┼────────────────► log
//	in it    │   maybe       │   not in it
//
// Where it is kept, and what about:
//
//   - Entries of another key, version, shape of the query, or with a bit changed
//     are none (codec.go, statement.go). Each begins with what anybody may know of
//     it, a coherence.Kept, by which operators see what is kept.
//   - What a fill is stamped with, and who may share it (read.go).
//   - Several reads of one answer (consistent.go).
//   - Nothing waits for Redis: a look has a budget, and after a few that failed
//     there is none until Redis answers again (cache.go); writes happen in the
//     background, and are dropped when behind (writer.go), or when the change log
//     needs the room (room.go).
//   - Requests that wrote, or that come with a Min-LSN which is not known here,
//     and everybody while nothing is proved, read past it, and fill nothing
//     (reads.go, cache.go).
//
// There is no layer in memory: a read of ten rows from Redis costs less than the
// query, and one of 10,000 a seventh of it (BenchmarkRead).
package queryset

import (
	"context"
	"strconv"

	"walcache/backend/db"
	"walcache/proxy/coherence"
)

//go:generate go tool sqlc generate --file ../../sqlc.yaml

// Querier answers the read queries of package db. It is safe for concurrent
// use as far as its connections are; a pool is. What it returns may be shared
// with other requests, so nobody may change it.
type Querier struct {
	conns db.DBTX
	db    *db.Queries
	cache *cache // nil: every query goes to the database
}

// New returns a Querier that reads from conns and keeps nothing.
func New(conns db.DBTX) *Querier {
	return &Querier{conns: conns, db: db.New(conns)}
}

// The queries, and how what they return is kept.
var (
	listProperties             = many(propertyRows[db.ListPropertiesRow]{}, querysetLife, plain((*db.Queries).ListProperties))
	listPropertiesByLocation   = many(propertyRows[db.ListPropertiesByLocationRow]{}, querysetLife, (*db.Queries).ListPropertiesByLocation)
	searchProperties           = many(propertyRows[db.SearchPropertiesRow]{}, querysetLife, (*db.Queries).SearchProperties)
	searchPropertiesByLocation = many(propertyRows[db.SearchPropertiesByLocationRow]{}, querysetLife, (*db.Queries).SearchPropertiesByLocation)
	getProperty                = one(propertyRows[db.GetPropertyRow]{}, querysetLife, (*db.Queries).GetProperty)
	countProperties            = one(numberRows{}, countLife, plain((*db.Queries).CountProperties))
	countSearched              = one(numberRows{}, countLife, (*db.Queries).CountSearchedProperties)
	countSearchedByLocation    = one(numberRows{}, countLife, (*db.Queries).CountSearchedPropertiesByLocation)
	listLocations              = many(textRows{}, querysetLife, plain((*db.Queries).ListLocations))
	newestRelease              = one(textRows{}, querysetLife, plain((*db.Queries).NewestRelease))
)

const (
	properties = coherence.Tag("properties")
	releases   = coherence.Tag("releases")
)

// propertiesIn is the tag of the properties of a location.
func propertiesIn(location string) coherence.Tag {
	return coherence.RowTag("properties", "location", location)
}

// ListProperties returns all properties, newest first.
func (q *Querier) ListProperties(ctx context.Context) ([]db.ListPropertiesRow, error) {
	return listProperties.read(ctx, q, none{}, "all_properties", properties)
}

// ListPropertiesByLocation returns the properties of one location, newest
// first.
func (q *Querier) ListPropertiesByLocation(ctx context.Context, location string) ([]db.ListPropertiesByLocationRow, error) {
	return listPropertiesByLocation.read(ctx, q, location, key("properties", is("location", location)), propertiesIn(location))
}

// SearchProperties returns a part of the properties that a search finds.
func (q *Querier) SearchProperties(ctx context.Context, arg db.SearchPropertiesParams) ([]db.SearchPropertiesRow, error) {
	k := key("properties", ifSet("search", arg.Search), ifSet("min_price", arg.MinPrice), ifSet("max_price", arg.MaxPrice),
		ifSet("sort", arg.Sort), is("take", decimal(arg.Take)), is("skip", decimal(arg.Skip)))
	return searchProperties.read(ctx, q, arg, k, properties)
}

// SearchPropertiesByLocation returns a part of the properties of one location
// that a search finds.
func (q *Querier) SearchPropertiesByLocation(ctx context.Context, arg db.SearchPropertiesByLocationParams) ([]db.SearchPropertiesByLocationRow, error) {
	k := key("properties", is("location", arg.Location),
		ifSet("search", arg.Search), ifSet("min_price", arg.MinPrice), ifSet("max_price", arg.MaxPrice),
		ifSet("sort", arg.Sort), is("take", decimal(arg.Take)), is("skip", decimal(arg.Skip)))
	return searchPropertiesByLocation.read(ctx, q, arg, k, propertiesIn(arg.Location))
}

// GetProperty returns one property, or pgx.ErrNoRows.
func (q *Querier) GetProperty(ctx context.Context, id int64) (db.GetPropertyRow, error) {
	tag := coherence.RowTag("properties", "id", decimal(id))
	return first(getProperty.read(ctx, q, id, "property:"+decimal(id), tag))
}

// CountProperties returns how many properties there are.
func (q *Querier) CountProperties(ctx context.Context) (int64, error) {
	return first(countProperties.read(ctx, q, none{}, "property_count", properties))
}

// CountSearchedProperties returns how many properties a search finds.
func (q *Querier) CountSearchedProperties(ctx context.Context, arg db.CountSearchedPropertiesParams) (int64, error) {
	k := key("property_count", is("search", arg.Search), ifSet("min_price", arg.MinPrice), ifSet("max_price", arg.MaxPrice))
	return first(countSearched.read(ctx, q, arg, k, properties))
}

// CountSearchedPropertiesByLocation returns how many properties of one location
// a search finds.
func (q *Querier) CountSearchedPropertiesByLocation(ctx context.Context, arg db.CountSearchedPropertiesByLocationParams) (int64, error) {
	k := key("property_count", is("location", arg.Location),
		ifSet("search", arg.Search), ifSet("min_price", arg.MinPrice), ifSet("max_price", arg.MaxPrice))
	return first(countSearchedByLocation.read(ctx, q, arg, k, propertiesIn(arg.Location)))
}

// ListLocations returns the locations that there are, each once.
func (q *Querier) ListLocations(ctx context.Context) ([]string, error) {
	return listLocations.read(ctx, q, none{}, "locations", properties)
}

// NewestRelease returns the name of the release that was announced last, or
// pgx.ErrNoRows.
func (q *Querier) NewestRelease(ctx context.Context) (string, error) {
	return first(newestRelease.read(ctx, q, none{}, "newest_release", releases))
}

func decimal(n int64) string { return strconv.FormatInt(n, 10) }
