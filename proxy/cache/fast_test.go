package cache_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"walcache/proxy/cache"
	"walcache/proxy/coherence"
	"walcache/proxy/wire"
)

// quick is a cache that answers at once. It counts, and leaves nothing readable
// of a request that it has answered.
type quick struct {
	*cache.Cache
	answered atomic.Int64
}

func (a *quick) Answer(r *http.Request, buf []byte) (head, body []byte, ok bool) {
	if head, body, ok = a.Cache.Answer(r, buf); ok {
		a.answered.Add(1)
		poison(r)
	}
	return head, body, ok
}

// poison overwrites what the strings of a request are made of.
func poison(r *http.Request) {
	strings := []string{r.RequestURI, r.Host}
	for _, values := range r.Header {
		strings = append(strings, values...)
	}
	for _, s := range strings {
		copy(unsafe.Slice(unsafe.StringData(s), len(s)), bytes.Repeat([]byte{'!'}, len(s)))
	}
}

// listen serves a handler with package wire before it, and returns its address.
func listen(t testing.TB, h http.Handler, hits wire.Answerer) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	s := &http.Server{Handler: h, IdleTimeout: time.Minute}
	served := make(chan struct{})
	go func() { _ = wire.Serve(s, l, wire.Config{Hits: hits}); close(served) }()
	t.Cleanup(func() { _ = s.Close(); <-served })
	return l.Addr().String()
}

// line is a connection on which requests are sent as they are.
type line struct {
	net.Conn
	t testing.TB
	r *bufio.Reader
}

// dial opens one, on which one request has been answered.
func dial(t testing.TB, at string) *line {
	t.Helper()
	conn, err := net.Dial("tcp", at)
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	must(t, conn.SetDeadline(time.Now().Add(30*time.Second)))
	l := &line{conn, t, bufio.NewReader(conn)}
	l.ask("GET", "/never", "Cache-Control: no-store")
	return l
}

func request(method, target string, lines ...string) string {
	return method + " " + target + " HTTP/1.1\r\nHost: h\r\n" + strings.Join(append(lines, ""), "\r\n") + "\r\n"
}

func (l *line) ask(method, target string, lines ...string) reply {
	l.t.Helper()
	_, err := io.WriteString(l.Conn, request(method, target, lines...))
	must(l.t, err)
	return l.reply(method)
}

func (l *line) reply(method string) reply {
	l.t.Helper()
	res, err := http.ReadResponse(l.r, &http.Request{Method: method})
	must(l.t, err)
	body, err := io.ReadAll(res.Body)
	must(l.t, err)
	return reply{res.StatusCode, res.Header, string(body)}
}

// lately is what may differ between two hits a moment apart.
var lately = regexp.MustCompile(`ttl=-?\d+`)

func (r reply) timeless() (int, http.Header, string) {
	h := maps.Clone(r.header)
	h.Del("Date") // of what is not stored
	h.Del("X-Request-Id")
	h.Del("Age")
	h["Cache-Status"] = []string{lately.ReplaceAllString(strings.Join(h["Cache-Status"], ", "), "ttl")}
	return r.status, h, r.body
}

// pages answers by the path.
func pages(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "text/plain")
	h.Set("Cache-Control", "max-age=600")
	body := "page " + r.URL.Path + " " + r.URL.RawQuery
	switch path := r.URL.Path; {
	case path == "/never":
		h.Set("Cache-Control", "no-store")
	case path == "/validated":
		h.Set("Etag", `"v1"`)
		h.Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
	case path == "/language":
		h.Set("Vary", "Accept-Language")
		body += r.Header.Get("Accept-Language")
	case path == "/public":
		h.Set("Cache-Control", "public, max-age=600")
	case path == "/private":
		h.Set("Cache-Control", "private")
	case path == "/said":
		h.Add("Cache-Status", "other; hit")
	case path == "/untyped":
		h["Content-Type"] = nil
	case path == "/odd":
		h.Set("X-Odd", "\xe9\t\"")
		h.Add("X-Two", "1")
		h.Add("X-Two", "2")
	case path == "/empty":
		body = ""
	case path == "/none":
		w.WriteHeader(http.StatusNoContent)
		return
	case path == "/gone":
		w.WriteHeader(http.StatusGone)
	case path == "/moved":
		h.Set("Location", "/plain")
		w.WriteHeader(http.StatusMovedPermanently)
	case path == "/over":
		h.Set("Cache-Control", "max-age=0")
	case strings.HasPrefix(path, "/size/"):
		n, _ := strconv.Atoi(strings.TrimPrefix(path, "/size/"))
		h.Set("Etag", `"`+path+`"`)
		body = strings.Repeat("0123456789abcdef", n/16)
	}
	_, _ = io.WriteString(w, body)
}

// A hit is answered alike by net/http and before it, and what is answered before
// it is a hit of memory. What has to go through net/http does.
func TestAnswer_IsWhatServeHTTPAnswers(t *testing.T) {
	const atOnce, through = true, false
	w := newWorld(t, pages, func(c *cache.Config) {
		c.Compress, c.Token = true, "secret"
		c.IgnoreCookies, c.Bypass, c.IgnoreQuery = []string{"_ga*"}, []string{"/admin/*"}, []string{"utm_*"}
	})
	q := &quick{Cache: w.cache}
	slow, fast := dial(t, listen(t, w.cache, nil)), dial(t, listen(t, w.cache, q))
	for _, test := range []struct {
		method, target string
		lines          []string
		way            bool
	}{
		{"GET", "/plain", nil, atOnce},
		{"HEAD", "/plain", nil, atOnce},
		{"GET", "/plain", []string{"Connection: keep-alive"}, atOnce},
		{"GET", "/plain", []string{"Connection: X-Secret", "X-Secret: 1"}, through},
		{"GET", "/plain?a=1&b=%20", nil, atOnce},
		{"GET", "/caf%C3%A9", nil, atOnce},
		{"GET", "/plain?utm_source=x&a=1", nil, atOnce},
		{"GET", "/a//b/../c", nil, atOnce},
		{"GET", "//plain", nil, through},
		{"GET", "/admin/x", nil, through},
		{"GET", "/%61dmin/x", nil, through},
		{"GET", "/x/../admin/y", nil, through},
		{"GET", "/validated", []string{`If-None-Match: "v1"`}, atOnce},
		{"GET", "/validated", []string{`If-None-Match: W/"v1", "v2"`}, atOnce},
		{"GET", "/validated", []string{`If-None-Match: "v2"`}, atOnce},
		{"HEAD", "/validated", []string{`If-None-Match: *`}, atOnce},
		{"GET", "/validated", []string{"If-Modified-Since: Mon, 02 Jan 2006 15:04:05 GMT"}, atOnce},
		{"GET", "/validated", []string{"If-Modified-Since: yesterday"}, atOnce},
		{"GET", "/validated", []string{`If-Match: "v1"`}, through},
		{"GET", "/validated", []string{"Range: bytes=0-3"}, through},
		{"GET", "/validated", []string{"Range: bytes=0-3", `If-Range: "v1"`}, through},
		{"GET", "/plain", []string{"Cookie: _ga=1"}, atOnce},
		{"GET", "/plain", []string{"Cookie: session=1"}, atOnce}, // the origin gave a lifetime
		{"GET", "/plain", []string{"Cookie: a=1", "Cookie: b=2"}, through},
		{"GET", "/plain", []string{"Authorization: Bearer x"}, through},
		{"GET", "/public", []string{"Authorization: Bearer x"}, atOnce},
		{"GET", "/private", nil, through},
		{"GET", "/plain", []string{"X-Walcache-Token: secret", "Cache-Control: no-cache"}, through},
		{"GET", "/plain", []string{"Cache-Control: no-cache"}, atOnce}, // it is proven
		{"GET", "/plain", []string{"Cache-Control: max-age=0"}, atOnce},
		{"GET", "/plain", []string{"Cache-Control: max-age=100000"}, atOnce},
		{"GET", "/plain", []string{"Cache-Control: min-fresh=10"}, atOnce},
		{"GET", "/plain", []string{"Cache-Control: no-store"}, through},
		{"GET", "/plain", []string{"Cache-Control: only-if-cached"}, atOnce},
		{"GET", "/nobody-asked", []string{"Cache-Control: only-if-cached"}, through},
		{"GET", "/plain", []string{"Pragma: no-cache"}, through},
		{"GET", "/language", []string{"Accept-Language: de, en;q=0.5"}, atOnce},
		{"GET", "/language", []string{"accept-language: DE,en;q=0.5"}, atOnce},
		{"GET", "/language", []string{"Accept-Language: fr"}, atOnce},
		{"GET", "/said", nil, atOnce},
		{"GET", "/untyped", nil, through}, // net/http guesses the type
		{"HEAD", "/untyped", nil, through},
		{"GET", "/odd", nil, atOnce},
		{"GET", "/empty", nil, atOnce},
		{"GET", "/none", nil, atOnce},
		{"GET", "/gone", nil, atOnce},
		{"GET", "/moved", nil, atOnce},
		{"GET", "/size/4096", nil, atOnce},
		{"GET", "/size/4096", []string{"Accept-Encoding: gzip"}, atOnce},
		{"GET", "/size/4096", []string{"Accept-Encoding: br, zstd"}, atOnce},
		{"HEAD", "/size/4096", []string{"Accept-Encoding: br, zstd"}, atOnce},
		{"GET", "/size/4096", []string{"Accept-Encoding: br", `If-None-Match: "/size/4096-br"`}, atOnce},
		{"GET", "/size/16384", nil, atOnce},
		{"GET", "/size/65536", nil, atOnce},
		{"GET", "/size/1048576", nil, atOnce},
		{"HEAD", "/size/1048576", nil, atOnce},
		{"POST", "/posted", []string{"Content-Length: 0"}, through},
		{"GET", "/plain", []string{"X-Forwarded-Proto: https", "X-Forwarded-For: 1.2.3.4"}, atOnce},
	} {
		name := fmt.Sprint(test.method, " ", test.target, " ", test.lines)
		for range 2 { // fetched, and with a form asked for
			slow.ask("GET", test.target, slices.DeleteFunc(slices.Clone(test.lines), func(l string) bool {
				return strings.HasPrefix(l, "If-") || strings.HasPrefix(l, "Range")
			})...)
			eventually(t, "nothing is being compressed", func() bool { return w.cache.InLine() == 0 })
		}
		want := slow.ask(test.method, test.target, test.lines...)
		ws, wh, wb := want.timeless()
		before := q.answered.Load()
		// net/http may read what comes just after an answer of its own, and a name has
		// to be learnt.
		for try := 0; try < 3 || test.way == atOnce && q.answered.Load() == before && try < 100; try++ {
			got := fast.ask(test.method, test.target, test.lines...)
			gs, gh, gb := got.timeless()
			if gs != ws || gb != wb || !reflect.DeepEqual(gh, wh) {
				t.Errorf("%s:\n got %d %v %.50q\nwant %d %v %.50q", name, gs, gh, gb, ws, wh, wb)
			}
		}
		if way := q.answered.Load() > before; way != test.way {
			t.Errorf("%s: answered at once: %t, want %t; it says %s", name, way, test.way, want.says())
		}
	}
}

// What changed is asked for anew, on the same connection, and so is what nobody
// can judge.
func TestAnswer_AChangeMakesTheNextRequestAMiss(t *testing.T) {
	var version atomic.Int64
	w := newWorld(t, func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "text/plain")
		rw.Header().Set("Cache-Control", "max-age=600")
		fmt.Fprint(rw, version.Load())
	})
	q := &quick{Cache: w.cache}
	fast := dial(t, listen(t, w.cache, q))
	for i := range 100 {
		version.Add(1)
		w.db.commit("users")
		want := strconv.FormatInt(version.Load(), 10)
		before := q.answered.Load()
		for n := 0; q.answered.Load() == before; n++ { // see TestAnswer_IsWhatServeHTTPAnswers
			r := fast.ask("GET", "/a")
			if r.body != want || r.isHit() != (n > 0) {
				t.Fatalf("change %d, request %d: %q (%s)", i, n, r.body, r.says())
			}
		}
	}
	before := q.answered.Load()
	w.db.SetCatalog(&coherence.Catalog{Off: true})
	if r := fast.ask("GET", "/a"); r.isHit() {
		t.Errorf("switched off: %s", r.says())
	}
	w.db.SetCatalog(&coherence.Catalog{})
	w.db.doubt()
	if r := fast.ask("GET", "/a"); r.isHit() {
		t.Errorf("in doubt: %s", r.says())
	}
	if n := q.answered.Load() - before; n != 0 {
		t.Errorf("%d answered at once at the end", n)
	}
}

// Many clients send many requests ahead, of which some are hits, while rows change:
// each gets its own answers, in order, and none older than what it has seen.
func TestAnswer_TakesTurnsWithNetHTTP(t *testing.T) {
	var version atomic.Int64
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/never") {
			rw.Header().Set("Cache-Control", "no-store")
		}
		rw.Header().Set("Content-Type", "text/plain")
		fmt.Fprintf(rw, "%s %d", r.URL.Path, version.Load())
	})
	q := &quick{Cache: w.cache}
	at := listen(t, w.cache, q)
	var clients sync.WaitGroup
	for range 6 {
		l := dial(t, at)
		clients.Go(func() {
			last := map[string]int{}
			for round := range 30 {
				var sent strings.Builder
				var targets []string
				for i := range 8 {
					target := fmt.Sprintf("/%s/%d", []string{"a", "a", "never"}[(round+i)%3], i)
					targets = append(targets, target)
					sent.WriteString(request("GET", target))
				}
				if _, err := io.WriteString(l.Conn, sent.String()); err != nil {
					t.Error(err)
					return
				}
				for _, target := range targets {
					path, v, _ := strings.Cut(l.reply("GET").body, " ")
					seen, _ := strconv.Atoi(v)
					if path != target || seen < last[target] {
						t.Errorf("%s %d, want %s, %d or later", path, seen, target, last[target])
						return
					}
					last[target] = seen
				}
			}
		})
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
				version.Add(1)
				w.db.commit("users")
			}
		}
	}()
	clients.Wait()
	close(stop)
	<-stopped
	if q.answered.Load() == 0 {
		t.Error("none was answered at once")
	}
}

// The strings of a request are overwritten, whether it was answered or not.
func TestAnswer_KeepsNothingOfARequest(t *testing.T) {
	var stored cache.Store
	w := newWorld(t, pages, func(c *cache.Config) { c.Compress, c.IgnoreQuery, stored = true, []string{"utm_*"}, c.Store })
	for _, target := range []string{"/size/4096", "/size/4096?utm_a=1&b=2", "/language"} {
		r := lend(target)
		w.cache.ServeHTTP(&sink{header: http.Header{}}, r) // which may keep it
	}
	for range 200 { // one of 64 is remembered
		for _, target := range []string{"/size/4096", "/size/4096?utm_a=1&b=2", "/language", "/not/here"} {
			r := lend(target, "Accept-Encoding: gzip, br", "Accept-Language: de", "Cookie: a=b", "User-Agent: x")
			_, _, _ = w.cache.Answer(r, nil)
			poison(r)
		}
	}
	eventually(t, "nothing is being compressed", func() bool { return w.cache.InLine() == 0 })
	forms := 0
	for _, target := range []string{"/size/4096", "/size/4096?b=2", "/language"} {
		page := stored.Get(cache.Key{Scheme: "http", Host: "h", Target: target})
		if page == nil {
			t.Fatalf("%s is not stored any more", target)
		}
		forms += page.Forms()
	}
	if forms != 2 {
		t.Errorf("%d forms", forms)
	}
	for key := range stored.All() {
		if strings.Contains(key.String(), "!") {
			t.Errorf("%q is stored", key)
		}
	}
	for _, u := range w.cache.Hottest(100) {
		if strings.Contains(fmt.Sprint(u), "!") {
			t.Errorf("%v is asked for", u)
		}
	}
}

// lend makes a request whose strings are its own.
func lend(target string, lines ...string) *http.Request {
	path, query, _ := strings.Cut(strings.Clone(target), "?")
	r := &http.Request{
		Method: http.MethodGet, RequestURI: strings.Clone(target), URL: &url.URL{Path: path, RawQuery: query},
		Host: strings.Clone("h"), RemoteAddr: "192.0.2.1:1234", Header: http.Header{},
	}
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		r.Header[name] = []string{strings.Clone(value)}
	}
	return r
}

func TestAnswer_CostsNoAllocation(t *testing.T) {
	c, r := warm(t)
	r.Header.Set("Connection", "keep-alive")
	buf := make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(1000, func() {
		if _, body, ok := c.Answer(r, buf); !ok || len(body) != 2048 {
			t.Fatal("not answered")
		}
	}); n != 0 {
		t.Errorf("%v allocations a hit", n)
	}
}
