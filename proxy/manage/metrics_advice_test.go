package manage

import (
	"strings"
	"testing"
	"time"

	"walcache/proxy/cache"
	"walcache/proxy/sandbox/sandboxtest"
	"walcache/proxy/store"
)

func TestAdvise_SaysWhatStandsOut(t *testing.T) {
	misses := map[string]uint64{"changed": 60, "uri-miss": 40}
	for seen, f := range map[string]facts{
		"cannot prove":                   {proxy: proxyFigures{Vouches: new(false)}},
		"switched off":                   {proxy: proxyFigures{Off: true}},
		"not asked for pages (once":      {proxy: proxyFigures{Pages: &store.RedisStats{BreakerOpen: true, Opened: 1}}},
		"cannot be seen: sessions":       {blind: []string{"sessions"}},
		"/p/{} has 70 of all 100 misses": {proxy: proxyFigures{Misses: misses, Ratio: percent{50, 200}, Routes: []cache.RouteStats{{Route: "/p/{}", Misses: 70, Reasons: misses}}}},
		"table prices turned 60 hits":    {proxy: proxyFigures{Misses: misses, Ratio: percent{90, 1000}, WorstTable: "prices", Turned: 60}},
		"no memory limit":                {redis: &redisFigures{MaxMemory: new(uint64(0))}},
		"makes no room by itself":        {redis: &redisFigures{MaxMemory: new(uint64(1)), Policy: "noeviction"}},
		"may evict any key":              {redis: &redisFigures{Policy: "allkeys-lru"}},
		"uses 95% of its maxmemory":      {redis: &redisFigures{UsedShare: new(0.95)}},
		"evicted 1,234 keys":             {redis: &redisFigures{Evicted: new(uint64(1234)), Policy: "volatile-lru"}},
		"checkpoint take up 60.00M":      {redis: &redisFigures{LogBytes: new(int64(50 << 20)), Checkpoint: new(int64(10 << 20))}},
		"rejected 3 connections":         {redis: &redisFigures{Rejected: new(uint64(3))}},
		"KEYS took Redis 20.5 ms":        {redis: &redisFigures{Slowest: &slow{Command: "KEYS", At: time.Now(), Took: 20.5}}, at: time.Now()},
		"2.0 times the memory":           {redis: &redisFigures{Fragmentation: new(2.0), usedBytes: 1 << 30}},
		"answers as a replica":           {redis: &redisFigures{Role: "slave"}},
		"cannot save: the last snapshot": {redis: &redisFigures{Persistence: "the last snapshot failed"}},
	} {
		all := advise(f)
		if len(all) != 1 || !strings.Contains(all[0].Seen, seen) || all[0].Why == "" || all[0].Do == "" {
			t.Errorf("want %q alone: %+v", seen, all)
		}
	}
	if all := advise(facts{proxy: proxyFigures{Vouches: new(true), Ratio: percent{99, 1000}, Misses: misses}, redis: &redisFigures{MaxMemory: new(uint64(1 << 30)), UsedShare: new(0.5), Policy: "volatile-lru"}}); len(all) != 0 {
		t.Errorf("of a cache that does well: %+v", all)
	}
	both := advise(facts{proxy: proxyFigures{Off: true}, redis: &redisFigures{Policy: "allkeys-lru"}})
	if len(both) != 2 || both[0].Level != act || both[1].Level != watch {
		t.Errorf("what is urgent does not come first: %+v", both)
	}
}

func TestAdvise_KnowsAFullRedis(t *testing.T) {
	server := sandboxtest.OwnRedis(t)
	p := newProxyOn(t, server.URL(), "wc:")
	p.must(p.client.ConfigSet(t.Context(), "maxmemory-policy", "allkeys-lru").Err())
	p.must(p.client.ConfigSet(t.Context(), "maxmemory", "4mb").Err())
	for i := range 80 {
		p.must(p.client.Set(t.Context(), strings.Repeat("k", i+1), make([]byte, 64<<10), time.Hour).Err())
	}
	r, text := metricsOf(t, p.monitor(p.manager()).serve, 200)
	for _, seen := range []string{"may evict any key", "evicted"} {
		if !strings.Contains(text, seen) {
			t.Errorf("%q is not in %+v", seen, r.Advice)
		}
	}
	if valueOf(r.Redis.Evicted) == 0 || valueOf(r.Redis.UsedShare) < 0.5 || valueOf(r.Redis.MaxMemory) != 4<<20 {
		t.Errorf("%+v", r.Redis)
	}
}

func TestAdvise_NamesTheRouteAndTheTableThatCostMost(t *testing.T) {
	p := newProxy(t)
	p.get("/properties/1")
	for range 30 {
		p.stream.commit("properties")
		p.get("/properties/1")
	}
	r, _ := metricsOf(t, p.monitor(p.manager()).serve, 200)
	if r.Proxy.WorstTable != "properties" || r.Proxy.Turned < 20 || len(r.Proxy.Routes) != 1 || r.Proxy.Routes[0].Misses != 31 {
		t.Errorf("%+v", r.Proxy)
	}
	var seen []string
	for _, a := range r.Advice {
		seen = append(seen, a.Seen)
	}
	if all := strings.Join(seen, "\n"); !strings.Contains(all, "/properties/{} has 31") || !strings.Contains(all, "table properties turned") {
		t.Errorf("%s", all)
	}
}
