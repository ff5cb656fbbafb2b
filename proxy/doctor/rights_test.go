package doctor

import (
	"io"
	"net"
	"strings"
	"testing"

	"walcache/proxy/sandbox/sandboxtest"
)

func TestDirect_APoolerIsRecognised(t *testing.T) {
	t.Parallel()
	relay := newRelay(t, func(r *relay) {
		r.answer = func(server net.Conn) io.Reader { return &anotherKey{server: server} }
	}, sandboxtest.Postgres(t))
	r := Examine(t.Context(), postgresOnly(relay.dsn))
	expect(t, r, "postgres.direct", Error, "pooler", "name PostgreSQL itself")
	expect(t, r, "postgres.replication", Error, "pooler")
}

func TestDirect_ConnectionsThatLeadToSeveralServersAreRecognised(t *testing.T) {
	t.Parallel()
	var dsns []string
	for range 2 {
		p := sandboxtest.OwnPostgres(t, map[string]string{"fsync": "off"})
		open(t, p.DSN(""), "CREATE ROLE app LOGIN SUPERUSER PASSWORD 'secret'")
		dsns = append(dsns, withUser(t, p.DSN(""), "app", "secret"))
	}
	// The first connection, the one for replication, the second.
	r := Examine(t.Context(), postgresOnly(newRelay(t, nil, dsns[0], dsns[1], dsns[0]).dsn))
	expect(t, r, "postgres.replication", Error, "another server")
	expect(t, r, "postgres.direct", OK)
	r = Examine(t.Context(), postgresOnly(newRelay(t, nil, dsns[0], dsns[0], dsns[1]).dsn))
	expect(t, r, "postgres.replication", OK)
	expect(t, r, "postgres.direct", Error, "another server")
}

func TestDirect_ALimitOfConnectionsIsMet(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	db := open(t, dsn)
	role, as := login(t, dsn, db)
	run(t, db, "ALTER ROLE "+role+" REPLICATION CONNECTION LIMIT 1")
	r := Examine(t.Context(), postgresOnly(as))
	expect(t, r, "postgres.direct", Error, "too many connections for role", "up to four")
}

// What the statements grant is all that was missing.
func TestRights_StatementsGrantWhatIsMissing(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	db := open(t, dsn, `DO $$ DECLARE f regprocedure; BEGIN
		FOR f IN SELECT oid FROM pg_proc WHERE proname IN ('pg_logical_emit_message', 'pg_current_wal_insert_lsn') LOOP
			EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', f);
		END LOOP; END $$`,
		"REVOKE SELECT ON pg_stat_wal, pg_locks FROM PUBLIC")
	role, as := login(t, dsn, db)
	r := Examine(t.Context(), postgresOnly(as))
	expect(t, r, "postgres.replication", Error, "may not replicate", "ALTER ROLE "+quote(role)+" REPLICATION;")
	expect(t, r, "postgres.statistics", Warning, "GRANT pg_read_all_stats TO "+quote(role)+";")
	expect(t, r, "postgres.rights", Error, "pg_logical_emit_message(boolean,text,text", "pg_current_wal_insert_lsn()", "pg_stat_wal", "pg_locks")
	expect(t, r, "postgres.transactions", OK, "those of other roles are not told")
	for _, f := range r {
		if f.Check == "postgres.replication" || f.Check == "postgres.statistics" || f.Check == "postgres.rights" {
			run(t, db, f.SQL...)
		}
	}
	r = Examine(t.Context(), postgresOnly(as))
	for _, check := range []string{"replication", "statistics", "rights", "direct"} {
		expect(t, r, "postgres."+check, OK)
	}
	if f := r.find(t, "postgres.replication"); strings.Contains(f.What, "superuser") {
		t.Error(f.What)
	}
	run(t, db, "DROP OWNED BY "+role)
	expect(t, Examine(t.Context(), postgresOnly(dsn)), "postgres.replication", OK, "superuser, which is more than it needs")
}
