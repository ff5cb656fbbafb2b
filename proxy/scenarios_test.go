package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"walcache/proxy/sandbox/sandboxtest"
)

// rows fills the table with n rows, in places "place 0" to "place 9".
func (s *system) rows(n int) {
	s.t.Helper()
	s.exec(fmt.Sprintf(`INSERT INTO properties (title, description, price, location)
		SELECT 'row ' || i, '', i, 'place ' || i %% 10 FROM generate_series(1, %d) i`, n))
	s.caughtUp()
}

func row(id int) string { return fmt.Sprintf("/properties/%d/", id) }

func in(place string) string { return "/properties/?location=" + url.QueryEscape(place) }

func TestSystem_AMoveChangesBothPlacesAndNoOther(t *testing.T) {
	s := start(t, sandboxtest.Postgres(t), nil)
	s.rows(20)
	from, to, other := s.warm(in("place 1")), s.warm(in("place 2")), s.warm(in("place 3"))
	s.exec("UPDATE properties SET location = 'place 2' WHERE id = 1")
	s.caughtUp()
	if r := s.get(in("place 1")); r.hit() || r.body == from.body {
		t.Errorf("the place it left: %s", r.header.Get("Cache-Status"))
	}
	if r := s.get(in("place 2")); r.hit() || r.body == to.body {
		t.Errorf("the place it came to: %s", r.header.Get("Cache-Status"))
	}
	if r := s.get(in("place 3")); !r.hit() || r.body != other.body {
		t.Errorf("a third place: %s", r.header.Get("Cache-Status"))
	}
}

func TestSystem_AMissingRowAppears(t *testing.T) {
	s := start(t, sandboxtest.Postgres(t), nil)
	s.rows(3)
	if r := s.warm(row(77)); r.status != 404 {
		t.Fatalf("status %d", r.status)
	}
	s.exec("INSERT INTO properties (id, title, description, price, location) VALUES (77, 'new', '', 1, 'x')")
	s.caughtUp()
	if r := s.get(row(77)); r.status != 200 {
		t.Errorf("status %d, %s", r.status, r.header.Get("Cache-Status"))
	}
}

func TestSystem_TruncateReachesRowPages(t *testing.T) {
	s := start(t, sandboxtest.Postgres(t), nil)
	s.rows(20)
	s.warm(row(7))
	s.warm(in("place 4"))
	s.exec("TRUNCATE properties")
	s.caughtUp()
	if r := s.get(row(7)); r.status != 404 {
		t.Errorf("row: %d %s", r.status, r.header.Get("Cache-Status"))
	}
	if r := s.get(in("place 4")); !strings.Contains(r.body, `"count":0`) {
		t.Errorf("list: %s %s", r.body, r.header.Get("Cache-Status"))
	}
}

func TestSystem_ARollbackMakesNothingStale(t *testing.T) {
	s := start(t, sandboxtest.Postgres(t), nil)
	s.rows(20)
	pages := []string{row(1), in("place 1"), "/properties/"}
	for _, p := range pages {
		s.warm(p)
	}
	tx, err := s.db.Begin(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(context.Background(), "UPDATE properties SET price = price + 1"); err != nil {
		t.Fatal(err)
	}
	if err := tx.Rollback(context.Background()); err != nil {
		t.Fatal(err)
	}
	s.caughtUp()
	for _, p := range pages {
		if r := s.get(p); !r.hit() {
			t.Errorf("%s: %s", p, r.header.Get("Cache-Status"))
		}
	}
}

// TestSystem_AKeylessTableStaysWritable: the application's own updates must
// never fail because of the proxy.
func TestSystem_AKeylessTableStaysWritable(t *testing.T) {
	s := start(t, sandboxtest.Postgres(t), nil)
	s.exec("CREATE TABLE keyless (a int)", "INSERT INTO keyless VALUES (1)")
	s.caughtUp()
	s.exec("UPDATE keyless SET a = 2", "DELETE FROM keyless")
	// As long as its updates cannot be seen, nothing that may depend on it is
	// stored; what names its tags goes on being stored.
	s.rows(3)
	s.warm(row(1))
	if blind := s.tracker.Catalog().Blind; !slices.Contains(blind, "keyless") {
		t.Errorf("blind: %v", blind)
	}
}

func TestSystem_FollowsAServerThatWasAway(t *testing.T) {
	pg := sandboxtest.OwnPostgres(t, nil)
	s := start(t, pg.DSN(""), nil)
	s.rows(3)
	before := s.warm(row(1))
	epoch := s.tracker.Stamp().Epoch
	if err := pg.Restart(context.Background()); err != nil {
		t.Fatal(err)
	}
	s.awaitStreaming()
	sandboxtest.Eventually(t, 30*time.Second, func() error {
		if r := s.get(row(1)); !r.hit() || r.body != before.body {
			return fmt.Errorf("not warm: %s", r.header.Get("Cache-Status"))
		}
		return nil
	})
	if now := s.tracker.Stamp().Epoch; now != epoch {
		t.Errorf("a clean restart began epoch %s after %s", now, epoch)
	}
	if stored := s.cache.Stats().Stored; stored != 1 {
		t.Errorf("%d answers stored: the page was fetched again", stored)
	}
}

// together runs n requests for one page at the same time.
func (s *system) together(n int, path string) (slowest time.Duration) {
	s.t.Helper()
	var group sync.WaitGroup
	var longest atomic.Int64
	gate := make(chan struct{})
	for range n {
		group.Go(func() {
			<-gate
			began := time.Now()
			if r, err := s.fetch(s.url + path); err != nil || r.status != 200 {
				s.t.Errorf("%d %v", r.status, err)
			}
			for took := int64(time.Since(began)); took > longest.Load(); {
				longest.Store(took)
			}
		})
	}
	close(gate)
	group.Wait()
	return time.Duration(longest.Load())
}

func TestSystem_AColdPageIsReadOnce(t *testing.T) {
	s := start(t, sandboxtest.Postgres(t), func(o *options) { o.maxStaleness = time.Minute })
	s.rows(1000)
	for _, n := range []int{200, 1000} {
		s.exec("UPDATE properties SET price = price + 1 WHERE id = 1")
		s.caughtUp()
		before := s.cache.Stats().Fetches.Total
		slowest := s.together(n, "/properties/")
		fetches := s.cache.Stats().Fetches.Total - before
		t.Logf("%d at once: %d fetches, slowest answer %s", n, fetches, slowest)
		// One, unless this machine is so busy that the body takes longer to arrive
		// than others wait for it.
		if fetches > 5 {
			t.Errorf("%d at once: %d fetches", n, fetches)
		}
	}
}

// TestSystem_AHotChangingPageHasTwoFetchesAtMost: a row that changes every few
// milliseconds under 200 readers.
func TestSystem_AHotChangingPageHasTwoFetchesAtMost(t *testing.T) {
	s := start(t, sandboxtest.Postgres(t), nil)
	s.rows(10)
	s.warm(row(1))
	ctx, stop := context.WithCancel(context.Background())
	var readers sync.WaitGroup
	var reads atomic.Int64
	for range 200 {
		readers.Go(func() {
			for ctx.Err() == nil {
				if r, err := s.fetch(s.url + row(1)); err != nil || r.status != 200 {
					t.Errorf("%d %v", r.status, err)
				}
				reads.Add(1)
			}
		})
	}
	every := time.NewTicker(5 * time.Millisecond)
	defer every.Stop()
	for range 400 {
		<-every.C
		s.exec("UPDATE properties SET price = price + 1 WHERE id = 1")
	}
	stop()
	readers.Wait()
	st := s.cache.Stats()
	t.Logf("%d reads, %d fetches, %d coalesced, peak %d", reads.Load(), st.Fetches.Total, st.Coalesced, st.Fetches.Peak)
	if st.Fetches.Peak > 2 {
		t.Errorf("%d fetches of one page at a time", st.Fetches.Peak)
	}
}

var floorPages = flag.Int("floor.pages", 2000, "hot pages of the floor test")

// TestSystem_AFloorUnderManyHotPages: all of many hot pages become stale at
// once.
func TestSystem_AFloorUnderManyHotPages(t *testing.T) {
	const readers = 400
	pages := *floorPages
	s := start(t, sandboxtest.Postgres(t), nil)
	s.rows(pages)
	s.everyPage(pages, readers)
	s.exec("SELECT pg_logical_emit_message(true, 'walcache', 'floor properties')")
	s.caughtUp()
	stale := s.cache.Stats()
	s.everyPage(pages, readers)
	st := s.cache.Stats()
	t.Logf("peak %d upstream requests, %d pages fetched again, %d refused", st.Fetches.Peak, st.Fetches.Total-stale.Fetches.Total, st.Fetches.Refused)
	if most := int64(s.options.cache.MaxFetches); st.Fetches.Peak > most {
		t.Errorf("%d requests at the service at a time, and at most %d are allowed", st.Fetches.Peak, most)
	}
	if again := st.Fetches.Total - stale.Fetches.Total; again < uint64(pages) {
		t.Errorf("%d of %d pages fetched again", again, pages)
	}
}

// everyPage asks for each row's page once.
func (s *system) everyPage(pages, readers int) {
	s.t.Helper()
	var group sync.WaitGroup
	for i := range readers {
		group.Go(func() {
			for id := 1 + i; id <= pages; id += readers {
				if r, err := s.fetch(s.url + row(id)); err != nil || r.status != 200 {
					s.t.Errorf("row %d: %d %v", id, r.status, err)
				}
			}
		})
	}
	group.Wait()
}

// TestSystem_ABulkLoadLeavesOtherPagesHits loads rows into one table while pages
// of another are read, and says how old the evidence became.
func TestSystem_ABulkLoadLeavesOtherPagesHits(t *testing.T) {
	const loaded, pages = 1_000_000, 200
	s := start(t, sandboxtest.Postgres(t), nil)
	s.exec("CREATE TABLE bulk (id bigint PRIMARY KEY, payload text)")
	s.rows(pages)
	sandboxtest.Eventually(t, 30*time.Second, func() error {
		if _, ok := s.tracker.Catalog().Tables["bulk"]; !ok {
			return fmt.Errorf("bulk is not published yet")
		}
		return nil
	})
	for id := 1; id <= pages; id++ {
		s.warm(row(id))
	}
	before := s.cache.Stats()
	ctx, stop := context.WithCancel(context.Background())
	var group sync.WaitGroup
	var oldest time.Duration
	group.Go(func() {
		for ctx.Err() == nil {
			oldest = max(oldest, s.tracker.Progress(time.Now()).FreshAge)
			time.Sleep(5 * time.Millisecond)
		}
	})
	group.Go(func() {
		for ctx.Err() == nil {
			s.everyPage(pages, 2)
		}
	})
	began := time.Now()
	s.exec(fmt.Sprintf("INSERT INTO bulk SELECT i, repeat('x', 40) FROM generate_series(1, %d) i", loaded))
	took := time.Since(began)
	s.caughtUp()
	stop()
	group.Wait()
	st := s.cache.Stats()
	hits, misses := st.Hits["memory"]-before.Hits["memory"], st.Misses["changed"]-before.Misses["changed"]
	unproven := st.Misses["unproven"] - before.Misses["unproven"]
	t.Logf("%d rows in %s, known %s after COMMIT; fresh-as-of at most %s old; untouched pages: %d hits, %d changed, %d unproven",
		loaded, took.Round(time.Millisecond), (time.Since(began) - took).Round(time.Millisecond), oldest.Round(time.Millisecond), hits, misses, unproven)
	// The rows that the transaction names, before it gives that up, fill one slot
	// of the tracker in 128: each page had that chance to share one.
	if misses > pages/10 {
		t.Errorf("%d untouched pages became stale", misses)
	}
	if rows := s.tracker.Progress(time.Now()).Rows["bulk"]; rows != loaded {
		t.Errorf("%d rows counted", rows)
	}
}

// TestSystem_ClientsReadTheirOwnWrites writes through the proxy, to a service
// of the test's own, and asks at once for what was written.
func TestSystem_ClientsReadTheirOwnWrites(t *testing.T) {
	const times = 300
	dsn := sandboxtest.Postgres(t)
	var s *system
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sql := "SELECT price::text FROM properties WHERE id = 1"
		if r.Method == http.MethodPatch {
			sql = "UPDATE properties SET price = price + 1 WHERE id = 1 RETURNING price::text"
		}
		price := ""
		if err := s.db.QueryRow(r.Context(), sql).Scan(&price); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
		w.Header().Set("Cache-Groups", `"properties/id=1"`)
		fmt.Fprint(w, price)
	}))
	defer service.Close()
	s = start(t, dsn, func(o *options) {
		o.origin.Upstream = service.URL
		o.cache.WriteWait = time.Minute // no matter how slow this machine is today
	})
	s.rows(1)
	old := 0
	for range times {
		s.warm("/price")
		req, err := http.NewRequest(http.MethodPatch, s.url+"/price", nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := s.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		written, err := io.ReadAll(res.Body)
		if err := errors.Join(err, res.Body.Close()); err != nil {
			t.Fatal(err)
		}
		if r := s.get("/price"); r.body != string(written) {
			old++
		}
	}
	if old > 0 {
		t.Errorf("%d of %d answers after a write were older than it", old, times)
	}
}

// TestSystem_AnUntaggedServiceIsCoherentToo: a service that knows nothing of
// tags, before which the proxy is put without any configuration.
func TestSystem_AnUntaggedServiceIsCoherentToo(t *testing.T) {
	dsn := sandboxtest.Postgres(t)
	var s *system
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var n int
		if err := s.db.QueryRow(r.Context(), "SELECT count(*) FROM properties").Scan(&n); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
		fmt.Fprint(w, n)
	}))
	defer service.Close()
	s = start(t, dsn, func(o *options) { o.origin.Upstream, o.cache.TrustTags = service.URL, false })
	s.rows(5)
	if r := s.warm("/count"); r.body != "5" {
		t.Fatalf("%s", r.body)
	}
	s.exec("INSERT INTO properties (title, description, price, location) VALUES ('', '', 1, '')")
	s.caughtUp()
	if r := s.get("/count"); r.body != "6" {
		t.Errorf("%s, %s", r.body, r.header.Get("Cache-Status"))
	}
	// While there is a table whose updates cannot be seen, nothing is stored.
	s.exec("CREATE TABLE keyless (a int)", "INSERT INTO keyless VALUES (1)")
	s.caughtUp()
	for range 3 {
		if r := s.get("/count"); r.hit() {
			t.Errorf("stored although %v: %s", s.tracker.Catalog().Blind, r.header.Get("Cache-Status"))
		}
	}
	s.exec("ALTER TABLE keyless REPLICA IDENTITY FULL")
	s.warm("/count")
}
