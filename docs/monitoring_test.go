package docs

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

// served are the names of all metrics: of the proxy, which a test of proxy/admin
// holds against docs/metrics.md, and of Go and the process as far as they are used.
func served(t *testing.T) []string {
	t.Helper()
	names := []string{"up", "ALERTS", "process_resident_memory_bytes", "go_memstats_heap_inuse_bytes"}
	for _, m := range regexp.MustCompile("(?m)^\\| `(walcache_[a-z_]+)`").FindAllStringSubmatch(read(t, "docs/metrics.md"), -1) {
		names = append(names, m[1])
	}
	return names
}

// word is what may be a metric's name in an expression, if it is no function.
var (
	word    = regexp.MustCompile(`\b[A-Za-z_]+_[a-z_]+\b|\bup\b|\bALERTS\b`)
	strange = []string{"group_left", "histogram_quantile", "label_values", "count_values"}
	quoted  = regexp.MustCompile(`"[^"]*"`)
)

// namesKnown fails where an expression, or a text that advises somebody, names a
// metric that there is none of.
func namesKnown(t *testing.T, where, expression string) {
	t.Helper()
	known := served(t)
	for _, name := range word.FindAllString(strings.ReplaceAll(quoted.ReplaceAllString(expression, ""), "$__", ""), -1) {
		if !slices.Contains(known, name) && !slices.Contains(strange, name) && name != "rate_interval" {
			t.Errorf("%s: there is no metric %s", where, name)
		}
	}
}

func parseYAML(t *testing.T, name string, into any) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(read(t, name)), into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// rule is one of an alert file, as far as these tests look.
type rule struct {
	Alert, Expr, For    string
	Labels, Annotations map[string]string
}

func alertRules(t *testing.T) []rule {
	t.Helper()
	var file struct{ Groups []struct{ Rules []rule } }
	parseYAML(t, "docs/monitoring/alerts.yml", &file)
	var rules []rule
	for _, g := range file.Groups {
		rules = append(rules, g.Rules...)
	}
	return rules
}

func TestAlerts_SayWhatIsWrongAndWhatToDo(t *testing.T) {
	rules := alertRules(t)
	if len(rules) != 5 {
		t.Errorf("%d rules, want 5", len(rules))
	}
	for _, r := range rules {
		namesKnown(t, r.Alert, r.Expr)
		if r.Alert == "" || r.For == "" || r.Annotations["summary"] == "" || len(r.Annotations["description"]) < 100 {
			t.Errorf("%q lacks a part: %+v", r.Alert, r)
		}
		if severity := r.Labels["severity"]; severity != "critical" && severity != "warning" {
			t.Errorf("%s: severity %q", r.Alert, severity)
		}
		for _, name := range regexp.MustCompile(`\bwalcache_\w+`).FindAllString(r.Annotations["description"], -1) {
			namesKnown(t, r.Alert, name)
		}
	}
}

// anchor is what a heading is linked by.
func anchor(heading string) string {
	text := regexp.MustCompile(`[^a-z0-9 -]`).ReplaceAllString(strings.ToLower(heading), "")
	return strings.ReplaceAll(text, " ", "-")
}

func TestAlerts_LeadToASectionThatIsThere(t *testing.T) {
	for _, r := range alertRules(t) {
		file, section, _ := strings.Cut(r.Annotations["runbook"], "#")
		found := false
		for _, heading := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(read(t, file), -1) {
			found = found || anchor(heading[1]) == section
		}
		if !found {
			t.Errorf("%s: %s has no section %q", r.Alert, file, section)
		}
	}
}

// Every alert has a case in which it fires and one in which it does not. That
// these hold promtool says: promtool test rules docs/monitoring/alerts_test.yml
func TestAlerts_AreTestedBothWays(t *testing.T) {
	var file struct {
		RuleFiles []string `yaml:"rule_files"`
		Tests     []struct {
			Cases []struct {
				Alert  string `yaml:"alertname"`
				Alerts []any  `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		}
	}
	parseYAML(t, "docs/monitoring/alerts_test.yml", &file)
	tested := map[string]bool{}
	for _, test := range file.Tests {
		for _, c := range test.Cases {
			tested[fmt.Sprint(c.Alert, " fires ", len(c.Alerts) > 0)] = true
		}
	}
	for _, r := range alertRules(t) {
		for _, fires := range []bool{true, false} {
			if !tested[fmt.Sprint(r.Alert, " fires ", fires)] {
				t.Errorf("no case in which %s fires: %t", r.Alert, fires)
			}
		}
	}
	if !slices.Equal(file.RuleFiles, []string{"alerts.yml"}) {
		t.Errorf("tested are %v", file.RuleFiles)
	}
}

func TestPrometheus_ScrapesTheProxyOfCompose(t *testing.T) {
	var config struct {
		RuleFiles []string `yaml:"rule_files"`
		Scrape    []struct {
			Job    string `yaml:"job_name"`
			Static []struct {
				Targets []string
			} `yaml:"static_configs"`
		} `yaml:"scrape_configs"`
	}
	parseYAML(t, "docs/monitoring/prometheus.yml", &config)
	project := mustLoad(t)
	proxy := project.Services["proxy"]
	_, port, _ := strings.Cut(*proxy.Environment["ADMIN_ADDR"], ":")
	if len(config.Scrape) != 1 || config.Scrape[0].Job != "walcache" || len(config.Scrape[0].Static) != 1 ||
		!slices.Equal(config.Scrape[0].Static[0].Targets, []string{"proxy:" + port}) {
		t.Errorf("scrapes %+v", config.Scrape)
	}
	// The admin port answers under names that it knows and no others.
	if hosts := strings.Split(*proxy.Environment["ADMIN_HOSTS"], ","); !slices.Contains(hosts, "proxy") {
		t.Errorf("the proxy is known as %v", hosts)
	}
	var mounted []string
	for _, v := range project.Services["prometheus"].Volumes {
		mounted = append(mounted, v.Target)
	}
	for _, file := range append(config.RuleFiles, "prometheus.yml") {
		if !slices.Contains(mounted, "/etc/prometheus/"+file) {
			t.Errorf("%s is not where Prometheus looks for it: %v", file, mounted)
		}
	}
}

// dashboard is what Grafana shows, as far as these tests look.
type dashboard struct {
	UID, Title string
	Panels     []panel
	Templating struct {
		List []struct{ Name, Definition string }
	}
	Annotations struct {
		List []struct {
			Name, Expr string
			Datasource struct{ UID string }
		}
	}
}

type panel struct {
	ID                       int
	Type, Title, Description string
	GridPos                  struct{ X, Y, W, H int }
	Datasource               struct{ UID string }
	Targets                  []struct {
		RefID, Expr, LegendFormat string
		Datasource                struct{ UID string }
	}
}

func loadDashboard(t *testing.T) (d dashboard) {
	t.Helper()
	if err := json.Unmarshal([]byte(read(t, "docs/monitoring/grafana/dashboards/walcache.json")), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestDashboard_NamesMetricsThatThereAre(t *testing.T) {
	d := loadDashboard(t)
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			namesKnown(t, p.Title, target.Expr)
		}
	}
	for _, a := range d.Annotations.List {
		namesKnown(t, a.Name, a.Expr)
	}
	for _, v := range d.Templating.List {
		namesKnown(t, v.Name, v.Definition)
	}
}

func TestDashboard_ShowsWhatTheCacheDoesAndCosts(t *testing.T) {
	all := ""
	for _, p := range loadDashboard(t).Panels {
		for _, target := range p.Targets {
			all += target.Expr + "\n"
		}
	}
	for _, metric := range []string{"walcache_hits_total", "walcache_misses_total", "walcache_bypassed_total", "walcache_refused_total", "walcache_vouches",
		"walcache_fresh_age_seconds", "walcache_slot_retained_wal_bytes", "walcache_upstream_requests_total", "walcache_upstream_failures_total",
		"walcache_memory_bytes", "walcache_log_appended_bytes_total", "walcache_checkpoint_bytes", "walcache_table_hits_lost_total", "walcache_redis_gets_total"} {
		if !strings.Contains(all, metric) {
			t.Errorf("%s is not shown", metric)
		}
	}
}

func TestDashboard_PanelsAreCompleteAndDoNotOverlap(t *testing.T) {
	d := loadDashboard(t)
	ids, taken := map[int]bool{}, map[[2]int]string{}
	for _, p := range d.Panels {
		if p.Title == "" || p.Description == "" || p.Type == "" || len(p.Targets) == 0 || ids[p.ID] {
			t.Errorf("panel %d %q lacks a part, or its number is another's", p.ID, p.Title)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" || x > 23 {
					t.Fatalf("%q is over %q", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		refs := map[string]bool{}
		for _, target := range p.Targets {
			if refs[target.RefID] || target.LegendFormat == "" {
				t.Errorf("%q: target %q stands twice, or has no legend", p.Title, target.RefID)
			}
			refs[target.RefID] = true
		}
	}
}

// What Grafana is given fits together: the source that the dashboard asks for, the
// place where it is looked for, and the server that it comes from.
func TestGrafana_FindsItsSourceAndItsDashboard(t *testing.T) {
	var sources struct {
		Datasources []struct{ UID, Type, URL string }
	}
	parseYAML(t, "docs/monitoring/grafana/datasources/prometheus.yml", &sources)
	if len(sources.Datasources) != 1 || sources.Datasources[0].Type != "prometheus" || sources.Datasources[0].URL != "http://prometheus:9090" {
		t.Fatalf("sources %+v", sources)
	}
	uid, d := sources.Datasources[0].UID, loadDashboard(t)
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			if p.Datasource.UID != uid || target.Datasource.UID != uid {
				t.Errorf("%q asks another source than %s", p.Title, uid)
			}
		}
	}
	var providers struct {
		Providers []struct{ Options struct{ Path string } }
	}
	parseYAML(t, "docs/monitoring/grafana/dashboards/provider.yml", &providers)
	grafana := mustLoad(t).Services["grafana"]
	home := *grafana.Environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
	for _, v := range grafana.Volumes {
		if v.Target != filepath.Dir(home) {
			continue
		}
		if _, err := os.Stat(filepath.Join(v.Source, filepath.Base(home))); err != nil || providers.Providers[0].Options.Path != v.Target {
			t.Errorf("dashboards are in %s, and looked for in %s: %v", v.Target, providers.Providers[0].Options.Path, err)
		}
		return
	}
	t.Errorf("nothing is mounted where %s is to be", home)
}
