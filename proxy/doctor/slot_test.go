package doctor

import (
	"fmt"
	"strings"
	"testing"

	"walcache/proxy/sandbox/sandboxtest"
)

func TestSlot_WhoHoldsIt(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	config := postgresOnly(dsn)
	slot := config.Listener.Slot
	expect(t, Examine(t.Context(), config), "postgres.slot", OK, "does not exist yet")
	db := open(t, dsn, "SELECT pg_create_logical_replication_slot('"+slot+"', 'pgoutput')")
	expect(t, Examine(t.Context(), config), "postgres.slot", OK, "nobody holds it", "which a restart reads in about 1s")

	config.RedisURL, config.Prefix = sandboxtest.Redis(t)
	for _, c := range []struct {
		name, cluster string
		status        Status
		says          string
	}{
		{"psql", "", Error, "(psql) at 127.0.0.1"},
		{"walcache", "", OK, "(walcache) at 127.0.0.1"},
		{"walcache:ours", "", OK, "a proxy of cluster ours at 127.0.0.1"}, // as far as is known
		{"walcache:ours", "ours", OK, "a proxy of cluster ours at 127.0.0.1"},
		{"walcache:theirs", "ours", Error, "a proxy of cluster theirs at 127.0.0.1"},
	} {
		if err := connectRedis(t, config.RedisURL).Set(t.Context(), config.Prefix+"cluster", c.cluster, 0).Err(); err != nil {
			t.Fatal(err)
		}
		conn := follow(t, dsn, slot, c.name)
		expect(t, Examine(t.Context(), config), "postgres.slot", c.status, fmt.Sprintf("held by pid %d", conn.PID()), c.says)
		_ = conn.Close(t.Context())
		eventually(t, "the slot to be free", func() bool {
			return query[bool](t, db, "SELECT NOT active FROM pg_replication_slots WHERE slot_name = $1", slot)
		})
	}
}

func TestSlot_OfSomethingElse(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	config := postgresOnly(dsn)
	db := open(t, dsn, "SELECT pg_create_logical_replication_slot('"+config.Listener.Slot+"', 'test_decoding')")
	expect(t, Examine(t.Context(), config), "postgres.slot", Error, "test_decoding", "--slot")
	elsewhere := sandboxtest.Postgres(t)
	open(t, elsewhere, "SELECT pg_create_logical_replication_slot('"+config.Listener.Slot+"_2', 'pgoutput')")
	config.Listener.Slot += "_2"
	expect(t, Examine(t.Context(), config), "postgres.slot", Error, "database", "--slot")
	config.Listener.Slot += "_3"
	run(t, db, "SELECT pg_create_physical_replication_slot('"+config.Listener.Slot+"')")
	expect(t, Examine(t.Context(), config), "postgres.slot", Error, "plugin physical")
	run(t, db, "SELECT pg_drop_replication_slot('"+config.Listener.Slot+"')") // it is in no database that goes with the test
}

// WAL that is kept, too much of it, and what is lost in the end.
func TestSlot_WhatItKeeps(t *testing.T) {
	t.Parallel()
	p := sandboxtest.OwnPostgres(t, map[string]string{"fsync": "off", "min_wal_size": "32MB"})
	config := postgresOnly(p.DSN(""))
	db := open(t, p.DSN(""), "SELECT pg_create_logical_replication_slot('"+config.Listener.Slot+"', 'pgoutput')", "CREATE TABLE t (n int)")
	fill := func() { run(t, db, "INSERT INTO t VALUES (1)", "SELECT pg_switch_wal()") }
	fill()
	config.Listener.MaxRetainedWAL = 1 << 20
	expect(t, Examine(t.Context(), config), "postgres.slot", Warning, " MiB of WAL", "more than --max-retained-wal (1.0 MiB)")
	other := postgresOnly(p.DSN(""))
	other.Listener.MaxRetainedWAL = 1 << 20
	expect(t, Examine(t.Context(), other), "postgres.other_slots", Warning, config.Listener.Slot+" (")
	expect(t, Examine(t.Context(), postgresOnly(p.DSN(""))), "postgres.other_slots", OK)

	config.Listener.MaxRetainedWAL = 1 << 30
	run(t, db, "ALTER SYSTEM SET max_slot_wal_keep_size = '16MB'", "SELECT pg_reload_conf()")
	status := func() string {
		return query[string](t, db, "SELECT wal_status FROM pg_replication_slots WHERE slot_name = $1", config.Listener.Slot)
	}
	for status() != "unreserved" {
		fill()
	}
	expect(t, Examine(t.Context(), config), "postgres.slot", Warning, "unreserved", "max_slot_wal_keep_size")
	run(t, db, "CHECKPOINT")
	eventually(t, "the slot to be lost", func() bool { return status() == "lost" })
	expect(t, Examine(t.Context(), config), "postgres.slot", Warning, "lost", "starts empty")
}

// Who holds things up is named; what they say in their queries is not.
func TestTransactions_ThatStayOpenAreNamedWithoutTheirQueries(t *testing.T) {
	t.Parallel()
	p := sandboxtest.OwnPostgres(t, map[string]string{"fsync": "off", "max_prepared_transactions": "2"})
	config := postgresOnly(p.DSN(""))
	writer := open(t, p.DSN("")+"&application_name=nightly%20import", "CREATE TABLE accounts (password text)",
		"BEGIN", "INSERT INTO accounts VALUES ('sesame-open')")
	open(t, p.DSN("")+"&application_name=reader", "BEGIN", "SELECT * FROM accounts") // which holds nobody up
	expect(t, Examine(t.Context(), config), "postgres.transactions", OK)             // it is not open for long
	config.limits.transaction = 1                                                    // ns
	r := Examine(t.Context(), config)
	f := expect(t, r, "postgres.transactions", Warning, fmt.Sprintf("pid %d (nightly import, idle in transaction) open for 00:00:", writer.PgConn().PID()))
	if strings.Contains(r.text(), "sesame-open") || strings.Contains(f.What, "reader") {
		t.Error(r.text())
	}
	run(t, writer, "PREPARE TRANSACTION 'sesame-open'")
	r = Examine(t.Context(), config)
	expect(t, r, "postgres.transactions", Warning, "prepared transaction of database postgres open for 00:00:")
	if strings.Contains(r.text(), "sesame-open") {
		t.Error(r.text())
	}
	run(t, writer, "ROLLBACK PREPARED 'sesame-open'")
	expect(t, Examine(t.Context(), config), "postgres.transactions", OK)
}
