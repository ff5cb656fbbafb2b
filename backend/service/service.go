// Package service builds the backend and runs it: the database pool, the HTTP
// server, and the order in which they start and stop. It also seeds the
// database. main runs it, and so does whoever wants the whole system in one
// process.
package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"walcache/backend/api"
	"walcache/backend/queryset"
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
	Log         *slog.Logger
}

// Run serves until ctx ends, then finishes the requests under way. It starts
// with the database away too: such requests get a 503 until it is back. It
// fails when the database URL is wrong or the listener breaks.
func Run(ctx context.Context, c Config) error {
	defer c.Listener.Close() // already closed, unless the start failed
	pool, err := open(c.DatabaseURL)
	if err != nil {
		return err
	}
	defer pool.Close()

	// Requests outlive ctx: they have until the drain's end.
	requests, abandon := context.WithCancel(context.WithoutCancel(ctx))
	defer abandon()
	server := newServer(requests, api.New(queryset.New(pool), c.Log), c.Log)

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		c.Log.Info("serving", "addr", c.Listener.Addr().String())
		if err := server.Serve(c.Listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve on %s: %w", c.Listener.Addr(), err)
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		return stop(server, drainTimeout, abandon, c.Log)
	})
	return g.Wait()
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

// open makes the pool, and connects to nothing yet.
func open(url string) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("read the database URL: %w", err)
	}
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
