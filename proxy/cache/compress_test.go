package cache_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"

	"walcache/proxy/cache"
	"walcache/proxy/origin"
)

func compressing(c *cache.Config) { c.Compress = true }

// list is what a service answers with a page of rows, of a version.
func list(rows int, version string) string {
	type row struct {
		ID       int     `json:"id"`
		Title    string  `json:"title"`
		Location string  `json:"location"`
		Price    float64 `json:"price"`
		Text     string  `json:"description"`
		Created  string  `json:"created_at"`
	}
	r := rand.New(rand.NewPCG(1, 2))
	words := strings.Fields("sunny quiet flat house with garden near the river view of city park large small rooms kitchen new old")
	var all []row
	for i := range rows {
		var text []string
		for range 20 {
			text = append(text, words[r.IntN(len(words))])
		}
		all = append(all, row{i, version + " " + text[0], []string{"Nairobi", "Mombasa", "Kisumu"}[r.IntN(3)],
			float64(r.IntN(1e6)) / 100, strings.Join(text, " "), fmt.Sprintf("2026-01-02T03:%02d:%02dZ", r.IntN(60), r.IntN(60))})
	}
	data, err := json.Marshal(map[string]any{"count": rows, "results": all})
	if err != nil {
		panic(err)
	}
	return string(data)
}

const jsonType = "Content-Type: application/json; charset=utf-8"

// decoded is a reply's body as the origin sent it.
func decoded(t *testing.T, r reply) string {
	t.Helper()
	var from io.Reader = strings.NewReader(r.body)
	var err error
	switch coding := r.header.Get("Content-Encoding"); coding {
	case "":
	case "gzip":
		from, err = gzip.NewReader(from)
	case "br":
		from = brotli.NewReader(from)
	case "zstd":
		// What every client has room for (RFC 9659).
		from, err = zstd.NewReader(from, zstd.WithDecoderMaxWindow(8<<20))
	default:
		t.Fatalf("the coding is %q", coding)
	}
	must(t, err)
	body, err := io.ReadAll(from)
	must(t, err)
	return string(body)
}

// ask asks as a client that takes a coding.
func (b *bubble) ask(coding string, lines ...string) reply {
	return b.get(b.t.Context(), "/a", append(lines, "Accept-Encoding: "+coding)...)
}

// warmed asks twice, and waits for what follows from that: the answer in a coding
// is there.
func (b *bubble) warmed(coding string) {
	b.t.Helper()
	b.ask(coding)
	b.ask(coding)
	synctest.Wait()
}

// wantCoding wants a hit in a coding, "" for none, of a body.
func (b *bubble) wantCoding(r reply, coding, body string) {
	b.t.Helper()
	if got := r.header.Get("Content-Encoding"); !r.isHit() || got != coding || decoded(b.t, r) != body {
		b.t.Errorf("got %.20q… in %q (%s), want %.20q… in %q", decoded(b.t, r), got, r.says(), body, coding)
	}
	if got := r.header.Get("Content-Length"); got != strconv.Itoa(len(r.body)) {
		b.t.Errorf("Content-Length is %s, and there are %d bytes", got, len(r.body))
	}
}

func (b *bubble) wantCompressed(n uint64) {
	b.t.Helper()
	if s := b.cache.Stats(); s.Compressed != n || (s.CompressedSaved > 0) != (n > 0) {
		b.t.Errorf("compressed %d times, and saved %d bytes, want %d", s.Compressed, s.CompressedSaved, n)
	}
}

// pageA is the key of what is asked for.
var pageA = cache.Key{Scheme: "http", Host: "example.com", Target: "/a"}

var codings = []string{"zstd", "br", "gzip"}

func TestCompress_OnceForEachCodingThatIsAskedFor(t *testing.T) {
	body := list(100, "one")
	for name, c := range map[string]struct {
		lines   []string
		fetches int64
	}{
		"an origin that knows nothing of codings": {[]string{jsonType}, 1},
		"one that says that it might compress":    {[]string{jsonType, "Vary: Accept-Encoding"}, 4},
	} {
		t.Run(name, func(t *testing.T) {
			var fetches atomic.Int64
			inBubble(t, func(w http.ResponseWriter, r *http.Request) {
				fetches.Add(1)
				text(body, c.lines...)(w, r)
			}, []change{compressing}, func(b *bubble) {
				for i, coding := range codings {
					b.ask(coding)
					b.wantCoding(b.ask(coding), "", body)
					synctest.Wait()
					r := b.ask(coding)
					b.wantCoding(r, coding, body)
					if len(r.body) > len(body)/4 {
						t.Errorf("%s: %d bytes of %d", coding, len(r.body), len(body))
					}
					b.ask("identity")
					b.wantCoding(b.ask("identity"), "", body)
					b.wantCompressed(uint64(i + 1))
				}
				for _, coding := range codings {
					b.wantCoding(b.ask(coding), coding, body)
				}
				b.wantCoding(b.ask("gzip;q=0, br;q=0, identity;q=0"), "", body)
				b.wantCompressed(3)
				if n := fetches.Load(); n != c.fetches {
					t.Errorf("fetched %d times", n)
				}
			})
		})
	}
}

func TestCompress_AllAnswersSayThatTheyDependOnTheCoding(t *testing.T) {
	inBubble(t, text(list(20, "one"), jsonType, `ETag: "x"`, "Vary: Origin"), []change{compressing}, func(b *bubble) {
		for what, ask := range map[string][]string{
			"first": nil, "hit": nil, "304": {`If-None-Match: "x"`}, "form": nil, "form's 304": {`If-None-Match: "x-gzip"`},
		} {
			coding := "identity"
			if strings.HasPrefix(what, "form") {
				coding = "gzip"
				b.warmed(coding)
			}
			if got := strings.Join(b.ask(coding, ask...).header.Values("Vary"), ", "); got != "Origin, Accept-Encoding" {
				t.Errorf("%s: Vary is %q", what, got)
			}
		}
	})
}

func TestCompress_AFormHasAnEntityTagOfItsOwn(t *testing.T) {
	for etag, want := range map[string]string{`"x"`: `"x-gzip"`, `W/"x"`: `W/"x-gzip"`, `""`: `"-gzip"`, "": `W/"`} {
		lines := []string{jsonType, "Last-Modified: Tue, 01 Jan 2002 00:00:00 GMT", "Accept-Ranges: bytes",
			"Content-Digest: a", "Repr-Digest: b", "Digest: c", "Content-MD5: d", "X-Other: e"}
		if etag != "" {
			lines = append(lines, "ETag: "+etag)
		}
		inBubble(t, text(list(20, "one"), lines...), []change{compressing}, func(b *bubble) {
			b.warmed("gzip")
			h := b.ask("gzip").header
			if got := h.Get("ETag"); got != want && (etag != "" || !strings.HasPrefix(got, want) || !strings.HasSuffix(got, `-gzip"`)) {
				t.Errorf("%s became %s, want %s", etag, got, want)
			}
			for _, name := range []string{"Content-Digest", "Repr-Digest", "Digest", "Content-MD5"} {
				if h.Get(name) != "" {
					t.Errorf("%s is of other bytes", name)
				}
			}
			if h.Get("X-Other") != "e" || h.Get("Accept-Ranges") != "bytes" || h.Get("Content-Type") == "" {
				t.Errorf("%v", h)
			}
			if got := b.ask("identity").header.Get("ETag"); got != etag {
				t.Errorf("%s became %s without a coding", etag, got)
			}
			if etag == "" {
				return
			}
			for _, c := range []struct {
				coding, has string
				status      int
			}{{"gzip", want, 304}, {"gzip", etag, 200}, {"identity", etag, 304}, {"identity", want, 200}, {"br", want, 200}} {
				if r := b.ask(c.coding, "If-None-Match: "+c.has); r.status != c.status {
					t.Errorf("asked for %s with %s: %d", c.coding, c.has, r.status)
				}
			}
			if r := b.ask("gzip", "If-None-Match: "+want); r.header.Get("ETag") != want || r.header.Get("Content-Encoding") != "" {
				t.Errorf("%v", r.header)
			}
		})
	}
}

func TestCompress_APartIsOfTheAnswerAsItIs(t *testing.T) {
	body := list(20, "one")
	inBubble(t, text(body, jsonType, `ETag: "x"`, "Accept-Ranges: bytes"), []change{compressing}, func(b *bubble) {
		b.warmed("gzip")
		for what, c := range map[string]struct {
			lines  []string
			status int
			body   string
		}{
			"a part":                 {nil, 206, body[:10]},
			"a part of the same":     {[]string{`If-Range: "x"`}, 206, body[:10]},
			"the rest of a form":     {[]string{`If-Range: "x-gzip"`}, 200, body},
			"what the client has":    {[]string{`If-None-Match: "x"`}, 304, ""},
			"what it has compressed": {[]string{`If-None-Match: "x-gzip"`}, 206, body[:10]},
		} {
			r := b.ask("gzip", append(c.lines, "Range: bytes=0-9")...)
			if r.status != c.status || r.body != c.body || r.header.Get("ETag") != `"x"` || r.header.Get("Content-Encoding") != "" {
				t.Errorf("%s: %d %.20q %v", what, r.status, r.body, r.header)
			}
		}
	})
}

func TestCompress_LeavesAlone(t *testing.T) {
	long := list(20, "one")
	for name, upstream := range map[string]http.HandlerFunc{
		"what may not be transformed":          text(long, jsonType, "Cache-Control: max-age=60", "Cache-Control: No-Transform"),
		"what a CDN may not transform":         text(long, jsonType, "CDN-Cache-Control: max-age=60, no-transform"),
		"what is compressed":                   text(long, jsonType, "Content-Encoding: br"),
		"what says that it is not":             text(long, jsonType, "Content-Encoding: identity"),
		"a picture":                            text(long, "Content-Type: image/png"),
		"a stream of events":                   text(long, "Content-Type: text/event-stream", "Cache-Control: max-age=60"),
		"what has no type":                     text(long, "Content-Type: "),
		"what is short":                        text(long[:1023], jsonType),
		"a part":                               text(long, jsonType, "Content-Range: bytes 0-9/10"),
		"what has no entity tag that is one":   text(long, jsonType, "ETag: x"),
		"what is not found":                    func(w http.ResponseWriter, _ *http.Request) { http.Error(w, long, http.StatusNotFound) },
		"everything, if it is not to compress": text(long, jsonType),
	} {
		t.Run(name, func(t *testing.T) {
			changes := []change{compressing}
			if strings.HasPrefix(name, "everything") {
				changes = nil
			}
			inBubble(t, upstream, changes, func(b *bubble) {
				first := b.ask("br")
				for range 3 {
					r := b.ask("br")
					if r.body != first.body || r.header.Get("Vary") != "" || r.header.Get("Content-Encoding") != first.header.Get("Content-Encoding") {
						t.Errorf("%v", r.header)
					}
					synctest.Wait()
				}
				b.wantCompressed(0)
			})
		})
	}
}

func TestCompress_TakesText(t *testing.T) {
	body := list(20, "one")
	for _, name := range []string{"text/html; charset=utf-8", "TEXT/CSS", "text/javascript", "application/javascript", "application/json",
		"application/problem+json", "application/geo+json;x=y", "application/xml", "application/atom+xml", "image/svg+xml", "application/wasm"} {
		inBubble(t, text(body, "Content-Type: "+name), []change{compressing}, func(b *bubble) {
			b.warmed("br")
			b.wantCoding(b.ask("br"), "br", body)
		})
	}
}

func TestCompress_WhatSavesLittleIsNotTriedAgain(t *testing.T) {
	noise := make([]byte, 1<<14)
	random := rand.NewChaCha8([32]byte{})
	_, _ = random.Read(noise)
	inBubble(t, text(string(noise), "Content-Type: text/plain"), []change{compressing}, func(b *bubble) {
		b.warmed("gzip")
		b.wantCoding(b.ask("gzip"), "", string(noise))
		b.wantCompressed(0)
		release := b.cache.HoldCompressor()
		defer release()
		b.ask("gzip")
		if n := b.cache.InLine(); n != 0 {
			t.Error("it is tried again")
		}
	})
}

func TestCompress_AChangeMakesAllFormsStale(t *testing.T) {
	var version atomic.Int64
	inBubble(t, func(w http.ResponseWriter, r *http.Request) {
		text(list(20, fmt.Sprint(version.Load())), jsonType, `ETag: "x"`)(w, r)
	}, []change{compressing}, func(b *bubble) {
		for _, coding := range codings {
			b.warmed(coding)
		}
		b.wantCompressed(3)
		version.Add(1)
		b.db.commit("users")
		for _, coding := range append(codings, "identity") {
			r := b.ask(coding)
			if decoded(t, r) != list(20, "1") {
				t.Errorf("%s: an old answer (%s)", coding, r.says())
			}
		}
		for _, coding := range codings {
			b.warmed(coding)
			b.wantCoding(b.ask(coding), coding, list(20, "1"))
		}
	})
}

func TestCompress_WhatIsReplacedMeanwhileIsNotStored(t *testing.T) {
	s := newShelf()
	var version atomic.Int64
	inBubble(t, func(w http.ResponseWriter, r *http.Request) {
		text(list(20, fmt.Sprint(version.Load())), jsonType)(w, r)
	}, []change{compressing, s.below}, func(b *bubble) {
		b.ask("gzip")
		release := b.cache.HoldCompressor()
		b.ask("gzip")
		synctest.Wait() // it is fresh, and waits for its turn
		version.Add(1)
		b.db.commit("users")
		b.ask("gzip")
		stored := fmt.Sprint(s.snapshot())
		release()
		synctest.Wait()
		b.wantCompressed(0)
		if fmt.Sprint(s.snapshot()) != stored {
			t.Error("a page was written")
		}
		b.wantCoding(b.ask("gzip"), "", list(20, "1"))
		synctest.Wait()
		b.wantCoding(b.ask("gzip"), "gzip", list(20, "1"))
	})
}

func TestCompress_OnlySoManyWaitInLine(t *testing.T) {
	inBubble(t, text(list(20, "one"), jsonType), []change{compressing}, func(b *bubble) {
		ask := func() {
			for i := range 40 {
				b.get(b.t.Context(), fmt.Sprint("/", i), "Accept-Encoding: br")
			}
		}
		ask()
		release := b.cache.HoldCompressor()
		ask()
		release()
		synctest.Wait()
		b.wantCompressed(32)
		ask()
		synctest.Wait()
		b.wantCompressed(40)
	})
}

// An answer that the origin calls unchanged is not compressed again, and what it
// is asked about is its own entity tag.
func TestCompress_WhatIsFreshenedKeepsItsForms(t *testing.T) {
	body := list(20, "one")
	inBubble(t, func(w http.ResponseWriter, r *http.Request) {
		switch asked := r.Header.Values("If-None-Match"); {
		case len(asked) == 0:
			text(body, jsonType, `ETag: "x"`, "Cache-Control: max-age=60")(w, r)
		case len(asked) == 1 && asked[0] == `"x"`:
			w.Header().Set("ETag", `"x"`)
			w.Header().Set("Vary", "Origin")
			w.WriteHeader(http.StatusNotModified)
		default:
			t.Errorf("asked about %q", asked)
		}
	}, []change{compressing}, func(b *bubble) {
		b.warmed("gzip")
		b.warmed("br")
		time.Sleep(time.Minute)
		if r := b.ask("gzip"); r.isHit() || decoded(t, r) != body {
			t.Errorf("%s %v", r.says(), r.header)
		}
		for _, coding := range []string{"gzip", "br"} {
			r := b.ask(coding)
			b.wantCoding(r, coding, body)
			if vary := strings.Join(r.header.Values("Vary"), ", "); vary != "Origin, Accept-Encoding" || r.header.Get("ETag") != `"x-`+coding+`"` {
				t.Errorf("Vary is %q, ETag %s", vary, r.header.Get("ETag"))
			}
		}
		b.wantCompressed(2)
	})
}

func TestCompress_FormsAreSharedBelow(t *testing.T) {
	for name, vary := range map[string]string{"one answer": "", "several": "Vary: X"} {
		t.Run(name, func(t *testing.T) {
			body := list(20, "one")
			var memory cache.Store
			first := func(c *cache.Config) {
				if memory == nil {
					memory = c.Store
				}
			}
			inTwoBubbles(t, text(body, jsonType, `ETag: "x"`, vary), []change{compressing, first}, func(s *shelf, a, b *bubble) {
				a.ask("gzip", "X: other")
				plain := memory.Get(pageA).Size()
				a.warmed("gzip")
				a.warmed("br")
				inMemory := memory.Get(pageA).Size()
				if below := s.Get(b.t.Context(), pageA).Size(); below != inMemory || below < plain+2000 {
					t.Errorf("a page of %d bytes has %d with two forms, and %d below", plain, inMemory, below)
				}
				time.Sleep(1500 * time.Millisecond) // so that a millisecond does not show
				for _, coding := range []string{"gzip", "br"} {
					fromMemory, fromBelow := fmt.Sprint(a.ask(coding)), b.ask(coding)
					b.wantCoding(fromBelow, coding, body)
					if got := fmt.Sprint(fromBelow); strings.ReplaceAll(got, "detail=redis", "detail=memory") != fromMemory {
						t.Errorf("got\n%.500q, want\n%.500q", got, fromMemory)
					}
				}
				b.wantCoding(b.ask("identity"), "", body)
				b.wantCompressed(0)
				b.db.commit("users")
				if r := b.ask("gzip"); r.isHit() {
					t.Error("a hit on what changed")
				}
			})
		})
	}
}

func TestCompress_FormsGiveWayWhereThereIsNoRoom(t *testing.T) {
	s := newShelf()
	body := list(20, "one")
	inBubble(t, text(body, jsonType), []change{compressing, s.below}, func(b *bubble) {
		b.ask("gzip")
		plain := len(s.snapshot()[pageA].data)
		b.warmed("gzip")
		b.warmed("br")
		both := s.Get(b.t.Context(), pageA)
		for room, forms := range map[int]int{0: 0, 1050: 1, 1150: 1, 1300: 1, 2500: 2} {
			limit := plain + room + 100 // for what is counted generously
			data, ttl := both.Encode(pageA, time.Now(), limit)
			page, err := cache.DecodePage(data, pageA, ttl, time.Now())
			if err != nil || len(data) > limit || string(page.Sample()) != body {
				t.Fatalf("%d bytes of %d: %v", len(data), limit, err)
			}
			if got := page.Forms(); got != forms {
				t.Errorf("%d forms in %d bytes beside the entry, want %d", got, room, forms)
			}
		}
	})
}

// Of processes that share pages, not all need to compress.
func TestCompress_IsForEachProcessToDecide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		body := list(20, "one")
		s := newShelf()
		serve(t, text(body, jsonType), func(o *origin.Origin) {
			newBubble(t, o, []change{s.below}, func(off *bubble) {
				newBubble(t, o, []change{s.below, compressing}, func(on *bubble) {
					off.ask("gzip")
					r := on.ask("gzip")
					on.wantCoding(r, "", body)
					if r.header.Get("Vary") != "Accept-Encoding" {
						t.Errorf("%v", r.header)
					}
					synctest.Wait()
					on.wantCoding(on.ask("gzip"), "gzip", body)
					off.wantCoding(off.ask("gzip"), "", body)
				})
				newBubble(t, o, []change{s.below}, func(late *bubble) {
					late.wantCoding(late.ask("gzip"), "", body)
				})
			})
		})
	})
}

// A client that writes on condition that what it read still holds has the entity
// tag of a form.
func TestCompress_AWriteOnConditionReachesTheOriginWithItsEntityTag(t *testing.T) {
	var got atomic.Value
	w := newWorld(t, func(_ http.ResponseWriter, r *http.Request) { got.Store(strings.Join(r.Header["If-Match"], "; ")) }, compressing)
	for sent, want := range map[string]string{
		`"x-gzip"`:                   `"x-gzip", "x"`,
		`W/"x-br"`:                   `W/"x-br", W/"x"`,
		`"a", "b-zstd","c-gzip", *`:  `"a", "b-zstd", "b","c-gzip", "c", *`,
		`"x"`:                        `"x"`,
		`"-br"`:                      `"-br", ""`,
		`"gzip", "a-gzip-b", x-gzip`: `"gzip", "a-gzip-b", x-gzip`,
		`"x-br-gzip"`:                `"x-br-gzip", "x-br"`,
		"*":                          "*",
	} {
		w.do(http.MethodPatch, "/a", "If-Match: "+sent)
		if got.Load() != want {
			t.Errorf("%s reached the upstream as %s, want %s", sent, got.Load(), want)
		}
	}
}

// compressed is a cache that has an answer of 100 rows to the request, in br.
func compressed(t testing.TB) (*cache.Cache, *http.Request) {
	upstream := httptest.NewServer(text(list(100, "one"), jsonType))
	t.Cleanup(upstream.Close)
	c := newCache(t, upstream.URL, newDatabase(), compressing)
	r := httptest.NewRequest(http.MethodGet, "/properties/", nil)
	r.Header.Set("Accept-Encoding", "gzip, deflate, br")
	w := &sink{}
	for deadline := time.Now().Add(10 * time.Second); w.header.Get("Content-Encoding") != "br"; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it is not compressed")
		}
		w.header = http.Header{}
		c.ServeHTTP(w, r)
	}
	return c, r
}

func TestHit_OfACompressedAnswerIsSentWithoutAllocating(t *testing.T) {
	c, r := compressed(t)
	w := &sink{header: http.Header{}}
	c.ServeHTTP(w, r)
	if n := testing.AllocsPerRun(1000, func() { c.ServeHTTP(w, r) }); n != 0 {
		t.Errorf("%v allocations to send a hit", n)
	}
}

func BenchmarkHitCompressed(b *testing.B) {
	c, r := compressed(b)
	w := &sink{header: http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		c.ServeHTTP(w, r)
	}
}

func BenchmarkCompress(b *testing.B) {
	body := []byte(list(100, "one"))
	for _, coding := range codings {
		b.Run(coding, func(b *testing.B) {
			compress := cache.NewCompressor()
			var out []byte
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				out = compress(coding, body)
			}
			b.ReportMetric(float64(len(body)), "in-bytes")
			b.ReportMetric(float64(len(out)), "out-bytes")
			if bytes.Equal(out, body) {
				b.Fatal("not compressed")
			}
		})
	}
}
