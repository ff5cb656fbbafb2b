package manage

import (
	"fmt"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

// advice is something that stands out: what was seen, why it matters, and what
// to do.
type advice struct {
	Level string `json:"level"` // act: answers or safety suffer; watch: it costs hits, or soon will
	Seen  string `json:"seen"`
	Why   string `json:"why"`
	Do    string `json:"do"`
}

const (
	act   = "act"
	watch = "watch"
)

// facts are what advice is given on.
type facts struct {
	proxy proxyFigures
	redis *redisFigures // nil without Redis, or while it is away
	blind []string      // tables whose updates cannot be seen
	at    time.Time
}

// What is near, large or much.
const (
	nearlyFull     = 0.9
	largeLog       = 48 << 20 // bytes of log and checkpoint; together they stay below 64 MiB
	fragmented     = 1.5
	slowLately     = 10 * time.Minute
	lowRatio       = 80 // percent of hits
	manyMisses     = 20
	muchOfMisses   = 0.25
	turnedOfMisses = 0.1
)

// advise says what stands out, what is urgent first.
func advise(f facts) []advice {
	all := []advice{}
	for _, level := range []string{act, watch} {
		for _, look := range advisers {
			if a := look(f); a.Seen != "" && a.Level == level {
				all = append(all, a)
			}
		}
	}
	return all
}

// advisers each look at one thing; an advice that saw nothing is none.
var advisers = []func(facts) advice{
	unproven, off, breaker, blindTables, worstRoute, worstTable,
	replica, saving, noLimit, noEviction, allKeys, nearMax, evicted, largeChangeLog, rejected, slowCommands, fragments,
}

func unproven(f facts) (a advice) {
	if f.proxy.Vouches == nil || *f.proxy.Vouches {
		return a
	}
	return advice{act, "This process cannot prove that what it has stored is fresh",
		"It calls nothing fresh without proof: every request passes through to the service.",
		"Look at /status on the admin port, or ask proxy doctor: PostgreSQL, the listener or Redis does not answer."}
}

func off(f facts) (a advice) {
	if !f.proxy.Off {
		return a
	}
	return advice{act, "Caching is switched off", "Every request passes through to the service, on every process.", "Switch it on again with proxy cache on."}
}

func breaker(f facts) (a advice) {
	if f.proxy.Pages == nil || !f.proxy.Pages.BreakerOpen {
		return a
	}
	return advice{act, "Redis does not answer, and is not asked for pages (" + times(f.proxy.Pages.Opened) + " since this process began)",
		"Pages come from this process's memory alone, and others' fetches are of no use to it.",
		"See whether Redis runs and is reachable from here; it is tried again every 2 seconds at least."}
}

func blindTables(f facts) (a advice) {
	if len(f.blind) == 0 {
		return a
	}
	return advice{act, "Updates of these tables cannot be seen: " + strings.Join(f.blind, ", "),
		"An answer that may depend on one of them is not stored.",
		"Run proxy doctor --sql and have their owner run what it prints, or leave them out with --ignore-tables."}
}

// remedies are by what most misses of a route are for.
var remedies = map[string]string{
	"uri-miss": "Each of its URLs is asked for seldom. Warm them with proxy cache warm, and link to each thing by one URL.",
	"changed":  "What it shows changes often. Name in Cache-Groups the rows or column values that it depends on, in place of whole tables, or allow a --grace.",
	"expired":  "Its time runs out before it changes. Give it a longer lifetime: the change stream says when it is no longer true.",
	"request":  "Its requests say who is asking. Give answers that are everybody's an explicit lifetime with public, or see --ignore-cookies.",
}

func worstRoute(f facts) (a advice) {
	misses := total(f.proxy.Misses)
	if len(f.proxy.Routes) == 0 || misses < manyMisses || f.proxy.Ratio.value >= lowRatio {
		return a
	}
	r := f.proxy.Routes[0]
	if float64(r.Misses) < muchOfMisses*float64(misses) {
		return a
	}
	reason := most(r.Reasons)
	do, ok := remedies[reason]
	if !ok {
		do = "Look at Cache-Status of its answers: it says for each why it was no hit."
	}
	return advice{watch, fmt.Sprintf("%s has %s of all %s misses, most of them %s", r.Route, number(r.Misses), number(misses), reason),
		fmt.Sprintf("%s of its %s requests were hits; no other route pulls the hit ratio down as far.", number(r.Hits), number(r.Hits+r.Misses)), do}
}

func worstTable(f facts) (a advice) {
	misses := total(f.proxy.Misses)
	if f.proxy.WorstTable == "" || f.proxy.Turned < manyMisses || float64(f.proxy.Turned) < turnedOfMisses*float64(misses) {
		return a
	}
	return advice{watch, fmt.Sprintf("Writes to the table %s turned %s hits into misses", f.proxy.WorstTable, number(f.proxy.Turned)),
		"Answers that depend on any row of a table are stale after each write to it.",
		"Name in Cache-Groups the rows or column values that answers depend on; for lists, --grace lets one request refresh while others still get the one before."}
}

func replica(f facts) (a advice) {
	if f.redis == nil || !strings.Contains(f.redis.Role, "slave") {
		return a
	}
	return advice{act, "Redis answers as a replica", "It takes no writes: neither pages nor the change log reach it.", "Point --redis-url (REDIS_URL) at the primary, or use redis+sentinel://."}
}

func saving(f facts) (a advice) {
	if f.redis == nil || !strings.Contains(f.redis.Persistence, "failed") && !strings.Contains(f.redis.Persistence, "could not be written") {
		return a
	}
	return advice{act, "Redis cannot save: " + f.redis.Persistence, "Unless told otherwise it refuses writes then, those of the change log too.",
		"See its log and the room on its disk. Nothing of ours in it has to survive a restart: CONFIG SET stop-writes-on-bgsave-error no."}
}

func noLimit(f facts) (a advice) {
	if f.redis == nil || f.redis.MaxMemory == nil || *f.redis.MaxMemory > 0 {
		return a
	}
	return advice{watch, "Redis has no memory limit (maxmemory is 0)", "Pages grow until the machine has no memory left, and the system ends some process.",
		"Set maxmemory, and maxmemory-policy volatile-lru."}
}

func noEviction(f facts) (a advice) {
	if f.redis == nil || valueOf(f.redis.MaxMemory) == 0 || !strings.Contains(f.redis.Policy, "noeviction") {
		return a
	}
	return advice{watch, "Redis makes no room by itself (maxmemory-policy noeviction)",
		"Once it is full it refuses writes. Pages stop before that, so that the change log has room: from then on processes share no new pages.",
		"Set maxmemory-policy volatile-lru: pages expire and may go, the change log does not and stays."}
}

func allKeys(f facts) (a advice) {
	if f.redis == nil || !strings.Contains(f.redis.Policy, "allkeys") {
		return a
	}
	return advice{watch, "Redis may evict any key (maxmemory-policy " + f.redis.Policy + ")",
		"The change log and its checkpoint may go too. Nothing wrong is served then, but everything stored has to be fetched again.",
		"Set maxmemory-policy volatile-lru."}
}

func nearMax(f facts) (a advice) {
	if f.redis == nil || valueOf(f.redis.UsedShare) <= nearlyFull {
		return a
	}
	return advice{act, fmt.Sprintf("Redis uses %.0f%% of its maxmemory", 100**f.redis.UsedShare),
		map[bool]string{true: "When it is full it refuses writes.", false: "When it is full each new page costs an older one."}[strings.Contains(f.redis.Policy, "noeviction")],
		"Give it a larger maxmemory, or keep answers for less long (--ttl, --max-object)."}
}

func evicted(f facts) (a advice) {
	if f.redis == nil || valueOf(f.redis.Evicted) == 0 {
		return a
	}
	return advice{watch, fmt.Sprintf("Redis has evicted %s keys for room, under %s", number(*f.redis.Evicted), f.redis.Policy),
		"What was evicted and is asked for again is fetched again: it costs hits, and is never wrong.",
		"Give it a larger maxmemory if these go on; evictions under volatile-lru leave the change log alone."}
}

func largeChangeLog(f facts) (a advice) {
	if f.redis == nil || valueOf(f.redis.LogBytes)+valueOf(f.redis.Checkpoint) <= largeLog {
		return a
	}
	return advice{watch, "The change log and its checkpoint take up " + human(uint64(valueOf(f.redis.LogBytes)+valueOf(f.redis.Checkpoint))) + " in Redis",
		"They stay below 64 MiB as long as somebody writes checkpoints and trims the log.",
		"See on /status of the process that leads whether its checkpoints are written (change_log.writer)."}
}

func rejected(f facts) (a advice) {
	if f.redis == nil || valueOf(f.redis.Rejected) == 0 {
		return a
	}
	return advice{act, "Redis has rejected " + number(*f.redis.Rejected) + " connections", "It had as many as it takes (maxclients): who is rejected works without it.",
		"Raise maxclients, or find who keeps so many connections: CLIENT LIST."}
}

func slowCommands(f facts) (a advice) {
	if f.redis == nil || f.redis.Slowest == nil || f.at.Sub(f.redis.Slowest.At) > slowLately {
		return a
	}
	s := f.redis.Slowest
	return advice{watch, fmt.Sprintf("%s took Redis %.1f ms, %s", s.Command, s.Took, humanize.RelTime(s.At, f.at, "ago", "from now")),
		"It does one thing at a time: while a slow command runs, nobody else is answered.",
		"See what it was, and who sent it, with SLOWLOG GET."}
}

func fragments(f facts) (a advice) {
	const matters = 100 << 20 // bytes; a small server's own memory counts for more than what is in it
	if f.redis == nil || valueOf(f.redis.Fragmentation) <= fragmented || f.redis.usedBytes < matters {
		return a
	}
	return advice{watch, fmt.Sprintf("Redis takes up %.1f times the memory that it uses", *f.redis.Fragmentation), "The rest is lost between what is kept.", "CONFIG SET activedefrag yes."}
}

// most is the name with the greatest count.
func most(counts map[string]uint64) (name string) {
	for n, count := range counts {
		if count > counts[name] || count == counts[name] && n < name {
			name = n
		}
	}
	return name
}

func number(n uint64) string { return humanize.Comma(int64(n)) }

func times(n uint64) string {
	if n == 1 {
		return "once"
	}
	return number(n) + " times"
}
