package api

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// answered is a list as programs read it.
type answered struct {
	Properties []struct {
		ID    int64
		Title string
	}
	Count  int64
	Cached bool
}

func (s *site) list(path string) (l answered, link string) {
	s.t.Helper()
	w, body := s.do("GET", path)
	if err := json.Unmarshal([]byte(body), &l); err != nil || w.StatusCode != 200 {
		s.t.Fatalf("%s: %d %v %s", path, w.StatusCode, err, body)
	}
	return l, w.Header.Get("Link")
}

func (l answered) titles() (titles []string) {
	for _, p := range l.Properties {
		titles = append(titles, p.Title)
	}
	return titles
}

const insertFive = `INSERT INTO properties (title, description, price, location, created_at) VALUES
	('Loft', 'Bright', 10.50, 'Nairobi', '2026-01-01Z'),
	('attic', '50% off_', 9, 'Kisumu', '2026-01-02Z'),
	('Barn', 'LOFTY', 1000, 'Nairobi', '2026-01-03Z'),
	('Cabin', '', 99999999.99, 'Lagos & co', '2026-01-04Z'),
	('Den', 'x', 10.51, 'loft lane', '2026-01-05Z')`

func TestSearch_FindsSortsAndCounts(t *testing.T) {
	s := newMigratedSite(t)
	s.exec(insertFive)
	for query, want := range map[string]string{
		"":                             "Den Cabin Barn attic Loft",
		"search=loft":                  "Den Barn Loft",
		"search=+LOFT+":                "Den Barn Loft",
		"search=%25":                   "attic",
		"search=_":                     "attic",
		"search=nothing":               "",
		"search=loft&location=Nairobi": "Barn Loft",
		"min_price=10.51":              "Den Cabin Barn",
		"max_price=10.5":               "attic Loft",
		"min_price=10&max_price=11":    "Den Loft",
		"min_price=9&max_price=1000&location=Nairobi": "Barn Loft",
		"min_price=0&max_price=99999999.99":           "Den Cabin Barn attic Loft",
		"sort=price":                                  "attic Loft Den Barn Cabin",
		"sort=-price":                                 "Cabin Barn Den Loft attic",
		"sort=title":                                  "attic Barn Cabin Den Loft",
		"sort=-title":                                 "Loft Den Cabin Barn attic",
		"sort=location":                               "attic Cabin Den Barn Loft",
		"sort=-location":                              "Barn Loft Den Cabin attic",
		"sort=created_at":                             "Loft attic Barn Cabin Den",
		"sort=-created_at":                            "Den Cabin Barn attic Loft",
		"sort=price&location=Nairobi":                 "Loft Barn",
		"search=&location=&min_price=&max_price=&sort=&page=&page_size=&format=": "Den Cabin Barn attic Loft",
	} {
		got, link := s.list("/properties/?" + query)
		if titles := strings.Join(got.titles(), " "); titles != want || int(got.Count) != len(got.Properties) || link != "" {
			t.Errorf("%s: %s, %d, Link %q; want %s", query, titles, got.Count, link, want)
		}
	}
}

func TestPages_CountAllAndLinkToEachOther(t *testing.T) {
	s := newMigratedSite(t)
	s.exec(insertFive)
	for _, c := range []struct {
		query, titles string
		count         int64
		link          string
	}{
		{"page=1", "Den Cabin Barn attic Loft", 5, `<1&20>; rel="first", <1&20>; rel="last"`},
		{"page_size=2", "Den Cabin", 5, `<1&2>; rel="first", <2&2>; rel="next", <3&2>; rel="last"`},
		{"page_size=2&page=2", "Barn attic", 5, `<1&2>; rel="first", <1&2>; rel="prev", <3&2>; rel="next", <3&2>; rel="last"`},
		{"page_size=2&page=3", "Loft", 5, `<1&2>; rel="first", <2&2>; rel="prev", <3&2>; rel="last"`},
		{"page_size=2&page=4", "", 5, `<1&2>; rel="first", <3&2>; rel="prev", <3&2>; rel="last"`},
		{"page_size=100&page=1000000000", "", 5, `<1&100>; rel="first", <1&100>; rel="prev", <1&100>; rel="last"`},
		{"page=1&search=nothing", "", 0, `<1&20&search=nothing>; rel="first", <1&20&search=nothing>; rel="last"`},
		{"page_size=1&search=loft&location=Nairobi&sort=price&min_price=1&utm_source=x", "Loft", 2,
			`<1&1&search=loft&location=Nairobi&sort=price&min_price=1.00>; rel="first", ` +
				`<2&1&search=loft&location=Nairobi&sort=price&min_price=1.00>; rel="next", <2&1&search=loft&location=Nairobi&sort=price&min_price=1.00>; rel="last"`},
		{"page=1&location=Lagos+%26+co&format=json", "Cabin", 1,
			`<1&20&location=Lagos+%26+co&format=json>; rel="first", <1&20&location=Lagos+%26+co&format=json>; rel="last"`},
		{"page_size=1&max_price=10.5", "attic", 2, `<1&1&max_price=10.50>; rel="first", <2&1&max_price=10.50>; rel="next", <2&1&max_price=10.50>; rel="last"`},
	} {
		got, link := s.list("/properties/?" + c.query)
		if titles := strings.Join(got.titles(), " "); titles != c.titles || got.Count != c.count {
			t.Errorf("%s: %s, %d", c.query, titles, got.Count)
		}
		if short := shorten(t, link); short != shorten(t, expand(c.link)) {
			t.Errorf("%s: Link %s", c.query, link)
		}
	}
}

// expand writes <2&20&x=y> of a test as the URL that it stands for.
func expand(links string) string {
	var all []string
	for link := range strings.SplitSeq(links, ", ") {
		target, rel, _ := strings.Cut(strings.TrimPrefix(link, "<"), ">")
		parts := strings.SplitN(target, "&", 3)
		query := fmt.Sprintf("page=%s&page_size=%s", parts[0], parts[1])
		if len(parts) == 3 {
			query += "&" + parts[2]
		}
		all = append(all, "</properties/?"+query+">"+rel)
	}
	return strings.Join(all, ", ")
}

// shorten writes links with their parameters in order.
func shorten(t *testing.T, links string) string {
	t.Helper()
	var all []string
	for link := range strings.SplitSeq(links, ", ") {
		target, rel, _ := strings.Cut(strings.TrimPrefix(link, "<"), ">")
		u, err := url.Parse(target)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, u.Path+"?"+u.Query().Encode()+rel)
	}
	return strings.Join(all, ", ")
}

func TestPages_FollowedByTheirLinksAreTheList(t *testing.T) {
	s := newMigratedSite(t)
	s.exec(insertFive)
	all, _ := s.list("/properties/?sort=title")
	var found []string
	for path := "/properties/?sort=title&page_size=2"; path != ""; {
		page, link := s.list(path)
		found = append(found, page.titles()...)
		path = ""
		for l := range strings.SplitSeq(link, ", ") {
			if target, isNext := strings.CutSuffix(l, `>; rel="next"`); isNext {
				path = strings.TrimPrefix(target, "<")
			}
		}
	}
	if !slices.Equal(found, all.titles()) {
		t.Errorf("the pages have %q, the list %q", found, all.titles())
	}
}

func TestSearch_DependsOnWhatItReads(t *testing.T) {
	s := newMigratedSite(t)
	for path, want := range map[string]string{
		"/properties/?search=x":                      `"properties", "releases"`,
		"/properties/?page=1":                        `"properties", "releases"`,
		"/properties/?search=x&location=a&page=1":    `"properties/location=a", "releases"`,
		"/properties/?location=a&format=html":        `"properties/location=a", "releases"`,
		"/properties/?location=a&page=2&format=html": `"properties/location=a", "releases"`,
		"/properties/?format=html":                   `"properties", "releases"`,
		"/properties/7/?format=html":                 `"properties/id=7", "releases"`,
	} {
		w, _ := s.do("GET", path)
		expectHeader(t, path, w, "Cache-Groups", want)
		expectHeader(t, path, w, "As-Of-LSN", "request")
	}
}
