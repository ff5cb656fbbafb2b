package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// postgres asks a PostgreSQL server.
type postgres struct {
	notes
	facts
	db     *pgx.Conn
	tables []table
	lists  bool // the role may list every table that is to be listed, and the listener does
}

// applicationName differs from the listener's: nobody takes us for one.
const applicationName = "walcache-doctor"

func examinePostgres(ctx context.Context, config Config) Report {
	p := &postgres{notes: notes{config: config, server: "postgres", where: "PostgreSQL"}}
	if !p.reachable(ctx) {
		return p.report
	}
	defer func() { _ = p.db.Close(context.WithoutCancel(ctx)) }()
	p.run(ctx, []check{{"server", p.ask}}, p.alive)
	if !p.alive() || !p.suits() {
		return p.report
	}
	p.run(ctx, []check{
		{"wal_level", p.walLevel}, {"replication_slots", p.slots}, {"wal_senders", p.senders},
		{"replication", p.replication}, {"direct", p.direct}, {"rights", p.rights}, {"statistics", p.statistics},
		{"tables", p.askTables}, {"old_values", p.oldValues},
		{"unseen", p.unseen}, {"wal_kept", p.walKept}, {"standbys", p.standbys},
		{"slot", p.slot}, {"transactions", p.transactions}, {"other_slots", p.otherSlots},
	}, p.alive)
	if !p.alive() {
		p.add("reachable", Finding{unknown: true, Status: Error, What: "the connection was lost on the way; what comes after was not asked",
			Why: "the proxy vouches for nothing while PostgreSQL is away", Fix: "run proxy doctor again once the server is back"})
	}
	return p.report
}

func (p *postgres) alive() bool { return !p.db.IsClosed() }

// reachable connects, and says why it cannot.
func (p *postgres) reachable(ctx context.Context) bool {
	config, err := pgx.ParseConfig(p.config.Listener.DatabaseURL)
	if err == nil {
		p.where = fmt.Sprintf("PostgreSQL at %s/%s, as %q", net.JoinHostPort(config.Host, strconv.Itoa(int(config.Port))), config.Database, config.User)
		p.db, err = p.connect(ctx)
	}
	if err != nil {
		p.add("reachable", Finding{unknown: true, Status: Error, What: oneLine(err.Error()), Why: "without PostgreSQL the proxy passes everything through", Fix: remedy(err)})
	}
	return err == nil
}

// connect opens a connection that cannot write. Each statement is sent without
// a name, so that a pooler shows by what it does to sessions and not by errors.
func (p *postgres) connect(ctx context.Context) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(p.config.Listener.DatabaseURL)
	if err != nil {
		return nil, err
	}
	config.ConnectTimeout = p.config.limits.patience
	config.DefaultQueryExecMode = pgx.QueryExecModeExec
	params := config.RuntimeParams
	params["application_name"] = applicationName
	params["default_transaction_read_only"] = "on"
	params["statement_timeout"] = strconv.Itoa(int(p.config.limits.patience.Milliseconds()))
	params["lock_timeout"] = "1s"
	return pgx.ConnectConfig(ctx, config)
}

// remedy is what to do where a connection is refused.
func remedy(err error) string {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return "start PostgreSQL, or correct DATABASE_URL (--database-url)"
	}
	switch pg.Code {
	case "28P01": // invalid_password
		return "correct the user or the password in DATABASE_URL (--database-url)"
	case "28000": // invalid_authorization_specification
		return "add a line for this user, database and address to pg_hba.conf, then SELECT pg_reload_conf()"
	case "3D000": // invalid_catalog_name
		return "correct the name of the database in DATABASE_URL (--database-url)"
	case "53300": // too_many_connections
		return "raise the limit that it names; each proxy takes up to four connections, one of them for replication"
	case "08P01": // protocol_violation: it does not know what PostgreSQL knows
		return "name PostgreSQL itself in DATABASE_URL (--database-url), not a pooler"
	}
	return "correct DATABASE_URL (--database-url), or the server"
}

// replication makes the connection that the stream comes by, with all that the
// listener asks of it, and only asks the server who it is.
func (p *postgres) replication(ctx context.Context) error {
	config, err := pgconn.ParseConfig(p.config.Listener.DatabaseURL)
	if err != nil {
		return err
	}
	config.ConnectTimeout = p.config.limits.patience
	config.RuntimeParams["replication"] = "database"
	config.RuntimeParams["application_name"] = applicationName
	config.RuntimeParams["options"] += " -c wal_sender_timeout=5s -c logical_decoding_work_mem=8MB"
	conn, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		p.cannotReplicate(err)
		return nil
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if _, err := pglogrepl.IdentifySystem(ctx, conn); err != nil {
		return err
	}
	var here bool
	if err := p.db.QueryRow(ctx, "SELECT count(*) > 0 FROM pg_stat_activity WHERE pid = $1 AND application_name = $2 AND backend_type = 'walsender'",
		int64(conn.PID()), applicationName).Scan(&here); err != nil {
		return err
	}
	if !here {
		p.elsewhere("replication", "the replication connection")
		return nil
	}
	what := "the role may replicate, and its connection is let in"
	if p.super {
		p.add("replication", Finding{Status: OK, What: what + "; as a superuser, which is more than it needs",
			Why: "a role that may only replicate cannot harm the data",
			Fix: "CREATE ROLE walcache LOGIN REPLICATION PASSWORD '…', name it in DATABASE_URL, and let proxy doctor --sql say what else it needs"})
		return nil
	}
	p.ok("replication", "%s", what)
	return nil
}

// elsewhere notes that a connection did not lead to the server that p.db leads to.
func (p *postgres) elsewhere(check, which string) {
	p.add(check, Finding{Status: Error, What: which + " leads to another server, or goes through a pooler",
		Why: "what is visible on one server says nothing about the stream of another",
		Fix: "name one server, the primary, directly in DATABASE_URL (--database-url)"})
}

func (p *postgres) cannotReplicate(err error) {
	f := Finding{Status: Error, What: oneLine(err.Error()), Why: "the change stream comes by a replication connection", Fix: remedy(err)}
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		p.add("replication", f)
		return
	}
	switch {
	case pg.Code == "53300" && p.ourSlotActive: // too_many_connections, as is told already
		f = Finding{Status: OK, What: "not tried: there is no room beside the one that holds the slot"}
	case pg.Code == "42501": // insufficient_privilege
		f.What = fmt.Sprintf("role %q may not replicate", p.role)
		f.SQL = []string{p.service.grantReplication(p.role)}
		f.Fix = "let an owner run the statement"
	case pg.Code == "53300":
		f.What = "there is no room for a replication connection: " + pg.Message
	}
	p.add("replication", f)
}

// direct proves that a session is one session on one server: a pooler hands out
// cancel keys of its own, or another session for each statement, and a name with
// several addresses leads here and there.
func (p *postgres) direct(ctx context.Context) error {
	second, err := p.connect(ctx)
	if err != nil {
		p.add("direct", Finding{Status: Error, What: "a second connection: " + oneLine(err.Error()), Why: "each proxy takes up to four, one of them for replication", Fix: remedy(err)})
		return nil
	}
	defer func() { _ = second.Close(context.WithoutCancel(ctx)) }()
	var pids [2]int64
	var started time.Time
	for i := range pids {
		if err := p.db.QueryRow(ctx, "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()").Scan(&pids[i], &started); err != nil {
			return err
		}
	}
	if pids[0] != pids[1] || pids[0] != int64(p.db.PgConn().PID()) {
		p.add("direct", Finding{Status: Error, What: "there is a pooler before the server: sessions are not its own",
			Why: "replication and the proof of what is visible need sessions on the server itself",
			Fix: "name PostgreSQL itself in DATABASE_URL (--database-url); the service may go on using the pooler"})
		return nil
	}
	var seen bool
	if err := second.QueryRow(ctx, "SELECT count(*) > 0 FROM pg_stat_activity WHERE pid = $1 AND backend_start = $2", pids[0], started).Scan(&seen); err != nil {
		return err
	}
	if !seen {
		p.elsewhere("direct", "every other connection")
		return nil
	}
	p.ok("direct", "no pooler between, and always the same server")
	return nil
}

// needed are the functions and catalogs that the listener asks.
var (
	neededFunctions = []string{"pg_logical_emit_message", "pg_current_wal_insert_lsn", "pg_current_wal_lsn",
		"pg_current_snapshot", "pg_current_xact_id", "pg_drop_replication_slot", "pg_is_in_recovery"}
	neededCatalogs = []string{"pg_class", "pg_attribute", "pg_index", "pg_inherits", "pg_namespace", "pg_collation", "pg_roles", "pg_database",
		"pg_publication", "pg_publication_rel", "pg_replication_slots", "pg_stat_activity", "pg_stat_wal", "pg_locks"}
)

// rights are everybody's unless somebody took them away.
func (p *postgres) rights(ctx context.Context) error {
	rows, _ := p.db.Query(ctx, `
SELECT 'EXECUTE ON FUNCTION ' || oid::regprocedure FROM pg_proc
WHERE pronamespace = 'pg_catalog'::regnamespace AND proname = ANY ($1) AND NOT has_function_privilege(oid, 'EXECUTE')
UNION ALL
SELECT 'SELECT ON ' || format('pg_catalog.%I', relname) FROM pg_class
WHERE relnamespace = 'pg_catalog'::regnamespace AND relname = ANY ($2) AND NOT has_table_privilege(oid, 'SELECT')
ORDER BY 1`, neededFunctions, neededCatalogs)
	missing, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	if len(missing) == 0 {
		p.ok("rights", "it may ask and call what the listener needs")
		return nil
	}
	f := Finding{Status: Error, What: "missing: " + names(missing), Why: "the listener cannot run without what PostgreSQL lets everybody do by default",
		Fix: "let an owner run the statements"}
	for _, right := range missing {
		f.SQL = append(f.SQL, "GRANT "+right+" TO "+quote(p.role)+";")
	}
	p.add("rights", f)
	return nil
}

// statistics of other roles' sessions say who holds things up.
func (p *postgres) statistics(context.Context) error {
	if p.seesAll {
		p.ok("statistics", "it may see who holds things up")
		return nil
	}
	p.add("statistics", Finding{Status: Warning, What: "it may not see the sessions of other roles",
		Why: "making the slot waits for open transactions, and the log could not say whose", Fix: "let an owner run the statement",
		SQL: []string{"GRANT pg_read_all_stats TO " + quote(p.role) + ";"}})
	return nil
}

func quote(name string) string { return pgx.Identifier{name}.Sanitize() }

// quoteText writes a literal.
func quoteText(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
