package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"walcache/proxy/redisurl"
	"walcache/proxy/sandbox/sandboxtest"
)

// What is measured rather than asserted. Without flags each is short, and holds
// what must hold at any speed.
var (
	measureLog     = flag.Duration("measure.log", 2*time.Second, "how long rows are written as fast as possible")
	measureRate    = flag.Int("measure.rate", 0, "rows written a second while it is; 0 is as many as the machine can")
	measureEntries = flag.Int("measure.entries", 2000, "pages in Redis under one tag")
	measureFrozen  = flag.Duration("measure.frozen", 2*time.Second, "how long Redis stands still")
	measureRestart = flag.Int("measure.restarts", 1, "restarts of a proxy under load")
)

func quantile(times []time.Duration, q float64) time.Duration {
	if len(times) == 0 {
		return 0
	}
	slices.Sort(times)
	return times[int(q*float64(len(times)-1))].Round(time.Microsecond)
}

// shareOwn gives a proxy a Redis of the test's own.
func shareOwn(url string) func(*options) {
	return func(o *options) { o.redis = redisConfig{url, "wc:"} }
}

func openRedis(t *testing.T, url string) redis.UniversalClient {
	t.Helper()
	client, err := redisurl.Open(url, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// TestMeasure_TheLogStaysSmall writes rows as fast as the machine can, or as it
// is told, and wants log and checkpoint below 64 MiB all the while. It reports what became of
// pages whose rows nobody touched.
func TestMeasure_TheLogStaysSmall(t *testing.T) {
	const rows, pages, writers, perCommit = 200_000, 200, 4, 100
	server := sandboxtest.OwnRedis(t)
	client := openRedis(t, server.URL())
	s := start(t, sandboxtest.Postgres(t), shareOwn(server.URL()))
	s.rows(rows)
	s.caughtUp()
	for id := 1; id <= pages; id++ {
		s.warm(row(id))
	}
	ctx, stop := context.WithTimeout(context.Background(), *measureLog)
	defer stop()
	var written atomic.Int64
	var group sync.WaitGroup
	began := time.Now()
	for range writers {
		group.Go(func() {
			for ctx.Err() == nil {
				if *measureRate > 0 {
					time.Sleep(time.Until(began.Add(time.Duration(written.Load()) * time.Second / time.Duration(*measureRate))))
				}
				from := pages + 1 + rand.IntN(rows-pages-perCommit)
				tag, err := s.db.Exec(ctx, "UPDATE properties SET price = price + 1 WHERE id >= $1 AND id < $2", from, from+perCommit)
				if err == nil {
					written.Add(tag.RowsAffected())
				}
			}
		})
	}
	var biggest, log, checkpoint int64
	asked, hits, reasons := 0, 0, map[string]int{}
	for ctx.Err() == nil {
		r := s.get(row(1 + asked%pages))
		asked++
		if r.hit() {
			hits++
		} else {
			reasons[r.header.Get("Cache-Status")]++
		}
		if asked%100 == 0 {
			l, _ := client.MemoryUsage(t.Context(), "wc:log", 0).Result()
			c, _ := client.MemoryUsage(t.Context(), "wc:checkpoint", 0).Result()
			if l+c > biggest {
				biggest, log, checkpoint = l+c, l, c
			}
		}
		time.Sleep(time.Millisecond)
	}
	group.Wait()
	p, st := s.tracker.Progress(time.Now()), s.log.Status()
	t.Logf("%d rows in %s (%.0f/s); log and checkpoint at most %.1f MiB (%.1f + %.1f)", written.Load(), *measureLog,
		float64(written.Load())/measureLog.Seconds(), mib(biggest), mib(log), mib(checkpoint))
	t.Logf("appended %d entries, %.1f MiB; %d checkpoints, the last of %.1f MiB in %s; tracker %d of %d slots (%.0f%%)", st.Writer.Entries,
		mib(int64(st.Writer.Bytes)), st.Writer.Checkpoints, mib(int64(st.Writer.CheckpointBytes)), st.Writer.CheckpointTook.Round(time.Millisecond),
		p.Used, p.Slots, 100*float64(p.Used)/float64(p.Slots))
	t.Logf("untouched pages: %d of %d hits (%.1f%%); others %v", hits, asked, 100*float64(hits)/float64(max(asked, 1)), reasons)
	if biggest > 64<<20 {
		t.Errorf("log and checkpoint took up %d bytes", biggest)
	}
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

// TestMeasure_OneTagOnManyEntries puts pages under one tag into Redis, has the
// tag change, and wants none of them served once the proxy knows of it. It
// reports how long that took after COMMIT, and what it cost Redis.
func TestMeasure_OneTagOnManyEntries(t *testing.T) {
	server := sandboxtest.OwnRedis(t)
	client := openRedis(t, server.URL())
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Groups", `"properties/location=Nairobi"`)
		fmt.Fprintf(w, "page %s", r.URL.Path)
	}))
	defer service.Close()
	s := start(t, sandboxtest.Postgres(t), func(o *options) {
		shareOwn(server.URL())(o)
		o.origin.Upstream = service.URL
		o.memory = 64 << 20
		o.cache.TTL = time.Hour
	})
	s.rows(1)
	s.caughtUp()
	n := *measureEntries
	page := func(i int) string { return "/page/" + strconv.Itoa(i) }
	serve := func(i int) string {
		r := httptest.NewRequest(http.MethodGet, page(i), nil)
		r.Host = "shop.example"
		w := httptest.NewRecorder()
		s.cache.ServeHTTP(w, r)
		return w.Header().Get("Cache-Status")
	}
	began := time.Now()
	var group sync.WaitGroup
	for worker := range 8 {
		group.Go(func() {
			for i := worker; i < n; i += 8 {
				serve(i)
				for s.pages.Stats().Queue > 500 {
					time.Sleep(time.Millisecond) // or what comes faster than Redis takes it is dropped
				}
			}
		})
	}
	group.Wait()
	stored := int64(0)
	sandboxtest.Eventually(t, time.Minute, func() error {
		stored = client.DBSize(t.Context()).Val()
		if q := s.pages.Stats().Queue; q > 0 {
			return fmt.Errorf("%d pages are still to be written", q)
		}
		return nil
	})
	t.Logf("%d keys in Redis after %s, %s", stored, time.Since(began).Round(time.Second), memoryOf(t, client))

	var lastHit atomic.Int64 // nanoseconds since the epoch of Unix, at which a request that was a hit was sent
	ctx, stop := context.WithCancel(context.Background())
	for range 4 {
		group.Go(func() {
			for ctx.Err() == nil {
				sent := time.Now().UnixNano()
				if i := rand.IntN(n); strings.Contains(serve(i), "; hit") {
					for was := lastHit.Load(); was < sent && !lastHit.CompareAndSwap(was, sent); was = lastHit.Load() {
					}
				}
			}
		})
	}
	sandboxtest.Eventually(t, time.Minute, func() error {
		if lastHit.Load() == 0 {
			return fmt.Errorf("nothing is a hit")
		}
		return nil
	})
	before := commands(t, client)
	s.exec("UPDATE properties SET location = 'Nairobi' WHERE id = 1")
	committed := time.Now()
	s.caughtUp()
	stop()
	group.Wait()
	// What the readers fetched meanwhile is fresh; the others are what they were.
	cost := commands(t, client)
	t.Logf("COMMIT to the last hit sent: %s", time.Duration(lastHit.Load()-committed.UnixNano()).Round(10*time.Microsecond))
	for name := range cost {
		if cost[name] -= before[name]; cost[name] > 0 && (name == "xadd" || name == "eval" || name == "del" || name == "unlink" || name == "scan") {
			t.Logf("Redis meanwhile: %d %s", cost[name], name)
		}
	}
	if cost["del"]+cost["unlink"]+cost["scan"]+cost["keys"] > 0 {
		t.Errorf("keys were deleted or looked for to invalidate: %v", cost)
	}
}

func memoryOf(t *testing.T, client redis.UniversalClient) string {
	t.Helper()
	for line := range strings.Lines(client.Info(t.Context(), "memory").Val()) {
		if used, ok := strings.CutPrefix(line, "used_memory_human:"); ok {
			return strings.TrimSpace(used)
		}
	}
	return "?"
}

// commands counts what Redis was asked so far.
func commands(t *testing.T, client redis.UniversalClient) map[string]int {
	t.Helper()
	calls := map[string]int{}
	for line := range strings.Lines(client.Info(t.Context(), "commandstats").Val()) {
		name, rest, ok := strings.Cut(strings.TrimPrefix(line, "cmdstat_"), ":calls=")
		if ok {
			n, _, _ := strings.Cut(rest, ",")
			calls[name], _ = strconv.Atoi(n)
		}
	}
	return calls
}

// TestMeasure_AFrozenRedisHoldsUpNobody compares hits and misses before and
// while Redis stands still.
func TestMeasure_AFrozenRedisHoldsUpNobody(t *testing.T) {
	const hot = 200
	server := sandboxtest.OwnRedis(t)
	s := start(t, sandboxtest.Postgres(t), shareOwn(server.URL()))
	s.rows(hot)
	s.caughtUp()
	for id := 1; id <= hot; id++ {
		s.warm(row(id))
	}
	var n atomic.Int64
	load := func(d time.Duration) (hits, misses []time.Duration, failed int) {
		ctx, cancel := context.WithTimeout(context.Background(), d)
		defer cancel()
		var mu sync.Mutex
		var group sync.WaitGroup
		for range 8 {
			group.Go(func() {
				for ctx.Err() == nil {
					path := row(1 + rand.IntN(hot))
					if rand.IntN(10) == 0 {
						path += "?" + strconv.FormatInt(n.Add(1), 10) // which nobody asked for before
					}
					began := time.Now()
					r, err := s.fetch(s.url + path)
					took := time.Since(began)
					mu.Lock()
					switch {
					case err != nil || r.status != http.StatusOK:
						failed++
					case r.hit():
						hits = append(hits, took)
					default:
						misses = append(misses, took)
					}
					mu.Unlock()
					time.Sleep(time.Millisecond)
				}
			})
		}
		group.Wait()
		return hits, misses, failed
	}
	for _, what := range []string{"before", "frozen", "after"} {
		if what == "frozen" {
			if err := server.Pause(); err != nil {
				t.Fatal(err)
			}
		}
		hits, misses, failed := load(*measureFrozen)
		if what == "frozen" {
			if err := server.Resume(); err != nil {
				t.Fatal(err)
			}
		}
		t.Logf("%s: %d hits p50 %s p99 %s max %s; %d misses p50 %s p99 %s max %s; %d failed", what, len(hits), quantile(hits, .5), quantile(hits, .99), quantile(hits, 1),
			len(misses), quantile(misses, .5), quantile(misses, .99), quantile(misses, 1), failed)
		if failed > 0 || len(hits) == 0 || len(misses) == 0 {
			t.Errorf("%s: %d hits, %d misses, %d failed", what, len(hits), len(misses), failed)
		}
	}
}

// TestMeasure_ARestartUnderLoad restarts the only proxy, and reports which
// part of the first second's requests were hits.
func TestMeasure_ARestartUnderLoad(t *testing.T) {
	const pages = 500
	shared := sharing(t)
	s := start(t, sandboxtest.Postgres(t), shared)
	s.rows(pages)
	s.caughtUp()
	for id := 1; id <= pages; id++ {
		s.warm(row(id))
	}
	ask := func(d time.Duration) (hits, asked int) {
		for began := time.Now(); time.Since(began) < d; asked++ {
			if r, err := s.fetch(s.url + row(1+asked%pages)); err == nil && r.hit() {
				hits++
			}
		}
		return hits, asked
	}
	var atOnce, ready []float64
	for range *measureRestart {
		s.stop()
		s.run(shared)
		hits, asked := ask(time.Second)
		atOnce = append(atOnce, 100*float64(hits)/float64(asked))
		s.awaitVouching()
		s.stop()
		s.run(shared)
		s.awaitVouching() // as /readyz says
		hits, asked = ask(time.Second)
		ready = append(ready, 100*float64(hits)/float64(asked))
	}
	slices.Sort(atOnce)
	slices.Sort(ready)
	t.Logf("hits in the first second, %% of requests: from the first answer on %.1f (%.1f to %.1f), from being ready on %.1f (%.1f to %.1f)",
		atOnce[len(atOnce)/2], atOnce[0], atOnce[len(atOnce)-1], ready[len(ready)/2], ready[0], ready[len(ready)-1])
}
