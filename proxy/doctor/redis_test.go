package doctor

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"walcache/proxy/sandbox"
	"walcache/proxy/sandbox/sandboxtest"
)

// do runs commands on a Redis, each as one text.
func do(t *testing.T, c *redis.Client, commands ...string) {
	t.Helper()
	for _, command := range commands {
		var args []any
		for word := range strings.FieldsSeq(command) {
			args = append(args, word)
		}
		if err := c.Do(t.Context(), args...).Err(); err != nil {
			t.Fatalf("%s: %v", command, err)
		}
	}
}

func TestRedis_WithoutOneThereIsOneProcess(t *testing.T) {
	r := Examine(t.Context(), redisOnly("", "wc:"))
	expect(t, r, "redis.url", OK, "one process")
}

func TestRedis_EveryPolicyIsJudged(t *testing.T) {
	t.Parallel()
	own := sandboxtest.OwnRedis(t)
	c := connectRedis(t, own.URL())
	expect(t, Examine(t.Context(), redisOnly(own.URL(), "wc:")), "redis.memory", Warning, "maxmemory 0", "CONFIG SET maxmemory")
	do(t, c, "config set maxmemory 256mb")
	for policy, status := range map[string]Status{
		"volatile-lru": OK, "volatile-lfu": OK, "volatile-ttl": OK, "volatile-random": OK,
		"allkeys-lru": Warning, "allkeys-lfu": Warning, "allkeys-random": Warning, "noeviction": Warning,
	} {
		do(t, c, "config set maxmemory-policy "+policy)
		r := Examine(t.Context(), redisOnly(own.URL(), "wc:"))
		f := expect(t, r, "redis.eviction", status, policy)
		if status == Warning && !strings.Contains(f.Fix, "volatile-lru") {
			t.Error(f.Fix)
		}
		expect(t, r, "redis.memory", OK, "of 256 MiB in use")
	}
	do(t, c, "config set maxmemory 100mb", "config set maxmemory-policy volatile-lru")
	expect(t, Examine(t.Context(), redisOnly(own.URL(), "wc:")), "redis.memory", Warning, "maxmemory is 100 MiB", "64 MiB")
}

func TestRedis_AFullOneRefusesWhatTheProxySends(t *testing.T) {
	t.Parallel()
	own := sandboxtest.OwnRedis(t)
	c := connectRedis(t, own.URL())
	do(t, c, "config set maxmemory-policy noeviction")
	for i := range 140 {
		if err := c.Set(t.Context(), fmt.Sprint("other", i), strings.Repeat("x", 1<<20), 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	used := c.InfoMap(t.Context(), "memory").Item("Memory", "used_memory")
	bytes, err := strconv.Atoi(used)
	if err != nil {
		t.Fatalf("used_memory: %q", used)
	}
	do(t, c, fmt.Sprint("config set maxmemory ", bytes+room/2))
	r := Examine(t.Context(), redisOnly(own.URL(), "wc:"))
	expect(t, r, "redis.memory", Warning, "nothing is evicted")
	expect(t, r, "redis.commands", OK)
	do(t, c, "config set maxmemory 70mb")
	expect(t, Examine(t.Context(), redisOnly(own.URL(), "wc:")), "redis.commands", Error, "full", "raise maxmemory")
}

func TestRedis_AReplicaIsNotThePrimary(t *testing.T) {
	t.Parallel()
	s := sandboxtest.OwnRedisSentinel(t)
	replica := s.Servers[1].URL()
	r := Examine(t.Context(), redisOnly(replica, "wc:"))
	expect(t, r, "redis.primary", Error, "it is a replica", "name the primary")
	expect(t, r, "redis.commands", Error, "xadd", "(read-only)")
	r = Examine(t.Context(), redisOnly(s.Sentinels[0].URL(), "wc:"))
	expect(t, r, "redis.primary", Error, "it is a Sentinel", "redis+sentinel://")
	r = Examine(t.Context(), redisOnly(s.URL(), "wc:"))
	expect(t, r, "redis.primary", OK)
	expect(t, r, "redis.commands", OK)
}

func TestRedis_EveryNodeOfAClusterIsAsked(t *testing.T) {
	t.Parallel()
	cluster := sandboxtest.OwnRedisCluster(t)
	r := Examine(t.Context(), redisOnly(cluster.Nodes[0].URL(), "wc:"))
	expect(t, r, "redis.primary", Error, "node of a Redis Cluster", "redis+cluster://")
	do(t, connectRedis(t, cluster.Nodes[1].URL()), "config set maxmemory 256mb", "config set maxmemory-policy volatile-lru")
	r = Examine(t.Context(), redisOnly(cluster.URL(), "wc:"))
	counts := map[Status]int{}
	for _, f := range r {
		if f.Check == "redis.eviction" {
			counts[f.Status]++
			if f.Status == OK != strings.HasPrefix(f.What, fmt.Sprintf("127.0.0.1:%d: ", cluster.Nodes[1].Port())) {
				t.Errorf("%s: %s", f.Status, f.What)
			}
		}
	}
	if counts[OK] != 1 || counts[Warning] != 2 {
		t.Errorf("%v in\n%s", counts, r.text())
	}
	expect(t, r, "redis.commands", OK)
	expect(t, r, "redis.latency", OK)
}

// A right that is missing is told, and what it says helps. Nothing is executed.
func TestRedis_AUserWithoutRightsIsToldWhichOnes(t *testing.T) {
	t.Parallel()
	own := sandboxtest.OwnRedis(t)
	c := connectRedis(t, own.URL())
	poor := func(rules string) Config {
		do(t, c, "acl setuser app reset on >sesame-open "+rules)
		return redisOnly(withUser(t, own.URL(), "app", "sesame-open"), "wc:")
	}
	r := Examine(t.Context(), poor("~wc:* +@all -xadd -eval"))
	f := expect(t, r, "redis.commands", Error, "refused: xadd, eval", "ACL SETUSER <user> ~wc:* +xadd +eval")
	if f.What != "refused: xadd, eval" {
		t.Error(f.What)
	}
	r = Examine(t.Context(), poor("~other:* +@all"))
	expect(t, r, "redis.commands", Error, "xadd", "xread", "unlink", "~wc:*")

	r = Examine(t.Context(), poor("~wc:* +@all -info -multi"))
	for _, check := range []string{"version", "primary", "memory", "eviction"} {
		expect(t, r, "redis."+check, OK, "not told")
	}
	expect(t, r, "redis.commands", OK, "not told", "MULTI")
	r = Examine(t.Context(), poor("~wc:* +@all -discard"))
	expect(t, r, "redis.commands", OK, "not told")
	expect(t, r, "redis.latency", OK)
	if n := c.DBSize(t.Context()).Val(); n != 0 {
		t.Errorf("%d keys were made", n)
	}

	// No more than what is tried.
	rules := "~wc:* +multi +discard"
	for _, command := range trials("wc:") {
		rules += " +" + fmt.Sprint(command.args[0])
	}
	expect(t, Examine(t.Context(), poor(rules)), "redis.commands", OK, "all that the proxy sends")
}

func TestRedis_SaysWhyItCannotBeReached(t *testing.T) {
	t.Parallel()
	url, _ := sandboxtest.Redis(t)
	for broken, fix := range map[string]string{
		withUser(t, url, "", "sesame-open"):                                          "correct the user or the password",
		withUser(t, url, "app", "sesame-open"):                                       "correct the user or the password",
		strings.Replace(url, "://", "://x@", 1):                                      "",
		"redis://:sesame-open@127.0.0.1:1/0":                                         "start Redis, or correct REDIS_URL",
		"redis+cluster://:sesame-open@127.0.0.1:1":                                   "start Redis, or correct REDIS_URL",
		"redis+sentinel://:sesame-open@127.0.0.1:1/walcache":                         "start Redis, or correct REDIS_URL",
		"http://sesame-open@127.0.0.1":                                               "redis://",
		"redis://:sesame-open@127.0.0.1:port/0":                                      "percent-encoded",
		"redis+cluster" + strings.TrimPrefix(strings.TrimSuffix(url, "/0"), "redis"): "name it as one server: redis://",
	} {
		r := Examine(t.Context(), redisOnly(broken, "wc:"))
		expect(t, r, "redis.reachable", Error, fix)
		if strings.Contains(r.text(), "sesame-open") {
			t.Errorf("shown: %s", r.text())
		}
	}
}

func TestRedis_ARoundTripThatTakesLongIsTold(t *testing.T) {
	t.Parallel()
	config := redisOnly("", "wc:")
	config.RedisURL, config.Prefix = sandboxtest.Redis(t)
	config.limits.roundTrip = 1 // ns
	expect(t, Examine(t.Context(), config), "redis.latency", Warning, "nearer")
}

// The demo's, where there is no other: it knows less, and that is no fault.
func TestRedis_OneInThisProcessTellsLittle(t *testing.T) {
	t.Parallel()
	mini, err := sandbox.StartMiniredis(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = mini.Stop(t.Context()) })
	r := Examine(t.Context(), redisOnly(mini.URL(), "wc:"))
	for _, f := range r {
		if strings.HasPrefix(f.Check, "redis.") && f.Status != OK {
			t.Errorf("%s is %s: %s", f.Check, f.Status, f.What)
		}
	}
	expect(t, r, "redis.memory", OK, "not told")
	expect(t, r, "redis.commands", OK)
}
