package api

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// outageEvery is how often an outage that lasts is logged again.
const outageEvery = 10 * time.Second

// outage logs that the database is away: once when it begins, then at a fixed
// rate with the number of requests that it cost, and once when it is over.
type outage struct {
	log *slog.Logger
	on  atomic.Bool // spares the lock while all is well

	mu     sync.Mutex // guards the following
	since  time.Time
	logged time.Time
	failed int
}

// add counts a request that failed.
func (o *outage) add(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	if !o.on.Swap(true) {
		o.since, o.logged, o.failed = now, time.Time{}, 0
	}
	o.failed++
	if now.Sub(o.logged) >= outageEvery {
		o.log.Error("database unavailable", "error", err, "failed", o.failed)
		o.logged = now
	}
}

// end notes that the database has answered.
func (o *outage) end() {
	if !o.on.Load() {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.on.Swap(false) {
		o.log.Info("database available again", "after", time.Since(o.since), "failed", o.failed)
	}
}
