package cache

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"slices"
	"time"

	"walcache/proxy/coherence"
)

// A page outside of this process is these bytes. Numbers are varints, unless
// they say otherwise; a text is its length and its bytes; a list is its length
// and its members.
//
//	"wcp", version     1 byte
//	checksum           4 bytes, CRC-32C of all that follows, little-endian
//	ttl                how long the page is of use from when it was written, in ms
//	scheme, host, target   texts: the key
//	entries            a list, the newest first, each of
//	    head           a text, see writer.head
//	    body           a text
//	    forms          a list of its compressed forms, each a coding and a body
//
// No time of day is in it, and so no two machines' clocks are compared: what
// has a time has it as the duration from then to the moment of writing. How
// long ago that is, whoever keeps the bytes tells when they are read, by the
// time that they have left to live there.
const (
	magic      = "wcp\x02"
	headerSize = len(magic) + 4
	// maxHead bounds what lies around a body, in bytes, and so what a forged
	// length can have allocated.
	maxHead = 256 << 10
)

// errForeign says that bytes are no page of the key, or none that this version
// can read.
var errForeign = errors.New("cache: not a page of this key and version")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Bits of an entry's head.
const (
	isExplicit = 1 << iota
	isForAuthorized
	isWhole
	isNeverStale
	hasReadAt
	flags = 1<<iota - 1
)

// Encode writes the page of a key, in no more than limit bytes: variants that
// find no room are left out, and data is nil if all of them are. The bytes are
// to be kept for ttl, counted from now; if that is not above zero, the page is
// of no use any more: outside of this process an answer lives no longer than it
// can be served while the upstream answers.
func (p *Page) Encode(key Key, now time.Time, limit int) (data []byte, ttl time.Duration) {
	var useless time.Time
	for _, e := range p.entries {
		useless = later(useless, e.useless(p.window))
	}
	ttl = useless.Sub(now).Truncate(time.Millisecond)
	size := headerSize + 8*binary.MaxVarintLen32 + key.Size()
	if ttl <= 0 {
		return nil, ttl
	}
	var heads [][]byte
	var entries []*Entry
	var forms [][]*Entry
	for _, e := range p.entries {
		if !now.Before(e.useless(p.window)) {
			continue
		}
		head := e.head(now)
		n := 2*binary.MaxVarintLen32 + len(head) + len(e.body)
		if len(head) <= maxHead && size+n <= limit {
			heads, entries, size = append(heads, head), append(entries, e), size+n
			forms = append(forms, slices.DeleteFunc(e.compressedForms(), func(form *Entry) bool {
				n := 2*binary.MaxVarintLen32 + len(form.body)
				if size+n > limit {
					return true
				}
				size += n
				return false
			}))
		}
	}
	if len(entries) == 0 {
		return nil, ttl
	}
	w := writer{buf: make([]byte, headerSize, size)}
	w.number(uint64(ttl / time.Millisecond))
	w.text(key.Scheme)
	w.text(key.Host)
	w.text(key.Target)
	w.number(uint64(len(entries)))
	for i, e := range entries {
		w.bytes(heads[i])
		w.bytes(e.body)
		w.forms(forms[i])
	}
	copy(w.buf, magic)
	binary.LittleEndian.PutUint32(w.buf[len(magic):], crc32.Checksum(w.buf[headerSize:], castagnoli))
	return w.buf, ttl
}

// head writes all of an entry but its body.
func (e *Entry) head(now time.Time) []byte {
	t := &e.terms
	w := writer{buf: make([]byte, 0, 512)}
	w.number(uint64(e.status))
	w.number(flag(t.Explicit, isExplicit) | flag(t.ForAuthorized, isForAuthorized) | flag(e.whole, isWhole) |
		flag(t.NoStale, isNeverStale) | flag(!e.readAt.IsZero(), hasReadAt))
	for _, d := range []time.Duration{t.InitialAge, t.Lifetime, t.WhileRevalidate, t.IfError, now.Sub(e.received)} {
		w.duration(d)
	}
	if !e.readAt.IsZero() {
		w.duration(now.Sub(e.readAt))
	}
	w.text(e.asOf.Epoch)
	w.number(uint64(e.asOf.LSN))
	w.number(uint64(len(e.deps)))
	for _, d := range e.deps {
		w.buf = binary.LittleEndian.AppendUint64(w.buf, uint64(d))
	}
	w.texts(t.Vary)
	w.texts(e.varied)
	w.texts(e.said)
	w.texts(e.targeted)
	w.number(uint64(len(e.tags)))
	for _, tag := range e.tags {
		w.text(string(tag))
	}
	w.number(uint64(len(e.fields)))
	for _, f := range e.fields {
		w.text(f.name)
		w.texts(f.values)
	}
	return w.buf
}

func flag(set bool, bit uint64) uint64 {
	if set {
		return bit
	}
	return 0
}

// writer appends to a buffer.
type writer struct{ buf []byte }

func (w *writer) number(n uint64) { w.buf = binary.AppendUvarint(w.buf, n) }

func (w *writer) text(s string) {
	w.number(uint64(len(s)))
	w.buf = append(w.buf, s...)
}

func (w *writer) bytes(b []byte) {
	w.number(uint64(len(b)))
	w.buf = append(w.buf, b...)
}

func (w *writer) texts(list []string) {
	w.number(uint64(len(list)))
	for _, s := range list {
		w.text(s)
	}
}

func (w *writer) duration(d time.Duration) { w.number(uint64(max(d, 0))) }

// DecodePage reads what Encode wrote for a key. left is how long the bytes
// would still be kept, at some moment after now: an entry is taken to be as old
// as then already, so that what is not known makes it older and not younger.
// Bodies are not copied: data may not change any more.
//
// Everything but a page of the key in this version is an error.
func DecodePage(data []byte, key Key, left time.Duration, now time.Time) (*Page, error) {
	if len(data) < headerSize || string(data[:len(magic)]) != magic ||
		binary.LittleEndian.Uint32(data[len(magic):]) != crc32.Checksum(data[headerSize:], castagnoli) {
		return nil, errForeign
	}
	r := reader{data: data, pos: headerSize}
	ttl := time.Duration(r.number(uint64(maxDuration/time.Millisecond))) * time.Millisecond
	sameKey := string(r.bytes()) == key.Scheme && string(r.bytes()) == key.Host && string(r.bytes()) == key.Target
	if left <= 0 || left > ttl+clockStep || !sameKey {
		return nil, errForeign
	}
	// A server tells the time left in whole milliseconds.
	written := now.Add(min(left-ttl, 0) - time.Millisecond)
	entries := make([]*Entry, r.number(maxVariants))
	for i := range entries {
		entries[i] = r.entry(written)
		entries[i].used.Store(now.Unix())
	}
	if r.failed || len(entries) == 0 || r.pos < len(data) {
		return nil, errForeign
	}
	return newPage(entries, tolerance{}), nil
}

// clockStep is how far the clock that the time left is told by may be put back,
// or move at a time.
const clockStep = time.Second

// maxDuration bounds what is read as a duration, so that no time can overflow.
const maxDuration = 10 * 365 * 24 * time.Hour

// entry reads an entry, whose texts share one copy of its head.
func (r *reader) entry(written time.Time) *Entry {
	data := r.bytes()
	r.failed = r.failed || len(data) > maxHead
	e := &Entry{body: r.bytes()}
	if r.failed {
		return e
	}
	head := reader{data: data, text: string(data)}
	head.into(e, written)
	r.failed = head.failed || head.pos < len(data) || e.status < 200 || len(e.terms.Vary) != len(e.varied)
	r.forms(e)
	return e
}

// into reads what Entry.head wrote.
func (r *reader) into(e *Entry, written time.Time) {
	e.status = int(r.number(999))
	set, t := r.number(flags), &e.terms
	t.Shared = true // or it would not have been stored
	t.Explicit, t.ForAuthorized, e.whole = set&isExplicit != 0, set&isForAuthorized != 0, set&isWhole != 0
	t.NoStale = set&isNeverStale != 0
	t.InitialAge, t.Lifetime, t.WhileRevalidate, t.IfError = r.duration(), r.duration(), r.duration(), r.duration()
	e.received = written.Add(-r.duration())
	if set&hasReadAt != 0 {
		e.readAt = written.Add(-r.duration())
	}
	e.asOf.Epoch, e.asOf.LSN = r.next(), coherence.LSN(r.number(math.MaxUint64))
	e.deps = make(coherence.Dependencies, r.count(8))
	for i := range e.deps {
		e.deps[i] = coherence.Hash(r.fixed())
	}
	t.Vary, e.varied, e.said, e.targeted = r.texts(), r.texts(), r.texts(), r.texts()
	e.tags = make([]coherence.Tag, r.count(1))
	for i := range e.tags {
		e.tags[i] = coherence.Tag(r.next())
	}
	n := r.count(2)
	e.fields = make([]field, 0, n)
	for range n {
		e.add(r.next(), r.texts())
	}
}

// reader reads what writer wrote. After it has failed all it reads is zero.
type reader struct {
	data   []byte
	text   string // the same, to take texts from
	pos    int
	failed bool
}

// number reads a number that is at most limit.
func (r *reader) number(limit uint64) uint64 {
	n, size := binary.Uvarint(r.data[r.pos:])
	if r.failed = r.failed || size <= 0 || n > limit; r.failed {
		return 0
	}
	r.pos += size
	return n
}

// count reads the length of a list whose members take size bytes at least, so
// that no list is made for members that are not there.
func (r *reader) count(size int) int { return int(r.number(uint64((len(r.data) - r.pos) / size))) }

func (r *reader) duration() time.Duration { return time.Duration(r.number(uint64(maxDuration))) }

func (r *reader) bytes() []byte {
	n := r.count(1)
	if r.failed = r.failed || n > len(r.data)-r.pos; r.failed {
		return nil
	}
	r.pos += n
	return r.data[r.pos-n : r.pos : r.pos]
}

func (r *reader) next() string {
	n := len(r.bytes())
	return r.text[r.pos-n : r.pos]
}

func (r *reader) texts() []string {
	list := make([]string, r.count(1))
	for i := range list {
		list[i] = r.next()
	}
	return list
}

func (r *reader) fixed() uint64 {
	if r.failed = r.failed || len(r.data)-r.pos < 8; r.failed {
		return 0
	}
	r.pos += 8
	return binary.LittleEndian.Uint64(r.data[r.pos-8:])
}
