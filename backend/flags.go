package main

import (
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"walcache/backend/panel"
	"walcache/backend/service"
	"walcache/proxy/redisurl"
)

// serveFlags are those of serve beside the address and the database.
func serveFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "redis-url", EnvVars: []string{"REDIS_URL"},
			Usage: "Redis `URL` of the proxies, for querysets and sessions: redis://host:6379/0, redis+sentinel://host:26379/NAME or redis+cluster://host:7000; without it nothing is cached, and sessions are this process's own"},
		&cli.StringFlag{Name: "redis-url-file", EnvVars: []string{"REDIS_URL_FILE"}, Usage: "`FILE` that holds the URL"},
		&cli.StringFlag{Name: "prefix", Value: "wc:", EnvVars: []string{"PREFIX"}, Usage: "`TEXT` that all keys in Redis begin with, as the proxies have it"},
		&cli.BoolFlag{Name: "no-cache", EnvVars: []string{"NO_CACHE"}, Usage: "read every queryset from the database, to compare"},
		&cli.StringFlag{Name: "api-token", EnvVars: []string{"API_TOKEN"}, Usage: "`SECRET` with which programs may write; prefer the variable, since ps shows flags"},
		&cli.StringFlag{Name: "api-token-file", EnvVars: []string{"API_TOKEN_FILE"}, Usage: "`FILE` that holds the token"},
		&cli.StringFlag{Name: "secret-key", EnvVars: []string{"SECRET_KEY"}, Usage: "`SECRET` that sessions are made safe with, the same on all processes; prefer the variable"},
		&cli.StringFlag{Name: "secret-key-file", EnvVars: []string{"SECRET_KEY_FILE"}, Usage: "`FILE` that holds the secret"},
		&cli.StringFlag{Name: "release", EnvVars: []string{"RELEASE"}, Usage: "`NAME` of what answers look like: another makes older answers stale; by default the build's"},
		&cli.BoolFlag{Name: "debug", EnvVars: []string{"DEBUG"}, Usage: "log more, and make do without a SECRET_KEY; never where strangers can reach it"},
	}
}

func serviceConfig(c *cli.Context) (config service.Config, err error) {
	level := slog.LevelInfo
	if c.Bool("debug") {
		level = slog.LevelDebug
	}
	config = service.Config{
		Prefix: c.String("prefix"), NoCache: c.Bool("no-cache"), Release: c.String("release"),
		Log: slog.New(slog.NewTextHandler(c.App.ErrWriter, &slog.HandlerOptions{Level: level})),
	}
	if config.DatabaseURL, err = databaseURL(c); err != nil {
		return config, err
	}
	for name, value := range map[string]*string{"redis-url": &config.RedisURL, "api-token": &config.APIToken, "secret-key": &config.SecretKey} {
		if *value, err = secret(c, name); err != nil {
			return config, err
		}
	}
	if config.RedisURL != "" {
		client, err := redisurl.Open(config.RedisURL, nil)
		if err != nil {
			return config, usageError{fmt.Errorf("--redis-url: %w", err)}
		}
		_ = client.Close()
	}
	if err := panel.CheckSecret(config.SecretKey, c.Bool("debug")); err != nil {
		return config, err
	}
	return config, nil
}

// secret is a flag, or the content of the file that its -file twin names.
func secret(c *cli.Context, name string) (string, error) {
	file := c.String(name + "-file")
	switch {
	case file == "":
		return c.String(name), nil
	case c.String(name) != "":
		return "", usagef("--%s and --%s-file (or their variables) are both set", name, name)
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("--%s-file: %w", name, err)
	}
	return strings.TrimSpace(string(content)), nil
}
