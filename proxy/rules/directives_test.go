package rules

import (
	"net/http"
	"slices"
	"testing"
	"time"
)

func TestParseCacheControl(t *testing.T) {
	for _, test := range []struct {
		name  string // with the section of RFC 9111, or RFC and section
		field string
		want  func(d *Directives) // what is said beside nothing
	}{
		{"5.2 nothing", "", func(*Directives) {}},
		{"5.2 unknown directives", `foo, bar=1, baz="no-store, private"`, func(*Directives) {}},
		{"5.2 case", "No-StOrE, PRIVATE", func(d *Directives) { d.NoStore, d.Private = true, true }},
		{"5.2 white space around commas", " no-store\t ,\tpublic ", func(d *Directives) { d.NoStore, d.Public = true, true }},
		{"5.2 empty members", ",, no-store,,", func(d *Directives) { d.NoStore = true }},
		{"5.2 duplicates", "no-store, no-store", func(d *Directives) { d.NoStore = true }},
		{"5.2 white space before the equals sign is not of the form", "max-age =100", func(d *Directives) { d.MaxAge = 0 }},
		{"5.2 white space behind the equals sign is not of the form", "max-age= 100", func(d *Directives) { d.MaxAge = 0 }},
		{"5.2 a time with a decimal point", "max-age=60.0", func(d *Directives) { d.MaxAge = 0 }},
		{"5.2 a time with a sign", "max-age=+60", func(d *Directives) { d.MaxAge = 0 }},
		{"5.2 a time in digits of another script", "max-age=٦٠", func(d *Directives) { d.MaxAge = 0 }},
		{"5.2 a time with leading zeros", "max-age=0060", func(d *Directives) { d.MaxAge = time.Minute }},
		{"5.2 a time without a value", "max-age", func(d *Directives) { d.MaxAge = 0 }},
		{"5.2 an empty time", "max-age=", func(d *Directives) { d.MaxAge = 0 }},
		{"5.2 double quotes", `max-age="1"`, func(d *Directives) { d.MaxAge = time.Second }},
		{"5.2 single quotes", "max-age='3600'", func(d *Directives) { d.MaxAge = 0 }},
		{"5.2 an empty quoted time", `max-age=""`, func(d *Directives) { d.MaxAge = 0 }},
		{"5.2 a directive within quotes", `x="max-age=100", max-age=1`, func(d *Directives) { d.MaxAge = time.Second }},
		{"5.2 a directive within quotes, behind", `max-age=1, x="max-age=100"`, func(d *Directives) { d.MaxAge = time.Second }},
		{"5.2 an escaped quote", `x="\", no-store", public`, func(d *Directives) { d.Public = true }},
		{"5.2 a quote that does not end hides nothing", `x="a, no-store`, func(d *Directives) { d.NoStore = true }},
		{"1.2.2 a time beyond 31 bits", "max-age=2147483649", func(d *Directives) { d.MaxAge = 1 << 31 * time.Second }},
		{"1.2.2 a time beyond 64 bits", "s-maxage=99999999999999999999", func(d *Directives) { d.SMaxAge = 1 << 31 * time.Second }},
		{"4.2.1 the shortest of two", "max-age=60, max-age=30", func(d *Directives) { d.MaxAge = 30 * time.Second }},
		{"4.2.1 the shortest, if it comes first", "max-age=30, max-age=60", func(d *Directives) { d.MaxAge = 30 * time.Second }},
		{"4.2.1 one of two cannot be read", "max-age=60, max-age=x", func(d *Directives) { d.MaxAge = 0 }},
		{"5.2.2.1 max-age", "max-age=60", func(d *Directives) { d.MaxAge = time.Minute }},
		{"5.2.2.2 must-revalidate", "must-revalidate", func(d *Directives) { d.MustRevalidate = true }},
		{"5.2.2.3 must-understand", "must-understand, no-store", func(d *Directives) { d.MustUnderstand, d.NoStore = true, true }},
		{"5.2.2.4 no-cache", "no-cache", func(d *Directives) { d.NoCache = true }},
		{"5.2.2.4 no-cache for a field", `no-cache="Set-Cookie"`, func(d *Directives) { d.NoCacheFields = []string{"Set-Cookie"} }},
		{"5.2.2.4 no-cache for fields", `no-cache="set-cookie, x-user"`, func(d *Directives) { d.NoCacheFields = []string{"Set-Cookie", "X-User"} }},
		{"5.2.2.4 no-cache both ways", `no-cache, no-cache="a"`, func(d *Directives) { d.NoCache, d.NoCacheFields = true, []string{"A"} }},
		{"5.2.2.4 no-cache without quotes", "no-cache=set-cookie", func(d *Directives) { d.NoCache = true }},
		{"5.2.2.4 no-cache for no field", `no-cache=""`, func(d *Directives) { d.NoCache = true }},
		{"5.2.2.4 no-cache for what is no field", `no-cache="a b"`, func(d *Directives) { d.NoCache = true }},
		{"5.2.2.4 no-cache for the coding of the body", `no-cache="Content-Encoding"`, func(d *Directives) { d.NoCache = true }},
		{"5.2.2.7 private", "private", func(d *Directives) { d.Private = true }},
		{"5.2.2.7 private for fields", `private="a, b"`, func(d *Directives) { d.PrivateFields = []string{"A", "B"} }},
		{"5.2.2.7 private for fields, twice", `private="a", private="b"`, func(d *Directives) { d.PrivateFields = []string{"A", "B"} }},
		{"5.2.2.7 private with a yes", "private=true", func(d *Directives) { d.Private = true }},
		{"5.2.2.7 private with commas only", `private=", ,"`, func(d *Directives) { d.Private = true }},
		{"5.2.2.7 private for any field", `private="*"`, func(d *Directives) { d.Private = true }},
		{"5.2.2.7 private with white space", `private ="a"`, func(d *Directives) { d.Private = true }},
		{"5.2.2.7 private with a quote that does not end", `private="a`, func(d *Directives) { d.Private = true }},
		{"5.2.2.7 private for where to go", `private="Location"`, func(d *Directives) { d.Private = true }},
		{"5.2.2.8 proxy-revalidate", "proxy-revalidate", func(d *Directives) { d.ProxyRevalidate = true }},
		{"5.2.2.9 public", "public", func(d *Directives) { d.Public = true }},
		{"5.2.2.10 s-maxage", "s-maxage=60", func(d *Directives) { d.SMaxAge = time.Minute }},
		{"8246-2 immutable", "immutable", func(d *Directives) { d.Immutable = true }},
		{"5861-3 stale-while-revalidate", "stale-while-revalidate=60", func(d *Directives) { d.WhileRevalidate = time.Minute }},
		{"5861-4 stale-if-error", "stale-if-error=60", func(d *Directives) { d.IfError = time.Minute }},
		{"5861-4 stale-if-error that cannot be read", "stale-if-error", func(d *Directives) { d.IfError = 0 }},
		{"5.2.1.2 max-stale", "max-stale=60", func(d *Directives) { d.MaxStale = time.Minute }},
		{"5.2.1.2 max-stale for any time", "max-stale", func(d *Directives) { d.MaxStale = 1 << 31 * time.Second }},
		{"5.2.1.2 max-stale that cannot be read", "max-stale=x", func(d *Directives) { d.MaxStale = 0 }},
		{"5.2.1.3 min-fresh", "min-fresh=60", func(d *Directives) { d.MinFresh = time.Minute }},
		{"5.2.1.3 min-fresh, the longest of two", "min-fresh=30, min-fresh=60", func(d *Directives) { d.MinFresh = time.Minute }},
		{"5.2.1.7 only-if-cached", "only-if-cached", func(d *Directives) { d.OnlyIfCached = true }},
	} {
		t.Run(test.name, func(t *testing.T) {
			want := newDirectives()
			test.want(&want)
			if got := ParseCacheControl([]string{test.field}); !same(got, want) {
				t.Errorf("%q gives %+v", test.field, got)
			}
		})
	}
}

func same(a, b Directives) bool {
	if !slices.Equal(a.NoCacheFields, b.NoCacheFields) || !slices.Equal(a.PrivateFields, b.PrivateFields) {
		return false
	}
	flags := func(d Directives) [9]bool {
		return [9]bool{d.NoStore, d.NoCache, d.Private, d.Public, d.MustRevalidate, d.ProxyRevalidate, d.MustUnderstand, d.OnlyIfCached, d.Immutable}
	}
	times := func(d Directives) [6]time.Duration {
		return [6]time.Duration{d.MaxAge, d.SMaxAge, d.WhileRevalidate, d.IfError, d.MaxStale, d.MinFresh}
	}
	return flags(a) == flags(b) && times(a) == times(b)
}

func TestParseTargeted(t *testing.T) {
	for _, test := range []struct {
		name  string // with the RFC and section
		lines []string
		void  bool
		want  func(d *Directives)
	}{
		{"9213-2.1 max-age", []string{"max-age=60"}, false, func(d *Directives) { d.MaxAge = time.Minute }},
		{"9213-2.1 two lines", []string{"max-age=60", "must-revalidate"}, false, func(d *Directives) { d.MaxAge, d.MustRevalidate = time.Minute, true }},
		{"9213-2.1 parameters mean nothing", []string{"max-age=60;x=1"}, false, func(d *Directives) { d.MaxAge = time.Minute }},
		{"9213-2.1 an unknown directive", []string{"foo=(a b), max-age=60"}, false, func(d *Directives) { d.MaxAge = time.Minute }},
		{"9213-2.1 a false", []string{"no-store=?0"}, false, func(*Directives) {}},
		{"9213-2.1 names of fields", []string{`no-cache="a, b", private="c"`}, false, func(d *Directives) { d.NoCacheFields, d.PrivateFields = []string{"A", "B"}, []string{"C"} }},
		{"9213-2.1 names of fields as an inner list", []string{`private=("a" "b")`}, false, func(d *Directives) { d.Private = true }},
		{"9213-2.1 names of fields as a token", []string{`private=a`}, false, func(d *Directives) { d.Private = true }},
		{"9213-2.1 a string for a time", []string{`max-age="60"`}, false, func(d *Directives) { d.MaxAge = 0 }},
		{"9213-2.1 a decimal for a time", []string{"max-age=60.5"}, false, func(d *Directives) { d.MaxAge = 0 }},
		{"9213-2.1 a negative time", []string{"max-age=-60"}, false, func(d *Directives) { d.MaxAge = 0 }},
		{"9213-2.1 no time", []string{"max-age"}, false, func(d *Directives) { d.MaxAge = 0 }},
		{"9213-2.1 a permission of the wrong type", []string{`public="x", must-understand=x, immutable=1.5`}, false, func(*Directives) {}},
		{"9213-2.1 must-revalidate of the wrong type only forbids", []string{`must-revalidate="x"`}, false, func(d *Directives) { d.ProxyRevalidate = true }},
		{"9213-2.1 the last of two counts, as in any dictionary", []string{"max-age=60, max-age=30"}, false, func(d *Directives) { d.MaxAge = 30 * time.Second }},
		{"1.2.2 an enormous time", []string{"max-age=999999999999999"}, false, func(d *Directives) { d.MaxAge = 1 << 31 * time.Second }},
		{"9213-2.2 does not parse", []string{"max-age=60, &&&"}, true, nil},
		{"9213-2.2 a number that is too long to parse", []string{"max-age=9999999999999999"}, true, nil},
		{"9213-2.2 one line of two does not parse", []string{"max-age=60", "=="}, true, nil},
		{"9213-2.2 a trailing comma", []string{"max-age=60,"}, true, nil},
		{"9213-2.2 upper case", []string{"MAX-AGE=60"}, true, nil},
		{"9213-2.2 white space before the equals sign", []string{"max-age =60"}, true, nil},
		{"9213-2.2 white space behind the equals sign", []string{"max-age= 60"}, true, nil},
		{"9213-2.2 empty", []string{""}, true, nil},
		{"9213-2.2 absent", nil, true, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			want := newDirectives()
			if !test.void {
				test.want(&want)
			}
			if got, ok := ParseTargeted(test.lines); ok == test.void || !same(got, want) {
				t.Errorf("%q gives %+v, %v", test.lines, got, ok)
			}
		})
	}
}

func TestAsks(t *testing.T) {
	for _, test := range []struct {
		name    string
		header  http.Header
		noCache bool
	}{
		{"5.4 nothing", header(), false},
		{"5.4 Pragma", header("Pragma: no-cache"), true},
		{"5.4 Pragma in capitals", header("Pragma: No-Cache"), true},
		{"5.4 Pragma of two lines", header("Pragma: x", "Pragma: no-cache"), true},
		{"5.4 another Pragma", header("Pragma: x"), false},
		{"5.4 Pragma beside Cache-Control", header("Pragma: no-cache", "Cache-Control: max-age=60"), false},
		{"5.4 Pragma beside an empty Cache-Control", header("Pragma: no-cache", "Cache-Control: "), false},
		{"5.2.1.4 no-cache", header("Cache-Control: no-cache"), true},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := Asks(test.header); got.NoCache != test.noCache {
				t.Errorf("%v gives %+v", test.header, got)
			}
		})
	}
}

func TestAccepts(t *testing.T) {
	const s = time.Second
	for _, test := range []struct {
		name          string
		field         string
		age, lifetime time.Duration
		fresh         bool // for an answer that is fresh
		expired       bool // for one that is not
	}{
		{"5.2.1 nothing", "", 10 * s, 60 * s, true, false},
		{"5.2.1.1 max-age, younger", "max-age=10", 9 * s, 60 * s, true, false},
		{"5.2.1.1 max-age, as old", "max-age=10", 10 * s, 60 * s, true, false},
		{"5.2.1.1 max-age, older", "max-age=10", 11 * s, 60 * s, false, false},
		{"5.2.1.1 max-age=0", "max-age=0", s, 60 * s, false, false},
		{"5.2.1.1 max-age=0 of what was made this moment", "max-age=0", 0, 60 * s, false, false},
		{"5.2.1.1 max-age that cannot be read", "max-age=x", s, 60 * s, false, false},
		{"5.2.1.2 max-stale, within", "max-stale=10", 70 * s, 60 * s, true, true},
		{"5.2.1.2 max-stale, beyond", "max-stale=10", 71 * s, 60 * s, true, false},
		{"5.2.1.2 max-stale, any", "max-stale", 7000 * s, 60 * s, true, true},
		{"5.2.1.2 max-stale and max-age", "max-stale=10, max-age=5", 65 * s, 60 * s, false, false},
		{"5.2.1.2 max-stale and no-cache", "max-stale=10, no-cache", 65 * s, 60 * s, false, false},
		{"5.2.1.2 max-stale and min-fresh", "max-stale=10, min-fresh=1", 65 * s, 60 * s, false, false},
		{"5.2.1.3 min-fresh, enough left", "min-fresh=50", 10 * s, 60 * s, true, false},
		{"5.2.1.3 min-fresh, too little left", "min-fresh=51", 10 * s, 60 * s, false, false},
		{"5.2.1.3 min-fresh beyond any lifetime", "min-fresh=99999999999", 10 * s, 60 * s, false, false},
		{"5.2.1.4 no-cache", "no-cache", 0, 60 * s, false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := ParseCacheControl([]string{test.field})
			isFresh := test.age < test.lifetime
			if got := d.Accepts(test.age, test.lifetime); isFresh && got != test.fresh {
				t.Errorf("fresh: %v", got)
			}
			if got := d.AcceptsExpired(test.age, test.lifetime); !isFresh && got != test.expired {
				t.Errorf("expired: %v", got)
			}
		})
	}
}

func FuzzCacheControl(f *testing.F) {
	for _, seed := range []string{"max-age=60", `private="a, b", s-maxage=1`, `=,"`, "max-age=99999999999999999999", `a="\`, `no-cache="Set-Cookie"`, "max-age= 1, max-stale"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, field string) {
		d := ParseCacheControl([]string{field})
		for _, got := range []time.Duration{d.MaxAge, d.SMaxAge, d.WhileRevalidate, d.IfError, d.MaxStale, d.MinFresh} {
			if got != Unset && (got < 0 || got > maxDelta*time.Second) {
				t.Errorf("%q gives %s", field, got)
			}
		}
		for _, name := range slices.Concat(d.NoCacheFields, d.PrivateFields) {
			if name != http.CanonicalHeaderKey(name) || isEssential(name) {
				t.Errorf("%q names %q", field, name)
			}
		}
		// A shared cache must not overlook a directive that stands at the end.
		for _, last := range []string{"no-store", "private", "no-cache"} {
			d := ParseCacheControl([]string{field + ", " + last})
			if !d.NoStore && !d.Private && !d.NoCache {
				t.Errorf("%s is not seen behind %q", last, field)
			}
		}
		// Nor by how it is written, or on which line.
		if d := ParseCacheControl([]string{field, "No-Store"}); !d.NoStore {
			t.Errorf("no-store is not seen on a line behind %q", field)
		}
	})
}

func FuzzTargeted(f *testing.F) {
	for _, seed := range []string{"max-age=60", `private="a, b", s-maxage=1`, "no-store=?0", "max-age=-1.5;a, ==", "a=(b c);d", "max-age=:AA==:, public"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, field string) {
		d, ok := ParseTargeted([]string{field})
		if !ok && !same(d, newDirectives()) {
			t.Errorf("%q counts for nothing, and says %+v", field, d)
		}
		for _, got := range []time.Duration{d.MaxAge, d.SMaxAge, d.WhileRevalidate, d.IfError, d.MaxStale, d.MinFresh} {
			if got != Unset && (got < 0 || got > maxDelta*time.Second) {
				t.Errorf("%q gives %s", field, got)
			}
		}
		// What makes it void as a whole does so wherever it stands.
		if d, ok := ParseTargeted([]string{field + ", =="}); ok {
			t.Errorf("%q gives %+v although it does not parse", field+", ==", d)
		}
	})
}
