package doctor

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"walcache/proxy/redisurl"
)

// redisServer asks a Redis, a Redis Cluster, or what Sentinels lead to.
type redisServer struct {
	notes
	client redis.UniversalClient
	nodes  []node // every primary
}

// node is one server.
type node struct {
	client *redis.Client
	addr   string
	info   map[string]string // what INFO says; a Redis in a process of its own says little
}

func examineRedis(ctx context.Context, config Config) Report {
	r := &redisServer{notes: notes{config: config, server: "redis", where: "Redis"}}
	if config.RedisURL == "" {
		r.ok("url", "none is given: this is one process, with what its own memory holds")
		return r.report
	}
	if !r.reachable(ctx) {
		return r.report
	}
	defer func() { _ = r.client.Close() }()
	r.run(ctx, []check{
		{"version", r.each(r.version)}, {"primary", r.each(r.primary)}, {"memory", r.each(r.memory)}, {"eviction", r.each(r.eviction)},
		{"commands", r.commands}, {"latency", r.latency},
	}, func() bool { return ctx.Err() == nil })
	return r.report
}

// openRedis opens a client that gives up in time.
func openRedis(config Config) (redis.UniversalClient, error) {
	patience := config.limits.patience
	return redisurl.Open(config.RedisURL, func(o *redis.UniversalOptions) {
		o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.PoolTimeout = patience, patience, patience, patience
	})
}

// reachable finds every primary and asks what it is.
func (r *redisServer) reachable(ctx context.Context) bool {
	client, err := openRedis(r.config)
	if err == nil {
		r.client, r.where = client, "Redis at "+redisurl.Address(r.config.RedisURL)
		if err = r.findNodes(ctx); err == nil {
			return true
		}
		_ = client.Close()
	}
	what, fix, told := strings.Cut(err.Error(), "\n  try: ")
	switch {
	case told:
	case hasCode(err, "WRONGPASS", "NOAUTH", "ERR AUTH", "ERR invalid password"):
		fix = "correct the user or the password in REDIS_URL (--redis-url)"
	case hasCode(err, "ERR This instance has cluster support disabled"):
		fix = "name it as one server: redis://host:6379/0"
	default:
		fix = "start Redis, or correct REDIS_URL (--redis-url)"
	}
	r.add("reachable", Finding{Status: Error, What: oneLine(what), Why: "processes share nothing without it: each has its own memory alone, and whoever does not listen vouches for nothing", Fix: fix})
	return false
}

func (r *redisServer) findNodes(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*r.config.limits.patience)
	defer cancel()
	var mu sync.Mutex // guards r.nodes
	add := func(ctx context.Context, c *redis.Client) error {
		if err := c.Ping(ctx).Err(); err != nil && !hasCode(err, "NOPERM") {
			return err
		}
		n := node{client: c, addr: c.Options().Addr, info: map[string]string{}}
		text, _ := c.Info(ctx).Result() // who may not ask is told nothing
		for line := range strings.Lines(text) {
			if key, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
				n.info[key] = value
			}
		}
		mu.Lock()
		defer mu.Unlock()
		r.nodes = append(r.nodes, n)
		return nil
	}
	switch c := r.client.(type) {
	case *redis.ClusterClient:
		if err := c.ForEachMaster(ctx, add); err != nil {
			return err
		}
	case *redis.Client:
		if err := add(ctx, c); err != nil {
			return err
		}
	}
	slices.SortFunc(r.nodes, func(a, b node) int { return cmp.Compare(a.addr, b.addr) })
	return nil
}

// hasCode reports whether an error is Redis's, and begins with one of the codes.
func hasCode(err error, codes ...string) bool {
	return slices.ContainsFunc(codes, func(code string) bool { return strings.HasPrefix(err.Error(), code) })
}

// each asks every node the same, and says of which it speaks if there are several.
func (r *redisServer) each(ask func(n node) (check string, f Finding)) func(context.Context) error {
	return func(context.Context) error {
		for _, n := range r.nodes {
			check, f := ask(n)
			if len(r.nodes) > 1 {
				f.What = n.addr + ": " + f.What
			}
			r.add(check, f)
		}
		return nil
	}
}

func (n node) number(key string) (int64, bool) {
	v, err := strconv.ParseInt(n.info[key], 10, 64)
	return v, err == nil
}

func (r *redisServer) version(n node) (string, Finding) {
	version, name := n.info["redis_version"], "Redis"
	if v := n.info["valkey_version"]; v != "" {
		name = "Valkey"
	}
	var major, minor int
	if _, err := fmt.Sscanf(version, "%d.%d", &major, &minor); err != nil {
		return "version", Finding{Status: OK, What: "not told"}
	}
	if major < 6 || major == 6 && minor < 2 {
		return "version", Finding{Status: Error, What: "it is Redis " + version, Why: "the log is trimmed in a way that came with 6.2", Fix: "upgrade to Redis 6.2 or later, or to Valkey"}
	}
	return "version", Finding{Status: OK, What: name + " " + cmp.Or(n.info["valkey_version"], version)}
}

func (r *redisServer) primary(n node) (string, Finding) {
	_, cluster := r.client.(*redis.ClusterClient)
	wrong := Finding{Status: Error, Why: "the log is written to and read from the primary alone"}
	switch mode := n.info["redis_mode"]; {
	case mode == "sentinel":
		wrong.What, wrong.Fix = "it is a Sentinel", "name it as one: redis+sentinel://host:26379/NAME/0"
	case mode == "cluster" && !cluster:
		wrong.What, wrong.Fix = "it is a node of a Redis Cluster", "name it as one: redis+cluster://host:7000,host:7001"
	case n.info["role"] == "slave":
		wrong.What, wrong.Fix = "it is a replica", "name the primary in REDIS_URL (--redis-url), or its Sentinels: redis+sentinel://host:26379/NAME/0"
	case n.info["role"] == "":
		return "primary", Finding{Status: OK, What: "not told"}
	default:
		return "primary", Finding{Status: OK, What: "it is a primary"}
	}
	return "primary", wrong
}

// room is what log and checkpoint take at most.
const room = 64 << 20

func (r *redisServer) memory(n node) (string, Finding) {
	limit, told := n.number("maxmemory")
	used, _ := n.number("used_memory")
	f := Finding{Status: Warning, Fix: "CONFIG SET maxmemory 1gb, and the same in redis.conf (or what your provider has for it)"}
	switch {
	case !told:
		return "memory", Finding{Status: OK, What: "not told"}
	case limit == 0:
		f.What, f.Why = "there is no limit (maxmemory 0)", "pages fill it until the system kills Redis, or something beside it"
	case limit < 2*room:
		f.What, f.Why = "maxmemory is "+size(limit), fmt.Sprintf("log and checkpoint may take %s of it", size(room))
	case n.info["maxmemory_policy"] == "noeviction" && limit-used < room:
		f.What, f.Why = fmt.Sprintf("%s of %s are in use, and nothing is evicted", size(used), size(limit)), fmt.Sprintf("log and checkpoint may need %s", size(room))
	default:
		return "memory", Finding{Status: OK, What: fmt.Sprintf("%s of %s in use", size(used), size(limit))}
	}
	return "memory", f
}

func (r *redisServer) eviction(n node) (string, Finding) {
	policy := n.info["maxmemory_policy"]
	f := Finding{Status: Warning, What: "maxmemory-policy is " + policy, Fix: "CONFIG SET maxmemory-policy volatile-lru, and the same in redis.conf (or what your provider has for it)"}
	switch {
	case policy == "":
		return "eviction", Finding{Status: OK, What: "not told"}
	case policy == "noeviction":
		f.Why = "a full Redis refuses writes: first pages are not stored any more, and then the log cannot go on, so that nobody vouches for anything"
	case strings.HasPrefix(policy, "allkeys-"):
		f.Why = "log and checkpoint can be evicted: hits are lost until the next checkpoint, never correctness"
	default:
		return "eviction", Finding{Status: OK, What: f.What + ": pages go, log and checkpoint stay"}
	}
	return "eviction", f
}

// latency is that of the quickest of a few round trips.
func (r *redisServer) latency(ctx context.Context) error {
	var best time.Duration
	for i := range 5 {
		began := time.Now()
		if err := r.client.Ping(ctx).Err(); err != nil && !isAnswer(err) {
			return err
		}
		if took := time.Since(began); i == 0 || took < best {
			best = took
		}
	}
	if best > r.config.limits.roundTrip {
		r.add("latency", Finding{Status: Warning, What: fmt.Sprintf("a round trip takes %s", best.Round(100*time.Microsecond)),
			Why: "each hit that is not in memory waits for one, and freshness is proven by two", Fix: "run Redis nearer to the proxies"})
		return nil
	}
	r.ok("latency", "a round trip takes less than %s", r.config.limits.roundTrip)
	return nil
}

// clusterOf returns the name that the proxies of this Redis and prefix go by, or
// "" if it is not known.
func clusterOf(ctx context.Context, config Config) string {
	if config.RedisURL == "" {
		return ""
	}
	client, err := openRedis(config)
	if err != nil {
		return ""
	}
	defer func() { _ = client.Close() }()
	name, _ := client.Get(ctx, config.Prefix+"cluster").Result()
	return name
}
