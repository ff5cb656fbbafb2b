package cache

import (
	"bytes"
	"context"
	"slices"
	"time"

	"walcache/proxy/coherence"
)

// mendable reports whether another process may have stored what would be fresh
// where this one has nothing that is. Where freshness is unproven nothing would
// be.
func (f found) mendable() bool {
	switch f.reason {
	case missURI, missVary, missChanged, missEpoch, missExpired:
		return true
	}
	return false
}

// lookBelow looks for a stored answer in the layer below, after page gave f. It
// returns the page to go on with and how that stands.
//
// Invariant: what comes from there is judged like all else, by its position and
// by what this process knows to have changed since; who stored it does not
// matter. An entry of another epoch is stale here, whichever of the two epochs
// is the later one. And one as of a position that this process does not know yet
// holds every change up to there already; of those after it, this process learns
// before it may call anything fresh at their time. Kept by look, which knows no
// difference; see TestBelow_IsJudgedByWhatThisProcessKnows and
// TestModel_NorIsOneThatAnotherProcessStored.
func (c *Cache) lookBelow(client context.Context, q *request, page *Page, f found) (*Page, found) {
	if loaded := c.load(client, q.key); loaded != nil {
		page, f = loaded, c.look(q, loaded, Redis, time.Now())
	}
	return page, f
}

// load brings what the layer below has under a key into memory, once for all
// who ask at a time, and returns the page that is there then. It is nil where
// there is nothing to gain, or the client has left; the others get it all the
// same.
func (c *Cache) load(client context.Context, key Key) *Page {
	result := c.loads.DoChan(key.String(), func() (any, error) {
		page := c.below.Get(context.Background(), key)
		if page != nil {
			page = c.promote(key, page)
		}
		return page, nil
	})
	select {
	case r := <-result:
		return r.Val.(*Page)
	case <-client.Done():
		return nil
	}
}

// promote puts what was loaded into memory, together with what is there. It
// returns nil if that is no less already.
func (c *Cache) promote(key Key, loaded *Page) *Page {
	loaded.part()
	for _, e := range loaded.entries {
		c.adopt(key, e)
	}
	mu := c.lock(key)
	mu.Lock()
	defer mu.Unlock()
	own := c.store.Get(key)
	page := own.merge(loaded, c.tolerance, time.Now())
	if page == own {
		return nil
	}
	c.store.Set(key, page)
	return page
}

// part gives each of several variants a body of its own. As decoded they share
// a buffer, and one of them would keep all of it in memory, uncounted, when the
// others are long gone.
func (p *Page) part() {
	if len(p.entries) == 1 {
		return
	}
	for _, e := range p.entries {
		e.body = bytes.Clone(e.body)
		for _, form := range e.compressedForms() {
			form.body = bytes.Clone(form.body)
		}
	}
}

// offer puts a page below, where other processes find it. then may be nil; it is not
// called where there is nothing below.
//
// They judge it by its positions. Without coherence those say nothing to them, and
// they would take for fresh what is known to be stale here: so that stays here.
func (c *Cache) offer(key Key, page *Page, then func(written bool)) {
	if c.below == nil {
		return
	}
	if now := time.Now(); !c.sharesPositions() {
		outdated := func(e *Entry) bool { return c.truth.Judge(e.asOf, e.deps, now) == coherence.Changed }
		rest := slices.DeleteFunc(slices.Clone(page.entries), outdated)
		if len(rest) == 0 {
			if then != nil {
				then(false)
			}
			return
		}
		page = newPage(rest, c.tolerance)
	}
	c.below.Set(key, page, then)
}
