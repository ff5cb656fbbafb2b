package replication

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"walcache/proxy/coherence"
	"walcache/proxy/sandbox/sandboxtest"
)

// beginsAgain checks that something done to the slot begins the second epoch,
// in which changes are followed.
func beginsAgain(t *testing.T, l *Listener, tracker *coherence.Tracker, db *pgx.Conn, reason string, do func()) {
	t.Helper()
	settled(t, l, tracker, "properties")
	caughtUp(t, l, tracker)
	a := read(t, tracker, "properties/id=1")
	do()
	if why := epochs(t, l, 2); !strings.Contains(why, reason) {
		t.Errorf("the epoch began because: %s; want %s", why, reason)
	}
	if v := a.verdict(tracker); v != coherence.OtherEpoch {
		t.Errorf("an answer of the first epoch is %s", v)
	}
	settled(t, l, tracker, "properties")
	expectStale(t, l, tracker, db, []coherence.Tag{"properties/id=1", "properties/id=2"},
		"UPDATE properties SET price = price + 1 WHERE id = 1", "properties/id=1")
}

const twoProperties = "INSERT INTO properties (location) VALUES ('a'), ('b')"

func TestSlot_DroppedByAnotherIsMadeAgain(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	db := open(t, dsn, properties, twoProperties)
	slot := "walcache_" + randomName()
	l, tracker := follow(t, Config{DatabaseURL: dsn, Slot: slot})
	beginsAgain(t, l, tracker, db, "the slot is new", func() {
		whileAway(t, dsn, db, func() {
			exec(t, db, "SELECT pg_drop_replication_slot('"+slot+"')", "UPDATE properties SET price = 5")
		})
	})
}

func TestSlot_AdvancedByAnotherBeginsAnEpoch(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	db := open(t, dsn, properties, twoProperties)
	slot := "walcache_" + randomName()
	l, tracker := follow(t, Config{DatabaseURL: dsn, Slot: slot})
	beginsAgain(t, l, tracker, db, "someone else", func() {
		whileAway(t, dsn, db, func() {
			exec(t, db, "UPDATE properties SET price = 5", "SELECT pg_replication_slot_advance('"+slot+"', pg_current_wal_lsn())")
		})
	})
}

func TestSlot_LostByTheServerIsMadeAgain(t *testing.T) {
	t.Parallel()
	p := sandboxtest.OwnPostgres(t, map[string]string{
		"fsync": "off", "max_slot_wal_keep_size": "1MB", "min_wal_size": "32MB", "max_wal_size": "32MB",
	})
	admin := open(t, p.DSN("postgres"), "CREATE DATABASE app")
	dsn := p.DSN("app")
	db := open(t, dsn, properties, twoProperties)
	l, tracker := follow(t, Config{DatabaseURL: dsn})
	beginsAgain(t, l, tracker, db, "the slot is new", func() {
		whileAway(t, dsn, db, func() {
			eventually(t, "the slot to be lost", func() bool {
				exec(t, admin, "SELECT pg_logical_emit_message(false, 'x', repeat('x', 1000000)), pg_switch_wal()", "CHECKPOINT")
				return query[string](t, admin, "SELECT wal_status FROM pg_replication_slots") == "lost"
			})
		})
	})
}

func TestSlot_ThatKeepsTooMuchWALIsGivenUp(t *testing.T) {
	t.Parallel()
	p := sandboxtest.OwnPostgres(t, map[string]string{"fsync": "off"})
	dsn := p.DSN("")
	db := open(t, dsn, properties, twoProperties)
	l, tracker := follow(t, Config{DatabaseURL: dsn, MaxRetainedWAL: 8 << 20})
	beginsAgain(t, l, tracker, db, "the slot is new", func() {
		// What is read is confirmed after ten seconds, and so kept till then.
		exec(t, db, "SELECT pg_logical_emit_message(false, 'x', repeat('x', 9000000))", "CHECKPOINT")
	})
	if s := l.Status().Slot; s == nil || s.Retained > 8<<20 {
		t.Errorf("the new slot: %+v", s)
	}
}

// While the slot is being made, PostgreSQL waits for open transactions.
func TestSlot_IsMadeOnceOpenTransactionsHaveEnded(t *testing.T) {
	t.Parallel()
	p := sandboxtest.OwnPostgres(t, map[string]string{"fsync": "off"})
	dsn := p.DSN("")
	db := open(t, dsn, properties, twoProperties)
	writer := open(t, dsn, "BEGIN", "UPDATE properties SET price = 1 WHERE id = 1")
	l, tracker := follow(t, Config{DatabaseURL: dsn})
	eventually(t, "the slot to wait", func() bool {
		return query[bool](t, db, "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND locktype = 'transactionid')")
	})
	if s := tracker.Stamp(); s != (coherence.Position{}) {
		t.Errorf("stamp %v before there is a stream", s)
	}
	exec(t, writer, "COMMIT")
	settled(t, l, tracker, "properties")
	expectStale(t, l, tracker, db, []coherence.Tag{"properties/id=1", "properties/id=2"},
		"UPDATE properties SET price = 2 WHERE id = 1", "properties/id=1")
}
