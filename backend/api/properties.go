package api

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"walcache/backend/db"
	"walcache/backend/queryset"
)

const listPath = "/properties/"

func pathOf(id int64) string { return listPath + strconv.FormatInt(id, 10) + "/" }

// listing is what a list shows: some rows, and how many there are in all.
type listing struct {
	rows  iter.Seq[db.GetPropertyRow]
	shown int
	count int64
}

// row is what the queries of properties return. The generated types differ in
// name alone.
type row interface {
	db.ListPropertiesRow | db.ListPropertiesByLocationRow | db.SearchPropertiesRow | db.SearchPropertiesByLocationRow
}

// listed is the listing of rows that are all there are.
func listed[R row](rows []R, err error) (listing, error) {
	if err != nil {
		return listing{}, fmt.Errorf("list properties: %w", err)
	}
	each := func(yield func(db.GetPropertyRow) bool) {
		for _, r := range rows {
			if !yield(db.GetPropertyRow(r)) {
				return
			}
		}
	}
	return listing{each, len(rows), int64(len(rows))}, nil
}

// list runs the query that a search needs, and counts where it shows one page.
func list(ctx context.Context, q *queryset.Querier, s search) (l listing, err error) {
	switch {
	case s.plain() && s.location == "":
		return listed(q.ListProperties(ctx))
	case s.plain():
		return listed(q.ListPropertiesByLocation(ctx, s.location))
	case s.location == "":
		l, err = listed(q.SearchProperties(ctx, s.everywhere()))
	default:
		l, err = listed(q.SearchPropertiesByLocation(ctx, s.inLocation()))
	}
	if err != nil || s.size == 0 {
		return l, err
	}
	if l.count, err = count(ctx, q, s); err != nil {
		return l, fmt.Errorf("count properties: %w", err)
	}
	return l, nil
}

// count counts the properties that are found, on all pages.
func count(ctx context.Context, q *queryset.Querier, s search) (int64, error) {
	switch {
	case !s.filtered():
		return q.CountProperties(ctx)
	case s.location == "":
		return q.CountSearchedProperties(ctx, db.CountSearchedPropertiesParams{
			Search: s.text, MinPrice: s.minPrice, MaxPrice: s.maxPrice})
	}
	return q.CountSearchedPropertiesByLocation(ctx, db.CountSearchedPropertiesByLocationParams{
		Location: s.location, Search: s.text, MinPrice: s.minPrice, MaxPrice: s.maxPrice})
}

// listProperties answers the properties that the query asks for, and without a
// query all of them.
func (a *api) listProperties(w http.ResponseWriter, r *http.Request) error {
	f, err := choose(w.Header(), r)
	if err != nil {
		return err
	}
	s, err := readSearch(r.URL.RawQuery)
	if err != nil {
		return err
	}
	if s.size == 0 {
		end, err := a.unpaged.begin(r.Context())
		if err != nil {
			return err
		}
		defer end()
	}
	ctx, reads := collect(r)
	page, err := a.readList(ctx, s, f)
	if err != nil {
		return err
	}
	if err := a.cacheable(w, reads); err != nil {
		return err
	}
	if s.size > 0 {
		w.Header().Set("Link", s.links(page.listing.count))
	}
	if f == asHTML {
		return a.servePage(w, r, "list", page)
	}
	cached := reads.Cached()
	withBody(func(b []byte) []byte {
		b = appendList(b, page.listing)
		b = strconv.AppendBool(append(b, `,"cached":`...), cached)
		b = append(b, `,"cache_info":{"queryset_cache":"1 hour","page_cache":"15 minutes"}}`...)
		serveBody(w, r, asJSON, b)
		return b
	})
	return nil
}

// collect notes what the request reads, and whether a cache knows enough to
// answer it.
func collect(r *http.Request) (context.Context, *queryset.Reads) {
	ctx, reads := queryset.Collect(r.Context())
	reads.Require(strings.Join(r.Header.Values("Min-LSN"), ", ")) // several are no position
	return ctx, reads
}

// readList reads what a list shows. Where that takes several queries, all are as
// of one moment.
func (a *api) readList(ctx context.Context, s search, f format) (page listPage, err error) {
	page.search = s
	read := func(ctx context.Context) (err error) {
		page.listing, err = list(ctx, a.query, s)
		if err == nil && f == asHTML {
			page.Locations, err = locations(ctx, a.query, s)
		}
		return err
	}
	if s.size == 0 && (f == asJSON || s.location != "") {
		err = read(ctx)
	} else {
		err = a.query.Consistent(ctx, read)
	}
	return page, err
}

// locations are those that a list can be narrowed to. The list of one location
// names that one alone: all others would make it depend on every property.
func locations(ctx context.Context, q *queryset.Querier, s search) ([]string, error) {
	if s.location != "" {
		return []string{s.location}, nil
	}
	all, err := q.ListLocations(ctx)
	if err != nil {
		return nil, fmt.Errorf("list locations: %w", err)
	}
	return all, nil
}

// listPropertiesUncached answers all properties past every cache.
func (a *api) listPropertiesUncached(w http.ResponseWriter, r *http.Request) error {
	f, err := choose(w.Header(), r)
	if err != nil {
		return err
	}
	end, err := a.unpaged.begin(r.Context())
	if err != nil {
		return err
	}
	defer end()
	l, err := listed(a.direct.ListProperties(r.Context()))
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	if f == asHTML {
		return a.writePage(w, http.StatusOK, "list", listPage{listing: l, Direct: true})
	}
	withBody(func(b []byte) []byte {
		b = appendList(b, l)
		b = append(b, `,"cached":false,"note":"This response bypasses all caching"}`...)
		writeJSON(w, http.StatusOK, b)
		return b
	})
	return nil
}

// idOf reads the id in the path. 042 and +42 are none: one property, one URL.
func idOf(r *http.Request) (int64, error) {
	name := r.PathValue("id")
	id, err := strconv.ParseInt(name, 10, 64)
	if err != nil || strconv.FormatInt(id, 10) != name {
		return 0, noProperty(name)
	}
	return id, nil
}

func noProperty(name string) *problem {
	return &problem{status: http.StatusNotFound, reason: "there is no property " + name}
}

// getProperty answers one property. That there is none is an answer like any
// other: it may be kept, and ends when the row appears.
func (a *api) getProperty(w http.ResponseWriter, r *http.Request) error {
	f, err := choose(w.Header(), r)
	if err != nil {
		return err
	}
	id, err := idOf(r)
	if err != nil {
		return err
	}
	ctx, reads := collect(r)
	property, err := a.query.GetProperty(ctx, id)
	exists := !errors.Is(err, pgx.ErrNoRows)
	if err != nil && exists {
		return fmt.Errorf("get property %d: %w", id, err)
	}
	if err := a.cacheable(w, reads); err != nil {
		return err
	}
	switch {
	case !exists:
		return a.writeProblem(w, f, noProperty(r.PathValue("id")))
	case f == asHTML:
		return a.servePage(w, r, "property", propertyPage{property})
	}
	withBody(func(b []byte) []byte {
		b = appendProperty(b, property)
		serveBody(w, r, asJSON, b)
		return b
	})
	return nil
}
