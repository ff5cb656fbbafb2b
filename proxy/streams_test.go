package main

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"walcache/proxy/sandbox/sandboxtest"
)

var (
	measureBody   = flag.Int64("measure.body", 64<<20, "the length, in bytes, of a body that is too long to be stored")
	measureEvents = flag.Duration("measure.events", 5*time.Second, "how long event streams are open")
)

// TestMeasure_ALongBody has nine clients wait for one body that is too long to be
// stored, each of them at another pace, and wants all of it for all of them by
// one fetch. It reports the time to the first byte, and what it took in memory:
// upstream, proxy and clients are all in this process.
func TestMeasure_ALongBody(t *testing.T) {
	for _, framing := range []string{"chunked", "length"} {
		t.Run(framing, func(t *testing.T) { measureLongBody(t, framing == "length") })
	}
}

func measureLongBody(t *testing.T, length bool) {
	const clients = 9
	size := *measureBody
	piece := make([]byte, 256<<10)
	var wrote time.Time
	asked, answer, rest := make(chan struct{}, clients), make(chan struct{}), make(chan struct{})
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked <- struct{}{}
		<-answer
		if length {
			w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
		}
		wrote = time.Now()
		_, _ = w.Write(piece[:1])
		_ = http.NewResponseController(w).Flush()
		<-rest
		for left := size - 1; left > 0; {
			n, err := w.Write(piece[:min(left, int64(len(piece)))])
			if err != nil {
				return
			}
			left -= int64(n)
		}
	}))
	defer service.Close()
	s := start(t, sandboxtest.Postgres(t), func(o *options) { o.origin.Upstream = service.URL })
	s.caughtUp()
	memory := watchMemory()
	firsts, ends := make(chan time.Time, clients), make([]time.Time, clients)
	var group sync.WaitGroup
	download := func(pause time.Duration, end *time.Time) {
		res, err := s.client.Get(s.url + "/long")
		if err != nil {
			t.Error(err)
			return
		}
		defer res.Body.Close()
		buf := make([]byte, 64<<10)
		n, err := res.Body.Read(buf)
		firsts <- time.Now()
		got := int64(n)
		for ; err == nil; got += int64(n) {
			time.Sleep(pause)
			n, err = res.Body.Read(buf)
		}
		if err != io.EOF || got != size {
			t.Errorf("got %d bytes of %d: %v", got, size, err)
		}
		*end = time.Now()
	}
	for i := range clients {
		group.Go(func() { download(time.Duration(i)*50*time.Microsecond, &ends[i]) })
		if i == 0 {
			<-asked
		}
	}
	sandboxtest.Eventually(t, time.Minute, func() error {
		if waiting := s.cache.Stats().Waiting; waiting != clients-1 {
			return fmt.Errorf("%d wait", waiting)
		}
		return nil
	})
	close(answer)
	var toFirst []time.Duration
	for range clients {
		toFirst = append(toFirst, (<-firsts).Sub(wrote))
	}
	began := time.Now()
	close(rest)
	group.Wait()
	took := time.Since(began)
	slices.SortFunc(ends, time.Time.Compare)
	heap, rss := memory()
	stats := s.cache.Stats()
	t.Logf("%.0f MiB to %d clients in %s (%.0f MiB/s each), the first done after %s", mib(size), clients, took.Round(10*time.Millisecond),
		mib(size)/took.Seconds(), ends[0].Sub(began).Round(10*time.Millisecond))
	t.Logf("first byte after p50 %s, max %s, while the upstream held back the rest", quantile(toFirst, .5), quantile(toFirst, 1))
	t.Logf("heap grew by at most %.1f MiB, the process by %.1f MiB; what is stored is at most 8 MiB", mib(heap), mib(rss))
	if len(asked) > 0 {
		t.Errorf("%d fetches", len(asked)+1)
	}
	if stats.CutOff > 0 || stats.Stored > 0 {
		t.Errorf("%d cut off, %d stored", stats.CutOff, stats.Stored)
	}
	if heap > 64<<20 {
		t.Errorf("the heap grew by %d bytes", heap)
	}
}

// watchMemory returns what returns by how much, at most, heap and process grew
// meanwhile, in bytes. The heap is that of objects, garbage among them; the
// process is 0 where there is no /proc.
func watchMemory() (stop func() (heap, rss int64)) {
	debug.FreeOSMemory()
	statm, _ := os.Open("/proc/self/statm")
	sample, buf := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}, make([]byte, 128)
	now := func() (heap, rss int64) { // without garbage of its own
		metrics.Read(sample)
		if n, _ := statm.ReadAt(buf, 0); n > 0 {
			_, rest, _ := bytes.Cut(buf[:n], []byte(" "))
			for ; len(rest) > 0 && rest[0] >= '0' && rest[0] <= '9'; rest = rest[1:] {
				rss = 10*rss + int64(rest[0]-'0')
			}
		}
		return int64(sample[0].Value.Uint64()), rss * int64(os.Getpagesize())
	}
	heap0, rss0 := now()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	var heap, rss int64
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			h, r := now()
			heap, rss = max(heap, h-heap0), max(rss, r-rss0)
			time.Sleep(5 * time.Millisecond)
		}
	}()
	return func() (int64, int64) {
		cancel()
		<-done
		_ = statm.Close()
		return heap, rss
	}
}

// TestMeasure_EventStreams has clients follow the same events, each by a stream
// of its own. It reports how long an event is on its way, and what the streams
// took in memory.
func TestMeasure_EventStreams(t *testing.T) {
	const clients, every = 50, 20 * time.Millisecond
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for r.Context().Err() == nil {
			fmt.Fprintf(w, "data: %d\n\n", time.Now().UnixNano())
			_ = http.NewResponseController(w).Flush()
			time.Sleep(every)
		}
	}))
	defer service.Close()
	s := start(t, sandboxtest.Postgres(t), func(o *options) { o.origin.Upstream = service.URL })
	s.caughtUp()
	memory := watchMemory()
	ctx, cancel := context.WithTimeout(t.Context(), *measureEvents)
	defer cancel()
	var mu sync.Mutex
	var delays []time.Duration
	var group sync.WaitGroup
	for range clients {
		group.Go(func() {
			own := follow(ctx, s.client, s.url+"/events")
			mu.Lock()
			defer mu.Unlock()
			delays = append(delays, own...)
		})
	}
	group.Wait()
	heap, rss := memory()
	slices.Sort(delays)
	t.Logf("%d streams for %s: %d events, on their way for p50 %s, p99 %s, max %s", clients, *measureEvents, len(delays),
		quantile(delays, .5), quantile(delays, .99), quantile(delays, 1))
	t.Logf("heap grew by at most %.1f MiB, the process by %.1f MiB, for upstream, proxy and clients", mib(heap), mib(rss))
	if want := clients * int(*measureEvents/every) / 10; len(delays) < want {
		t.Errorf("%d events came, and not even %d", len(delays), want)
	}
	if now := s.cache.Stats().Fetches.Now; now != 0 {
		t.Errorf("%d slots are held", now)
	}
}

// follow reads events until ctx ends, and returns how long each was on its way.
func follow(ctx context.Context, client *http.Client, url string) (delays []time.Duration) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil
	}
	res, err := client.Do(req)
	if err != nil {
		return nil
	}
	defer res.Body.Close()
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		if sent, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			if at, err := strconv.ParseInt(sent, 10, 64); err == nil {
				delays = append(delays, time.Duration(time.Now().UnixNano()-at))
			}
		}
	}
	return delays
}
