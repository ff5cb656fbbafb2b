package cache_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"walcache/proxy/cache"
	"walcache/proxy/coherence"
)

// warm is a cache that has an answer of 2 KiB to the request.
func warm(t testing.TB) (*cache.Cache, *http.Request) {
	upstream := httptest.NewServer(text(strings.Repeat("x", 2048), "Content-Type: application/json", `ETag: "v1"`,
		"Vary: Accept-Encoding", "Cache-Control: no-cache", "CDN-Cache-Control: max-age=900",
		`Cache-Groups: "properties/id=1", "users"`, "As-Of-LSN: "+coherence.Position{Epoch: epoch, LSN: 100}.String()))
	t.Cleanup(upstream.Close)
	c := newCache(t, upstream.URL, newDatabase())
	r := httptest.NewRequest(http.MethodGet, "/properties/1/?lang=en", nil)
	r.Header.Set("Accept-Encoding", "gzip, deflate, br, zstd")
	r.Header.Set("User-Agent", "Mozilla/5.0")
	r.Header.Set("Accept", "*/*")
	c.ServeHTTP(httptest.NewRecorder(), r)
	return c, r
}

func TestHit_IsDecidedWithoutAllocating(t *testing.T) {
	c, r := warm(t)
	now := time.Now()
	if n := testing.AllocsPerRun(1000, func() {
		if !c.IsFresh(r, now) {
			t.Fatal("not fresh")
		}
	}); n != 0 {
		t.Errorf("%v allocations to decide a hit", n)
	}
}

func TestHit_IsSentWithoutAllocating(t *testing.T) {
	c, r := warm(t)
	w := &sink{header: http.Header{}}
	c.ServeHTTP(w, r)
	// A garbage collection in between may empty a pool.
	if n := testing.AllocsPerRun(1000, func() { c.ServeHTTP(w, r) }); n != 0 {
		t.Errorf("%v allocations to send a hit", n)
	}
	if w.status != http.StatusOK || !strings.HasPrefix(w.header.Get("Cache-Status"), "walcache; hit") {
		t.Errorf("%d %v", w.status, w.header)
	}
}

// sink is a http.ResponseWriter that costs nothing.
type sink struct {
	header http.Header
	status int
}

func (s *sink) Header() http.Header         { return s.header }
func (s *sink) WriteHeader(status int)      { s.status = status }
func (s *sink) Write(p []byte) (int, error) { return len(p), nil }

func BenchmarkDecide(b *testing.B) {
	c, r := warm(b)
	now := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		if !c.IsFresh(r, now) {
			b.Fatal("not fresh")
		}
	}
}

func BenchmarkHit(b *testing.B) {
	c, r := warm(b)
	w := &sink{header: http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		c.ServeHTTP(w, r)
	}
}

func BenchmarkHitParallel(b *testing.B) {
	c, r := warm(b)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		w := &sink{header: http.Header{}}
		for pb.Next() {
			c.ServeHTTP(w, r)
		}
	})
}

// BenchmarkHitThroughNetHTTP is a hit as a client on a kept-alive connection
// gets it; BenchmarkBareNetHTTP is the least that net/http could do for it.
func BenchmarkHitThroughNetHTTP(b *testing.B) {
	c, r := warm(b)
	benchmarkServer(b, c, r)
}

// BenchmarkHitBeforeNetHTTP is the same hit, answered at once.
func BenchmarkHitBeforeNetHTTP(b *testing.B) {
	c, r := warm(b)
	benchmarkAt(b, listen(b, c, c), r)
}

func BenchmarkAnswer(b *testing.B) {
	c, r := warm(b)
	buf := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, ok := c.Answer(r, buf); !ok {
			b.Fatal("not answered")
		}
	}
}

func BenchmarkBareNetHTTP(b *testing.B) {
	_, r := warm(b)
	body := []byte(strings.Repeat("x", 2048))
	benchmarkServer(b, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Content-Length"] = []string{"2048"}
		_, _ = w.Write(body)
	}), r)
}

func benchmarkServer(b *testing.B, h http.Handler, r *http.Request) {
	server := httptest.NewServer(h)
	b.Cleanup(server.Close)
	benchmarkAt(b, server.Listener.Addr().String(), r)
}

func benchmarkAt(b *testing.B, at string, r *http.Request) {
	var request strings.Builder
	fmt.Fprintf(&request, "GET %s HTTP/1.1\r\nHost: %s\r\n", r.RequestURI, r.Host)
	for name, values := range r.Header {
		fmt.Fprintf(&request, "%s: %s\r\n", name, values[0])
	}
	request.WriteString("\r\n")
	conn, err := net.Dial("tcp", at)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	answers := bufio.NewReaderSize(conn, 8192)
	head := []byte(request.String())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := conn.Write(head); err != nil {
			b.Fatal(err)
		}
		for {
			line, err := answers.ReadSlice('\n')
			if err != nil {
				b.Fatal(err)
			}
			if len(line) == 2 {
				break
			}
		}
		if _, err := io.CopyN(io.Discard, answers, 2048); err != nil {
			b.Fatal(err)
		}
	}
}
