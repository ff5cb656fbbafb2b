package doctor

import (
	"context"

	"github.com/jackc/pgx/v5"

	"walcache/proxy/coherence"
	"walcache/proxy/replication"
)

// unseen names what no change stream carries.
func (p *postgres) unseen(ctx context.Context) error {
	rows, _ := p.db.Query(ctx, `
SELECT CASE WHEN c.relkind = 'r' THEN 'u' ELSE c.relkind::text END, n.nspname, c.relname, format('%I.%I', n.nspname, c.relname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE (c.relkind = 'r' AND c.relpersistence = 'u' OR c.relkind IN ('f', 'm', 'p')) AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
ORDER BY n.nspname, c.relname`)
	found := map[string][]string{}
	unlogged := []string{}
	var kind, schema, name, sql string
	if _, err := pgx.ForEachRow(rows, []any{&kind, &schema, &name, &sql}, func() error {
		if !p.ignored(schema, name) {
			found[kind] = append(found[kind], coherence.TableName(schema, name))
			if kind == "u" {
				unlogged = append(unlogged, "-- ALTER TABLE "+sql+" SET LOGGED; -- writes the whole table anew")
			}
		}
		return nil
	}); err != nil {
		return err
	}
	p.carried("unlogged_tables", found["u"], Finding{Why: "their changes are never in the stream: answers read from them can be old",
		Fix: "make them logged, send answers read from them with Cache-Control: no-store, or, once that is so, leave them out with --ignore-tables", SQL: unlogged})
	p.carried("foreign_tables", found["f"], Finding{Why: "their rows change elsewhere: answers read from them can be old",
		Fix: "send answers read from them with Cache-Control: no-store; once that is so, leave them out with --ignore-tables"})
	p.carried("materialized_views", found["m"], Finding{Why: "REFRESH is not in the stream: answers read from them stay old until something else changes",
		Fix: "in the transaction of each REFRESH: SELECT pg_logical_emit_message(true, " + quoteText(replication.Prefix) + ", 'floor *'); once that is so, leave them out with --ignore-tables"})
	if parts := found["p"]; len(parts) > 0 {
		p.add("partitions", Finding{Status: OK, What: "partitioned: " + names(parts), Why: "ATTACH and DETACH are not in the stream, and noticed about a second later",
			Fix: "to have them exact, in their transaction: SELECT pg_logical_emit_message(true, " + quoteText(replication.Prefix) + ", 'floor ' || table)"})
	}
	return nil
}

func (p *postgres) carried(check string, found []string, f Finding) {
	if len(found) == 0 {
		p.ok(check, "none")
		return
	}
	f.Status, f.What = Warning, names(found)
	p.add(check, f)
}
