package manage

import (
	"context"
	"crypto/rand"
	"strconv"
	"strings"
	"sync"
	"time"

	"walcache/proxy/cache"
)

const (
	sampleEvery = time.Second
	samplesKept = 300 // five minutes
)

// Sample is what a process did within a second, and how it stood at its end.
// Times are milliseconds, and null where nothing was timed: of the hits of a route
// one in 64 is.
type Sample struct {
	number   uint64   // from 1; those of one process follow each other
	At       float64  `json:"at"` // its end, in seconds since 1970
	Requests uint64   `json:"requests"`
	Memory   uint64   `json:"memory_hits"`
	Redis    uint64   `json:"redis_hits"`
	Misses   uint64   `json:"misses"`
	Ratio    *float64 `json:"hit_ratio_percent"` // null where nothing was looked for
	HitP50   *float64 `json:"hit_p50_ms"`
	HitP99   *float64 `json:"hit_p99_ms"`
	MissP50  *float64 `json:"miss_p50_ms"`
	MissP99  *float64 `json:"miss_p99_ms"`
	Bytes    uint64   `json:"memory_bytes"`
	Pages    int      `json:"memory_pages"`
	FreshAge *float64 `json:"fresh_as_of_age_seconds"` // null without proof
}

// History is the last five minutes of a process, a sample a second. Its methods
// may be called concurrently.
type History struct {
	sources Sources
	process string // before the number in an ID: numbers begin anew with the process

	mu      sync.Mutex // guards the following
	samples []Sample   // the latest last; at most samplesKept
	before  reading
	taken   chan struct{} // closed when another sample has been taken
}

// newHistory makes one that has no samples until it runs.
func newHistory(s Sources) *History {
	return &History{sources: s, process: rand.Text()[:8], before: readCounters(s), taken: make(chan struct{})}
}

// run takes samples until ctx ends.
func (h *History) run(ctx context.Context) {
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			h.take(now)
		}
	}
}

func (h *History) take(now time.Time) {
	after := readCounters(h.sources)
	h.mu.Lock()
	defer h.mu.Unlock()
	s := after.since(h.before)
	s.number, s.At = 1, float64(now.UnixMilli())/1000
	if n := len(h.samples); n > 0 {
		s.number += h.samples[n-1].number
	}
	s.addState(h.sources, now)
	if h.before = after; len(h.samples) == samplesKept {
		copy(h.samples, h.samples[1:])
		h.samples = h.samples[:samplesKept-1]
	}
	h.samples = append(h.samples, s)
	close(h.taken)
	h.taken = make(chan struct{})
}

// After returns the samples after the one of an ID, as far as they are kept, the
// ID of the last, and what is closed once there is another. All are after the ID
// "", or one of another process.
func (h *History) After(id string) (samples []Sample, last string, more <-chan struct{}) {
	process, text, _ := strings.Cut(id, "-")
	number, err := strconv.ParseUint(text, 10, 64)
	if err != nil || process != h.process {
		number = 0
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.samples {
		if s.number > number {
			samples = append(samples, s)
		}
	}
	if n := len(h.samples); n > 0 {
		number = h.samples[n-1].number
	}
	return samples, h.process + "-" + strconv.FormatUint(number, 10), h.taken
}

// reading is what counters said at some moment.
type reading struct {
	stats               cache.Stats
	hitTimes, missTimes cache.Histogram
}

func readCounters(s Sources) (r reading) {
	if s.Cache != nil {
		r.stats = s.Cache.Stats()
		r.hitTimes, r.missTimes = s.Cache.Times()
	}
	return r
}

// since is what happened between two readings. The counters of one are not read
// at the same moment, which a second makes good.
func (r reading) since(before reading) Sample {
	hits, misses := r.hitTimes.Since(before.hitTimes), r.missTimes.Since(before.missTimes)
	s := Sample{
		Memory: r.stats.Hits["memory"] - before.stats.Hits["memory"],
		Redis:  r.stats.Hits["redis"] - before.stats.Hits["redis"],
		Misses: total(r.stats.Misses) - total(before.stats.Misses),
		HitP50: milliseconds(hits, 0.5), HitP99: milliseconds(hits, 0.99),
		MissP50: milliseconds(misses, 0.5), MissP99: milliseconds(misses, 0.99),
	}
	looked := s.Memory + s.Redis + s.Misses
	s.Requests = looked + total(r.stats.Bypassed) - total(before.stats.Bypassed)
	if looked > 0 {
		s.Ratio = new(100 * float64(s.Memory+s.Redis) / float64(looked))
	}
	return s
}

// addState adds how the process stands.
func (s *Sample) addState(from Sources, now time.Time) {
	if from.Memory != nil {
		s.Bytes, s.Pages = from.Memory.Bytes(), from.Memory.Pages()
	}
	if from.Tracker == nil {
		return
	}
	if p := from.Tracker.Progress(now); p.FreshAge >= 0 {
		s.FreshAge = new(p.FreshAge.Seconds())
	}
}

// milliseconds is a quantile, or nil if nothing was timed.
func milliseconds(h cache.Histogram, share float64) *float64 {
	if h.Total() == 0 {
		return nil
	}
	return new(float64(h.Quantile(share)) / float64(time.Millisecond))
}

func total(counts map[string]uint64) (n uint64) {
	for _, c := range counts {
		n += c
	}
	return n
}
