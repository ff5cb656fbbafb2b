package faults

import (
	"slices"
	"time"
)

// severalFaults are more than one at a time.
func severalFaults() []fault {
	return []fault{
		{name: "leader-killed-while-redis-frozen", strike: killLeaderWithoutRedis},
		{name: "leader-killed-redis-flushed", strike: killLeaderAndFlush},
		{name: "leader-killed-redis-failed-over", strike: killLeaderAndFailOver},
		{name: "leader-killed-redis-restored", strike: killLeaderAndRestore},
		{name: "postgres-and-redis-killed", strike: killServers},
		{name: "all-killed", strike: killAll},
		{name: "two-in-a-row", strike: twoInARow},
	}
}

func killLeaderWithoutRedis(r *run) {
	r.strike("freeze Redis")
	r.must(r.redis.Pause())
	r.hold(0, 3*time.Second)
	r.kill(r.leader())
	r.hold(0, 3*time.Second)
	r.note("thaw Redis")
	r.must(r.redis.Resume())
}

func killLeaderAndFlush(r *run) {
	flushRedis(r)
	r.hold(0, 300*time.Millisecond)
	r.kill(r.leader())
}

// killLeaderAndFailOver takes away both who knew the end of the log: what was
// appended and confirmed has to come from PostgreSQL again.
func killLeaderAndFailOver(r *run) {
	replica, leader := r.lagging(), r.leader()
	r.strike("kill -9", leader)
	r.must(leader.kill())
	r.failOver(replica)
	r.must(leader.start())
}

// killLeaderAndRestore is the same with a server that forgot.
func killLeaderAndRestore(r *run) {
	leader := r.leader()
	r.killRedis(oldData)
	r.kill(leader)
}

func killServers(r *run) {
	r.crashPostgres()
	r.hold(0, 500*time.Millisecond)
	r.killRedis([]data{allData, oldData, noData}[r.rnd.IntN(3)])
	r.startPostgres()
}

func killAll(r *run) {
	r.strike("kill -9", r.proxies...)
	for _, p := range r.proxies {
		r.must(p.kill())
	}
	for _, b := range r.backends {
		r.must(b.kill())
	}
	killServers(r)
	for _, b := range r.backends {
		r.must(b.start())
	}
	for _, p := range r.proxies {
		r.must(p.start())
	}
}

// twoInARow leaves no time to heal between two faults.
func twoInARow(r *run) {
	all := slices.DeleteFunc(slices.Concat(processFaults(), postgresFaults(), redisFaults(), logFaults()), fault.special)
	for range 2 {
		f := all[r.rnd.IntN(len(all))]
		r.note("as in %s:", f.name)
		f.strike(r)
		r.hold(0, time.Second)
	}
}
