package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"walcache/proxy/cache"
	"walcache/proxy/coherence"
	"walcache/proxy/sandbox/sandboxtest"
)

var (
	raceCommits = flag.Int("race.commits", 1000, "commits of the race test")
	raceReads   = flag.Int("race.reads", 15_000, "reads of the race test, at least")
	raceBound   = flag.Duration("race.bound", 2*time.Second, "how long before a request a commit must have returned to have to be in the answer")
	raceSeed    = flag.Uint64("race.seed", 0, "seed of the race test; 0 picks one")
	raceBreak   = flag.String("race.break", "", "break one thing, to see the race test fail: barrier, stamp or judge")
)

// TestRace_NoAnswerIsOlderThanACommitBeforeIt lets writers change rows straight
// in PostgreSQL while readers ask two proxies, each before a backend with cached
// querysets, and holds every answer against the history of the rows: no older
// than what had been committed some time before the request, a list and its count
// of one moment, and at the end exactly what the database has.
func TestRace_NoAnswerIsOlderThanACommitBeforeIt(t *testing.T) {
	seed := *raceSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d", seed)
	share := sharing(t)
	adjust := func(o *options) { share(o); o.wrap = broken }
	s := start(t, sandboxtest.Postgres(t), adjust)
	second := s.anotherBackend(adjust)
	plain := &system{t: t, dsn: s.dsn}
	t.Cleanup(plain.runBackend(redisConfig{}))
	s.direct = plain.direct // which has no cache
	r := &race{system: s, seed: seed, urls: []string{s.url, second.url}}
	r.fill()
	r.run()
	r.report()
	r.compare()
}

// broken switches off what keeps the promise, on demand: then the test has to
// fail.
func broken(t *coherence.Tracker) cache.Truth {
	switch *raceBreak {
	case "barrier":
		return withoutBarrier{t}
	case "stamp":
		return withoutStamp{t}
	case "judge":
		return withoutJudge{t}
	}
	return t
}

// withoutBarrier stamps what is known to have changed, not what is visible.
type withoutBarrier struct{ *coherence.Tracker }

func (b withoutBarrier) Stamp() coherence.Position {
	return b.Known()
}

// withoutStamp takes what is known at the end of a fetch for what was read.
type withoutStamp struct{ *coherence.Tracker }

func (b withoutStamp) AsOf(stamp coherence.Position, stated string) (coherence.Position, bool) {
	_, valid := b.Tracker.AsOf(stamp, stated)
	return b.Known(), valid
}

// withoutJudge calls everything fresh.
type withoutJudge struct{ *coherence.Tracker }

func (withoutJudge) Judge(coherence.Position, coherence.Dependencies, time.Time) coherence.Verdict {
	return coherence.Fresh
}

const (
	raceRows    = 800
	raceWriters = 4
	raceReaders = 8
)

// racePlaces have names that a tag has to encode.
var racePlaces = func() (places []string) {
	for i := range 32 {
		places = append(places, fmt.Sprintf("Zürich, Kreis %d/%d", i, raceRows))
	}
	return places
}()

// state is what a row was from one commit to the next. Its version is the price
// in cents, different for each state of a row.
type state struct {
	version  int
	place    string    // "" while there is no row
	began    time.Time // its commit was sent
	returned time.Time // its commit had returned; zero until then
}

// history is what one row has been. Writers hold row for as long as their
// transaction runs, so that the order of states is that of commits.
type history struct {
	row    sync.Mutex
	mu     sync.Mutex // guards the following
	states []state
}

// allowed are the states that a request may be answered with: from the last one
// whose commit had returned a bound before it arrived, to the last one begun
// before its answer was there.
func (h *history) allowed(arrived, answered time.Time, bound time.Duration) []state {
	h.mu.Lock()
	defer h.mu.Unlock()
	first := len(h.states) - 1
	for first > 0 && !(h.states[first].returned.Before(arrived.Add(-bound)) && !h.states[first].returned.IsZero()) {
		first--
	}
	last := first + 1
	for last < len(h.states) && h.states[last].began.Before(answered) {
		last++
	}
	return slices.Clone(h.states[first:last])
}

// last is the row's state now; the caller holds row.
func (h *history) last() state {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.states[len(h.states)-1]
}

// race is one run of the test.
type race struct {
	*system
	seed     uint64
	urls     []string     // of the proxies
	truncate sync.RWMutex // held for writing by whoever empties the table
	rows     [raceRows + 1]history
	chased   atomic.Int64 // the row that was last sent a commit
	commits  atomic.Int64
	reads    atomic.Int64
	hits     atomic.Int64
	older    [4]atomic.Int64 // answers older than a commit that returned raceBounds before
	began    time.Time
	took     time.Duration
}

// raceBounds are counted beside the bound that is asserted, the strictest first.
var raceBounds = [4]time.Duration{0, time.Millisecond, 5 * time.Millisecond, 50 * time.Millisecond}

// fill makes the rows, each in its first state.
func (r *race) fill() {
	began := time.Now()
	r.exec("TRUNCATE properties")
	for id := 1; id <= raceRows; id++ {
		place := racePlaces[id%len(racePlaces)]
		_, err := r.db.Exec(context.Background(), "INSERT INTO properties (id, title, description, price, location) OVERRIDING SYSTEM VALUE VALUES ($1, 'row', '', 0.01, $2)", id, place)
		if err != nil {
			r.t.Fatal(err)
		}
		r.rows[id].states = []state{{version: 1, place: place, began: began, returned: time.Now()}}
	}
	r.caughtUp()
}

func (r *race) run() {
	r.began = time.Now()
	writing, stopWriting := context.WithCancel(context.Background())
	var writers, readers sync.WaitGroup
	for i := range raceWriters {
		rnd := rand.New(rand.NewPCG(r.seed, uint64(i)))
		writers.Go(func() {
			for int(r.commits.Load()) < *raceCommits {
				r.write(rnd)
				// Leave readers as many turns as the figures ask for.
				for writing.Err() == nil && r.reads.Load()*int64(*raceCommits) < r.commits.Load()*int64(*raceReads) {
					time.Sleep(100 * time.Microsecond)
				}
			}
		})
	}
	for i := range raceReaders {
		rnd := rand.New(rand.NewPCG(r.seed, uint64(1000+i)))
		readers.Go(func() {
			for writing.Err() == nil || int(r.reads.Load()) < *raceReads {
				r.read(rnd)
			}
		})
	}
	writers.Wait()
	stopWriting()
	readers.Wait()
	r.took = time.Since(r.began)
}

// skewed picks a row, low numbers far more often.
func skewed(rnd *rand.Rand) int {
	f := rnd.Float64()
	return 1 + int(f*f*f*raceRows)
}

// write runs one transaction of a random kind.
func (r *race) write(rnd *rand.Rand) {
	if rnd.IntN(1000) == 0 {
		r.empty()
		return
	}
	r.truncate.RLock()
	defer r.truncate.RUnlock()
	n := 1
	if rnd.IntN(10) == 0 {
		n = 2 + rnd.IntN(10)
	}
	ids := map[int]bool{}
	for range n {
		ids[skewed(rnd)] = true
	}
	var rows []int
	for id := range ids {
		rows = append(rows, id)
	}
	slices.Sort(rows) // in order, so that writers do not wait for each other in a circle
	r.change(rows, rnd, rnd.IntN(12) == 0)
}

// change moves rows to their next states in one transaction, or takes all of it
// back.
func (r *race) change(rows []int, rnd *rand.Rand, rollBack bool) {
	for _, id := range rows {
		r.rows[id].row.Lock()
		defer r.rows[id].row.Unlock()
	}
	ctx := context.Background()
	tx, err := r.db.Begin(ctx)
	r.must(err)
	defer func() { _ = tx.Rollback(ctx) }()
	next := make([]state, len(rows))
	for i, id := range rows {
		next[i] = r.next(ctx, tx, id, rnd)
	}
	if rollBack {
		r.must(tx.Rollback(ctx))
		return
	}
	r.commit(rows, next, func() error { return tx.Commit(ctx) })
}

// next changes a row, and returns the state that it is in once that commits.
func (r *race) next(ctx context.Context, tx pgx.Tx, id int, rnd *rand.Rand) state {
	was := r.rows[id].last()
	st := state{version: was.version + 1, place: was.place}
	price := float64(st.version) / 100
	sql := "UPDATE properties SET price = $2, location = $3 WHERE id = $1"
	switch kind := rnd.IntN(10); {
	case was.place == "":
		st.place = racePlaces[rnd.IntN(len(racePlaces))]
		sql = "INSERT INTO properties (id, title, description, price, location) OVERRIDING SYSTEM VALUE VALUES ($1, 'row', '', $2, $3)"
	case kind == 0:
		st.place = ""
		_, err := tx.Exec(ctx, "DELETE FROM properties WHERE id = $1", id)
		r.must(err)
		return st
	case kind <= 2:
		st.place = racePlaces[rnd.IntN(len(racePlaces))]
	}
	_, err := tx.Exec(ctx, sql, id, price, st.place)
	r.must(err)
	return st
}

// commit writes the rows' new states into their histories around a commit.
func (r *race) commit(rows []int, next []state, commit func() error) {
	for i, id := range rows {
		next[i].began = time.Now()
		h := &r.rows[id]
		h.mu.Lock()
		h.states = append(h.states, next[i])
		h.mu.Unlock()
	}
	r.chased.Store(int64(rows[0]))
	r.must(commit())
	now := time.Now()
	for _, id := range rows {
		h := &r.rows[id]
		h.mu.Lock()
		h.states[len(h.states)-1].returned = now
		h.mu.Unlock()
	}
	r.commits.Add(1)
}

// empty truncates the table.
func (r *race) empty() {
	r.truncate.Lock()
	defer r.truncate.Unlock()
	rows, next := make([]int, raceRows), make([]state, raceRows)
	for i := range rows {
		rows[i] = i + 1
		next[i] = state{version: r.rows[i+1].last().version + 1}
	}
	r.commit(rows, next, func() error {
		_, err := r.db.Exec(context.Background(), "TRUNCATE properties")
		return err
	})
}

func (r *race) must(err error) {
	if err != nil {
		panic(fmt.Sprintf("writer: %v", err))
	}
}

// read asks for a row or a list, and checks the answer. Every other time it
// asks for a row that is being changed, so that fills run into commits.
func (r *race) read(rnd *rand.Rand) {
	switch kind := rnd.IntN(400); {
	case kind == 0:
		r.ask(rnd, "/properties/", r.checkList("", func(state) bool { return true }))
	case kind <= 20:
		place := racePlaces[rnd.IntN(len(racePlaces))]
		path := "/properties/?location=" + url.QueryEscape(place)
		if kind%2 == 0 { // the rows and their count are two querysets
			path += "&page=1&page_size=100"
		}
		r.ask(rnd, path, r.checkList(place, func(st state) bool { return st.place == place }))
	default:
		id := skewed(rnd)
		if chased := int(r.chased.Load()); chased > 0 && kind%2 == 0 {
			id = chased
		}
		r.ask(rnd, fmt.Sprintf("/properties/%d/", id), r.checkRow(id))
	}
}

// check says what is wrong with an answer, if something is, for a bound.
type check func(res response, arrived, answered time.Time, bound time.Duration) error

func (r *race) ask(rnd *rand.Rand, path string, wrong check) {
	arrived := time.Now()
	res, err := r.fetch(r.urls[rnd.IntN(len(r.urls))] + path)
	answered := time.Now()
	if err != nil {
		r.t.Errorf("%s: %v", path, err)
		return
	}
	r.reads.Add(1)
	if res.hit() {
		r.hits.Add(1)
	}
	for i, bound := range raceBounds {
		if wrong(res, arrived, answered, bound) == nil {
			return
		}
		r.older[i].Add(1)
	}
	if err := wrong(res, arrived, answered, *raceBound); err != nil {
		r.t.Errorf("%s (%s): %v", path, res.header.Get("Cache-Status"), err)
	}
}

func (r *race) checkRow(id int) check {
	return func(res response, arrived, answered time.Time, bound time.Duration) error {
		if res.status != 200 && res.status != 404 {
			return fmt.Errorf("status %d: %s", res.status, res.body)
		}
		var p property
		var err error
		if res.status == 200 {
			if p, err = decode[property](res.body); err != nil {
				return err
			}
		}
		return r.holds(id, p, arrived, answered, bound)
	}
}

// checkList checks each row of a list that holds the rows in some place, and
// that each row that is not in it may be missing.
func (r *race) checkList(place string, belongs func(state) bool) check {
	return func(res response, arrived, answered time.Time, bound time.Duration) error {
		l, err := decode[listing](res.body)
		if err != nil || res.status != 200 {
			return fmt.Errorf("status %d: %w", res.status, err)
		}
		if l.Count != len(l.Properties) {
			return fmt.Errorf("count is %d over %d rows", l.Count, len(l.Properties))
		}
		listed := map[int]property{}
		for _, p := range l.Properties {
			listed[int(p.ID)] = p
		}
		for id := 1; id <= raceRows; id++ {
			if p, ok := listed[id]; ok {
				err = r.holds(id, p, arrived, answered, bound)
			} else if !slices.ContainsFunc(r.rows[id].allowed(arrived, answered, bound), func(st state) bool { return st.place == "" || !belongs(st) }) {
				err = fmt.Errorf("row %d is missing in %q", id, place)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
}

// holds checks a row, or that there is none, against the states it may be in.
func (r *race) holds(id int, p property, arrived, answered time.Time, bound time.Duration) error {
	version := 0
	if p.ID != 0 {
		price, err := strconv.ParseFloat(p.Price, 64)
		if err != nil {
			return err
		}
		version = int(price*100 + 0.5)
	}
	states := r.rows[id].allowed(arrived, answered, bound)
	for _, st := range states {
		if st.place == p.Location && (st.version == version || st.place == "") {
			return nil
		}
	}
	return fmt.Errorf("row %d is %q version %d, and may be one of %+v", id, p.Location, version, states)
}

func (r *race) report() {
	hits, reads := r.hits.Load(), r.reads.Load()
	r.t.Logf("%d commits and %d checked reads in %s, %.1f%% hits", r.commits.Load(), reads, r.took.Round(time.Millisecond), 100*float64(hits)/float64(reads))
	for i, bound := range raceBounds {
		r.t.Logf("answers older than a commit that had returned %s before their request: %d", bound, r.older[i].Load())
	}
	if 2*hits < reads {
		r.t.Errorf("hit ratio is below one half")
	}
}

// compare waits for quiet, and then wants every page as the database has it.
func (r *race) compare() {
	r.caughtUp()
	paths := []string{"/properties/"}
	for _, place := range racePlaces {
		paths = append(paths, "/properties/?location="+url.QueryEscape(place))
	}
	for id := 1; id <= raceRows; id++ {
		paths = append(paths, fmt.Sprintf("/properties/%d/", id))
	}
	for _, path := range paths {
		direct, err := r.fetch(r.direct + path)
		if err != nil {
			r.t.Fatal(err)
		}
		want := direct.body
		for _, url := range r.urls {
			sandboxtest.Eventually(r.t, 10*time.Second, func() error { // the second may have to catch up
				res, err := r.fetch(url + path)
				if err == nil && (strings.Replace(res.body, `"cached":true`, `"cached":false`, 1) != want || res.status != direct.status) {
					err = fmt.Errorf("%s after quiet (%s): %d %s\nbut the database has: %d %s", path, res.header.Get("Cache-Status"), res.status, res.body, direct.status, direct.body)
				}
				return err
			})
		}
	}
}
