// Command proxy is a caching reverse proxy for HTTP services that answer from
// PostgreSQL. It follows the database's change stream, so that a row change,
// whoever made it, makes exactly the stored answers that depend on it stale.
//
//	client ──► proxy ──► backend ──► PostgreSQL
//	             ▲                       │
//	             └──── change stream ────┘
//
// main.go, flags.go and report.go speak with the user; serve.go builds the parts
// and runs them, follow.go those that know of changes; control.go, doctor.go and
// uninstall.go are for operators; demo.go runs the whole system on private
// servers. manage.go is what operators may ask on the proxy's own port; tasks.go,
// adminport.go, tell.go and terminal.go ask it of the admin port and tell what it
// answers; health.go asks whether it takes requests; accesslog.go keeps the access log
// through rotations. The parts, each with a package comment of its own:
//
//	coherence    what changed, up to where that is known, and what it makes stale
//	replication  follows PostgreSQL and says so in coherence's words
//	changelog    brings that to every process of a cluster, through Redis
//	cache        answers from stored responses, or fetches them, under RFC 9111
//	store        where responses are kept, in memory and in Redis
//	redisurl     opens a Redis, Sentinels or a Cluster by one kind of URL
//	origin       forwards to the backend
//	accesslog    writes a line for each request
//	manage       what operators ask of the whole cache, and have it do
//	admin        the operator's port, with a page
//	guard        decides who gets in there
//	querysets    what services keep in Redis, as operators see it
//	web          what pages share
//	doctor       examines what has to hold before any of this works
//	settings     reads variables, .env and secrets, and makes the logger, for the backend too
//	sandbox      private PostgreSQL and Redis servers, for the demo and tests
package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v2"

	"walcache/proxy/settings"
)

func main() {
	os.Exit(run(untilSignal(), os.Args, os.Stdout, os.Stderr))
}

// untilSignal returns a context that ends with the first signal to stop. A second
// one ends the process at once, however soon it comes. SIGHUP is one of them where
// there is no access log to reopen.
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
	app := newApp(stdout, stderr)
	help := "proxy --help"
	if len(args) > 1 && app.Command(args[1]) != nil {
		help = "proxy " + args[1] + " --help"
	}
	err := app.RunContext(ctx, args)
	if errors.As(err, new(*settings.Error)) {
		err = usageError{err}
	}
	return report(stderr, err, help)
}

func newApp(stdout, stderr io.Writer) *cli.App {
	app := &cli.App{
		Name:           "proxy",
		Usage:          "a caching reverse proxy that follows PostgreSQL's change stream",
		Writer:         stdout,
		ErrWriter:      stderr,
		ExitErrHandler: func(*cli.Context, error) {}, // run alone decides the exit code
		OnUsageError:   asUsageError,
		Before:         settings.Load("demo"), // which has servers of its own
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usagef("no command %q", c.Args().First())
			}
			return cli.ShowAppHelp(c)
		},
		Commands: []*cli.Command{
			{Name: "serve", Usage: "answer requests", Flags: serveFlags(), Action: serveCommand},
			{Name: "listen", Usage: "follow the database for proxies that do not, and answer no requests", Flags: listenFlags(), Action: listenCommand},
			cacheCommand(),
			healthCommand(),
			manageCacheCommand(),
			{Name: "doctor", Usage: "examine what has to hold, and say what to do about what does not", Flags: doctorFlags(), Action: doctorCommand},
			{Name: "demo", Usage: "run the whole system on private servers: backend, PostgreSQL, Redis and proxy", Flags: demoFlags(), Action: demoCommand},
			{Name: "uninstall", Usage: "remove what is left in the database and in Redis: slot, publications and keys", Flags: uninstallFlags(), Action: uninstallCommand},
		},
	}
	for _, c := range app.Commands {
		c.OnUsageError = asUsageError
		for _, sub := range c.Subcommands {
			sub.OnUsageError = asUsageError
		}
	}
	return app
}
