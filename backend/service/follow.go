package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"walcache/proxy/changelog"
	"walcache/proxy/coherence"
)

// maxStaleness is how old the evidence may be by which a queryset is called
// fresh, as the proxies have it.
const maxStaleness = 2 * time.Second

// follower keeps a picture of what changed in the database, from the log that a
// proxy writes. It follows nothing itself: a service needs no right to replicate.
type follower struct {
	*coherence.Tracker
	log  *changelog.Log
	tell *slog.Logger
}

func newFollower(redisURL, prefix string, log *slog.Logger) (*follower, error) {
	tracker := coherence.NewTracker(coherence.DefaultSlots, maxStaleness)
	changes, err := changelog.Open(tracker, redisURL, prefix, log)
	if err != nil {
		return nil, fmt.Errorf("follow the change log: %w", err)
	}
	return &follower{tracker, changes, log}, nil
}

// run follows until ctx ends.
func (f *follower) run(ctx context.Context) error {
	var group errgroup.Group
	group.Go(func() error { return f.log.Run(ctx) })
	group.Go(func() error { f.watch(ctx); return nil })
	return errors.Join(group.Wait(), f.log.Close())
}

// unheardAfter is how long nothing is proven before that is worth a line: longer
// than a start, or a change of leader, takes.
const unheardAfter = 10 * time.Second

// watch says once that nothing is proven fresh, and once that it is again.
func (f *follower) watch(ctx context.Context) {
	every := time.NewTicker(time.Second)
	defer every.Stop()
	heard, told := time.Now(), false
	for {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		}
		vouches := f.Vouches(time.Now())
		if vouches {
			heard = time.Now()
		}
		switch {
		case vouches && told:
			told = false
			f.tell.Info("querysets are cached again")
		case !vouches && !told && time.Since(heard) > unheardAfter:
			told = true
			f.tell.Warn("querysets are not cached: nobody tells what changes in the database",
				"try", "proxy serve, or proxy listen, with the same --redis-url and --prefix as this service")
		}
	}
}
