package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// decoded is how many bytes of WAL a server decodes in a second, roughly: 506 MB
// took 4.7 s.
const decoded = 100 << 20

// slotRow is a row of pg_replication_slots.
type slotRow struct {
	plugin, database, status string
	ours                     bool // in this database; and held by our cluster, as far as is known
	retained                 int64
	pid                      int64 // 0 while nobody holds it
	holder, address, cluster string
}

func (p *postgres) slot(ctx context.Context) error {
	name := p.config.Listener.Slot
	var s slotRow
	err := p.db.QueryRow(ctx, `
SELECT coalesce(s.plugin, s.slot_type), coalesce(s.database, ''), coalesce(s.database = current_database(), false), coalesce(s.wal_status, 'lost'),
       coalesce(pg_current_wal_lsn() - s.restart_lsn, 0)::int8, coalesce(s.active_pid, 0), coalesce(a.application_name, ''), coalesce(host(a.client_addr), '')
FROM pg_replication_slots s LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid WHERE s.slot_name = $1`, name).
		Scan(&s.plugin, &s.database, &s.ours, &s.status, &s.retained, &s.pid, &s.holder, &s.address)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		p.ok("slot", "%q does not exist yet; the listener makes it", name)
	case err != nil:
		return err
	case s.plugin != "pgoutput" || !s.ours:
		p.add("slot", Finding{Status: Error, What: fmt.Sprintf("%q belongs to something else (plugin %s, database %q)", name, s.plugin, s.database),
			Why: "the stream needs a slot of its own", Fix: "name another one with --slot"})
	default:
		_, s.cluster, _ = strings.Cut(s.holder, "walcache:")
		if s.cluster != "" {
			s.ours = s.cluster == cmp.Or(clusterOf(ctx, p.config), s.cluster)
		}
		p.add("slot", p.judge(name, s))
	}
	return nil
}

func (p *postgres) judge(name string, s slotRow) Finding {
	f := Finding{Status: OK, What: fmt.Sprintf("%q keeps %s of WAL (%s), which a restart reads in about %s; %s",
		name, size(s.retained), s.status, time.Duration(s.retained/decoded+1)*time.Second, s.heldBy())}
	switch {
	case s.pid != 0 && s.holder != "walcache" && !strings.HasPrefix(s.holder, "walcache:"):
		f.Status, f.Why, f.Fix = Error, "whoever holds it takes the changes, and proxies wait in vain", "stop that program, or name another slot with --slot"
	case !s.ours:
		f.Status, f.Why, f.Fix = Error, "the proxies of this Redis are another cluster, and would wait for that one in vain", "give each cluster its own --slot, or the same --redis-url and --prefix"
	case s.status == "lost":
		f.Status, f.Why, f.Fix = Warning, "its WAL is gone: the listener makes it anew, and the cache starts empty", "start the proxy; and raise max_slot_wal_keep_size if it happens again"
	case s.status == "unreserved":
		f.Status, f.Why, f.Fix = Warning, "the next checkpoint may take its WAL away", "start the proxy, or raise max_slot_wal_keep_size"
	case p.config.Listener.MaxRetainedWAL > 0 && s.retained > p.config.Listener.MaxRetainedWAL:
		f.Status, f.Why, f.Fix = Warning, fmt.Sprintf("it is more than --max-retained-wal (%s): the listener gives it up, and the cache starts empty", size(p.config.Listener.MaxRetainedWAL)),
			"start the proxy; if it runs, look in its log for what holds it back"
	}
	return f
}

func (s slotRow) heldBy() string {
	if s.pid == 0 {
		return "nobody holds it"
	}
	where := s.address
	if where == "" {
		where = "an address that is not told"
	}
	if s.cluster != "" {
		return fmt.Sprintf("held by pid %d, a proxy of cluster %s at %s", s.pid, s.cluster, where)
	}
	return fmt.Sprintf("held by pid %d (%s) at %s", s.pid, s.holder, where)
}

// transactions that have written and stay open hold back the making of a slot,
// and the place from which a restart reads. Their queries may hold secrets.
func (p *postgres) transactions(ctx context.Context) error {
	rows, _ := p.db.Query(ctx, `
SELECT format('pid %s (%s, %s) open for %s', pid, coalesce(nullif(application_name, ''), 'no name'), coalesce(state, 'state not told'),
              date_trunc('second', clock_timestamp() - xact_start))
FROM pg_stat_activity
WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid() AND clock_timestamp() - xact_start >= make_interval(secs => $1)
UNION ALL
SELECT format('prepared transaction of database %s open for %s', database, date_trunc('second', clock_timestamp() - prepared))
FROM pg_prepared_xacts WHERE clock_timestamp() - prepared >= make_interval(secs => $1)`, p.config.limits.transaction.Seconds())
	open, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	if len(open) == 0 {
		told := ""
		if !p.seesAll {
			told = "; those of other roles are not told"
		}
		p.ok("transactions", "none has written and stays open%s", told)
		return nil
	}
	p.add("transactions", Finding{Status: Warning, What: names(open), Why: "the slot cannot be made before they end, and a restart reads again all that came since",
		Fix: "let them end: COMMIT, ROLLBACK (PREPARED), or as a last resort SELECT pg_terminate_backend(pid)"})
	return nil
}

// otherSlots that nobody reads keep WAL, whoever they belong to.
func (p *postgres) otherSlots(ctx context.Context) error {
	limit := p.config.Listener.MaxRetainedWAL
	rows, _ := p.db.Query(ctx, `
SELECT slot_name || ' (' || pg_size_pretty(pg_current_wal_lsn() - restart_lsn) || ')' FROM pg_replication_slots
WHERE slot_name <> $1 AND NOT active AND pg_current_wal_lsn() - restart_lsn > $2 ORDER BY restart_lsn`, p.config.Listener.Slot, limit)
	idle, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	if len(idle) == 0 {
		p.ok("other_slots", "none that nobody reads keeps much WAL")
		return nil
	}
	p.add("other_slots", Finding{Status: Warning, What: "nobody reads " + names(idle), Why: "they keep WAL until the disk is full, and then the database stops",
		Fix: "start what reads them, or drop them if nothing does: SELECT pg_drop_replication_slot(name)"})
	return nil
}
