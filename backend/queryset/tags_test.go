package queryset

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"walcache/backend/db"
	"walcache/proxy/coherence"
	"walcache/proxy/sandbox/sandboxtest"
	"walcache/schema"
)

func TestMain(m *testing.M) { sandboxtest.Main(m) }

// TestQuerier_TagsNameWhatTheQueryReads calls every method of Querier on a real
// database, and holds the tags that it notes against the statement that it
// sends, as PostgreSQL parses it.
func TestQuerier_TagsNameWhatTheQueryReads(t *testing.T) {
	conn, sent := connectTraced(t)
	unread := readQueries(t)
	querier := reflect.ValueOf(New(conn))
	for i := range querier.NumMethod() {
		name := querier.Type().Method(i).Name
		if isQuery := reflect.ValueOf(db.New(conn)).MethodByName(name).IsValid(); !isQuery {
			continue
		}
		t.Run(name, func(t *testing.T) {
			tags := call(t, querier.Method(i))
			sql, args := sent.SQL, sent.Args
			if err := checkTags(t.Context(), conn, sql, args, tags); err != nil {
				t.Errorf("noted %q: %v\n%s", tags, err, sql)
			}
			if !strings.HasPrefix(sql, "-- name: "+name+" ") {
				t.Errorf("sends another query:\n%s", sql)
			}
		})
		delete(unread, name)
	}
	for name := range unread {
		t.Errorf("query %s reads, and Querier has no method that says its tags", name)
	}
}

// call calls a method with made-up arguments, each of which can be told from
// the others, and returns the tags that it noted.
func call(t *testing.T, method reflect.Value) []coherence.Tag {
	t.Helper()
	ctx, reads := Collect(t.Context())
	args := []reflect.Value{reflect.ValueOf(ctx)}
	for i := 1; i < method.Type().NumIn(); i++ {
		arg := reflect.New(method.Type().In(i)).Elem()
		makeUp(t, arg, "", i)
		args = append(args, arg)
	}
	results := method.Call(args)
	if err, _ := results[len(results)-1].Interface().(error); err != nil && !errors.Is(err, pgx.ErrNoRows) {
		t.Fatal(err)
	}
	return reads.Tags()
}

// makeUp sets a value, or the fields of a struct, to the nth that it makes up. A
// price is a number.
func makeUp(t *testing.T, v reflect.Value, name string, n int) {
	t.Helper()
	switch v.Kind() {
	case reflect.String:
		if v.SetString(fmt.Sprint("argument ", n)); strings.HasSuffix(name, "Price") {
			v.SetString(fmt.Sprint(7000 + n))
		}
	case reflect.Int64:
		v.SetInt(int64(7000 + n))
	case reflect.Struct:
		for i := range v.NumField() {
			makeUp(t, v.Field(i), v.Type().Field(i).Name, 10*n+i)
		}
	default:
		t.Fatalf("this test does not know how to make up a %v", v.Type())
	}
}

// readQueries returns the names of all queries of properties that are a SELECT
// and lock nothing, from the file that the generator reads. What locks is about
// to change something, and other tables are read where they are changed.
func readQueries(t *testing.T) map[string]bool {
	t.Helper()
	const file = "../../queries/properties.sql"
	sql, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	names := make(map[string]bool)
	for _, query := range strings.Split(string(sql), "-- name: ")[1:] {
		name, _, _ := strings.Cut(query, " ")
		if s, err := parse("-- name: " + placeholders.ReplaceAllLiteralString(query, "$1")); err != nil {
			t.Errorf("%s: %s: %v", file, name, err)
		} else if s.isSelect && !s.locks {
			names[name] = true
		}
	}
	if len(names) == 0 {
		t.Errorf("%s: no queries", file)
	}
	return names
}

// placeholders finds the named parameters that the generator numbers.
var placeholders = regexp.MustCompile(`@\w+`)

// lastSent remembers the last statement that a connection sent.
type lastSent struct {
	SQL  string
	Args []any
}

func (s *lastSent) TraceQueryStart(ctx context.Context, _ *pgx.Conn, q pgx.TraceQueryStartData) context.Context {
	s.SQL, s.Args = q.SQL, q.Args
	return ctx
}

func (s *lastSent) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// connectTraced connects to a migrated database and says what was sent last.
func connectTraced(t *testing.T) (*pgx.Conn, *lastSent) {
	t.Helper()
	dsn := sandboxtest.Postgres(t)
	if err := schema.Up(t.Context(), dsn); err != nil {
		t.Fatal(err)
	}
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	sent := new(lastSent)
	config.Tracer = sent
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn, sent
}

// TestCheckTags_SeesWhatIsWrong shows that the check above can fail.
func TestCheckTags_SeesWhatIsWrong(t *testing.T) {
	conn, _ := connectTraced(t)
	if _, err := conn.Exec(t.Context(), `
		CREATE TABLE regions (name text PRIMARY KEY, tax numeric, code char(2));
		CREATE VIEW cheap AS SELECT * FROM properties WHERE price < 100`); err != nil {
		t.Fatal(err)
	}
	all, region := coherence.TableTag("properties"), coherence.TableTag("regions")
	id, other := coherence.RowTag("properties", "id", "7"), coherence.RowTag("properties", "id", "8")

	for _, c := range []struct {
		sql  string
		tags []coherence.Tag
		want string // a part of the error; empty when all is right
	}{
		{"SELECT 1 FROM properties WHERE id = $1", tags(id), ""},
		{"SELECT 1 FROM properties WHERE $1 = id AND price > 3", tags(id), ""},
		{"SELECT 1 FROM properties p JOIN regions r ON r.name = p.location WHERE p.id = $1", tags(id, region), ""},
		{"SELECT count(*) FROM properties", tags(all), ""},
		{"SELECT 1 FROM properties WHERE id = $1", tags(coherence.Any), ""},

		{"SELECT 1 FROM properties", nil, "properties"},
		{"SELECT 1 FROM properties, regions", tags(all), "regions"},
		{"SELECT 1 FROM properties WHERE location IN (SELECT name FROM regions)", tags(all), "regions"},
		{"SELECT (SELECT max(tax) FROM regions) FROM properties", tags(all), "regions"},
		{"SELECT 1 FROM properties UNION ALL SELECT 1 FROM regions", tags(all), "regions"},
		{"SELECT 1 FROM properties", tags(all, region), "reads no such rows"},
		{"SELECT 1 FROM properties", tags(id), "reads no such rows"},
		{"SELECT 1 FROM properties WHERE id = $1", tags(other), "reads no such rows"},
		{"SELECT 1 FROM properties WHERE id = $1 OR price > 3", tags(id), "reads no such rows"},
		{"SELECT 1 FROM properties WHERE NOT id = $1", tags(id), "reads no such rows"},
		{"SELECT 1 FROM properties WHERE id >= $1", tags(id), "reads no such rows"},
		{"SELECT 1 FROM properties WHERE id + 1 = $1", tags(id), "reads no such rows"},
		{"SELECT 1 FROM properties WHERE id = $1 UNION SELECT 2 FROM properties", tags(id), "reads no such rows"},
		{"SELECT 1 FROM properties p LEFT JOIN regions r ON p.id = $1", tags(id, region), "reads no such rows"},
		{"SELECT 1 FROM properties WHERE id = $1 AND price > (SELECT avg(price) FROM properties)", tags(id), "more than once"},
		{"SELECT 1 FROM properties WHERE price = $1", tags(coherence.RowTag("properties", "price", "7")), "equal as text"},
		{"SELECT 1 FROM regions WHERE code = $1", tags(coherence.RowTag("regions", "code", "7")), "equal as text"},
		{"SELECT 1 FROM properties WHERE created_at < now()", tags(all), "now"},
		{"SELECT CURRENT_DATE FROM properties", tags(all), "hour"},
		{"SELECT 1 FROM cheap", tags(coherence.TableTag("cheap")), "not a table"},
		{"WITH p AS (SELECT 1 FROM properties) SELECT 1 FROM p", tags(all), "WITH"},
	} {
		err := checkTags(t.Context(), conn, c.sql, []any{int64(7)}, c.tags)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s\nnoted %q: %v", c.sql, c.tags, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s\nnoted %q: %v, want %q", c.sql, c.tags, err, c.want)
		}
	}
}

func tags(list ...coherence.Tag) []coherence.Tag { return list }

// checkTags says what is wrong with the tags of a statement.
func checkTags(ctx context.Context, conn *pgx.Conn, sql string, args []any, tags []coherence.Tag) error {
	s, err := parse(sql)
	if err != nil {
		return err
	}
	if err := s.knowable(ctx, conn); err != nil {
		return err
	}
	rows := make(map[coherence.Tag]condition) // every row tag that the statement allows
	for _, c := range s.conditions {
		rows[coherence.RowTag(c.table, c.column, fmt.Sprint(args[c.param-1]))] = c
	}
	for _, tag := range tags {
		c, isRow := rows[tag]
		if !isRow && tag != coherence.Any && !slices.Contains(s.tables, string(tag)) {
			return fmt.Errorf("tag %s: the query reads no such rows", tag)
		}
		if isRow {
			if err := c.spelledOneWay(ctx, conn); err != nil {
				return err
			}
		}
	}
	return s.covered(tags)
}

// covered says which table no tag covers.
func (s *parsed) covered(tags []coherence.Tag) error {
	for _, table := range s.tables {
		var byRow bool
		for _, tag := range tags {
			byRow = byRow || tag != tag.Table() && tag.Table() == coherence.TableTag(table)
		}
		times := len(slices.DeleteFunc(slices.Clone(s.tables), func(other string) bool { return other != table }))
		switch {
		case slices.Contains(tags, coherence.Any), slices.Contains(tags, coherence.TableTag(table)):
		case !byRow:
			return fmt.Errorf("no tag names table %s", table)
		case times > 1:
			return fmt.Errorf("table %s is read more than once, and its tags narrow one time only", table)
		}
	}
	return nil
}

// knowable says why nobody could tell from the change stream when the answer
// changes.
func (s *parsed) knowable(ctx context.Context, conn *pgx.Conn) error {
	switch {
	case s.hasWith:
		return errors.New("this test does not understand WITH")
	case s.hasClock:
		return errors.New("the answer depends on the hour or on who asks")
	}
	for _, table := range s.tables {
		if err := expect(ctx, conn, table+" is not a table",
			`SELECT relkind IN ('r', 'p') FROM pg_class WHERE oid = to_regclass($1)`, table); err != nil {
			return err
		}
	}
	for _, function := range s.functions {
		if err := expect(ctx, conn, "function "+function+" may read or return anything",
			`SELECT bool_and(provolatile = 'i') FROM pg_proc
			WHERE proname = $1 AND pronamespace = 'pg_catalog'::regnamespace`, function); err != nil {
			return err
		}
	}
	return nil
}

// spelledOneWay says that values of the column may be equal in SQL and differ
// as text, if so: no tag can name their rows.
func (c condition) spelledOneWay(ctx context.Context, conn *pgx.Conn) error {
	return expect(ctx, conn, c.table+"."+c.column+": equal in SQL is not equal as text",
		`SELECT a.atttypid = ANY ('{int2,int4,int8,uuid,bool,date}'::regtype[])
			OR a.atttypid = ANY ('{text,varchar}'::regtype[]) AND l.collisdeterministic
		FROM pg_attribute a LEFT JOIN pg_collation l ON l.oid = a.attcollation
		WHERE a.attrelid = to_regclass($1) AND a.attname = $2`, c.table, c.column)
}

// expect returns an error that says otherwise, unless the query returns true.
func expect(ctx context.Context, conn *pgx.Conn, otherwise, sql string, args ...any) error {
	var yes *bool
	err := conn.QueryRow(ctx, sql, args...).Scan(&yes)
	if errors.Is(err, pgx.ErrNoRows) || err == nil && (yes == nil || !*yes) {
		return errors.New(otherwise)
	}
	return err
}
