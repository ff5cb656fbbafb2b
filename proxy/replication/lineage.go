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
	System       string // pg_control's system identifier
	Timeline     int32
	Database     string // oid: a database dropped and made again is another
	Publications string // by versions
	// StatsReset changes with crash recovery, which can undo a commit that was
	// already seen (synchronous_commit = off), because recovery discards the
	// statistics. A clean restart, which loses nothing, keeps it.
	StatsReset string
}

// versions is the query for which publications there are, by oid and by the
// transaction that last altered them. Their lists of tables are not part of it.
const versions = `SELECT coalesce(string_agg(oid || '/' || xmin, ',' ORDER BY oid), '') FROM pg_publication WHERE pubname = ANY ($1)`

func readLineage(ctx context.Context, repl *stream, db *pgx.Conn, p publications) (l lineage, err error) {
	system, err := pglogrepl.IdentifySystem(ctx, repl.conn)
	if err != nil {
		return l, fmt.Errorf("identify the server: %w", err)
	}
	l.System, l.Timeline = system.SystemID, system.Timeline
	err = db.QueryRow(ctx, `
SELECT (SELECT oid::text FROM pg_database WHERE datname = current_database()),
       (`+versions+`),
       (SELECT coalesce(stats_reset::text, '') FROM pg_stat_wal)`, p.names()).
		Scan(&l.Database, &l.Publications, &l.StatsReset)
	if err != nil {
		return l, fmt.Errorf("identify the database: %w", err)
	}
	return l, nil
}

// foreign reports that the past is of another database altogether.
func (p *past) foreign(now lineage) bool {
	return p.left.Lineage.System != now.System || p.left.Lineage.Database != now.Database
}

// broken says why what is known does not hold any more, or "" if the stream,
// resumed at the slot's confirmed position, continues it. That of a slot just
// made does not: it begins wherever the server was.
func (p *past) broken(now lineage, seen observation, c *catalog, confirmed coherence.LSN, made bool) string {
	differs := func(what string) string { return what + " differs from before" }
	switch was := p.left.Lineage; {
	case was.System != now.System:
		return differs("the system identifier")
	case was.Timeline != now.Timeline:
		return differs("the timeline")
	case was.Database != now.Database:
		return differs("the database")
	case was.Publications != now.Publications:
		return differs("a publication")
	case was.StatsReset != now.StatsReset:
		return "the server recovered from a crash"
	case seen.insert < p.Known:
		return fmt.Sprintf("the server is at %s, behind %s", seen.insert, p.Known)
	case seen.snapshot.xmax < p.left.XMax:
		return fmt.Sprintf("the server's next transaction is %d, behind %d", seen.snapshot.xmax, p.left.XMax)
	case made:
		return "the slot is new"
	case confirmed > p.Known:
		return fmt.Sprintf("the slot was confirmed up to %s, by someone else or without the change log, and what is known ends at %s", confirmed, p.Known)
	}
	if lost := c.lost(p.left.settled()); len(lost) > 0 {
		return "changes no longer published: " + strings.Join(lost, ", ")
	}
	return ""
}
