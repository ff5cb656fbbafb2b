package manage

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"walcache/proxy/cache"
	"walcache/proxy/coherence"
	"walcache/proxy/querysets"
	"walcache/proxy/sandbox"
	"walcache/proxy/sandbox/sandboxtest"
)

const listing = "/properties/"

// ask asks for a status at the front, and wants it to be told.
func ask(t *testing.T, h http.Handler, query string) (s Status) {
	t.Helper()
	w := send(h, "GET", "/properties/cache-status/"+query, "", bearer)
	if w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	into(t, w, &s)
	return s
}

func TestStatus_IsGuarded(t *testing.T) { wantGuarded(t, newProxy(t), "cache-status") }

func TestStatus_SaysWhetherThePageIsCached(t *testing.T) {
	p := newProxy(t)
	h := p.front(p.manager())
	if s := ask(t, h, ""); s.Pages.IsCached || s.Pages.URL != "http://"+host+listing || len(s.Pages.Variants) != 0 {
		t.Fatalf("nothing was asked for: %+v", s.Pages)
	}
	p.get(listing, "Accept: text/html")
	p.written(1)
	s := ask(t, h, "")
	if v := s.Pages.Variants; !s.Pages.IsCached || len(v) != 2 || v[0].Layer != "memory" || v[1].Layer != "redis" || v[0].State != "fresh" || v[1].State != "fresh" ||
		!slices.Equal(v[0].Tags, []string{"properties"}) || v[0].TTL <= 0 || v[0].Bytes != 1 {
		t.Errorf("stored: %+v", s.Pages)
	}
	if s.Pages.Key != p.RedisPrefix+"page:http://"+host+listing || len(p.keys("page:http://"+host+listing)) != 1 {
		t.Errorf("key %q, there are %q", s.Pages.Key, p.keys("page:"))
	}
	was, at := p.Tracker.Known().LSN, p.stream.commit("properties/id=7")
	s = ask(t, h, "")
	want := cache.Moved{What: "properties", From: was.String(), To: at.String()}
	if v := s.Pages.Variants; s.Pages.IsCached || len(v) != 2 || v[0].State != "changed" || !slices.Contains(v[0].Moved, want) || !slices.Contains(v[1].Moved, want) {
		t.Errorf("changed: %+v, want %+v", s.Pages, want)
	}
}

func TestStatus_CountsEveryVariantOfThePage(t *testing.T) {
	p := newProxy(t)
	p.service.answers(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Groups", `"properties"`)
		w.Header().Set("Vary", "Accept-Language")
		w.Header().Set("Cache-Control", "max-age=100")
		if r.Header.Get("Accept-Language") == "en" {
			w.Header().Set("Age", "100")
		}
		fmt.Fprint(w, "x")
	})
	p.get(listing, "Accept-Language: de")
	p.get(listing, "Accept-Language: en")
	s := ask(t, p.front(p.manager()), "")
	states := map[string]string{}
	for _, v := range s.Pages.Variants {
		if v.Layer == "memory" {
			states[v.Varied["Accept-Language"]] = v.State
		}
	}
	if !s.Pages.IsCached || states["de"] != "fresh" || states["en"] == "fresh" {
		t.Errorf("%v: %+v", states, s.Pages)
	}
}

func TestStatus_IsAboutThePageThatIsAskedFor(t *testing.T) {
	p := newProxy(t)
	m := p.manager()
	p.get(listing, "Host: shop.example")
	p.get("/users/?q=%C3%A4&x")
	for _, c := range []struct {
		h      http.Handler
		target string
		host   string
		url    string
		cached bool
	}{
		{p.front(m), "/properties/cache-status/", host, "http://" + host + listing, false},
		{p.front(m), "/properties/cache-status/", "shop.example", "http://shop.example" + listing, true},
		{p.front(m), "/properties/cache-status/?url=http://shop.example/properties/", host, "http://shop.example" + listing, true},
		{p.front(m), "/properties/cache-status/?url=http%3A%2F%2F" + host + "%2Fusers%2F%3Fq%3D%25C3%25A4%26x", host, "http://" + host + "/users/?q=%C3%A4&x", true},
		{p.back(m), "/cache/status", "127.0.0.1:8003", "http://shop.example" + listing, true}, // asked for most
	} {
		var s Status
		into(t, send(c.h, "GET", c.target, "", bearer, "Host: "+c.host), &s)
		if s.Pages.URL != c.url || s.Pages.IsCached != c.cached {
			t.Errorf("%s at %s: %s, cached: %v; want %s, %v", c.target, c.host, s.Pages.URL, s.Pages.IsCached, c.url, c.cached)
		}
	}
}

// TestStatus_OfAPrefixThatIsAlsoTheAdminPorts asks under prefixes that the paths of
// the admin port begin with too.
func TestStatus_OfAPrefixThatIsAlsoTheAdminPorts(t *testing.T) {
	for _, prefix := range []string{"/", "/cache/"} {
		p := newProxyOn(t, "", "wc:")
		p.Prefix = prefix
		p.get(prefix, "Host: shop.example")
		m := p.manager()
		for _, c := range []struct {
			h            http.Handler
			target, host string
			url          string
		}{
			{p.back(m), "/cache/status", "127.0.0.1:8003", "http://shop.example" + prefix},
			{p.front(m), prefix + "cache-status/", host, "http://" + host + prefix},
		} {
			var s Status
			into(t, send(c.h, "GET", c.target, "", bearer, "Host: "+c.host), &s)
			if s.Pages.URL != c.url {
				t.Errorf("%s at %s: %s, want %s", c.target, c.host, s.Pages.URL, c.url)
			}
		}
		r := httptest.NewRequest("POST", "/cache/test-signals", nil)
		r.Host = "127.0.0.1:8003"
		if host, _ := m.hostOf(r, ""); host != p.Addr {
			t.Errorf("%s: signals are tested at %s", prefix, host)
		}
	}
}

// TestStatus_LooksAtRedisOnceForAllWhoAskAtOnce counts what Redis is asked for.
func TestStatus_LooksAtRedisOnceForAllWhoAskAtOnce(t *testing.T) {
	server := sandboxtest.OwnRedis(t)
	p := newProxyOn(t, server.URL(), "wc:")
	m := p.manager()
	m.survey.shared = time.Hour
	h := p.front(m)
	p.keep("users", p.Tracker.Known().LSN, 3, "users")
	p.must(p.client.ConfigResetStat(t.Context()).Err())
	gone, leave := context.WithCancel(t.Context())
	leave() // who looks for all may have left
	h.ServeHTTP(httptest.NewRecorder(), asks(gone))
	var group sync.WaitGroup
	for range 64 {
		group.Go(func() {
			w := httptest.NewRecorder()
			if h.ServeHTTP(w, asks(t.Context())); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "qs:users") {
				t.Errorf("%d %s", w.Code, w.Body)
			}
		})
	}
	group.Wait()
	stats, err := p.client.Info(t.Context(), "commandstats").Result()
	p.must(err)
	if !strings.Contains(stats, "cmdstat_scan:calls=2,") { // of pages, of querysets
		t.Errorf("%s", stats)
	}
	p.keep("more", p.Tracker.Known().LSN, 3, "users")
	p.stream.commit("users")
	if s := ask(t, h, "").Querysets; len(s.List) != 3 || s.List[2].State != "changed" {
		t.Errorf("what was seen is judged anew: %+v", s.List)
	}
	m.survey.shared = time.Nanosecond
	if s := ask(t, h, "").Querysets; len(s.List) != 4 {
		t.Errorf("once its time is over: %+v", s.List)
	}
	fresh, err := New(p.Config, p.Sources)
	p.must(err)
	defer fresh.redis.Close()
	if fresh.survey.shared != time.Second {
		t.Errorf("shared for %s", fresh.survey.shared)
	}
}

// asks is a request for a status.
func asks(ctx context.Context) *http.Request {
	r := httptest.NewRequestWithContext(ctx, "GET", "/properties/cache-status/", nil)
	r.Host = host
	r.Header.Set("Authorization", "Bearer "+token)
	return r
}

func TestStatus_OnTheAdminPortIsAboutThisProxyWhereNobodyAsked(t *testing.T) {
	for _, prefix := range []string{"", "/properties/"} {
		p := newProxyOn(t, "", "wc:")
		p.Prefix = prefix
		var s Status
		into(t, send(p.back(p.manager()), "GET", "/cache/status", "", bearer), &s)
		if want := "http://" + host + map[string]string{"": "/"}[prefix] + prefix; s.Pages.URL != want || s.Pages.Location != "" || s.Pages.Backend != "memory" {
			t.Errorf("%+v, want %s", s.Pages, want)
		}
	}
}

func TestStatus_OfWhatNobodyCanAskForIsRefused(t *testing.T) {
	p := newProxyOn(t, "", "wc:")
	h := p.front(p.manager())
	for _, text := range []string{"/properties/", "ftp://x/", "http://u:p@x/", "http://x/%23%20%zz"} {
		w := send(h, "GET", "/properties/cache-status/?url="+strings.ReplaceAll(text, "%", "%25"), "", bearer)
		if m := object(t, w); w.Code != http.StatusBadRequest || m["error"] == nil || m["try"] == nil {
			t.Errorf("%s: %d %v", text, w.Code, m)
		}
	}
}

func TestStatus_HasTheKeysThatScriptsKnowInTheirOrder(t *testing.T) {
	p := newProxy(t)
	w := send(p.front(p.manager()), "GET", "/properties/cache-status/", "", bearer)
	wantOrder(t, w, "page_cache", "backend", "location", "page_is_cached", "cache_key_example",
		"queryset_cache", "all_properties_cached", "property_count_cached", "cache_keys", "ALL_PROPERTIES", "PROPERTY_COUNT",
		"cache_timeouts", "PROPERTIES", "COUNT", "timestamp")
	m := object(t, w)
	q := m["queryset_cache"].(map[string]any)
	if fmt.Sprint(q["cache_keys"], q["cache_timeouts"]) != "map[ALL_PROPERTIES:all_properties PROPERTY_COUNT:property_count] map[COUNT:1800 PROPERTIES:3600]" {
		t.Errorf("%v", q)
	}
	if _, err := time.Parse("2006-01-02 15:04:05", m["timestamp"].(string)); err != nil {
		t.Error(err)
	}
}

// wantOrder checks that an answer's keys, of whatever depth, are in this order
// among themselves.
func wantOrder(t *testing.T, w *httptest.ResponseRecorder, keys ...string) {
	t.Helper()
	rest := w.Body.String()
	for _, key := range keys {
		_, after, ok := strings.Cut(rest, `"`+key+`":`)
		if !ok {
			t.Errorf("%s is not there, or not in its place, in %s", key, w.Body)
			return
		}
		rest = after
	}
}

func TestStatus_ShowsNoPassword(t *testing.T) {
	server := sandboxtest.OwnRedis(t)
	if !strings.Contains(server.URL(), "@") {
		t.Fatalf("a Redis without password: %s", server.URL())
	}
	password, _, _ := strings.Cut(strings.SplitN(server.URL(), ":", 3)[2], "@")
	p := newProxyOn(t, server.URL(), "wc:")
	h := p.front(p.manager())
	w := send(h, "GET", "/properties/cache-status/", "", bearer)
	p.must(server.Kill())
	away := send(h, "GET", "/properties/cache-status/", "", bearer)
	for _, w := range []*httptest.ResponseRecorder{w, away} {
		var s Status
		into(t, w, &s)
		if strings.Contains(w.Body.String(), password) || !strings.HasPrefix(s.Pages.Location, "127.0.0.1:") {
			t.Errorf("%s", w.Body)
		}
	}
}

func TestStatus_SaysHowEveryQuerysetStands(t *testing.T) {
	p := newProxy(t)
	h := p.front(p.manager())
	at := p.Tracker.Known().LSN
	if s := ask(t, h, "").Querysets; s.All || s.Count || len(s.List) != 2 || s.List[0].State != "absent" || s.List[0].Age != nil || s.List[0].TTL != nil {
		t.Fatalf("nothing is kept: %+v", s)
	}
	p.keep("all_properties", at, 5, "properties")
	p.keep("property_count", at, 1, "properties")
	p.keep("property:7", at, 1, "properties/id=7")
	p.keep("users", at, 3, "users")
	s := ask(t, h, "").Querysets
	if q := s.List[0]; !s.All || !s.Count || q.State != "fresh" || q.Rows != 5 || *q.Age < 0 || *q.TTL <= 3500 || q.Bytes == 0 ||
		q.Key != p.RedisPrefix+"qs:all_properties" || !slices.Equal(q.Tags, []string{"properties"}) || len(q.Moved) != 0 ||
		q.AsOf != (coherence.Position{Epoch: epoch, LSN: at}).String() {
		t.Errorf("fresh: %+v", s)
	}
	to := p.stream.commit("properties/id=8")
	s = ask(t, h, "").Querysets
	if q := s.List[0]; s.All || s.Count || q.State != "changed" || !slices.Equal(q.Moved, []cache.Moved{{What: "properties", From: at.String(), To: to.String()}}) {
		t.Errorf("changed: %+v", s)
	}
	if s.List[2].State != "fresh" || s.List[3].State != "fresh" {
		t.Errorf("what did not change: %+v", s.List[2:])
	}
}

func TestStatus_OfAQuerysetThatIsNoMoreUse(t *testing.T) {
	p := newProxy(t)
	h := p.front(p.manager())
	p.keep("all_properties", p.Tracker.Known().LSN, 5, "properties")
	key := p.RedisPrefix + "qs:all_properties"
	state := func() string { return ask(t, h, "").Querysets.List[0].State }
	if got := state(); got != "fresh" {
		t.Fatal(got)
	}
	p.Tracker.SetCatalog(&coherence.Catalog{Tables: p.Tracker.Catalog().Tables, Off: true})
	if s := ask(t, h, ""); s.Querysets.All || s.Querysets.List[0].State != "fresh" || !s.Coherence.Off {
		t.Errorf("caching is off: %+v", s)
	}
	p.Tracker.SetCatalog(&coherence.Catalog{Blind: []string{"logs"}})
	if got := state(); got != "unproven" {
		t.Errorf("it depends on a table that says nothing: %s", got)
	}
	p.Tracker.Begin("e2", 1000)
	if got := state(); got != "epoch" {
		t.Errorf("another epoch: %s", got)
	}
	value, err := p.client.Get(t.Context(), key).Bytes()
	p.must(err)
	value[20] ^= 1
	p.must(p.client.Set(t.Context(), key, value, 0).Err())
	if s := ask(t, h, "").Querysets; s.All || s.List[0].State != "corrupt" || s.List[0].Problem == "" || s.List[0].TTL != nil || s.List[0].Age != nil {
		t.Errorf("damaged: %+v", s.List[0])
	}
	p.must(p.client.Set(t.Context(), key, "anything", 0).Err())
	if s := ask(t, h, "").Querysets; s.All || s.List[0].State != "present" || s.List[0].Problem == "" {
		t.Errorf("of another kind: %+v", s.List[0])
	}
}

func TestState_OfWhatHasNoTimeLeftIsExpired(t *testing.T) {
	m := newProxyOn(t, "", "wc:").manager()
	if got := m.state(querysets.Queryset{Present: true}, time.Now()); got != "expired" {
		t.Error(got)
	}
}

func TestStatus_OfAnOrdinaryCacheJudgesNothing(t *testing.T) {
	p := ordinary(t)
	p.keep("all_properties", 7, 5, "properties")
	p.get(listing)
	s := ask(t, p.front(p.manager()), "")
	if !s.Pages.IsCached || s.Coherence != nil || s.Querysets.All || s.Querysets.List[0].State != "present" || s.Querysets.List[0].Rows != 5 {
		t.Errorf("%+v", s)
	}
}

func TestStatus_SaysHowMuchThereIs(t *testing.T) {
	p := newProxy(t)
	for i := range 30 {
		p.get(fmt.Sprintf("/properties/%d", i))
	}
	p.get("/properties/7")
	p.written(30)
	p.must(p.client.Set(t.Context(), p.RedisPrefix+"qs:x", "x", 0).Err())
	s := ask(t, p.front(p.manager()), "")
	if st := s.Pages.Stored; st.Memory.Pages != 30 || st.Memory.Bytes == 0 || *st.Redis != (StoredBelow{30, false}) {
		t.Errorf("%+v, in Redis %+v", st.Memory, st.Redis)
	}
	if h := s.Pages.Hits; h["memory"] != 1 || h["redis"] != 0 {
		t.Errorf("hits %v", h)
	}
	if c := s.Coherence; !c.Vouches || c.Epoch != epoch || c.Known != p.Tracker.Known().LSN.String() || *c.FreshAge < 0 {
		t.Errorf("%+v", c)
	}
}

func TestStatus_CountsOnEveryServerOfACluster(t *testing.T) {
	server := sandboxtest.OwnRedisCluster(t)
	p := newProxyOn(t, server.URL(), "wc:")
	for i := range 30 {
		p.get(fmt.Sprintf("/properties/%d", i))
	}
	p.written(30)
	if s := ask(t, p.front(p.manager()), ""); *s.Pages.Stored.Redis != (StoredBelow{30, false}) {
		t.Errorf("%+v", s.Pages.Stored.Redis)
	}
}

func TestStatus_WithoutRedisSaysWhatThereIs(t *testing.T) {
	p := newProxyOn(t, "", "wc:")
	p.get(listing)
	s := ask(t, p.front(p.manager()), "")
	if !s.Pages.IsCached || s.Pages.Stored.Redis != nil || s.Querysets.All || s.Querysets.List == nil {
		t.Errorf("%+v", s)
	}
}

func TestStatus_WhileRedisIsAwayIs503WithWhatIsKnown(t *testing.T) {
	server := sandboxtest.OwnRedis(t)
	p := newProxyOn(t, server.URL(), "wc:")
	h := p.front(p.manager())
	p.get(listing)
	p.must(server.Kill())
	w := send(h, "GET", "/properties/cache-status/", "", bearer)
	var s Status
	into(t, w, &s)
	if w.Code != http.StatusServiceUnavailable || !strings.Contains(s.Error, "Redis") || s.Try == "" || !s.Pages.IsCached || s.Querysets.All || !s.Pages.Stored.Redis.AtLeast {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestStatus_OnRedisInThisProcess(t *testing.T) {
	server, err := sandbox.StartMiniredis(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Stop(context.Background()) })
	p := newProxyOn(t, server.URL(), "wc:")
	p.keep("property_count", p.Tracker.Known().LSN, 1, "properties")
	p.get(listing)
	p.written(1)
	if s := ask(t, p.front(p.manager()), ""); !s.Pages.IsCached || !s.Querysets.Count || s.Pages.Stored.Redis.Pages != 1 {
		text, _ := json.Marshal(s)
		t.Errorf("%s", text)
	}
}
