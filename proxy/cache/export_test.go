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
