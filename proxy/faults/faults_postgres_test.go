package faults

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"walcache/proxy/sandbox/sandboxtest"
)

// postgresFaults are what happens to the database, and to what is ours in it.
func postgresFaults() []fault {
	return []fault{
		{name: "postgres-killed", strike: killPostgres, short: true},
		{name: "postgres-killed-async", strike: killPostgresAsync, settings: map[string]string{"synchronous_commit": "off", "wal_writer_delay": "10s"}},
		{name: "postgres-backend-killed", strike: killPostgresBackend},
		{name: "postgres-restarted", strike: restartPostgres},
		{name: "postgres-frozen", strike: freezePostgres},
		{name: "postgres-terminated", strike: terminate},
		{name: "slot-dropped", strike: dropSlot, short: true},
		{name: "slot-lost", strike: loseSlot, settings: map[string]string{"max_slot_wal_keep_size": "48MB", "max_wal_size": "64MB", "min_wal_size": "32MB"}},
		{name: "slot-too-far-behind", strike: holdBackSlot, flags: []string{"--max-retained-wal=64MiB"}},
		{name: "publication-altered", strike: alterPublication},
		{name: "publication-dropped", strike: dropPublication},
		{name: "publication-made-again", strike: replacePublication},
		{name: "identity-altered", strike: alterIdentity},
	}
}

// limited bounds what a fault asks of a server.
func (r *run) limited() (context.Context, context.CancelFunc) {
	return context.WithTimeout(r.Context(), patience)
}

// sql runs statements, each by itself.
func (r *run) sql(statements ...string) {
	r.Helper()
	ctx, cancel := r.limited()
	defer cancel()
	r.must(r.exec(ctx, statements...))
}

// crashPostgres ends every process of the server at once.
func (r *run) crashPostgres() {
	ctx, cancel := r.limited()
	defer cancel()
	how := one(r, "kill -9", "immediate shutdown")
	r.strike(how + " of PostgreSQL")
	if how == "kill -9" {
		r.must(r.postgres.Kill())
	} else {
		r.must(r.postgres.Crash(ctx))
	}
}

func (r *run) startPostgres() {
	ctx, cancel := r.limited()
	defer cancel()
	r.must(r.postgres.Start(ctx))
	r.note("PostgreSQL takes connections")
}

func killPostgres(r *run) {
	r.crashPostgres()
	r.hold(0, 1500*time.Millisecond)
	r.startPostgres()
}

// killPostgresAsync is about commits that were seen, and that the crash undid.
// Few are: what fills a page of the WAL is written at once. So rows that are
// changed all the time are asked for until the crash, each time as a page that
// is not stored yet, and those pages again when nobody has written since.
func killPostgresAsync(r *run) {
	stop := make(chan struct{})
	var asking sync.WaitGroup
	asked := make([][]page, len(r.proxies))
	for i, p := range r.proxies {
		asking.Go(func() { asked[i] = r.askForNew(p, stop) })
	}
	r.hold(300*time.Millisecond, time.Second)
	r.crashPostgres()
	close(stop)
	asking.Wait()
	r.hold(0, 1500*time.Millisecond)
	r.model.crash.Lock() // before the first transaction of what comes after
	defer r.model.crash.Unlock()
	r.startPostgres()
	found, err := r.found(r.Context())
	r.must(err)
	r.note("%d acknowledged changes of rows are undone", r.model.crashed(found))
	time.Sleep(bound + 100*time.Millisecond) // then no answer may have them
	for i, p := range r.proxies {
		asking.Go(func() {
			for _, what := range asked[i] {
				r.take(p, p.fetch(what))
			}
		})
	}
	asking.Wait()
	r.note("asked for %d pages from before", len(slices.Concat(asked...)))
}

// askForNew asks a proxy for one page after the other that it has not stored,
// and returns which.
func (r *run) askForNew(p *proxy, stop <-chan struct{}) (asked []page) {
	for {
		select {
		case <-stop:
			return asked
		default:
		}
		what := rowPage(1 + len(asked)%hotRows)
		what.path += fmt.Sprintf("?by=%s-%d-%d", p.name, r.seed, len(asked))
		asked = append(asked, what)
		r.take(p, p.fetch(what))
	}
}

// killPostgresBackend makes the postmaster end every session, and recover.
func killPostgresBackend(r *run) {
	ctx, cancel := r.limited()
	defer cancel()
	whom := one(r, "backend_type = 'walsender'", "application_name = 'writer'", "backend_type = 'checkpointer'", "backend_type = 'walwriter'")
	var pid int
	sandboxtest.Eventually(r, patience, func() (err error) {
		pid, err = ask[int](ctx, r.system, "SELECT pid FROM pg_stat_activity WHERE "+whom+" ORDER BY pid LIMIT 1")
		return err
	})
	r.strike(fmt.Sprintf("kill -9 of the PostgreSQL process with %s", whom))
	r.must(syscall.Kill(pid, syscall.SIGKILL))
}

func restartPostgres(r *run) {
	ctx, cancel := r.limited()
	defer cancel()
	r.strike("stop PostgreSQL")
	r.must(r.postgres.Stop(ctx))
	r.hold(0, time.Second)
	r.startPostgres()
}

func freezePostgres(r *run) {
	r.strike("freeze PostgreSQL")
	r.must(r.postgres.Pause())
	r.hold(4*time.Second, 6*time.Second)
	r.note("thaw")
	r.must(r.postgres.Resume())
}

func terminate(r *run) {
	what := one(r, "", " AND backend_type = 'walsender'", " AND application_name = 'walcache'", " AND application_name = 'writer'")
	r.strike("terminate connections" + what)
	r.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type IN ('client backend', 'walsender')" + what)
}

// dropSlot is quicker than whoever wants to hold the slot again.
func dropSlot(r *run) {
	ctx, cancel := r.limited()
	defer cancel()
	r.strike("drop the slot")
	sandboxtest.Eventually(r, patience, func() error {
		return r.exec(ctx, "SELECT pg_terminate_backend(active_pid, 10000) FROM pg_replication_slots WHERE slot_name = 'walcache' AND active",
			"SELECT pg_drop_replication_slot('walcache')")
	})
}

// writeWAL moves the end of the WAL by that many segments of 16 MB.
func (r *run) writeWAL(segments int) {
	for range segments {
		r.sql("SELECT pg_logical_emit_message(false, 'filler', 'x')", "SELECT pg_switch_wal()")
	}
}

// loseSlot writes more WAL than PostgreSQL keeps for a slot whose holder does
// not move.
func loseSlot(r *run) {
	ctx, cancel := r.limited()
	defer cancel()
	p := r.leader()
	how := one(r, "freeze", "cut off from PostgreSQL")
	r.strike(how, p)
	if how == "freeze" {
		r.must(p.freeze())
	} else {
		p.toPostgres.Cut()
	}
	r.writeWAL(8)
	r.sql("CHECKPOINT")
	status, err := ask[string](ctx, r.system, "SELECT coalesce(max(wal_status), 'gone') FROM pg_replication_slots WHERE slot_name = 'walcache'")
	r.must(err)
	r.note("the slot's wal_status is %s", status)
	r.hold(0, 2*time.Second)
	if how == "freeze" {
		r.must(p.thaw())
	} else {
		r.must(p.toPostgres.Heal())
	}
}

// holdBackSlot opens a transaction that keeps the slot from moving while more
// WAL is written than the listener lets it keep.
func holdBackSlot(r *run) {
	ctx, cancel := r.limited()
	defer cancel()
	conn, err := pgx.Connect(ctx, r.postgres.DSN(""))
	r.must(err)
	defer func() { r.must(conn.Close(ctx)) }()
	r.strike("hold the slot back with an open transaction")
	_, err = conn.Exec(ctx, "BEGIN; SELECT pg_current_xact_id()")
	r.must(err)
	r.writeWAL(8)
	r.hold(time.Second, 3*time.Second)
	r.note("end the transaction")
	_, err = conn.Exec(ctx, "ROLLBACK")
	r.must(err)
}

// alterPublication makes a publication carry less. What it says of tables we set
// right again; what it says of operations is for a person to set right.
func alterPublication(r *run) {
	change := one(r,
		[2]string{"ALTER PUBLICATION walcache_updates DROP TABLE properties"},
		[2]string{"ALTER PUBLICATION walcache_updates SET (publish = 'update')", "ALTER PUBLICATION walcache_updates SET (publish = 'update, delete')"},
		[2]string{"ALTER PUBLICATION walcache_updates SET (publish = 'delete')", "ALTER PUBLICATION walcache_updates SET (publish = 'update, delete')"},
		[2]string{"ALTER PUBLICATION walcache_updates RENAME TO other", "DROP PUBLICATION other"},
		[2]string{"ALTER PUBLICATION walcache SET (publish = 'truncate')", "ALTER PUBLICATION walcache SET (publish = 'insert, truncate')"})
	r.strike(change[0])
	r.sql(change[0])
	if change[1] != "" {
		r.hold(0, 3*time.Second)
		r.note("%s", change[1])
		r.sql(change[1])
	}
}

func dropPublication(r *run) {
	sql := "DROP PUBLICATION " + one(r, "walcache", "walcache_updates", "walcache, walcache_updates")
	r.strike(sql)
	r.sql(sql)
}

// replacePublication makes a publication of the same name and content, so that
// only its oid tells. Between the two lies nothing, or some seconds without.
func replacePublication(r *run) {
	drop := "DROP PUBLICATION walcache_updates"
	again := "CREATE PUBLICATION walcache_updates FOR TABLE properties WITH (publish = 'update, delete')"
	if r.rnd.IntN(2) == 0 {
		drop, again = "DROP PUBLICATION walcache", "CREATE PUBLICATION walcache FOR ALL TABLES WITH (publish = 'insert, truncate')"
	}
	r.strike(drop + " and " + again)
	if r.rnd.IntN(2) == 0 {
		r.sql("BEGIN; " + drop + "; " + again + "; COMMIT")
		return
	}
	r.sql(drop)
	r.hold(0, 2*time.Second)
	ctx, cancel := r.limited()
	defer cancel()
	if err := r.exec(ctx, again); err != nil {
		r.note("it is there already: %v", err)
	}
}

// alterIdentity changes what an update says of the row as it was.
func alterIdentity(r *run) {
	sql := "ALTER TABLE properties REPLICA IDENTITY " + one(r, "FULL", "DEFAULT")
	r.strike(sql)
	r.sql(sql)
	r.hold(500*time.Millisecond, 4*time.Second)
	sql = "ALTER TABLE properties REPLICA IDENTITY USING INDEX properties_identity"
	r.note("%s", sql)
	r.sql(sql)
}
