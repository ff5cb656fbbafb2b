package cache

import (
	"sync"
	"sync/atomic"
)

// Stats counts what the cache does, since it was made.
type Stats struct {
	Hits      map[string]uint64 `json:"hits"`      // requests answered from the store, by layer
	HitBytes  uint64            `json:"hit_bytes"` // bytes of bodies that they sent
	Misses    map[string]uint64 `json:"misses"`    // requests that the store could not answer, by reason
	Stale     map[string]uint64 `json:"stale"`     // misses answered with what is not fresh, by reason
	Coalesced uint64            `json:"coalesced"` // misses answered by another request's fetch
	Waiting   int64             `json:"waiting"`   // requests that wait for another's fetch now
	CutOff    uint64            `json:"cut_off"`   // answers broken off because their clients stood still while others waited for the rest
	Leases    map[string]uint64 `json:"leases"`    // fetches that processes agree about, by what came of that here
	Bypassed  map[string]uint64 `json:"bypassed"`  // requests that passed the cache by, by reason
	Refused   map[string]uint64 `json:"refused"`   // responses that were not stored, by reason
	Stored    uint64            `json:"stored"`

	// Compressed counts the compressed forms made of what is stored, and by how
	// many bytes they are shorter.
	Compressed      uint64 `json:"compressed"`
	CompressedSaved uint64 `json:"compressed_saved_bytes"`

	// Invalidated counts the URLs and groups that answers to unsafe requests made
	// stale.
	Invalidated uint64 `json:"invalidated"`

	// Turned counts, by table, the requests that would have been hits if no row
	// of it had changed.
	Turned map[string]uint64 `json:"hits_turned_into_misses"`

	Fetches Load   `json:"fetches"` // GET and HEAD, without those that bypass the cache
	Writes  Load   `json:"writes"`  // all other methods
	Failed  uint64 `json:"failed"`  // requests that the upstream did not answer

	// WriteWaitsTimedOut counts answers to writes that went out before the
	// cache knew of all that they had changed.
	WriteWaitsTimedOut uint64 `json:"write_waits_timed_out"`
}

// Load says how many requests are at the upstream.
type Load struct {
	Now     int64  `json:"now"`
	Peak    int64  `json:"peak"`
	Total   uint64 `json:"total"`
	Refused uint64 `json:"refused"` // waited too long in line
}

// counters are what Stats is read from, beside those of routes.
type counters struct {
	misses, stale, bypassed, refused, turned tally
	leases                                   tally
	coalesced, stored, failed, writeWaits    atomic.Uint64
	invalidated                              atomic.Uint64
	cutOff                                   atomic.Uint64
	compressed, saved                        atomic.Uint64
	waiting                                  atomic.Int64
	hitTimes, missTimes                      durations
}

// Stats reads the counters.
func (c *Cache) Stats() Stats {
	s := Stats{
		Hits:               map[string]uint64{},
		Misses:             c.count.misses.read(),
		Stale:              c.count.stale.read(),
		Coalesced:          c.count.coalesced.Load(),
		Waiting:            c.count.waiting.Load(),
		CutOff:             c.count.cutOff.Load(),
		Leases:             c.count.leases.read(),
		Bypassed:           c.count.bypassed.read(),
		Refused:            c.count.refused.read(),
		Stored:             c.count.stored.Load(),
		Compressed:         c.count.compressed.Load(),
		CompressedSaved:    c.count.saved.Load(),
		Invalidated:        c.count.invalidated.Load(),
		Turned:             c.count.turned.read(),
		Fetches:            c.fetches.gauge.read(),
		Writes:             c.writes.gauge.read(),
		Failed:             c.count.failed.Load(),
		WriteWaitsTimedOut: c.count.writeWaits.Load(),
	}
	for l := range Layer(layers) {
		s.Hits[l.String()] = 0
	}
	for _, r := range c.uses.all() {
		for l := range r.hits {
			s.Hits[Layer(l).String()] += r.hits[l].Load()
			s.HitBytes += r.hitBytes[l].Load()
		}
	}
	return s
}

// tally counts by name.
type tally struct{ counts sync.Map } // string → *atomic.Uint64

func (t *tally) add(name string) {
	n, ok := t.counts.Load(name)
	if !ok {
		n, _ = t.counts.LoadOrStore(name, new(atomic.Uint64))
	}
	n.(*atomic.Uint64).Add(1)
}

func (t *tally) read() map[string]uint64 {
	m := map[string]uint64{}
	t.counts.Range(func(name, n any) bool {
		m[name.(string)] = n.(*atomic.Uint64).Load()
		return true
	})
	return m
}

// gauge is the Load of a limiter.
type gauge struct {
	now, peak      atomic.Int64
	total, refused atomic.Uint64
}

func (g *gauge) enter() {
	g.total.Add(1)
	now := g.now.Add(1)
	for peak := g.peak.Load(); now > peak && !g.peak.CompareAndSwap(peak, now); {
		peak = g.peak.Load()
	}
}

func (g *gauge) leave() { g.now.Add(-1) }

func (g *gauge) read() Load {
	return Load{Now: g.now.Load(), Peak: g.peak.Load(), Total: g.total.Load(), Refused: g.refused.Load()}
}
