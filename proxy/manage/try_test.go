package manage

import (
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"walcache/proxy/sandbox/sandboxtest"
	"walcache/proxy/store"
)

// tried runs a test of the cache at the front.
func tried(t *testing.T, h http.Handler) (x Tried, status int) {
	t.Helper()
	w := send(h, "GET", "/properties/cache-test/", "", bearer)
	into(t, w, &x)
	return x, w.Code
}

// steps are what a test did, and whether it was right.
func steps(x Tried) (all []string) {
	for _, s := range x.Steps {
		ok := map[bool]string{true: "", false: ": " + s.What}[s.OK]
		all = append(all, s.Layer+" "+s.Step+ok)
	}
	return all
}

var every = []string{
	"memory write", "memory read", "memory expire", "memory read again",
	"redis write", "redis read", "redis expire", "redis read again",
}

func TestTry_IsGuarded(t *testing.T) { wantGuarded(t, newProxy(t), "cache-test") }

// TestTry_IsNotForEverybodyWhoMayRead asks without a token where reading is open:
// one test at a time is made, and who asks for it again and again takes it from
// the operator.
func TestTry_IsNotForEverybodyWhoMayRead(t *testing.T) {
	p := newProxyOn(t, "", "")
	p.Guard.Open = true
	m := p.manager()
	for _, op := range operations {
		if op.method != http.MethodGet || strings.HasSuffix(op.name, "events") {
			continue
		}
		want := map[bool]int{true: http.StatusOK, false: http.StatusUnauthorized}[op.name != "cache-test"]
		if w := send(p.front(m), op.method, p.Prefix+op.name+"/", ""); w.Code != want {
			t.Errorf("%s: %d", op.name, w.Code)
		}
		if w := send(p.back(m), op.method, op.admin, ""); w.Code != want {
			t.Errorf("%s: %d", op.admin, w.Code)
		}
	}
}

func TestTry_WritesReadsExpiresAndReadsAgainInBothLayers(t *testing.T) {
	p := newProxy(t)
	h := p.front(p.manager())
	x, status := tried(t, h)
	if status != http.StatusOK || !x.Working || !slices.Equal(steps(x), every) || x.Error != "" {
		t.Fatalf("%d %+v", status, x)
	}
	if x.Cached == nil || *x.Cached != x.Original || x.Original != "Cache test at "+x.Timestamp {
		t.Errorf("%+v", x)
	}
	for _, s := range x.Steps {
		if s.Took < 0 || s.What == "" || s.Step == "expire" && s.Took > 6000 {
			t.Errorf("%+v", s)
		}
	}
	if left := p.keys("page:"); len(left) > 0 || p.Memory.Pages() != 0 {
		t.Errorf("left: %q, and %d in memory", left, p.Memory.Pages())
	}
	if p.service.fetches.Load() != 0 {
		t.Error("the service was asked")
	}
}

func TestTry_HasTheKeysThatScriptsKnowInTheirOrder(t *testing.T) {
	p := newProxyOn(t, "", "wc:")
	w := send(p.back(p.manager()), "GET", "/cache/test", "", bearer)
	wantOrder(t, w, "cache_working", "original_value", "cached_value", "cache_backend", "timestamp", "steps")
	if m := object(t, w); w.Code != http.StatusOK || m["cache_working"] != true || m["cached_value"] != m["original_value"] || m["cache_backend"] != "memory" {
		t.Errorf("%d %v", w.Code, m)
	}
	if _, err := time.Parse("2006-01-02 15:04:05", object(t, w)["timestamp"].(string)); err != nil {
		t.Error(err)
	}
}

func TestTry_WhileRedisIsAwayIs503WithTheSteps(t *testing.T) {
	server := sandboxtest.OwnRedis(t)
	p := newProxyOn(t, server.URL(), "wc:")
	p.must(server.Kill())
	x, status := tried(t, p.front(p.manager()))
	if want := append(slices.Clone(every[:5]), "redis read: Redis does not answer"); status != http.StatusServiceUnavailable || x.Working || x.Cached != nil || !slices.Equal(steps(x), want) {
		t.Errorf("%d %q", status, steps(x))
	}
	if x.Error != "redis, read: Redis does not answer" || x.Try == "" {
		t.Errorf("%+v", x)
	}
}

func TestTry_OfAFullRedisSaysWhy(t *testing.T) {
	server := sandboxtest.OwnRedis(t)
	p := newProxyOn(t, server.URL(), "wc:")
	p.get(listing)
	p.written(1) // it has been looked at
	p.must(p.client.ConfigSet(t.Context(), "maxmemory", "1").Err())
	x, status := tried(t, p.front(p.manager()))
	if last := x.Steps[len(x.Steps)-1]; status != http.StatusServiceUnavailable || x.Working || last.OK || !strings.HasPrefix(last.What, "pages are not written there: ") {
		t.Errorf("%d %q", status, steps(x))
	}
}

func TestTry_OneAtATime(t *testing.T) {
	p := newProxyOn(t, "", "wc:")
	m := p.manager()
	m.trying.Lock()
	w := send(p.front(m), "GET", "/properties/cache-test/", "", bearer)
	if x := object(t, w); w.Code != http.StatusConflict || x["error"] == nil || x["try"] == nil {
		t.Errorf("%d %v", w.Code, x)
	}
	m.trying.Unlock()
	if x, status := tried(t, p.front(m)); status != http.StatusOK || !x.Working {
		t.Errorf("%d %+v", status, x)
	}
}

func TestTry_EndsWithWhoAsked(t *testing.T) {
	p := newProxy(t)
	m := p.manager()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := httptest.NewRequest("GET", "/properties/cache-test/", nil).WithContext(ctx)
	r.Host = host
	r.Header.Set("Authorization", "Bearer "+token)
	w := httptest.NewRecorder()
	p.front(m).ServeHTTP(w, r)
	var x Tried
	into(t, w, &x)
	if x.Working || p.Memory.Pages() != 0 || slices.Contains(steps(x), "memory read again") {
		t.Errorf("%d %q", w.Code, steps(x))
	}
	if !m.trying.TryLock() {
		t.Error("it goes on")
	}
}

func TestWhyNot_ALatePageSaysNothingOfRedis(t *testing.T) {
	before := store.RedisStats{Failures: 3, Dropped: map[string]uint64{"oom": 2, "room": 1}}
	for want, after := range map[string]store.RedisStats{
		"":                                  {Failures: 3, Dropped: map[string]uint64{"oom": 2, "room": 1, "expired": 9}},
		"Redis does not answer":             {Failures: 4},
		"pages are not written there: oom":  {Failures: 3, Dropped: map[string]uint64{"oom": 3, "room": 1}},
		"pages are not written there: a, b": {Failures: 3, Dropped: map[string]uint64{"b": 3, "a": 1}},
	} {
		if got := whyNot(before, after); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
