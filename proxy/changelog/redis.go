package changelog

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"walcache/proxy/coherence"
	"walcache/proxy/redisurl"
)

// redisLog keeps the log in Redis, or in the Redis Cluster or behind the
// Sentinels that the URL names. Every command is about one key.
type redisLog struct {
	redisSource                       // for whoever asks
	writing     redis.UniversalClient // one connection: a new one shows
	tail        redisSource           // one connection: a new one shows
}

// redisSource is what is read over the connections of one client.
type redisSource struct {
	redis.UniversalClient
	prefix     string
	connection *atomic.Uint64 // counts the connections
}

// Open makes the log that all processes share which give the same Redis and
// prefix. It connects to nothing yet.
func Open(tracker *coherence.Tracker, url, prefix string, logger *slog.Logger) (*Log, error) {
	var l *Log
	writing, err := redisurl.Open(url, alone(func() { l.writer.reconnected() }))
	if err != nil {
		return nil, err
	}
	var connections atomic.Uint64
	following, err := redisurl.Open(url, alone(func() { connections.Add(1) }))
	if err != nil {
		return nil, errors.Join(err, writing.Close())
	}
	asking, err := redisurl.Open(url, func(o *redis.UniversalOptions) { o.ReadTimeout, o.WriteTimeout = longest, longest })
	if err != nil {
		return nil, errors.Join(err, writing.Close(), following.Close())
	}
	r := &redisLog{
		redisSource: redisSource{asking, prefix, new(atomic.Uint64)},
		writing:     writing,
		tail:        redisSource{following, prefix, &connections},
	}
	l = newLog(tracker, r, r.tail, logger)
	return l, nil
}

// longest is longer than any call may take: each has a deadline of its own.
const longest = time.Minute

// alone has a client use one connection for as long as it lives, and tell of
// another.
func alone(connected func()) func(*redis.UniversalOptions) {
	return func(o *redis.UniversalOptions) {
		o.PoolSize, o.MinIdleConns, o.ConnMaxIdleTime, o.ConnMaxLifetime = 1, 0, -1, 0
		o.ReadTimeout, o.WriteTimeout = longest, longest
		o.OnConnect = func(context.Context, *redis.Conn) error {
			connected()
			return nil
		}
	}
}

// Close closes the connections. Run has returned by then.
func (l *Log) Close() error {
	r, ok := l.remote.(*redisLog)
	if !ok {
		return nil
	}
	return errors.Join(r.writing.Close(), r.tail.Close(), r.redisSource.Close())
}

func (r redisSource) log() string        { return r.prefix + "log" }
func (r redisSource) checkpoint() string { return r.prefix + "checkpoint" }
func (r redisSource) members() string    { return r.prefix + "members" }
func (r redisSource) cluster() string    { return r.prefix + "cluster" }

// field is the only field of an entry of the stream.
const field = "e"

func (r redisSource) line(ctx context.Context) (string, error) {
	value, err := r.GetRange(ctx, r.checkpoint(), 0, maxHead-1).Result()
	return lineOf(value), mistyped(err)
}

func (r redisSource) load(ctx context.Context) ([]byte, error) {
	value, err := r.Get(ctx, r.checkpoint()).Bytes()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	return value, mistyped(err)
}

// mistyped is nil for the error that says that something else has one of our
// names: that is as good as nothing. Whoever writes next replaces it.
func mistyped(err error) error {
	if isMistyped(err) {
		return nil
	}
	return err
}

func isMistyped(err error) bool { return err != nil && strings.HasPrefix(err.Error(), "WRONGTYPE") }

func (r redisSource) read(ctx context.Context, after string, limit int, block time.Duration) ([]stored, uint64, error) {
	if block == 0 {
		block = -1 // 0 waits for ever
	}
	streams, err := r.XRead(ctx, &redis.XReadArgs{Streams: []string{r.log(), after}, Count: int64(limit), Block: block}).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, 0, err
	}
	var entries []stored
	for _, stream := range streams {
		for _, m := range stream.Messages {
			data, _ := m.Values[field].(string)
			entries = append(entries, stored{m.ID, []byte(data)})
		}
	}
	return entries, r.connection.Load(), nil
}

func (r *redisLog) append(ctx context.Context, data []byte) (id string, err error) {
	return r.writing.XAdd(ctx, &redis.XAddArgs{Stream: r.log(), Values: []any{field, data}}).Result()
}

func (r *redisLog) last(ctx context.Context) (id string, err error) {
	entries, err := r.writing.XRevRangeN(ctx, r.log(), "+", "-", 1).Result()
	if isMistyped(err) { // what has our name is not ours
		err = r.writing.Unlink(ctx, r.log()).Err()
	}
	if err != nil || len(entries) == 0 {
		return fromTheStart, err
	}
	return entries[0].ID, nil
}

func (r *redisLog) trim(ctx context.Context, before string) error {
	return r.writing.XTrimMinIDApprox(ctx, r.log(), before, 0).Err()
}

func (r *redisLog) intact(ctx context.Context, h head, ids ...string) (bool, error) {
	line := h.line()
	begins, err := r.writing.GetRange(ctx, r.checkpoint(), 0, int64(len(line))-1).Result()
	if err != nil || begins != line {
		return false, mistyped(err)
	}
	for _, id := range ids {
		entries, err := r.writing.XRangeN(ctx, r.log(), id, id, 1).Result()
		if err != nil || len(entries) == 0 {
			return false, mistyped(err)
		}
	}
	return true, nil
}

// replace puts a checkpoint in the place of the one that its leader found, of one
// of its epoch, of one of the epoch that it began upon, or of none. Not of what
// it wrote later itself, though: this one may come late; and of a later leader's
// only if it was found: the catalogs of leaders that follow one another have ever
// later terms.
//
// KEYS[1] is the checkpoint. ARGV[1] is the value, ARGV[2] the line that was
// found, the others the fields of the value's own first line after the version.
// It returns "" if the value is there now, and otherwise the line of what is.
var replace = redis.NewScript(`
local kind = redis.call('TYPE', KEYS[1])
if type(kind) == 'table' then kind = kind.ok end
local value, found, epoch, base, by, term, edition, known = unpack(ARGV)
if kind == 'string' then
  local line = string.match(redis.call('GETRANGE', KEYS[1], 0, 255), '^(walcache1 [^\n]*\n)')
  if line and line ~= found then
    local was = {string.match(line, '^%S+ (%S+) %S+ (%S+) (%x+) (%x+) (%x+) %S+\n$')}
    local follows = was[1] == epoch or was[1] == base
    if not follows or was[3] > term then return line end
    if was[2] == by and (was[4] > edition or was[5] > known) then return line end
  end
end
redis.call('SET', KEYS[1], value)
return ''
`)

func (r *redisLog) save(ctx context.Context, found string, h head, value []byte) error {
	args := []any{value, found}
	for _, field := range h.fields()[1:] {
		args = append(args, field)
	}
	there, err := replace.Eval(ctx, r.writing, []string{r.checkpoint()}, args...).Text()
	if err == nil && there != "" {
		err = errSuperseded
	}
	return err
}

func (r *redisLog) identify(ctx context.Context, ours string) (string, error) {
	name, err := r.Get(ctx, r.cluster()).Result()
	if !errors.Is(err, redis.Nil) {
		return name, err
	}
	if err := r.SetNX(ctx, r.cluster(), ours, 0).Err(); err != nil {
		return "", err
	}
	return r.Get(ctx, r.cluster()).Result()
}

func (r *redisLog) report(ctx context.Context, id string, data []byte) error {
	return r.HSet(ctx, r.redisSource.members(), id, data).Err()
}

func (r *redisLog) reports(ctx context.Context) (map[string][]byte, error) {
	all, err := r.HGetAll(ctx, r.redisSource.members()).Result()
	members := map[string][]byte{}
	for id, data := range all {
		members[id] = []byte(data)
	}
	return members, err
}

func (r *redisLog) forget(ctx context.Context, id string) error {
	return r.HDel(ctx, r.redisSource.members(), id).Err()
}
