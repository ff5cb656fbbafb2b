package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"
)

// PostgresConfig says how to run a PostgreSQL server.
type PostgresConfig struct {
	// Dir is where everything of the server lives. It is made if missing; a
	// cluster that an earlier server left there is used again.
	Dir string
	// Port on 127.0.0.1; 0 picks a free one.
	Port int
	// Settings of the server, over those that the package chooses.
	Settings map[string]string
	// BinDir holds the programs initdb and postgres; empty finds the newest.
	BinDir string
	// Database is created if missing; empty means "postgres", which always is.
	Database string
}

// Postgres is a private PostgreSQL server. Its methods may be called from
// several goroutines.
type Postgres struct {
	server
	config   PostgresConfig
	binaries binaries
	password string
}

// StartPostgres starts a server and returns once it takes connections. ctx
// bounds the start, not the life of the server.
func StartPostgres(ctx context.Context, config PostgresConfig) (*Postgres, error) {
	if config.Database == "" {
		config.Database = "postgres"
	}
	as, err := chooseAccount(config.Dir)
	if err != nil {
		return nil, err
	}
	dir, err := prepareDir(config.Dir, as)
	if err != nil {
		return nil, err
	}
	p := newPostgres(dir, as, config)
	if p.password, err = loadPassword(filepath.Join(dir, "password"), as); err != nil {
		return nil, err
	}
	if p.binaries, err = p.chooseBinaries(ctx); err != nil {
		return nil, err
	}
	if err := startOnPort(config.Port, func(port int) error { return p.startOn(ctx, port) }); err != nil {
		return nil, err
	}
	if err := p.createDatabase(ctx); err != nil {
		return nil, errors.Join(err, p.Kill())
	}
	return p, nil
}

func newPostgres(dir string, as *account, config PostgresConfig) *Postgres {
	p := &Postgres{config: config, server: server{
		program: "postgres",
		dir:     dir,
		work:    filepath.Join(dir, "data"),
		log:     serverLog(filepath.Join(dir, "postgres.log")),
		as:      as,
		// Fast shutdown: ends sessions, then writes a checkpoint.
		shutdown: syscall.SIGINT,
		// Immediate shutdown: nobody is left to wait for a fast one, which takes
		// as long as its checkpoint and as replication clients that stand still.
		// The next start recovers. SIGKILL would end the postmaster alone, and
		// a backend in a long query notices that only when it is done.
		orphaned: syscall.SIGQUIT,
	}}
	p.prepare, p.ready = p.prepareCluster, p.takesConnections
	return p
}

// chooseBinaries finds the programs for the cluster, whose version binds us if
// there is one already, or fetches some if this machine has none.
func (p *Postgres) chooseBinaries(ctx context.Context) (binaries, error) {
	major := 0
	version, err := os.ReadFile(filepath.Join(p.work, "PG_VERSION"))
	if err == nil {
		major, err = strconv.Atoi(strings.TrimSpace(string(version)))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return binaries{}, fmt.Errorf("read version of %s: %w", p.work, err)
	}
	found, err := findBinaries(p.config.BinDir, major, p.as)
	if errors.Is(err, errNoPostgres) && p.config.BinDir == "" {
		found, fetchErr := fetchBinaries(ctx, filepath.Join(p.dir, "programs"), major, p.as)
		if fetchErr != nil {
			return binaries{}, fmt.Errorf("%w\n  fetching them failed too: %w", err, fetchErr)
		}
		return found, nil
	}
	return found, err
}

// Program is the path of one of PostgreSQL's programs beside the server's.
func (p *Postgres) Program(name string) string { return p.binaries.program(name) }

// Crash ends the server as a power failure would (immediate shutdown): what was
// not flushed is lost, and the next start recovers from the WAL.
func (p *Postgres) Crash(ctx context.Context) error { return p.stop(ctx, syscall.SIGQUIT) }

// Reload makes the server read its configuration files again.
func (p *Postgres) Reload() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.process == nil {
		return errors.New("reload postgres: it is stopped")
	}
	if err := p.process.signal(syscall.SIGHUP); err != nil {
		return fmt.Errorf("reload postgres: %w", err)
	}
	return nil
}

// DSN returns the URL of a database for the superuser, password included;
// empty means the configured database.
func (p *Postgres) DSN(database string) string {
	if database == "" {
		database = p.config.Database
	}
	u := url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword(superuser, p.password),
		Host:     net.JoinHostPort("127.0.0.1", strconv.Itoa(p.Port())),
		Path:     "/" + database,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

func (p *Postgres) prepareCluster(ctx context.Context, lock *os.File) (*exec.Cmd, error) {
	_, err := os.Stat(p.work)
	if errors.Is(err, fs.ErrNotExist) {
		err = p.createCluster(ctx, lock)
	}
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	if err := p.removeStalePID(); err != nil {
		return nil, err
	}
	config, err := p.writeSettings()
	if err != nil {
		return nil, err
	}
	return p.as.command(p.binaries.program("postgres"), "-D", p.work, "-c", "config_file="+config), nil
}

// takesConnections asks the postmaster's own file, whose first line is its pid
// and whose last its status; recovery after a crash comes before "ready".
func (p *Postgres) takesConnections(context.Context) bool {
	text, err := os.ReadFile(filepath.Join(p.work, "postmaster.pid"))
	if err != nil {
		return false // not written yet
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return lines[0] == strconv.Itoa(p.process.pid()) && strings.TrimSpace(lines[len(lines)-1]) == "ready"
}

// removeStalePID removes the postmaster.pid of a server that was killed:
// PostgreSQL believes it if the pid belongs to another process by now. We hold
// the lock, so only a server that somebody else started can be alive there.
func (p *Postgres) removeStalePID() error {
	processes, err := serverProcesses(p.program, p.work)
	if err != nil {
		return err
	}
	if len(processes) > 0 {
		return p.occupied()
	}
	err = os.Remove(filepath.Join(p.work, "postmaster.pid"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove stale pid file: %w", err)
	}
	return nil
}

func (p *Postgres) createDatabase(ctx context.Context) error {
	if p.config.Database == "postgres" {
		return nil
	}
	conn, err := pgx.Connect(ctx, p.DSN("postgres"))
	if err != nil {
		return fmt.Errorf("create database %q: %w", p.config.Database, err)
	}
	defer conn.Close(ctx)
	var exists bool
	const query = `SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)`
	err = conn.QueryRow(ctx, query, p.config.Database).Scan(&exists)
	if err == nil && !exists {
		_, err = conn.Exec(ctx, `CREATE DATABASE `+pgx.Identifier{p.config.Database}.Sanitize())
	}
	if err != nil {
		return fmt.Errorf("create database %q: %w", p.config.Database, err)
	}
	return nil
}
