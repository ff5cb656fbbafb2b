package replication

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"

	"walcache/proxy/coherence"
)

// Slot is the state of the replication slot (PostgreSQL documentation,
// pg_replication_slots).
type Slot struct {
	Name        string
	ActivePID   int32         // 0 while nobody holds it
	Application string        // application_name of the holder
	Holder      string        // the same and its address
	Confirmed   coherence.LSN // PostgreSQL resumes after it
	Retained    int64         // bytes of WAL kept for it
	WALStatus   string        // reserved, extended, unreserved, lost
}

// errGiveUp says that the slot is to be dropped, because it can no longer be
// resumed from or because it keeps more WAL than it may: a full disk is worse
// than a cold cache.
var errGiveUp = errors.New("slot given up")

// findSlot looks the slot up; it is nil if there is none.
func findSlot(ctx context.Context, db *pgx.Conn, name string) (*Slot, error) {
	s := Slot{Name: name}
	var plugin, confirmed string
	var ours bool
	err := db.QueryRow(ctx, `
SELECT coalesce(s.plugin, ''), coalesce(s.database = current_database(), false), coalesce(s.active_pid, 0),
       coalesce(a.application_name, ''), coalesce(a.application_name || ' at ' || coalesce(host(a.client_addr), 'local'), ''),
       coalesce(s.confirmed_flush_lsn, '0/0')::text,
       coalesce(pg_current_wal_lsn() - s.restart_lsn, 0)::int8, coalesce(s.wal_status, 'lost')
FROM pg_replication_slots s LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid
WHERE s.slot_name = $1`, name).Scan(&plugin, &ours, &s.ActivePID, &s.Application, &s.Holder, &confirmed, &s.Retained, &s.WALStatus)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up replication slot %q: %w", name, err)
	}
	if plugin != "pgoutput" || !ours {
		return nil, &ConfigError{
			What: fmt.Sprintf("replication slot %q belongs to something else (another database or plugin %q)", name, plugin),
			Next: "name another one with --slot",
		}
	}
	s.Confirmed, err = coherence.ParseLSN(confirmed)
	return &s, err
}

// createSlot makes the slot, or returns errHeld if someone else has. PostgreSQL
// waits for every open transaction that has written, so it may take long;
// meanwhile the log says for whom.
func createSlot(ctx context.Context, repl *stream, db *pgx.Conn, name string, log *slog.Logger) error {
	waiting, stop := context.WithCancel(ctx)
	told := make(chan struct{})
	go func() {
		defer close(told)
		tellWhoBlocks(waiting, db, log)
	}()
	_, err := pglogrepl.CreateReplicationSlot(ctx, repl.conn, quote(name), "pgoutput",
		pglogrepl.CreateReplicationSlotOptions{Mode: pglogrepl.LogicalReplication, SnapshotAction: "NOEXPORT_SNAPSHOT"})
	stop()
	<-told
	if sqlState(err) == "42710" { // duplicate_object
		return errHeld
	}
	if err != nil {
		return fmt.Errorf("create replication slot %q: %w", name, err)
	}
	return nil
}

func tellWhoBlocks(ctx context.Context, db *pgx.Conn, log *slog.Logger) {
	every := time.NewTicker(5 * time.Second)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		}
		var pids []int32
		// Without the deadline of ctx: cancelling a query closes its connection.
		err := db.QueryRow(context.WithoutCancel(ctx), `
SELECT coalesce(array_agg(pid ORDER BY xact_start), '{}') FROM pg_stat_activity
WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()`).Scan(&pids)
		if err == nil {
			log.Warn("replication slot waits for open transactions to end; answers are not cached meanwhile", "pids", pids)
		}
	}
}

// dropSlot removes the slot, ending the connection that holds it if that is
// ours; a slot held by anyone else is left alone.
func dropSlot(ctx context.Context, db *pgx.Conn, name string) error {
	_, err := db.Exec(ctx, `SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1`, name)
	if err != nil {
		return fmt.Errorf("drop replication slot %q: %w", name, err)
	}
	return nil
}
