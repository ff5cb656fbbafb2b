package cache

import (
	"slices"
	"time"
)

// Page is what is stored under one key: the variants of an answer, the newest
// first. It is immutable; a writer replaces it.
type Page struct {
	entries []*Entry
	expires time.Time
	size    int
}

// maxVariants bounds how many answers one key may have. A header that clients
// make up at will, and that a service names in Vary, must not fill the memory.
const maxVariants = 32

// Expires is when none of its answers can be of use any more.
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
func (p *Page) with(e *Entry, keep time.Duration, now time.Time) *Page {
	entries := []*Entry{e}
	if p != nil {
		for _, old := range p.entries {
			if !old.sameVariant(e) && now.Before(old.useless(keep)) {
				entries = append(entries, old)
			}
		}
	}
	return newPage(entries, keep)
}

// newPage makes a page of entries, the first of which it keeps in any case.
func newPage(entries []*Entry, keep time.Duration) *Page {
	for len(entries) > maxVariants {
		least := 1
		for i, e := range entries[1:] {
			if e.used.Load() <= entries[least].used.Load() {
				least = i + 1
			}
		}
		entries = slices.Delete(entries, least, least+1)
	}
	p := &Page{entries: entries}
	for _, e := range entries {
		p.size += e.size()
		if u := e.useless(keep); u.After(p.expires) {
			p.expires = u
		}
	}
	return p
}

// merge returns a page that has what another one has beside what this one has,
// or this one if there is nothing to gain. Two processes write the page of a
// key in any order, so of a variant that both have the one of the later data
// counts.
func (p *Page) merge(other *Page, keep time.Duration, now time.Time) *Page {
	var entries []*Entry
	if p != nil {
		entries = slices.Clone(p.entries)
	}
	gained := false
	for _, e := range other.entries {
		if !now.Before(e.useless(keep)) {
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
	return newPage(entries, keep)
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

// useless is when an entry can serve no request any more: after its lifetime
// and the larger of its windows. keep is the window of the configuration.
func (e *Entry) useless(keep time.Duration) time.Time {
	window := max(e.terms.WhileRevalidate, e.terms.IfError, keep)
	return e.received.Add(e.terms.Lifetime - e.terms.InitialAge + window)
}
