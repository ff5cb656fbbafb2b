package changelog

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"walcache/proxy/coherence"
)

var (
	modelSchedules = flag.Int("model.schedules", 150, "how many schedules of faults the model goes through")
	modelFrom      = flag.Uint64("model.from", 1000, "seed of the first schedule; 0 picks some")
	modelSeed      = flag.Uint64("model.seed", 0, "the only schedule, told step by step")
	modelBreak     = flag.String("model.break", "", "what is switched off in the model")
)

// switchedOff names a check that is not made.
var switchedOff string

func broken(check string) bool { return switchedOff == check }

// checks are what can be switched off to see the model fail, what that means, and
// the faults that it is there for: all if none is named. Some guard against what
// is rare, and fail in one schedule of thousands.
var checks = map[string]struct {
	what   string
	rare   bool
	faults []string
}{
	"gap":              {"a record that begins after what is known is taken all the same", false, []string{"Redis fails over unseen", "log trimmed", "cut from Redis", "Redis split"}},
	"two-beats":        {"one beat is taken for proof", false, []string{"Redis stalls", "Redis fails over", "cut from Redis"}},
	"checkpoint-first": {"after an error no checkpoint comes", false, nil},
	"epoch":            {"answers of another epoch are compared", false, []string{"slot dropped", "database crashes", "standby promoted"}},
	"stamp":            {"an answer is as of a position that was read after its data", false, nil},
	"visible":          {"an answer is as of what is known, and not of what is visible", false, nil},
	"confirm-lag":      {"positions are confirmed at once, logged or not", false, []string{"Redis fails over and leader killed"}},
	"position":         {"a beat does not say up to where records came before it", true, []string{"Redis fails over unseen", "log evicted", "cut from Redis", "nobody writes"}},
	"news":             {"a beat does not say which news came before it", true, []string{"tables altered", "cut from Redis", "Redis fails over unseen", "nobody writes"}},
	"sampled":          {"a beat counts that was sampled before the one before was acknowledged", true, []string{"Redis stalls", "kill"}},
	"connection":       {"what was read over one connection counts for another", true, []string{"Redis split", "database stalls"}},
	"compare-and-set":  {"a checkpoint replaces any other", true, []string{"cut from both", "cut from Redis", "session ended", "slot dropped", "freeze"}},
	"term":             {"a leader's term is read when it may not hold the slot any more", true, []string{"cut from Redis", "session ended", "tables altered", "nobody writes"}},
	"lineage":          {"an epoch goes on after the database recovered from a crash", true, []string{"database crashes", "nobody writes"}},
	"slot":             {"positions are confirmed at once, and an epoch goes on that ends before", true, []string{"Redis restored", "Redis fails over and leader killed"}},
	"in-progress":      {"of the transactions in progress when a slot is made, only the first that ends is waited for", true, []string{"slot dropped"}},
	"beat-error":       {"a listener that says nothing but beats is not told that another leads", true, []string{"Redis restored", "kill", "cut from Redis", "nobody writes", "slot dropped"}},
}

// A small model of everything: three processes with the real Log, Tracker and
// checks over a simulated Redis, a simulated database with its change stream, and
// caches that fill and hit, in simulated time. Faults come at random. No hit may
// be older than the bound, and after the faults all must be well again.
func TestModel(t *testing.T) {
	switchedOff = *modelBreak
	defer func() { switchedOff = "" }()
	if *modelSeed != 0 {
		report(t, *modelSeed, simulate(t, *modelSeed, nil, t.Logf))
		return
	}
	began, seeds := time.Now(), firstSeed()
	var next atomic.Int64
	var all tally
	workers(t, func(t *testing.T) {
		for n := next.Add(1); n <= int64(*modelSchedules) && !t.Failed(); n = next.Add(1) {
			seed := seeds + uint64(n)
			w := simulate(t, seed, nil, nil)
			all.add(w)
			report(t, seed, w)
		}
	})
	t.Logf("%d schedules in %v: %s", *modelSchedules, time.Since(began), &all)
}

// firstSeed is where schedules begin: the same ones each time, unless others are
// asked for, which is what finds something new.
func firstSeed() uint64 {
	if *modelFrom == 0 {
		return rand.Uint64() >> 1
	}
	return *modelFrom
}

// tally is what happened in all schedules.
type tally struct {
	mu     sync.Mutex // guards the following
	hits   int
	epochs int
	again  time.Duration // until all were fresh again after the faults, at most
	writer WriterStats
	reader ReaderStats
}

func (a *tally) add(w *world) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.hits, a.epochs, a.again = a.hits+w.hits, a.epochs+len(w.reasons), max(a.again, w.again)
	for _, p := range w.lives {
		s := p.log.Status()
		a.writer.Entries += s.Writer.Entries
		a.writer.Checkpoints += s.Writer.Checkpoints
		a.writer.Errors += s.Writer.Errors
		a.writer.GivenUp += s.Writer.GivenUp
		a.writer.Damages += s.Writer.Damages
		a.writer.Refused += s.Writer.Refused
		a.reader.Entries += s.Reader.Entries
		a.reader.Joins += s.Reader.Joins
		a.reader.Loads += s.Reader.Loads
		a.reader.Gaps += s.Reader.Gaps
		a.reader.Proofs += s.Reader.Proofs
		a.reader.Errors += s.Reader.Errors
	}
}

func (a *tally) String() string {
	w, r := a.writer, a.reader
	return fmt.Sprintf("%d hits, %d epochs, fresh again after %v at most; written: %d entries, %d checkpoints, %d errors, %d queues given up, %d damages, %d checkpoints refused; read: %d entries, %d joins, %d loads, %d gaps, %d proofs, %d errors",
		a.hits, a.epochs, a.again, w.Entries, w.Checkpoints, w.Errors, w.GivenUp, w.Damages, w.Refused, r.Entries, r.Joins, r.Loads, r.Gaps, r.Proofs, r.Errors)
}

// TestModel would see what it is for. What is rare is looked for in long runs.
func TestModel_SeesWhatIsSwitchedOff(t *testing.T) {
	defer func() { switchedOff = "" }()
	limit := max(1000, *modelSchedules)
	for name, check := range checks {
		if check.rare && *modelSchedules < 10_000 {
			continue
		}
		switchedOff = name
		var next atomic.Int64
		var found atomic.Pointer[world]
		seeds := firstSeed()
		workers(t, func(t *testing.T) {
			for n := next.Add(1); found.Load() == nil && n <= int64(limit); n = next.Add(1) {
				if w := simulate(t, seeds+uint64(n), check.faults, nil); len(w.found) > 0 {
					found.CompareAndSwap(nil, w)
				}
			}
		})
		if w := found.Load(); w == nil {
			t.Errorf("%s: nothing found in %d schedules", check.what, next.Load())
		} else {
			t.Logf("%s: %d schedules; seed %d: %s", check.what, next.Load(), w.seed, w.found[0])
		}
	}
}

func workers(t *testing.T, work func(t *testing.T)) {
	t.Run("workers", func(t *testing.T) {
		for range 2 {
			t.Run("", func(t *testing.T) {
				t.Parallel()
				work(t)
			})
		}
	})
}

func report(t *testing.T, seed uint64, w *world) {
	if len(w.found) == 0 {
		return
	}
	var schedule []string
	for _, f := range w.faults {
		schedule = append(schedule, f.String())
	}
	t.Errorf("schedule %d\n%s\nfound\n%s\nepochs began: %s\nagain: go test ./proxy/changelog -run TestModel$ -v -model.seed=%d",
		seed, strings.Join(schedule, "\n"), strings.Join(w.found[:min(len(w.found), 10)], "\n"), strings.Join(w.reasons, "; "), seed)
}

// simulate goes through one schedule of some faults, or all.
func simulate(t *testing.T, seed uint64, kinds []string, tracer func(string, ...any)) (w *world) {
	synctest.Test(t, func(t *testing.T) {
		w = &world{seed: seed, random: rand.New(rand.NewPCG(seed, 0)), began: time.Now(), tracer: tracer, pages: map[page]*answer{}}
		w.redis = newCopy(w)
		w.database.insert = 1000
		w.database.nudge()
		w.mu.Lock()
		for id := range processes {
			w.start(id)
		}
		w.mu.Unlock()
		stop := make(chan struct{})
		written := make(chan struct{})
		go func() {
			defer close(written)
			w.write(stop)
		}()
		if w.untilFresh("at first", 20*time.Second) {
			w.run(w.plan(kinds))
		}
		close(stop)
		<-written
		w.mu.Lock()
		well := len(w.found) == 0
		w.mu.Unlock()
		if well {
			w.compare()
		}
		for _, p := range w.process {
			p.kill()
		}
		for _, p := range w.lives {
			p.done.Wait()
		}
		w.timers.Wait()
	})
	return w
}

// write commits until it is stopped.
func (w *world) write(stop chan struct{}) {
	random := rand.New(rand.NewPCG(w.seed, 1))
	for {
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(random.Int64N(int64(120 * time.Millisecond)))):
		}
		w.mu.Lock()
		for range 1 + random.IntN(3)*random.IntN(2) {
			if !w.database.down && !w.database.stalled && !w.quiet {
				w.database.commit(random)
			}
		}
		w.mu.Unlock()
	}
}

// run has the faults happen, and waits until all is well again.
func (w *world) run(faults []fault) {
	w.faults = faults
	w.idle = w.random.IntN(8) == 0
	began := time.Now()
	for i, f := range faults {
		w.setQuiet(w.idle && i == len(faults)/2)
		time.Sleep(time.Until(began.Add(f.at)))
		w.trace("fault: %s", f)
		f.happen(w)
	}
	time.Sleep(time.Second)
	w.heal()
	if len(w.found) == 0 && w.untilFresh("after the faults", 12*time.Second) {
		time.Sleep(3 * time.Second)
	}
}

// untilFresh waits until all processes vouch.
func (w *world) untilFresh(when string, limit time.Duration) bool {
	for began := time.Now(); time.Since(began) < limit; time.Sleep(50 * time.Millisecond) {
		if len(w.unfresh()) == 0 {
			w.trace("all fresh %s, after %s", when, time.Since(began))
			w.again = time.Since(began)
			return true
		}
	}
	w.violation("%s: not fresh after %s: %v", when, limit, w.unfresh())
	return false
}

func (w *world) unfresh() (ids []string) {
	for _, p := range w.process {
		if !p.log.Vouches(p.now()) {
			ids = append(ids, fmt.Sprintf("%d.%d in %q, leads %t", p.id, p.life, p.log.Epoch(), p.log.leads.Load() != nil))
		}
	}
	return ids
}

// compare checks, when nobody writes any more, that nothing is called fresh that
// differs from the database, and that all believe the same of tables.
func (w *world) compare() {
	time.Sleep(4 * time.Second)
	for _, p := range w.process {
		now := p.now()
		if !p.log.Vouches(now) {
			w.violation("at the end: not fresh: %v", w.unfresh())
		}
		c, off := p.log.Catalog(), w.database.off
		if c.Blind[0] != fmt.Sprint(w.database.tables) || off != nil && off.off != c.Off {
			w.violation("at the end: process %d.%d has catalog %+v, and the database %d", p.id, p.life, c, w.database.tables)
		}
		w.mu.Lock()
		for g := range page(pages) {
			for _, a := range []*answer{p.stored[g], w.pages[g]} {
				if a != nil && p.judge(a, now) == coherence.Fresh {
					w.differs(p, g, a)
				}
			}
		}
		w.mu.Unlock()
	}
	if w.calm && len(w.reasons) > 1 {
		w.violation("epochs began without need: %s", strings.Join(w.reasons[1:], "; "))
	}
}

func (w *world) differs(p *process, g page, a *answer) {
	first, n := g.rows()
	for row := first; row < first+n; row++ {
		if last := w.database.rows[row]; a.rows[row] != last {
			w.violation("at the end: process %d.%d calls row %d fresh as of commit %d at %s, and the last is %d at %s", p.id, p.life, row, a.rows[row].number(), a.asOf, last.number(), last.lsn)
		}
	}
}

// fault is something that happens, for a while.
type fault struct {
	at     time.Duration
	kind   string
	who    int           // a process, or -1 for the leader
	during time.Duration // of what ends by itself
	loses  time.Duration // how much of the log
	too    time.Duration // how much of the checkpoint
}

func (f fault) String() string {
	return fmt.Sprintf("%7.3f %-20s process %2d, for %v, loses %v and %v", f.at.Seconds(), f.kind, f.who, f.during, f.loses, f.too)
}

// faults by name. What ends by itself returns how.
var faults = map[string]func(w *world, p *process, f fault) (end func()){
	"kill":   func(w *world, p *process, _ fault) func() { return w.killed(p) },
	"freeze": func(_ *world, p *process, _ fault) func() { return p.freeze() },
	"cut from Redis": func(_ *world, p *process, _ fault) func() {
		p.cutFromRedis = true
		return func() { p.cutFromRedis = false }
	},
	"cut from database": func(_ *world, p *process, _ fault) func() {
		p.cutFromDatabase = true
		return func() { p.cutFromDatabase = false }
	},
	"cut from both": func(_ *world, p *process, _ fault) func() {
		p.cutFromDatabase, p.cutFromRedis = true, true
		return func() { p.cutFromDatabase, p.cutFromRedis = false, false }
	},
	"session ended": func(w *world, _ *process, _ fault) func() {
		w.database.slot.holder = nil
		return nil
	},
	"clock jumps": func(w *world, p *process, f fault) func() {
		p.clock += (f.during - 2*time.Second) * 100
		return nil
	},
	"Redis stalls": func(w *world, _ *process, _ fault) func() {
		r := w.redis
		r.stalled = true
		return r.resume
	},
	"Redis flushed": func(w *world, _ *process, _ fault) func() {
		w.redis.flush()
		clear(w.pages)
		return nil
	},
	"Redis restarts empty": func(w *world, _ *process, _ fault) func() {
		clear(w.pages)
		return w.replaceRedis(newCopy(w))
	},
	"Redis fails over": func(w *world, _ *process, f fault) func() {
		now := time.Now()
		return w.replaceRedis(w.redis.asOf(now.Add(-f.loses), now.Add(-f.too), f.during-f.loses))
	},
	"Redis fails over unseen": func(w *world, _ *process, f fault) func() {
		now := time.Now()
		n := w.redis.asOf(now.Add(-f.loses), now.Add(-f.too), f.during-f.loses)
		n.name, n.appended, n.dead = w.redis.name, w.redis.appended, w.redis.dead
		*w.redis = *n
		return nil
	},
	"Redis fails over and leader killed": func(w *world, p *process, f fault) func() {
		now := time.Now()
		end, restart := w.replaceRedis(w.redis.asOf(now.Add(-f.loses), now.Add(-f.too), 0)), w.killed(p)
		return func() { end(); restart() }
	},
	"Redis restored": func(w *world, _ *process, f fault) func() {
		then := time.Now().Add(-5*f.loses - 2*time.Second)
		return w.replaceRedis(w.redis.asOf(then, then, 0))
	},
	"Redis split": func(w *world, p *process, f fault) func() {
		if w.old != nil {
			return nil
		}
		now := time.Now()
		w.old, w.redis = w.redis, w.redis.asOf(now.Add(-f.loses/4), now.Add(-f.too/4), 0)
		for _, other := range w.process {
			other.seesOld = other == p || w.random.IntN(3) == 0
		}
		return func() { w.old.dead, w.old = true, nil }
	},
	"Redis full": func(w *world, _ *process, _ fault) func() {
		r := w.redis
		r.full = true
		return func() { r.full = false }
	},
	"Redis's clock jumps": func(w *world, _ *process, f fault) func() {
		w.redis.clock += (f.during - 2*time.Second) * 10
		return nil
	},
	"log evicted": func(w *world, _ *process, _ fault) func() {
		w.redis.forgetLog()
		return nil
	},
	"log trimmed": func(w *world, _ *process, f fault) func() {
		w.redis.trimTo(max(0, len(w.redis.entries)-int(f.loses/(200*time.Millisecond))))
		return nil
	},
	"checkpoint evicted": func(w *world, _ *process, _ fault) func() {
		w.redis.put(nil)
		return nil
	},
	"checkpoint damaged": func(w *world, _ *process, _ fault) func() {
		value := slices.Clone(w.redis.checkpoint())
		if len(value) > 0 {
			value[w.random.IntN(len(value))]++
		}
		w.redis.put(value)
		return nil
	},
	"database crashes": func(w *world, _ *process, _ fault) func() {
		w.database.crash()
		return func() { w.database.down = false }
	},
	"standby promoted": func(w *world, _ *process, f fault) func() {
		w.database.promote(f.loses / 4)
		return func() { w.database.down = false }
	},
	"database stalls": func(w *world, _ *process, _ fault) func() {
		w.database.stalled = true
		return func() { w.database.stalled = false }
	},
	"slot dropped": func(w *world, _ *process, _ fault) func() {
		w.database.dropSlot()
		return nil
	},
	"tables altered": func(w *world, _ *process, _ fault) func() {
		w.database.tables++
		return nil
	},
	"nobody writes": func(w *world, _ *process, _ fault) func() {
		w.quiet = true
		return func() { w.quiet = w.idle }
	},
}

// calmFaults are those after which the epoch goes on, one at a time.
var calmFaults = []string{
	"kill", "freeze", "cut from Redis", "cut from database", "cut from both", "session ended", "clock jumps", "Redis stalls", "Redis flushed",
	"Redis restarts empty", "Redis fails over", "Redis fails over and leader killed", "Redis's clock jumps", "Redis full",
	"log evicted", "log trimmed", "checkpoint evicted", "database stalls", "tables altered", "nobody writes",
}

// plan makes a schedule.
func (w *world) plan(kinds []string) (plan []fault) {
	w.calm = w.random.IntN(4) == 0 && (kinds == nil || broken("confirm-lag"))
	switch {
	case kinds != nil:
	case w.calm:
		kinds = calmFaults
	default:
		for kind := range faults {
			kinds = append(kinds, kind)
		}
		slices.Sort(kinds)
	}
	at := time.Duration(0)
	span := func(d time.Duration) time.Duration { return time.Duration(w.random.Int64N(int64(d))) }
	n := 1 + w.random.IntN(6)
	if w.calm {
		n, at = 1+w.random.IntN(2), 5*time.Second // a failover that loses the first checkpoint is reason enough for an epoch
	}
	for range n {
		f := fault{
			kind: kinds[w.random.IntN(len(kinds))], who: w.random.IntN(processes+2) - 2,
			during: span(4 * time.Second), loses: span(4 * time.Second), too: span(4 * time.Second),
		}
		if w.random.IntN(4) == 0 {
			f.during += span(8 * time.Second)
		}
		if w.random.IntN(2) == 0 {
			f.too = f.loses
		}
		at += span(2500 * time.Millisecond)
		f.at = at
		plan = append(plan, f)
		if w.calm {
			at += f.during + 8*time.Second
		}
	}
	return plan
}

// happen begins a fault, and sees to its end.
func (f fault) happen(w *world) {
	w.mu.Lock()
	defer w.mu.Unlock()
	end := faults[f.kind](w, w.who(f.who), f)
	if end == nil {
		return
	}
	ended := false
	once := func() {
		if !ended {
			ended = true
			w.trace("ends: %s", f)
			end()
		}
	}
	w.ends = append(w.ends, once)
	w.later(f.during, once)
}

// who is a process, or the one that leads.
func (w *world) who(id int) *process {
	if id >= 0 {
		return w.process[id]
	}
	if holder := w.database.slot.holder; holder != nil {
		return w.process[holder.p.id]
	}
	return w.process[0]
}

// heal ends all faults.
func (w *world) heal() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.trace("all faults end")
	for _, end := range w.ends {
		end()
	}
}

func (w *world) killed(p *process) (restart func()) {
	p.kill()
	return func() {
		if w.process[p.id] == p {
			w.start(p.id)
		}
	}
}

func (p *process) freeze() (thaw func()) {
	if p.frozen != nil {
		return nil
	}
	frozen := make(chan struct{})
	p.frozen = frozen
	return func() {
		p.frozen = nil
		close(frozen)
	}
}

// replaceRedis has another copy take the place of the one that is there, after a
// while in which there is none.
func (w *world) replaceRedis(by *copyOfRedis) (end func()) {
	w.redis.dead = true
	return func() {
		if w.redis.dead {
			w.redis = by
		}
	}
}
