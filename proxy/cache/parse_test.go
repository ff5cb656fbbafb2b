package cache

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"walcache/proxy/coherence"
)

func TestReduceEncoding(t *testing.T) {
	for field, want := range map[string]string{
		"":                                    "identity",
		"gzip":                                "gzip",
		"gzip, deflate":                       "gzip",
		"gzip, deflate, br, zstd":             "zstd",
		"gzip, deflate, br":                   "br",
		"GZIP":                                "gzip",
		"x-gzip":                              "gzip",
		"deflate":                             "identity",
		"identity":                            "identity",
		"*":                                   "zstd",
		"*;q=0":                               "identity",
		"gzip;q=0, *":                         "zstd",
		"zstd;q=0, br;q=0, *":                 "gzip",
		"gzip;q=0":                            "identity",
		"br;q=0.5, gzip;q=0.8":                "gzip",
		"br;q=0.8, gzip;q=0.8":                "br",
		"gzip;q=0.5, identity":                "identity",
		"gzip;q=0.5, identity;q=0.5":          "gzip",
		"gzip;q=0.5, identity;q=0.4":          "gzip",
		"identity;q=0, br":                    "br",
		"gzip;q=x":                            "identity",
		"gzip;q=2":                            "identity",
		"gzip;q=NaN":                          "identity",
		" gzip ; q=0.001 ":                    "gzip",
		"gzip;level=1;q=0, br;q=0.1":          "br",
		",,gzip,,":                            "gzip",
		"gzip;q=0.9, gzip;q=0.1, br;q=0.5":    "gzip",
		"compress;q=0.5, zstd;q=0.0, br;q=.7": "br",
	} {
		if got := reduceEncoding([]string{field}); got != want {
			t.Errorf("%q: %s, want %s", field, got, want)
		}
	}
	if got := reduceEncoding([]string{"gzip", "br"}); got != "br" {
		t.Errorf("of two lines: %s", got)
	}
}

func TestMembers_KeepQuotedCommasTogether(t *testing.T) {
	var got []string
	for name, value := range members([]string{`a, b=1 ,c="x, \", y",`, "", " D = 2 ", `e="open, f`}) {
		got = append(got, name+"|"+value)
	}
	want := []string{"a|", "b|1", `c|x, \", y`, "D|2", `e|"open`, "f|"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

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
		q := request{asks: asks(test.header)}
		if q.wantsProof() != test.proof {
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

func TestNotModified(t *testing.T) {
	for _, test := range []struct {
		header http.Header
		want   bool
	}{
		{header(), false},
		{header(`If-None-Match: "x"`), true},
		{header(`If-None-Match: W/"x"`), true},
		{header(`If-None-Match: "y"`), false},
		{header(`If-None-Match: "a,b", "x"`), true},
		{header(`If-None-Match: "y"`, `If-None-Match: "x"`), true},
		{header(`If-None-Match: *`), true},
		{header(`If-None-Match: x`), false},
		{header(`If-None-Match: "x`), false},
		{header("If-Modified-Since: Sun, 22 Nov 2026 12:00:00 GMT"), true},
		{header("If-Modified-Since: Sun, 22 Nov 2026 12:00:01 GMT"), true},
		{header("If-Modified-Since: Sun, 22 Nov 2026 11:59:59 GMT"), false},
		{header("If-Modified-Since: yesterday"), false},
		// RFC 9110, section 13.1.3: ignored beside If-None-Match.
		{header(`If-None-Match: "y"`, "If-Modified-Since: Sun, 22 Nov 2026 12:00:00 GMT"), false},
	} {
		if got := notModified(test.header, `"x"`, noon); got != test.want {
			t.Errorf("%v: %v", test.header, got)
		}
	}
	if notModified(header(`If-None-Match: ""`), "", time.Time{}) {
		t.Error("an answer without validators was called unmodified")
	}
}

func FuzzCacheControl(f *testing.F) {
	for _, seed := range []string{"max-age=60", `private="a, b", s-maxage=1`, `=,"`, "max-age=99999999999999999999", `a="\`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, field string) {
		d := parseCacheControl([]string{field})
		for _, got := range []time.Duration{d.maxAge, d.sMaxAge, d.whileRevalidate, d.ifError} {
			if got != unset && (got < 0 || got > maxDelta*time.Second) {
				t.Errorf("%q gives %s", field, got)
			}
		}
		// A shared cache must not overlook a directive that stands at the end.
		if !parseCacheControl([]string{field + ", no-store"}).noStore {
			t.Errorf("no-store is not seen behind %q", field)
		}
		parseTargeted([]string{field})
	})
}

func FuzzAcceptEncoding(f *testing.F) {
	for _, seed := range []string{"gzip, deflate, br, zstd", "*;q=0", "gzip;q=0.5, identity;q=1", ";;q==,,", "br;q=1e-9"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, field string) {
		got := reduceEncoding([]string{field})
		if !slices.Contains(codings[:], got) {
			t.Fatalf("%q gives %q", field, got)
		}
		// Never a coding that the client does not name.
		if lower := strings.ToLower(field); got != "identity" && !strings.Contains(lower, got) && !strings.Contains(lower, "*") {
			t.Errorf("%q gives %q", field, got)
		}
		if again := reduceEncoding([]string{got}); again != got {
			t.Errorf("%q reduced twice gives %q", got, again)
		}
	})
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
