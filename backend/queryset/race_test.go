package queryset

import (
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"walcache/backend/db"
	"walcache/proxy/changelog"
	"walcache/proxy/coherence"
	"walcache/proxy/replication"
	"walcache/proxy/sandbox/sandboxtest"
	"walcache/schema"
)

var raceCommits = flag.Int("race.commits", 400, "commits of the race test")

const (
	racePlaces  = 40
	raceWriters = 3
	raceReaders = 4
	raceBound   = 2 * time.Second
)

// TestRace_AnswersAgreeAndAreAsNewAsTheySay has writers change the rows of many
// places, while readers ask two caching services, of which one follows the
// database itself and the other the change log. In each place one row, whose id
// is the place's number, says how often the place changed and how many rows it
// has, in the same transaction.
func TestRace_AnswersAgreeAndAreAsNewAsTheySay(t *testing.T) {
	r := newRace(t)
	var writers, readers sync.WaitGroup
	var stop atomic.Bool
	for i := range raceWriters {
		writers.Go(func() {
			rnd := mathrand.New(mathrand.NewPCG(uint64(i), 1))
			for r.commits.Load() < int64(*raceCommits) {
				r.write(rnd)
				// Leave readers as many turns as it takes to race.
				for r.reads.Load() < 5*r.commits.Load() {
					time.Sleep(100 * time.Microsecond)
				}
			}
		})
	}
	for i := range raceReaders {
		readers.Go(func() {
			rnd := mathrand.New(mathrand.NewPCG(uint64(i), 2))
			for !stop.Load() {
				r.read(rnd)
			}
		})
	}
	writers.Wait()
	stop.Store(true)
	readers.Wait()
	r.compare()
	for i, s := range r.services {
		n := *s.Stats()
		t.Logf("service %d: %d answers of %d from the cache; %+v", i, r.fromCache[i].Load(), r.reads.Load(), n)
		if r.fromCache[i].Load() == 0 || n.Writes == 0 {
			t.Errorf("service %d: there was no race", i)
		}
	}
}

type race struct {
	t         *testing.T
	pool      *pgxpool.Pool
	services  [2]*Querier
	trackers  [2]*coherence.Tracker
	catchUp   func(context.Context) error
	places    [racePlaces + 1]history
	last      atomic.Int64 // the place that changed last
	commits   atomic.Int64
	reads     atomic.Int64
	fromCache [2]atomic.Int64
}

// history is how a place changed. Who changes it holds row until the commit has
// returned.
type history struct {
	row    sync.Mutex
	ids    []int64    // of its rows beside the first; guarded by row
	mu     sync.Mutex // guards the following
	states []state
}

// state is what a place is after a number of changes, which is its index.
type state struct {
	returned time.Time     // the commit had returned then
	before   coherence.LSN // and the server wrote here then
}

func newRace(t *testing.T) *race {
	t.Helper()
	dsn := sandboxtest.Postgres(t)
	must(t, schema.Up(t.Context(), dsn))
	pool, err := pgxpool.New(t.Context(), dsn+"&pool_max_conns=24")
	must(t, err)
	t.Cleanup(pool.Close)
	url, prefix := sandboxtest.Redis(t)
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	r := &race{t: t, pool: pool}
	for i := range r.services {
		r.trackers[i] = coherence.NewTracker(1<<16, raceBound)
		changes, err := changelog.Open(r.trackers[i], url, prefix, log)
		must(t, err)
		t.Cleanup(func() { _ = changes.Close() })
		run(t, changes.Run)
		if i == 0 {
			listener := replication.New(replication.Config{
				DatabaseURL: dsn, Slot: "walcache_" + strings.ToLower(rand.Text()[:8]), Publication: "walcache",
				MaxRetainedWAL: 1 << 30, Log: log, Cluster: changes.Cluster,
			}, changes)
			run(t, listener.Run)
			r.catchUp = listener.CatchUp
		}
		r.services[i] = NewCached(pool, Config{Client: newClient(t, url), Prefix: prefix, Truth: r.trackers[i], Budget: patience, Log: log})
		run(t, r.services[i].Run)
	}
	for place := 1; place <= racePlaces; place++ {
		_, err := pool.Exec(t.Context(), "INSERT INTO properties (id, title, description, price, location) VALUES ($1::bigint, 'first', '0', 1, ($1::bigint)::text)", place)
		must(t, err)
		r.places[place].states = []state{{returned: time.Now(), before: r.position()}}
	}
	_, err = pool.Exec(t.Context(), "SELECT setval(pg_get_serial_sequence('properties', 'id'), 1000)")
	must(t, err)
	r.allCatchUp()
	return r
}

func (r *race) position() coherence.LSN {
	w := writer{cache: &cache{conns: r.pool}}
	lsn, err := w.insertPosition(context.Background())
	if err != nil {
		r.t.Error(err)
	}
	return lsn
}

// allCatchUp waits until both services know all, and nothing of it is invisible.
func (r *race) allCatchUp() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	must(r.t, r.catchUp(ctx))
	known := r.trackers[0].Known()
	for i, tracker := range r.trackers {
		sandboxtest.Eventually(r.t, patience, func() error {
			c, stamp := tracker.Catalog(), tracker.Stamp()
			if c == nil || len(c.Tables) == 0 || stamp.Epoch != known.Epoch || stamp.LSN < known.LSN || !tracker.Vouches(time.Now()) {
				return fmt.Errorf("service %d is at %v, with %v", i, stamp, c)
			}
			return nil
		})
	}
}

// write adds a row to a place, or removes one.
func (r *race) write(rnd *mathrand.Rand) {
	place := 1 + rnd.IntN(racePlaces)
	h := &r.places[place]
	h.row.Lock()
	defer h.row.Unlock()
	seq, ctx := len(h.states), context.Background()
	tx, err := r.pool.Begin(ctx)
	if err == nil {
		defer tx.Rollback(ctx)
		if n := len(h.ids); n > 0 && (n > 8 || rnd.IntN(2) == 0) {
			_, err = tx.Exec(ctx, "DELETE FROM properties WHERE id = $1", h.ids[n-1])
			h.ids = h.ids[:n-1]
		} else {
			var id int64
			err = tx.QueryRow(ctx, "INSERT INTO properties (title, description, price, location) VALUES ('more', '', 1, $1::int::text) RETURNING id", place).Scan(&id)
			h.ids = append(h.ids, id)
		}
	}
	if err == nil {
		_, err = tx.Exec(ctx, "UPDATE properties SET description = $2::int::text, price = $3 WHERE id = $1", place, seq, 1+len(h.ids))
	}
	r.last.Store(int64(place))
	if err == nil {
		err = tx.Commit(ctx)
	}
	if err != nil {
		r.t.Error(err)
	}
	done := state{returned: time.Now(), before: r.position()}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.states = append(h.states, done)
	r.commits.Add(1)
}

// read asks one of the services for something, and examines the answer.
func (r *race) read(rnd *mathrand.Rand) {
	place, i := 1+rnd.IntN(racePlaces), rnd.IntN(len(r.services))
	if last := r.last.Load(); last != 0 && rnd.IntN(2) == 0 {
		place = int(last)
	}
	h, q := &r.places[place], r.services[i]
	arrived := time.Now()
	least := h.since(func(s state) bool { return s.returned.Before(arrived.Add(-raceBound)) })
	ctx, reads := Collect(context.Background())
	if rnd.IntN(3) == 0 { // whoever asks knows of all that is there
		latest, known := h.latest()
		least = latest
		reads.Require(coherence.Position{Epoch: r.trackers[i].Epoch(), LSN: known}.String())
	}
	what, seq, err := r.ask(ctx, q, place, rnd.IntN(3))
	if err != nil {
		r.t.Errorf("%s of place %d: %v", what, place, err)
		return
	}
	r.reads.Add(1)
	asOf := reads.AsOf()
	if p, err := coherence.ParsePosition(asOf); err == nil {
		r.fromCache[i].Add(1)
		least = max(least, h.since(func(s state) bool { return s.before <= p.LSN }))
	}
	if seq >= 0 && seq < least {
		r.t.Errorf("service %d: %s of place %d, as of %s, has change %d and should have %d", i, what, place, asOf, seq, least)
	}
}

// ask returns how often the place had changed, or -1 if that is not asked for.
func (r *race) ask(ctx context.Context, q *Querier, place, kind int) (what string, seq int, err error) {
	switch kind {
	case 0:
		var row db.GetPropertyRow
		row, err = q.GetProperty(ctx, int64(place))
		seq, _ = strconv.Atoi(row.Description)
		return "the first row", seq, err
	case 1:
		var list, count int
		err = q.Consistent(ctx, func(ctx context.Context) error {
			n, err := q.CountProperties(ctx)
			if err != nil {
				return err
			}
			rows, err := q.ListProperties(ctx)
			count, list = int(n), len(rows)
			return err
		})
		if err == nil && list != count {
			err = fmt.Errorf("%d rows and a count of %d", list, count)
		}
		return "the list", -1, err
	}
	location, list, count, says := strconv.Itoa(place), 0, 0, ""
	err = q.Consistent(ctx, func(ctx context.Context) error {
		rows, err := q.ListPropertiesByLocation(ctx, location)
		if err != nil {
			return err
		}
		list = len(rows)
		for _, row := range rows {
			if row.ID == int64(place) {
				seq, _ = strconv.Atoi(row.Description)
				says = row.Price
			}
		}
		n, err := q.CountSearchedPropertiesByLocation(ctx, db.CountSearchedPropertiesByLocationParams{Location: location})
		count = int(n)
		return err
	})
	if want := fmt.Sprintf("%d.00", list); err == nil && (list != count || says != want) {
		err = fmt.Errorf("%d rows, a count of %d, and the first row says %s", list, count, says)
	}
	return "the list", seq, err
}

// since is the last change that fulfils a condition. All before it count, too.
func (h *history) since(fulfils func(state) bool) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := len(h.states) - 1; i > 0; i-- {
		if fulfils(h.states[i]) {
			return i
		}
	}
	return 0
}

func (h *history) latest() (change int, before coherence.LSN) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.states) - 1, h.states[len(h.states)-1].before
}

// compare expects that in the end what is cached is what there is.
func (r *race) compare() {
	r.allCatchUp()
	for place := range r.places[1:] {
		latest, _ := r.places[place+1].latest()
		for i, q := range r.services {
			for kind := range 3 {
				ctx, _ := Collect(context.Background())
				what, seq, err := r.ask(ctx, q, place+1, kind)
				if err != nil || seq >= 0 && seq != latest {
					r.t.Errorf("in the end service %d: %s of place %d has change %d of %d, %v", i, what, place+1, seq, latest, err)
				}
			}
		}
	}
}
