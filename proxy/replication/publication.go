package replication

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Two publications share the slot, so that no write of the application can ever
// fail because of us. PostgreSQL refuses an UPDATE or DELETE on a table that is
// published for them and has no replica identity. So inserts and truncates of
// all tables, present and future, are in one publication, and updates and
// deletes in another that lists exactly the tables whose identity can carry
// them. Partitioned tables are not listed, only their partitions: listing the
// parent would publish a partition that has no identity.
type publications struct{ inserts, updates string }

func publicationsOf(name string) publications {
	return publications{inserts: name, updates: name + "_updates"}
}

func (p publications) names() []string { return []string{p.inserts, p.updates} }

// ensure creates the publications that are missing, and aligns the second with
// the tables that there are. It returns the names of the tables that it added:
// their updates reach the stream only from here on.
func (p publications) ensure(ctx context.Context, db *pgx.Conn, ignore []string) (added []string, err error) {
	if err := p.create(ctx, db); err != nil {
		return nil, err
	}
	c, err := loadCatalog(ctx, db, p.updates, ignore)
	if err != nil {
		return nil, err
	}
	return p.align(c, func(sql string) (bool, error) { return try(ctx, db, sql) })
}

// create makes what is missing. A publication of updates that carries a table
// which it does not list, as one for a schema does, or one that lists a
// partitioned table, would publish tables without an identity too.
func (p publications) create(ctx context.Context, db *pgx.Conn) error {
	statements := map[string]string{
		p.inserts: "CREATE PUBLICATION " + quote(p.inserts) + " FOR ALL TABLES WITH (publish = 'insert, truncate')",
		p.updates: "CREATE PUBLICATION " + quote(p.updates) + " WITH (publish = 'update, delete')",
	}
	for _, name := range p.names() {
		var exists, usable bool
		err := db.QueryRow(ctx, `
SELECT count(*) > 0, coalesce(bool_and(NOT pubviaroot AND CASE WHEN $2 THEN puballtables AND pubinsert AND pubtruncate
                                                               ELSE NOT puballtables AND pubupdate AND pubdelete AND NOT EXISTS (
           SELECT FROM pg_publication_tables t WHERE t.pubname = p.pubname AND NOT EXISTS (
               SELECT FROM pg_publication_rel r JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE r.prpubid = p.oid AND n.nspname = t.schemaname AND c.relname = t.tablename)) END), false)
FROM pg_publication p WHERE pubname = $1`, name, name == p.inserts).Scan(&exists, &usable)
		if err != nil {
			return fmt.Errorf("look up publication %q: %w", name, err)
		}
		if exists && !usable {
			return &ConfigError{
				What: fmt.Sprintf("publication %q exists and is not ours: it does not carry what is needed", name),
				Next: "name another one with --publication, or drop it: DROP PUBLICATION " + quote(name),
			}
		}
		if !exists {
			if err := allowed(ctx, db, statements[name]); err != nil {
				return err
			}
		}
	}
	return nil
}

// align lists what the catalog says can be listed, and takes off the list what
// lost its identity, so that the application can write it again. A table that
// this role may not list, or that is locked just now, stays as it is.
func (p publications) align(c *catalog, try func(sql string) (bool, error)) (added []string, err error) {
	for _, t := range c.tables {
		var done bool
		switch {
		case t.listable():
			if done, err = try(p.listing(t)); done {
				added = append(added, t.name)
			}
		case t.refusing():
			_, err = try("ALTER PUBLICATION " + quote(p.updates) + " DROP TABLE ONLY " + t.sql)
		}
		if err != nil {
			return added, err
		}
	}
	slices.Sort(added)
	return added, nil
}

// listing is the statement that publishes a table's updates and deletes, and not
// those of tables that inherit from it, which may have no identity.
func (p publications) listing(t *table) string {
	return "ALTER PUBLICATION " + quote(p.updates) + " ADD TABLE ONLY " + t.sql
}

// try runs a statement that may be refused for now, without ending anything.
func try(ctx context.Context, db *pgx.Conn, sql string) (done bool, err error) {
	_, err = db.Exec(ctx, sql)
	switch sqlState(err) {
	case "42501", // insufficient_privilege
		"55P03",          // lock_not_available
		"42P01",          // undefined_table: dropped meanwhile
		"42710", "23505", // duplicate_object, unique_violation: another process was faster
		"42704": // undefined_object: the same
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("%s: %w", sql, err)
	}
	return true, nil
}

// allowed runs a statement without which nothing can start, and names it as
// what an owner has to run if this role may not.
func allowed(ctx context.Context, db *pgx.Conn, sql string) error {
	_, err := db.Exec(ctx, sql)
	switch sqlState(err) {
	case "42501": // insufficient_privilege
		return &ConfigError{What: "this role may not change publications: " + err.Error(), Next: "let an owner run: " + sql}
	case "42710", "23505": // duplicate_object, unique_violation: another process was faster
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", sql, err)
	}
	return nil
}

func quote(name string) string { return pgx.Identifier{name}.Sanitize() }

// quoteList writes names for the publication_names option, which stands in
// single quotes.
func quoteList(names []string) string {
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = strings.ReplaceAll(quote(name), "'", "''")
	}
	return strings.Join(quoted, ",")
}

func quoteText(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
