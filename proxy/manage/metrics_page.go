package manage

import (
	"bytes"
	"context"
	"embed"
	"html/template"
	"io/fs"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/dustin/go-humanize"

	"walcache/proxy/guard"
	"walcache/proxy/web"
)

//go:embed templates/*
var templates embed.FS

// metricsParts are the parts of the page that events replace, each the template
// of its name in the element of that id.
var metricsParts = []string{"announcement", "problem", "performance", "proxy", "memory", "server", "analysis", "advice", "routes"}

// place is where the page is: the same page has other neighbours on each port.
type place struct {
	Home, HomeName       string
	Status, JSON, Events string
	assets               string // prefix of their paths
	json                 bool   // what who does not say gets
}

// adminPlace is that on the admin port, where scripts are more usual than people.
var adminPlace = place{
	Home: "/", HomeName: "Operator's page", Status: "/cache/status", JSON: "/cache/metrics?format=json", Events: "/cache/metrics/events",
	assets: web.AssetPrefix, json: true,
}

const metricsName = "redis-metrics"

// metricsAssets is where the page's assets are on the proxy's own port, below the
// page: those of web.AssetPrefix are the service's there.
func (c Config) metricsAssets() string { return c.Prefix + metricsName + "/static/" }

func (m *monitor) place(r *http.Request) place {
	here := m.Prefix + metricsName + "/"
	if m.Prefix == "" || !strings.HasPrefix(r.URL.Path, here) {
		return adminPlace
	}
	return place{
		Home: m.Prefix, HomeName: "Properties", Status: m.Prefix + "cache-status/", JSON: here + "?format=json", Events: here + "events/",
		assets: m.metricsAssets(),
	}
}

// MetricsAssets serves the assets of the page on the proxy's own port, below
// the path that it returns, to whoever reads.
func (c Config) MetricsAssets() (prefix string, h http.Handler) {
	assets := web.AssetsBelow(c.metricsAssets())
	return c.metricsAssets(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			otherMethod(w, http.MethodGet, "to have this file of a page")
			return
		}
		assets.ServeHTTP(w, r)
	})
}

// metricsPage is what the templates show.
type metricsPage struct {
	report
	place
	Samples []Sample // the last minute, the latest first
}

func (metricsPage) Title() string { return "Redis Cache Metrics" }

// At is when the figures were read.
func (p metricsPage) At() string { return time.Unix(p.Timestamp, 0).UTC().Format(stamp) }

// ProxyRating is that of the hit ratio that clients see.
func (p metricsPage) ProxyRating() string {
	rated, _ := rate(total(p.Proxy.Hits), total(p.Proxy.Misses))
	return rated.Rating
}

func (p metricsPage) ProxyMisses() uint64 { return total(p.Proxy.Misses) }

var metricsHelpers = template.FuncMap{
	"comma":  comma,
	"bytes":  bytesOf,
	"number": decimal,
	"most":   most,
	"limit": func(n *uint64) string {
		if n != nil && *n == 0 {
			return "none"
		}
		return bytesOf(n)
	},
	"class": func(rating string) string { return strings.ReplaceAll(strings.ToLower(rating), " ", "-") },
	"clock": func(at float64) string { return time.Unix(int64(at), 0).UTC().Format(time.TimeOnly) },
	"plural": func(n int, one, many string) string {
		return strconv.Itoa(n) + " " + map[bool]string{true: one, false: many}[n == 1]
	},
}

const unknown = "–"

// comma writes a number with its thousands apart, and bytesOf one of bytes.
func comma(n any) string {
	if i := count(n); i >= 0 {
		return humanize.Comma(i)
	}
	return unknown
}

func bytesOf(n any) string {
	if i := count(n); i >= 0 {
		return humanize.IBytes(uint64(i))
	}
	return unknown
}

// count is a number as figures have it, and below 0 if it is not known.
func count(n any) int64 {
	switch n := n.(type) {
	case int:
		return int64(n)
	case int64:
		return n
	case uint64:
		return int64(n)
	case *int64:
		if n != nil {
			return *n
		}
	case *uint64:
		if n != nil {
			return int64(*n)
		}
	}
	return -1
}

func decimal(x *float64, digits int, unit string) string {
	if x == nil {
		return unknown
	}
	return strconv.FormatFloat(*x, 'f', digits, 64) + unit
}

// metricsTemplate is the page with the assets of a place, parsed once for each.
func metricsTemplate(assets string) (*template.Template, error) {
	if t, ok := parsed.Load(assets); ok {
		return t.(*template.Template), nil
	}
	files, err := fs.Sub(templates, "templates")
	if err != nil {
		return nil, err
	}
	funcs := maps.Clone(metricsHelpers)
	funcs["asset"] = web.AssetBelow(assets)
	pages, err := web.Parse(files, funcs)
	if err != nil {
		return nil, err
	}
	t, _ := parsed.LoadOrStore(assets, pages["metrics"])
	return t.(*template.Template), nil
}

var parsed sync.Map // by prefix of the assets: *template.Template

func (m *monitor) page(at place, r report) metricsPage {
	samples, _, _ := m.history.After("")
	p := metricsPage{report: r, place: at}
	for i := len(samples) - 1; i >= max(0, len(samples)-lastMinute); i-- {
		p.Samples = append(p.Samples, samples[i])
	}
	return p
}

func (m *monitor) writePage(w http.ResponseWriter, status int, at place, r report) {
	var b bytes.Buffer
	t, err := metricsTemplate(at.assets)
	if err == nil {
		err = t.ExecuteTemplate(&b, "layout", m.page(at, r))
	}
	if err != nil {
		m.Log.Error("cannot make the page of figures", "error", err)
		guard.WriteJSON(w, http.StatusInternalServerError, guard.Problem("the page could not be made: "+err.Error(), "ask for ?format=json, and report this"))
		return
	}
	web.WriteLive(w, status, b.Bytes())
}

// rendered are parts of the page, as of a sample. They are the same at each place.
type rendered struct {
	of    string
	parts map[string]string
}

// parts renders those parts of the page that events replace, once for everybody
// who wants them as of the same sample. Redis is asked as often.
func (m *monitor) parts(ctx context.Context, at place, of string) map[string]string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.last.of == of && m.last.parts != nil {
		return m.last.parts
	}
	t, err := metricsTemplate(at.assets)
	if err != nil {
		return nil
	}
	page := m.page(at, m.read(context.WithoutCancel(ctx)))
	parts := map[string]string{}
	for _, name := range metricsParts {
		var b bytes.Buffer
		if err := t.ExecuteTemplate(&b, name, page); err != nil {
			m.Log.Error("cannot render", "part", name, "error", err)
			continue
		}
		parts[name] = b.String()
	}
	m.last = rendered{of, parts}
	return parts
}
