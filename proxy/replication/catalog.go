package replication

import (
	"context"
	"fmt"
	"hash/fnv"
	"path"
	"slices"
	"sort"
	"strings"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"

	"walcache/proxy/coherence"
)

// catalog is a reading of PostgreSQL's system catalogs: which tables there are,
// which of their changes the publications carry, and what their rows show in.
// It is not changed after loadCatalog.
type catalog struct {
	tables map[uint32]*table
}

// table is a table, partitioned table or foreign table.
type table struct {
	oid      uint32
	name     string // as tags name it
	sql      string // as SQL names it, quoted
	kind     string // pg_class.relkind
	logged   bool
	identity bool   // its replica identity can carry updates and deletes
	listed   uint32 // oid of its place in the publication of updates and deletes, or 0
	ignored  bool
	parents  []uint32
	form     uint64 // stands for the columns, and the transactions that last altered them
	columns  []tableColumn
}

type tableColumn struct {
	Name    string
	Type    uint32
	Kind    coherence.Kind
	Indexed bool
}

// loadCatalog reads the tables of the database, in one statement so that what
// it sees is of one moment. updates is the publication that lists tables.
//
// A replica identity by default means the primary key, which must not be
// deferrable. From PostgreSQL 18 on, it cannot carry updates with generated
// columns in it, which are not published: the application's would fail. A
// publication with a row filter or a column list carries less than the table's
// changes, and counts for nothing.
func loadCatalog(ctx context.Context, db *pgx.Conn, updates string, ignore []string) (*catalog, error) {
	const query = `
SELECT c.oid, n.nspname, c.relname, format('%I.%I', n.nspname, c.relname), c.relkind::text,
       c.relpersistence = 'p',
       c.relreplident = 'f' AND (old.server OR NOT EXISTS (
           SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attgenerated <> '' AND NOT a.attisdropped))
       OR EXISTS (
           SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisvalid AND i.indimmediate AND
               CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END
               AND (old.server OR NOT EXISTS (
                   SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attgenerated <> '' AND a.attnum = ANY (i.indkey)))),
       COALESCE((
           SELECT r.oid FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid
           WHERE p.pubname = $1 AND r.prrelid = c.oid AND p.pubupdate AND p.pubdelete
             AND to_jsonb(r)->>'prqual' IS NULL AND to_jsonb(r)->>'prattrs' IS NULL), 0),
       ARRAY(SELECT h.inhparent FROM pg_inherits h WHERE h.inhrelid = c.oid ORDER BY 1),
       (SELECT coalesce(string_agg(a.attnum || '/' || a.xmin, ',' ORDER BY a.attnum), '')
        FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0),
       COALESCE((
           SELECT json_agg(json_build_object(
               'name', a.attname, 'type', a.atttypid::int8,
               'kind', CASE
                   WHEN a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype) THEN 'integer'
                   WHEN a.atttypid = 'uuid'::regtype THEN 'uuid'
                   WHEN a.atttypid = 'bool'::regtype THEN 'boolean'
                   WHEN a.atttypid = 'date'::regtype THEN 'date'
                   WHEN a.atttypid IN ('text'::regtype, 'varchar'::regtype) AND
                        (SELECT collisdeterministic FROM pg_collation WHERE oid = a.attcollation) THEN 'text'
                   ELSE '' END,
               'indexed', EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND a.attnum = ANY (i.indkey))
             ) ORDER BY a.attnum)
           FROM pg_attribute a
           WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''), '[]')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace,
     (SELECT current_setting('server_version_num')::int < 180000) AS old (server)
WHERE c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't'
  AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')`
	rows, err := db.Query(ctx, query, updates)
	if err != nil {
		return nil, fmt.Errorf("read the system catalogs: %w", err)
	}
	c := &catalog{tables: map[uint32]*table{}}
	for rows.Next() {
		t, err := scanTable(rows, ignore)
		if err != nil {
			rows.Close()
			return nil, fmt.Errorf("read the system catalogs: %w", err)
		}
		c.tables[t.oid] = t
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read the system catalogs: %w", err)
	}
	return c, nil
}

// fingerprint changes with whatever loadCatalog reads, and costs a tenth of it:
// each change of a catalog's row gives it a later xmin.
func fingerprint(ctx context.Context, db *pgx.Conn) (text string, err error) {
	const rows = "(SELECT count(*) || '/' || coalesce(sum(xmin::text::int8), 0) FROM %s)"
	var catalogs []string
	for _, name := range []string{"pg_class", "pg_attribute", "pg_index", "pg_inherits", "pg_namespace", "pg_publication", "pg_publication_rel"} {
		catalogs = append(catalogs, fmt.Sprintf(rows, name))
	}
	err = db.QueryRow(ctx, "SELECT concat_ws(' ', "+strings.Join(catalogs, ", ")+")").Scan(&text)
	if err != nil {
		return "", fmt.Errorf("look at the system catalogs: %w", err)
	}
	return text, nil
}

var kinds = map[string]coherence.Kind{
	"integer": coherence.Integer, "uuid": coherence.UUID, "boolean": coherence.Boolean,
	"date": coherence.Date, "text": coherence.Text,
}

func scanTable(rows pgx.Rows, ignore []string) (*table, error) {
	var t table
	var schema, name string
	var columns []struct {
		Name    string
		Type    uint32
		Kind    string
		Indexed bool
	}
	var form string
	err := rows.Scan(&t.oid, &schema, &name, &t.sql, &t.kind, &t.logged, &t.identity, &t.listed, &t.parents, &form, &columns)
	if err != nil {
		return nil, err
	}
	hash := fnv.New64a()
	_, _ = hash.Write([]byte(form)) // never fails
	t.form = hash.Sum64()
	t.name = coherence.TableName(schema, name)
	t.ignored = matches(ignore, name) || matches(ignore, schema+"."+name)
	for _, c := range columns {
		t.columns = append(t.columns, tableColumn{c.Name, c.Type, kinds[c.Kind], c.Indexed})
	}
	return &t, nil
}

func matches(globs []string, name string) bool {
	return slices.ContainsFunc(globs, func(glob string) bool {
		ok, _ := path.Match(glob, name) // a bad pattern is refused at start
		return ok
	})
}

// carried reports that every change of the table's own rows reaches the stream.
func (t *table) carried() bool {
	return t.kind == "p" || t.kind == "r" && t.logged && t.listed != 0
}

// blind reports that changes of the table's own rows could reach the stream and
// do not.
func (t *table) blind() bool {
	return t.kind == "r" && t.logged && t.listed == 0 && !t.ignored
}

// listable reports that it need not be blind: its identity can carry updates.
func (t *table) listable() bool { return t.blind() && t.identity }

// refusing reports that the application's updates of it fail: it is published
// for them, and lost the identity that could carry them.
func (t *table) refusing() bool { return t.listed != 0 && !t.identity }

// aligned reports that the publication lists what it can, and nothing else.
func (c *catalog) aligned() bool {
	for _, t := range c.tables {
		if t.listable() || t.refusing() {
			return false
		}
	}
	return true
}

// ancestors are the tables that a table's rows show in, nearest first.
func (c *catalog) ancestors(t *table) []*table {
	var found []*table
	for queue := t.parents; len(queue) > 0; queue = queue[1:] {
		if p := c.tables[queue[0]]; p != nil && !slices.Contains(found, p) {
			found = append(found, p)
			queue = append(slices.Clone(queue), p.parents...)
		}
	}
	return found
}

// knows reports whether there is a table of that name.
func (c *catalog) knows(name string) bool {
	for _, t := range c.tables {
		if t.name == name {
			return true
		}
	}
	return false
}

// published is the catalog as caches need it. A table that others inherit from
// is carried only if all of them are, and none is left out.
func (c *catalog) published() *coherence.Catalog {
	partly := map[*table]bool{}
	for _, t := range c.tables {
		if !t.carried() || t.ignored {
			partly[t] = true
			for _, a := range c.ancestors(t) {
				partly[a] = true
			}
		}
	}
	out := &coherence.Catalog{Tables: map[string]coherence.Table{}}
	for _, t := range c.tables {
		if t.blind() {
			out.Blind = append(out.Blind, t.name)
		}
		if !partly[t] {
			columns := map[string]coherence.Kind{}
			for _, col := range t.columns {
				columns[col.Name] = col.Kind
			}
			out.Tables[t.name] = coherence.Table{Columns: columns}
		}
	}
	sort.Strings(out.Blind)
	return out
}

// relation joins what the stream says of a table with what the catalog adds:
// its ancestors, and which columns can have tags. Where the two do not agree,
// the stream is about another time than the catalog, and no column is named;
// a floor is always enough.
func (c *catalog) relation(m *pglogrepl.RelationMessage) *relation {
	rel := &relation{message: m, catalog: c}
	for _, col := range m.Columns {
		rel.layout = append(rel.layout, *col)
	}
	names := []string{coherence.TableName(m.Namespace, m.RelationName)}
	t := c.tables[m.RelationID]
	agrees := t != nil && t.name == names[0] && slices.EqualFunc(t.columns, rel.layout,
		func(a tableColumn, b pglogrepl.RelationMessageColumn) bool {
			return a.Name == b.Name && a.Type == b.DataType
		})
	if t != nil {
		rel.ignored = t.ignored
		rel.settled = agrees && (t.carried() || t.ignored || t.blind())
		for _, a := range c.ancestors(t) {
			names = append(names, a.name)
		}
	}
	for _, name := range names {
		rel.targets = append(rel.targets, newTarget(name, rel.layout, func(i int) bool {
			identity := rel.layout[i].Flags == 1
			return agrees && t.columns[i].Kind != coherence.Opaque && (identity || t.columns[i].Indexed)
		}))
	}
	return rel
}

func newTarget(name string, layout []pglogrepl.RelationMessageColumn, named func(i int) bool) target {
	t := target{name: name, tag: coherence.TableTag(name).Hash(), floor: coherence.TableFloor(name)}
	for i, col := range layout {
		t.columns = append(t.columns, targetColumn{
			named: named(i),
			floor: coherence.ColumnFloor(name, col.Name),
			value: coherence.NewRowHasher(name, col.Name),
		})
	}
	return t
}

// changedSince names the tables that are not what they were: their rows may
// show otherwise, or their changes reach the stream in another way.
func (c *catalog) changedSince(old *catalog) []string {
	var names []string
	differ := func(c *catalog, t *table) {
		names = append(names, t.name)
		for _, a := range c.ancestors(t) {
			names = append(names, a.name)
		}
	}
	for oid, t := range c.tables {
		if was := old.tables[oid]; was == nil || !was.same(t) {
			differ(c, t)
		}
	}
	for oid, was := range old.tables {
		if t := c.tables[oid]; t == nil || !was.same(t) {
			differ(old, was)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (t *table) same(o *table) bool {
	return t.name == o.name && t.kind == o.kind && t.logged == o.logged && t.ignored == o.ignored && t.listed == o.listed &&
		slices.Equal(t.parents, o.parents) && t.form == o.form // an index makes no row look different
}

// youngSince are the tables whose updates and deletes were not published as
// they are now when the old catalog was read.
func (c *catalog) youngSince(old *catalog) []uint32 {
	var young []uint32
	for oid, t := range c.tables {
		was := old.tables[oid]
		if t.listed != 0 && (was == nil || was.listed != t.listed) {
			young = append(young, oid)
		}
	}
	return young
}

// lost names the tables whose changes the stream carried and carries no more,
// or did not carry for a while: they were taken off the list and put on it again.
func (c *catalog) lost(old *catalog) []string {
	var names []string
	for oid, was := range old.tables {
		if t := c.tables[oid]; t != nil && was.carried() && (!t.carried() || t.listed != was.listed) {
			names = append(names, t.name)
		}
	}
	slices.Sort(names)
	return names
}

// restrict is what may be believed while a new catalog is not in force yet: a
// table is published only if it was and is, and blind if it was or is.
func restrict(old, now *coherence.Catalog) *coherence.Catalog {
	if old == nil {
		old = &coherence.Catalog{}
	}
	out := &coherence.Catalog{Tables: map[string]coherence.Table{}, Blind: append(slices.Clone(old.Blind), now.Blind...)}
	for name, t := range now.Tables {
		if was, ok := old.Tables[name]; ok && sameColumns(was, t) {
			out.Tables[name] = t
		}
	}
	sort.Strings(out.Blind)
	out.Blind = slices.Compact(out.Blind)
	return out
}

func sameColumns(a, b coherence.Table) bool {
	if len(a.Columns) != len(b.Columns) {
		return false
	}
	for name, kind := range a.Columns {
		if k, ok := b.Columns[name]; !ok || k != kind {
			return false
		}
	}
	return true
}
