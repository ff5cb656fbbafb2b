package sandbox

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// RedisSentinel is a private Redis with replicas, and three Sentinels that
// replace the primary by one of them a second after it has stopped answering.
// All of them share one password. None keeps anything on disk: a primary that is
// killed and started again before it has been replaced is empty, and so are its
// replicas then.
type RedisSentinel struct {
	Servers   []*Redis // the first is the first primary
	Sentinels []*Redis
	password  string
}

const (
	// SentinelName is what the Sentinels call the primary.
	SentinelName = "sandbox"

	sentinels      = 3
	sentinelQuorum = 2
	sentinelDown   = 1000 // milliseconds without an answer
)

// StartRedisSentinel starts a primary, replicas and Sentinels below a directory,
// and returns once the primary could be replaced.
func StartRedisSentinel(ctx context.Context, dir string, replicas int) (*RedisSentinel, error) {
	s := &RedisSentinel{password: rand.Text()}
	if err := s.start(ctx, dir, replicas); err != nil {
		return nil, errors.Join(fmt.Errorf("start Redis with Sentinels: %w", err), s.Kill())
	}
	return s, nil
}

func (s *RedisSentinel) start(ctx context.Context, dir string, replicas int) error {
	for i := range 1 + replicas {
		settings := []string{"masterauth " + s.password, "repl-diskless-sync yes", "repl-diskless-sync-delay 0", "repl-ping-replica-period 1"}
		if i > 0 {
			settings = append(settings, fmt.Sprintf("replicaof 127.0.0.1 %d", s.Servers[0].Port()))
		}
		server, err := startMember(ctx, filepath.Join(dir, "server-"+strconv.Itoa(i+1)), s.password, settings, false)
		if err != nil {
			return err
		}
		s.Servers = append(s.Servers, server)
	}
	for _, replica := range s.Servers[1:] {
		if err := replica.await(ctx, func(client *redis.Client) bool { return isLinked(ctx, client) }); err != nil {
			return err
		}
	}
	for i := range sentinels {
		sentinel, err := startMember(ctx, filepath.Join(dir, "sentinel-"+strconv.Itoa(i+1)), s.password, s.watching(), true)
		if err != nil {
			return err
		}
		s.Sentinels = append(s.Sentinels, sentinel)
	}
	for _, sentinel := range s.Sentinels {
		if err := sentinel.await(ctx, func(client *redis.Client) bool { return isPrepared(ctx, client, replicas) }); err != nil {
			return err
		}
	}
	return nil
}

// startMember starts a server with others that know it.
func startMember(ctx context.Context, dir, password string, settings []string, asSentinel bool) (*Redis, error) {
	r, err := newRedis(dir, password, settings...)
	if err != nil {
		return nil, err
	}
	if asSentinel {
		r.prepare = r.writeSentinelConfig
	}
	return r, startOnPort(0, func(port int) error { return r.startOn(ctx, port) })
}

// watching is the configuration of a Sentinel.
func (s *RedisSentinel) watching() []string {
	return []string{
		fmt.Sprintf("sentinel monitor %s 127.0.0.1 %d %d", SentinelName, s.Servers[0].Port(), sentinelQuorum),
		fmt.Sprintf("sentinel auth-pass %s %s", SentinelName, s.password),
		fmt.Sprintf("sentinel sentinel-pass %s", s.password),
		fmt.Sprintf("sentinel down-after-milliseconds %s %d", SentinelName, sentinelDown),
		fmt.Sprintf("sentinel failover-timeout %s 5000", SentinelName),
		fmt.Sprintf("sentinel parallel-syncs %s 8", SentinelName),
	}
}

// writeSentinelConfig writes a Sentinel's configuration once. It keeps what it
// learns there, and has to find it again when it is started again.
func (r *Redis) writeSentinelConfig(context.Context, *os.File) (*exec.Cmd, error) {
	path := filepath.Join(r.dir, "sentinel.conf")
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		lines := append([]string{
			"bind 127.0.0.1",
			fmt.Sprintf("port %d", r.port),
			"requirepass " + r.password,
			fmt.Sprintf("dir %q", r.dir),
			"daemonize no",
		}, r.settings...)
		if err := writePrivate(path, strings.Join(lines, "\n")+"\n", r.as); err != nil {
			return nil, fmt.Errorf("configuration: %w", err)
		}
	}
	return r.as.command(r.binary, path, "--sentinel"), nil
}

// isLinked reports whether a replica has what its primary has.
func isLinked(ctx context.Context, client *redis.Client) bool {
	info, err := client.Info(ctx, "replication").Result()
	return err == nil && strings.Contains(info, "master_link_status:up")
}

// isPrepared reports whether a Sentinel could replace the primary.
func isPrepared(ctx context.Context, client *redis.Client, replicas int) bool {
	state, err := client.Do(ctx, "sentinel", "master", SentinelName).Slice()
	if err != nil {
		return false
	}
	fields := map[string]string{}
	for i := 0; i+1 < len(state); i += 2 {
		fields[fmt.Sprint(state[i])] = fmt.Sprint(state[i+1])
	}
	return fields["flags"] == "master" &&
		fields["num-slaves"] == strconv.Itoa(replicas) &&
		fields["num-other-sentinels"] == strconv.Itoa(sentinels-1) &&
		client.Do(ctx, "sentinel", "ckquorum", SentinelName).Err() == nil
}

// URL of the primary, whichever that is, as package redisurl reads it, passwords
// included.
func (s *RedisSentinel) URL() string {
	return "redis+sentinel://:" + s.password + "@" + addresses(s.Sentinels) + "/" + SentinelName +
		"/0?sentinel_password=" + url.QueryEscape(s.password)
}

// Primary is the server that a Sentinel calls the primary now.
func (s *RedisSentinel) Primary(ctx context.Context) (*Redis, error) {
	var errs []error
	for _, sentinel := range s.Sentinels {
		var addr []string
		err := sentinel.do(func(client *redis.Client) (err error) {
			addr, err = client.Do(ctx, "sentinel", "get-master-addr-by-name", SentinelName).StringSlice()
			return err
		})
		errs = append(errs, err)
		for _, server := range s.Servers {
			if err == nil && addr[1] == strconv.Itoa(server.Port()) {
				return server, nil
			}
		}
	}
	return nil, fmt.Errorf("no Sentinel knows the primary: %w", errors.Join(errs...))
}

// Stop stops the Sentinels and then the servers, in good order.
func (s *RedisSentinel) Stop(ctx context.Context) error {
	var errs []error
	for _, r := range s.all() {
		errs = append(errs, r.Stop(ctx))
	}
	return errors.Join(errs...)
}

// Kill kills the Sentinels and then the servers.
func (s *RedisSentinel) Kill() error {
	var errs []error
	for _, r := range s.all() {
		errs = append(errs, r.Kill())
	}
	return errors.Join(errs...)
}

func (s *RedisSentinel) all() []*Redis {
	return append(append([]*Redis{}, s.Sentinels...), s.Servers...)
}
