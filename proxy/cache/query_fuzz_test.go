package cache

import (
	"strings"
	"testing"
)

// What is left is what was sent without some of its parameters, and there is
// nothing more to leave out.
func FuzzReduce(f *testing.F) {
	ignored := ignoredQuery{{"utm_", ""}, {"a b"}, {"gclid"}}
	for _, target := range []string{"/a?b=1&utm_x=2", "/?a+b&%67clid=1&c", "/?&&", "//?gclid=;&utm_"} {
		f.Add(target)
	}
	f.Fuzz(func(t *testing.T, target string) {
		reduced := ignored.reduce(target)
		if again := ignored.reduce(reduced); again != reduced {
			t.Errorf("%q became %q and then %q", target, reduced, again)
		}
		path, query, _ := strings.Cut(target, "?")
		rest, left, _ := strings.Cut(reduced, "?")
		kept := strings.Split(left, "&")
		for parameter := range strings.SplitSeq(query, "&") {
			if ignored.has(parameter) {
				continue
			}
			if len(kept) == 0 || kept[0] != parameter {
				t.Fatalf("%q became %q", target, reduced)
			}
			kept = kept[1:]
		}
		if rest != path || strings.Join(kept, "") != "" {
			t.Errorf("%q became %q", target, reduced)
		}
	})
}
