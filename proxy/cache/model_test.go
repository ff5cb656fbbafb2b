package cache_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"walcache/proxy/cache"
	"walcache/proxy/coherence"
)

// rows is a database of rows that only ever count up, one committed after the
// other. As in PostgreSQL, the change stream has a commit before others see it,
// and whoever made it is told last.
type rows struct {
	*coherence.Tracker
	visible      [10]atomic.Int64 // what a new snapshot sees
	acknowledged [10]atomic.Int64 // what somebody was told is committed
	at           coherence.LSN
}

func pause(r *rand.Rand) {
	for range r.IntN(50) {
		runtime.Gosched()
	}
}

func (db *rows) commit(r *rand.Rand, row int) {
	last := db.at
	db.at += 10
	tag := coherence.RowTag("rows", "id", strconv.Itoa(row))
	var changes []coherence.Change
	for _, t := range []coherence.Tag{tag, "rows", coherence.Any} {
		changes = append(changes, coherence.Change{Hash: t.Hash(), At: db.at})
	}
	apply := func(visible coherence.LSN) {
		if err := db.Apply(coherence.Record{Epoch: epoch, From: last, To: db.at, Visible: visible, Changes: changes}); err != nil {
			panic(err)
		}
	}
	apply(last)
	pause(r)
	seen := db.visible[row].Add(1)
	pause(r)
	apply(db.at)
	db.acknowledged[row].Store(seen)
}

// read runs readers of a cache against a writer, and counts the answers that
// were older than what had been acknowledged before they were asked for.
func (db *rows) read(t *testing.T, truth cache.Truth, seed uint64, commits int) (checked, violations, hits int64) {
	t.Helper()
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mine := rand.New(rand.NewPCG(seed, rand.Uint64()))
		path := strings.Trim(r.URL.Path, "/")
		pause(mine)
		if path == "all" {
			w.Header().Set("Cache-Groups", `"rows"`)
			for i := range db.visible {
				fmt.Fprintln(w, db.visible[i].Load())
			}
			return
		}
		row, _ := strconv.Atoi(path)
		value := db.visible[row].Load()
		pause(mine)
		w.Header().Set("Cache-Groups", fmt.Sprintf(`"rows/id=%d"`, row))
		fmt.Fprintln(w, value)
	}))
	defer upstream.Close()
	c := newCache(t, upstream.URL, truth, func(c *cache.Config) { c.TrustTags = true })

	var stop atomic.Bool
	var total, late atomic.Int64
	var wg sync.WaitGroup
	for reader := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(reader)+1))
			for !stop.Load() {
				first, n, target := r.IntN(len(db.visible)), 1, ""
				if target = fmt.Sprintf("/%d", first); r.IntN(4) == 0 {
					first, n, target = 0, len(db.visible), "/all"
				}
				var floor [10]int64
				for i := range n {
					floor[i] = db.acknowledged[first+i].Load()
				}
				w := httptest.NewRecorder()
				c.ServeHTTP(w, httptest.NewRequest(http.MethodGet, target, nil))
				for i, line := range strings.Fields(w.Body.String()) {
					total.Add(1)
					if got, err := strconv.ParseInt(line, 10, 64); err != nil || got < floor[i] {
						late.Add(1)
					}
				}
			}
		})
	}
	w := rand.New(rand.NewPCG(seed, 0))
	for range commits {
		db.commit(w, min(w.IntN(len(db.visible)), w.IntN(len(db.visible)))) // some rows more than others
		time.Sleep(time.Duration(w.IntN(1000)) * time.Microsecond)
	}
	stop.Store(true)
	wg.Wait()
	return total.Load(), late.Load(), int64(c.Stats().Hits["memory"])
}

func newRows() *rows {
	db := &rows{Tracker: coherence.NewTracker(1<<16, time.Hour), at: 100}
	db.SetCatalog(&coherence.Catalog{Tables: map[string]coherence.Table{"rows": {Columns: map[string]coherence.Kind{"id": coherence.Integer}}}})
	db.Begin(epoch, db.at)
	if err := db.Apply(coherence.Record{Epoch: epoch, To: db.at, Visible: db.at}); err != nil {
		panic(err)
	}
	db.Beat(epoch, time.Now())
	return db
}

func TestModel_NoAnswerIsOlderThanWhatWasAcknowledged(t *testing.T) {
	seed := rand.Uint64()
	db := newRows()
	checked, violations, hits := db.read(t, db, seed, 1000)
	t.Logf("seed %d: %d values checked, %d too old, %d hits", seed, checked, violations, hits)
	if violations != 0 || checked < 1000 || hits == 0 {
		t.Errorf("%d of %d values were too old", violations, checked)
	}
}

// stampedLate stamps with what is known instead of what is visible.
type stampedLate struct{ *rows }

func (s stampedLate) Stamp() coherence.Position {
	p := s.Progress(time.Now())
	return coherence.Position{Epoch: p.Epoch, LSN: p.Known}
}

// The test above can fail: here it does.
func TestModel_WithoutTheStampAnswersAreTooOld(t *testing.T) {
	for deadline := time.Now().Add(time.Minute); ; {
		db := newRows()
		checked, violations, _ := db.read(t, stampedLate{db}, rand.Uint64(), 300)
		if violations > 0 {
			t.Logf("%d of %d values were too old", violations, checked)
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("none of %d values was too old", checked)
		}
	}
}
