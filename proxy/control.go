package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/urfave/cli/v2"

	"walcache/proxy/manage"
)

// cacheCommand is `proxy cache`: what an operator has the cluster do, asked of
// the admin port of any of its processes.
func cacheCommand() *cli.Command {
	nothing := func(*cli.Context) (any, error) { return nil, nil }
	commands := []*cli.Command{
		{Name: "off", Usage: "pass every request through, on every process, until switched on again",
			Flags: adminFlags(waitAllFlag()), Action: controlAction("off", nothing)},
		{Name: "on", Usage: "cache again",
			Flags: adminFlags(waitAllFlag()), Action: controlAction("on", nothing)},
		{Name: "purge", Usage: "make what is stored stale: one URL, what was read under a tag, or all of it",
			Flags: adminFlags(waitAllFlag(),
				&cli.StringFlag{Name: "url", Usage: "`URL` as clients ask for it, such as https://shop.example/properties/1/"},
				&cli.StringFlag{Name: "tag", Usage: "`TAG` such as properties, properties/id=42 or what Cache-Groups named"},
				&cli.BoolFlag{Name: "all", Usage: "everything"}),
			Action: controlAction("purge", whatToPurge)},
	}
	for _, o := range tasks() {
		commands = append(commands, o.command())
	}
	return &cli.Command{
		Name: "cache", Usage: "look at what is stored, clear, warm, purge or test it, switch it off and on", Subcommands: commands,
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usagef("no command %q", "cache "+c.Args().First())
			}
			return cli.ShowSubcommandHelp(c)
		},
	}
}

func whatToPurge(c *cli.Context) (any, error) {
	var given []string
	for _, name := range []string{"url", "tag", "all"} {
		if c.IsSet(name) {
			given = append(given, name)
		}
	}
	if len(given) != 1 {
		return nil, usagef("purge takes exactly one of --url, --tag and --all")
	}
	return map[string]any{given[0]: c.Value(given[0])}, nil
}

// controlAction asks for something, and says where it has been done.
func controlAction(path string, body func(*cli.Context) (any, error)) cli.ActionFunc {
	return func(c *cli.Context) error {
		if c.Args().Present() {
			return usagef("cache %s takes no %q", path, c.Args().First())
		}
		content, err := body(c)
		if err != nil {
			return err
		}
		port, err := newAdminPort(c)
		if err != nil {
			return err
		}
		target := "/cache/" + path
		if c.Bool("wait-all") {
			target += "?wait=all"
		}
		answer, err := port.ask(c.Context, http.MethodPost, target, content, nil)
		if err != nil {
			return err
		}
		return tellDone(c, answer)
	}
}

func tellDone(c *cli.Context, answer []byte) error {
	var done manage.Done
	if err := json.Unmarshal(cleaned(answer), &done); err != nil {
		return err
	}
	if c.Bool("json") {
		if err := printJSON(c.App.Writer, answer); err != nil {
			return err
		}
	} else {
		where := "on this process; the others follow within milliseconds"
		if done.All {
			where = "on every process"
		}
		fmt.Fprintf(c.App.Writer, "%s: done %s (%s, %.0f ms)\n", done.Did, where, done.Position, 1000*done.Took)
	}
	if c.Bool("wait-all") && !done.All {
		return fmt.Errorf("not within the time on %s\n  try: look at /status there; a process that has no proof of freshness passes requests through",
			strings.Join(done.Behind, ", "))
	}
	return nil
}
