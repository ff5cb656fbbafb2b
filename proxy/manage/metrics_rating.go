package manage

import (
	"strconv"
	"strings"
)

// performance is how well a cache does, by hits and misses alone.
type performance struct {
	Hits       uint64  `json:"keyspace_hits"`
	Misses     uint64  `json:"keyspace_misses"`
	Operations uint64  `json:"total_operations"`
	HitRatio   percent `json:"hit_ratio_percent"`
	MissRatio  percent `json:"miss_ratio_percent"`
	Rating     string  `json:"performance_rating"`
}

// analysis says the same in words.
type analysis struct {
	Efficiency      string   `json:"cache_efficiency"`
	Recommendations []string `json:"recommendations"`
}

// percent is written with a decimal point, but for the 0 of no operations at all.
type percent struct {
	value float64
	of    uint64 // operations
}

func (p percent) MarshalJSON() ([]byte, error) { return []byte(p.String()), nil }

func (p percent) String() string {
	if p.of == 0 {
		return "0"
	}
	text := strconv.FormatFloat(p.value, 'f', 2, 64)
	text = strings.TrimRight(text, "0")
	if strings.HasSuffix(text, ".") {
		text += "0"
	}
	return text
}

// ratings are by the ratio of hits, in percent, before it is rounded: what shows
// as 90.0 need not have reached it.
var ratings = []struct {
	atLeast          float64
	name, efficiency string
}{
	{90, "Excellent", "Cache is performing excellently. Most requests are served from cache."},
	{80, "Very Good", "Cache is performing very well. Good balance of cached and fresh data."},
	{70, "Good", "Cache is performing adequately but could be optimized."},
	{50, "Fair", "Cache performance is below optimal. Consider reviewing cache strategy."},
	{0, "Poor", "Cache performance is poor. Cache configuration needs immediate attention."},
}

var recommendations = []struct {
	atLeast float64
	texts   []string
}{
	{90, []string{"Excellent cache performance. Continue monitoring."}},
	{70, []string{"Good performance, minor optimizations possible", "Monitor for patterns in cache misses", "Consider pre-loading critical data"}},
	{50, []string{"Fine-tune cache timeout values", "Consider implementing cache warming for frequently accessed data", "Review cache invalidation patterns"}},
	{0, []string{"Consider increasing cache timeout values", "Review cache key patterns for efficiency", "Implement cache warming strategies",
		"Analyze which data should be cached vs. fetched fresh"}},
}

const (
	fewOperations = 100
	lowUsage      = "Low cache usage detected. Consider increasing cache utilization."
)

// rate says how well a cache does.
func rate(hits, misses uint64) (performance, analysis) {
	p := performance{Hits: hits, Misses: misses, Operations: hits + misses}
	var ratio float64
	if p.Operations > 0 {
		ratio = 100 * float64(hits) / float64(p.Operations)
		p.HitRatio, p.MissRatio = percent{ratio, p.Operations}, percent{100 - ratio, p.Operations}
	}
	var a analysis
	for _, r := range ratings {
		if ratio >= r.atLeast {
			p.Rating, a.Efficiency = r.name, r.efficiency
			break
		}
	}
	for _, r := range recommendations {
		if ratio >= r.atLeast {
			a.Recommendations = append(a.Recommendations, r.texts...)
			break
		}
	}
	if p.Operations < fewOperations {
		a.Recommendations = append(a.Recommendations, lowUsage)
	}
	return p, a
}
