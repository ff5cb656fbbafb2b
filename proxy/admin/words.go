package admin

import (
	"cmp"
	"fmt"
	"html/template"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"walcache/proxy/coherence"
)

// funcs are how the templates write figures.
var funcs = template.FuncMap{
	"comma":     func(n any) string { return humanize.Comma(whole(n)) },
	"size":      func(n any) string { return humanize.IBytes(uint64(max(whole(n), 0))) },
	"seconds":   seconds,
	"took":      func(d time.Duration) string { return seconds(d.Seconds()) },
	"percent":   percent,
	"counts":    counts,
	"explain":   func(kind, name string) string { return reasons[kind][name] },
	"explained": explained,
	"sum":       sum,
	"left":      left,
	"nothing":   func() Found { return Found{} },
	"clock":     func(t time.Time) string { return t.UTC().Format("15:04:05.000") },
	"time":      func(t time.Time) string { return t.UTC().Format("15:04:05") },
	"iso":       func(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) },
	"delay":     delay,
	"rows":      rows,
	"behind":    behind,
	"list":      func(names []string) string { return strings.Join(names, ", ") },
}

// whole is any of the integers that figures are of.
func whole(n any) int64 {
	switch n := n.(type) {
	case int:
		return int64(n)
	case int32:
		return int64(n)
	case int64:
		return n
	case uint64:
		return int64(n)
	}
	return 0
}

// seconds writes a time as long as people need it.
func seconds(s float64) string {
	d := time.Duration(s * float64(time.Second))
	switch {
	case d < 0:
		return "-" + seconds(-s)
	case d < time.Millisecond:
		return fmt.Sprintf("%.0f µs", 1e6*s)
	case d < 100*time.Millisecond:
		return fmt.Sprintf("%.1f ms", 1e3*s)
	case d < time.Second:
		return fmt.Sprintf("%.0f ms", 1e3*s)
	case d < 100*time.Second:
		return fmt.Sprintf("%.1f s", s)
	}
	return d.Round(time.Second).String()
}

// left is what is left of a lifetime, and how long ago it was over.
func left(ttl float64) string {
	if ttl < 0 {
		return "over since " + seconds(-ttl)
	}
	return seconds(ttl)
}

// percent is the share of hits, of what was looked for.
func percent(hits, misses uint64) string {
	if hits+misses == 0 {
		return "–"
	}
	return fmt.Sprintf("%.1f %%", 100*float64(hits)/float64(hits+misses))
}

// count is a name and how often it was.
type count struct {
	Name string
	N    uint64
	Why  string // what the name means
}

// counts are sorted, the most first.
func counts(by map[string]uint64) []count {
	var all []count
	for name, n := range by {
		all = append(all, count{Name: name, N: n})
	}
	slices.SortFunc(all, func(a, b count) int {
		return cmp.Or(cmp.Compare(b.N, a.N), strings.Compare(a.Name, b.Name))
	})
	return all
}

// explained are counts with what their names mean.
func explained(kind string, by map[string]uint64) []count {
	all := counts(by)
	for i := range all {
		all[i].Why = reasons[kind][all[i].Name]
	}
	return all
}

func sum(by map[string]uint64) (n uint64) {
	for _, c := range by {
		n += c
	}
	return n
}

func delay(ms *float64) string {
	if ms == nil {
		return "–"
	}
	return fmt.Sprintf("%.1f ms", *ms)
}

func rows(tables []TableRows) (n int) {
	for _, t := range tables {
		n += t.Rows
	}
	return n
}

// behind is how much of the WAL is between two positions as they are written, ""
// if one is none.
func behind(known, logged string) string {
	k, err := coherence.ParseLSN(known)
	if err != nil {
		return ""
	}
	l, err := coherence.ParseLSN(logged)
	if err != nil || l == 0 {
		return ""
	}
	return humanize.IBytes(uint64(max(k, l) - l))
}

// reasons are what the names mean that the cache gives to what it does, for who
// has not met them before. One that is missing here is shown by its name alone.
var reasons = map[string]map[string]string{
	"miss": {
		"uri-miss":  "nothing was stored under the URL",
		"vary-miss": "what was stored is for other request headers",
		"request":   "the request may not have what is stored",
		"expired":   "its time ran out",
		"changed":   "something it depends on changed",
		"epoch":     "it is of an earlier run of the change stream",
		"unproven":  "there was no proof that it is fresh",
	},
	"bypass": {
		"method":       "neither GET nor HEAD",
		"request":      "the request asks for it",
		"off":          "caching is switched off",
		"path":         "--bypass names the path",
		"upgrade":      "another protocol, such as WebSocket",
		"body":         "a GET with a body",
		"override":     "the request overrides its method",
		"key-too-long": "the URL is too long",
		"precondition": "only the service can tell",
	},
	"refusal": {
		"status":       "an answer of such a status is not stored",
		"no-store":     "the service says so",
		"no-cache":     "the service says so",
		"private":      "it is for one user",
		"vary":         "it depends on too much of the request",
		"event-stream": "it has no end",
		"unframed":     "it does not say how long it is",
		"too-large":    "larger than --max-object",
		"credentials":  "the request says who asks",
		"set-cookie":   "it sets a cookie",
		"expired":      "it came with no time left",
		"unproven":     "nothing was known yet, or a change overtook it",
		"blind":        "it may depend on a table whose changes cannot be seen",
		"off":          "caching is switched off",
		"broken":       "it broke off",
	},
	"entry": {
		"fresh":    "It answers requests: nothing that it depends on has changed since it was read, and there is proof of that.",
		"expired":  "Its time ran out; nothing that it depends on is known to have changed.",
		"changed":  "It answers no request: something that it depends on changed after it was read.",
		"epoch":    "It answers no request: it is of an earlier run of the change stream, and what changed in between is not known.",
		"unproven": "It answers no request: nothing is known to have changed, and the evidence is too old to say so.",
	},
}
