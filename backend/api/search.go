package api

import (
	"fmt"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"walcache/backend/db"
	"walcache/backend/edit"
)

const (
	defaultPageSize = 20
	maxPageSize     = 100
	maxPage         = 1_000_000_000
	maxSearch       = 255 // characters
)

// sorts are the orders of a list; the first is that of a list that names none.
var sorts = []string{"-created_at", "created_at", "price", "-price", "title", "-title", "location", "-location"}

// search is which properties a list shows, and in what order: the query of its
// URL. What is empty or 0 was not asked for.
type search struct {
	text, location     string
	minPrice, maxPrice string // as edit.Amount has them
	sort               string // never the first of sorts
	page, size         int64  // both 0: all on one page
	format             string // so that the links lead to the same
}

// readSearch reads a query. A parameter that is empty is one that was not given,
// since a form without JavaScript sends all it has; one that is not known is
// ignored.
func readSearch(rawQuery string) (s search, err error) {
	query, err := url.ParseQuery(rawQuery)
	if err != nil {
		return s, wrong("query", err.Error())
	}
	for _, p := range []struct {
		name string
		read func(value string) (reason string)
	}{
		{"search", func(v string) string {
			s.text = strings.TrimSpace(v)
			return tooLong(s.text, maxSearch)
		}},
		{"location", func(v string) string { s.location = v; return "" }},
		{"min_price", amount(&s.minPrice)},
		{"max_price", amount(&s.maxPrice)},
		{"sort", s.readSort},
		{"page", whole(&s.page, maxPage)},
		{"page_size", whole(&s.size, maxPageSize)},
		{"format", func(v string) string { s.format = v; return "" }},
	} {
		value, err := single(query, p.name)
		if err != nil {
			return s, err
		}
		if value == "" {
			continue
		}
		if reason := p.read(value); reason != "" {
			return s, wrong(p.name, reason)
		}
	}
	switch {
	case s.page > 0 && s.size == 0:
		s.size = defaultPageSize
	case s.page == 0 && s.size > 0:
		s.page = 1
	}
	if s.minPrice != "" && s.maxPrice != "" && lessAmount(s.maxPrice, s.minPrice) {
		return s, wrong("min_price", "must not be more than max_price")
	}
	return s, nil
}

// single is the value of a parameter that may be given once, or "".
func single(query url.Values, name string) (string, error) {
	switch values := query[name]; {
	case len(values) == 0:
		return "", nil
	case len(values) > 1:
		return "", wrong(name, "given more than once")
	case !utf8.ValidString(values[0]):
		return "", wrong(name, "must be UTF-8")
	case strings.ContainsRune(values[0], 0):
		return "", wrong(name, "must not contain a NUL")
	default:
		return values[0], nil
	}
}

func tooLong(s string, most int) string {
	if utf8.RuneCountInString(s) > most {
		return fmt.Sprintf("must have at most %d characters", most)
	}
	return ""
}

func amount(to *string) func(string) string {
	return func(v string) (reason string) {
		*to, reason = edit.Amount(v)
		return reason
	}
}

// lessAmount compares two amounts as edit.Amount writes them.
func lessAmount(a, b string) bool {
	if len(a) != len(b) {
		return len(a) < len(b)
	}
	return a < b
}

func whole(to *int64, most int64) func(string) string {
	return func(v string) string {
		n, err := strconv.ParseUint(v, 10, 63)
		if err != nil || n < 1 || int64(n) > most {
			return fmt.Sprintf("must be a whole number from 1 to %d", most)
		}
		*to = int64(n)
		return ""
	}
}

func (s *search) readSort(v string) string {
	if !slices.Contains(sorts, v) {
		return "must be one of " + strings.Join(sorts, ", ")
	}
	if v != sorts[0] {
		s.sort = v
	}
	return ""
}

// filtered reports whether some properties may not be among those looked for.
func (s search) filtered() bool {
	return s.location != "" || s.excludes()
}

// excludes reports whether more than the location decides.
func (s search) excludes() bool {
	return s.text != "" || s.minPrice != "" || s.maxPrice != ""
}

// plain reports whether this is a list that has a query of its own: newest
// first, all of a location or of all.
func (s search) plain() bool {
	return !s.excludes() && s.sort == "" && s.size == 0
}

// skip and take are the rows of the page.
func (s search) skip() int64 { return max(0, s.page-1) * s.size }

func (s search) take() int64 {
	if s.size == 0 {
		return math.MaxInt64
	}
	return s.size
}

// inLocation makes the parameters for one location of those for all.
func (s search) inLocation() db.SearchPropertiesByLocationParams {
	return db.SearchPropertiesByLocationParams{Location: s.location, Search: s.text,
		MinPrice: s.minPrice, MaxPrice: s.maxPrice, Sort: s.sort, Skip: s.skip(), Take: s.take()}
}

func (s search) everywhere() db.SearchPropertiesParams {
	return db.SearchPropertiesParams{Search: s.text,
		MinPrice: s.minPrice, MaxPrice: s.maxPrice, Sort: s.sort, Skip: s.skip(), Take: s.take()}
}

// url is the list's, on another page. It is the same for the same search.
func (s search) url(page int64) string {
	query := url.Values{}
	for name, value := range map[string]string{"search": s.text, "location": s.location, "format": s.format,
		"min_price": s.minPrice, "max_price": s.maxPrice, "sort": s.sort} {
		if value != "" {
			query.Set(name, value)
		}
	}
	if s.size > 0 {
		query.Set("page", strconv.FormatInt(page, 10))
		query.Set("page_size", strconv.FormatInt(s.size, 10))
	}
	if len(query) == 0 {
		return listPath
	}
	return listPath + "?" + query.Encode()
}

// pages are the pages that one may turn to from a page of a list; 0 is none.
type pages struct{ First, Prev, Next, Last int64 }

func (s search) pages(count int64) pages {
	p := pages{First: 1, Last: max(1, (count+s.size-1)/s.size)}
	if s.page > 1 {
		p.Prev = min(s.page-1, p.Last) // back into the list, from past its end
	}
	if s.page < p.Last {
		p.Next = s.page + 1
	}
	return p
}

// links writes the Link header of a page (RFC 8288).
func (s search) links(count int64) string {
	p := s.pages(count)
	var links []string
	for _, l := range []struct {
		relation string
		page     int64
	}{{"first", p.First}, {"prev", p.Prev}, {"next", p.Next}, {"last", p.Last}} {
		if l.page > 0 {
			links = append(links, fmt.Sprintf(`<%s>; rel="%s"`, s.url(l.page), l.relation))
		}
	}
	return strings.Join(links, ", ")
}
