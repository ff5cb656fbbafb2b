package replication

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"

	"walcache/proxy/coherence"
)

// lineage tells one history of a database from another. What a process knows
// holds only for the history that it learned it from: a restored backup, a
// promoted standby or a crash that undid a commit continue another one.
type lineage struct {
	system       string // pg_control's system identifier
	timeline     int32
	database     string // oid: a database dropped and made again is another
	publications string // by versions
	// statsReset changes with crash recovery, which can undo a commit that was
	// already seen (synchronous_commit = off), because recovery discards the
	// statistics. A clean restart, which loses nothing, keeps it.
	statsReset string
}

// versions is the query for which publications there are, by oid and by the
// transaction that last altered them. Their lists of tables are not part of it.
const versions = `SELECT coalesce(string_agg(oid || '/' || xmin, ',' ORDER BY oid), '') FROM pg_publication WHERE pubname = ANY ($1)`

// past is what the sessions before this one leave to it.
type past struct {
	epoch   string // "" before the first
	lineage lineage
	known   coherence.LSN // every change up to it was applied
	unseen  bool          // not even the slot's first position was visible yet
	// undecodable says that the server could not decode what the slot keeps.
	undecodable bool
	xmax        uint64 // no transaction from here on had begun
	catalog     *catalog
	altered     []string // tables that changed and were not announced; guarded by sqlMu of the session
}

func readLineage(ctx context.Context, repl *stream, db *pgx.Conn, p publications) (l lineage, err error) {
	system, err := pglogrepl.IdentifySystem(ctx, repl.conn)
	if err != nil {
		return l, fmt.Errorf("identify the server: %w", err)
	}
	l.system, l.timeline = system.SystemID, system.Timeline
	err = db.QueryRow(ctx, `
SELECT (SELECT oid::text FROM pg_database WHERE datname = current_database()),
       (`+versions+`),
       (SELECT coalesce(stats_reset::text, '') FROM pg_stat_wal)`, p.names()).
		Scan(&l.database, &l.publications, &l.statsReset)
	if err != nil {
		return l, fmt.Errorf("identify the database: %w", err)
	}
	return l, nil
}

// broken says why what the past knows does not hold any more, or "" if the
// stream, resumed at the slot's confirmed position, continues it. That of a
// slot just made does not: it begins wherever the server was.
func (p *past) broken(now lineage, seen observation, c *catalog, slot coherence.LSN, made bool) string {
	differs := func(what string) string { return what + " differs from before" }
	switch was := p.lineage; {
	case p.epoch == "":
		return "process started"
	case was.system != now.system:
		return differs("the system identifier")
	case was.timeline != now.timeline:
		return differs("the timeline")
	case was.database != now.database:
		return differs("the database")
	case was.publications != now.publications:
		return differs("a publication")
	case was.statsReset != now.statsReset:
		return "the server recovered from a crash"
	case seen.insert < p.known:
		return fmt.Sprintf("the server is at %s, behind %s", seen.insert, p.known)
	case seen.snapshot.xmax < p.xmax:
		return fmt.Sprintf("the server's next transaction is %d, behind %d", seen.snapshot.xmax, p.xmax)
	case made:
		return "the slot is new"
	case slot > p.known:
		return fmt.Sprintf("the slot was confirmed up to %s by someone else, and we know %s", slot, p.known)
	}
	if lost := c.lost(p.catalog); len(lost) > 0 {
		return "changes no longer published: " + strings.Join(lost, ", ")
	}
	return ""
}
