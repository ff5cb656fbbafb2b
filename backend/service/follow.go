package service

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"walcache/proxy/changelog"
	"walcache/proxy/coherence"
)

// follower keeps a picture of what changed in the database, from the log that a
// proxy writes. It follows nothing itself: a service needs no right to replicate.
type follower struct {
	*coherence.Tracker
	log *changelog.Log
}

func newFollower(c Config) (*follower, error) {
	tracker := coherence.NewTracker(coherence.DefaultSlots, cmp.Or(c.MaxStaleness, 2*time.Second))
	log, err := changelog.Open(tracker, c.RedisURL, c.Prefix, c.Log)
	if err != nil {
		return nil, fmt.Errorf("follow the change log: %w", err)
	}
	return &follower{tracker, log}, nil
}

// run follows until ctx ends.
func (f *follower) run(ctx context.Context) error {
	return errors.Join(f.log.Run(ctx), f.log.Close())
}
