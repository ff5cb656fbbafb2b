package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"
)

// healthCommand is `proxy health`, for health checks where there is no shell: it
// asks a proxy whether it takes requests, or any other process of which the URL
// is given, and says it by the exit code.
func healthCommand() *cli.Command {
	return &cli.Command{
		Name: "health", Usage: "ask whether the proxy takes requests, or whether a URL answers 2xx; for health checks without a shell",
		ArgsUsage: "[URL]",
		Flags: []cli.Flag{&cli.StringFlag{Name: "admin-url", Value: "http://127.0.0.1:8003", EnvVars: []string{"ADMIN_URL"},
			Usage: "`URL` of the admin port, where no other is given"}},
		Action: func(c *cli.Context) error {
			target := strings.TrimSuffix(c.String("admin-url"), "/") + "/readyz"
			switch c.NArg() {
			case 0:
			case 1:
				target = c.Args().First()
			default:
				return usagef("health takes one URL")
			}
			return askHealth(c.Context, target)
		},
	}
}

// healthPatience is less than what health checks are given.
const healthPatience = 4 * time.Second

func askHealth(ctx context.Context, target string) error {
	u, err := url.Parse(target)
	if err != nil || u.Host == "" {
		return usagef("that is no URL, such as http://127.0.0.1:8003/readyz")
	}
	ctx, cancel := context.WithTimeout(ctx, healthPatience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return usageError{err}
	}
	res, err := http.DefaultClient.Do(req)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("nothing answers at %s\n  try: start it, or name another URL", u.Host)
	}
	if err != nil {
		return fmt.Errorf("ask %s: %w", u.Host, err)
	}
	defer res.Body.Close()
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return fmt.Errorf("%s answers %s\n  try: its log says why", u.Host, res.Status)
	}
	return nil
}
