package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"walcache/backend/panel"
	"walcache/backend/service"
	"walcache/proxy/redisurl"
	"walcache/proxy/settings"
)

// serveFlags are those of serve beside the address and the database.
func serveFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "redis-url", EnvVars: []string{"REDIS_URL"},
			Usage: "Redis `URL` of the proxies, for querysets and sessions: redis://host:6379/0, redis+sentinel://host:26379/NAME or redis+cluster://host:7000; without it nothing is cached, and sessions are this process's own"},
		&cli.StringFlag{Name: "redis-url-file", EnvVars: []string{"REDIS_URL_FILE"}, Usage: "`FILE` that holds the URL"},
		&cli.StringFlag{Name: "prefix", Value: "wc:", EnvVars: []string{"PREFIX"}, Usage: "`TEXT` that all keys in Redis begin with, as the proxies have it"},
		&cli.DurationFlag{Name: "max-staleness", Value: 2 * time.Second, EnvVars: []string{"MAX_STALENESS"}, Usage: "oldest evidence that a queryset is fresh by, as the proxies have it"},
		&cli.BoolFlag{Name: "no-cache", EnvVars: []string{"NO_CACHE"}, Usage: "read every queryset from the database, to compare"},
		&cli.StringFlag{Name: "api-token", EnvVars: []string{"API_TOKEN"}, Usage: "`SECRET` with which programs may write; prefer the variable, since ps shows flags"},
		&cli.StringFlag{Name: "api-token-file", EnvVars: []string{"API_TOKEN_FILE"}, Usage: "`FILE` that holds the token"},
		&cli.StringFlag{Name: "secret-key", EnvVars: []string{"SECRET_KEY"}, Usage: "`SECRET` that sessions are made safe with, the same on all processes; prefer the variable"},
		&cli.StringFlag{Name: "secret-key-file", EnvVars: []string{"SECRET_KEY_FILE"}, Usage: "`FILE` that holds the secret"},
		&cli.StringFlag{Name: "session-redis-url", EnvVars: []string{"SESSION_REDIS_URL"},
			Usage: "Redis `URL` for sessions alone: one that is full of pages evicts them too, and logs people out; by default --redis-url"},
		&cli.StringFlag{Name: "session-redis-url-file", EnvVars: []string{"SESSION_REDIS_URL_FILE"}, Usage: "`FILE` that holds that URL"},
		&cli.StringFlag{Name: "trusted-proxies", EnvVars: []string{"TRUSTED_PROXIES"},
			Usage: "`NETWORKS`, such as 10.0.0.0/8,192.0.2.7/32, whose X-Forwarded-For and -Proto the panel believes; by default this machine and private networks"},
		&cli.StringFlag{Name: "release", EnvVars: []string{"RELEASE"}, Usage: "`NAME` of what answers look like: another makes older answers stale; by default the build's"},
		&cli.BoolFlag{Name: "debug", EnvVars: []string{"DEBUG"}, Usage: "log at level debug what --log-level leaves open, and make do with any SECRET_KEY or none; never where strangers can reach it"},
		settings.LogFlag(""),
	}
}

func serviceConfig(c *cli.Context) (config service.Config, err error) {
	config = service.Config{
		Prefix: c.String("prefix"), NoCache: c.Bool("no-cache"), Release: c.String("release"), MaxStaleness: c.Duration("max-staleness"),
	}
	if config.Log, err = settings.NewLogger(c, settings.Usual(c.Bool("debug"))); err != nil {
		return config, err
	}
	redisurl.LogTo(config.Log.With("component", "redis"))
	if config.MaxStaleness <= 0 {
		return config, usagef("--max-staleness must be more than 0")
	}
	if config.DatabaseURL, err = databaseURL(c); err != nil {
		return config, err
	}
	for name, value := range map[string]*string{"redis-url": &config.RedisURL, "api-token": &config.APIToken, "secret-key": &config.SecretKey, "session-redis-url": &config.SessionRedisURL} {
		if *value, err = settings.Secret(c, name); err != nil {
			return config, err
		}
	}
	for name, url := range map[string]string{"redis-url": config.RedisURL, "session-redis-url": config.SessionRedisURL} {
		if url == "" {
			continue
		}
		client, err := redisurl.Open(url, nil)
		if err != nil {
			return config, usageError{fmt.Errorf("--%s: %w", name, err)}
		}
		_ = client.Close()
	}
	if n := len(config.APIToken); n > 0 && n < minToken {
		return config, usagef("--api-token has %d characters and needs %d, or it can be guessed\n  try: API_TOKEN=$(openssl rand -hex 20)", n, minToken)
	}
	for text := range strings.SplitSeq(c.String("trusted-proxies"), ",") {
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		network, err := settings.ParseNetwork(text)
		if err != nil {
			return config, usagef("--trusted-proxies: %q is neither an address nor a network like 10.0.0.0/8", text)
		}
		config.TrustedProxies = append(config.TrustedProxies, network)
	}
	return config, checkSecretKey(config, c.Bool("debug"))
}

// checkSecretKey lets a key that others can guess pass where one debugs, and says
// so once. That there is none the panel says.
func checkSecretKey(config service.Config, debug bool) error {
	err := panel.CheckSecret(config.SecretKey, false)
	if err == nil || !debug {
		return err
	}
	if config.SecretKey != "" {
		why, _, _ := strings.Cut(err.Error(), "\n")
		config.Log.With("component", "service").Warn("sessions are not safe; without DEBUG this would not start", "why", why)
	}
	return nil
}

// minToken is the least number of characters of a token that programs write with.
const minToken = 20
