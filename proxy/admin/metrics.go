package admin

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"walcache/proxy/changelog"
	"walcache/proxy/store"
)

// metric is one line of docs/metrics.md: a name, a help text, a type, and how
// its values are read from a status. A value has at most one label.
type metric struct {
	name, help string
	kind       prometheus.ValueType
	label      string
	values     func(Status) map[string]float64 // by the label's value; "" without one
}

// metrics serves the counters and gauges, with those of Go and the process.
func (s *Server) metrics() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector{s}, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
}

// collector turns a status into metrics when they are asked for, so that
// nothing is counted twice.
type collector struct{ server *Server }

// Describe sends nothing: which labels there are is known only when collecting.
func (collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	status := c.server.read()
	for _, m := range metrics {
		var labels []string
		if m.label != "" {
			labels = []string{m.label}
		}
		desc := prometheus.NewDesc(m.name, m.help, labels, nil)
		for value, n := range m.values(status) {
			if m.label == "" {
				out <- prometheus.MustNewConstMetric(desc, m.kind, n)
			} else {
				out <- prometheus.MustNewConstMetric(desc, m.kind, n, value)
			}
		}
	}
}

const (
	counter = prometheus.CounterValue
	gauge   = prometheus.GaugeValue
)

var metrics = []metric{
	{"walcache_hits_total", "Requests answered from the store, by layer.", counter, "layer",
		func(s Status) map[string]float64 { return floats(s.Cache.Hits) }},
	{"walcache_hit_bytes_total", "Bytes of bodies answered from the store.", counter, "",
		one(func(s Status) uint64 { return s.Cache.HitBytes })},
	{"walcache_misses_total", "Requests that the store could not answer, by reason.", counter, "reason",
		func(s Status) map[string]float64 { return floats(s.Cache.Misses) }},
	{"walcache_stale_total", "Misses answered with what is not fresh, by reason.", counter, "reason",
		func(s Status) map[string]float64 { return floats(s.Cache.Stale) }},
	{"walcache_coalesced_total", "Misses answered by another request's fetch.", counter, "",
		one(func(s Status) uint64 { return s.Cache.Coalesced })},
	{"walcache_cut_off_total", "Answers broken off because their clients stood still while others waited for the rest.", counter, "",
		one(func(s Status) uint64 { return s.Cache.CutOff })},
	{"walcache_leases_total", "Fetches that the processes of a cluster agree about, so that one of them asks the service, by what came of that here.", counter, "outcome",
		func(s Status) map[string]float64 { return floats(s.Cache.Leases) }},
	{"walcache_waiting_requests", "Requests that wait for another request's fetch now.", gauge, "",
		one(func(s Status) uint64 { return uint64(s.Cache.Waiting) })},
	{"walcache_bypassed_total", "Requests that passed the cache by, by reason.", counter, "reason",
		func(s Status) map[string]float64 { return floats(s.Cache.Bypassed) }},
	{"walcache_refused_total", "Responses that were not stored, by reason.", counter, "reason",
		func(s Status) map[string]float64 { return floats(s.Cache.Refused) }},
	{"walcache_requests_refused_total", "Requests that were malformed, too large or too slow, and clients that did not read, by reason.", counter, "reason",
		func(s Status) map[string]float64 { return floats(s.Refused) }},
	{"walcache_stored_total", "Responses stored.", counter, "",
		one(func(s Status) uint64 { return s.Cache.Stored })},
	{"walcache_compressed_total", "Compressed forms made of stored responses.", counter, "",
		one(func(s Status) uint64 { return s.Cache.Compressed })},
	{"walcache_compressed_saved_bytes_total", "Bytes by which those are shorter.", counter, "",
		one(func(s Status) uint64 { return s.Cache.CompressedSaved })},
	{"walcache_upstream_requests", "Requests at the service now, by share.", gauge, "share",
		func(s Status) map[string]float64 {
			return map[string]float64{"fetch": float64(s.Cache.Fetches.Now), "write": float64(s.Cache.Writes.Now)}
		}},
	{"walcache_upstream_requests_peak", "Most requests at the service at a time, by share.", gauge, "share",
		func(s Status) map[string]float64 {
			return map[string]float64{"fetch": float64(s.Cache.Fetches.Peak), "write": float64(s.Cache.Writes.Peak)}
		}},
	{"walcache_upstream_requests_total", "Requests sent to the service, by share.", counter, "share",
		func(s Status) map[string]float64 {
			return map[string]float64{"fetch": float64(s.Cache.Fetches.Total), "write": float64(s.Cache.Writes.Total)}
		}},
	{"walcache_upstream_queue_timeouts_total", "Requests that waited too long for their turn at the service, by share.", counter, "share",
		func(s Status) map[string]float64 {
			return map[string]float64{"fetch": float64(s.Cache.Fetches.Refused), "write": float64(s.Cache.Writes.Refused)}
		}},
	{"walcache_upstream_failures_total", "Requests that the service did not answer.", counter, "",
		one(func(s Status) uint64 { return s.Cache.Failed })},
	{"walcache_write_wait_timeouts_total", "Answers to writes that went out before the proxy knew of all that they changed.", counter, "",
		one(func(s Status) uint64 { return s.Cache.WriteWaitsTimedOut })},
	{"walcache_invalidated_total", "URLs and groups that answers to writes made stale.", counter, "",
		one(func(s Status) uint64 { return s.Cache.Invalidated })},
	{"walcache_memory_pages", "URLs stored in memory.", gauge, "",
		one(func(s Status) uint64 { return uint64(s.Memory.Pages) })},
	{"walcache_memory_bytes", "Bytes used in memory: bodies, headers, keys and index.", gauge, "",
		one(func(s Status) uint64 { return s.Memory.Bytes })},
	{"walcache_table_rows_changed_total", "Rows changed, by table.", counter, "table",
		byTable(func(t Table) uint64 { return t.Rows })},
	{"walcache_table_hits_lost_total", "Requests that would have been hits if no row of the table had changed.", counter, "table",
		byTable(func(t Table) uint64 { return t.Misses })},
	{"walcache_vouches", "1 while a hit is proven fresh; 0 means that all requests go to the service.", gauge, "",
		known(func(c *Coherence) (float64, bool) { return truth(c.Vouches), true })},
	{"walcache_fresh_age_seconds", "Time since the moment that everything committed before is known of.", gauge, "",
		known(func(c *Coherence) (float64, bool) {
			if c.FreshAge == nil {
				return 0, false
			}
			return *c.FreshAge, true
		})},
	{"walcache_epochs_total", "Epochs begun: each made the whole cache stale.", counter, "",
		known(func(c *Coherence) (float64, bool) { return float64(c.Epochs), true })},
	{"walcache_tracker_slots", "Size of the tracker.", gauge, "",
		known(func(c *Coherence) (float64, bool) { return float64(c.TrackerSlots), true })},
	{"walcache_tracker_slots_used", "Slots of the tracker that something has moved; near its size, unchanged answers become stale by collision.", gauge, "",
		known(func(c *Coherence) (float64, bool) { return float64(c.TrackerUsed), true })},
	{"walcache_blind_tables", "Logged tables whose updates cannot be seen: answers that may depend on them are not stored.", gauge, "",
		known(func(c *Coherence) (float64, bool) { return float64(len(c.Blind)), true })},
	{"walcache_messages_not_understood_total", "Messages of the change stream that were not understood, and made more stale than they had to.", counter, "",
		known(func(c *Coherence) (float64, bool) { return float64(c.Widened), true })},
	{"walcache_slot_retained_wal_bytes", "WAL that PostgreSQL keeps for the replication slot: the distance of a restart.", gauge, "",
		known(func(c *Coherence) (float64, bool) {
			if c.Slot == nil {
				return 0, false
			}
			return float64(c.Slot.RetainedWAL), true
		})},
	{"walcache_slot_wal_status", "1 for the slot's wal_status as PostgreSQL names it.", gauge, "status",
		func(s Status) map[string]float64 {
			if s.Coherence == nil || s.Coherence.Slot == nil {
				return nil
			}
			return map[string]float64{s.Coherence.Slot.WALStatus: 1}
		}},
	{"walcache_leads", "1 in the process that holds the replication slot and writes the change log.", gauge, "",
		logged(func(l changelog.Status) float64 { return truth(l.Leads) })},
	{"walcache_cluster_processes", "Processes of the cluster that were alive when they were counted last.", gauge, "",
		logged(func(l changelog.Status) float64 { return float64(l.Members) })},
	{"walcache_log_appended_total", "Entries appended to the change log by this process.", counter, "",
		logged(func(l changelog.Status) float64 { return float64(l.Writer.Entries) })},
	{"walcache_log_appended_bytes_total", "Bytes appended to the change log by this process.", counter, "",
		logged(func(l changelog.Status) float64 { return float64(l.Writer.Bytes) })},
	{"walcache_log_write_errors_total", "Times that the change log or its checkpoint could not be written.", counter, "",
		logged(func(l changelog.Status) float64 { return float64(l.Writer.Errors) })},
	{"walcache_checkpoints_total", "Checkpoints written by this process.", counter, "",
		logged(func(l changelog.Status) float64 { return float64(l.Writer.Checkpoints) })},
	{"walcache_checkpoint_bytes", "Size of the last checkpoint that this process wrote.", gauge, "",
		logged(func(l changelog.Status) float64 { return float64(l.Writer.CheckpointBytes) })},
	{"walcache_log_read_total", "Entries of the change log that this process read.", counter, "",
		logged(func(l changelog.Status) float64 { return float64(l.Reader.Entries) })},
	{"walcache_log_gaps_total", "Times that an entry of the change log was found missing, and a checkpoint had to make it good.", counter, "",
		logged(func(l changelog.Status) float64 { return float64(l.Reader.Gaps) })},
	{"walcache_log_read_errors_total", "Times that the change log could not be read.", counter, "",
		logged(func(l changelog.Status) float64 { return float64(l.Reader.Errors) })},
	{"walcache_off", "1 while an operator has switched caching off.", gauge, "",
		known(func(c *Coherence) (float64, bool) { return truth(c.Off), true })},
	{"walcache_redis_gets_total", "Pages asked for in Redis, by what came of it.", counter, "result",
		paged(func(p store.RedisStats) map[string]float64 {
			return map[string]float64{"hit": float64(p.Hits), "miss": float64(p.Misses), "corrupt": float64(p.Corrupt), "failure": float64(p.Failures), "skipped": float64(p.Skipped)}
		})},
	{"walcache_redis_writes_total", "Pages written to Redis.", counter, "",
		paged(func(p store.RedisStats) map[string]float64 { return map[string]float64{"": float64(p.Writes)} })},
	{"walcache_redis_written_bytes_total", "Bytes of pages written to Redis.", counter, "",
		paged(func(p store.RedisStats) map[string]float64 { return map[string]float64{"": float64(p.BytesWritten)} })},
	{"walcache_redis_dropped_total", "Pages that were not written to Redis, by reason.", counter, "reason",
		paged(func(p store.RedisStats) map[string]float64 { return floats(p.Dropped) })},
	{"walcache_redis_queue_pages", "Pages that wait to be written to Redis.", gauge, "",
		paged(func(p store.RedisStats) map[string]float64 { return map[string]float64{"": float64(p.Queue)} })},
	{"walcache_redis_breaker_open", "1 while Redis is not asked for pages, because it did not answer.", gauge, "",
		paged(func(p store.RedisStats) map[string]float64 { return map[string]float64{"": truth(p.BreakerOpen)} })},
}

func one(value func(Status) uint64) func(Status) map[string]float64 {
	return func(s Status) map[string]float64 { return map[string]float64{"": float64(value(s))} }
}

// known is a value that only a proxy with coherence has.
func known(value func(*Coherence) (float64, bool)) func(Status) map[string]float64 {
	return func(s Status) map[string]float64 {
		if s.Coherence == nil {
			return nil
		}
		n, ok := value(s.Coherence)
		if !ok {
			return nil
		}
		return map[string]float64{"": n}
	}
}

func byTable(value func(Table) uint64) func(Status) map[string]float64 {
	return func(s Status) map[string]float64 {
		m := map[string]float64{}
		for _, t := range s.Tables {
			m[t.Name] = float64(value(t))
		}
		return m
	}
}

func floats(counts map[string]uint64) map[string]float64 {
	m := make(map[string]float64, len(counts))
	for name, n := range counts {
		m[name] = float64(n)
	}
	return m
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// logged reads a value of the change log, which a process alone does not have.
func logged(value func(changelog.Status) float64) func(Status) map[string]float64 {
	return func(s Status) map[string]float64 {
		if s.Log == nil {
			return nil
		}
		return map[string]float64{"": value(*s.Log)}
	}
}

// paged reads values of the pages in Redis.
func paged(values func(store.RedisStats) map[string]float64) func(Status) map[string]float64 {
	return func(s Status) map[string]float64 {
		if s.Pages == nil {
			return nil
		}
		return values(*s.Pages)
	}
}
