package cache

import (
	"net/http"
	"time"
)

// IsFresh makes the decision of a hit, and sends nothing.
func (c *Cache) IsFresh(r *http.Request, now time.Time) bool {
	v, err := c.origin.View(r)
	if err != nil || c.cannotUse(r, v) != "" {
		return false
	}
	q := c.newRequest(r, v)
	f := c.look(&q, c.store.Get(q.key), Memory, now)
	return f.fresh && f.entry.hitAt(now, Memory) != nil
}

// HoldCompressor lets nothing be compressed until release is called.
func (c *Cache) HoldCompressor() (release func()) {
	c.compressor.turn <- struct{}{}
	return func() { <-c.compressor.turn }
}

// InLine is how many bodies wait to be compressed, or are.
func (c *Cache) InLine() int32 { return c.compressor.line.Load() }

// Forms is how many compressed forms the first answer of a page has.
func (p *Page) Forms() int { return len(p.entries[0].compressedForms()) }

// NewCompressor returns how a body is compressed.
func NewCompressor() func(coding string, body []byte) []byte {
	c, err := newCompressor(true)
	if err != nil {
		panic(err)
	}
	return func(coding string, body []byte) []byte {
		out, err := c.compress(coding, body)
		if err != nil {
			panic(err)
		}
		return out
	}
}
