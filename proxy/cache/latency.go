package cache

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// Histogram counts durations. A bucket is an eighth of a power of two of
// nanoseconds wide, so that what is read of it is off by a sixteenth at most.
type Histogram [histogramBuckets]uint64

const (
	bucketBits       = 3
	histogramBuckets = 40 << bucketBits // up to about 18 minutes
)

// durations is a Histogram that is being counted.
type durations [histogramBuckets]atomic.Uint64

func (d *durations) add(t time.Duration) { d[bucketOf(t)].Add(1) }

func (d *durations) read() (h Histogram) {
	for i := range d {
		h[i] = d[i].Load()
	}
	return h
}

func bucketOf(t time.Duration) int {
	ns := uint64(max(t, 1<<bucketBits))
	shift := bits.Len64(ns) - 1 - bucketBits
	return min(shift<<bucketBits+int(ns>>shift)-1<<bucketBits, histogramBuckets-1)
}

// Since is what was counted after another reading of the same histogram.
func (h Histogram) Since(before Histogram) Histogram {
	for i := range h {
		h[i] -= before[i]
	}
	return h
}

// Total is the number of durations.
func (h Histogram) Total() (n uint64) {
	for _, count := range h {
		n += count
	}
	return n
}

// Quantile is the duration that a share of all is not longer than: 0.99 for the
// 99th percentile. It is 0 if there are none.
func (h Histogram) Quantile(share float64) time.Duration {
	rank := uint64(share * float64(h.Total()))
	var n uint64
	for i, count := range h {
		if n += count; count > 0 && n >= rank {
			shift := i >> bucketBits
			low := uint64(i&(1<<bucketBits-1)+1<<bucketBits) << shift
			return time.Duration(low + 1<<shift/2)
		}
	}
	return 0
}
