package rules

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
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
		if got := ReduceEncoding([]string{field}); got != want {
			t.Errorf("%q: %s, want %s", field, got, want)
		}
	}
	if got := ReduceEncoding([]string{"gzip", "br"}); got != "br" {
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
		if got := NotModified(test.header, `"x"`, noon); got != test.want {
			t.Errorf("%v: %v", test.header, got)
		}
	}
	if NotModified(header(`If-None-Match: ""`), "", time.Time{}) {
		t.Error("an answer without validators was called unmodified")
	}
}

func FuzzCacheControl(f *testing.F) {
	for _, seed := range []string{"max-age=60", `private="a, b", s-maxage=1`, `=,"`, "max-age=99999999999999999999", `a="\`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, field string) {
		d := ParseCacheControl([]string{field})
		for _, got := range []time.Duration{d.MaxAge, d.SMaxAge, d.WhileRevalidate, d.IfError} {
			if got != Unset && (got < 0 || got > maxDelta*time.Second) {
				t.Errorf("%q gives %s", field, got)
			}
		}
		// A shared cache must not overlook a directive that stands at the end.
		if !ParseCacheControl([]string{field + ", no-store"}).NoStore {
			t.Errorf("no-store is not seen behind %q", field)
		}
		ParseTargeted([]string{field})
	})
}

func FuzzAcceptEncoding(f *testing.F) {
	for _, seed := range []string{"gzip, deflate, br, zstd", "*;q=0", "gzip;q=0.5, identity;q=1", ";;q==,,", "br;q=1e-9"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, field string) {
		got := ReduceEncoding([]string{field})
		if !slices.Contains(codings[:], got) {
			t.Fatalf("%q gives %q", field, got)
		}
		// Never a coding that the client does not name.
		if lower := strings.ToLower(field); got != "identity" && !strings.Contains(lower, got) && !strings.Contains(lower, "*") {
			t.Errorf("%q gives %q", field, got)
		}
		if again := ReduceEncoding([]string{got}); again != got {
			t.Errorf("%q reduced twice gives %q", got, again)
		}
	})
}
