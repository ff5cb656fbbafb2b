package trouble

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// LogEvery is how often what lasts is logged again.
const LogEvery = 10 * time.Second

// Outage logs that something is away: once when that begins, then at a fixed rate
// with the number of requests that it has cost, and once when it is over. All who
// ask the same share one. It may be used concurrently.
type Outage struct {
	what string
	log  *slog.Logger
	on   atomic.Bool // spares the lock while all is well

	mu     sync.Mutex // guards the following
	since  time.Time
	logged time.Time
	failed int
}

// NewOutage returns the log of what may be away: "database" or "redis".
func NewOutage(what string, log *slog.Logger) *Outage { return &Outage{what: what, log: log} }

// Add counts a request that failed, unless its client has left, which its context
// tells: then it has cancelled what it asked for, and nothing is away.
func (o *Outage) Add(request context.Context, err error) {
	if errors.Is(request.Err(), context.Canceled) {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	if !o.on.Swap(true) {
		o.since, o.logged, o.failed = now, time.Time{}, 0
	}
	o.failed++
	if now.Sub(o.logged) >= LogEvery {
		o.log.Error(o.what+" unavailable", "error", err, "failed", o.failed)
		o.logged = now
	}
}

// End notes that it has answered.
func (o *Outage) End() {
	if !o.on.Load() {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.on.Swap(false) {
		o.log.Info(o.what+" available again", "after", time.Since(o.since), "failed", o.failed)
	}
}
