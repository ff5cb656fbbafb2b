package faults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"walcache/proxy/sandbox/sandboxtest"
)

// run is one fault, under load, on a system that may have seen others before.
type run struct {
	*testing.T
	*system
	fault   fault
	seed    uint64
	rnd     *rand.Rand // of the schedule; whoever plays the fault has it to itself
	began   time.Time
	commits atomic.Int64
	refused atomic.Int64 // transactions that did not end well

	mu       sync.Mutex // guards the following
	schedule []string
	struck   time.Time // the fault's first blow
	victims  map[*proxy]bool
	hit      map[*proxy]time.Time // while others went on
	answers  map[*proxy][]answer
	suspects []suspect
	longest  time.Duration // staleness of an answer that is right
	tenures  []tenure
	wrong    []string // what is to be told at the end
}

// tenure is the time of a leader, from when it was seen to hold the slot; of
// nobody, if proxy is nil.
type tenure struct {
	proxy *proxy
	from  time.Time
}

// streams of random numbers that follow from a seed.
const (
	scheduleStream = iota
	paceStream
	corruptStream
	writerStream = 100
	readerStream = 200
)

func (s *system) newRun(t *testing.T, f fault, seed uint64) *run {
	return &run{
		T: t, system: s, fault: f, seed: seed, rnd: rand.New(rand.NewPCG(seed, scheduleStream)), began: time.Now(),
		victims: map[*proxy]bool{}, hit: map[*proxy]time.Time{}, answers: map[*proxy][]answer{},
	}
}

// play is the whole run.
func (r *run) play() figures {
	found, err := r.found(r.Context())
	r.must(err)
	r.model.begin(found)
	stop := r.load()
	defer stop()
	r.awaitHits("before", func(*proxy) float64 { return 0.4 })
	r.hold(800*time.Millisecond, 1800*time.Millisecond)
	before := map[*proxy]float64{}
	for _, p := range r.proxies {
		before[p] = r.ratio(p, time.Now().Add(-time.Second))
	}
	r.note("hit ratio %s", percents(r.proxies, before))

	r.fault.strike(r)

	r.note("healed")
	// What is called fresh without proof stops being so when the bound has passed.
	time.Sleep(time.Until(r.struck.Add(bound + time.Second)))
	half := func(p *proxy) float64 { return before[p] / 2 }
	r.awaitHits("after", half)
	r.hold(700*time.Millisecond, 1200*time.Millisecond)
	over := time.Now()
	after := map[*proxy]float64{}
	for _, p := range r.proxies {
		after[p] = r.ratio(p, over.Add(-time.Second))
	}
	r.note("hit ratio %s", percents(r.proxies, after))
	stop()
	lost := r.compare()
	return r.sum(before, after, lost)
}

// must ends the run if the harness itself failed.
func (r *run) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatalf("seed %d: %v\n%s", r.seed, err, r.story())
	}
}

// note writes into the schedule.
func (r *run) note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.schedule = append(r.schedule, fmt.Sprintf("%9s  ", since(r.began, time.Now()))+fmt.Sprintf(format, args...))
}

// complain keeps what is wrong with the system, for the end of the run.
func (r *run) complain(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wrong = append(r.wrong, what)
}

// story is all there is to understand a failure.
func (r *run) story() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return fmt.Sprintf("again: -faults.kind '^%s$' -faults.seed %d\n%s\n%s",
		r.fault.name, r.seed, strings.Join(r.schedule, "\n"), r.tails())
}

// strike notes that the fault begins, or goes on. Its victims are proxies whose
// own clients are not counted among those that it should have left alone.
func (r *run) strike(what string, victims ...*proxy) {
	for _, p := range victims {
		what += " " + p.name
	}
	r.note("%s", what)
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if r.struck.IsZero() {
		r.struck = now
	}
	for _, p := range victims {
		r.victims[p] = true
		if len(victims) < len(r.proxies) {
			r.hit[p] = now
		}
	}
}

// between is a duration of the schedule.
func (r *run) between(shortest, longest time.Duration) time.Duration {
	return shortest + time.Duration(r.rnd.Int64N(int64(longest-shortest)+1))
}

// hold lets things go on as they are for a while.
func (r *run) hold(shortest, longest time.Duration) {
	time.Sleep(r.between(shortest, longest))
}

// one of several things.
func one[T any](r *run, of ...T) T { return of[r.rnd.IntN(len(of))] }

// load starts writers, readers, and who watches the slot. The function that it
// returns stops them and waits; calling it again does nothing.
func (r *run) load() (stop func()) {
	stopping, ctx := make(chan struct{}), r.Context()
	watching, stopWatching := context.WithCancel(ctx)
	var group sync.WaitGroup
	group.Go(func() { r.watch(watching) })
	pace := rand.New(rand.NewPCG(r.seed, paceStream))
	perSecond := 80 + pace.IntN(100)
	r.note("%d transactions a second", perSecond)
	for i := range writers {
		w := &writer{run: r, rnd: rand.New(rand.NewPCG(r.seed, uint64(writerStream+i))), pause: writers * time.Second / time.Duration(perSecond)}
		group.Go(func() { w.write(stopping) })
	}
	for i, p := range r.proxies {
		rnd := rand.New(rand.NewPCG(r.seed, uint64(readerStream+i)))
		group.Go(func() { r.read(p, rnd, stopping) })
	}
	return sync.OnceFunc(func() {
		close(stopping)
		stopWatching()
		group.Wait()
	})
}

// watch notes who holds the slot, until ctx ends.
func (r *run) watch(ctx context.Context) {
	var conn *pgx.Conn
	every := time.NewTicker(20 * time.Millisecond)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			if conn != nil {
				_ = conn.Close(context.Background())
			}
			return
		case <-every.C:
		}
		// One that has to be given up has seen a fault of PostgreSQL's.
		limited, cancel := context.WithTimeout(ctx, time.Second)
		if conn == nil || conn.IsClosed() {
			conn, _ = pgx.Connect(limited, r.postgres.DSN(""))
		}
		if conn != nil {
			if p, err := r.holder(limited, conn); err == nil {
				r.leads(p)
			}
		}
		cancel()
	}
}

func (r *run) leads(p *proxy) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.tenures); n > 0 && r.tenures[n-1].proxy == p {
		return
	}
	name := "nobody"
	if p != nil {
		name = p.name
	}
	now := time.Now()
	r.tenures = append(r.tenures, tenure{p, now})
	r.schedule = append(r.schedule, fmt.Sprintf("%9s    the slot is held by %s", since(r.began, now), name))
}

// leader is who holds the slot now, or whoever comes to hold it.
func (r *run) leader() *proxy {
	r.Helper()
	var p *proxy
	sandboxtest.Eventually(r, patience, func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		if n := len(r.tenures); n > 0 && r.tenures[n-1].proxy != nil {
			p = r.tenures[n-1].proxy
			return nil
		}
		return errors.New("nobody holds the slot")
	})
	return p
}

// followers are the others, in a random order.
func (r *run) followers() (others []*proxy) {
	leader := r.leader()
	for _, i := range r.rnd.Perm(len(r.proxies)) {
		if p := r.proxies[i]; p != leader {
			others = append(others, p)
		}
	}
	return others
}

// takenOver returns when another than p came to hold the slot after a moment;
// zero if none has.
func (r *run) takenOver(p *proxy, after time.Time) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, t := range r.tenures {
		if t.proxy != nil && t.proxy != p && t.from.After(after) {
			return t.from
		}
	}
	return time.Time{}
}

// untilTakenOver waits until another proxy leads, some seconds at most.
func (r *run) untilTakenOver(p *proxy) {
	began := time.Now()
	for time.Since(began) < 15*time.Second {
		if !r.takenOver(p, began).IsZero() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// compare waits for quiet, and counts the pages that do not come to be what the
// database has.
func (r *run) compare() (lost int) {
	// A transaction whose client has lost its connection may still be under way.
	sandboxtest.Eventually(r, patience, func() error {
		open, err := ask[int](r.Context(), r.system, `SELECT count(*) FROM pg_stat_activity
			WHERE xact_start IS NOT NULL AND backend_type = 'client backend' AND backend_xid IS NOT NULL AND application_name = 'writer'`)
		if err == nil && open > 0 {
			err = fmt.Errorf("%d transactions are open", open)
		}
		return err
	})
	found, err := r.found(r.Context())
	r.must(err)
	if err := r.model.check(found, r.began); err != nil {
		r.complain(err.Error())
	}
	quiet := r.model.lastAck().Add(bound)
	var group sync.WaitGroup
	var different atomic.Int64
	for _, p := range r.proxies {
		group.Go(func() {
			for _, what := range pages() {
				if err := p.equals(what, found, quiet); err != nil {
					different.Add(1)
					r.complain("after quiet, " + err.Error())
				}
			}
		})
	}
	group.Wait()
	return int(different.Load())
}

// equals asks for a page until it is what the database has. If a request sent
// after some moment is not answered so, it never will.
func (p *proxy) equals(what page, found []claim, quiet time.Time) error {
	for giveUp := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		a := p.fetch(what)
		wrong := ""
		for _, c := range a.claims {
			has := found[c.id-1]
			if !c.fits(state{version: has.version, place: has.place}) {
				wrong = fmt.Sprintf("%s, but the database: %s", c, has)
			}
		}
		switch {
		case a.err == nil && wrong == "":
			return nil
		case a.err == nil && a.sent.After(quiet), a.sent.After(giveUp):
			return fmt.Errorf("%s %s (%s): %s %v", p.name, what.path, a.cacheStatus, wrong, a.err)
		}
	}
}
