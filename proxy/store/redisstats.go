package store

import (
	"sync"
	"sync/atomic"
)

// RedisStats counts what the pages in Redis do, since the process began.
type RedisStats struct {
	Gets       uint64 `json:"gets"`
	Hits       uint64 `json:"hits"`    // a page was there; whether it is fresh the cache decides
	Misses     uint64 `json:"misses"`  // nothing was there
	Corrupt    uint64 `json:"corrupt"` // what was there is no page of the key that this version can read
	Failures   uint64 `json:"failures"`
	OverBudget uint64 `json:"over_budget"` // failures that took as long as they may
	Skipped    uint64 `json:"skipped"`     // not asked, because Redis does not answer

	BreakerOpen bool   `json:"breaker_open"`
	Opened      uint64 `json:"breaker_opened"`

	Writes       uint64            `json:"writes"`
	BytesWritten uint64            `json:"bytes_written"`
	Dropped      map[string]uint64 `json:"dropped"` // pages that were not written, by reason
	Queue        int               `json:"queue"`   // pages that wait to be written
}

type redisCounters struct {
	gets, hits, misses, corrupt, failures, overBudget, skipped atomic.Uint64
	writes, bytesWritten                                       atomic.Uint64
	dropped                                                    drops
}

// drops counts by reason.
type drops struct {
	mu sync.Mutex // guards the following
	by map[string]uint64
}

func (d *drops) add(reason string, n int) {
	if n == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.by == nil {
		d.by = map[string]uint64{}
	}
	d.by[reason] += uint64(n)
}

func (d *drops) read() map[string]uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	by := map[string]uint64{}
	for reason, n := range d.by {
		by[reason] = n
	}
	return by
}

// Stats reads the counters.
func (r *Redis) Stats() RedisStats {
	queued, _ := r.queue.state()
	return RedisStats{
		Gets:         r.count.gets.Load(),
		Hits:         r.count.hits.Load(),
		Misses:       r.count.misses.Load(),
		Corrupt:      r.count.corrupt.Load(),
		Failures:     r.count.failures.Load(),
		OverBudget:   r.count.overBudget.Load(),
		Skipped:      r.count.skipped.Load(),
		BreakerOpen:  r.breaker.isOpen(),
		Opened:       r.breaker.opened.Load(),
		Writes:       r.count.writes.Load(),
		BytesWritten: r.count.bytesWritten.Load(),
		Dropped:      r.count.dropped.read(),
		Queue:        queued,
	}
}
