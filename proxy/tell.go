package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

// Answers of the admin port, as far as they are told. The port may be of another
// version: what is not known here is left out, and --json has all of it.

type moved struct{ What, From, To string }

// whyStale says what made something stale.
func whyStale(all []moved) string {
	if len(all) == 0 {
		return ""
	}
	return fmt.Sprintf("%s moved from %s to %s", all[0].What, all[0].From, all[0].To)
}

// standing paints how something stands.
func standing(w io.Writer, s string) string {
	switch s {
	case "fresh":
		return paint(w, green, s)
	case "absent", "expired", "changed":
		return paint(w, yellow, s)
	}
	return paint(w, red, s)
}

func seconds(s *float64) string {
	if s == nil {
		return "-"
	}
	return time.Duration(*s * float64(time.Second)).Round(time.Second).String()
}

func tellStatus(w io.Writer, answer []byte) error {
	var s struct {
		Page struct {
			Location string
			Cached   bool `json:"page_is_cached"`
			URL      string
			Variants []struct {
				Layer, State string
				Varied       map[string]string
				Age          *float64 `json:"age_seconds"`
				TTL          *float64 `json:"ttl_seconds"`
				Bytes        uint64
				Tags         []string
				Moved        []moved
			}
			Stored struct {
				Memory struct {
					Pages int
					Bytes uint64
				}
				Redis *struct {
					Pages   int64
					AtLeast bool `json:"at_least"`
				}
			}
			Hits map[string]uint64
		} `json:"page_cache"`
		Querysets struct {
			All   bool `json:"all_properties_cached"`
			Count bool `json:"property_count_cached"`
			List  []struct {
				Key, State string
				Age        *float64 `json:"age_seconds"`
				TTL        *float64 `json:"ttl_seconds"`
				Bytes      uint64
				Rows       int
				Moved      []moved
			} `json:"querysets"`
		} `json:"queryset_cache"`
		Coherence *struct {
			Vouches, Off bool
			Epoch, Known string
			FreshAge     *float64 `json:"fresh_as_of_age_seconds"`
		}
	}
	if err := json.Unmarshal(answer, &s); err != nil {
		return err
	}
	fmt.Fprintln(w, "Cache Status:")
	rows := [][]any{
		{"all_properties_cached:", yesNo(w, s.Querysets.All)},
		{"property_count_cached:", yesNo(w, s.Querysets.Count)},
		{"page_is_cached:", yesNo(w, s.Page.Cached)},
		{"page:", cmp.Or(s.Page.URL, "none: this process answers no requests")},
		{"pages in memory:", fmt.Sprintf("%d, %s", s.Page.Stored.Memory.Pages, humanize.IBytes(s.Page.Stored.Memory.Bytes))},
	}
	if r := s.Page.Stored.Redis; r != nil {
		count := strconv.FormatInt(r.Pages, 10)
		if r.AtLeast {
			count = "at least " + count
		}
		rows = append(rows, []any{"pages in Redis:", count + " at " + s.Page.Location})
	}
	for _, layer := range slices.Sorted(maps.Keys(s.Page.Hits)) {
		rows = append(rows, []any{"hits from " + layer + ":", s.Page.Hits[layer]})
	}
	if c := s.Coherence; c != nil {
		rows = append(rows, []any{"vouches for freshness:", yesNo(w, c.Vouches)}, []any{"known up to:", c.Known + " in epoch " + c.Epoch})
		if c.Off {
			rows = append(rows, []any{"switched off:", good(w, false, "yes; proxy cache on switches it on")})
		}
	}
	table(w, rows...)
	fmt.Fprintln(w, "Page:")
	rows = [][]any{{"layer", "varied by", "age", "ttl", "size", "tags", "state"}}
	for _, v := range s.Page.Variants {
		rows = append(rows, []any{v.Layer, pairs(v.Varied), seconds(v.Age), seconds(v.TTL), humanize.IBytes(v.Bytes), strings.Join(v.Tags, " "),
			standing(w, v.State) + " " + whyStale(v.Moved)})
	}
	table(w, rows...)
	fmt.Fprintln(w, "Querysets:")
	rows = [][]any{{"key", "rows", "age", "ttl", "size", "state"}}
	for _, q := range s.Querysets.List {
		rows = append(rows, []any{q.Key, q.Rows, seconds(q.Age), seconds(q.TTL), humanize.IBytes(q.Bytes), standing(w, q.State) + " " + whyStale(q.Moved)})
	}
	table(w, rows...)
	return nil
}

func yesNo(w io.Writer, b bool) string {
	if b {
		return paint(w, green, "True")
	}
	return paint(w, yellow, "False")
}

func pairs[V any](m map[string]V) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		all = append(all, fmt.Sprintf("%s=%v", name, m[name]))
	}
	return strings.Join(all, " ")
}

func tellCleared(w io.Writer, answer []byte) error {
	var s struct {
		Success bool
		Message string
		Details struct {
			Caches []struct {
				Name, Key string
				Cleared   *bool
			} `json:"cleared_caches"`
			Errors []string
		}
		Position string
		All      bool
		Behind   []string
		Stale    struct {
			Memory struct{ Pages int }
			Redis  *struct{ Pages int64 }
		} `json:"pages_made_stale"`
	}
	if err := json.Unmarshal(answer, &s); err != nil {
		return err
	}
	fmt.Fprintln(w, good(w, s.Success, s.Message))
	for _, c := range s.Details.Caches {
		was := "was not there"
		switch {
		case c.Cleared == nil:
			was = "not known, since Redis does not say"
		case *c.Cleared:
			was = "was there"
		}
		fmt.Fprintf(w, "  Cleared: %s (%s, %s)\n", c.Name, c.Key, was)
	}
	fmt.Fprintf(w, "  Pages: %d in memory here", s.Stale.Memory.Pages)
	if s.Stale.Redis != nil {
		fmt.Fprintf(w, ", %d in Redis", s.Stale.Redis.Pages)
	}
	fmt.Fprintln(w)
	if s.Position != "" {
		where := "known here; the other processes follow within milliseconds"
		if s.All {
			where = "known to every process"
		}
		fmt.Fprintf(w, "  Position: %s, %s\n", s.Position, where)
	}
	switch {
	case !s.Success:
		return fmt.Errorf("%s\n  try: proxy cache status", strings.Join(append(s.Details.Errors, "the cache is not cleared"), "; "))
	case len(s.Behind) > 0:
		return fmt.Errorf("not within the time on %s\n  try: look at /status there; a process that has no proof of freshness passes requests through", strings.Join(s.Behind, ", "))
	}
	return nil
}

func tellTried(w io.Writer, answer []byte) error {
	var s struct {
		Working bool `json:"cache_working"`
		Steps   []struct {
			Step, Layer, What string
			OK                bool
			Took              float64 `json:"took_ms"`
		}
	}
	if err := json.Unmarshal(answer, &s); err != nil {
		return err
	}
	rows := [][]any{{"layer", "step", "ms", "what"}}
	for _, step := range s.Steps {
		rows = append(rows, []any{step.Layer, step.Step, fmt.Sprintf("%.2f", step.Took), good(w, step.OK, step.What)})
	}
	table(w, rows...)
	if !s.Working {
		return errors.New("the cache does not work as it should\n  try: proxy doctor")
	}
	fmt.Fprintln(w, good(w, true, "The cache works."))
	return nil
}

func tellWarmed(w io.Writer, answer []byte) error {
	var s struct {
		Message                              string
		Asked, Warmed, Already, Failed, More int
		NotCacheable                         int      `json:"not_cacheable"`
		LeftOut                              []string `json:"left_out"`
		Seconds                              float64
		URLs                                 []struct {
			URL, Was, Is, Why string
			Status            int
			Varied            map[string]string
		}
	}
	if err := json.Unmarshal(answer, &s); err != nil {
		return err
	}
	rows := [][]any{{"url", "asked for", "status", "was", "is"}}
	for _, u := range s.URLs {
		status := "-" // there was no answer
		if u.Status > 0 {
			status = strconv.Itoa(u.Status)
		}
		rows = append(rows, []any{u.URL, pairs(u.Varied), status, u.Was, good(w, u.Is == "hit" && u.Status < 500, u.Is) + " " + u.Why})
	}
	table(w, rows...)
	if s.More > 0 {
		fmt.Fprintf(w, "  and %d more\n", s.More)
	}
	for _, u := range s.LeftOut {
		fmt.Fprintf(w, "  left out: %s\n", u)
	}
	fmt.Fprintf(w, "%s\n  Answers: %d asked for, %d fetched, %d were hits already, %d not stored, %d failed, in %.1f s\n",
		good(w, s.Failed == 0, s.Message), s.Asked, s.Warmed, s.Already, s.NotCacheable, s.Failed, s.Seconds)
	if s.Failed > 0 {
		return fmt.Errorf("%d answers could not be fetched, or are errors of the service\n  try: look at the service; what failed is in the list above", s.Failed)
	}
	return nil
}

func tellLoad(w io.Writer, answer []byte) error {
	var s struct {
		Success          bool
		Message          string
		Error, Try       string
		Requests, Failed int
		Hits, Misses     map[string]int
		Statuses         map[string]int
		HitRatio         float64            `json:"hit_ratio_percent"`
		Latency          map[string]float64 `json:"latency_ms"`
		Rate             float64            `json:"requests_per_second"`
		Seconds          float64
	}
	if err := json.Unmarshal(answer, &s); err != nil {
		return err
	}
	fmt.Fprintln(w, good(w, s.Success, s.Message))
	table(w, []any{"Requests:", fmt.Sprintf("%d in %.2f s, %.0f a second, %d failed", s.Requests, s.Seconds, s.Rate, s.Failed)},
		[]any{"Hit ratio:", fmt.Sprintf("%.2f%%", s.HitRatio)}, []any{"Hits:", pairs(s.Hits)}, []any{"Misses:", pairs(s.Misses)},
		[]any{"Statuses:", pairs(s.Statuses)}, []any{"Latency in ms:", pairs(s.Latency)})
	if !s.Success {
		return fmt.Errorf("%s\n  try: %s", cmp.Or(s.Error, s.Message), cmp.Or(s.Try, "look at the proxy's log"))
	}
	return nil
}

// spread is how long something took.
type spread struct{ Min, P50, Max float64 }

func (s spread) String() string {
	return fmt.Sprintf("min %.1f, p50 %.1f, max %.1f", s.Min, s.P50, s.Max)
}

// control is an answer that was to stay as it is.
type control struct{ What, Was, Is, Outcome, Why string }

// paint says what became of it. That others changed it meanwhile is no failure,
// and proves nothing.
func (c control) paint(w io.Writer) string {
	if c.Outcome == c.Is { // a hit
		return good(w, true, c.Is)
	}
	text := c.Is + ", " + c.Outcome
	if c.Why != "" {
		text += ": " + c.Why
	}
	if c.Outcome == "failed" {
		return paint(w, red, text)
	}
	return paint(w, yellow, text)
}

// tellSignals tells of a test, or of a probe.
func tellSignals(w io.Writer, answer []byte) error {
	var s struct {
		Message, Verdict string
		Passed, Probe    bool
		Property         *struct {
			ID    int64
			Title string
		}
		Steps []struct {
			Step, Did string
			Tags      []struct {
				Tag   string
				Moved bool
			}
			Answers []struct {
				What, Was, Is string
				Followed      bool
				After         float64 `json:"after_ms"`
			}
			Controls []control
		}
		Rounds, Processes           int
		Here                        spread `json:"here_ms"`
		Everywhere                  spread `json:"everywhere_ms"`
		Failures, Disturbed, Behind []string
		LeftBehind                  int `json:"left_behind"`
	}
	if err := json.Unmarshal(answer, &s); err != nil {
		return err
	}
	fmt.Fprintln(w, s.Message)
	for i, step := range s.Steps {
		var tags []string
		for _, t := range step.Tags {
			if t.Moved {
				tags = append(tags, t.Tag)
			}
		}
		fmt.Fprintf(w, "Step %d: %s\n  moved: %s\n", i+1, step.Did, strings.Join(tags, " "))
		var rows [][]any
		for _, a := range step.Answers {
			rows = append(rows, []any{a.What, "was " + a.Was, fmt.Sprintf("after %.1f ms", a.After), good(w, a.Followed, a.Is)})
		}
		for _, c := range step.Controls {
			rows = append(rows, []any{c.What, "was " + c.Was, "", c.paint(w)})
		}
		table(w, rows...)
	}
	if s.Probe {
		table(w, []any{"known here, ms:", s.Here},
			[]any{fmt.Sprintf("on all %d processes, ms:", s.Processes), s.Everywhere})
	}
	for _, what := range s.Disturbed {
		fmt.Fprintf(w, "  disturbed: %s\n", what)
	}
	fmt.Fprintln(w, good(w, s.Passed, s.Verdict))
	if !s.Passed {
		why := strings.Join(append(s.Failures, s.Behind...), "; ")
		return fmt.Errorf("the test did not pass: %s\n  try: proxy cache status, and the proxy's log", cmp.Or(why, s.Verdict))
	}
	return nil
}

func tellMetrics(w io.Writer, answer []byte) error {
	var s struct {
		Success bool
		Error   string
		Metrics *struct {
			Performance struct {
				KeyspaceHits   uint64  `json:"keyspace_hits"`
				KeyspaceMisses uint64  `json:"keyspace_misses"`
				Total          uint64  `json:"total_operations"`
				Ratio          float64 `json:"hit_ratio_percent"`
				Rating         string  `json:"performance_rating"`
			} `json:"cache_performance"`
			Memory struct {
				Used string `json:"used_memory_human"`
			} `json:"memory_usage"`
			Server struct {
				Version string `json:"redis_version"`
				Uptime  string `json:"uptime_human"`
			} `json:"server_info"`
			Connections struct {
				Clients  uint64 `json:"connected_clients"`
				Received uint64 `json:"total_connections_received"`
				Commands uint64 `json:"total_commands_processed"`
			} `json:"connection_stats"`
			Analysis struct {
				Efficiency      string `json:"cache_efficiency"`
				Recommendations []string
			}
		}
		Recommendations []string
		Proxy           struct {
			Requests uint64
			Ratio    float64 `json:"hit_ratio_percent"`
			Hits     map[string]uint64
			Table    string `json:"table_whose_writes_cost_most_hits"`
		}
		Advice []struct{ Level, Seen, Why, Do string }
	}
	if err := json.Unmarshal(answer, &s); err != nil {
		return err
	}
	fmt.Fprintf(w, "Redis Cache Metrics:\n%s\n", strings.Repeat("=", 50))
	if m := s.Metrics; m != nil {
		p := m.Performance
		fmt.Fprintln(w, "Cache Performance:")
		table(w, []any{"Hit Ratio:", fmt.Sprintf("%.2f%%", p.Ratio)}, []any{"Performance Rating:", p.Rating},
			[]any{"Keyspace Hits:", humanize.Comma(int64(p.KeyspaceHits))}, []any{"Keyspace Misses:", humanize.Comma(int64(p.KeyspaceMisses))},
			[]any{"Total Operations:", humanize.Comma(int64(p.Total))})
		fmt.Fprintln(w, "Memory Usage:")
		table(w, []any{"Used Memory:", m.Memory.Used})
		fmt.Fprintln(w, "Server Information:")
		table(w, []any{"Redis Version:", m.Server.Version}, []any{"Uptime:", m.Server.Uptime})
		fmt.Fprintln(w, "Connection Statistics:")
		table(w, []any{"Connected Clients:", m.Connections.Clients}, []any{"Total Connections:", m.Connections.Received}, []any{"Total Commands:", m.Connections.Commands})
		fmt.Fprintf(w, "Analysis:\n  %s\nRecommendations:\n", m.Analysis.Efficiency)
		numbered(w, m.Analysis.Recommendations)
	}
	fmt.Fprintln(w, "This proxy:")
	table(w, []any{"Requests:", s.Proxy.Requests}, []any{"Hit Ratio:", fmt.Sprintf("%.2f%%", s.Proxy.Ratio)}, []any{"Hits:", pairs(s.Proxy.Hits)},
		[]any{"Writes that cost most hits:", cmp.Or(s.Proxy.Table, "-")})
	for _, a := range s.Advice {
		fmt.Fprintf(w, "%s %s\n  %s\n  do: %s\n", good(w, a.Level != "act", a.Level+":"), a.Seen, a.Why, a.Do)
	}
	if !s.Success {
		fmt.Fprintln(w, "Troubleshooting:")
		numbered(w, s.Recommendations)
		return fmt.Errorf("%s\n  try: proxy doctor", s.Error)
	}
	return nil
}

func numbered(w io.Writer, all []string) {
	for i, text := range all {
		fmt.Fprintf(w, "  %d. %s\n", i+1, text)
	}
}
