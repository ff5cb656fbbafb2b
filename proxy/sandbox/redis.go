package sandbox

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/redis/go-redis/v9"
)

// RedisConfig says how to run a Redis server.
type RedisConfig struct {
	// Dir is where everything of the server lives; it is made if missing.
	Dir string
	// Port on 127.0.0.1; 0 picks a free one.
	Port int
	// MaxMemory, in bytes, is where what expires begins to make room
	// (volatile-lru); 0 is no limit.
	MaxMemory int64
}

func (c RedisConfig) settings() []string {
	if c.MaxMemory == 0 {
		return nil
	}
	return []string{fmt.Sprintf("maxmemory %d", c.MaxMemory), "maxmemory-policy volatile-lru"}
}

// RedisServer is what a Redis in a process of its own and one in this process
// have in common.
type RedisServer interface {
	// URL of the server for any client, password included.
	URL() string
	// Stop ends the server and waits for that.
	Stop(ctx context.Context) error
}

var errNoRedis = errors.New("no redis-server or valkey-server found in PATH\n  try: apt-get install redis-server, dnf install valkey, or brew install redis")

// StartAnyRedis starts a real server if this machine has one, else one in this
// process; kind names which, for people to read.
func StartAnyRedis(ctx context.Context, config RedisConfig) (server RedisServer, kind string, err error) {
	r, err := StartRedis(ctx, config)
	if err == nil {
		return r, r.program, nil
	}
	if !errors.Is(err, errNoRedis) {
		return nil, "", err
	}
	m, err := StartMiniredis(config.Port)
	if err != nil {
		return nil, "", err
	}
	return m, "in-process Redis", nil
}

// Redis is a private redis-server that keeps nothing on disk: after a restart
// it is empty. Its methods may be called from several goroutines.
type Redis struct {
	server
	binary   string
	password string
	settings []string // further lines of its configuration
}

// StartRedis starts a server and returns once it answers. ctx bounds the start,
// not the life of the server.
func StartRedis(ctx context.Context, config RedisConfig) (*Redis, error) {
	r, err := newRedis(config.Dir, rand.Text(), config.settings()...)
	if err != nil {
		return nil, err
	}
	if err := startOnPort(config.Port, func(port int) error { return r.startOn(ctx, port) }); err != nil {
		return nil, err
	}
	return r, nil
}

// newRedis prepares a server that has yet to be started.
func newRedis(dir, password string, settings ...string) (*Redis, error) {
	binary, err := redisBinary()
	if err != nil {
		return nil, err
	}
	as, err := chooseAccount(dir)
	if err != nil {
		return nil, err
	}
	dir, err = prepareDir(dir, as)
	if err != nil {
		return nil, err
	}
	r := &Redis{binary: binary, password: password, settings: settings, server: server{
		program:  filepath.Base(binary),
		dir:      dir,
		work:     dir,
		log:      serverLog(filepath.Join(dir, "redis.log")),
		as:       as,
		shutdown: syscall.SIGTERM,
		orphaned: syscall.SIGKILL, // there is nothing to save
	}}
	r.prepare, r.ready = r.writeConfig, r.answers
	return r, nil
}

func redisBinary() (string, error) {
	for _, name := range []string{"redis-server", "valkey-server"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errNoRedis
}

// URL of the server, password included.
func (r *Redis) URL() string { return redisURL(r.Port(), r.password) }

func redisURL(port int, password string) string {
	u := url.URL{
		Scheme: "redis",
		User:   url.UserPassword("", password),
		Host:   loopback(port),
		Path:   "/0",
	}
	return u.String()
}

// writeConfig writes the configuration to a file that only the server can read:
// a command line, password included, is for everybody to see.
func (r *Redis) writeConfig(context.Context, *os.File) (*exec.Cmd, error) {
	lines := append([]string{
		"bind 127.0.0.1",
		fmt.Sprintf("port %d", r.port),
		"requirepass " + r.password,
		fmt.Sprintf("dir %q", r.dir),
		`save ""`,
		"appendonly no",
		"daemonize no",
	}, r.settings...)
	text := strings.Join(lines, "\n") + "\n"
	path := filepath.Join(r.dir, "redis.conf")
	if err := writePrivate(path, text, r.as); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	return r.as.command(r.binary, path), nil
}

func (r *Redis) answers(ctx context.Context) bool {
	client := redisClient(r.port, r.password)
	defer client.Close()
	return client.Ping(ctx).Err() == nil
}

func redisClient(port int, password string) *redis.Client {
	return redis.NewClient(&redis.Options{Addr: loopback(port), Password: password, Protocol: 2})
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
