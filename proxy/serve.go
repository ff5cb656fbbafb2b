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

	"github.com/jackc/pgx/v5"
	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"

	"walcache/proxy/admin"
	"walcache/proxy/cache"
	"walcache/proxy/coherence"
	"walcache/proxy/origin"
	"walcache/proxy/replication"
	"walcache/proxy/store"
)

// drainTimeout is how long requests under way may take to finish once the proxy
// stops; then they are cut off.
const drainTimeout = 10 * time.Second

// options are what a proxy is told.
type options struct {
	addr, adminAddr string
	admin           admin.Config
	memory          int64
	maxStaleness    time.Duration
	cache           cache.Config
	origin          origin.Config
	listener        *replication.Config // nil without coherence

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
	proxyAt, err := listenOn("addr", o.addr)
	if err != nil {
		return err
	}
	adminAt, err := listenOn("admin-addr", o.adminAddr)
	if err != nil {
		return errors.Join(err, proxyAt.Close())
	}
	log := slog.New(slog.NewTextHandler(c.App.ErrWriter, nil))
	slog.SetDefault(log)
	return serve(c.Context, o, proxyAt, adminAt, log)
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
	options  options
	memory   *store.Memory
	cache    *cache.Cache
	tracker  *coherence.Tracker    // nil without coherence
	listener *replication.Listener // nil without coherence
	admin    *admin.Server
}

func build(o options, adminAt net.Addr, log *slog.Logger) (p proxy, err error) {
	p.options = o
	if p.memory, err = store.NewMemory(uint64(o.memory)); err != nil {
		return p, fmt.Errorf("--memory: %w", err)
	}
	o.cache.Store, o.cache.Truth = p.memory, cache.Unwatched{}
	if o.listener != nil {
		p.tracker = coherence.NewTracker(coherence.DefaultSlots, o.maxStaleness)
		o.listener.Log = log
		p.listener = replication.New(*o.listener, p.tracker)
		o.cache.Truth, o.cache.CatchUp = p.tracker, p.listener.CatchUp
		if o.wrap != nil {
			o.cache.Truth = o.wrap(p.tracker)
		}
	}
	if o.cache.Origin, err = origin.New(o.origin); err != nil {
		return p, err
	}
	if p.cache, err = cache.New(o.cache); err != nil {
		return p, err
	}
	o.admin.Addr = adminAt
	p.admin = admin.New(o.admin, admin.Sources{Tracker: p.tracker, Listener: p.listener, Cache: p.cache, Memory: p.memory})
	return p, nil
}

// serve builds a proxy and runs it until ctx ends.
func serve(ctx context.Context, o options, proxyAt, adminAt net.Listener, log *slog.Logger) error {
	p, err := build(o, adminAt.Addr(), log)
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
	front, back := newServer(p.cache, log), newServer(p.admin, log)
	following, stopFollowing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopFollowing()

	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return listenAndServe(front, proxyAt) })
	group.Go(func() error { return listenAndServe(back, adminAt) })
	if p.listener != nil {
		group.Go(func() error { return follow(following, p.listener, p.options.listener.DatabaseURL) })
	}
	log.Info("serving", "addr", proxyAt.Addr().String(), "admin", adminAt.Addr().String(), "upstream", p.options.origin.Upstream, "pid", os.Getpid())
	group.Go(func() error {
		<-ctx.Done()
		began := time.Now()
		p.admin.Drain()
		err := drain(front, log)
		stopFollowing()
		log.Info("stopped", "took", time.Since(began))
		return errors.Join(err, back.Close())
	})
	return group.Wait()
}

func newServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		// Longer than what usually stands before a proxy keeps idle connections,
		// so that it is not we who close one as a request arrives on it.
		IdleTimeout:    120 * time.Second,
		MaxHeaderBytes: 64 << 10,
		// OPTIONS * is the service's to answer, like any other.
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

func listenAndServe(s *http.Server, at net.Listener) error {
	if err := s.Serve(at); !errors.Is(err, http.ErrServerClosed) {
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

// follow runs the listener, and says where it could not start.
func follow(ctx context.Context, l *replication.Listener, databaseURL string) error {
	err := l.Run(ctx)
	if config, parseErr := pgx.ParseConfig(databaseURL); err != nil && parseErr == nil {
		return fmt.Errorf("cannot follow %s:%d/%s: %w", config.Host, config.Port, config.Database, err)
	}
	return err
}

// uninstallCommand is `proxy uninstall`.
func uninstallCommand(c *cli.Context) error {
	if c.Args().Present() {
		return usagef("uninstall takes no %q", c.Args().First())
	}
	config, err := databaseConfig(c)
	if err != nil {
		return err
	}
	statements, err := replication.Uninstall(c.Context, config, c.Bool("dry-run"))
	if err != nil {
		return err
	}
	for _, sql := range statements {
		fmt.Fprintln(c.App.Writer, sql+";")
	}
	if len(statements) == 0 {
		fmt.Fprintln(c.App.Writer, "nothing of this proxy is in the database")
	}
	return nil
}
