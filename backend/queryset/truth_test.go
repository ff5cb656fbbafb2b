package queryset

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"walcache/proxy/coherence"
)

func TestWatch_SaysOnceThatNothingIsProved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lockedBuffer
		tracker := coherence.NewTracker(1<<10, time.Minute)
		c := &cache{truth: tracker, log: slog.New(slog.NewTextHandler(&log, nil))}
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go c.watchTruth(ctx)
		said := func(after time.Duration, text string, want int) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			if n := strings.Count(log.String(), text); n != want {
				t.Errorf("%q is said %d times, want %d:\n%s", text, n, want, log.String())
			}
		}
		said(9*time.Second, "not cached", 0)
		said(time.Hour, "not cached", 1)
		tracker.Begin("k3f9", 1)
		tracker.Beat("k3f9", time.Now())
		said(2*time.Second, "cached again", 1)
		said(time.Hour, "not cached", 2)
	})
}

// lockedBuffer is a log to look into.
type lockedBuffer struct {
	mu   sync.Mutex // guards the following
	text strings.Builder
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
