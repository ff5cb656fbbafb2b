package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"walcache/proxy/admin"
)

// cacheCommand is `proxy cache`: what an operator has the cluster do, asked of
// the admin port of any of its processes.
func cacheCommand() *cli.Command {
	waitAll := &cli.BoolFlag{Name: "wait-all", Usage: "return only once every process has it, and fail if one has not within 10 seconds"}
	return &cli.Command{
		Name: "cache", Usage: "switch caching off and on, or purge what is stored, on every process",
		Subcommands: []*cli.Command{
			{Name: "off", Usage: "pass every request through, on every process, until switched on again",
				Flags: append(adminFlags(), waitAll), Action: controlAction("off", func(*cli.Context) (any, error) { return nil, nil })},
			{Name: "on", Usage: "cache again",
				Flags: append(adminFlags(), waitAll), Action: controlAction("on", func(*cli.Context) (any, error) { return nil, nil })},
			{Name: "purge", Usage: "make what is stored stale: one URL, what was read under a tag, or all of it",
				Flags: append(adminFlags(), waitAll,
					&cli.StringFlag{Name: "url", Usage: "`URL` as clients ask for it, such as https://shop.example/properties/1/"},
					&cli.StringFlag{Name: "tag", Usage: "`TAG` such as properties, properties/id=42 or what Cache-Groups named"},
					&cli.BoolFlag{Name: "all", Usage: "everything"}),
				Action: controlAction("purge", whatToPurge)},
		},
	}
}

// adminFlags say where to ask, and who is asking.
func adminFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "admin-url", Value: "http://127.0.0.1:8003", EnvVars: []string{"ADMIN_URL"}, Usage: "`URL` of the admin port"},
		&cli.StringFlag{Name: "admin-token", EnvVars: []string{"ADMIN_TOKEN"}, Usage: "`SECRET` of the admin port; prefer the variable, since ps shows flags"},
		&cli.StringFlag{Name: "admin-token-file", EnvVars: []string{"ADMIN_TOKEN_FILE"}, Usage: "`FILE` that holds the token"},
		&cli.BoolFlag{Name: "json", Usage: "print the answer as JSON, for scripts"},
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
		token, err := secret(c, "admin-token")
		if err != nil {
			return err
		}
		target := "/cache/" + path
		if c.Bool("wait-all") {
			target += "?wait=all"
		}
		var done admin.Done
		if err := askAdmin(c.Context, c.String("admin-url"), token, target, content, &done); err != nil {
			return err
		}
		return tellDone(c, done)
	}
}

func tellDone(c *cli.Context, done admin.Done) error {
	if c.Bool("json") {
		e := json.NewEncoder(c.App.Writer)
		e.SetIndent("", "  ")
		if err := e.Encode(done); err != nil {
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

// askAdmin sends a request to the admin port, and reads its answer. An error
// says what the port said.
func askAdmin(ctx context.Context, base, token, target string, content, answer any) error {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" {
		return usagef("--admin-url is no URL, such as http://127.0.0.1:8003")
	}
	body, err := json.Marshal(content)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(base, "/")+target, bytes.NewReader(body))
	if err != nil {
		return usageError{fmt.Errorf("--admin-url: %w", err)}
	}
	req.Header.Set("Content-Type", "application/json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := http.DefaultClient.Do(req)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("nothing answers at %s\n  try: start the proxy, or name its admin port with --admin-url (ADMIN_URL)", u.Host)
	}
	if err != nil {
		return fmt.Errorf("ask %s: %w", u.Host, err)
	}
	defer res.Body.Close()
	return readAnswer(res, u.Host, answer)
}

func readAnswer(res *http.Response, host string, answer any) error {
	text, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("answer of %s: %w", host, err)
	}
	if res.StatusCode == http.StatusOK {
		return json.Unmarshal(text, answer)
	}
	var problem struct{ Error, Try string }
	if json.Unmarshal(text, &problem) != nil || problem.Error == "" {
		return fmt.Errorf("%s answers %s\n  try: is that the admin port? name it with --admin-url (ADMIN_URL)", host, res.Status)
	}
	return fmt.Errorf("%s: %s\n  try: %s", host, problem.Error, problem.Try)
}
