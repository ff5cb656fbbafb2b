package cache

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"math/rand/v2"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"walcache/proxy/coherence"
	"walcache/proxy/rules"
)

var codecKey = Key{"https", "Example.com:8443\nX-Forwarded-Prefix: /a", "/%7Ep?q=ü&q"}

const noLimit = math.MaxInt

// sample makes a page of several variants, whatever can be in one.
func sample(seed uint64, variants int, now time.Time) *Page {
	r := rand.New(rand.NewPCG(seed, 0))
	var entries []*Entry
	for i := range variants {
		h := http.Header{
			"Content-Type": {"text/html"}, "Etag": {`W/"é,1"`}, "Last-Modified": {"Thu, 01 Jan 1953 00:00:00 GMT"},
			"Link": {"<a>", "", "<b>"}, "Cache-Status": {"inner; hit", "middle; fwd=miss"}, "Vary": {"Accept-Encoding, X"}, "Date": {"Sun, 22 Nov 2026 12:00:00 GMT"},
		}
		body := bytes.Repeat([]byte{byte(r.Uint32())}, r.IntN(10000))
		t := rules.Terms{
			Shared: true, Explicit: r.IntN(2) == 0, ForAuthorized: r.IntN(2) == 0, NoStale: r.IntN(2) == 0, Vary: []string{"Accept-Encoding", "X"},
			InitialAge: time.Duration(r.Int64N(int64(time.Second))), Lifetime: time.Hour + time.Duration(r.Int64N(int64(time.Hour))),
			WhileRevalidate: time.Duration(r.IntN(2)) * time.Minute, IfError: time.Duration(r.IntN(2)) * time.Hour,
		}
		received := now.Add(-time.Duration(r.Int64N(int64(time.Hour))))
		e := newEntry(200+r.IntN(400), h, body, t, []string{"gzip", fmt.Sprint(i)}, received)
		e.hasProvenance(provenance{
			asOf: coherence.Position{Epoch: "k3f9", LSN: coherence.LSN(r.Uint64())},
			deps: coherence.Dependencies{coherence.Hash(r.Uint64()), 0, math.MaxUint64},
			tags: []coherence.Tag{"properties/id=1", ""}, whole: r.IntN(2) == 0, own: r.IntN(2) == 0,
		}, received.Add(-time.Millisecond))
		e.targeted = []string{"max-age=900", `x="é"`}[:r.IntN(3)]
		entries = append(entries, e)
	}
	return newPage(entries, tolerance{})
}

// text is all of an entry that does not depend on when it is read.
func (e *Entry) text() string {
	return fmt.Sprint(e.status, e.fields, e.notModified, len(e.body), e.terms, e.varied, e.asOf, e.deps, e.tags, e.whole, e.validators, e.said, e.targeted)
}

func TestCodec_ReadsWhatItWrote(t *testing.T) {
	for seed := range uint64(50) {
		now := time.Now()
		page := sample(seed, 1+int(seed%5), now)
		data, ttl := page.Encode(codecKey, now, noLimit)
		const passed = 1234 * time.Millisecond
		later := now.Add(passed)
		back, err := DecodePage(data, codecKey, ttl-passed, later)
		if err != nil || len(back.entries) != len(page.entries) {
			t.Fatalf("seed %d: %v", seed, err)
		}
		for i, e := range page.entries {
			b := back.entries[i]
			if !bytes.Equal(b.body, e.body) || b.text() != e.text() || b.readAt.IsZero() != e.readAt.IsZero() {
				t.Errorf("seed %d: got\n%s, want\n%s", seed, b.text(), e.text())
			}
			// Nothing is younger than it was, and only what a millisecond hides is older.
			if d := e.received.Sub(b.received); d < 0 || d > 2*time.Millisecond {
				t.Errorf("seed %d: received %v earlier", seed, d)
			}
			if d := e.readAt.Sub(b.readAt); d < 0 || d > 2*time.Millisecond {
				t.Errorf("seed %d: read %v earlier", seed, d)
			}
			if cap(b.body) != len(b.body) {
				t.Errorf("seed %d: the body has room for the next entry", seed)
			}
		}
	}
}

func TestCodec_AnythingElseIsAnError(t *testing.T) {
	now := time.Now()
	data, ttl := sample(1, 2, now).Encode(codecKey, now, noLimit)
	refused := func(what string, data []byte, key Key, left time.Duration) {
		t.Helper()
		if _, err := DecodePage(data, key, left, now); err == nil {
			t.Errorf("%s was read", what)
		}
	}
	if _, err := DecodePage(data, codecKey, ttl, now); err != nil {
		t.Fatal(err)
	}
	refused("another host", data, Key{codecKey.Scheme, "example.com", codecKey.Target}, ttl)
	refused("another scheme", data, Key{"http", codecKey.Host, codecKey.Target}, ttl)
	refused("another target", data, Key{codecKey.Scheme, codecKey.Host, "/"}, ttl)
	refused("a page with no time left", data, codecKey, 0)
	refused("a page that never expires", data, codecKey, -1)
	refused("a page that lives longer than written", data, codecKey, ttl+clockStep+1)
	refused("nothing", nil, codecKey, ttl)
	for i := range data {
		refused("a truncated page", data[:i], codecKey, ttl)
	}
	for i := range data {
		bit := byte(1) << rand.IntN(8)
		data[i] ^= bit
		refused("a corrupted page", data, codecKey, ttl)
		data[i] ^= bit
	}
	refused("more than a page", seal(append(slices.Clone(data), 0)), codecKey, ttl)
	data[len(magic)-1]++
	refused("another version", data, codecKey, ttl)
}

// seal gives bytes the checksum that they need.
func seal(data []byte) []byte {
	copy(data, magic)
	binary.LittleEndian.PutUint32(data[len(magic):], crc32.Checksum(data[headerSize:], castagnoli))
	return data
}

func TestEncode_LeavesOutWhatFindsNoRoom(t *testing.T) {
	now := time.Now()
	page := sample(3, 4, now)
	all, ttl := page.Encode(codecKey, now, noLimit)
	for limit := range len(all) + 100 {
		data, _ := page.Encode(codecKey, now, limit)
		if len(data) > limit {
			t.Fatalf("%d bytes with a limit of %d", len(data), limit)
		}
		if data == nil {
			continue
		}
		if back, err := DecodePage(data, codecKey, ttl, now); err != nil || len(back.entries) == 0 {
			t.Fatalf("limit %d: %v", limit, err)
		}
	}
	if data, ttl := page.Encode(codecKey, now, 100); data != nil || ttl <= 0 {
		t.Errorf("%d bytes for %v", len(data), ttl)
	}
	if data, ttl := page.Encode(codecKey, page.expires, noLimit); data != nil || ttl > 0 {
		t.Errorf("an expired page became %d bytes for %v", len(data), ttl)
	}
	h := http.Header{"X": {strings.Repeat("x", maxHead)}}
	page = newPage([]*Entry{newEntry(200, h, nil, rules.Terms{Lifetime: time.Hour}, nil, now)}, tolerance{})
	if data, _ := page.Encode(codecKey, now, noLimit); data != nil {
		t.Errorf("a header of %d bytes was written", maxHead)
	}
}

// A length that is not what follows must not be believed before it is seen to
// be there.
func TestDecodePage_AForgedLengthAllocatesLittle(t *testing.T) {
	now := time.Now()
	whole, ttl := sample(1, 2, now).Encode(codecKey, now, noLimit)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const tries = 2000
	for range tries {
		data := slices.Clone(whole)
		i := headerSize + rand.IntN(1500)
		copy(data[i:], binary.AppendUvarint(nil, rand.Uint64()>>rand.IntN(64)))
		_, _ = DecodePage(seal(data), codecKey, ttl, now)
	}
	runtime.ReadMemStats(&after)
	if each := (after.TotalAlloc - before.TotalAlloc) / tries; each > 50*uint64(len(whole)) {
		t.Errorf("%d bytes are allocated to read %d", each, len(whole))
	}
}

func FuzzDecodePage(f *testing.F) {
	now := time.Now()
	for seed := range uint64(3) {
		data, _ := sample(seed, int(seed)+1, now).Encode(codecKey, now, noLimit)
		f.Add(data, int64(time.Hour))
		f.Add(data[:len(data)/2], int64(time.Hour))
	}
	f.Add([]byte(magic), int64(-1))
	f.Fuzz(func(t *testing.T, data []byte, left int64) {
		_, _ = DecodePage(data, codecKey, time.Duration(left), now)
		if len(data) < headerSize {
			return
		}
		page, err := DecodePage(seal(slices.Clone(data)), codecKey, time.Duration(left), now)
		if err != nil {
			return
		}
		// Whatever was read can be used and written.
		for _, e := range page.entries {
			e.hitAt(now, Redis)
			e.answer(&request{header: http.Header{"If-None-Match": {"*"}}}, nil, nil).write(discard{http.Header{}}, false)
		}
		if again, ttl := page.Encode(codecKey, now, noLimit); ttl > 0 {
			if _, err := DecodePage(again, codecKey, ttl, now); err != nil {
				t.Fatal(err)
			}
		}
	})
}

type discard struct{ h http.Header }

func (d discard) Header() http.Header         { return d.h }
func (d discard) Write(p []byte) (int, error) { return len(p), nil }
func (d discard) WriteHeader(code int) {
	if code < 100 || code > 999 {
		panic("net/http panics")
	}
}

func BenchmarkEncode(b *testing.B) {
	benchmarkCodec(b, func(p *Page, _ []byte, now time.Time) { p.Encode(codecKey, now, noLimit) })
}

func BenchmarkDecode(b *testing.B) {
	benchmarkCodec(b, func(_ *Page, data []byte, now time.Time) {
		if _, err := DecodePage(data, codecKey, time.Second, now); err != nil {
			b.Fatal(err)
		}
	})
}

func benchmarkCodec(b *testing.B, do func(*Page, []byte, time.Time)) {
	for _, size := range []int{2 << 10, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			now := time.Now()
			h := http.Header{}
			for _, name := range []string{"Content-Type", "Etag", "Vary", "Cache-Control", "Server", "X-Request-Id", "Strict-Transport-Security"} {
				h.Set(name, "a value of some length")
			}
			e := newEntry(200, h, make([]byte, size), rules.Terms{Lifetime: time.Hour, Vary: []string{"Accept-Encoding"}}, []string{"gzip"}, now)
			e.hasProvenance(provenance{asOf: coherence.Position{Epoch: "k3f9", LSN: 1 << 40}, deps: make(coherence.Dependencies, 8), tags: make([]coherence.Tag, 4)}, now)
			page := newPage([]*Entry{e}, tolerance{})
			data, _ := page.Encode(codecKey, now, noLimit)
			b.ReportAllocs()
			for b.Loop() {
				do(page, data, now)
			}
		})
	}
}

func TestDecodePage_DoesNotCopyBodies(t *testing.T) {
	now := time.Now()
	h := http.Header{}
	e := newEntry(200, h, make([]byte, 1<<20), rules.Terms{Lifetime: time.Hour}, nil, now)
	data, ttl := newPage([]*Entry{e}, tolerance{}).Encode(codecKey, now, noLimit)
	page, err := DecodePage(data, codecKey, ttl, now)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)-2] = 'x' // the last byte says that it has no compressed forms
	if body := page.entries[0].body; body[len(body)-1] != 'x' {
		t.Error("the body is a copy")
	}
}
