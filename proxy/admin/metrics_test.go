package admin

import (
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"walcache/proxy/changelog"
	"walcache/proxy/sandbox/sandboxtest"
	"walcache/proxy/store"
)

// documented are the rows of docs/metrics.md, by name: type, unit, label, text.
func documented(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string][]string{}
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.Trim(line, "| \n"), " | ")
		if name := strings.Trim(cells[0], "`"); strings.HasPrefix(name, "walcache_") {
			rows[name] = cells[1:]
		}
	}
	return rows
}

func TestMetrics_AreThoseOfTheDocumentation(t *testing.T) {
	rows := documented(t)
	for _, m := range metrics {
		row := rows[m.name]
		delete(rows, m.name)
		kind := map[prometheus.ValueType]string{counter: "counter", gauge: "gauge"}[m.kind]
		if len(row) != 4 || row[0] != kind || strings.TrimSpace(row[2]) != m.label || row[3] != m.help {
			t.Errorf("%s is %q in docs/metrics.md, and is %s with label %q: %s", m.name, row, kind, m.label, m.help)
			continue
		}
		unit := row[1]
		for _, u := range []string{"bytes", "seconds"} {
			if inName := strings.HasSuffix(strings.TrimSuffix(m.name, "_total"), "_"+u); inName != (unit == u) {
				t.Errorf("%s has the unit %q in docs/metrics.md", m.name, unit)
			}
		}
		if strings.HasSuffix(m.name, "_total") != (m.kind == counter) {
			t.Errorf("%s is a %s: only counters end in _total", m.name, kind)
		}
	}
	for name := range rows {
		t.Errorf("docs/metrics.md has %s, which is not served", name)
	}
}

// scrape reads /metrics as Prometheus does.
func scrape(t *testing.T, p *proxy) map[string]*dto.MetricFamily {
	t.Helper()
	w := send(New(Config{Addr: loopback}, p.sources), "GET", "/metrics")
	if w.Code != 200 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// busy is a proxy that has a value for every metric.
func busy(t *testing.T) *proxy {
	p := newProxy(t)
	url, prefix := sandboxtest.Redis(t)
	var err error
	p.sources.Records, err = changelog.Open(p.sources.Tracker, url, prefix, slog.New(slog.DiscardHandler))
	p.must(err)
	p.sources.Pages, err = store.NewRedis(store.RedisConfig{URL: url, Prefix: prefix})
	p.must(err)
	t.Cleanup(func() {
		p.must(p.sources.Records.Close())
		p.must(p.sources.Pages.Close())
	})
	p.ask("/properties") // refused: nothing is known
	p.beat()
	p.ask("/properties", "/properties")
	p.commit("properties", 3)
	p.ask("/properties")
	p.ask("/other") // no tag of the catalog
	return p
}

func TestMetrics_AreServedUnderTheirTypes(t *testing.T) {
	served := scrape(t, busy(t))
	types := map[prometheus.ValueType]dto.MetricType{counter: dto.MetricType_COUNTER, gauge: dto.MetricType_GAUGE}
	// What needs a listener that runs, pages below, a service that fails or a client that
	// sends a body has no value here.
	absent := map[string]bool{"walcache_requests_refused_total": true, "walcache_slot_retained_wal_bytes": true, "walcache_slot_wal_status": true, "walcache_stale_total": true, "walcache_bypassed_total": true,
		"walcache_redis_dropped_total": true, "walcache_leases_total": true}
	for _, m := range metrics {
		f := served[m.name]
		if f == nil {
			if !absent[m.name] {
				t.Errorf("%s is not served", m.name)
			}
			continue
		}
		if f.GetType() != types[m.kind] || f.GetHelp() != m.help {
			t.Errorf("%s is a %s: %s", m.name, f.GetType(), f.GetHelp())
		}
		for _, v := range f.GetMetric() {
			if labels := v.GetLabel(); m.label == "" && len(labels) > 0 || m.label != "" && (len(labels) != 1 || labels[0].GetName() != m.label) {
				t.Errorf("%s has labels %v, want %q", m.name, labels, m.label)
			}
		}
		delete(served, m.name)
	}
	for name := range served {
		if !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") {
			t.Errorf("%s is served and not in the table", name)
		}
	}
}

func TestMetrics_SayWhatTheStatusSays(t *testing.T) {
	served := scrape(t, busy(t))
	for name, want := range map[string]float64{
		"walcache_hits_total memory":                   1,
		"walcache_hit_bytes_total":                     5,
		"walcache_misses_total changed":                1,
		"walcache_table_rows_changed_total properties": 3,
		"walcache_table_hits_lost_total properties":    1,
		"walcache_vouches":                             1,
		"walcache_tracker_slots":                       4096,
		"walcache_memory_pages":                        2,
		"walcache_upstream_requests_total fetch":       4,
		"walcache_upstream_requests fetch":             0,
	} {
		name, label, _ := strings.Cut(name, " ")
		if got, ok := value(served[name], label); !ok || got != want {
			t.Errorf("%s{%s} is %v (%t), want %v", name, label, got, ok, want)
		}
	}
}

// value finds that of a label's value, or the only one.
func value(f *dto.MetricFamily, label string) (float64, bool) {
	for _, m := range f.GetMetric() {
		if label == "" || len(m.GetLabel()) == 1 && m.GetLabel()[0].GetValue() == label {
			return m.GetCounter().GetValue() + m.GetGauge().GetValue(), true
		}
	}
	return 0, false
}

func TestMetrics_AnOrdinaryCacheServesNoneOfCoherence(t *testing.T) {
	served := scrape(t, ordinary(t))
	for _, name := range []string{"walcache_vouches", "walcache_fresh_age_seconds", "walcache_tracker_slots"} {
		if served[name] != nil {
			t.Errorf("%s is served", name)
		}
	}
	if served["walcache_memory_bytes"] == nil {
		t.Error("walcache_memory_bytes is not served")
	}
}
