package api

import (
	"fmt"
	"html/template"
	"iter"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"walcache/backend/db"
	"walcache/backend/edit"
	"walcache/proxy/web"
)

// helpers are what the templates in this package can call.
var helpers = template.FuncMap{
	"money": money,
	"path":  pathOf,
	"date":  func(t time.Time) string { return t.UTC().Format("January 2, 2006") },
	"stamp": func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
	"in":    func(location string) string { return search{location: location}.url(0) },
}

// money writes "2100.00" as people do: $2,100.00.
func money(price string) string {
	whole, cents, _ := strings.Cut(price, ".")
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	return "$" + whole + "." + cents
}

// servePage answers 200 with a page, or 304 to a client that has it.
func (a *api) servePage(w http.ResponseWriter, r *http.Request, name string, data any) error {
	page, err := a.pages.Render(name, data)
	if err != nil {
		return err
	}
	serveBody(w, r, asHTML, page)
	return nil
}

// writePage answers with a page whatever the request's conditions.
func (a *api) writePage(w http.ResponseWriter, status int, name string, data any) error {
	page, err := a.pages.Render(name, data)
	if err != nil {
		return err
	}
	web.Write(w, status, page)
	return nil
}

// listPage is the page of a list. It tells no time: a page that says when it was
// made is never the same twice, and no browser could keep it.
type listPage struct {
	search  search
	listing listing
	// Locations are those that the form offers.
	Locations []string
	// Direct says that the list was read past every cache. There it is always
	// whole, and has no form.
	Direct bool
}

func (listPage) Title() string                       { return "Property Listings" }
func (p listPage) Rows() iter.Seq[db.GetPropertyRow] { return p.listing.rows }
func (p listPage) Shown() int                        { return p.listing.shown }
func (p listPage) Count() int64                      { return p.listing.count }
func (p listPage) Search() string                    { return p.search.text }
func (p listPage) Location() string                  { return p.search.location }
func (p listPage) MinPrice() string                  { return p.search.minPrice }
func (p listPage) MaxPrice() string                  { return p.search.maxPrice }
func (p listPage) Format() string                    { return p.search.format }
func (p listPage) Filtered() bool                    { return p.search.filtered() }

// Narrowed reports whether the folded part of the form has something to show.
func (p listPage) Narrowed() bool {
	s := p.search
	s.text, s.format, s.page, s.size = "", "", 0, 0
	return s != search{}
}

// JSON is the URL of the same for programs.
func (p listPage) JSON() string {
	if p.Direct {
		return listPath + "no-cache/?format=json"
	}
	s := p.search
	s.format = "json"
	return s.url(s.page)
}

// option is one that a form offers.
type option struct {
	Value, Label string
	Selected     bool
}

func (p listPage) Sorts() (options []option) {
	labels := []string{"Newest first", "Oldest first", "Lowest price first", "Highest price first",
		"Title, A to Z", "Title, Z to A", "Location, A to Z", "Location, Z to A"}
	for i, name := range sorts {
		value := name
		if i == 0 {
			value = "" // what nobody has to ask for
		}
		options = append(options, option{value, labels[i], value == p.search.sort})
	}
	return options
}

func (p listPage) Sizes() []option {
	options := []option{{"", "All", p.search.size == 0}}
	sizes := []int64{10, 20, 50, 100}
	if p.search.size > 0 && !slices.Contains(sizes, p.search.size) {
		sizes = append(sizes, p.search.size)
		slices.Sort(sizes)
	}
	for _, n := range sizes {
		value := strconv.FormatInt(n, 10)
		options = append(options, option{value, value, n == p.search.size})
	}
	return options
}

// pager leads from a page of the list to others. An empty URL leads nowhere.
type pager struct {
	Page, Last                          int64
	FirstURL, PrevURL, NextURL, LastURL string
}

// Pager is nil where all is on one page.
func (p listPage) Pager() *pager {
	if p.search.size == 0 {
		return nil
	}
	to := p.search.pages(p.listing.count)
	url := func(page int64) string {
		if page == 0 {
			return ""
		}
		return p.search.url(page)
	}
	return &pager{p.search.page, to.Last, url(to.First), url(to.Prev), url(to.Next), url(to.Last)}
}

// propertyPage is the page of a property.
type propertyPage struct{ Property db.GetPropertyRow }

func (p propertyPage) Title() string { return p.Property.Title }

// problemPage is the page of an error.
type problemPage struct{ *problem }

func (p problemPage) Title() string {
	name := http.StatusText(p.status)
	if p.status == http.StatusUnprocessableEntity {
		return "Not accepted"
	}
	return name
}

// Reasons say what is wrong, field by field where there are any.
func (p problemPage) Reasons() edit.Invalid {
	if p.fields != nil {
		return p.fields
	}
	return edit.Invalid{{Field: p.field, Reason: p.reason}}
}

func (p problemPage) Status() string { return fmt.Sprint(p.status) }
