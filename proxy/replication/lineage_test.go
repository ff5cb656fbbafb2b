package replication

import (
	command "os/exec"
	"path/filepath"
	"strings"
	"testing"

	"walcache/proxy/coherence"
	"walcache/proxy/sandbox/sandboxtest"
)

func execCommand(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := command.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

// 1. A commit with synchronous_commit = off is seen, and an answer is read.
// 2. The server crashes, and the commit is lost. 3. The answer is of a history
// that never was.
func TestLineage_ACrashThatUndoesACommitBeginsAnEpoch(t *testing.T) {
	t.Parallel()
	p := sandboxtest.OwnPostgres(t, map[string]string{"fsync": "off", "wal_writer_delay": "10s"})
	dsn := p.DSN("")
	open(t, dsn, properties, "INSERT INTO properties (location) VALUES ('a')")
	l, tracker := follow(t, Config{DatabaseURL: dsn})
	for n := 1; ; n++ {
		settled(t, l, tracker, "properties")
		db := open(t, dsn, "SET synchronous_commit = off")
		caughtUp(t, l, tracker)
		exec(t, db, "UPDATE properties SET price = 1")
		a := read(t, tracker, "properties/id=1")
		if err := p.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = db.Close(t.Context())
		startServer(t, p)
		if why := epochs(t, l, n+1); !strings.Contains(why, "crash") {
			t.Errorf("the epoch began because: %s", why)
		}
		if v := a.verdict(tracker); v != coherence.OtherEpoch {
			t.Errorf("an answer from before the crash is %s", v)
		}
		db = open(t, dsn)
		if query[float64](t, db, "SELECT price FROM properties") == 0 {
			t.Logf("lost in crash %d", n)
			return
		}
		if n == 30 { // it was flushed by a beat each time
			t.Fatal("no commit was lost")
		}
		exec(t, db, "UPDATE properties SET price = 0")
	}
}

func TestLineage_ACleanRestartKeepsTheEpoch(t *testing.T) {
	t.Parallel()
	p := sandboxtest.OwnPostgres(t, map[string]string{"fsync": "off"})
	dsn := p.DSN("")
	db := open(t, dsn, properties, "INSERT INTO properties (location) VALUES ('a'), ('b')")
	l, tracker := follow(t, Config{DatabaseURL: dsn})
	settled(t, l, tracker, "properties")
	caughtUp(t, l, tracker)
	one, two := read(t, tracker, "properties/id=1"), read(t, tracker, "properties/id=2")
	for range 2 {
		exec(t, db, "UPDATE properties SET price = price + 1 WHERE id = 1")
		stopServer(t, p)
		startServer(t, p)
		db = open(t, dsn, "UPDATE properties SET price = price + 1 WHERE id = 1")
		caughtUp(t, l, tracker)
		if v := one.verdict(tracker); v != coherence.Changed {
			t.Errorf("a changed answer is %s", v)
		}
		if v := two.verdict(tracker); v != coherence.Fresh {
			t.Errorf("an unchanged answer is %s", v)
		}
		one.at = tracker.Stamp()
		epochs(t, l, 1)
	}
}

func TestLineage_ARestoredBackupBeginsAnEpoch(t *testing.T) {
	t.Parallel()
	p := sandboxtest.OwnPostgres(t, map[string]string{"fsync": "off"})
	dsn := p.DSN("")
	open(t, dsn, properties, "INSERT INTO properties (location) VALUES ('a')")
	l, tracker := follow(t, Config{DatabaseURL: dsn})
	settled(t, l, tracker, "properties")
	caughtUp(t, l, tracker)
	stopServer(t, p)
	data, backup := filepath.Join(p.Dir(), "data"), filepath.Join(p.Dir(), "backup")
	execCommand(t, "cp", "-a", data, backup)
	startServer(t, p)
	db := open(t, dsn, "UPDATE properties SET price = 1")
	caughtUp(t, l, tracker)
	epochs(t, l, 1)
	a := read(t, tracker, "properties/id=1")
	if query[float64](t, db, "SELECT price FROM properties") != 1 {
		t.Fatal("not updated")
	}
	stopServer(t, p)
	execCommand(t, "rm", "-r", data)
	execCommand(t, "mv", backup, data)
	startServer(t, p)
	if why := epochs(t, l, 2); !strings.Contains(why, "behind") {
		t.Errorf("the epoch began because: %s", why)
	}
	if v := a.verdict(tracker); v != coherence.OtherEpoch {
		t.Errorf("an answer from before the restore is %s", v)
	}
}

func TestLineage_ADatabaseMadeAnewBeginsAnEpoch(t *testing.T) {
	t.Parallel()
	p := sandboxtest.OwnPostgres(t, map[string]string{"fsync": "off"})
	admin := open(t, p.DSN("postgres"), "CREATE DATABASE app")
	l, tracker := follow(t, Config{DatabaseURL: p.DSN("app")})
	settled(t, l, tracker)
	epochs(t, l, 1)
	exec(t, admin, "ALTER DATABASE app ALLOW_CONNECTIONS false")
	eventually(t, "the database to be dropped", func() bool {
		_, _ = admin.Exec(t.Context(), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'app'")
		_, _ = admin.Exec(t.Context(), "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active")
		_, err := admin.Exec(t.Context(), "DROP DATABASE app")
		return err == nil
	})
	exec(t, admin, "CREATE DATABASE app")
	epochs(t, l, 2)
}

func TestPast_KnowsWhatBreaksIt(t *testing.T) {
	now := lineage{System: "1", Timeline: 1, Database: "5", Publications: "7,8", StatsReset: "x"}
	tables := &catalog{tables: map[uint32]*table{1: {oid: 1, name: "t", kind: "r", logged: true, listed: 1}}}
	fine := past{
		Past: coherence.Past{Epoch: "e", Known: 100, Visible: 100},
		left: state{Epoch: "e", Lineage: now, XMax: 50, Tables: []*table{tables.tables[1]}},
	}
	seen := observation{insert: 100, snapshot: snapshot{xmax: 50}}
	if why := fine.broken(now, seen, tables, 100, false); why != "" {
		t.Fatalf("broken: %s", why)
	}
	if fine.broken(now, seen, tables, 100, true) == "" {
		t.Error("a slot just made continues the past")
	}
	unlisted := &catalog{tables: map[uint32]*table{1: {oid: 1, name: "t", kind: "r", logged: true}}}
	for name, change := range map[string]func(l *lineage, o *observation, c **catalog, slot *coherence.LSN){
		"system":       func(l *lineage, _ *observation, _ **catalog, _ *coherence.LSN) { l.System = "2" },
		"timeline":     func(l *lineage, _ *observation, _ **catalog, _ *coherence.LSN) { l.Timeline = 2 },
		"database":     func(l *lineage, _ *observation, _ **catalog, _ *coherence.LSN) { l.Database = "6" },
		"publications": func(l *lineage, _ *observation, _ **catalog, _ *coherence.LSN) { l.Publications = "7,9" },
		"crash":        func(l *lineage, _ *observation, _ **catalog, _ *coherence.LSN) { l.StatsReset = "y" },
		"insert":       func(_ *lineage, o *observation, _ **catalog, _ *coherence.LSN) { o.insert = 99 },
		"xmax":         func(_ *lineage, o *observation, _ **catalog, _ *coherence.LSN) { o.snapshot.xmax = 49 },
		"slot":         func(_ *lineage, _ *observation, _ **catalog, slot *coherence.LSN) { *slot = 101 },
		"unlisted":     func(_ *lineage, _ *observation, c **catalog, _ *coherence.LSN) { *c = unlisted },
	} {
		l, o, c, slot := now, seen, tables, coherence.LSN(100)
		change(&l, &o, &c, &slot)
		if fine.broken(l, o, c, slot, false) == "" {
			t.Errorf("%s: not broken", name)
		}
	}
}
