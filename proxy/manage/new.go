package manage

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"walcache/proxy/redisurl"
)

// New makes a manager. It connects to nothing yet; the error is about the URL of
// Redis.
func New(c Config, s Sources) (*Manager, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.Log = c.Log.With("component", "manage")
	m := &Manager{Config: c, Sources: s}
	if c.RedisURL != "" {
		client, err := redisurl.Open(c.RedisURL, nil)
		if err != nil {
			return nil, fmt.Errorf("redis: %w", err)
		}
		m.redis = client
	}
	m.monitor = newMonitor(m.Config, m.Sources, m.redis)
	return m, nil
}

// Run does what goes on without being asked, until ctx ends. It returns once what
// was asked for and outlives its request has ended too.
func (m *Manager) Run(ctx context.Context) error {
	var sweeping sync.WaitGroup
	sweeping.Go(func() { m.sweep(ctx) })
	m.monitor.run(ctx)
	sweeping.Wait()
	m.settle()
	var err error
	if m.redis != nil {
		err = m.redis.Close()
	}
	m.freeing.ended.Wait()
	return err
}
