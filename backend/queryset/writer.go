package queryset

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"walcache/proxy/coherence"
)

// job is an entry that is to be kept.
type job struct {
	key    string
	deps   coherence.Dependencies
	asOf   coherence.Position
	life   time.Duration
	size   int // bytes of the entry, or a few more
	encode func(until coherence.LSN) []byte
}

const (
	queueEntries = 1024
	queueBytes   = 64 << 20
	batchEntries = 64
	batchBytes   = 4 << 20
	writeTime    = 2 * time.Second // for a batch

	// rewriteAfter is how long an entry that this process wrote is taken to be in
	// Redis still.
	rewriteAfter = time.Second

	// entryOverhead is what an entry takes up in Redis beside its bytes, about.
	entryOverhead = 256
)

// put has an entry written, unless too much waits already.
func (c *cache) put(j job) {
	switch {
	case j.size > maxEntry:
		c.count.tooLarge.Add(1)
		return
	case c.breaker.isOpen():
		c.count.dropped.Add(1)
		return
	case c.queued.Add(int64(j.size)) <= queueBytes:
		select {
		case c.queue <- j:
			return
		default:
		}
	}
	c.queued.Add(int64(-j.size))
	c.count.dropped.Add(1)
}

// writer is the goroutine that writes.
type writer struct {
	*cache
	// What was written of late, so that those who read the same at the same time
	// have it written once. There is a second reason: 1. An entry is written that
	// goes beyond what is known. 2. Before it is, the same is read again, since
	// Consistent cannot use it yet, and is written, and goes further. And so on,
	// so that none would ever be of use.
	written map[string]coherence.Position
	since   time.Time // the first of them

	failed bool // the database was asked in vain, as said last
}

// write writes what is in line until ctx ends.
func (c *cache) write(ctx context.Context) {
	w := writer{cache: c}
	for {
		select {
		case j := <-c.queue:
			jobs, bytes := w.collect(j)
			w.batch(ctx, jobs)
			c.queued.Add(-bytes)
		case <-ctx.Done():
			return
		}
	}
}

// collect takes what is in line, as much as is written at a time, and returns
// what of it is worth to be written, and the bytes that all of it had in line.
func (w *writer) collect(j job) (jobs []job, bytes int64) {
	now := time.Now()
	if now.Sub(w.since) > rewriteAfter {
		w.written, w.since = map[string]coherence.Position{}, now
	}
	for {
		bytes += int64(j.size)
		if w.worth(j, now) {
			jobs = append(jobs, j)
			w.written[j.key] = j.asOf
		}
		if len(jobs) == batchEntries || bytes > batchBytes {
			return jobs, bytes
		}
		select {
		case j = <-w.queue:
		default:
			return jobs, bytes
		}
	}
}

// worth reports whether an entry is of use, and not there yet.
func (w *writer) worth(j job, now time.Time) bool {
	stale := func(asOf coherence.Position) bool {
		v := w.truth.Judge(asOf, j.deps, now)
		return v == coherence.Changed || v == coherence.OtherEpoch
	}
	before, written := w.written[j.key]
	switch {
	case w.breaker.isOpen() || w.room.Load() <= 0:
		w.count.dropped.Add(1)
	case stale(j.asOf):
		w.count.born.Add(1)
	case written && !stale(before):
		w.count.repeated.Add(1)
	default:
		return true
	}
	return false
}

// batch writes entries in one pipeline.
func (w *writer) batch(ctx context.Context, jobs []job) {
	if len(jobs) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, writeTime)
	defer cancel()
	until, err := w.insertPosition(ctx)
	if w.say(err); err != nil {
		w.count.dropped.Add(uint64(len(jobs)))
		clear(w.written)
		return
	}
	pipe := w.client.Pipeline()
	replies := make([]*redis.StatusCmd, len(jobs))
	bytes := make([]int, len(jobs))
	for i, j := range jobs {
		data := j.encode(until)
		replies[i], bytes[i] = pipe.Set(ctx, j.key, data, j.life), len(data)
	}
	_, _ = pipe.Exec(ctx) // each reply has its error
	failed := ""
	for i, reply := range replies {
		if !w.arrived(jobs[i].key, bytes[i], reply.Err()) {
			failed = jobs[i].key
		}
	}
	if failed != "" {
		w.breaker.failed(failed)
	} else {
		w.breaker.succeeded()
	}
}

// arrived takes note of what became of an entry, and reports whether Redis
// answered.
func (w *writer) arrived(key string, bytes int, err error) bool {
	if err == nil {
		w.count.writes.Add(1)
		w.count.bytes.Add(uint64(bytes))
		w.room.Add(-int64(bytes + entryOverhead))
		return true
	}
	w.count.unwritten.Add(1)
	delete(w.written, key)
	if redis.IsOOMError(err) {
		w.room.Store(0) // until somebody looks again
		return true
	}
	return false
}

// say logs that entries cannot be written because of the database, or can be
// again, if that is news.
func (w *writer) say(err error) {
	switch {
	case err != nil && !w.failed:
		w.log.Warn("querysets are not kept: the database does not say up to where they go", "error", err)
	case err == nil && w.failed:
		w.log.Info("querysets are kept again")
	}
	w.failed = err != nil
}

// insertPosition is where the server writes its next change: every commit that
// anybody has seen is before it.
func (w *writer) insertPosition(ctx context.Context) (coherence.LSN, error) {
	var text string
	if err := w.conns.QueryRow(ctx, "SELECT pg_current_wal_insert_lsn()::text").Scan(&text); err != nil {
		return 0, fmt.Errorf("read the insert position: %w", err)
	}
	return coherence.ParseLSN(text)
}
