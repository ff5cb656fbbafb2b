package cache

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"walcache/proxy/coherence"
	"walcache/proxy/origin"
	"walcache/proxy/rules"
)

// maxGroups is how many groups an answer can be in, and how many an answer to a
// write can name (RFC 9875, sections 2 and 3, have 32 as the least). The others
// do not count: a page has no more to be compared on every hit, and no message is
// longer than one for them.
const maxGroups = 32

// invalidate makes stale in this process what an unsafe request has made stale by
// its answer: what is stored under its URL and those of the same origin that
// Location and Content-Location name (RFC 9111, section 4.4), and in the groups
// that Cache-Group-Invalidation names (RFC 9875, section 3). It returns the hashes
// of all of that, for other processes.
//
// Cache-Group-Invalidation goes on to the client, unlike Cache-Groups. A group is
// of an origin and not of a way to it: a cache before this one may keep members of
// it that did not come through here, and one that has none loses nothing.
//
//  1. A fill reads the page.  2. A POST changes it, and is answered.
//  3. The page is made stale.  4. The fill is stored.
//
// It is as of a position before 1, and what is made stale in 3 has moved past all
// positions before 3. So it is stale from birth; see
// TestInvalidation_AFillThatRacesWithItIsBornStale.
func (c *Cache) invalidate(v origin.View, status int, h http.Header) []coherence.Hash {
	host, _, _ := strings.Cut(v.Host, "\n")
	urls := rules.Invalidated(status, v.Scheme, host, v.Target, h)
	if len(urls) == 0 {
		return nil
	}
	here := len(urls[0]) - len(v.Target) // the length of the origin, with which all of them begin
	var hashes []coherence.Hash
	for _, u := range urls {
		key := Key{v.Scheme, v.Host, c.ignoreQuery.reduce(u[here:])}
		if c.keepsNone(key) {
			continue
		}
		hashes = append(hashes, key.hash())
		if !c.sharesPositions() {
			c.drop(key)
		}
	}
	groups := rules.Groups(h["Cache-Group-Invalidation"])
	for _, group := range groups[:min(len(groups), maxGroups)] {
		hashes = append(hashes, Key{Scheme: v.Scheme, Host: v.Host}.group(group))
	}
	c.truth.Outdate(hashes...)
	c.count.invalidated.Add(uint64(len(hashes)))
	return hashes
}

// keepsNone reports whether nothing can be stored under a key.
func (c *Cache) keepsNone(key Key) bool {
	if key.Size() > maxKey {
		return true
	}
	raw, _, _ := strings.Cut(key.Target, "?")
	decoded, err := url.PathUnescape(raw)
	return err == nil && len(c.bypass) > 0 && c.isBypassed(raw, decoded)
}

// sharesPositions reports whether what was made stale here is so elsewhere, by its
// position. Without coherence it is not.
func (c *Cache) sharesPositions() bool { return c.truth.Known() != (coherence.Position{}) }

// drop removes a page from where other processes would find it and take it for
// fresh, and from memory, or its variants would get there again with the next.
// It is no more than a favour to them: they keep what they have.
func (c *Cache) drop(key Key) {
	if c.below == nil {
		return
	}
	mu := c.lock(key)
	mu.Lock()
	defer mu.Unlock()
	c.store.Delete(key)
	c.below.Delete(key)
}

// awaitWrite waits until this process knows of what a request has written, and all
// are told of the hashes that it has moved, so that whoever is told that it
// succeeded will not read what was before. It does not wait for long: what was read
// before it is at most as stale as without it. The others are told all the same.
func (c *Cache) awaitWrite(ctx context.Context, moved []coherence.Hash) {
	known := c.catchUp
	if len(moved) > 0 && c.tellAll != nil {
		known = func(ctx context.Context) error { return c.tellAll(ctx, moved) }
	} else if c.writeWait <= 0 {
		return
	}
	if known == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, c.writeWait)
	defer cancel()
	if err := known(ctx); err != nil && c.writeWait > 0 {
		c.count.writeWaits.Add(1)
		c.log.Debug("answered a write before all its changes were known", "err", err)
	}
}
