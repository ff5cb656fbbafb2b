// Package service builds the backend and runs it: the database pool, the HTTP
// server, and the order in which they start and stop. It also seeds the
// database. main runs it, and so does whoever wants the whole system in one
// process.
package service

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"walcache/backend/api"
	"walcache/backend/edit"
	"walcache/backend/panel"
	"walcache/backend/queryset"
	"walcache/backend/trouble"
	"walcache/proxy/redisurl"
)

// drainTimeout is how long requests under way may take to finish once the
// service stops; then they are cut off.
const drainTimeout = 10 * time.Second

// Config is what a service needs to run.
type Config struct {
	// Listener is where the service answers. Connections queue in it from the
	// moment it exists, so whoever made it knows the address and may use it
	// at once. Run closes it.
	Listener net.Listener
	// DatabaseURL names the database, migrated or to be. The pool's size and
	// the like are set in it (pool_max_conns; pgxpool.ParseConfig).
	DatabaseURL string
	// RedisURL is where proxies keep their log of changes, and this service its
	// querysets and sessions. Without it nothing is cached, and who is logged in
	// is known to this process alone.
	RedisURL string
	// SessionRedisURL is where sessions are instead; "" is RedisURL.
	SessionRedisURL string
	// Prefix is what all keys in Redis begin with, as the proxies have it.
	Prefix string
	// NoCache reads every queryset from the database.
	NoCache bool
	// APIToken lets programs write; without it nobody may by a token.
	APIToken string
	// SecretKey is what sessions are made safe with: at least 32 characters that
	// nobody else knows, the same on all processes.
	SecretKey string
	// TrustedProxies are the peers that the panel believes about clients; nil is
	// this machine and private networks.
	TrustedProxies []netip.Prefix
	// MaxStaleness is how old the evidence may be by which a queryset is called
	// fresh, as the proxies have it; 0 is theirs by default, 2 s.
	MaxStaleness time.Duration
	// Release names what answers look like; another makes older ones stale. ""
	// is the build's.
	Release string
	Log     *slog.Logger
}

// parts are what a service is built from.
type parts struct {
	pool     *pgxpool.Pool
	redis    redis.UniversalClient // nil without Redis
	sessions redis.UniversalClient // likewise; may be the same
	query    *queryset.Querier
	follower *follower // nil where no queryset is cached
	release  *release
	handler  http.Handler
}

func build(c Config) (p *parts, err error) {
	p = new(parts)
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	if c.Release == "" {
		if c.Release, err = buildID(); err != nil {
			return p, fmt.Errorf("name this build: %w", err)
		}
	}
	if p.pool, err = open(c.DatabaseURL, connectionName(c.Release)); err != nil {
		return p, err
	}
	direct := queryset.New(p.pool)
	p.query, p.release = direct, &release{name: c.Release, pool: p.pool}
	if c.RedisURL != "" {
		if p.redis, err = redisurl.Open(c.RedisURL, nil); err != nil {
			return p, err
		}
		if err = p.follow(c); err != nil {
			return p, err
		}
	}
	if p.sessions = p.redis; c.SessionRedisURL != "" {
		if p.sessions, err = redisurl.Open(c.SessionRedisURL, nil); err != nil {
			return p, err
		}
	}
	outage := trouble.NewOutage("database", c.Log.With("component", "service"))
	people, err := panel.New(panel.Config{
		Pool: p.pool, Redis: p.sessions, Prefix: c.Prefix, SecretKey: c.SecretKey, TrustedProxies: c.TrustedProxies, Outage: outage, Log: c.Log,
	})
	if err != nil {
		return p, err
	}
	programs, err := api.New(api.Config{
		Query: p.query, Direct: direct, Edit: edit.New(p.pool), Token: c.APIToken, User: people.User, WrongToken: people.WrongToken,
		Release: p.release.name, Current: p.release.isNewest, Outage: outage, Log: c.Log,
	})
	if err != nil {
		return p, err
	}
	p.handler = route(programs, people)
	return p, nil
}

// follow has querysets cached, unless that is switched off.
func (p *parts) follow(c Config) (err error) {
	if c.NoCache {
		return nil
	}
	if p.follower, err = newFollower(c); err != nil {
		return err
	}
	p.release.truth = p.follower.Tracker
	p.query = queryset.NewCached(p.pool, queryset.Config{Client: p.redis, Prefix: c.Prefix, Truth: p.follower, Log: c.Log})
	return nil
}

// route gives the panel what is below /admin, and the API all else, without
// looking at the path in any other way.
func route(programs, people http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/admin" || strings.HasPrefix(r.URL.Path, "/admin/") {
			people.ServeHTTP(w, r)
			return
		}
		programs.ServeHTTP(w, r)
	})
}

func (p *parts) close() {
	for _, client := range []redis.UniversalClient{p.redis, p.sessions} {
		if client != nil {
			_ = client.Close() // the second time it is closed already
		}
	}
	if p.pool != nil {
		p.pool.Close()
	}
}

// Run serves until ctx ends, then finishes the requests under way. It starts
// with the database or Redis away too: such requests get a 503, or are answered
// without a cache, until they are back. It fails when a URL is wrong or the
// listener breaks.
func Run(ctx context.Context, c Config) error {
	began, log := time.Now(), c.Log.With("component", "service")
	defer c.Listener.Close() // already closed, unless the start failed
	p, err := build(c)
	if err != nil {
		return err
	}
	defer p.close()

	// Requests outlive ctx: they have until the drain's end.
	requests, abandon := context.WithCancel(context.WithoutCancel(ctx))
	defer abandon()
	server := newServer(requests, p.handler, log)

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		log.Info("serving", "addr", c.Listener.Addr().String(), "database", p.databaseName(), "redis", redisurl.Address(c.RedisURL),
			"sessions", redisurl.Address(cmp.Or(c.SessionRedisURL, c.RedisURL)), "cached", p.follower != nil, "release", p.release.name, "took", time.Since(began))
		if err := server.Serve(c.Listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve on %s: %w", c.Listener.Addr(), err)
		}
		return nil
	})
	g.Go(func() error { return p.release.run(ctx, c.Log.With("component", "release")) })
	if p.follower != nil {
		g.Go(func() error { return p.follower.run(ctx) })
		g.Go(func() error { return p.query.Run(ctx) })
	}
	g.Go(func() error {
		<-ctx.Done()
		return stop(server, drainTimeout, abandon, log)
	})
	return g.Wait()
}

// databaseName is what the service reads, for people: without user and password.
func (p *parts) databaseName() string {
	c := p.pool.Config().ConnConfig
	return fmt.Sprintf("%s:%d/%s", c.Host, c.Port, c.Database)
}

func newServer(requests context.Context, h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      60 * time.Second,
		// Longer than a client keeps idle connections, so that the one to
		// close them is the client: it cannot send into a closing one then.
		IdleTimeout:    2 * time.Minute,
		MaxHeaderBytes: 64 << 10,
		BaseContext:    func(net.Listener) context.Context { return requests },
		ErrorLog:       slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
}

// stop lets the requests under way finish, and abandons those that have not
// within the limit.
func stop(server *http.Server, limit time.Duration, abandon func(), log *slog.Logger) error {
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	err := server.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		log.Warn("requests cut off", "after", limit)
		abandon()
		err = server.Close()
	}
	if err != nil {
		return fmt.Errorf("stop serving: %w", err)
	}
	log.Info("stopped", "took", time.Since(began))
	return nil
}

// open makes the pool, and connects to nothing yet. name is what its connections
// are called.
func open(url, name string) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("read the database URL: %w", err)
	}
	config.ConnConfig.RuntimeParams["application_name"] = name
	if config.ConnConfig.ConnectTimeout == 0 {
		config.ConnConfig.ConnectTimeout = 5 * time.Second
	}
	// When a request ends early its query is cancelled and the connection
	// kept. The driver would close it, and a burst of impatient clients would
	// cost a burst of new connections.
	config.ConnConfig.BuildContextWatcherHandler = func(conn *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.CancelRequestContextWatcherHandler{Conn: conn, DeadlineDelay: time.Second}
	}
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		return nil, fmt.Errorf("open the database pool: %w", err)
	}
	return pool, nil
}
