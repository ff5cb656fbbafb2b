package panel

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"walcache/backend/db"
)

// rowsPerPage is how long a page of properties or of changes is.
const rowsPerPage = 25

// list is the page of the properties.
type list struct {
	Search, Location, Sort string
	Locations              []string
	Sorts                  []choice
	Rows                   []db.SearchPropertiesRow
	Count                  int64 // of all that match
	Filtered               bool
	Pager                  pager
}

type choice struct{ Value, Name string }

// sorts are the orders that a list may have, as the query names them.
var sorts = []choice{
	{"", "Newest first"}, {"created_at", "Oldest first"},
	{"title", "Title, A to Z"}, {"-title", "Title, Z to A"},
	{"price", "Cheapest first"}, {"-price", "Dearest first"},
	{"location", "Location, A to Z"}, {"-location", "Location, Z to A"},
}

func (p *Panel) list(w http.ResponseWriter, r *http.Request, v *visit) error {
	l := list{Search: asked(r, "q"), Location: asked(r, "location"), Sort: asked(r, "sort"), Sorts: sorts}
	l.Filtered = l.Search != "" || l.Location != ""
	if !slices.ContainsFunc(sorts, func(c choice) bool { return c.Value == l.Sort }) {
		l.Sort = ""
	}
	if err := p.read(r, &l); err != nil {
		return fmt.Errorf("list properties: %w", err)
	}
	return p.show(w, r, v, http.StatusOK, "list", view{Title: "Properties", Body: l})
}

// read fills the list from the database.
func (p *Panel) read(r *http.Request, l *list) (err error) {
	ctx := r.Context()
	if l.Locations, err = p.query.ListLocations(ctx); err != nil {
		return err
	}
	if l.Location != "" && !slices.Contains(l.Locations, l.Location) {
		l.Locations = append(l.Locations, l.Location) // what is shown is what was chosen
	}
	if l.Count, err = p.count(ctx, l); err != nil {
		return err
	}
	l.Pager = newPager(r, l.Count)
	l.Rows, err = p.search(ctx, l)
	return err
}

func (p *Panel) count(ctx context.Context, l *list) (int64, error) {
	if l.Location == "" {
		return p.query.CountSearchedProperties(ctx, db.CountSearchedPropertiesParams{Search: l.Search})
	}
	return p.query.CountSearchedPropertiesByLocation(ctx,
		db.CountSearchedPropertiesByLocationParams{Search: l.Search, Location: l.Location})
}

func (p *Panel) search(ctx context.Context, l *list) ([]db.SearchPropertiesRow, error) {
	if l.Location == "" {
		return p.query.SearchProperties(ctx, db.SearchPropertiesParams{
			Search: l.Search, Sort: l.Sort, Skip: l.Pager.skip(), Take: rowsPerPage,
		})
	}
	found, err := p.query.SearchPropertiesByLocation(ctx, db.SearchPropertiesByLocationParams{
		Search: l.Search, Location: l.Location, Sort: l.Sort, Skip: l.Pager.skip(), Take: rowsPerPage,
	})
	rows := make([]db.SearchPropertiesRow, len(found))
	for i, row := range found {
		rows[i] = db.SearchPropertiesRow(row)
	}
	return rows, err
}

// pager is where a page stands among the pages of a list.
type pager struct {
	Page, Pages    int64
	Previous, Next string // their URLs, or ""
}

// newPager reads which page is asked for. What is no page's number is the
// first's, and one past the end the last's: rows may have gone since the link
// was made.
func newPager(r *http.Request, rows int64) pager {
	g := pager{Pages: max(1, (rows+rowsPerPage-1)/rowsPerPage)}
	n, err := strconv.ParseInt(r.URL.Query().Get("page"), 10, 64)
	if err != nil {
		n = 1
	}
	g.Page = min(max(n, 1), g.Pages)
	if g.Page > 1 {
		g.Previous = pageURL(r, g.Page-1)
	}
	if g.Page < g.Pages {
		g.Next = pageURL(r, g.Page+1)
	}
	return g
}

func pageURL(r *http.Request, n int64) string {
	query := url.Values{}
	for _, name := range []string{"q", "location", "sort"} {
		if value := asked(r, name); value != "" {
			query.Set(name, value)
		}
	}
	query.Set("page", strconv.FormatInt(n, 10))
	return "?" + query.Encode()
}

func (g pager) skip() int64 { return (g.Page - 1) * rowsPerPage }
