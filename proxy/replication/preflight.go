package replication

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// ConfigError is wrong configuration: trying again does not help, a person has
// to change something.
type ConfigError struct {
	What string // what is wrong
	Next string // what to do about it
}

func (e *ConfigError) Error() string { return e.What + "\n  try: " + e.Next }

// applicationName is what pg_stat_activity shows for our connections, followed by
// the name of the cluster if there is one.
const applicationName = "walcache"

func sqlState(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}

// preflight checks what the server must allow before anything is created on it.
func preflight(ctx context.Context, db *pgx.Conn, name string) error {
	var version int
	var walLevel, standbys, role string
	var replicates, standby bool
	err := db.QueryRow(ctx, `
SELECT current_setting('server_version_num')::int, current_setting('wal_level'),
       current_setting('synchronous_standby_names'), current_user, r.rolreplication OR r.rolsuper OR EXISTS (
           SELECT FROM pg_roles m WHERE m.rolname = 'rds_replication' AND pg_has_role(m.oid, 'member')), -- Amazon RDS
       pg_is_in_recovery()
FROM pg_roles r WHERE r.rolname = current_user`).Scan(&version, &walLevel, &standbys, &role, &replicates, &standby)
	if err != nil {
		return fmt.Errorf("check the server: %w", err)
	}
	switch {
	case standby:
		return errors.New("the server is a standby: only the primary's change stream says what is visible there")
	case version < 140000:
		return &ConfigError{What: fmt.Sprintf("the server is PostgreSQL %d", version/10000), Next: "upgrade to PostgreSQL 14 or later"}
	case walLevel != "logical":
		return &ConfigError{What: fmt.Sprintf("wal_level is %q", walLevel), Next: "ALTER SYSTEM SET wal_level = logical, then restart PostgreSQL"}
	case !replicates:
		return &ConfigError{What: fmt.Sprintf("role %q may not replicate", role), Next: "ALTER ROLE " + quote(role) + " REPLICATION"}
	}
	return checkStandbys(standbys, name)
}

// checkStandbys refuses to be counted as a synchronous standby. PostgreSQL takes
// any replication connection whose application_name fits for one, and we
// confirm what we have received only seconds later: every commit of the
// application would wait for us.
func checkStandbys(names, ours string) error {
	for _, name := range strings.FieldsFunc(names, func(r rune) bool { return strings.ContainsRune(" ,()", r) }) {
		if name = strings.Trim(name, `"`); name == "*" || strings.EqualFold(name, ours) {
			return &ConfigError{
				What: fmt.Sprintf("synchronous_standby_names is %q, so that commits would wait for this listener as for a standby", names),
				Next: "name the real standbys in synchronous_standby_names, then SELECT pg_reload_conf()",
			}
		}
	}
	return nil
}
