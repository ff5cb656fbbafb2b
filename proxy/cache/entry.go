package cache

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"walcache/proxy/coherence"
	"walcache/proxy/origin"
	"walcache/proxy/rules"
)

// Entry is a stored answer: everything that a hit sends, ready to be sent, and
// everything that decides whether it may be. Apart from what it keeps about its
// own use, it is immutable.
type Entry struct {
	status      int
	fields      []field
	notModified []field // those of fields that a 304 repeats
	body        []byte
	terms       rules.Terms
	varied      []string // the request's values for terms.Vary

	asOf  coherence.Position
	deps  coherence.Dependencies
	tags  []coherence.Tag
	whole bool // it depends on the whole database

	// readAt is a time before which nothing in it was read, or zero where that
	// is not known.
	readAt   time.Time
	received time.Time

	validators rules.Validators
	unclean    bool     // net/http would send fields as something else than they are
	said       []string // the Cache-Status lines of caches behind this one
	targeted   []string // the CDN-Cache-Control lines, which no client gets
	used       atomic.Int64
	use        *use // set before it is stored
	moment     atomic.Pointer[moment]
	forms      atomic.Pointer[forms] // see Cache.form
}

// field is a line of a header as http.Header holds it. The values are shared
// by all answers; they have no room to append to.
type field struct {
	name   string
	values []string
}

// moment is what an entry's answers have in common for a second.
type moment struct {
	second      int64 // of its age
	layer       Layer
	age         []string
	cacheStatus []string
}

// newEntry makes an entry of a response. It takes over the body and the values
// of the header.
func newEntry(status int, h http.Header, body []byte, t rules.Terms, varied []string, received time.Time) *Entry {
	e := &Entry{status: status, body: body, terms: t, varied: varied, received: received}
	e.used.Store(received.Unix())
	e.said = slices.Clip(h["Cache-Status"])
	if len(h["Date"]) == 0 {
		e.add("Date", []string{received.UTC().Format(http.TimeFormat)}) // RFC 9110, section 6.6.1
	}
	if status != http.StatusNoContent {
		e.add("Content-Length", []string{strconv.Itoa(len(body))})
	}
	for name, values := range h {
		if name != "Age" && name != "Cache-Status" && name != "Content-Length" {
			e.add(strings.Clone(name), slices.Clip(values))
		}
	}
	return e
}

// add adds a field.
func (e *Entry) add(name string, values []string) {
	f := field{name, values}
	e.fields = append(e.fields, f)
	e.unclean = e.unclean || !isClean(name, values)
	if repeatedBy304(name) {
		e.notModified = append(e.notModified, f)
	}
	switch said := rules.ValidatorsOf(http.Header{name: values}); name {
	case "Etag":
		e.validators.ETag = said.ETag
	case "Last-Modified":
		e.validators.LastModified = said.LastModified
	case "Date":
		e.validators.Date = said.Date
	}
}

// hasProvenance sets what the entry was made from, by a fetch that began then.
func (e *Entry) hasProvenance(p provenance, began time.Time) {
	e.asOf, e.deps, e.tags, e.whole = p.asOf, p.deps, p.tags, p.whole
	if p.own {
		e.readAt = began
	}
}

// repeatedBy304 lists the fields of a 304 (RFC 9110, section 15.4.5), and Via,
// which every message carries.
func repeatedBy304(name string) bool {
	switch name {
	case "Cache-Control", "Content-Location", "Date", "Etag", "Expires", "Vary", "Via":
		return true
	}
	return false
}

// age is the entry's current age (RFC 9111, section 4.2.3).
func (e *Entry) age(now time.Time) time.Duration {
	return e.terms.InitialAge + max(now.Sub(e.received), 0)
}

// hitAt returns the Age and Cache-Status lines of a hit. They change once a
// second and not with every answer.
func (e *Entry) hitAt(now time.Time, layer Layer) *moment {
	age := e.age(now)
	second := int64(age / time.Second)
	if m := e.moment.Load(); m != nil && m.second == second && m.layer == layer {
		return m
	}
	ttl := int64((e.terms.Lifetime - age) / time.Second)
	m := &moment{
		second:      second,
		layer:       layer,
		age:         []string{strconv.FormatInt(second, 10)},
		cacheStatus: e.statusLines(origin.Pseudonym + "; hit; ttl=" + strconv.FormatInt(ttl, 10) + "; detail=" + layer.String()),
	}
	e.moment.Store(m)
	e.used.Store(now.Unix())
	return m
}

// statusLines puts our member of Cache-Status behind those of the caches
// nearer to the origin (RFC 9211, section 2).
func (e *Entry) statusLines(ours string) []string {
	return append(e.said, ours)
}

// size is what the entry takes up in memory, in bytes, near enough.
func (e *Entry) size() int {
	const overhead = 768 // of the structs, slices and lines of a hit, as measured
	n := overhead + len(e.body)
	for _, f := range e.fields {
		n += fieldSize(f.name, f.values)
	}
	n += fieldSize("", e.terms.Vary) + fieldSize("", e.varied) + fieldSize("", e.said) + fieldSize("", e.targeted)
	for _, tag := range e.tags {
		n += len(tag) + 16
	}
	for _, form := range e.compressedForms() {
		n += form.size()
	}
	return n + 8*len(e.deps)
}

func fieldSize(name string, values []string) int {
	const perString = 16
	n := 2*perString + len(name)
	for _, v := range values {
		n += perString + len(v)
	}
	return n
}
