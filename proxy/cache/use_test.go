package cache

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestRoute_IsTheShapeOfATarget(t *testing.T) {
	for target, want := range map[string]string{
		"/":                       "/",
		"/properties/":            "/properties/",
		"/properties/42/":         "/properties/{}/",
		"/properties/42/photos/7": "/properties/{}/photos/{}",
		"/p/0190a5c4-7d5e-7e6b-8f3a-2b1c0d9e8f7a":     "/p/{}",
		"/p/d41d8cd98f00b204e9800998ecf8427e":         "/p/{}",
		"/v2/list":                                    "/v2/list",
		"/a-long-name-without-numbers":                "/a-long-name-without-numbers",
		"/properties/?page=2&sort=-price&format=json": "/properties/?page&sort&format",
		"/properties/?":                               "/properties/?",
		"/x?8f14e45fceea167a5a36dedd4bea2543=1":       "/x?…",
		"/x?a%20b=1":                                  "/x?…",
		"/x?a&b&c&d&e&f&g&h&i":                        "/x?…",
	} {
		if got := routeOf(target); got != want {
			t.Errorf("%s is of route %s, not %s", target, got, want)
		}
	}
}

// Whoever makes up names makes no more routes than there may be.
func TestRoutes_AreBounded(t *testing.T) {
	u, err := newUses()
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 * maxRoutes {
		u.of(Key{"http", "x", "/" + string([]byte{'a' + byte(i%26), 'a' + byte(i/26%26), 'a' + byte(i/676)})}).route.misses.Add(1)
	}
	var misses uint64
	for _, r := range u.all() {
		misses += r.misses.Load()
	}
	if n := len(u.all()); n > maxRoutes+1 || misses != 10*maxRoutes {
		t.Errorf("%d routes with %d misses", n, misses)
	}
}

func TestHistogram_ReadsWhatWasCounted(t *testing.T) {
	var d durations
	for i := range 1000 {
		d.add(time.Duration(i+1) * time.Millisecond)
	}
	before := d.read()
	for q, want := range map[float64]time.Duration{0.5: 500 * time.Millisecond, 0.99: 990 * time.Millisecond, 1: time.Second} {
		if got := before.Quantile(q); got < want*15/16 || got > want*17/16 {
			t.Errorf("quantile %v is %s, not %s", q, got, want)
		}
	}
	for _, extreme := range []time.Duration{-1, 0, 1, time.Nanosecond << 62} {
		d.add(extreme)
	}
	if n := d.read().Since(before).Total(); n != 4 || (Histogram{}).Quantile(0.5) != 0 {
		t.Errorf("%d were counted since", n)
	}
	for i := range histogramBuckets - 1 {
		var h Histogram
		h[i] = 1
		if b := bucketOf(h.Quantile(0.5)); b != i {
			t.Errorf("the middle of bucket %d is in bucket %d", i, b)
		}
	}
}

// Long URLs that are asked for twice each are forgotten before the one that is
// hit all the time, of which nobody but the sampled hits tells.
func TestUses_RememberWhatIsHit(t *testing.T) {
	u, err := newUses()
	if err != nil {
		t.Fatal(err)
	}
	hot := u.of(Key{"http", "x", "/hot"})
	const others = 4 * maxUses / maxKey
	for n := range others {
		key := Key{"http", "x", fmt.Sprintf("/%d?%s", n, strings.Repeat("x", maxKey-100))}
		u.of(key)
		u.of(key)
		u.keep(hot)
	}
	if u.of(hot.key) != hot {
		t.Error("the one that is hit is forgotten")
	}
	u.byKey.CleanUp()
	if n := u.byKey.EstimatedSize(); n > others/3 {
		t.Errorf("%d of %d are remembered", n, others)
	}
}
