package manage

import (
	"time"

	"walcache/proxy/cache"
	"walcache/proxy/store"
)

// proxyFigures is what this process knows of itself.
type proxyFigures struct {
	Uptime      float64            `json:"uptime_seconds"`
	Requests    uint64             `json:"requests"`
	Hits        map[string]uint64  `json:"hits"` // by layer
	Misses      map[string]uint64  `json:"misses"`
	Ratio       percent            `json:"hit_ratio_percent"`       // since the process began
	RatioNow    *float64           `json:"hit_ratio_percent_now"`   // over the last minute; null without requests
	RequestsNow *float64           `json:"requests_per_second_now"` // over the last minute; null before the first second
	HitTimes    latency            `json:"hit_times"`               // since the process began
	MissTimes   latency            `json:"miss_times"`
	Routes      []cache.RouteStats `json:"routes_with_most_misses"`
	WorstTable  string             `json:"table_whose_writes_cost_most_hits"`
	Turned      uint64             `json:"hits_that_its_writes_cost"`
	Memory      memoryFigures      `json:"memory"`
	Vouches     *bool              `json:"vouches"`                 // null for an ordinary cache
	FreshAge    *float64           `json:"fresh_as_of_age_seconds"` // null without proof
	Off         bool               `json:"off"`                     // switched off by an operator
	Log         *logFigures        `json:"change_log"`              // null for a process that shares none
	Pages       *store.RedisStats  `json:"redis_pages"`             // null without Redis
}

type latency struct {
	P50 *float64 `json:"p50_ms"`
	P99 *float64 `json:"p99_ms"`
}

type memoryFigures struct {
	Bytes uint64 `json:"bytes"`
	Pages int    `json:"pages"`
}

// logFigures is the change log as this process writes and reads it.
type logFigures struct {
	Leads           bool   `json:"leads"`
	Processes       int    `json:"processes"`
	AppendedBytes   uint64 `json:"appended_bytes"`   // by this process
	CheckpointBytes int    `json:"checkpoint_bytes"` // that it wrote last
	ReadEntries     uint64 `json:"read_entries"`
}

const (
	routesShown = 5
	lastMinute  = 60 // samples
)

// readProxy asks the parts of this process.
func readProxy(s Sources, h *History, began time.Time) proxyFigures {
	r, at := readCounters(s), time.Now()
	f := proxyFigures{
		Uptime: at.Sub(began).Seconds(), Hits: r.stats.Hits, Misses: r.stats.Misses, Routes: []cache.RouteStats{},
		HitTimes:  latency{milliseconds(r.hitTimes, 0.5), milliseconds(r.hitTimes, 0.99)},
		MissTimes: latency{milliseconds(r.missTimes, 0.5), milliseconds(r.missTimes, 0.99)},
	}
	hits, misses := total(f.Hits), total(f.Misses)
	f.Requests = hits + misses + total(r.stats.Bypassed)
	if hits+misses > 0 {
		f.Ratio = percent{100 * float64(hits) / float64(hits+misses), hits + misses}
	}
	f.addNow(h)
	for table, n := range r.stats.Turned {
		if n > f.Turned || n == f.Turned && table < f.WorstTable {
			f.WorstTable, f.Turned = table, n
		}
	}
	if s.Cache != nil {
		routes := s.Cache.Routes()
		f.Routes = append(f.Routes, routes[:min(routesShown, len(routes))]...)
	}
	if s.Memory != nil {
		f.Memory = memoryFigures{s.Memory.Bytes(), s.Memory.Pages()}
	}
	if s.Pages != nil {
		f.Pages = new(s.Pages.Stats())
	}
	f.addCoherence(s, at)
	return f
}

func (f *proxyFigures) addNow(h *History) {
	samples, _, _ := h.After("")
	samples = samples[max(0, len(samples)-lastMinute):]
	if len(samples) == 0 {
		return
	}
	var hits, looked, requests uint64
	for _, s := range samples {
		hits += s.Memory + s.Redis
		looked += s.Memory + s.Redis + s.Misses
		requests += s.Requests
	}
	f.RequestsNow = new(float64(requests) / float64(len(samples)))
	if looked > 0 {
		f.RatioNow = new(100 * float64(hits) / float64(looked))
	}
}

func (f *proxyFigures) addCoherence(s Sources, at time.Time) {
	if s.Tracker == nil {
		return
	}
	f.Vouches = new(s.Tracker.Vouches(at))
	if p := s.Tracker.Progress(at); p.FreshAge >= 0 {
		f.FreshAge = new(p.FreshAge.Seconds())
	}
	if catalog := s.Tracker.Catalog(); catalog != nil {
		f.Off = catalog.Off
	}
	if s.Records != nil && s.Records.Shared() {
		l := s.Records.Status()
		f.Log = &logFigures{l.Leads, l.Members, l.Writer.Bytes, l.Writer.CheckpointBytes, l.Reader.Entries}
	}
}
