package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/urfave/cli/v2"
)

// task is something that operators ask of the admin port and look at.
type task struct {
	name, usage string
	flags       []cli.Flag
	args        string // what it takes beside flags, for people; "" for nothing
	request     func(*cli.Context) (method, target string, content any, err error)
	// told writes an answer for people, in which all texts are clean, and returns
	// why it is not what one would wish for, if it is not.
	told func(w io.Writer, answer []byte) error
	bar  string // what is counted while it runs; "" for nothing
}

// tasks are the commands below `proxy cache` whose work package manage
// does.
func tasks() []task {
	return []task{
		{name: "status", usage: "show what is kept, how it stands and why", told: tellStatus, request: statusRequest,
			flags: []cli.Flag{&cli.StringFlag{Name: "url", Usage: "`URL` of the page to look at, as clients ask for it"}}},
		{name: "clear", usage: "make everything stale on every process, and free what it took up", told: tellCleared, request: clearRequest,
			flags: []cli.Flag{waitAllFlag()}},
		{name: "warm", usage: "fetch what people ask for, and see what is a hit then", told: tellWarmed, request: warmRequest,
			args: "[PATH or URL]...", bar: "answers", flags: warmFlags()},
		{name: "cache-test", usage: "write, read, expire and read again, in each layer", told: tellTried,
			request: func(*cli.Context) (string, string, any, error) {
				return http.MethodGet, "/cache/test", nil, nil
			}},
		{name: "test-signals", usage: "change the data, and see that the answers follow and nothing else does", told: tellSignals, request: signalsRequest,
			flags: []cli.Flag{&cli.BoolFlag{Name: "probe", Usage: "change nothing: send a message through the change stream, and measure until every process has it"}}},
		{name: "metrics", usage: "show the figures of Redis and this proxy, and what to do", told: tellMetrics,
			request: func(*cli.Context) (string, string, any, error) {
				return http.MethodGet, "/cache/metrics?format=json", nil, nil
			}},
		{name: "load-test", usage: "send many requests to the proxy, and see how it does", told: tellLoad, request: loadRequest,
			args: "[PATH]...", bar: "requests", flags: loadFlags()},
	}
}

// command makes the command of an task.
func (o task) command() *cli.Command {
	return &cli.Command{Name: o.name, Usage: o.usage, ArgsUsage: o.args, Flags: adminFlags(o.flags...), Action: o.do}
}

func (o task) do(c *cli.Context) error {
	if o.args == "" && c.Args().Present() {
		return usagef("cache %s takes no %q", o.name, c.Args().First())
	}
	port, err := newAdminPort(c)
	if err != nil {
		return err
	}
	method, target, content, err := o.request(c)
	if err != nil {
		return err
	}
	var during func([]byte)
	end := func() {}
	if o.bar != "" {
		during, end = progress(c.App.ErrWriter, o.bar)
	}
	answer, refused := port.ask(c.Context, method, target, content, during)
	end()
	w := c.App.Writer
	if c.Bool("json") && json.Valid(answer) {
		if err := printJSON(w, answer); err != nil {
			return err
		}
		w = io.Discard
	}
	if refused != nil && !hasMore(answer) {
		return refused
	}
	return or(o.told(w, cleaned(answer)), refused)
}

// or is the first that is an error.
func or(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// hasMore reports whether an answer says more than what is wrong.
func hasMore(answer []byte) bool {
	var all map[string]json.RawMessage
	if json.Unmarshal(answer, &all) != nil {
		return false
	}
	for _, name := range []string{"error", "try", "usage"} {
		delete(all, name)
	}
	return len(all) > 0
}

func waitAllFlag() cli.Flag {
	return &cli.BoolFlag{Name: "wait-all", Usage: "return only once every process has it, and fail if one has not within 10 seconds"}
}

func statusRequest(c *cli.Context) (string, string, any, error) {
	target := "/cache/status"
	if page := c.String("url"); page != "" {
		target += "?url=" + url.QueryEscape(page)
	}
	return http.MethodGet, target, nil, nil
}

func clearRequest(c *cli.Context) (string, string, any, error) {
	if c.Bool("wait-all") {
		return http.MethodPost, "/cache/clear?wait=all", nil, nil
	}
	return http.MethodPost, "/cache/clear", nil, nil
}

func signalsRequest(c *cli.Context) (string, string, any, error) {
	if c.Bool("probe") {
		return http.MethodPost, "/cache/test-signals", map[string]any{"probe": true}, nil
	}
	return http.MethodPost, "/cache/test-signals", nil, nil
}

func warmFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "file", Usage: "`FILE` with a path or URL on each line, - for standard input"},
		&cli.IntFlag{Name: "top", Value: 100, Usage: "without paths, the `N` that were asked for most, at most 10000"},
		&cli.StringFlag{Name: "host", Usage: "`HOST` that paths are asked for at, as clients name it"},
		&cli.IntFlag{Name: "connections", Value: 4, Usage: "`N` at a time, at most 16"},
	}
}

func warmRequest(c *cli.Context) (string, string, any, error) {
	given, err := warmList(c)
	if err != nil {
		return "", "", nil, err
	}
	content := map[string]any{}
	for _, name := range []string{"connections", "top"} {
		// manage-cache has no such flag.
		if n := c.Int(name); c.IsSet(name) || n > 0 {
			content[name] = n
		}
	}
	var paths, urls []string
	for _, text := range given {
		if strings.HasPrefix(text, "/") {
			paths = append(paths, text)
		} else {
			urls = append(urls, text)
		}
	}
	for name, list := range map[string][]string{"paths": paths, "urls": urls} {
		if len(list) > 0 {
			content[name] = list
		}
	}
	if len(given) > 0 {
		delete(content, "top")
	}
	if host := c.String("host"); host != "" {
		content["host"] = host
	}
	return http.MethodPost, "/cache/warm", content, nil
}

// warmList is what is to be warmed: the arguments, and the lines of a file.
func warmList(c *cli.Context) ([]string, error) {
	list := c.Args().Slice()
	name := c.String("file")
	if name == "" {
		return list, nil
	}
	file := io.ReadCloser(os.Stdin)
	if name != "-" {
		var err error
		if file, err = os.Open(name); err != nil {
			return nil, fmt.Errorf("--file: %w", err)
		}
		defer file.Close()
	}
	scanner := bufio.NewScanner(file)
	for scanner.Scan() {
		if line := strings.TrimSpace(scanner.Text()); line != "" && !strings.HasPrefix(line, "#") {
			list = append(list, line)
		}
	}
	if err := scanner.Err(); err != nil {
		return nil, fmt.Errorf("--file: %w", err)
	}
	if len(list) == 0 {
		return nil, usagef("--file: %s has no line with a path", name)
	}
	return list, nil
}

func loadFlags() []cli.Flag {
	return []cli.Flag{
		&cli.IntFlag{Name: "requests", Value: 500, Usage: "`N` in all, at most 10000"},
		&cli.IntFlag{Name: "connections", Value: 8, Usage: "`N` at a time, at most 64"},
		&cli.IntFlag{Name: "seconds", Value: 10, Usage: "`N` at most, and no more than 30"},
		&cli.StringFlag{Name: "host", Usage: "`HOST` that paths are asked for at, as clients name it"},
	}
}

func loadRequest(c *cli.Context) (string, string, any, error) {
	content := map[string]any{"requests": c.Int("requests"), "connections": c.Int("connections"), "seconds": c.Int("seconds")}
	if c.Args().Present() {
		content["paths"] = c.Args().Slice()
	}
	if host := c.String("host"); host != "" {
		content["host"] = host
	}
	return http.MethodPost, "/cache/load-test", content, nil
}

// manageCacheCommand is `proxy manage-cache --status` and the like: the
// tasks by the names that others know them by.
func manageCacheCommand() *cli.Command {
	byFlag := map[string]task{}
	var flags []cli.Flag
	for _, o := range tasks() {
		switch o.name {
		case "status", "clear", "warm", "test-signals", "metrics":
			byFlag[o.name] = o
			flags = append(flags, &cli.BoolFlag{Name: o.name, Usage: "the same as: proxy cache " + o.name})
		}
	}
	return &cli.Command{
		Name: "manage-cache", Usage: "the same as proxy cache, with flags for what to do", Flags: adminFlags(flags...),
		Action: func(c *cli.Context) error {
			var asked []task
			for name, o := range byFlag {
				if c.Bool(name) {
					asked = append(asked, o)
				}
			}
			if c.Args().Present() {
				return usagef("manage-cache takes no %q", c.Args().First())
			}
			if len(asked) != 1 {
				return usagef("Please specify an action: --status, --clear, --warm, --test-signals, or --metrics; one of them")
			}
			return asked[0].do(c)
		},
	}
}
