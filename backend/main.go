// Command backend is the data service: property listings from PostgreSQL, as
// pages for people and JSON for programs, each answer with the tags of what it
// was read from, and a panel where people edit them. It also migrates and seeds
// the database.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/schollz/progressbar/v3"
	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"walcache/backend/service"
	"walcache/proxy/settings"
	"walcache/schema"
)

func main() {
	os.Exit(run(untilSignal(), os.Args, os.Stdout, os.Stderr))
}

// untilSignal returns a context that ends with the first signal to stop. A second
// one ends the process at once, however soon it comes.
func untilSignal() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		<-signals
		cancel()
		second := (<-signals).(syscall.Signal)
		os.Exit(128 + int(second))
	}()
	return ctx
}

// run does what the arguments say and returns the exit code: 0, 1 for a
// failure, 2 for wrong usage.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	err := newApp(stdout, stderr).RunContext(ctx, args)
	if errors.As(err, new(*settings.Error)) {
		err = usageError{err}
	}
	return report(stderr, err)
}

func newApp(stdout, stderr io.Writer) *cli.App {
	database := []cli.Flag{
		&cli.StringFlag{Name: "database-url", EnvVars: []string{"DATABASE_URL"},
			Usage: "PostgreSQL `URL`, as postgres://user@host/name; the pool's size is set in it, as ?pool_max_conns=10"},
		&cli.StringFlag{Name: "database-url-file", EnvVars: []string{"DATABASE_URL_FILE"}, Usage: "`FILE` that holds the URL"},
	}
	addr := &cli.StringFlag{
		Name: "addr", Value: ":8002",
		Usage: "`HOST:PORT` to answer on; port 0 picks a free one",
	}
	rows := &cli.IntFlag{
		Name:  "rows",
		Usage: "add `N` made-up properties instead, to see how it goes with many",
	}
	app := &cli.App{
		Name:           "backend",
		Usage:          "the data service behind the cache",
		Writer:         stdout,
		ErrWriter:      stderr,
		ExitErrHandler: func(*cli.Context, error) {}, // run alone decides the exit code
		OnUsageError:   asUsageError,
		Before:         settings.Load(),
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usagef("no command %q", c.Args().First())
			}
			return cli.ShowAppHelp(c)
		},
		Commands: []*cli.Command{
			{
				Name: "serve", Usage: "answer requests", Action: serve,
				Flags: slices.Concat([]cli.Flag{addr}, database, serveFlags()),
			},
			{
				Name: "migrate", Usage: "apply the migrations that are missing, take back the last one, or list them", Action: migrate,
				ArgsUsage: "[up|down|status]", Flags: database,
			},
			{
				Name: "seed", Usage: "add five sample properties, unless they are there", Action: seed,
				Flags: append([]cli.Flag{rows}, database...),
			},
			{
				Name: "createsuperuser", Usage: "let somebody edit at /admin/; asks for what it is not told", Action: createUser,
				Flags: append(userFlags(), database...),
			},
		},
	}
	for _, c := range app.Commands {
		c.OnUsageError = asUsageError
	}
	return app
}

func serve(c *cli.Context) error {
	if c.Args().Present() {
		return usagef("serve takes no %q", c.Args().First())
	}
	config, err := serviceConfig(c)
	if err != nil {
		return err
	}
	if config.Listener, err = net.Listen("tcp", c.String("addr")); err != nil {
		return err
	}
	return service.Run(c.Context, config)
}

func migrate(c *cli.Context) error {
	if c.NArg() > 1 {
		return usagef("migrate takes one of up, down and status, and its flags before that")
	}
	var step func(context.Context, string) error
	switch direction := c.Args().First(); direction {
	case "", "up":
		step = schema.Up
	case "down":
		step = schema.Down
	case "status":
		step = func(context.Context, string) error { return nil }
	default:
		return usagef("migrate takes up, down or status, not %q", direction)
	}
	dsn, err := databaseURL(c)
	if err != nil {
		return err
	}
	if err := step(c.Context, dsn); err != nil {
		return err
	}
	migrations, err := schema.Status(c.Context, dsn)
	for _, m := range migrations {
		state := "pending"
		if !m.AppliedAt.IsZero() {
			state = "applied " + m.AppliedAt.Format(time.RFC3339)
		}
		fmt.Fprintf(c.App.Writer, "%s  %s\n", m.Name, state)
	}
	return err
}

func seed(c *cli.Context) error {
	rows := c.Int("rows")
	switch {
	case c.Args().Present():
		return usagef("seed takes no %q", c.Args().First())
	case c.IsSet("rows") && rows < 1:
		return usagef("--rows must be at least 1, not %d", rows)
	}
	dsn, err := databaseURL(c)
	if err != nil {
		return err
	}
	if !c.IsSet("rows") {
		return service.Seed(c.Context, dsn, c.App.Writer)
	}
	if err := service.SeedRows(c.Context, dsn, rows, progress(c.App.ErrWriter, rows)); err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.App.Writer, "Created %d properties\n", rows)
	return err
}

// progress draws a bar where somebody watches, and nothing elsewhere.
func progress(w io.Writer, rows int) func(sent int) {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return func(int) {}
	}
	bar := progressbar.NewOptions(rows,
		progressbar.OptionSetWriter(w), progressbar.OptionShowCount(),
		progressbar.OptionSetDescription("properties"), progressbar.OptionClearOnFinish())
	return func(sent int) {
		// A bar that cannot be drawn is no reason to stop.
		_ = bar.Add(sent)
	}
}

// databaseURL returns the flag's or the environment's, checked as far as it
// can be without connecting.
func databaseURL(c *cli.Context) (string, error) {
	url, err := settings.Secret(c, "database-url")
	if err != nil {
		return "", err
	}
	if url == "" {
		return "", usagef("no database: set DATABASE_URL, or --database-url=postgres://user@host/name")
	}
	if _, err := pgx.ParseConfig(url); err != nil {
		return "", usageError{fmt.Errorf("--database-url: %w", err)}
	}
	return url, nil
}
