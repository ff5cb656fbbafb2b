package rules

import (
	"slices"
	"strings"
	"testing"
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
