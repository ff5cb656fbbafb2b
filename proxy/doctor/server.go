package doctor

import (
	"context"
	"fmt"
	"strings"

	"github.com/dustin/go-humanize"
)

// facts are what one query tells of a server.
type facts struct {
	version                 int // 150010
	versionText             string
	standby                 bool
	role                    string
	super, creates, seesAll bool
	service                 service
	level, standbyNames     string
	slotsMax, slotsUsed     int
	ourSlot, ourSlotActive  bool
	sendersMax, sendersUsed int
	keep                    int64 // max_slot_wal_keep_size in bytes; -1 is without bound
}

// service is a place that runs PostgreSQL for others, told by the role that its
// administrators have. There nobody edits postgresql.conf.
type service struct {
	admins   string // role
	name     string
	logical  string // the setting behind wal_level
	settings string // where settings are made
	grant    string // statement that lets a role replicate, if it is a special one
}

var services = []service{
	{admins: "rds_superuser", name: "Amazon RDS", logical: "rds.logical_replication = 1", settings: "its parameter group", grant: "GRANT rds_replication TO %s;"},
	{admins: "cloudsqlsuperuser", name: "Google Cloud SQL", logical: "cloudsql.logical_decoding = on", settings: "its flags"},
	{admins: "alloydbsuperuser", name: "Google AlloyDB", logical: "alloydb.logical_decoding = on", settings: "its flags"},
	{admins: "azure_pg_admin", name: "Azure Database", logical: "wal_level = logical", settings: "its server parameters"},
	{admins: "neon_superuser", name: "Neon", logical: "logical replication = on", settings: "the settings of the project"},
}

func (s service) grantReplication(role string) string {
	if s.grant != "" {
		return fmt.Sprintf(s.grant, quote(role))
	}
	return "ALTER ROLE " + quote(role) + " REPLICATION;"
}

// setting says how a setting is changed. The SQL is a comment, because it
// concerns the whole server.
func (s service) setting(name, value string, restart bool) (fix string, sql []string) {
	then := "SELECT pg_reload_conf()"
	if restart {
		then = "restart PostgreSQL"
	}
	if s.name != "" {
		change := name + " = " + value
		if name == "wal_level" {
			change = s.logical
		}
		return fmt.Sprintf("set %s in %s (%s), then restart if it asks for that", change, s.settings, s.name), nil
	}
	statement := "ALTER SYSTEM SET " + name + " = " + value
	return statement + ", then " + then, []string{"-- " + statement + "; -- then " + then}
}

// ask reads the facts. Settings that came with a version may be missing.
func (p *postgres) ask(ctx context.Context) error {
	var admins []string
	for _, s := range services {
		admins = append(admins, s.admins)
	}
	var service string
	err := p.db.QueryRow(ctx, `
SELECT current_setting('server_version_num')::int, split_part(current_setting('server_version'), ' ', 1), pg_is_in_recovery(),
       current_user, r.rolsuper, has_database_privilege(current_database(), 'CREATE'), pg_has_role('pg_read_all_stats', 'USAGE'),
       coalesce((SELECT rolname FROM pg_roles WHERE rolname = ANY ($1) LIMIT 1), ''),
       current_setting('wal_level'), current_setting('synchronous_standby_names'),
       current_setting('max_replication_slots')::int, (SELECT count(*) FROM pg_replication_slots),
       EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $2), EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $2 AND active),
       current_setting('max_wal_senders')::int, (SELECT count(*) FROM pg_stat_replication),
       coalesce(pg_size_bytes(current_setting('max_slot_wal_keep_size', true)), -1)
FROM pg_roles r WHERE r.rolname = current_user`, admins, p.config.Listener.Slot).Scan(
		&p.version, &p.versionText, &p.standby, &p.role, &p.super, &p.creates, &p.seesAll, &service,
		&p.level, &p.standbyNames, &p.slotsMax, &p.slotsUsed, &p.ourSlot, &p.ourSlotActive, &p.sendersMax, &p.sendersUsed, &p.keep)
	for _, s := range services {
		if s.admins == service {
			p.service = s
		}
	}
	return err
}

const oldest, newest = 14, 18

// suits reports whether it is a server that the other questions fit.
func (p *postgres) suits() bool {
	switch major := p.version / 10000; {
	case major == 0: // not told
		return false
	case major < oldest:
		p.add("version", Finding{unknown: true, Status: Error, What: "it is PostgreSQL " + p.versionText, Why: "older ones cannot stream transactions that are still open",
			Fix: fmt.Sprintf("upgrade to PostgreSQL %d or later", oldest)})
		return false
	case major > newest:
		p.add("version", Finding{Status: Warning, What: "it is PostgreSQL " + p.versionText, Why: fmt.Sprintf("nobody has tried this proxy with a version after %d", newest),
			Fix: "look for a newer release of this proxy, or try it with care"})
	default:
		p.ok("version", "PostgreSQL %s", p.versionText)
	}
	if p.standby {
		p.add("primary", Finding{unknown: true, Status: Error, What: "it is a standby; nothing else was asked of it", Why: "only the primary's change stream says what is visible there",
			Fix: "name the primary in DATABASE_URL (--database-url)"})
		return false
	}
	p.ok("primary", "it is the primary")
	return true
}

func (p *postgres) walLevel(context.Context) error {
	if p.level == "logical" {
		p.ok("wal_level", "logical")
		return nil
	}
	fix, sql := p.service.setting("wal_level", "logical", true)
	p.add("wal_level", Finding{Status: Error, What: fmt.Sprintf("it is %q", p.level), Why: "row changes are in the WAL only if it is logical", Fix: fix, SQL: sql})
	return nil
}

func (p *postgres) slots(context.Context) error {
	free := p.slotsMax - p.slotsUsed
	switch {
	case p.ourSlot:
		p.ok("replication_slots", "ours is one of the %d in use, of %d", p.slotsUsed, p.slotsMax)
	case free > 0:
		p.ok("replication_slots", "%d of %d free", free, p.slotsMax)
	default:
		fix, sql := p.service.setting("max_replication_slots", fmt.Sprint(p.slotsMax+4), true)
		p.add("replication_slots", Finding{Status: Error, What: fmt.Sprintf("all %d are in use", p.slotsMax), Why: "the change stream needs one",
			Fix: fix + "; or drop one that nobody needs", SQL: sql})
	}
	return nil
}

func (p *postgres) senders(context.Context) error {
	free := p.sendersMax - p.sendersUsed
	if free > 0 {
		p.ok("wal_senders", "%d of %d free; each proxy takes one, also while it waits to take over", free, p.sendersMax)
		return nil
	}
	fix, sql := p.service.setting("max_wal_senders", fmt.Sprint(p.sendersMax+8), true)
	f := Finding{Status: Error, What: fmt.Sprintf("all %d are in use", p.sendersMax), Why: "the change stream needs one", Fix: fix, SQL: sql}
	if p.ourSlotActive {
		f.Status, f.Why = Warning, "one of them is ours, but no other proxy could take over"
	}
	p.add("wal_senders", f)
	return nil
}

// walKept looks at what bounds the WAL that slots keep. A proxy gives its slot
// up past its own limit; a proxy that does not run cannot.
func (p *postgres) walKept(context.Context) error {
	limit := p.config.Listener.MaxRetainedWAL
	roomy := max(4*limit, 4<<30)
	fix, sql := p.service.setting("max_slot_wal_keep_size", quoteText(fmt.Sprintf("%dMB", roomy>>20)), false)
	fix += "; it holds for all slots, standbys' too"
	switch {
	case p.keep < 0:
		p.add("wal_kept", Finding{Status: Warning, What: "max_slot_wal_keep_size is -1: slots keep WAL without bound",
			Why: "a slot whose proxies are all gone would fill the disk", Fix: fix, SQL: sql})
	case p.keep < limit:
		p.add("wal_kept", Finding{Status: Warning, What: fmt.Sprintf("max_slot_wal_keep_size is %s, less than --max-retained-wal (%s)", size(p.keep), size(limit)),
			Why: "the slot is lost, and with it the cache, earlier than asked for", Fix: fix, SQL: sql})
	default:
		p.ok("wal_kept", "max_slot_wal_keep_size is %s", size(p.keep))
	}
	return nil
}

// standbys looks whether PostgreSQL would take the listener for a synchronous
// standby: any replication connection whose application_name fits is one.
func (p *postgres) standbys(context.Context) error {
	for _, name := range strings.FieldsFunc(p.standbyNames, func(r rune) bool { return strings.ContainsRune(" ,()", r) }) {
		name = strings.ToLower(strings.Trim(name, `"`))
		if name == "*" || name == "walcache" || strings.HasPrefix(name, "walcache:") {
			fix := "name the real standbys in synchronous_standby_names, then SELECT pg_reload_conf()"
			p.add("standbys", Finding{Status: Error, What: fmt.Sprintf("synchronous_standby_names is %q, which the listener fits too", p.standbyNames),
				Why: "every commit of the application would wait for the listener as for a standby", Fix: fix})
			return nil
		}
	}
	p.ok("standbys", "the listener is nobody's standby")
	return nil
}

func size(bytes int64) string { return humanize.IBytes(uint64(max(bytes, 0))) }
