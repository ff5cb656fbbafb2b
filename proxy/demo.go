package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"

	"walcache/backend/panel/users"
	"walcache/backend/service"
	"walcache/proxy/replication"
	"walcache/proxy/sandbox"
	"walcache/proxy/settings"
	"walcache/schema"
)

func demoFlags() []cli.Flag {
	return append(cacheFlags(),
		&cli.StringFlag{Name: "addr", Category: whereCategory, Value: "127.0.0.1:8001", Usage: "`HOST:PORT` of the proxy; port 0 picks a free one, here and below"},
		&cli.StringFlag{Name: "backend-addr", Category: whereCategory, Value: "127.0.0.1:8002", Usage: "`HOST:PORT` of the data service"},
		&cli.StringFlag{Name: "admin-addr", Category: whereCategory, Value: "127.0.0.1:8003", Usage: "`HOST:PORT` of the admin port"},
		&cli.IntFlag{Name: "rows", Usage: "fill the database with `N` properties instead of the five samples"},
		&cli.StringFlag{Name: "data-dir", Usage: "keep the data in `DIR`, instead of a temporary directory that goes with the demo"},
		&cli.StringFlag{Name: "write-env", Usage: "write the addresses and secrets to `FILE` once everything answers"},
		&cli.BoolFlag{Name: "verbose", Usage: "log what the parts do"},
		settings.LogFlag(""),
	)
}

// demo is the whole system in one process, on servers of its own.
type demo struct {
	options
	rows                        int
	shown                       int64 // id of the property in the commands to paste
	proxyAt, backendAt, adminAt net.Listener
	postgres                    *sandbox.Postgres
	redis                       sandbox.RedisServer
	redisKind                   string
	apiToken, password          string // of programs, and of the user of the panel
	out, progress               io.Writer
	log                         *slog.Logger
}

const (
	demoDatabase = "property_listings"
	demoPrefix   = "wc:"
	demoUser     = "admin"
)

// demoCommand is `proxy demo`. Whatever the environment says of databases and
// services means nothing to it: a demo must not touch anything real.
func demoCommand(c *cli.Context) (err error) {
	if c.Args().Present() {
		return usagef("demo takes no %q", c.Args().First())
	}
	o, err := cacheOptions(c)
	if err != nil {
		return err
	}
	level := slog.LevelWarn
	if c.Bool("verbose") {
		level = slog.LevelInfo
	}
	log, err := newLogger(c, level)
	if err != nil {
		return err
	}
	d := &demo{options: o, rows: c.Int("rows"), out: c.App.Writer, progress: c.App.ErrWriter, apiToken: rand.Text(), log: log}
	d.admin.Token = rand.Text()
	if dir := filepath.Dir(c.String("write-env")); !isDir(dir) {
		return usagef("--write-env: %s is no directory", dir)
	}
	if d.rows < 0 {
		return usagef("--rows is negative")
	}
	for _, name := range []string{"DATABASE_URL", "REDIS_URL", "UPSTREAM"} {
		if os.Getenv(name) != "" {
			fmt.Fprintf(d.progress, "%s is set and not used: the demo has servers of its own\n", name)
		}
	}
	// The ports first: a taken one is known before anything has started.
	if err := d.listen(c.String("addr"), c.String("backend-addr"), c.String("admin-addr")); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(c.Context)
	defer cancel()
	go stopWithParent(ctx, cancel)
	dir, remove, err := demoDir(c.String("data-dir"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	return d.run(ctx, dir, c.String("write-env"))
}

func (d *demo) listen(proxy, backend, admin string) error {
	for _, l := range []struct {
		at         *net.Listener
		flag, addr string
	}{{&d.proxyAt, "addr", proxy}, {&d.backendAt, "backend-addr", backend}, {&d.adminAt, "admin-addr", admin}} {
		at, err := listenOn(l.flag, l.addr)
		if err != nil {
			return err
		}
		*l.at = at
	}
	return nil
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// stopWithParent ends the demo when its parent is gone: `go run` dies of a
// SIGTERM without passing it on.
func stopWithParent(ctx context.Context, stop context.CancelFunc) {
	parent := os.Getppid()
	for os.Getppid() == parent {
		select {
		case <-ctx.Done():
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
	stop()
}

func demoDir(dir string) (string, func() error, error) {
	if dir == "" {
		return sandbox.TempDir("walcache-demo-*")
	}
	dir, err := filepath.Abs(dir)
	return dir, func() error { return nil }, err
}

// run starts the servers and the parts, says how to use them, and returns when
// ctx has ended and all of them have.
func (d *demo) run(ctx context.Context, dir, envFile string) (err error) {
	began := time.Now()
	stop, err := d.startServers(ctx, dir)
	defer func() { err = errors.Join(err, stop()) }()
	if err != nil {
		return quiet(ctx, err)
	}
	if err := d.fill(ctx); err != nil {
		return quiet(ctx, err)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		return service.Run(ctx, service.Config{
			Listener: d.backendAt, DatabaseURL: d.postgres.DSN(demoDatabase), RedisURL: d.redis.URL(), Prefix: demoPrefix,
			APIToken: d.apiToken, SecretKey: rand.Text() + rand.Text(), Log: d.log,
		})
	})
	group.Go(func() error { return serve(ctx, d.proxyOptions(), d.proxyAt, d.adminAt, d.log) })
	group.Go(func() error {
		if err := d.awaitHit(ctx); err != nil {
			return quiet(ctx, err)
		}
		if envFile != "" {
			if err := d.writeEnv(envFile); err != nil {
				return err
			}
		}
		d.welcome(time.Since(began))
		return nil
	})
	return group.Wait()
}

// quiet takes an interrupted start for what it is: no failure.
func quiet(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// startServers returns how to stop those that it has started, also when it
// fails.
func (d *demo) startServers(ctx context.Context, dir string) (stop func() error, err error) {
	var stops []func(context.Context) error
	stop = func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		var errs []error
		for _, stop := range stops {
			errs = append(errs, stop(ctx))
		}
		return errors.Join(errs...)
	}
	fmt.Fprintln(d.progress, "starting PostgreSQL and Redis ...")
	d.postgres, err = sandbox.StartPostgres(ctx, sandbox.PostgresConfig{Dir: filepath.Join(dir, "postgres"), Database: demoDatabase})
	if err != nil {
		return stop, fmt.Errorf("start PostgreSQL: %w", err)
	}
	stops = append(stops, d.postgres.Stop)
	d.redis, d.redisKind, err = sandbox.StartAnyRedis(ctx, sandbox.RedisConfig{Dir: filepath.Join(dir, "redis"), MaxMemory: 256 << 20})
	if err != nil {
		return stop, fmt.Errorf("start Redis: %w", err)
	}
	stops = append(stops, d.redis.Stop)
	return stop, nil
}

// fill migrates the database, puts rows into it unless it has some, and picks
// the row to show.
func (d *demo) fill(ctx context.Context) error {
	dsn := d.postgres.DSN(demoDatabase)
	if err := schema.Up(ctx, dsn); err != nil {
		return err
	}
	db, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close(ctx) }()
	if err := d.admit(ctx, db); err != nil {
		return err
	}
	const first = "SELECT coalesce(min(id), 0) FROM properties"
	if err := db.QueryRow(ctx, first).Scan(&d.shown); err != nil {
		return err
	}
	if d.shown > 0 {
		if d.rows > 0 {
			fmt.Fprintln(d.progress, "--rows is not used: the directory has properties already")
		}
		return nil
	}
	if d.rows == 0 {
		err = service.Seed(ctx, dsn, io.Discard)
	} else {
		fmt.Fprintf(d.progress, "adding %d properties ...\n", d.rows)
		err = service.SeedRows(ctx, dsn, d.rows, func(int) {})
	}
	return errors.Join(err, db.QueryRow(ctx, first).Scan(&d.shown))
}

// admit lets one user into the panel, with a password that is new each time.
func (d *demo) admit(ctx context.Context, db *pgx.Conn) error {
	d.password = rand.Text()
	err := users.Create(ctx, db, demoUser, d.password)
	if errors.Is(err, users.ErrTaken) { // the directory was kept
		return users.SetPassword(ctx, db, demoUser, d.password)
	}
	return err
}

func (d *demo) proxyOptions() options {
	o := d.options
	o.origin.Upstream = d.url(d.backendAt)
	if len(o.cache.MediaTypes) == 0 {
		o.cache.MediaTypes = []string{"application/json", "text/html"}
	}
	o.coherent, o.databaseURL = true, d.postgres.DSN(demoDatabase)
	o.listener = &replication.Config{DatabaseURL: o.databaseURL, Slot: "walcache", Publication: "walcache", MaxRetainedWAL: 1 << 30}
	o.redis = redisConfig{url: d.redis.URL(), prefix: demoPrefix}
	o.admin.Trusting = true
	o.manage = manageOptions{prefix: "/properties/", apiToken: d.apiToken, trusting: true}
	return o
}

// hitWait is how long the first hit may take. After it the demo is ready all the
// same: flags such as --bypass can leave nothing to hit.
const hitWait = 10 * time.Second

// awaitHit asks for the page of the first command until it is a hit, so that
// what is printed is true.
func (d *demo) awaitHit(ctx context.Context) error {
	for began := time.Now(); ; {
		how, err := d.ask(ctx)
		switch {
		case err == nil && strings.Contains(how, "; hit"):
			return nil
		case err == nil && time.Since(began) > hitWait:
			fmt.Fprintf(d.progress, "the page to try is no hit (%s), perhaps because of the flags\n", how)
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// ask returns what Cache-Status says of the page to try.
func (d *demo) ask(ctx context.Context) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.page(), nil)
	if err != nil {
		return "", err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return "", errors.New(res.Status)
	}
	return res.Header.Get("Cache-Status"), nil
}

// url is how this machine reaches a port: one that is open on all addresses is
// reached on loopback.
func (d *demo) url(at net.Listener) string {
	return "http://" + onThisMachine(at.Addr())
}

func (d *demo) page() string {
	return fmt.Sprintf("%s/properties/%d/?format=json", d.url(d.proxyAt), d.shown)
}

// writeEnv writes what a script needs to use the demo, at once or not at all.
func (d *demo) writeEnv(file string) error {
	var b strings.Builder
	for _, v := range [][2]string{
		{"PROXY_URL", d.url(d.proxyAt)}, {"BACKEND_URL", d.url(d.backendAt)}, {"ADMIN_URL", d.url(d.adminAt)},
		{"DATABASE_URL", d.postgres.DSN(demoDatabase)}, {"REDIS_URL", d.redis.URL()},
		{"ADMIN_TOKEN", d.admin.Token}, {"API_TOKEN", d.apiToken}, {"SUPERUSER_NAME", demoUser}, {"SUPERUSER_PASSWORD", d.password},
	} {
		fmt.Fprintf(&b, "%s='%s'\n", v[0], v[1])
	}
	f, err := os.CreateTemp(filepath.Dir(file), ".env-*") // mode 0600
	if err != nil {
		return fmt.Errorf("--write-env: %w", err)
	}
	_, err = f.WriteString(b.String())
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("--write-env: %w", err), os.Remove(f.Name()))
	}
	return nil
}

// welcome says where everything is, and what to try.
func (d *demo) welcome(took time.Duration) {
	dsn := d.postgres.DSN(demoDatabase)
	fmt.Fprintf(d.out, `
ready after %.1f s; Ctrl-C stops everything

  proxy       %s/properties/
  panel       %s/admin/  (user %s, password %s)
  backend     %s/properties/
  metrics     %s/properties/redis-metrics/
  operators   %s/  (token %s)
  PostgreSQL  %s
  Redis       %s  (%s)

try, one after the other:

  curl -i '%s'
  %s '%s' -c 'UPDATE properties SET price = price + 1 WHERE id = %d'
  curl -i '%s'

The first answer is a hit. The second is fresh: its Cache-Status says that the
stored one had changed, and nothing but the row was touched to make it so.
`, took.Seconds(), d.url(d.proxyAt), d.url(d.proxyAt), demoUser, d.password, d.url(d.backendAt), d.url(d.proxyAt), d.url(d.adminAt), d.admin.Token, dsn, d.redis.URL(), d.redisKind,
		d.page(), d.psql(), dsn, d.shown, d.page())
}

// psql is the client to paste: from PATH, or beside the server's programs.
func (d *demo) psql() string {
	if _, err := exec.LookPath("psql"); err == nil {
		return "psql"
	}
	if beside := d.postgres.Program("psql"); exec.Command(beside, "--version").Run() == nil {
		return beside
	}
	return "psql"
}
