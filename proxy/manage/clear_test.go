package manage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"walcache/proxy/cache"
	"walcache/proxy/changelog"
	"walcache/proxy/coherence"
	"walcache/proxy/sandbox/sandboxtest"
)

// cleared asks for a clear at the front, and wants it to be done.
func cleared(t *testing.T, h http.Handler, query string) (c Cleared) {
	t.Helper()
	w := send(h, "POST", "/properties/cache-clear/"+query, "", bearer)
	if w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	into(t, w, &c)
	return c
}

// freed waits until the memory of the last clear is free.
func freed(t *testing.T, h http.Handler) (l LastClear) {
	t.Helper()
	sandboxtest.Eventually(t, patience, func() error {
		s := ask(t, h, "")
		if s.LastClear == nil || !s.LastClear.Done {
			return fmt.Errorf("not yet: %+v", s.LastClear)
		}
		l = *s.LastClear
		return nil
	})
	return l
}

func TestClear_IsGuardedAndWhoIsRefusedClearsNothing(t *testing.T) {
	p := newProxy(t)
	p.get(listing)
	wantGuarded(t, p, "cache-clear")
	if said := p.stream.lines(); len(said) > 0 || !hit(p.get(listing)) {
		t.Errorf("said %q", said)
	}
}

func TestClear_TakesAnyBody(t *testing.T) {
	for _, body := range []string{"", "{", "null", `{"all": false}`, strings.Repeat("x", 1<<20)} {
		p := newProxyOn(t, "", "wc:")
		h := p.front(p.manager())
		if w := send(h, "POST", "/properties/cache-clear/", body, bearer, "Content-Type: application/json"); w.Code != http.StatusOK {
			t.Errorf("%.20q: %d %s", body, w.Code, w.Body)
		}
	}
}

func TestClear_ReachesPagesAndQuerysets(t *testing.T) {
	p := newProxy(t)
	h := p.front(p.manager())
	p.get(listing)
	p.get("/users/")
	p.written(2)
	p.keep("all_properties", p.Tracker.Known().LSN, 5, "properties")
	c := cleared(t, h, "")
	if d := c.Details; !c.Success || !d.Success || len(d.Errors) != 0 || d.Total != 1 || !*d.Caches[0].Cleared || *d.Caches[1].Cleared {
		t.Errorf("%+v", d)
	}
	if c.Stale.Memory.Pages != 2 || *c.Stale.Redis != (StoredBelow{2, false}) || c.Position != p.Tracker.Known().LSN.String() || !c.Applied {
		t.Errorf("%+v", c)
	}
	for _, path := range []string{listing, "/users/"} {
		if w := p.get(path); hit(w) || w.Body.String() != "2" {
			t.Errorf("%s after it: %s %s", path, w.Header().Get("Cache-Status"), w.Body)
		}
		if w := p.get(path); !hit(w) || w.Body.String() != "2" {
			t.Errorf("%s again: %s %s", path, w.Header().Get("Cache-Status"), w.Body)
		}
	}
}

func TestClear_HasTheKeysThatScriptsKnowInTheirOrder(t *testing.T) {
	p := newProxy(t)
	w := send(p.back(p.manager()), "POST", "/cache/clear", "", bearer)
	wantOrder(t, w, "success", "message", "details", "success", "cleared_caches", "name", "key", "cleared", "name", "key", "cleared",
		"errors", "total_cleared", "timestamp", "position")
	m := object(t, w)
	d := m["details"].(map[string]any)
	if m["message"] != "Property cache cleared successfully" ||
		fmt.Sprint(d["cleared_caches"], d["errors"]) != "[map[cleared:false key:all_properties name:ALL_PROPERTIES] map[cleared:false key:property_count name:PROPERTY_COUNT]] []" {
		t.Errorf("%v", m)
	}
	if _, err := time.Parse("2006-01-02 15:04:05", m["timestamp"].(string)); err != nil {
		t.Error(err)
	}
}

func TestClear_GivesMemoryBackAndLeavesSessionsAndTheLogAlone(t *testing.T) {
	p := newProxy(t)
	h := p.front(p.manager())
	for i := range 150 {
		p.get(fmt.Sprintf("/properties/%d", i))
	}
	p.written(150)
	p.keep("all_properties", 100, 5, "properties")
	p.keep("property:7", 100, 1, "properties/id=7")
	others := []string{"session:abc", "login:address:page:1", "log", "checkpoint", "members", "pages:x", "qs"}
	for _, key := range others {
		p.must(p.client.Set(t.Context(), p.RedisPrefix+key, "x", 0).Err())
	}
	c := cleared(t, h, "")
	l := freed(t, h)
	if l.Position != c.Position || l.Error != "" || l.Freed.Pages != 150 || l.Freed.Bytes < 150*100 || l.Freed.Keys != 152 {
		t.Errorf("%+v", l)
	}
	if left := append(p.keys("page:"), p.keys("qs:")...); len(left) > 0 || p.Memory.Get(cache.Key{Scheme: "http", Host: host, Target: "/properties/7"}) != nil {
		t.Errorf("left: %q", left)
	}
	for _, key := range others {
		if n, err := p.client.Exists(t.Context(), p.RedisPrefix+key).Result(); err != nil || n != 1 {
			t.Errorf("%s is gone (%v)", key, err)
		}
	}
}

func TestClear_AnotherOneMeanwhileIsFreedToo(t *testing.T) {
	p := newProxy(t)
	h := p.front(p.manager())
	var last Cleared
	for i := range 20 {
		p.get(fmt.Sprintf("/properties/%d", i))
		p.written(uint64(i) + 1)
		last = cleared(t, h, "")
	}
	if l := freed(t, h); l.Position != last.Position {
		t.Errorf("%+v, want %s", l, last.Position)
	}
	if left := p.keys("page:"); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// A fill that began before the clear must not be served after it, from whichever
// layer, although it is stored when what was there has been removed.
func TestClear_AFillUnderWayDoesNotSurviveIt(t *testing.T) {
	for _, layer := range []string{"memory", "redis"} {
		t.Run(layer, func(t *testing.T) {
			p := newProxy(t)
			h := p.front(p.manager())
			asked, answer := make(chan bool), make(chan bool)
			p.service.answers(func(w http.ResponseWriter, _ *http.Request) {
				asked <- true
				<-answer
				fmt.Fprint(w, "old")
			})
			fill := make(chan *httptest.ResponseRecorder)
			go func() { fill <- p.get(listing) }()
			<-asked
			cleared(t, h, "")
			freed(t, h)
			close(answer)
			if w := <-fill; w.Body.String() != "old" {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
			p.written(1)
			if s := ask(t, h, ""); s.Pages.IsCached || len(s.Pages.Variants) != 2 {
				t.Errorf("%+v", s.Pages)
			}
			if layer == "redis" {
				p.Memory.Delete(cache.Key{Scheme: "http", Host: host, Target: listing})
			}
			p.service.answers(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "new") })
			if w := p.get(listing); hit(w) || w.Body.String() != "new" {
				t.Errorf("%s %s", w.Header().Get("Cache-Status"), w.Body)
			}
		})
	}
}

// An ordinary cache cannot keep that promise, and makes none.
func TestClear_OfAnOrdinaryCacheIsRefusedAndChangesNothing(t *testing.T) {
	p := ordinary(t)
	m := p.manager()
	p.get(listing)
	p.written(1)
	w := send(p.front(m), "POST", "/properties/cache-clear/", "", bearer)
	if m := object(t, w); w.Code != http.StatusServiceUnavailable || !strings.Contains(fmt.Sprint(m["error"]), "no database") || !strings.Contains(fmt.Sprint(m["try"]), "--database-url") {
		t.Errorf("%d %v", w.Code, m)
	}
	if !hit(p.get(listing)) || len(p.keys("page:")) != 1 || m.lastClear() != nil {
		t.Error("something was removed all the same")
	}
}

func TestClear_OfAProcessWithoutTheDatabaseSendsToOneThatHasIt(t *testing.T) {
	p := newProxyOn(t, "", "wc:")
	p.Announcer = nil
	w := send(p.front(p.manager()), "POST", "/properties/cache-clear/", "", bearer)
	if m := object(t, w); w.Code != http.StatusServiceUnavailable || !strings.Contains(fmt.Sprint(m["try"]), "--database-url") {
		t.Errorf("%d %v", w.Code, m)
	}
}

func TestClear_ThatCannotBeAnnouncedSaysSo(t *testing.T) {
	p := newProxy(t)
	h := p.front(p.manager())
	p.get(listing)
	p.keep("all_properties", p.Tracker.Known().LSN, 5, "properties")
	p.stream.err = errors.New("the primary is away")
	w := send(h, "POST", "/properties/cache-clear/", "", bearer)
	var c Cleared
	into(t, w, &c)
	if w.Code != http.StatusServiceUnavailable || c.Success || c.Details.Success || c.Message != "Errors occurred while clearing cache" ||
		len(c.Details.Errors) != 1 || !strings.Contains(c.Error, "the primary is away") || c.Try == "" || c.Position != "" || c.Applied ||
		c.Details.Caches[0].Cleared != nil || c.Details.Total != 0 || c.Stale.Memory.Pages != 0 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if !hit(p.get(listing)) || len(p.keys("qs:")) != 1 || ask(t, h, "").LastClear != nil {
		t.Error("something was cleared all the same")
	}
}

func TestClear_WhileRedisIsAwayClearsAndSaysThatItsMemoryStays(t *testing.T) {
	server := sandboxtest.OwnRedis(t)
	p := newProxyOn(t, server.URL(), "wc:")
	m := p.manager()
	h := p.front(m)
	p.get(listing)
	p.must(server.Kill())
	w := send(h, "POST", "/properties/cache-clear/", "", bearer)
	var c Cleared
	into(t, w, &c)
	if w.Code != http.StatusServiceUnavailable || c.Success || !c.Applied || c.Position == "" || !strings.Contains(c.Error, "Redis") ||
		c.Details.Caches[0].Cleared != nil || c.Details.Caches[1].Cleared != nil || c.Details.Total != 0 || !strings.Contains(c.Try, c.Position) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if hit(p.get(listing)) {
		t.Error("the page is not cleared")
	}
	sandboxtest.Eventually(t, patience, func() error {
		if l := m.lastClear(); !l.Done || l.Error == "" || l.Freed.Pages != 1 {
			return fmt.Errorf("%+v", l)
		}
		return nil
	})
}

// process is a proxy whose change log is in Redis, that leads or follows.
func process(t *testing.T, url, prefix string, leads bool) *proxy {
	t.Helper()
	p := newProxyOn(t, url, prefix)
	records, err := changelog.Open(p.Tracker, url, prefix, p.Log)
	p.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- records.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		p.must(<-ended)
		p.must(records.Close())
	})
	p.Records = records
	if !leads {
		p.Announcer = nil
		return p
	}
	_, err = records.Lead(ctx)
	p.must(err)
	p.stream.commit() // which goes on with the epoch
	go func() {
		for ctx.Err() == nil && records.Beat(epoch, time.Now()) == nil {
			time.Sleep(20 * time.Millisecond) // the pace of beats
		}
	}()
	return p
}

// knows says that a process does not know of n, itself one of them.
func (p *proxy) knows(n int) error {
	members, err := p.Records.Members(p.t.Context())
	if err == nil && len(members) != n {
		err = fmt.Errorf("%d processes, not %d: %v", len(members), n, members)
	}
	return err
}

func TestClear_ReachesEveryProcess(t *testing.T) {
	url, prefix := sandboxtest.Redis(t)
	a := process(t, url, prefix, true)
	b := process(t, url, prefix, false)
	h := a.front(a.manager())
	sandboxtest.Eventually(t, patience, func() error {
		b.get(listing)
		if w := b.get(listing); !hit(w) || b.Tracker.Epoch() != epoch {
			return fmt.Errorf("it proves nothing yet: %s", w.Header().Get("Cache-Status"))
		}
		return a.knows(2)
	})
	fetched := b.service.fetches.Load()
	c := cleared(t, h, "?wait=all")
	if !c.All || len(c.Behind) != 0 {
		t.Errorf("%+v", c)
	}
	if w := b.get(listing); hit(w) || b.service.fetches.Load() != fetched+1 {
		t.Errorf("on the other: %s", w.Header().Get("Cache-Status"))
	}
}

func TestClear_NamesWhoIsBehind(t *testing.T) {
	url, prefix := sandboxtest.Redis(t)
	a := process(t, url, prefix, true)
	m := a.manager()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	go func() { // one that is alive, and knows nothing
		for count := uint64(1); ctx.Err() == nil; count++ {
			said, _ := json.Marshal(changelog.Member{Name: "elsewhere/7", Epoch: epoch, Known: 1, Count: count})
			a.client.HSet(ctx, prefix+"members", "other", said)
			time.Sleep(20 * time.Millisecond) // the pace of reports
		}
	}()
	sandboxtest.Eventually(t, patience, func() error { return a.knows(2) })
	w := httptest.NewRecorder()
	r := httptest.NewRequest("POST", "/properties/cache-clear/?wait=all", nil).WithContext(ctx)
	r.Host = host
	r.Header.Set("Authorization", "Bearer "+token)
	a.front(m).ServeHTTP(w, r)
	var c Cleared
	into(t, w, &c)
	if w.Code != http.StatusOK || !c.Success || c.All || len(c.Behind) != 1 || c.Behind[0] != "elsewhere/7" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if at, err := coherence.ParseLSN(c.Position); err != nil || at != a.Tracker.Known().LSN {
		t.Errorf("%s: %v", c.Position, err)
	}
}
