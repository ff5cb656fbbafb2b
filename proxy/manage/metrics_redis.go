package manage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// memoryUsage, connections, server and keyspace are what Redis says of itself,
// over all servers that take writes.
type memoryUsage struct {
	Bytes uint64 `json:"used_memory_bytes"`
	Human string `json:"used_memory_human"`
}

type connections struct {
	Clients  uint64 `json:"connected_clients"`
	Received uint64 `json:"total_connections_received"`
	Commands uint64 `json:"total_commands_processed"`
}

type serverInfo struct {
	Version string `json:"redis_version"`
	Uptime  int64  `json:"uptime_seconds"`
	Human   string `json:"uptime_human"`
}

type keyspace struct {
	Keys    uint64 `json:"keys"`
	Expires uint64 `json:"expires"`
	AvgTTL  uint64 `json:"avg_ttl"` // milliseconds
}

// redisFigures is what else there is to know of Redis. What it did not say is
// null.
type redisFigures struct {
	Kind          string   `json:"kind"`    // one server, sentinel, cluster, or in-process
	Servers       int      `json:"servers"` // that take writes
	MaxMemory     *uint64  `json:"maxmemory_bytes"`
	UsedShare     *float64 `json:"used_share_of_maxmemory"` // of the fullest; null without a limit
	Policy        string   `json:"maxmemory_policy"`
	Evicted       *uint64  `json:"evicted_keys"`
	Expired       *uint64  `json:"expired_keys"`
	Rejected      *uint64  `json:"rejected_connections"`
	Fragmentation *float64 `json:"fragmentation_ratio"`
	SlowLog       *int64   `json:"slow_log_length"`
	Slowest       *slow    `json:"slow_log_last"`
	LogBytes      *int64   `json:"change_log_bytes"`
	Checkpoint    *int64   `json:"checkpoint_bytes"`
	Role          string   `json:"role"`
	Persistence   string   `json:"persistence"` // what of it is on, and how the last save went
	usedBytes     uint64
}

// slow is a command that took long. Its arguments are not told: data is in them.
type slow struct {
	Command string    `json:"command"`
	At      time.Time `json:"at"`
	Took    float64   `json:"took_ms"`
}

// redisReading is what one look at Redis brought.
type redisReading struct {
	hits, misses uint64
	memory       memoryUsage
	connections  connections
	server       serverInfo
	keyspace     map[string]keyspace
	figures      redisFigures
	complete     bool // false for a server that says only a little of itself
}

// lookTime bounds a look at Redis.
const lookTime = 2 * time.Second

// readRedis asks every server that takes writes. The error is that of one that
// did not answer: sums without it would say something else.
func readRedis(ctx context.Context, client redis.UniversalClient, prefix string) (redisReading, error) {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	var mu sync.Mutex // guards the following
	var infos []info
	r := redisReading{keyspace: map[string]keyspace{}}
	err := eachServer(ctx, client, func(ctx context.Context, server *redis.Client) error {
		text, err := server.Info(ctx).Result()
		if err != nil {
			return err
		}
		length, last := readSlowLog(ctx, server)
		mu.Lock()
		defer mu.Unlock()
		infos = append(infos, parseInfo(text))
		r.figures.addSlowLog(length, last)
		return nil
	})
	if err == nil && len(infos) == 0 {
		err = errors.New("the cluster has no server that takes writes")
	}
	if err != nil {
		return redisReading{}, err
	}
	r.add(infos)
	if n, err := client.DBSize(ctx).Result(); err == nil && !r.complete && n > 0 {
		r.keyspace["db0"] = keyspace{Keys: uint64(n)}
	}
	r.figures.Kind = kindOf(client, r.complete)
	r.figures.LogBytes = sizeOf(ctx, client, prefix+"log")
	r.figures.Checkpoint = sizeOf(ctx, client, prefix+"checkpoint")
	return r, nil
}

// eachServer calls do for every server that takes writes, several at a time.
func eachServer(ctx context.Context, client redis.UniversalClient, do func(context.Context, *redis.Client) error) error {
	switch c := client.(type) {
	case *redis.ClusterClient:
		return c.ForEachMaster(ctx, do)
	case *redis.Client:
		return do(ctx, c)
	}
	return errors.New("no client that redisurl makes")
}

func kindOf(client redis.UniversalClient, complete bool) string {
	switch c := client.(type) {
	case *redis.ClusterClient:
		return "cluster"
	case *redis.Client:
		if c.Options().Addr == "FailoverClient" { // what go-redis calls the address that Sentinels give
			return "sentinel"
		}
	}
	if !complete {
		return "in-process"
	}
	return "one server"
}

// readSlowLog returns the log's length and its last command; nil where the
// server does not tell.
func readSlowLog(ctx context.Context, server *redis.Client) (*int64, *slow) {
	length, err := server.Do(ctx, "slowlog", "len").Int64()
	if err != nil {
		return nil, nil
	}
	entries, err := server.SlowLogGet(ctx, 1).Result()
	if err != nil || len(entries) == 0 || len(entries[0].Args) == 0 {
		return &length, nil
	}
	e := entries[0]
	return &length, &slow{Command: strings.ToUpper(e.Args[0]), At: e.Time, Took: float64(e.Duration) / float64(time.Millisecond)}
}

func (f *redisFigures) addSlowLog(length *int64, last *slow) {
	if length != nil {
		f.SlowLog = new(*length + valueOf(f.SlowLog))
	}
	if last != nil && (f.Slowest == nil || last.At.After(f.Slowest.At)) {
		f.Slowest = last
	}
}

// sizeOf is how many bytes a key takes up, nil where the server does not tell.
func sizeOf(ctx context.Context, client redis.UniversalClient, key string) *int64 {
	n, err := client.MemoryUsage(ctx, key).Result()
	if errors.Is(err, redis.Nil) {
		return new(int64(0))
	}
	if err != nil {
		return nil
	}
	return &n
}

// add sums up what the servers say of themselves.
func (r *redisReading) add(infos []info) {
	sum := func(name string) (n uint64) {
		for _, i := range infos {
			n += i.number(name)
		}
		return n
	}
	known := func(name string) *uint64 {
		if !slices.ContainsFunc(infos, func(i info) bool { return i[name] != "" }) {
			return nil
		}
		return new(sum(name))
	}
	r.complete = !slices.ContainsFunc(infos, func(i info) bool { return i["redis_version"] == "" })
	r.hits, r.misses = sum("keyspace_hits"), sum("keyspace_misses")
	r.memory = memoryUsage{sum("used_memory"), human(sum("used_memory"))}
	r.connections = connections{sum("connected_clients"), sum("total_connections_received"), sum("total_commands_processed")}
	youngest := slices.MinFunc(infos, func(a, b info) int { return cmp.Compare(a.number("uptime_in_seconds"), b.number("uptime_in_seconds")) })
	r.server = newServerInfo(all(infos, "redis_version"), time.Duration(youngest.number("uptime_in_seconds"))*time.Second)
	for _, i := range infos {
		i.addKeyspace(r.keyspace)
	}
	f := &r.figures
	f.Servers, f.usedBytes = len(infos), r.memory.Bytes
	f.MaxMemory, f.Evicted, f.Expired, f.Rejected = known("maxmemory"), known("evicted_keys"), known("expired_keys"), known("rejected_connections")
	f.Policy, f.Role, f.Persistence = all(infos, "maxmemory_policy"), all(infos, "role"), persistence(infos)
	for _, i := range infos {
		if limit := i.number("maxmemory"); limit > 0 {
			f.UsedShare = new(max(valueOf(f.UsedShare), float64(i.number("used_memory"))/float64(limit)))
		}
		if ratio, err := strconv.ParseFloat(i["mem_fragmentation_ratio"], 64); err == nil {
			f.Fragmentation = new(max(valueOf(f.Fragmentation), ratio))
		}
	}
}

func newServerInfo(version string, up time.Duration) serverInfo {
	s := int64(up / time.Second)
	return serverInfo{version, s, fmt.Sprintf("%dd %dh %dm", s/86400, s/3600%24, s/60%60)}
}

// persistence says what of it is on, and what went wrong.
func persistence(infos []info) string {
	if infos[0]["aof_enabled"] == "" {
		return ""
	}
	var says []string
	add := func(yes bool, text string) {
		if yes && !slices.Contains(says, text) {
			says = append(says, text)
		}
	}
	for _, i := range infos {
		add(i["aof_enabled"] == "1", "append-only file")
		add(i.number("rdb_saves") > 0, "snapshots")
		add(i["aof_last_write_status"] == "err", "the append-only file could not be written")
		add(i["rdb_last_bgsave_status"] == "err", "the last snapshot failed")
	}
	return cmp.Or(strings.Join(says, "; "), "none so far")
}

// info is what a server says of itself, by name.
type info map[string]string

func parseInfo(text string) info {
	i := info{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok && !strings.HasPrefix(name, "#") {
			i[name] = value
		}
	}
	return i
}

// number is 0 for what is no number.
func (i info) number(name string) uint64 {
	n, _ := strconv.ParseUint(i[name], 10, 64)
	return n
}

// addKeyspace adds what the server says of its databases, such as
// db0:keys=2,expires=1,avg_ttl=1000. The time to live of several is weighed by
// the keys that have one.
func (i info) addKeyspace(to map[string]keyspace) {
	for name, text := range i {
		if number, ok := strings.CutPrefix(name, "db"); !ok || strings.Trim(number, "0123456789") != "" || number == "" {
			continue
		}
		of := info{}
		for pair := range strings.SplitSeq(text, ",") {
			name, value, _ := strings.Cut(pair, "=")
			of[name] = value
		}
		k := to[name]
		expires := k.Expires + of.number("expires")
		if expires > 0 {
			k.AvgTTL = (k.AvgTTL*k.Expires + of.number("avg_ttl")*of.number("expires")) / expires
		}
		k.Keys, k.Expires = k.Keys+of.number("keys"), expires
		to[name] = k
	}
}

// all joins the different values of several servers.
func all(infos []info, name string) string {
	values := map[string]bool{}
	for _, i := range infos {
		if i[name] != "" {
			values[i[name]] = true
		}
	}
	return strings.Join(slices.Sorted(maps.Keys(values)), ", ")
}

// human writes bytes as Redis does: 1.08M.
func human(bytes uint64) string {
	units, n := "BKMGT", float64(bytes)
	for n >= 1024 && len(units) > 1 {
		n, units = n/1024, units[1:]
	}
	if units[0] == 'B' {
		return strconv.FormatUint(bytes, 10) + "B"
	}
	return strconv.FormatFloat(n, 'f', 2, 64) + units[:1]
}

// valueOf is 0 for nil.
func valueOf[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}
