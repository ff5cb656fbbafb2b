package manage

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"walcache/proxy/sandbox"
	"walcache/proxy/sandbox/sandboxtest"
)

// monitor is one of the proxy's own, whose samples the test takes.
func (p *proxy) monitor(m *Manager) *monitor { return newMonitor(p.Config, p.Sources, m.redis) }

// metricsOf asks for figures, as JSON.
func metricsOf(t *testing.T, h http.HandlerFunc, status int) (r report, text string) {
	t.Helper()
	w := send(h, "GET", "/properties/redis-metrics/?format=json", "", bearer)
	if w.Code != status {
		t.Fatalf("%d, want %d: %s", w.Code, status, w.Body)
	}
	into(t, w, &r)
	return r, w.Body.String()
}

// UnmarshalJSON is for tests alone: nobody else reads percents.
func (p *percent) UnmarshalJSON(text []byte) error {
	p.of = 1
	return json.Unmarshal(text, &p.value)
}

func TestRate_ByTheRatioBeforeItIsRounded(t *testing.T) {
	for _, c := range []struct {
		hits, misses uint64
		ratio        string
		rating       string
		list         int
		first, last  string
	}{
		{0, 0, "0", "Poor", 5, "Consider increasing cache timeout values", lowUsage},
		{90, 10, "90.0", "Excellent", 1, "Excellent cache performance. Continue monitoring.", "Excellent cache performance. Continue monitoring."},
		{89996, 10004, "90.0", "Very Good", 3, "Good performance, minor optimizations possible", "Consider pre-loading critical data"},
		{800, 200, "80.0", "Very Good", 3, "Good performance, minor optimizations possible", "Consider pre-loading critical data"},
		{79999, 20001, "80.0", "Good", 3, "Good performance, minor optimizations possible", "Consider pre-loading critical data"},
		{700, 300, "70.0", "Good", 3, "Good performance, minor optimizations possible", "Consider pre-loading critical data"},
		{69999, 30001, "70.0", "Fair", 3, "Fine-tune cache timeout values", "Review cache invalidation patterns"},
		{500, 500, "50.0", "Fair", 3, "Fine-tune cache timeout values", "Review cache invalidation patterns"},
		{49999, 50001, "50.0", "Poor", 4, "Consider increasing cache timeout values", "Analyze which data should be cached vs. fetched fresh"},
		{32, 26, "55.17", "Fair", 4, "Fine-tune cache timeout values", lowUsage},
		{99, 0, "100.0", "Excellent", 2, "Excellent cache performance. Continue monitoring.", lowUsage},
	} {
		p, a := rate(c.hits, c.misses)
		if p.HitRatio.String() != c.ratio || p.Rating != c.rating || len(a.Recommendations) != c.list ||
			a.Recommendations[0] != c.first || a.Recommendations[len(a.Recommendations)-1] != c.last || a.Efficiency == "" {
			t.Errorf("%d/%d: %s %s %q", c.hits, c.misses, p.HitRatio, p.Rating, a.Recommendations)
		}
	}
	if p, _ := rate(32, 26); p.MissRatio.String() != "44.83" {
		t.Errorf("misses %s", p.MissRatio)
	}
}

// keysInOrder are an object's keys, nested ones after their parent.
func keysInOrder(t *testing.T, text string) (keys []string) {
	t.Helper()
	for _, found := range regexp.MustCompile(`(?m)^ *"([a-z0-9_]+)":`).FindAllStringSubmatch(text, -1) {
		keys = append(keys, found[1])
	}
	return keys
}

func TestMetrics_AreThoseThatClientsKnow(t *testing.T) {
	server := sandboxtest.OwnRedis(t)
	p := newProxyOn(t, server.URL(), "wc:")
	p.must(p.client.Set(t.Context(), "here", "x", time.Hour).Err())
	p.must(p.client.ConfigResetStat(t.Context()).Err())
	for range 3 {
		p.must(p.client.Get(t.Context(), "here").Err())
	}
	_ = p.client.Get(t.Context(), "nowhere").Err()
	r, text := metricsOf(t, p.monitor(p.manager()).serve, 200)
	perf := r.Metrics.Performance
	if !r.Success || perf.Hits != 3 || perf.Misses != 1 || perf.Operations != 4 || perf.HitRatio.value != 75 || perf.MissRatio.value != 25 || perf.Rating != "Good" {
		t.Errorf("%+v", perf)
	}
	if !strings.Contains(text, `"hit_ratio_percent": 75.0,`) {
		t.Error("a ratio is not written with a point")
	}
	if db := r.Metrics.Keyspace["db0"]; db.Keys != 1 || db.Expires != 1 {
		t.Errorf("keyspace %v", r.Metrics.Keyspace)
	}
	if m := r.Metrics; m.Server.Version == "" || m.Memory.Bytes == 0 || !regexp.MustCompile(`^\d+\.\d\d[KM]$`).MatchString(m.Memory.Human) ||
		!regexp.MustCompile(`^\d+d \d+h \d+m$`).MatchString(m.Server.Human) || m.Connections.Clients == 0 {
		t.Errorf("%+v", m)
	}
	if at := time.Unix(r.Timestamp, 0); time.Since(at).Abs() > time.Minute {
		t.Errorf("timestamp %v", at)
	}
	want := `success metrics cache_performance keyspace_hits keyspace_misses total_operations hit_ratio_percent miss_ratio_percent performance_rating ` +
		`memory_usage used_memory_bytes used_memory_human connection_stats connected_clients total_connections_received total_commands_processed ` +
		`server_info redis_version uptime_seconds uptime_human keyspace_info db0 keys expires avg_ttl analysis cache_efficiency recommendations timestamp proxy`
	if got := strings.Join(keysInOrder(t, text), " "); !strings.HasPrefix(got, want) {
		t.Errorf("keys %s", got)
	}
	if r.Source.Redis != "one server" || len(r.Source.Ours) != 0 || r.Redis.Role != "master" || valueOf(r.Redis.LogBytes) != 0 {
		t.Errorf("%+v %+v", r.Source, r.Redis)
	}
}

func TestMetrics_OfARedisThatIsAwayAre503WithoutItsPassword(t *testing.T) {
	server := sandboxtest.OwnRedis(t)
	p := newProxyOn(t, server.URL(), "wc:")
	m := p.monitor(p.manager())
	p.must(server.Kill())
	r, text := metricsOf(t, m.serve, 503)
	if r.Success || r.Metrics != nil || !strings.HasPrefix(r.Error, "Error retrieving Redis cache metrics") || len(r.Recommendations) != 3 || r.Source.Redis != "away" {
		t.Errorf("%+v", r)
	}
	if !strings.HasPrefix(strings.Join(keysInOrder(t, text), " "), "success error metrics recommendations timestamp") {
		t.Errorf("keys %v", keysInOrder(t, text))
	}
	_, password, _ := strings.Cut(strings.Split(server.URL(), "@")[0], "://")
	if password = strings.TrimPrefix(password, ":"); password == "" || strings.Contains(text, password) {
		t.Errorf("password %q is shown: %s", password, text)
	}
	w := send(http.HandlerFunc(m.serve), "GET", "/properties/redis-metrics/", "")
	if w.Code != 503 || !strings.Contains(w.Body.String(), "<h1>Redis Metrics Error</h1>") || strings.Contains(w.Body.String(), password) ||
		!strings.Contains(w.Body.String(), "This Proxy") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestMetrics_OfTheRedisInThisProcessSayWhatWeCounted(t *testing.T) {
	server, err := sandbox.StartMiniredis(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Stop(t.Context()) })
	p := newProxyOn(t, server.URL(), "wc:")
	p.get("/properties/1") // which Redis does not have
	p.written(1)
	r, _ := metricsOf(t, p.monitor(p.manager()).serve, 200)
	if r.Source.Redis != "in-process" || len(r.Source.Ours) != 3 || r.Source.Note == "" {
		t.Errorf("%+v", r.Source)
	}
	if m := r.Metrics; m.Performance.Misses != 1 || m.Memory.Human == "" || m.Connections.Commands == 0 || m.Server.Version != "in-process" || m.Keyspace["db0"].Keys == 0 {
		t.Errorf("%+v", m)
	}
}

func TestMetrics_WithoutRedisAreThoseOfThisProcess(t *testing.T) {
	p := newProxyOn(t, "", "")
	p.get("/properties/1")
	p.get("/properties/1")
	r, _ := metricsOf(t, p.monitor(p.manager()).serve, 200)
	if m := r.Metrics; m.Performance.Hits != 1 || m.Performance.Misses != 1 || m.Memory.Human == "" || r.Redis != nil || r.Source.Redis != "none" || len(r.Source.Ours) != 5 {
		t.Errorf("%+v %+v", r.Metrics, r.Source)
	}
}

func TestMetrics_OfAClusterAreTheSumOverItsPrimaries(t *testing.T) {
	cluster := sandboxtest.OwnRedisCluster(t)
	p := newProxyOn(t, cluster.URL(), "wc:")
	m := p.monitor(p.manager())
	for i := range 30 {
		key := fmt.Sprint("key", i)
		p.must(p.client.Set(t.Context(), key, "x", time.Hour).Err())
		p.must(p.client.Get(t.Context(), key).Err())
		_ = p.client.Get(t.Context(), key+" is not there").Err()
	}
	r, _ := metricsOf(t, m.serve, 200)
	if perf := r.Metrics.Performance; perf.Hits != 30 || perf.Misses != 30 || r.Metrics.Keyspace["db0"].Keys != 30 {
		t.Errorf("%+v %+v", perf, r.Metrics.Keyspace)
	}
	if r.Redis.Kind != "cluster" || r.Redis.Servers != 3 || r.Redis.Role != "master" {
		t.Errorf("%+v", r.Redis)
	}
}

func TestMetrics_OfSentinelsAreThePrimarys(t *testing.T) {
	sentinel := sandboxtest.OwnRedisSentinel(t)
	p := newProxyOn(t, sentinel.URL(), "wc:")
	p.must(p.client.Set(t.Context(), "here", "x", 0).Err())
	r, text := metricsOf(t, p.monitor(p.manager()).serve, 200)
	if r.Redis.Kind != "sentinel" || r.Redis.Role != "master" || r.Metrics.Keyspace["db0"].Keys != 1 {
		t.Errorf("%s", text)
	}
}

func TestMetrics_AreGuarded(t *testing.T) {
	wantGuarded(t, newProxy(t), metricsName)
	wantGuarded(t, newProxy(t), metricsName+"/events")
}

func TestMetrics_FormatThenAcceptThenThePort(t *testing.T) {
	p := newProxy(t)
	p.Guard.Open = true
	m := p.manager()
	front, back := p.front(m), p.back(m)
	for _, c := range []struct {
		accept, query string
		front, back   string
	}{
		{"", "", "text/html", "application/json"},
		{"*/*", "", "text/html", "application/json"},
		{"text/html,*/*;q=0.8", "", "text/html", "text/html"},
		{"application/json, text/plain, */*", "", "application/json", "application/json"},
		{"text/html", "?format=json", "application/json", "application/json"},
		{"application/json", "?format=html", "text/html", "text/html"},
	} {
		for _, at := range []struct {
			h            http.Handler
			target, want string
		}{{front, "/properties/redis-metrics/", c.front}, {back, "/cache/metrics", c.back}} {
			w := send(at.h, "GET", at.target+c.query, "", "Accept: "+c.accept)
			if got, _, _ := strings.Cut(w.Header().Get("Content-Type"), ";"); got != at.want || w.Code != 200 {
				t.Errorf("%s%s, Accept %q: %d %s", at.target, c.query, c.accept, w.Code, got)
			}
			if varies := w.Header().Get("Vary") == "Accept"; varies != (c.query == "") {
				t.Errorf("%s%s: Vary %q", at.target, c.query, w.Header().Get("Vary"))
			}
		}
	}
	if w := send(front, "GET", "/properties/redis-metrics/?format=xml", ""); w.Code != 400 {
		t.Errorf("format=xml: %d", w.Code)
	}
}
