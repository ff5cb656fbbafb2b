package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"walcache/proxy/sandbox/sandboxtest"
)

// TestAttack_AHeadThatIsTooLargeIsRefused floods with fields, and with large ones.
func TestAttack_AHeadThatIsTooLargeIsRefused(t *testing.T) {
	a := attack(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "page") }, nil)
	many := func(n, size int) (lines []string) {
		for i := range n {
			lines = append(lines, fmt.Sprintf("X-%d: %s", i, strings.Repeat("x", size)))
		}
		return lines
	}
	for _, test := range []struct {
		what, target string
		lines        []string
		status       int
		counted      string
	}{
		{"95 fields", "/", many(95, 1), 200, ""},
		{"101 fields", "/", many(101, 1), 431, "head-too-large"},
		{"10,000 fields", "/", many(10000, 1), 431, "head-too-large"},
		{"a field of 15 KiB", "/", many(1, 15<<10), 200, ""},
		{"a field of 17 KiB", "/", many(1, 17<<10), 431, "head-too-large"},
		{"70 KiB in 70 fields", "/", many(70, 1<<10), 431, "head-too-large"},
		{"a field of 10 MiB", "/", many(1, 10<<20), 431, "head-too-large"},
		{"a target of 8 KiB", "/" + strings.Repeat("x", 8<<10), nil, 414, "target-too-long"},
		{"a cookie of 15 KiB", "/", []string{"Cookie: a=" + strings.Repeat("x", 15<<10)}, 200, ""},
	} {
		before := a.refused.Refused()[test.counted]
		r := a.ask(test.target, test.lines...)
		if r.status != test.status {
			t.Errorf("%s: %s", test.what, r)
		}
		if now := a.refused.Refused()[test.counted]; test.counted != "" && now != before+1 {
			t.Errorf("%s: counted %v", test.what, a.refused.Refused())
		}
		if test.status != 200 && r.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: others may store it: %v", test.what, r.header)
		}
		tell(t, test.what, r.status, "nothing of it")
	}
	if r := a.ask("/"); r.status != 200 || r.body != "page" {
		t.Errorf("after that: %s", r)
	}
}

// TestAttack_RangesMultiplyNothing asks for many parts of a stored page.
func TestAttack_RangesMultiplyNothing(t *testing.T) {
	page := strings.Repeat("0123456789abcdef", 1<<14)
	a := attack(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, page) }, nil)
	a.ask("/page")
	fetched := len(a.requests())
	for _, set := range []string{strings.Repeat("0-,", 4000) + "0-", strings.Repeat("0-262143,", 1000) + "1-2", strings.Repeat("-1,", 3000) + "-1", strings.Repeat("0-0,2-2,", 1500) + "5-5", "0-,0-", "99999999999999999999-", "-0", "5-1"} {
		r := a.ask("/page", "Range: bytes="+set)
		if !r.hit() || len(r.body) > len(page) || r.status != 200 && r.status != 206 && r.status != 416 {
			t.Errorf("%.20s…: %s, %d bytes", set, r, len(r.body))
		}
		tell(t, fmt.Sprintf("a range of %d bytes, %.12s…", len(set), set), fmt.Sprint(r.status, ", ", len(r.body), " bytes"), "the page, as it was")
	}
	if more := len(a.requests()); fetched != 1 || more != 0 {
		t.Errorf("the service was asked %d times, and %d times for parts", fetched, more)
	}
}

// TestAttack_AFieldThatClientsMakeUpMakes32VariantsAtMost floods one URL of a service
// that names the field in Vary.
func TestAttack_AFieldThatClientsMakeUpMakes32VariantsAtMost(t *testing.T) {
	a := attack(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Vary", "X-Made-Up")
		_, _ = io.WriteString(w, r.Header.Get("X-Made-Up"))
	}, nil)
	for i := range 200 {
		made := fmt.Sprintf("X-Made-Up: %d %s", i, strings.Repeat("x", 1000))
		if r := a.ask("/variants", made); !strings.HasPrefix(r.body, strconv.Itoa(i)+" ") {
			t.Errorf("%d: %s", i, r)
		}
	}
	n := len(a.stored("/variants"))
	if n != 32 {
		t.Errorf("%d variants", n)
	}
	if bytes := a.memory.Bytes(); bytes > 32*8<<10 {
		t.Errorf("%d bytes", bytes)
	}
	tell(t, "200 values of a field in Vary", "each their own", fmt.Sprint(n, " variants, ", a.memory.Bytes(), " bytes"))
}

// TestAttack_QueriesThatClientsMakeUpFillNoMoreThanTheMemory asks for thousands of
// URLs, once each, while others ask for one page.
func TestAttack_QueriesThatClientsMakeUpFillNoMoreThanTheMemory(t *testing.T) {
	const memory = 2 << 20
	body := strings.Repeat("x", 8<<10)
	a := attack(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/x-page")
		_, _ = io.WriteString(w, body)
	}, func(o *options) { o.memory = memory })
	for range 20 {
		a.get("/hot")
	}
	var all sync.WaitGroup
	for worker := range 4 {
		all.Go(func() {
			for i := range 300 {
				a.get(fmt.Sprintf("/flood?%d=%d", worker, i))
				if i%10 == 0 {
					a.get("/hot")
				}
			}
		})
	}
	all.Wait()
	sandboxtest.Eventually(t, 10*time.Second, func() error {
		if n := a.memory.Bytes(); n > memory {
			return fmt.Errorf("%d bytes", n)
		}
		return nil
	})
	stats := a.cache.Stats()
	if r := a.get("/hot"); !r.hit() {
		t.Errorf("the page that all ask for: %s", r)
	}
	if n := stats.Hits["memory"]; n < 100 {
		t.Errorf("%d hits", n)
	}
	tell(t, "1,200 queries of 9.6 MiB in all, --memory 2MiB", fmt.Sprint(stats.Hits["memory"], " hits of the page that others ask for"),
		fmt.Sprint(a.memory.Pages(), " pages, ", a.memory.Bytes(), " bytes"))
	long := "/long?" + strings.Repeat("x", 5<<10)
	first, second := a.ask(long), a.ask(long)
	if second.hit() || !strings.Contains(second.header.Get("Cache-Status"), "key-too-long") {
		t.Errorf("a key of 5 KiB: %s", second)
	}
	tell(t, "a target of 5 KiB", first, len(a.stored(long)))
}

// TestAttack_ARedisThatIsBehindFillsNoMemory floods while Redis is away.
func TestAttack_ARedisThatIsBehindFillsNoMemory(t *testing.T) {
	cleanEnv(t)
	body := strings.Repeat("x", 1<<20)
	upstream := rawService(t, func(*http.Request) string {
		return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	})
	s := serveWith(t, "--no-coherence", "--upstream="+upstream, "--redis-url=redis://127.0.0.1:1/0", "--memory=16MiB")
	for i := range 60 {
		if r := ask(t, fmt.Sprintf("%s/%d", s.url, i)); r.status != 200 {
			t.Fatalf("%s", r)
		}
	}
	metrics := ask(t, s.admin+"/metrics").body
	figure := func(name string) (n float64) {
		m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` (\S+)$`).FindStringSubmatch(metrics)
		if m == nil {
			t.Errorf("no %s", name)
			return 0
		}
		n, _ = strconv.ParseFloat(m[1], 64)
		return n
	}
	waiting, dropped, memory := figure("walcache_redis_queue_pages"), figure(`walcache_redis_dropped_total{reason="behind"}`), figure("walcache_memory_bytes")
	if waiting > 32 || dropped < 28 || memory > 16<<20 {
		t.Errorf("%g pages wait, %g dropped, %g bytes of memory", waiting, dropped, memory)
	}
	tell(t, "60 pages of 1 MiB while Redis is away", "200 each", fmt.Sprintf("%g wait for Redis, %g dropped, %g bytes of memory", waiting, dropped, memory))
}

// TestAttack_SlowClientsHoldUpNobody has hundreds of connections say nothing, half a
// head, or half a body. When they are ended is for the tests of package wire.
func TestAttack_SlowClientsHoldUpNobody(t *testing.T) {
	a := attack(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "page")
	}, nil)
	for range 150 {
		a.dial()
		for _, text := range []string{"GET / HTTP/1.1\r\nHost: shop.example\r\nX: ", "GET /?" + strconv.Itoa(time.Now().Nanosecond()) + " HTTP/1.1\r\nHost: shop.ex", "P"} {
			if _, err := io.WriteString(a.dial(), text); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 100 { // fewer than --max-fetches
		if _, err := io.WriteString(a.dial(), "POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 1000\r\n\r\nx"); err != nil {
			t.Fatal(err)
		}
	}
	sandboxtest.Eventually(t, 20*time.Second, func() error {
		if n := a.cache.Stats().Writes.Now; n != 100 {
			return fmt.Errorf("%d half bodies are at the service", n)
		}
		return nil
	})
	for range 5 {
		if r := a.ask("/page"); r.body != "page" {
			t.Errorf("%s", r)
		}
	}
	if r := a.ask("/page"); !r.hit() {
		t.Errorf("%s", r)
	}
	if r := a.one(asking("POST", "/", "Content-Length: 1") + "x"); r.status != 200 {
		t.Errorf("a write: %s", r)
	}
	tell(t, "600 slow heads and idle connections, 100 slow bodies", "others are answered", "what others ask for")
}

// TestAttack_SlowBodiesUseUpTheShareOfWrites sends as many half bodies as may be at
// the service. Reads have a share of their own.
func TestAttack_SlowBodiesUseUpTheShareOfWrites(t *testing.T) {
	a := attack(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "page")
	}, func(o *options) { o.cache.MaxFetches, o.cache.QueueTimeout = 4, 100*time.Millisecond })
	for range 4 {
		if _, err := io.WriteString(a.dial(), "POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 1000\r\n\r\nx"); err != nil {
			t.Fatal(err)
		}
	}
	sandboxtest.Eventually(t, 20*time.Second, func() error {
		if a.cache.Stats().Writes.Now != 4 {
			return errors.New("they are not there")
		}
		return nil
	})
	write, read := a.one(asking("POST", "/", "Content-Length: 1")+"x"), a.ask("/page")
	if write.status != 503 || write.header.Get("Retry-After") == "" || read.body != "page" {
		t.Errorf("a write: %s, a read: %s", write, read)
	}
	tell(t, "half bodies, as many as --max-fetches", fmt.Sprintf("to a write %d, to a read %d", write.status, read.status), "the read")
}

// TestAttack_JunkInXRequestIDGoesNowhere sends what would be another line of a log,
// or a very long one.
func TestAttack_JunkInXRequestIDGoesNowhere(t *testing.T) {
	a := attack(t, mirror, nil)
	for _, lines := range [][]string{
		{"X-Request-Id: " + strings.Repeat("x", 10000)}, {`X-Request-Id: evil" , "level":"ERROR`}, {"X-Request-Id: evil evil"}, {"X-Request-Id: "}, {"X-Request-Id: a", "X-Request-Id: evil"},
		{"X-Request-Id: evil\x80"}, {"X_Request_Id: evil"}, {"Traceparent: evil"}, {"Traceparent: 00-evil", "Tracestate: evil"},
	} {
		a.requests()
		r := a.ask("/id?"+strconv.Itoa(len(lines[0])), lines...)
		got := a.requests()
		if id := r.header.Get("X-Request-Id"); len(id) > 128 || strings.Contains(id, "evil") {
			t.Errorf("%.40q: the client gets the id %.100q", lines, id)
		}
		for _, req := range got {
			if strings.Contains(fmt.Sprint(req.Header["X-Request-Id"], req.Header["X_request_id"], req.Header["Traceparent"], req.Header["Tracestate"]), "evil") || len(req.Header["X-Request-Id"]) != 1 {
				t.Errorf("%.40q: the service gets %.200v", lines, req.Header)
			}
		}
		tell(t, fmt.Sprintf("%.40q", lines), "an id of the proxy's", "none")
	}
}

// TestAttack_AConnectionTakesManyRequests keeps one busy: it is nobody's to hold.
func TestAttack_AConnectionTakesManyRequests(t *testing.T) {
	a := attack(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "page") }, nil)
	conn := a.dial()
	go func() {
		text := strings.Repeat("GET /page HTTP/1.1\r\nHost: shop.example\r\n\r\n", 1000)
		_, _ = io.WriteString(conn, text)
	}()
	r := bufio.NewReader(conn)
	for i := range 1000 {
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatalf("%d: %v", i, err)
		}
		if body, err := io.ReadAll(res.Body); err != nil || string(body) != "page" {
			t.Fatalf("%d: %q, %v", i, body, err)
		}
	}
	if n := len(a.requests()); n != 1 {
		t.Errorf("the service was asked %d times", n)
	}
	tell(t, "1,000 requests in one go", "1,000 answers in order", "one page, fetched once")
}
