package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"walcache/proxy/doctor"
	"walcache/proxy/origin"
)

// doctorFlags are what the listener and the cache are told, as far as a server
// has to fit it.
func doctorFlags() []cli.Flag {
	return slices.Concat(databaseFlags(), listenerFlags(), redisFlags(), []cli.Flag{
		&cli.StringFlag{Name: "upstream", Category: upstreamCategory, EnvVars: []string{"UPSTREAM"},
			Usage: "`URL` of the service to cache, to look at that too"},
		&cli.BoolFlag{Name: "json", Usage: "print the findings as JSON: check, where, status (ok, warning, error), what, why, fix, sql"},
		&cli.BoolFlag{Name: "sql", Usage: "print the statements for an owner of the database to run, and nothing else; the exit code is 0 if they could be found out"},
	})
}

// errFindings says that what was printed needs somebody to do something.
var errFindings = errors.New("something has to be done first")

// doctorCommand is `proxy doctor`: it examines what serve will depend on, and
// changes nothing. It returns errFindings if somebody has to do something.
func doctorCommand(c *cli.Context) error {
	config, err := doctorConfig(c)
	if err != nil {
		return err
	}
	report := doctor.Examine(c.Context, config)
	switch {
	case c.Bool("json"):
		err = report.JSON(c.App.Writer)
	case c.Bool("sql"):
		return printScript(c, report)
	default:
		err = report.Print(c.App.Writer, colourful(c.App.Writer))
	}
	if err == nil && report.NeedsAction() {
		err = errFindings
	}
	return err
}

// printScript fails where the statements are not all that is needed because
// PostgreSQL could not be asked.
func printScript(c *cli.Context, report doctor.Report) error {
	if why := report.Incomplete(); why != "" {
		return fmt.Errorf("cannot tell which statements are needed: %s\n  try: proxy doctor, for all that is wrong", why)
	}
	return report.Script(c.App.Writer)
}

func doctorConfig(c *cli.Context) (config doctor.Config, err error) {
	if c.Args().Present() {
		return config, usagef("doctor takes no %q", c.Args().First())
	}
	if c.Bool("json") && c.Bool("sql") {
		return config, usagef("--json and --sql are both given")
	}
	if config.Listener, err = listenerConfig(c); err != nil {
		return config, err
	}
	for _, glob := range config.Listener.IgnoreTables {
		if _, err := path.Match(glob, ""); err != nil {
			return config, usagef("--ignore-tables: %q is not a glob", glob)
		}
	}
	redis, err := redisOptions(c)
	if err != nil {
		return config, err
	}
	config.RedisURL, config.Prefix = redis.url, redis.prefix
	if config.Upstream = c.String("upstream"); config.Upstream != "" {
		if _, err := origin.New(origin.Config{Upstream: config.Upstream}); err != nil {
			return config, usageError{fmt.Errorf("--upstream (UPSTREAM): %w", err)}
		}
	}
	return config, nil
}

// colourful reports whether to colour what is written: for a person at a
// terminal who does not mind.
func colourful(w io.Writer) bool {
	file, ok := w.(*os.File)
	return ok && os.Getenv("NO_COLOR") == "" && term.IsTerminal(int(file.Fd()))
}
