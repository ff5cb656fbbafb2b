package replication

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Uninstall removes what a listener leaves in a database: slot and
// publications. It returns the statements, in order; with dryRun they are not
// run. It refuses while someone holds the slot.
func Uninstall(ctx context.Context, config Config, dryRun bool) (statements []string, err error) {
	db, err := connect(ctx, config.DatabaseURL, applicationName)
	if err != nil {
		return nil, err
	}
	defer func() { _ = db.Close(ctx) }()
	slot, err := findSlot(ctx, db, config.Slot)
	if err != nil {
		return nil, err
	}
	if slot != nil {
		if slot.ActivePID != 0 && !dryRun {
			return nil, fmt.Errorf("replication slot %q is held by pid %d (%s): stop that process first", slot.Name, slot.ActivePID, slot.Holder)
		}
		statements = append(statements, "SELECT pg_drop_replication_slot("+quoteText(config.Slot)+")")
	}
	for _, name := range publicationsOf(config.Publication).names() {
		var exists bool
		if err := db.QueryRow(ctx, "SELECT count(*) > 0 FROM pg_publication WHERE pubname = $1", name).Scan(&exists); err != nil {
			return nil, fmt.Errorf("look up publication %q: %w", name, err)
		}
		if exists {
			statements = append(statements, "DROP PUBLICATION "+quote(name))
		}
	}
	if dryRun {
		return statements, nil
	}
	return statements, run(ctx, db, statements)
}

func run(ctx context.Context, db *pgx.Conn, statements []string) error {
	for _, sql := range statements {
		if _, err := db.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	return nil
}
