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
	page, layer := c.store.Get(r.Context(), q.key)
	f := c.look(&q, page, layer, now)
	return f.fresh && f.entry.hitAt(now, layer) != nil
}
