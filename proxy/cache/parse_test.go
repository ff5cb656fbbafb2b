package cache

import (
	"net/http"
	"slices"
	"testing"
	"time"

	"walcache/proxy/coherence"
	"walcache/proxy/rules"
)

func TestAsks_PragmaCountsOnlyWithoutCacheControl(t *testing.T) {
	for _, test := range []struct {
		header http.Header
		proof  bool
	}{
		{header(), false},
		{header("Pragma: no-cache"), true},
		{header("Pragma: no-cache", "Cache-Control: max-age=60"), false},
		{header("Cache-Control: no-cache"), true},
		{header("Cache-Control: max-age=0"), true},
	} {
		q := request{asks: rules.Asks(test.header)}
		if q.takes(time.Second, time.Hour) == test.proof {
			t.Errorf("%v: %v", test.header, !test.proof)
		}
	}
}

func TestParseTags(t *testing.T) {
	for field, want := range map[string][]coherence.Tag{
		`"properties/id=1", "users"`: {"properties/id=1", "users"},
		`"a";x=1`:                    {"a"},
		"":                           nil,
		`a`:                          nil,
		`"a", b`:                     nil,
		`"a", ("b")`:                 nil,
		`"a", 1`:                     nil,
		`"a`:                         nil,
	} {
		if got := parseTags([]string{field}); !slices.Equal(got, want) {
			t.Errorf("%s: %q", field, got)
		}
	}
}

func TestGlob_StarCrossesSlashes(t *testing.T) {
	for _, test := range []struct {
		pattern, s string
		want       bool
	}{
		{"/admin/*", "/admin/", true},
		{"/admin/*", "/admin/a/b", true},
		{"/admin/*", "/admin", false},
		{"/admin/*", "/x/admin/a", false},
		{"/cart*", "/cart", true},
		{"/cart*", "/carts/1", true},
		{"*.json", "/a/b.json", true},
		{"*.json", "/a/b.jsonp", false},
		{"/a*b*c", "/abc", true},
		{"/a*b*c", "/a/b/b/c", true},
		{"/a*b*c", "/acb", false},
		{"/aa*aa", "/aaa", false},
		{"/exact", "/exact", true},
		{"/exact", "/exact/", false},
		{"*", "", true},
		{"/[a]?", "/[a]?", true},
	} {
		globs, err := parseGlobs([]string{test.pattern})
		if err != nil || anyMatches(globs, test.s) != test.want {
			t.Errorf("%q on %q: %v, %v", test.pattern, test.s, !test.want, err)
		}
	}
	if _, err := parseGlobs([]string{""}); err == nil {
		t.Error("an empty pattern was accepted")
	}
}

func FuzzCacheGroups(f *testing.F) {
	for _, seed := range []string{`"properties/id=1", "users"`, `"a";x=1`, `("a")`, `a, 1`, `"`} {
		f.Add(seed)
	}
	catalog := &coherence.Catalog{Tables: map[string]coherence.Table{"users": {}}}
	f.Fuzz(func(t *testing.T, field string) {
		tags := parseTags([]string{field})
		if deps, whole := catalog.Narrow(tags); len(deps) == 0 || len(tags) == 0 && !whole {
			t.Errorf("%q depends on nothing", field)
		}
	})
}
