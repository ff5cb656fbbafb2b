package replication

import (
	"context"
	"fmt"
	"iter"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"walcache/proxy/coherence"
	"walcache/proxy/sandbox/sandboxtest"
)

// soakFor is how long the soak runs.
const soakFor = 6 * time.Second

const (
	soakRows   = 400
	soakPlaces = 100
)

// Bump at once, stamp late: an answer that is stamped before it is read, and
// that nothing is known to have changed up to a position, is what the database
// says as of that position.
//
// Commits hang at times, as if a synchronous standby were slow: decoded, and not
// visible for a while.
//
// Every commit raises the versions of the rows that it changes, so an answer
// that Judge does not call changed must hold the version that the database
// holds once the listener has caught up.
func TestSoak_WhatIsNotChangedEqualsTheDatabase(t *testing.T) {
	t.Parallel()
	p := sandboxtest.OwnPostgres(t, map[string]string{"fsync": "off"})
	dsn := p.DSN("")
	admin := open(t, dsn, "CREATE TABLE rows (id int PRIMARY KEY, place int NOT NULL, version int NOT NULL)",
		"CREATE UNIQUE INDEX rows_identity ON rows (id, place); ALTER TABLE rows REPLICA IDENTITY USING INDEX rows_identity",
		fmt.Sprintf("INSERT INTO rows SELECT i, i %% %d, 0 FROM generate_series(1, %d) i", soakPlaces, soakRows))
	l, tracker := follow(t, Config{DatabaseURL: dsn})
	settled(t, l, tracker, "rows")

	var commits atomic.Int64
	writing, stop := context.WithCancel(t.Context())
	defer stop()
	var writers sync.WaitGroup
	for w := range 4 {
		db := open(t, dsn)
		random := rand.New(rand.NewPCG(1, uint64(w)))
		writers.Go(func() {
			for writing.Err() == nil {
				if err := soakWrite(db, random); err != nil {
					t.Error(err)
					return
				}
				commits.Add(1)
			}
		})
	}
	var standby sync.WaitGroup
	standby.Go(func() {
		for sql := range alternately(writing, nobodyAnswers, "ALTER SYSTEM RESET synchronous_standby_names") {
			_, err := admin.Exec(context.Background(), sql)
			if err == nil {
				_, err = admin.Exec(context.Background(), "SELECT pg_reload_conf()")
			}
			if err != nil {
				t.Error(err)
			}
		}
	})
	c := soakChecker{t: t, l: l, tracker: tracker, db: open(t, dsn), random: rand.New(rand.NewPCG(2, 2))}
	for began := time.Now(); time.Since(began) < soakFor || !c.enough() && time.Since(began) < patience; {
		c.round(150)
	}
	stop()
	standby.Wait()
	writers.Wait()
	c.round(100)
	t.Logf("seed 1/2: %d transactions, %d answers checked: %d held, %d were stale", commits.Load(), c.held+c.stale, c.held, c.stale)
	if !c.enough() {
		t.Error("too few of either prove nothing")
	}
	if s := l.Status(); s.Sessions != 1 || s.Widened != 0 {
		t.Errorf("%d sessions, %d widened: %s", s.Sessions, s.Widened, s.Reason)
	}
}

// alternately yields one and the other at short intervals until ctx ends, the
// other last.
func alternately(ctx context.Context, one, other string) iter.Seq[string] {
	return func(yield func(string) bool) {
		every := time.NewTicker(20 * time.Millisecond)
		defer every.Stop()
		for ctx.Err() == nil {
			for _, v := range []string{one, other} {
				<-every.C
				if !yield(v) {
					return
				}
			}
		}
	}
}

// soakWrite changes a row, several, moves one to another place, or takes a
// change back. Rows are locked in order, so that writers do not deadlock.
func soakWrite(db *pgx.Conn, random *rand.Rand) error {
	id, place := 1+random.IntN(soakRows), random.IntN(soakPlaces)
	const several = `WITH them AS (SELECT id FROM rows WHERE id IN ($1, $1 % 7 + 1, $1 % 11 + 1) ORDER BY id FOR UPDATE)
		UPDATE rows SET version = version + 1 FROM them WHERE rows.id = them.id`
	var err error
	switch random.IntN(5) {
	case 0:
		_, err = db.Exec(context.Background(), several, id)
	case 1:
		_, err = db.Exec(context.Background(), "UPDATE rows SET version = version + 1, place = $2 WHERE id = $1", id, place)
	case 2:
		_, err = db.Exec(context.Background(), fmt.Sprintf("BEGIN; UPDATE rows SET version = version + 100 WHERE id = %d; ROLLBACK", id))
	default:
		_, err = db.Exec(context.Background(), "UPDATE rows SET version = version + 1 WHERE id = $1", id)
	}
	return err
}

// soakChecker plays the cache: it stamps, reads, and asks later.
type soakChecker struct {
	t           *testing.T
	l           *Listener
	tracker     *coherence.Tracker
	db          *pgx.Conn
	random      *rand.Rand
	held, stale int
}

type soakAnswer struct {
	answer
	query, body string
}

// enough says that there were answers of both kinds.
func (c *soakChecker) enough() bool { return c.held >= 20 && c.stale >= 20 }

// round reads answers for longer than commits hang, and then holds those that are not called changed against
// the database. Between the second reading and the verdict everything that the
// second reading saw is caught up with.
func (c *soakChecker) round(n int) {
	var answers []soakAnswer
	for range n {
		tag := coherence.RowTag("rows", "id", fmt.Sprint(1+c.random.IntN(soakRows)))
		query := "SELECT format('%s at %s', version, place) FROM rows WHERE id = "
		if c.random.IntN(4) == 0 {
			tag = coherence.RowTag("rows", "place", fmt.Sprint(c.random.IntN(soakPlaces)))
			query = "SELECT string_agg(format('%s: %s', id, version), ', ' ORDER BY id) FROM rows WHERE place = "
		}
		_, value, _ := strings.Cut(string(tag), "=")
		a := soakAnswer{answer: read(c.t, c.tracker, tag), query: "SELECT coalesce((" + query + value + "), '')"}
		a.body = c.ask(a.query)
		answers = append(answers, a)
	}
	for _, a := range answers {
		now := c.ask(a.query)
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		err := c.l.CatchUp(ctx)
		cancel()
		if err != nil {
			c.t.Fatal(err)
		}
		if a.verdict(c.tracker) == coherence.Changed {
			c.stale++
			continue
		}
		if c.held++; now != a.body {
			c.t.Fatalf("as of %v an answer is %q, nothing is known to have changed, and the database says %q", a.at, a.body, now)
		}
	}
}

func (c *soakChecker) ask(sql string) (body string) {
	c.t.Helper()
	return query[string](c.t, c.db, sql)
}
