package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"

	"walcache/proxy/accesslog"
	"walcache/proxy/admin"
	"walcache/proxy/cache"
	"walcache/proxy/coherence"
	"walcache/proxy/origin"
	"walcache/proxy/redisurl"
	"walcache/proxy/replication"
	"walcache/proxy/settings"
	"walcache/proxy/store"
	"walcache/proxy/wire"
)

// drainTimeout is how long requests under way may take to finish once the proxy
// stops; then they are cut off.
const drainTimeout = 10 * time.Second

// options are what a proxy is told.
type options struct {
	addr, adminAddr string
	tls             *certificate // nil without TLS
	admin           admin.Config
	memory          int64
	maxStaleness    time.Duration
	cache           cache.Config
	accessLog       accesslog.Config // of no file: there is none
	origin          origin.Config
	redis           redisConfig
	manage          manageOptions
	coherent        bool                // it follows the database, itself or through others
	databaseURL     string              // "" where only others know
	listener        *replication.Config // nil where others listen
	debug           bool

	// wrap replaces what the cache believes of the database, for tests that
	// break it; nil leaves it.
	wrap func(*coherence.Tracker) cache.Truth
}

// serveCommand is `proxy serve`.
func serveCommand(c *cli.Context) error {
	o, err := serveOptions(c)
	if err != nil {
		return err
	}
	log, err := newLogger(c, settings.Usual(o.debug))
	if err != nil {
		return err
	}
	proxyAt, err := listenOn("addr", o.addr)
	if err != nil {
		return err
	}
	adminAt, err := listenOn("admin-addr", o.adminAddr)
	if err != nil {
		return errors.Join(err, proxyAt.Close())
	}
	return serve(c.Context, o, proxyAt, adminAt, log)
}

// newLogger makes the logger of a command, which its Redis clients have too.
func newLogger(c *cli.Context, usual slog.Level) (*slog.Logger, error) {
	log, err := settings.NewLogger(c, usual)
	if err == nil {
		redisurl.LogTo(log.With("component", "redis"))
	}
	return log, err
}

// listenOn opens the port that a flag gives.
func listenOn(flag, addr string) (net.Listener, error) {
	if addr == "" { // which net.Listen would take for any port
		return nil, usagef("--%s is empty", flag)
	}
	at, err := net.Listen("tcp", addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("--%s: %s is in use\n  try: stop what listens there, or give another address", flag, addr)
	case errors.As(err, new(*net.AddrError)):
		return nil, usageError{fmt.Errorf("--%s: %w", flag, err)}
	case err != nil:
		return nil, fmt.Errorf("--%s: %w", flag, err)
	}
	return at, nil
}

// proxy is the parts of a proxy, wired.
type proxy struct {
	*follower // nil without coherence
	operators
	options options
	began   time.Time
	memory  *store.Memory
	pages   *store.Redis // nil without Redis
	cache   *cache.Cache
	access  *accesslog.Log // nil if there is none
}

func build(o options, proxyAt, adminAt net.Addr, log *slog.Logger) (p proxy, err error) {
	p.options, p.began = o, time.Now()
	if p.memory, err = store.NewMemory(uint64(o.memory)); err != nil {
		return p, fmt.Errorf("--memory: %w", err)
	}
	o.cache.Store, o.cache.Truth = p.memory, cache.NewUnwatched()
	var sources admin.Sources
	if o.coherent {
		if p.follower, err = newFollower(o, log); err != nil {
			return p, err
		}
		sources = p.sources()
		o.cache.Truth, o.cache.CatchUp, o.cache.Announce = p.tracker, p.catchUp(), p.announce()
		if o.wrap != nil {
			o.cache.Truth = o.wrap(p.tracker)
		}
	}
	if o.redis.url != "" {
		if p.pages, err = store.NewRedis(store.RedisConfig{URL: o.redis.url, Prefix: o.redis.prefix, MaxObject: o.cache.MaxObject, Log: log}); err != nil {
			return p, fmt.Errorf("--redis-url: %w", err)
		}
		o.cache.Below = p.pages
	}
	if o.accessLog.File != "" {
		o.accessLog.Log = log.With("component", "serve")
		if p.access, err = accesslog.Open(o.accessLog); err != nil {
			return p, fmt.Errorf("--access-log: %w", err)
		}
	}
	o.origin.Log, o.cache.Log, o.cache.Token = log, log, o.admin.Token
	if o.cache.Origin, err = origin.New(o.origin); err != nil {
		return p, err
	}
	if p.cache, err = cache.New(o.cache); err != nil {
		return p, err
	}
	sources.Cache, sources.Memory, sources.Pages = p.cache, p.memory, p.pages
	p.operators, err = newOperators(o, sources, proxyAt, adminAt, log)
	return p, err
}

// serve builds a proxy and runs it until ctx ends.
func serve(ctx context.Context, o options, proxyAt, adminAt net.Listener, log *slog.Logger) error {
	p, err := build(o, proxyAt.Addr(), adminAt.Addr(), log)
	if err != nil {
		return errors.Join(err, proxyAt.Close(), adminAt.Close())
	}
	return p.serve(ctx, proxyAt, adminAt, log)
}

// serve answers until ctx ends, and then stops in order: /readyz says no,
// requests under way finish, and only then does the listener stop, so that the
// last answers are as fresh as the first.
func (p *proxy) serve(ctx context.Context, proxyAt, adminAt net.Listener, log *slog.Logger) error {
	defer p.memory.Close()
	if p.pages != nil {
		defer func() { _ = p.pages.Close() }()
	}
	front, back := newServer(p.front(), log.With("component", "serve")), newServer(p.admin, log.With("component", "admin"))
	log = log.With("component", "serve")
	following, stopFollowing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopFollowing()

	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return listenAndServe(front, proxyAt, p.reading()) })
	group.Go(func() error { return listenAndServe(back, adminAt, wire.Config{Counters: p.refused}) })
	group.Go(func() error { return p.cache.Keep(following) })
	group.Go(func() error { return p.operate(following) })
	if p.follower != nil {
		group.Go(func() error { return p.run(following) })
	}
	if p.options.tls != nil {
		group.Go(func() error { return p.options.tls.keep(following, log) })
	}
	if p.access != nil {
		group.Go(keepsAccessLog(following, p.access, log))
	}
	log.Info("serving", "addr", proxyAt.Addr().String(), "admin", adminAt.Addr().String(), "upstream", p.options.origin.Upstream,
		"database", p.databaseName(), "redis", redisurl.Address(p.options.redis.url), "pid", os.Getpid(), "took", time.Since(p.began))
	group.Go(func() error {
		<-ctx.Done()
		began := time.Now()
		p.operators.drain()
		err := drain(front, log)
		stopFollowing()
		log.Info("stopped", "took", time.Since(began))
		return errors.Join(err, back.Close())
	})
	return group.Wait()
}

// databaseName is what the proxy follows, for people, or "".
func (p *proxy) databaseName() string {
	if p.follower == nil {
		return ""
	}
	return p.follower.database
}

func newServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		// Longer than what usually stands before a proxy keeps idle connections,
		// so that it is not we who close one as a request arrives on it.
		IdleTimeout: 120 * time.Second,
		// OPTIONS * is the service's to answer, like any other.
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// reading is how requests are read on the proxy's port.
func (p *proxy) reading() wire.Config {
	c := wire.Config{Counters: p.refused, Hits: p.hits()}
	if p.options.tls != nil {
		c.Certificate = p.options.tls.get
	}
	return c
}

func listenAndServe(s *http.Server, at net.Listener, c wire.Config) error {
	if err := wire.Serve(s, at, c); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve on %s: %w", at.Addr(), err)
	}
	return nil
}

func drain(s *http.Server, log *slog.Logger) error {
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		log.Warn("requests cut off", "after", drainTimeout)
		return s.Close()
	}
	return nil
}
