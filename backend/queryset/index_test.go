package queryset

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

func TestLists_AreReadByTheirIndex(t *testing.T) {
	conn, sent := connectTraced(t)
	if _, err := conn.Exec(t.Context(), `
		INSERT INTO properties (title, description, price, location, created_at)
		SELECT 't', repeat('d', 70), i, 'location ' || i % 100, timestamptz '2026-01-01' + i * interval '1 minute'
		FROM generate_series(1, 10000) i;
		ANALYZE properties`); err != nil {
		t.Fatal(err)
	}
	ctx, q := t.Context(), New(conn)
	for scan, query := range map[string]func() error{
		"Index Scan Backward using properties_created_at_id": func() error { _, err := q.ListProperties(ctx); return err },
		"Index Scan on properties_location":                  func() error { _, err := q.ListPropertiesByLocation(ctx, "location 7"); return err },
	} {
		if err := query(); err != nil {
			t.Fatal(err)
		}
		rows, err := conn.Query(ctx, "EXPLAIN "+sent.SQL, sent.Args...)
		if err != nil {
			t.Fatal(err)
		}
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		plan := strings.Join(lines, "\n")
		if !strings.Contains(plan, scan) {
			t.Errorf("no %s:\n%s\n%s", scan, sent.SQL, plan)
		}
	}
}
