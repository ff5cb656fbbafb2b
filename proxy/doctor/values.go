package doctor

import (
	"context"
	"strings"

	"github.com/jackc/pgx/v5"

	"walcache/proxy/coherence"
)

// indexed is a table with indexed columns that its replica identity lacks.
type indexed struct {
	schema, name, sql string
	key               []string // columns of the identity, quoted
	missing           []string // columns whose old values are not logged, quoted
	all               bool     // an index could cover them: none may be null
}

// oldValues are those that make the tags of a changed row: where one is not
// logged, all values of the column count as changed. That costs hits and
// nothing else, and so does the remedy cost something: it is advice.
func (p *postgres) oldValues(ctx context.Context) error {
	rows, _ := p.db.Query(ctx, `
WITH identity AS (
    SELECT c.oid, n.nspname, c.relname, i.indkey::int2[] AS columns
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_index i ON i.indrelid = c.oid AND i.indisvalid AND i.indimmediate
    WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
      AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END)
SELECT t.nspname, t.relname, format('%I.%I', t.nspname, t.relname),
       ARRAY(SELECT format('%I', a.attname) FROM unnest(t.columns) WITH ORDINALITY k (attnum, nth) JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = k.attnum ORDER BY nth),
       array_agg(format('%I', a.attname) ORDER BY a.attnum), bool_and(a.attnotnull)
FROM identity t JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' AND NOT a.attnum = ANY (t.columns)
WHERE (a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'uuid'::regtype, 'bool'::regtype, 'date'::regtype) OR
       a.atttypid IN ('text'::regtype, 'varchar'::regtype) AND (SELECT collisdeterministic FROM pg_collation WHERE oid = a.attcollation))
  AND EXISTS (SELECT FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am m ON m.oid = x.relam
              WHERE i.indrelid = t.oid AND a.attnum = ANY (i.indkey) AND m.amname = 'btree')
GROUP BY t.oid, t.nspname, t.relname, t.columns ORDER BY 1, 2`)
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (t indexed, err error) {
		return t, row.Scan(&t.schema, &t.name, &t.sql, &t.key, &t.missing, &t.all)
	})
	if err != nil {
		return err
	}
	var what, sql []string
	for _, t := range all {
		if p.ignored(t.schema, t.name) {
			continue
		}
		what = append(what, coherence.TableName(t.schema, t.name)+" ("+strings.Join(t.missing, ", ")+")")
		sql = append(sql, t.remedy())
	}
	if len(what) == 0 {
		p.ok("old_values", "those of all indexed columns are logged")
		return nil
	}
	p.add("old_values", Finding{Status: OK, What: "not logged for indexed columns of " + names(what),
		Why: "an update of such a column makes the answers for all its values stale, and not for two",
		Fix: "where answers are tagged by one and updates are frequent, cover it with the identity; the values of an index entry together have to stay below 2,700 bytes", SQL: sql})
	return nil
}

// mostKeys is how many columns an index of PostgreSQL has at most.
const mostKeys = 32

func (t indexed) remedy() string {
	columns := append(append([]string{}, t.key...), t.missing...)
	if !t.all || len(columns) > mostKeys {
		return "-- ALTER TABLE " + t.sql + " REPLICA IDENTITY FULL; -- logs the whole old row; with NOT NULL on those columns an index would do"
	}
	short := t.name
	for len(short) > 63-len("_identity") {
		short = strings.ToValidUTF8(short[:63-len("_identity")], "")
	}
	index := quote(short + "_identity")
	return "-- CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS " + index + " ON " + t.sql + " (" + strings.Join(columns, ", ") + "); ALTER TABLE " + t.sql + " REPLICA IDENTITY USING INDEX " + index + ";"
}
