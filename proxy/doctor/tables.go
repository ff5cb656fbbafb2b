package doctor

import (
	"context"
	"path"
	"slices"

	"github.com/jackc/pgx/v5"

	"walcache/proxy/coherence"
)

// table is a table whose changes matter.
type table struct {
	name      string // as tags name it
	ignored   bool
	sql       string // as SQL names it, quoted
	parent    bool   // partitioned: it has no rows of its own
	owned     bool   // by the role
	identity  bool   // its replica identity can carry updates and deletes
	published bool   // for updates, whether it is listed itself or not
	listed    bool   // in the publication for updates, by its name
	filtered  bool   // so with a row filter or a column list
	key       bool   // it has a primary key that can be an identity
	index     string // the best index that could be one, quoted, or ""
	full      bool   // FULL could be one
	inherits  bool   // from a table that is not partitioned
	rowBytes  int64  // on average, with what is stored aside; 0 if not known
}

// askTables asks about tables, and the publications that list them.
func (p *postgres) askTables(ctx context.Context) error {
	if err := p.readTables(ctx); err != nil {
		return err
	}
	if err := p.publications(ctx); err != nil {
		return err
	}
	p.identities()
	return nil
}

// readTables reads the tables that a stream could carry. What makes an identity
// is what replication takes for one: an index that is immediate, and from
// PostgreSQL 18 on, no generated column.
func (p *postgres) readTables(ctx context.Context) error {
	const query = `
WITH tables AS MATERIALIZED (
    SELECT c.*, n.nspname, old, old OR NOT EXISTS (
        SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attgenerated <> '' AND NOT a.attisdropped) AS full
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, (SELECT current_setting('server_version_num')::int < 180000) AS v (old)
    WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')),
indexes AS (
    SELECT i.indrelid, bool_or(i.indisprimary) AS key, bool_or(i.indisreplident) AS chosen,
           (array_agg(format('%I', x.relname) ORDER BY i.indnkeyatts, x.relname))[1] AS best
    FROM tables c JOIN pg_index i ON i.indrelid = c.oid JOIN pg_class x ON x.oid = i.indexrelid
    WHERE i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL
      AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]) AND NOT a.attnotnull)
      AND (c.old OR NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum = ANY (i.indkey) AND a.attgenerated <> ''))
    GROUP BY i.indrelid),
listed AS (
    SELECT r.prrelid, to_jsonb(r)->>'prqual' IS NOT NULL OR to_jsonb(r)->>'prattrs' IS NOT NULL AS filtered
    FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid WHERE p.pubname = $1),
published AS MATERIALIZED (
    SELECT schemaname, tablename FROM pg_publication_tables WHERE pubname = $1)
SELECT c.nspname, c.relname, format('%I.%I', c.nspname, c.relname), c.relkind = 'p', pg_has_role(c.relowner, 'USAGE'),
       coalesce(CASE c.relreplident WHEN 'f' THEN c.full WHEN 'd' THEN i.key WHEN 'i' THEN i.chosen END, false),
       p.tablename IS NOT NULL, l.prrelid IS NOT NULL, coalesce(l.filtered, false),
       coalesce(i.key, false), coalesce(i.best, ''), c.full,
       NOT c.relispartition AND EXISTS (SELECT FROM pg_inherits h WHERE h.inhrelid = c.oid),
       coalesce(((c.relpages + (SELECT coalesce(sum(relpages), 0) FROM pg_class WHERE oid = c.reltoastrelid)) * current_setting('block_size')::int8
                 / nullif(greatest(c.reltuples, 0), 0))::int8, 0)
FROM tables c LEFT JOIN indexes i ON i.indrelid = c.oid LEFT JOIN listed l ON l.prrelid = c.oid
     LEFT JOIN published p ON p.schemaname = c.nspname AND p.tablename = c.relname
ORDER BY c.nspname, c.relname`
	rows, _ := p.db.Query(ctx, query, p.updates())
	var err error
	p.tables, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (t table, err error) {
		var schema, name string
		err = row.Scan(&schema, &name, &t.sql, &t.parent, &t.owned, &t.identity, &t.published, &t.listed, &t.filtered,
			&t.key, &t.index, &t.full, &t.inherits, &t.rowBytes)
		t.name, t.ignored = coherence.TableName(schema, name), p.ignored(schema, name)
		return t, err
	})
	return err
}

// ignored reports whether --ignore-tables has the table.
func (p *postgres) ignored(schema, name string) bool {
	return slices.ContainsFunc(p.config.Listener.IgnoreTables, func(glob string) bool {
		bare, _ := path.Match(glob, name) // a bad pattern is refused before
		full, _ := path.Match(glob, schema+"."+name)
		return bare || full
	})
}
