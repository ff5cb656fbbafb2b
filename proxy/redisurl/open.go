package redisurl

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// What holds unless a caller adjusts it. A blocking command waits for longer
// than readTimeout by itself.
const (
	dialTimeout  = time.Second
	readTimeout  = time.Second
	writeTimeout = time.Second
	poolTimeout  = time.Second
	poolSize     = 16 // for each node of a cluster
	idleTime     = 5 * time.Minute

	// A node of a cluster answers MOVED once after its slot has moved, and ASK
	// while it moves.
	maxRedirects = 3
	// Nobody says MOVED in the place of a node that is dead: its successor is
	// found when the slots are read again.
	clusterReload = 2 * time.Second
)

// Open makes a client for a URL. It connects to nothing yet; the error is about
// the URL alone, repeats nothing of it, and says what to try. adjust, if it is
// not nil, changes pool and timeouts before the client is made.
func Open(url string, adjust func(*redis.UniversalOptions)) (redis.UniversalClient, error) {
	t, err := parse(url)
	if err != nil {
		return nil, err
	}
	quiet()
	o := t.options()
	if adjust != nil {
		adjust(o)
	}
	switch t.kind {
	case sentinel:
		return redis.NewFailoverClient(o.Failover()), nil
	case cluster:
		return newCluster(o.Cluster()), nil
	}
	return redis.NewClient(o.Simple()), nil
}

// Address names the servers of a URL, for people: without user and password. It
// is "" for what is no URL.
func Address(url string) string {
	t, err := parse(url)
	if err != nil {
		return ""
	}
	name := strings.Join(t.addrs, ",")
	switch t.kind {
	case sentinel:
		name += "/" + t.master
	case cluster:
		name = "cluster " + name
	}
	return name
}

func (t target) options() *redis.UniversalOptions {
	return &redis.UniversalOptions{
		Addrs:            t.addrs,
		TLSConfig:        t.tls,
		Username:         t.username,
		Password:         t.password,
		DB:               t.db,
		MasterName:       t.master,
		SentinelUsername: t.sentinelUsername,
		SentinelPassword: t.sentinelPassword,
		ClientName:       t.clientName,

		ContextTimeoutEnabled: true,
		DialTimeout:           dialTimeout,
		DialerRetries:         1,
		ReadTimeout:           readTimeout,
		WriteTimeout:          writeTimeout,
		PoolTimeout:           poolTimeout,
		PoolSize:              poolSize,
		PipelinePoolSize:      -1, // one pool for all
		ConnMaxIdleTime:       idleTime,

		MaxRetries:   -1,
		MaxRedirects: maxRedirects,

		Protocol:                 2,
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
}

// newCluster makes a client for a cluster with what redis.UniversalOptions
// cannot say.
func newCluster(o *redis.ClusterOptions) *redis.ClusterClient {
	o.ClusterStateReloadInterval = clusterReload
	// Or the first command of each name would ask a node for all about all
	// commands, for seconds if that is frozen.
	o.DisableRoutingPolicies = true
	client := redis.NewClusterClient(o)
	client.OnNewNode(func(node *redis.Client) { node.AddHook(final{}) })
	return client
}

// final makes errors of a node's connection final, so that the cluster client,
// to which MaxRedirects is also a number of retries, does not send a command
// again that may have been executed. What a node answers stays as it is: it says
// where to go instead.
type final struct{}

func (final) DialHook(next redis.DialHook) redis.DialHook { return next }

func (final) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		var answer redis.Error
		// A client is closed when its node leaves the cluster; nothing was sent.
		if err == nil || errors.Is(err, redis.ErrClosed) || errors.As(err, &answer) {
			return err
		}
		err = finalError{err}
		cmd.SetErr(err)
		return err
	}
}

func (final) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next // its retries happen below it
}

// finalError hides an error's type from go-redis, which decides by it whether to
// try again. That a deadline has passed may be known.
type finalError struct{ err error }

func (e finalError) Error() string { return e.err.Error() }

func (e finalError) Is(target error) bool {
	return (target == context.DeadlineExceeded || target == context.Canceled) && errors.Is(e.err, target)
}

// Once is a command that a pipeline in a cluster does not send again either:
//
//	pipe.Process(ctx, redisurl.Once{redis.NewCmd(ctx, "xadd", …)})
//
// One of them keeps all commands of the pipeline to the same node from it.
type Once struct{ redis.Cmder }

// NoRetry tells go-redis.
func (Once) NoRetry() bool { return true }

// told is where go-redis says something; nil is nowhere.
var told atomic.Pointer[slog.Logger]

// LogTo has what go-redis says logged, at level debug. It has one voice for all
// clients of a process, and is silent until somebody listens.
func LogTo(log *slog.Logger) { told.Store(log) }

// quiet keeps go-redis from printing.
var quiet = sync.OnceFunc(func() { redis.SetLogger(logger{}) })

type logger struct{}

func (logger) Printf(ctx context.Context, format string, args ...any) {
	if log := told.Load(); log != nil && log.Enabled(ctx, slog.LevelDebug) {
		log.DebugContext(ctx, "go-redis", "says", fmt.Sprintf(format, args...))
	}
}
