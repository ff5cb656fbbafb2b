package cache_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"walcache/proxy/cache"
	"walcache/proxy/coherence"
	"walcache/proxy/origin"
)

// tagged answers that a response depends on what its path names.
func tagged(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("As-Of-LSN", coherence.AsOfRequest)
	w.Header().Set("Vary", "Accept")
	w.Header().Set("Cache-Groups", `"`+r.URL.Query().Get("tag")+`"`)
	_, _ = w.Write([]byte(r.Header.Get("Accept")))
}

func (w *world) inspect(target string) []cache.Variant {
	w.t.Helper()
	found, err := w.cache.Inspect(context.Background(), w.proxy.URL+target)
	must(w.t, err)
	return found
}

// filled asks for what is not stored, and waits until it is: the answer is sent
// first.
func (w *world) filled(target string, lines ...string) {
	w.t.Helper()
	before := len(w.inspect(target))
	stored := w.cache.Stats().Stored
	w.get(target, lines...)
	eventually(w.t, "it to be stored", func() bool {
		return w.cache.Stats().Stored > stored && len(w.inspect(target)) >= before
	})
}

func TestInspect_SaysHowEachVariantStandsAndWhy(t *testing.T) {
	w := newWorld(t, tagged)
	const target = "/1/?tag=properties/id=1"
	if found := w.inspect(target); len(found) != 0 {
		t.Fatalf("before anything was asked for: %+v", found)
	}
	w.filled(target, "Accept: text/html")
	w.filled(target, "Accept: application/json")
	w.wantHit(w.get(target, "Accept: text/html"), "text/html")
	asOf := w.db.Stamp().LSN
	found := w.inspect(target)
	if len(found) != 2 || found[0].State != "fresh" || found[0].Varied["Accept"] != "application/json" || found[1].Bytes != len("text/html") ||
		found[0].Whole || found[0].Tags[0] != "properties/id=1" || found[0].AsOf != w.db.Stamp().String() || len(found[0].Moved) > 0 || found[0].Requests != 1 {
		t.Fatalf("fresh: %+v", found)
	}
	w.db.commit("properties/id=2")
	if v := w.inspect(target)[0]; v.State != "fresh" {
		t.Errorf("after another row changed: %+v", v)
	}
	at := w.db.commit("properties/id=1")
	v := w.inspect(target)[0]
	if want := (cache.Moved{What: "properties/id=1", From: asOf.String(), To: at.String()}); v.State != "changed" || len(v.Moved) != 1 || v.Moved[0] != want {
		t.Errorf("after the row changed: %+v, want %+v", v, want)
	}
	w.db.Begin("e2", at)
	if v := w.inspect(target)[0]; v.State != "epoch" || len(v.Moved) > 0 {
		t.Errorf("in another epoch: %+v", v)
	}
}

func TestInspect_NamesFloorsAndPurges(t *testing.T) {
	w := newWorld(t, tagged)
	for what, change := range map[string]coherence.Hash{
		"floor properties":          coherence.TableFloor("properties"),
		"floor properties/location": coherence.ColumnFloor("properties", "location"),
		"floor *":                   coherence.TableFloor(coherence.Everything),
		"purge of the URL":          coherence.PageHash(w.proxy.URL + "/?tag=properties/location=Nairobi"),
	} {
		const target = "/?tag=properties/location=Nairobi"
		w.filled(target)
		w.db.at += 10
		w.db.apply(coherence.Change{Hash: change, At: w.db.at})
		v := w.inspect(target)[0]
		if v.State != "changed" || len(v.Moved) == 0 || v.Moved[0].What != what {
			t.Errorf("%s: %+v", what, v)
		}
	}
}

// An answer that names nothing known depends on everything, and so is stale by
// any change, which is what it is told.
func TestInspect_OfWhatDependsOnEverything(t *testing.T) {
	w := newWorld(t, tagged)
	const target = "/?tag=nothing-known"
	w.filled(target)
	at := w.db.commit("users/id=1")
	if v := w.inspect(target)[0]; !v.Whole || v.State != "changed" || v.Moved[0].What != "*" || v.Moved[0].To != at.String() {
		t.Errorf("%+v", v)
	}
}

func TestInspect_RefusesWhatIsNoURL(t *testing.T) {
	w := newWorld(t, text("x"))
	for _, url := range []string{"", "/x", "ftp://x/", "http://u:p@x/", "http://x/#y", "http://"} {
		if _, err := w.cache.Inspect(t.Context(), url); err == nil {
			t.Errorf("%q is taken for a URL", url)
		}
	}
}

func TestSearch_FindsByTag(t *testing.T) {
	w := newWorld(t, tagged)
	for _, target := range []string{"/1/?tag=properties/id=1", "/2/?tag=properties/id=2", "/u/?tag=users"} {
		w.filled(target)
	}
	some, total, err := w.cache.Search(t.Context(), func(_ string, tags []coherence.Tag) bool { return tags[0].Table() == "properties" }, 1)
	if err != nil || len(some) != 1 || total != 2 {
		t.Errorf("%d of %d: %+v, %v", len(some), total, some, err)
	}
	if tag, ok := w.cache.TagOf(coherence.Tag("properties/id=2").Hash()); !ok || tag != "properties/id=2" {
		t.Errorf("its hash is of %q, %t", tag, ok)
	}
	if tag, ok := w.cache.TagOf(coherence.Tag("properties").Hash()); !ok || tag != "properties" {
		t.Errorf("its table's hash is of %q, %t", tag, ok)
	}
}

func TestSearch_EndsWithWhoAsks(t *testing.T) {
	w := newWorld(t, tagged)
	for i := range 3 {
		w.filled(fmt.Sprintf("/%d/?tag=users", i))
	}
	ctx, leave := context.WithCancel(t.Context())
	looked := 0
	some, total, err := w.cache.Search(ctx, func(string, []coherence.Tag) bool { looked++; leave(); return true }, 1)
	if !errors.Is(err, context.Canceled) || looked != 1 || len(some) != 0 || total != 0 {
		t.Errorf("it looked at %d, and says %d of %d, %v", looked, len(some), total, err)
	}
}

func TestHottest_OutlivesWhatIsStored(t *testing.T) {
	w := newWorld(t, tagged)
	w.filled("/1/?tag=properties/id=1")
	for range 2 {
		w.get("/1/?tag=properties/id=1")
	}
	w.filled("/2/?tag=properties/id=2")
	w.db.at += 10
	w.db.apply(coherence.Change{Hash: coherence.TableFloor(coherence.Everything), At: w.db.at})
	w.filled("/3/?tag=properties/id=3") // after it was cleared
	pages, bytes := w.cache.Free()
	if pages != 2 || bytes == 0 {
		t.Errorf("%d pages of %d bytes were freed", pages, bytes)
	}
	if len(w.inspect("/1/?tag=properties/id=1")) > 0 || len(w.inspect("/3/?tag=properties/id=3")) == 0 {
		t.Error("the wrong pages were freed")
	}
	hot := w.cache.Hottest(1)
	if len(hot) != 1 || !strings.HasSuffix(hot[0].URL, "/1/?tag=properties/id=1") || hot[0].Hits != 2 || hot[0].Misses != 1 || hot[0].Route != "/{}/?tag" {
		t.Errorf("the hottest is %+v", hot)
	}
	routes := w.cache.Routes()
	if len(routes) != 1 || routes[0].Hits != 2 || routes[0].Misses != 3 || routes[0].Reasons["uri-miss"] != 3 {
		t.Errorf("routes %+v", routes)
	}
	eventually(t, "three misses to be timed", func() bool {
		_, misses := w.cache.Times()
		return misses.Total() == 3 && misses.Quantile(0.5) > 0
	})
	for range 126 { // 128 in all
		w.get("/3/?tag=properties/id=3")
	}
	if hits, _ := w.cache.Times(); hits.Total() != 2 {
		t.Errorf("of 128 hits %d were timed", hits.Total())
	}
}

// What may still be served although it changed is kept.
func TestFree_KeepsWhatMayBeServedStale(t *testing.T) {
	w := newWorld(t, tagged, func(c *cache.Config) { c.ServeChangedIfError = time.Hour })
	w.filled("/?tag=users")
	w.db.at += 10
	w.db.apply(coherence.Change{Hash: coherence.TableFloor(coherence.Everything), At: w.db.at})
	if pages, _ := w.cache.Free(); pages != 0 {
		t.Errorf("%d pages were freed", pages)
	}
}

func TestKeep_FreesAfterEverythingWasMadeStale(t *testing.T) {
	w := newWorld(t, tagged)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- w.cache.Keep(ctx) }()
	w.filled("/?tag=users")
	eventually(t, "it to be freed", func() bool {
		w.db.mu.Lock() // again and again: Keep may begin after the first
		w.db.at += 10
		w.db.apply(coherence.Change{Hash: coherence.TableFloor(coherence.Everything), At: w.db.at})
		w.db.mu.Unlock()
		return len(w.inspect("/?tag=users")) == 0
	})
	cancel()
	must(t, <-done)
}

func TestSample_IsAPage(t *testing.T) {
	page := cache.NewSample([]byte("hello"), time.Minute)
	if string(page.Sample()) != "hello" || time.Until(page.Expires()) < 50*time.Second || (*cache.Page)(nil).Sample() != nil {
		t.Errorf("%q until %s", page.Sample(), page.Expires())
	}
}

// A page of which one variant is of use stays, whole.
func TestFree_KeepsAPageThatHasSomethingNewer(t *testing.T) {
	w := newWorld(t, tagged)
	const target = "/?tag=users"
	w.filled(target, "Accept: text/html")
	w.db.at += 10
	w.db.apply(coherence.Change{Hash: coherence.TableFloor(coherence.Everything), At: w.db.at})
	w.filled(target, "Accept: application/json")
	if pages, _ := w.cache.Free(); pages != 0 {
		t.Errorf("%d pages were freed", pages)
	}
	w.wantHit(w.get(target, "Accept: application/json"), "application/json")
}

func TestFree_AfterAnotherEpochBegan(t *testing.T) {
	w := newWorld(t, tagged)
	const target = "/?tag=users"
	w.filled(target)
	if pages, _ := w.cache.Free(); pages != 0 {
		t.Errorf("%d pages were freed although nothing was made stale", pages)
	}
	w.db.Begin("e2", w.db.at+10)
	if pages, _ := w.cache.Free(); pages != 1 {
		t.Errorf("%d pages were freed", pages)
	}
}

// What was purged in another epoch says nothing of an entry of this one, and the
// latest move comes first.
func TestInspect_ComparesWithinAnEpochAndTellsTheLatestFirst(t *testing.T) {
	w := newWorld(t, tagged)
	const target = "/?tag=unknown"
	w.filled(target)
	unknown := w.db.commit("unknown")
	w.db.at += 10
	purged := w.db.at
	w.db.apply(coherence.Change{Hash: coherence.PageHash(w.proxy.URL + target), At: purged})
	moved := w.inspect(target)[0].Moved
	if len(moved) != 3 || moved[0].What != "purge of the URL" || moved[0].To != purged.String() || moved[1].To != unknown.String() {
		t.Errorf("%+v", moved)
	}
	w.db.Begin("e2", 1000)
	if err := w.db.Apply(coherence.Record{Epoch: "e2", To: 2000, Visible: 2000,
		Changes: []coherence.Change{{Hash: coherence.PageHash(w.proxy.URL + target), At: 2000}}}); err != nil {
		t.Fatal(err)
	}
	if v := w.inspect(target)[0]; v.State != "epoch" || len(v.Moved) > 0 {
		t.Errorf("in another epoch: %+v", v)
	}
}

// A trusted proxy's word is part of the key, and no client writes it.
func TestInspect_FindsWhatATrustedProxySaidMoreOf(t *testing.T) {
	upstream := httptest.NewServer(http.HandlerFunc(tagged))
	defer upstream.Close()
	o, err := origin.New(origin.Config{Upstream: upstream.URL, Timeout: 10 * time.Second, Trusted: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	must(t, err)
	defer o.Close()
	w := newWorld(t, tagged, func(c *cache.Config) { c.Origin = o })
	w.get("/?tag=users", "X-Forwarded-Host: shop.example")
	eventually(t, "it to be stored", func() bool { return w.cache.Stats().Stored == 1 })
	if found := w.inspect("/?tag=users"); len(found) != 1 || found[0].URL != w.proxy.URL+"/?tag=users" {
		t.Errorf("%+v", found)
	}
	if hot := w.cache.Hottest(1); len(hot) != 1 || hot[0].Exact {
		t.Errorf("%+v", hot)
	}
}

func TestParseKey_IsByteForByteWhatAClientAsksFor(t *testing.T) {
	for text, want := range map[string]string{
		"http://Shop.Example/":             "http://shop.example/",
		"http://shop.example:80":           "http://shop.example/",
		"https://shop.example:443/x?":      "https://shop.example/x?",
		"https://shop.example:80/":         "https://shop.example:80/",
		"http://shop.example?a=%2f":        "http://shop.example/?a=%2f",
		"http://%E4%BD%A0.EXAMPLE:80/x":    "http://%e4%bd%a0.example/x",
		"http://[fe80::1%25eth0]:8001//x/": "http://[fe80::1%25eth0]:8001//x/",
	} {
		key, err := cache.ParseKey(text)
		if err != nil || key.URL() != want {
			t.Errorf("%s is %s, %v, and not %s", text, key.URL(), err, want)
		}
	}
	key := cache.Key{Scheme: "https", Host: "Shop.Example:443\nX-Forwarded-Host: x", Target: "/"}
	if key.URL() != "https://shop.example/" {
		t.Errorf("with what a proxy said of it, it is %q", key.URL())
	}
	if _, err := cache.ParseKey("http://shop.example/x#"); err == nil {
		t.Error("an empty fragment is taken for a part of the path")
	}
}
