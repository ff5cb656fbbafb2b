package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"

	"walcache/proxy/admin"
	"walcache/proxy/changelog"
	"walcache/proxy/coherence"
	"walcache/proxy/manage"
	"walcache/proxy/redisurl"
	"walcache/proxy/replication"
	"walcache/proxy/settings"
	"walcache/proxy/wire"
)

// follower is how a process comes to know of changes: from its own listener
// while that holds the slot, and otherwise from the change log.
type follower struct {
	tracker     *coherence.Tracker
	log         *changelog.Log
	listener    *replication.Listener    // nil where others listen
	witness     *replication.Witness     // nil without a database
	invalidator *replication.Invalidator // nil without a database
	database    string                   // for people, without a password
}

func newFollower(o options, log *slog.Logger) (*follower, error) {
	f := &follower{tracker: coherence.NewTracker(coherence.DefaultSlots, o.maxStaleness)}
	if o.redis.url == "" {
		f.log = changelog.New(f.tracker, log)
	} else {
		var err error
		if f.log, err = changelog.Open(f.tracker, o.redis.url, o.redis.prefix, log); err != nil {
			return nil, fmt.Errorf("--redis-url: %w", err)
		}
	}
	if o.databaseURL != "" {
		f.witness = replication.NewWitness(o.databaseURL)
		f.invalidator = replication.NewInvalidator(f.witness, log)
		f.database = databaseName(o.databaseURL)
	}
	if o.listener != nil {
		config := *o.listener
		config.Log, config.Cluster = log, f.log.Cluster
		f.listener = replication.New(config, f.log)
	}
	return f, nil
}

// databaseName is what a URL leads to, for people.
func databaseName(url string) string {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return "the database"
	}
	return fmt.Sprintf("%s:%d/%s", config.Host, config.Port, config.Database)
}

// catchUp is how a write's answer waits until this process knows of what it
// changed, or nil where nobody can be asked.
func (f *follower) catchUp() func(context.Context) error {
	switch {
	case f.listener != nil:
		return f.listener.CatchUp
	case f.witness != nil:
		return func(ctx context.Context) error { return f.witness.CatchUp(ctx, f.log.Wait) }
	}
	return nil
}

// announce is how a write's answer tells all processes what it has made stale, and
// waits as with catchUp; nil where they cannot be told.
func (f *follower) announce() func(context.Context, []coherence.Hash) error {
	if f.invalidator == nil {
		return nil
	}
	return func(ctx context.Context, moved []coherence.Hash) error {
		return f.invalidator.Invalidate(ctx, moved, f.log.Wait)
	}
}

// run follows until ctx ends. The listener stops first: what it said last is
// still to be logged.
func (f *follower) run(ctx context.Context) error {
	logging, stopLogging := context.WithCancel(context.WithoutCancel(ctx))
	var group errgroup.Group
	group.Go(func() error { return f.log.Run(logging) })
	err := f.listen(ctx)
	stopLogging()
	err = errors.Join(err, group.Wait(), f.log.Close())
	if f.invalidator != nil {
		f.invalidator.Close() // and the witness
	}
	return err
}

// listen runs the listener, and says where it could not start.
func (f *follower) listen(ctx context.Context) error {
	if f.listener == nil {
		<-ctx.Done()
		return nil
	}
	if err := f.listener.Run(ctx); err != nil {
		return fmt.Errorf("cannot follow %s: %w", f.database, err)
	}
	return nil
}

// sources are what the admin port reads of it.
func (f *follower) sources() admin.Sources {
	s := admin.Sources{Sources: manage.Sources{Tracker: f.tracker, Records: f.log, Listener: f.listener}}
	if f.witness != nil {
		s.Announcer = f.witness
	}
	return s
}

// listenCommand is `proxy listen`: a listener without a proxy.
func listenCommand(c *cli.Context) error {
	if c.Args().Present() {
		return usagef("listen takes no %q", c.Args().First())
	}
	o := options{maxStaleness: 2 * time.Second, coherent: true}
	var err error
	if o.redis, err = redisOptions(c); err != nil {
		return err
	}
	if o.redis.url == "" {
		return usagef("listen tells others what changed, and without Redis nobody hears it\n  try: --redis-url (REDIS_URL), as the proxies have it")
	}
	config, err := listenerConfig(c)
	if err != nil {
		return err
	}
	o.listener, o.databaseURL = &config, config.DatabaseURL
	if err := o.adminOptions(c); err != nil {
		return err
	}
	log, err := newLogger(c, settings.Usual(o.debug))
	if err != nil {
		return err
	}
	adminAt, err := listenOn("admin-addr", o.adminAddr)
	if err != nil {
		return err
	}
	return listenOnly(c.Context, o, adminAt, log)
}

func listenOnly(ctx context.Context, o options, adminAt net.Listener, log *slog.Logger) error {
	began := time.Now()
	f, err := newFollower(o, log)
	if err != nil {
		return errors.Join(err, adminAt.Close())
	}
	ops, err := newOperators(o, f.sources(), adminAt.Addr(), adminAt.Addr(), log)
	if err != nil {
		return errors.Join(err, adminAt.Close())
	}
	back := newServer(ops.admin, log.With("component", "admin"))
	log = log.With("component", "serve")
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return listenAndServe(back, adminAt, wire.Config{Counters: ops.refused}) })
	group.Go(func() error { return f.run(ctx) })
	group.Go(func() error { return ops.operate(ctx) })
	var stopping time.Time
	group.Go(func() error {
		<-ctx.Done()
		stopping = time.Now()
		ops.drain()
		return back.Close()
	})
	log.Info("listening", "admin", adminAt.Addr().String(), "database", f.database, "redis", redisurl.Address(o.redis.url),
		"pid", os.Getpid(), "took", time.Since(began))
	err = group.Wait()
	log.Info("stopped", "took", time.Since(stopping))
	return err
}
