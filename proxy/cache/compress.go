package cache

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"walcache/proxy/rules"
)

// Text that the origin sends uncompressed is kept compressed too, once in each
// coding that is asked for:
//
//	stored ──► first hit that likes br ──► in line ──► compressed ──► hits send br
//	               sends it as it is        (one at a time, off every request's path)
//
// A compressed form of an entry is an entry in its own right, as far as it is
// sent: with a length, a coding and an entity tag of its own. It is nothing else.
//
// Invariant: a form is found only through the entry that it was made of, and so
// is judged with it, goes with it, and is no candidate for anything by itself: a
// change that makes the one stale makes the other stale, a fetch that replaces
// the one replaces the other, and the upstream is asked about the origin's entity
// tag and never about one of ours. Kept by Entry.forms, which Cache.form alone
// sends from; see TestCompress_AChangeMakesAllFormsStale and
// TestCompress_WhatIsReplacedMeanwhileIsNotStored.
//
// Only what is stored for everybody is compressed, so what a length could tell
// about a secret in it (BREACH) is told of none. Nothing is ever decompressed
// here, so there is nothing that a compressed body could swell to.

// codings are what is compressed in, as rules.ReduceEncoding names them.
var codings = [...]string{"zstd", "br", "gzip"}

// forms are what of an entry is sent in each of codings: an entry made of it, or
// where it is being compressed, or that saves too little, the entry itself. It is
// nil for a coding that nobody has asked for.
type forms [len(codings)]*Entry

// asIs is the forms of an entry that has none.
var asIs forms

// form is what of an entry is sent to a client: the form in the coding that it
// likes best, if there is one, or else the entry, and then there will be.
//
// A part is one of the entry as it is: the bytes of a form may differ from one
// process to another, and parts of two of them must not be put together.
func (c *Cache) form(q *request, e *Entry) *Entry {
	f := e.forms.Load()
	if c.compressor == nil || f == &asIs || len(q.header["Range"]) > 0 || q.asks.NoTransform {
		return e
	}
	coding := slices.Index(codings[:], rules.ReduceEncoding(q.header["Accept-Encoding"]))
	if coding < 0 {
		return e
	}
	if f != nil && f[coding] != nil {
		return f[coding]
	}
	c.askFor(q.key, e, coding)
	return e
}

// askFor has an entry compressed, unless too many wait for that: then a later hit
// asks again.
func (c *Cache) askFor(key Key, e *Entry, coding int) {
	if !c.compressor.enter() {
		return
	}
	switch {
	case !e.compressible():
		e.forms.Store(&asIs)
	case e.setForm(coding, nil, e):
		go c.compress(key.clone(), e, coding) // see Answer
		return
	}
	c.compressor.leave()
}

// compress makes a form of an entry, and puts it beside it.
func (c *Cache) compress(key Key, e *Entry, coding int) {
	defer c.compressor.leave()
	if !c.stand(e, time.Now()).fresh {
		e.setForm(coding, e, nil) // it may be proven fresh again
		return
	}
	body, err := c.compressor.compress(codings[coding], e.body)
	if err != nil {
		c.log.Warn("did not compress an answer", "coding", codings[coding], "err", err)
		return
	}
	if len(body) > len(e.body)-len(e.body)/leastSaving {
		return // for good: the entry itself is its form
	}
	if c.putForm(key, e, coding, bytes.Clone(body)) {
		c.count.compressed.Add(1)
		c.count.saved.Add(uint64(len(e.body) - len(body)))
	}
}

// leastSaving is the part of a body, one in so many, that compressing has to save.
const leastSaving = 10

// putForm puts a form beside its entry, unless that is no longer stored.
//
//  1. An answer is being compressed. 2. A row changes, and a fetch puts another
//     in its place, here and below. 3. The answer is compressed, and its page
//     written: over that of 2, here or below.
//
// So the page that is written is the one of now, and none if the entry has gone.
func (c *Cache) putForm(key Key, e *Entry, coding int, body []byte) bool {
	mu := c.lock(key)
	mu.Lock()
	defer mu.Unlock()
	page := c.store.Get(key)
	if page == nil || !slices.Contains(page.entries, e) {
		return false
	}
	e.setForm(coding, e, e.compressed(codings[coding], body))
	page = newPage(page.entries, c.tolerance) // counts what is new
	c.store.Set(key, page)
	c.offer(key, page, nil)
	return true
}

// setForm replaces a form, if it still is the one before.
func (e *Entry) setForm(coding int, before, after *Entry) bool {
	for {
		old := e.forms.Load()
		var next forms
		if old != nil {
			next = *old
		}
		if next[coding] != before {
			return false
		}
		next[coding] = after
		if e.forms.CompareAndSwap(old, &next) {
			return true
		}
	}
}

// compressedForms are the forms that an entry has beside itself.
func (e *Entry) compressedForms() (all []*Entry) {
	if f := e.forms.Load(); f != nil {
		for _, form := range f {
			if form != nil && form != e {
				all = append(all, form)
			}
		}
	}
	return all
}

// compressed makes a form of an entry, of its body in a coding.
func (e *Entry) compressed(coding string, body []byte) *Entry {
	form := &Entry{
		status: e.status, body: body, terms: e.terms, varied: e.varied,
		asOf: e.asOf, deps: e.deps, tags: e.tags, whole: e.whole, readAt: e.readAt,
		received: e.received, said: e.said,
	}
	for _, f := range e.fields {
		switch f.name {
		case "Content-Length":
			f.values = []string{strconv.Itoa(len(body))}
		case "Etag":
			f.values = []string{formETag(f.values[0], coding)}
		case "Content-Digest", "Repr-Digest", "Digest", "Content-Md5":
			continue // they are of other bytes (RFC 9530)
		}
		form.add(f.name, f.values)
	}
	if len(form.Values("Etag")) == 0 {
		// Or its client would ask for the rest of it by the date (RFC 9110, section
		// 13.1.5), which the entry has too: a part of that must not be put to this.
		sum := sha256.Sum256(e.body)
		form.add("Etag", []string{fmt.Sprintf(`W/"%x-%s"`, sum[:12], coding)})
	}
	form.add("Content-Encoding", []string{coding})
	return form
}

// forms writes the compressed forms of an entry: all else of them follows from it.
func (w *writer) forms(all []*Entry) {
	w.number(uint64(len(all)))
	for _, form := range all {
		w.text(form.value("Content-Encoding"))
		w.bytes(form.body)
	}
}

// forms reads what writer.forms wrote.
func (r *reader) forms(e *Entry) {
	for range r.number(uint64(len(codings))) {
		coding, body := slices.Index(codings[:], string(r.bytes())), r.bytes()
		if r.failed = r.failed || coding < 0 || !e.compressible(); r.failed {
			return
		}
		e.setForm(coding, nil, e.compressed(codings[coding], body))
	}
}

// inherit takes over the forms of an entry with the very same body, which a 304
// of the origin has freshened: they need not be made again.
func (e *Entry) inherit(old *Entry) {
	if len(e.body) == 0 || len(e.body) != len(old.body) || &e.body[0] != &old.body[0] || !e.compressible() {
		return
	}
	for _, form := range old.compressedForms() {
		coding := slices.Index(codings[:], form.value("Content-Encoding"))
		e.setForm(coding, nil, e.compressed(codings[coding], form.body))
	}
}

// formETag tells the entity tag of a form from that of its entry, or a cache
// could take the bytes of one for those of the other (RFC 9110, section 8.8.3.3).
func formETag(etag, coding string) string {
	return strings.TrimSuffix(etag, `"`) + "-" + coding + `"`
}

// etagged is an entity tag, and ofForm one that formETag has made, in a list.
var (
	etagged = regexp.MustCompile(`^(W/)?"[^"]*"$`)
	ofForm  = regexp.MustCompile(`((?:W/)?"[^" ]*)-(?:zstd|br|gzip)"`)
)

// nameOrigins has If-Match hold for the origin, which knows only its own entity
// tags: beside each that may be of a form, that of its entry is named.
//
//  1. A client reads an answer, compressed here, and its entity tag.
//  2. It writes, on condition that this still is the current one.
//  3. The origin has never heard of it, and refuses the write: so it would each one
//     of a client that takes compressed answers.
func nameOrigins(h http.Header) {
	for i, line := range h["If-Match"] {
		h["If-Match"][i] = ofForm.ReplaceAllString(line, `$0, $1"`)
	}
}

// Values are the lines of a field. Its name is in canonical spelling.
func (e *Entry) Values(name string) []string {
	if name == "Cdn-Cache-Control" {
		return e.targeted
	}
	for _, f := range e.fields {
		if f.name == name {
			return f.values
		}
	}
	return nil
}

func (e *Entry) value(name string) string { return strings.Join(e.Values(name), ", ") }

// compressible reports whether an answer is kept compressed too. A length of -1
// is not known yet.
func compressible(status int, length int64, h interface{ Values(name string) []string }) bool {
	const least = 1 << 10 // bytes; below, there are packets to save but none to fill
	if status != http.StatusOK || 0 <= length && length < least ||
		len(h.Values("Content-Encoding")) > 0 || len(h.Values("Content-Range")) > 0 {
		return false
	}
	for _, line := range slices.Concat(h.Values("Cache-Control"), h.Values("Cdn-Cache-Control")) {
		if strings.Contains(strings.ToLower(line), "no-transform") { // RFC 9111, section 5.2.2.6
			return false
		}
	}
	types, etags := h.Values("Content-Type"), h.Values("Etag")
	return len(types) == 1 && isText(types[0]) && (len(etags) == 0 || len(etags) == 1 && etagged.MatchString(etags[0]))
}

func (e *Entry) compressible() bool { return compressible(e.status, int64(len(e.body)), e) }

// isText reports whether a media type is one of text, more or less.
func isText(contentType string) bool {
	name, _, _ := mime.ParseMediaType(contentType) // or "", in lower case
	switch name {
	case "text/event-stream": // each event is to arrive when it is sent
		return false
	case "application/json", "application/javascript", "application/x-javascript", "application/xml",
		"application/x-ndjson", "application/wasm":
		return true
	}
	return strings.HasPrefix(name, "text/") || strings.HasSuffix(name, "+json") || strings.HasSuffix(name, "+xml")
}

// addVary has an answer of the origin say what those made of its entry will.
func (c *Cache) addVary(res *http.Response) {
	if c.compressor != nil && compressible(res.StatusCode, res.ContentLength, res.Header) {
		res.Header["Vary"] = varyingByCoding(res.Header["Vary"])
	}
}

// addVary has the answers made of an entry say that they depend on what codings
// a client takes. It comes before the entry is shared.
func (e *Entry) addVary() {
	if !e.compressible() {
		return
	}
	lines := varyingByCoding(e.Values("Vary"))
	isVary := func(f field) bool { return f.name == "Vary" }
	e.fields = slices.DeleteFunc(e.fields, isVary)
	e.notModified = slices.DeleteFunc(e.notModified, isVary)
	e.add("Vary", lines)
}

// varyingByCoding adds Accept-Encoding to the lines of Vary. It is true of all
// forms of an answer from the start: a cache before this one must not give one of
// them to a client that cannot read it (RFC 9110, section 12.5.5).
func varyingByCoding(vary []string) []string {
	if slices.Contains(rules.FieldNames(vary), "Accept-Encoding") {
		return vary
	}
	return append(slices.Clip(vary), "Accept-Encoding")
}

// compressor compresses one body at a time, while a few wait in line.
type compressor struct {
	line atomic.Int32 // who waits, and who has their turn

	turn chan struct{} // has an element while one is at work, with the following
	zstd *zstd.Encoder
	br   *brotli.Writer
	gzip *gzip.Writer
}

// maxLine is how many bodies may wait to be compressed. What finds no room is
// asked for again by later hits, if there are any.
const maxLine = 32

func newCompressor(on bool) (*compressor, error) {
	if !on {
		return nil, nil
	}
	// What text repeats it repeats nearby. Small windows keep what is held here for
	// good below 8 MiB; and more than 8 MiB not every client has room for (RFC 9659).
	z, err := zstd.NewWriter(nil, zstd.WithWindowSize(1<<20), zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, err
	}
	g, err := gzip.NewWriterLevel(io.Discard, 6)
	if err != nil {
		return nil, err
	}
	br := brotli.NewWriterOptions(io.Discard, brotli.WriterOptions{Quality: 5, LGWin: 18})
	return &compressor{turn: make(chan struct{}, 1), zstd: z, br: br, gzip: g}, nil
}

// enter takes a place in line, if there is one.
func (c *compressor) enter() bool {
	if c.line.Load() >= maxLine { // most of the time that it is full, this costs the least
		return false
	}
	if c.line.Add(1) > maxLine {
		c.leave()
		return false
	}
	return true
}

func (c *compressor) leave() { c.line.Add(-1) }

// compress returns a body in a coding, when its turn has come.
func (c *compressor) compress(coding string, body []byte) ([]byte, error) {
	c.turn <- struct{}{}
	defer func() { <-c.turn }()
	if coding == "zstd" {
		return c.zstd.EncodeAll(body, nil), nil
	}
	var w interface {
		io.WriteCloser
		Reset(io.Writer)
	} = c.gzip
	if coding == "br" {
		w = c.br
	}
	var out bytes.Buffer
	w.Reset(&out)
	_, err := w.Write(body)
	err = errors.Join(err, w.Close())
	w.Reset(io.Discard) // holds on to nothing
	return out.Bytes(), err
}
