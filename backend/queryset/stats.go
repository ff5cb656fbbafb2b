package queryset

import (
	"sync/atomic"

	"walcache/proxy/coherence"
)

// Stats is what a cache did since it was made, in reads and entries.
type Stats struct {
	Hits   uint64 // looks that found what holds
	Shared uint64 // reads that took the answer of another's query
	Past   uint64 // reads that did not look

	// Why a look found nothing of use.
	Absent   uint64 // there is nothing
	Changed  uint64 // what it depends on changed
	Epoch    uint64 // it is of another epoch
	Unproven uint64 // nothing says whether it changed
	Foreign  uint64 // not an entry of this key, version and shape
	Failures uint64 // Redis did not answer
	Skipped  uint64 // Redis was not asked, because it does not answer

	// Why what was found was read again from one snapshot.
	Moved uint64 // something changed in between
	Ahead uint64 // something may have more than what is known

	Writes, Bytes uint64
	// Why an entry was not written.
	TooLarge  uint64
	Dropped   uint64 // too many wait, or Redis does not answer or has no memory
	Born      uint64 // it had changed before its turn came
	Repeated  uint64 // it was written a moment ago
	Unwritten uint64 // Redis did not take it

	Open bool // Redis does not answer
}

// why says why a look found nothing.
type why int

const (
	found why = iota
	absent
	foreign
	failed
	skipped
	whys
)

type counters struct {
	hits, shared, past                                          atomic.Uint64
	looked                                                      [whys]atomic.Uint64
	changed, epoch, unproven                                    atomic.Uint64
	moved, ahead                                                atomic.Uint64
	writes, bytes, tooLarge, dropped, born, repeated, unwritten atomic.Uint64
}

// nothing counts a look that found nothing.
func (c *counters) nothing(w why) { c.looked[w].Add(1) }

// judged counts a look that found something.
func (c *counters) judged(v coherence.Verdict) {
	switch v {
	case coherence.Fresh:
		c.hits.Add(1)
	case coherence.Changed:
		c.changed.Add(1)
	case coherence.OtherEpoch:
		c.epoch.Add(1)
	case coherence.Unproven:
		c.unproven.Add(1)
	}
}

func (c *cache) stats() *Stats {
	n := &c.count
	return &Stats{
		Hits: n.hits.Load(), Shared: n.shared.Load(), Past: n.past.Load(),
		Absent: n.looked[absent].Load(), Foreign: n.looked[foreign].Load(), Failures: n.looked[failed].Load(), Skipped: n.looked[skipped].Load(),
		Changed: n.changed.Load(), Epoch: n.epoch.Load(), Unproven: n.unproven.Load(),
		Moved: n.moved.Load(), Ahead: n.ahead.Load(),
		Writes: n.writes.Load(), Bytes: n.bytes.Load(),
		TooLarge: n.tooLarge.Load(), Dropped: n.dropped.Load(), Born: n.born.Load(), Repeated: n.repeated.Load(), Unwritten: n.unwritten.Load(),
		Open: c.breaker.isOpen(),
	}
}
