package replication_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"walcache/proxy/changelog"
	"walcache/proxy/coherence"
	"walcache/proxy/replication"
	"walcache/proxy/sandbox/sandboxtest"
)

// process is one that follows a database, by its own listener or by the log
// alone, and that somebody watches.
type process struct {
	*testing.T
	name     string
	log      *changelog.Log
	listener *replication.Listener // nil where another listens
	seen     <-chan coherence.Seen
}

func newProcess(t *testing.T, name, redis, prefix, dsn string) *process {
	logger := slog.New(slog.NewTextHandler(t.Output(), nil))
	log, err := changelog.Open(coherence.NewTracker(1<<16, 2*time.Second), redis, prefix, logger)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	p := &process{T: t, name: name, log: log, seen: log.Watch(ctx)}
	var group errgroup.Group
	group.Go(func() error { return log.Run(ctx) })
	if dsn != "" {
		p.listener = replication.New(replication.Config{
			DatabaseURL: dsn, Slot: "watched_" + prefix[:8], Publication: "walcache", Log: logger, Cluster: log.Cluster,
		}, log)
		group.Go(func() error { return p.listener.Run(ctx) })
	}
	t.Cleanup(func() {
		stop()
		if err := errors.Join(group.Wait(), log.Close()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for range p.seen { // ends with ctx
		}
	})
	return p
}

// ready waits until what is committed from now on is told one record at a time.
func (p *process) ready(tables ...string) {
	p.Helper()
	sandboxtest.Eventually(p, time.Minute, func() error {
		c := p.log.Catalog()
		if c == nil || !p.log.Vouches(time.Now()) || p.listener != nil && !p.log.Status().Writer.Saved {
			return fmt.Errorf("%s is not ready", p.name)
		}
		for _, table := range tables {
			if _, ok := c.Tables[table]; !ok {
				return fmt.Errorf("%s does not know table %s", p.name, table)
			}
		}
		return nil
	})
}

// sees returns what is seen until so many rows are, of the tables named.
func (p *process) sees(rows int) (all []coherence.Seen, tables []coherence.TableChanges) {
	p.Helper()
	deadline := time.After(time.Minute)
	for total := 0; total < rows; {
		select {
		case s := <-p.seen:
			all = append(all, s)
			tables = append(tables, s.Tables...)
			for _, table := range s.Tables {
				total += table.Rows
			}
		case <-deadline:
			p.Fatalf("%s has seen %d rows of %d", p.name, total, rows)
		}
	}
	return all, tables
}

// statement runs one, in a transaction of its own, and returns when it was, by
// the server's clock.
func statement(t *testing.T, db *pgx.Conn, sql string) (before, after time.Time) {
	t.Helper()
	clock := func() (now time.Time) {
		t.Helper()
		if err := db.QueryRow(context.Background(), "SELECT clock_timestamp()").Scan(&now); err != nil {
			t.Fatal(err)
		}
		return now
	}
	before = clock()
	if _, err := db.Exec(context.Background(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return before, clock()
}

// Whoever watches sees what is committed, as it happens: where the listener runs
// and where the log is read.
func TestWatch_ShowsCommitsAsTheyHappen(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	db, err := pgx.Connect(context.Background(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close(context.Background()) })
	statement(t, db, `CREATE TABLE houses (id bigint PRIMARY KEY, place text NOT NULL);
		CREATE UNIQUE INDEX houses_identity ON houses (id, place);
		CREATE INDEX houses_place ON houses (place);
		ALTER TABLE houses REPLICA IDENTITY USING INDEX houses_identity;
		CREATE TABLE owners (id bigint PRIMARY KEY)`)
	url, prefix := sandboxtest.Redis(t)
	leader, follower := newProcess(t, "the leader", url, prefix, dsn), newProcess(t, "the follower", url, prefix, "")
	leader.ready("houses", "owners")
	follower.ready("houses", "owners")

	row := func(id string) coherence.Tag { return coherence.RowTag("houses", "id", id) }
	place := func(name string) coherence.Tag { return coherence.RowTag("houses", "place", name) }
	for _, c := range []struct {
		sql    string
		tables []coherence.TableChanges
		moved  []coherence.Tag // beside the tables and "*"
	}{
		{"INSERT INTO houses VALUES (1, 'Nairobi')", []coherence.TableChanges{{Table: "houses", Rows: 1}}, []coherence.Tag{row("1"), place("Nairobi")}},
		{"UPDATE houses SET place = 'Kisumu' WHERE id = 1", []coherence.TableChanges{{Table: "houses", Rows: 1}}, []coherence.Tag{row("1"), place("Nairobi"), place("Kisumu")}},
		{"DELETE FROM houses WHERE id = 1; INSERT INTO owners VALUES (7)", []coherence.TableChanges{{Table: "houses", Rows: 1}, {Table: "owners", Rows: 1}},
			[]coherence.Tag{row("1"), place("Kisumu"), coherence.RowTag("owners", "id", "7")}},
		{"INSERT INTO houses SELECT i, 'Mombasa' FROM generate_series(1, 1000) i", []coherence.TableChanges{{Table: "houses", Rows: 1000}}, nil},
	} {
		before, after := statement(t, db, c.sql)
		rows := 0
		for _, table := range c.tables {
			rows += table.Rows
			c.moved = append(c.moved, coherence.TableTag(table.Table))
		}
		for _, p := range []*process{leader, follower} {
			seen, tables := p.sees(rows)
			slices.SortFunc(tables, func(a, b coherence.TableChanges) int { return strings.Compare(a.Table, b.Table) })
			if !slices.Equal(tables, c.tables) {
				t.Errorf("%s: %s has seen %+v", c.sql, p.name, tables)
			}
			p.check(c.sql, seen, append(c.moved, coherence.Any), before, after, rows)
		}
	}
	if leader.log.Missed()+follower.log.Missed() > 0 {
		t.Error("records were missed")
	}
}

// check looks at what was seen of a commit. Of a large one not everything that
// moved is shown, but how much it was.
func (p *process) check(sql string, seen []coherence.Seen, moved []coherence.Tag, before, after time.Time, rows int) {
	p.Helper()
	var hashes []coherence.Hash
	more := 0
	for _, s := range seen {
		hashes, more = append(hashes, s.Hashes...), more+s.More
		if s.Epoch != p.log.Epoch() || s.To > p.log.Known().LSN || len(s.Hashes) > 64 {
			p.Errorf("%s: %s, which knows %s, has seen %d hashes up to %s;epoch=%s", sql, p.name, p.log.Known(), len(s.Hashes), s.To, s.Epoch)
		}
		if s.Committed.Before(before) || s.Committed.After(after) || s.Known.Before(s.Committed) { // one machine, one clock
			p.Errorf("%s: %s has seen it committed at %s and known at %s; it was between %s and %s", sql, p.name, s.Committed, s.Known, before, after)
		}
	}
	if more > 0 {
		if len(hashes)+more < rows {
			p.Errorf("%s: %s has seen %d hashes and %d more", sql, p.name, len(hashes), more)
		}
		return
	}
	for _, tag := range moved {
		if !slices.Contains(hashes, tag.Hash()) {
			p.Errorf("%s: %s has not seen %s move", sql, p.name, tag)
		}
	}
}
