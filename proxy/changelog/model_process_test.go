package changelog

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"
	"unsafe"

	"walcache/proxy/coherence"
)

const (
	bound     = 2 * time.Second
	processes = 3
)

// world is all that the model has: a database and who writes to it, a Redis, and
// processes that cache.
type world struct {
	seed   uint64
	random *rand.Rand // of the schedule; used under mu
	began  time.Time
	tracer func(format string, args ...any)

	mu       sync.Mutex // guards the following
	database database
	redis    *copyOfRedis
	old      *copyOfRedis // the primary before, that some still see; or nil
	copies   int
	reasons  []string // why epochs began
	pages    map[page]*answer
	process  [processes]*process
	lives    []*process // all that ever were
	quiet    bool       // nobody writes
	calm     bool       // one fault at a time, of those that begin no epoch
	idle     bool       // in the middle of the faults, and until all is well
	again    time.Duration
	faults   []fault
	ends     []func() // of faults
	hits     int
	found    []string // violations
	timers   sync.WaitGroup
}

func (w *world) violation(format string, args ...any) {
	w.found = append(w.found, fmt.Sprintf("%8.3f ", time.Since(w.began).Seconds())+fmt.Sprintf(format, args...))
}

func (w *world) trace(format string, args ...any) {
	if w.tracer != nil {
		w.tracer("%8.3f "+format, append([]any{time.Since(w.began).Seconds()}, args...)...)
	}
}

// epoch names one that begins.
func (w *world) epoch(why string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reasons = append(w.reasons, why)
	return fmt.Sprintf("e%d", len(w.reasons))
}

func (w *world) setQuiet(quiet bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.quiet = w.quiet || quiet
}

// later does something after a while, under mu. The world waits for it.
func (w *world) later(after time.Duration, what func()) {
	w.timers.Add(1)
	time.AfterFunc(after, func() {
		defer w.timers.Done()
		w.mu.Lock()
		defer w.mu.Unlock()
		what()
	})
}

// redisOf is the primary that a process sees. The caller holds mu.
func (w *world) redisOf(p *process) *copyOfRedis {
	if w.old != nil && p.seesOld {
		return w.old
	}
	return w.redis
}

// process is a proxy: its listener, its tracker that follows the log, and its
// cache.
type process struct {
	w    *world
	id   int
	life int
	log  *Log
	ctx  context.Context
	kill context.CancelFunc
	done sync.WaitGroup

	savedIn string // the epoch of its last checkpoint; the writer's

	// guarded by the world's mu
	frozen          chan struct{} // closed when it goes on; nil if it runs
	cutFromDatabase bool
	cutFromRedis    bool
	seesOld         bool
	clock           time.Duration // how far its wall clock is off
	stored          map[page]*answer
	tables          int // the version of the catalog that it saw last
	tablesIn        string
}

// runs waits while the process is frozen, and reports whether it is alive.
func (p *process) runs() bool {
	for {
		p.w.mu.Lock()
		frozen := p.frozen
		p.w.mu.Unlock()
		if frozen == nil {
			return p.ctx.Err() == nil
		}
		select {
		case <-frozen:
		case <-p.ctx.Done():
			return false
		}
	}
}

func (p *process) now() time.Time {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	return clocks(time.Now(), p.clock)
}

// clocks is a time as time.Now returns it, with two clocks, one of which may
// have been set. In simulated time there is only one, and package time offers no
// way to set them apart: the first word of a Time holds a flag, the wall clock's
// seconds above 30 bits, and nanoseconds, and the second the monotonic clock.
func clocks(t time.Time, off time.Duration) time.Time {
	const monotonic = 1 << 63
	wall := t.Add(off)
	mono := t.UnixNano()
	words := (*[2]uint64)(unsafe.Pointer(&t))
	words[0] = monotonic | uint64(wall.Unix()+since1885)<<30 | uint64(wall.Nanosecond())
	words[1] = uint64(mono)
	return t
}

// since1885 is the wall clock's seconds at the beginning of 1970.
var since1885 = func() int64 {
	now := time.Now()
	words := (*[2]uint64)(unsafe.Pointer(&now))
	return int64(words[0]<<1>>31) - now.Unix()
}()

func (p *process) trace(format string, args ...any) {
	if p.w.tracer != nil {
		p.w.trace("process %d.%d: "+format, append([]any{p.id, p.life}, args...)...)
	}
}

// start begins a life of process id. The caller holds mu.
func (w *world) start(id int) {
	life := 1
	if before := w.process[id]; before != nil {
		life = before.life + 1
	}
	p := &process{w: w, id: id, life: life, stored: map[page]*answer{}}
	p.ctx, p.kill = context.WithCancel(context.Background())
	source := func(stream uint64) *rand.Rand { return rand.New(rand.NewPCG(w.seed, uint64(id*1000+life*10)+stream)) }
	connection := func(stream uint64) *client { return &client{p: p, random: source(stream)} }
	remote := &writingClient{readingClient: readingClient{connection(1)}, writing: connection(2)}
	logger := slog.New(slog.NewTextHandler(io.Discard, nil))
	if w.tracer != nil {
		logger = slog.New(slog.NewTextHandler(tracing{p}, nil))
	}
	p.log = newLog(coherence.NewTracker(1<<(7+id), bound), remote, readingClient{connection(3)}, logger)
	remote.writing.renewed = p.log.writer.reconnected
	p.log.now = p.now
	p.log.limits = limits{batch: 8, queued: 64, checkpointAfter: 4 << 10}
	w.process[id] = p
	w.lives = append(w.lives, p)
	p.done.Go(func() { p.log.writer.loop(p.ctx) })
	p.done.Go(func() { p.log.follow(p.ctx) })
	if id < processes-1 || w.seed%4 > 0 { // some only follow
		p.done.Go(func() { (&listener{p: p, random: source(4)}).run() })
	}
	p.done.Go(func() { p.serve(source(5)) })
}

type tracing struct{ p *process }

func (t tracing) Write(line []byte) (int, error) {
	t.p.trace("%s", line)
	return len(line), nil
}

// page is what is asked for: a row, some, or all.
type page int

const pages = rows + 4

func (g page) rows() (first, n int) {
	switch {
	case g < rows:
		return int(g), 1
	case g < rows+2:
		return int(g-rows) * rows / 2, rows / 2
	}
	return 0, rows
}

// dependencies are what an answer to each depends on.
var dependencies = func() (all [pages]coherence.Dependencies) {
	for g := range page(pages) {
		all[g] = g.deps()
	}
	return all
}()

func (g page) deps() (deps coherence.Dependencies) {
	first, n := g.rows()
	switch g {
	case rows + 2:
		return coherence.Dependencies{coherence.TableFloor("t"), coherence.Tag("t").Hash()}
	case rows + 3:
		return coherence.WholeDatabase()
	}
	for row := first; row < first+n; row++ {
		deps = append(deps, rowTag(row).Hash())
	}
	return deps
}

// answer is a stored one: rows as of the commits that it was read from.
type answer struct {
	asOf coherence.Position
	deps coherence.Dependencies
	rows [rows]*commit
}

// serve answers requests, as the cache does.
func (p *process) serve(random *rand.Rand) {
	for p.runs() {
		time.Sleep(time.Duration(random.Int64N(int64(40 * time.Millisecond))))
		if !p.runs() {
			return
		}
		g := page(random.IntN(pages))
		if p.hit(g) {
			continue
		}
		own := rand.New(rand.NewPCG(random.Uint64(), 0))
		p.done.Go(func() { p.fill(g, own) })
	}
}

// hit answers from what is stored, if that is fresh, and checks the answer.
func (p *process) hit(g page) bool {
	now := p.now()
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	p.watchCatalog()
	if c := p.log.Catalog(); c != nil && c.Off {
		return false
	}
	for _, a := range []*answer{p.stored[g], p.shared(g)} {
		if a != nil && p.judge(a, now) == coherence.Fresh {
			p.stored[g] = a
			p.check(g, a)
			return true
		}
	}
	return false
}

func (p *process) shared(g page) *answer {
	if r := p.w.redisOf(p); r.stalled || r.dead || p.cutFromRedis {
		return nil
	}
	return p.w.pages[g]
}

func (p *process) judge(a *answer, now time.Time) coherence.Verdict {
	asOf := a.asOf
	if broken("epoch") {
		asOf.Epoch = p.log.Epoch()
	}
	return p.log.Judge(asOf, a.deps, now)
}

// check is the promise: every commit that was acknowledged more than the bound
// before is in the answer. The caller holds mu.
func (p *process) check(g page, a *answer) {
	p.w.hits++
	before := time.Now().Add(-bound)
	first, n := g.rows()
	for row := first; row < first+n; row++ {
		want := acknowledged(p.w.database.rows[row], before)
		if want != nil && !a.rows[row].includes(want) {
			p.w.violation("process %d.%d: row %d is of commit %d, and %d at %s was acknowledged %s ago (answer as of %s, now %s, known %s, age %s)", p.id, p.life, row,
				a.rows[row].number(), want.n, want.lsn, time.Since(want.told), a.asOf, p.log.Epoch(), p.log.Checkpoint().Known, p.log.Progress(clocks(time.Now(), p.clock)).FreshAge)
		}
	}
	if last := acknowledged(p.w.database.off, before); last != nil && last == p.w.database.off && last.off {
		p.w.violation("process %d.%d: a hit, and caching was switched off %s ago", p.id, p.life, time.Since(last.told))
	}
}

// acknowledged is the last commit that was acknowledged before.
func acknowledged(last *commit, before time.Time) *commit {
	for last != nil && !last.told.Before(before) {
		last = last.before
	}
	return last
}

// watchCatalog checks that no catalog of an earlier leader comes back. The
// caller holds mu.
func (p *process) watchCatalog() {
	c, epoch := p.log.Catalog(), p.log.Epoch()
	if c == nil {
		return
	}
	tables, _ := strconv.Atoi(c.Blind[0])
	if epoch == p.tablesIn && tables < p.tables {
		p.w.violation("process %d.%d: catalog %d after %d in %s", p.id, p.life, tables, p.tables, epoch)
	}
	p.tables, p.tablesIn = tables, epoch
}

// fill reads the database and stores what it read, as of a position that was
// read before.
func (p *process) fill(g page, random *rand.Rand) {
	a := &answer{asOf: p.stamp(), deps: dependencies[g]}
	wait := func() bool {
		after := random.Int64N(int64(20 * time.Millisecond))
		if random.IntN(30) == 0 {
			after = random.Int64N(int64(3 * time.Second))
		}
		time.Sleep(time.Duration(after))
		return p.runs()
	}
	if !wait() || !p.read(a) || !wait() {
		return
	}
	if broken("stamp") {
		a.asOf = p.stamp()
	}
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	if c := p.log.Catalog(); a.asOf == (coherence.Position{}) || c == nil || c.Off {
		return
	}
	p.stored[g] = a
	if p.w.redisOf(p) == p.w.redis && !p.w.redis.stalled && !p.cutFromRedis {
		p.w.pages[g] = a
	}
}

func (p *process) read(a *answer) bool {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	for row := range a.rows {
		a.rows[row] = snapshot(p.w.database.rows[row])
	}
	return !p.w.database.down && !p.w.database.stalled // though it may be cut off: it asks the service
}

func (p *process) stamp() coherence.Position {
	if broken("visible") {
		return coherence.Position{Epoch: p.log.Epoch(), LSN: p.log.Checkpoint().Known}
	}
	return p.log.Stamp()
}
