package cache

import (
	"slices"
	"time"
)

// Page is what is stored under one key: the variants of an answer, the newest
// first. It is immutable; a writer replaces it.
type Page struct {
	entries []*Entry
	window  time.Duration // see Entry.useless
	expires time.Time
	size    int
}

// maxVariants bounds how many answers one key may have. A header that clients
// make up at will, and that a service names in Vary, must not fill the memory.
const maxVariants = 32

// Expires is when memory has no use for any of its answers any more. Elsewhere
// they are of use for less long: see Encode.
func (p *Page) Expires() time.Time { return p.expires }

// Size is what it takes up in memory, in bytes, near enough, without its key.
func (p *Page) Size() int { return p.size }

// match finds the newest variant for a request (RFC 9111, section 4.1).
func (p *Page) match(q *request) *Entry {
	if p == nil {
		return nil
	}
	for _, e := range p.entries {
		if e.matches(q) {
			return e
		}
	}
	return nil
}

func (e *Entry) matches(q *request) bool {
	for i, name := range e.terms.Vary {
		if q.fieldValue(name) != e.varied[i] {
			return false
		}
	}
	return true
}

// with returns a page that has one more variant, in the place of the one that
// it replaces. Variants of no more use are left out, and if there are still too
// many, the one that has not been asked for the longest.
func (p *Page) with(e *Entry, tol tolerance, now time.Time) *Page {
	entries := []*Entry{e}
	if p != nil {
		for _, old := range p.entries {
			e.inherit(old)
			if !old.sameVariant(e) && now.Before(old.forgotten(tol)) {
				entries = append(entries, old)
			}
		}
	}
	return newPage(entries, tol)
}

// newPage makes a page of entries, the first of which it keeps in any case.
func newPage(entries []*Entry, tol tolerance) *Page {
	for len(entries) > maxVariants {
		least := 1
		for i, e := range entries[1:] {
			if e.used.Load() <= entries[least].used.Load() {
				least = i + 1
			}
		}
		entries = slices.Delete(entries, least, least+1)
	}
	p := &Page{entries: entries, window: tol.window()}
	for _, e := range entries {
		p.size += e.size()
		p.expires = later(p.expires, e.forgotten(tol))
	}
	return p
}

// merge returns a page that has what another one has beside what this one has,
// or this one if there is nothing to gain. Two processes write the page of a
// key in any order, so of a variant that both have the one of the later data
// counts.
func (p *Page) merge(other *Page, tol tolerance, now time.Time) *Page {
	var entries []*Entry
	if p != nil {
		entries = slices.Clone(p.entries)
	}
	gained := false
	for _, e := range other.entries {
		if !now.Before(e.forgotten(tol)) {
			continue
		}
		i := slices.IndexFunc(entries, e.sameVariant)
		switch {
		case i < 0:
			entries = append(entries, e)
		case e.supersedes(entries[i]):
			entries[i] = e
		default:
			continue
		}
		gained = true
	}
	if !gained {
		return p
	}
	slices.SortStableFunc(entries, func(a, b *Entry) int { return b.received.Compare(a.received) })
	return newPage(entries, tol)
}

// supersedes reports whether an entry has later data than one of the same
// variant: as of a later position, or where positions do not tell, received
// later.
func (e *Entry) supersedes(other *Entry) bool {
	if e.asOf.Epoch == other.asOf.Epoch && e.asOf.LSN != other.asOf.LSN {
		return e.asOf.LSN > other.asOf.LSN
	}
	return e.received.After(other.received)
}

func (e *Entry) sameVariant(other *Entry) bool {
	return slices.Equal(e.terms.Vary, other.terms.Vary) && slices.Equal(e.varied, other.varied)
}

// useless is when an entry can serve no request any more, as long as the
// upstream answers: after its lifetime and the larger of its windows. window is
// that of the configuration.
func (e *Entry) useless(window time.Duration) time.Time {
	if e.terms.Revalidate {
		return e.received
	}
	return e.ends().Add(max(e.terms.WhileRevalidate, e.terms.IfError, window))
}

// ends is when the lifetime of an entry is over. One that is confirmed at each use
// has none.
func (e *Entry) ends() time.Time {
	if e.terms.Revalidate {
		return e.received
	}
	return e.received.Add(e.terms.Lifetime - e.terms.InitialAge)
}

// retention is how long after its lifetime an answer that has a validator stays
// in memory: asked about, it spares the upstream a body. Most of what is asked
// for again is within the hour; what is not gives way to what is long before,
// where memory is short.
const retention = time.Hour

// forgotten is when memory has no use for an entry any more: neither can it be
// served, also if the upstream is away, nor need the upstream be asked about it.
func (e *Entry) forgotten(tol tolerance) time.Time {
	at := e.useless(tol.window())
	if !e.terms.NoStale {
		at = later(at, e.ends().Add(tol.expiredIfError))
	}
	if e.validators.Any() {
		at = later(at, e.ends().Add(retention))
	}
	return at
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
