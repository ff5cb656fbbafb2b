package manage

import (
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestMetricsPage_IsWholeWithoutScripts(t *testing.T) {
	p := newProxy(t)
	m := p.monitor(p.manager())
	p.get("/properties/1")
	p.get("/properties/1")
	m.history.take(time.Now())
	w := send(http.HandlerFunc(m.serve), "GET", "/properties/redis-metrics/", "", "Accept: text/html")
	page := w.Body.String()
	for _, part := range []string{
		"<title>Redis Cache Metrics</title>", "<h1>Redis Cache Performance Metrics</h1>", "% Hit Ratio", `<span class="badge fair">Fair</span>`,
		"Used Memory", "Redis Version", "Cache Efficiency Analysis", "Recommendations:", "What Stands Out",
		`href="/properties/"`, "← Back to Properties", `href="/properties/cache-status/"`, `href="/properties/redis-metrics/?format=json"`, "<td>50.0%</td>",
	} {
		if !strings.Contains(page, part) {
			t.Errorf("the page lacks %s", part)
		}
	}
	for _, part := range metricsParts {
		if !strings.Contains(page, `id="`+part+`"`) {
			t.Errorf("there is no place for the part %s", part)
		}
	}
	if policy := w.Header().Get("Content-Security-Policy"); !strings.Contains(policy, "script-src 'self'; connect-src 'self'") || w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("%v", w.Header())
	}
	if t.Failed() {
		t.Log(page)
	}
}

func TestMetricsPage_HasItsAssetsWithIt(t *testing.T) {
	p := newProxy(t)
	m := p.monitor(p.manager())
	prefix, assets := p.MetricsAssets()
	w := send(http.HandlerFunc(m.serve), "GET", "/properties/redis-metrics/", "")
	all := regexp.MustCompile(`(?:src|href)="(/[^"]+\.(?:css|js))"`).FindAllStringSubmatch(w.Body.String(), -1)
	if len(all) != 4 {
		t.Errorf("assets %v", all)
	}
	for _, found := range all {
		if a := send(assets, "GET", found[1], ""); !strings.HasPrefix(found[1], prefix) || a.Code != 200 {
			t.Errorf("%s: %d", found[1], a.Code)
		}
	}
	if back := send(http.HandlerFunc(m.serve), "GET", "/cache/metrics?format=html", ""); !strings.Contains(back.Body.String(), `src="/static/`) ||
		!strings.Contains(back.Body.String(), `data-events="/cache/metrics/events"`) {
		t.Errorf("on the admin port: %s", back.Body)
	}
}

func TestMetricsAssets_AreForReading(t *testing.T) {
	p := newProxyOn(t, "", "")
	h := p.front(p.manager())
	path, _, _ := strings.Cut(send(h, "GET", "/properties/redis-metrics/?format=html", "", bearer).Body.String(), `.css"`)
	path = path[strings.LastIndex(path, `"`)+1:] + ".css"
	for method, want := range map[string]int{"GET": 200, "HEAD": 200, "OPTIONS": 405, "POST": 405, "PUT": 405, "DELETE": 405, "QUERY": 405} {
		w := send(h, method, path, "")
		if w.Code != want || want == 405 && (w.Header().Get("Allow") != "GET, HEAD" || object(t, w)["usage"] == nil) {
			t.Errorf("%s %s: %d %v %.100s", method, path, w.Code, w.Header(), w.Body)
		}
	}
}
