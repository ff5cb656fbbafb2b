package service

import (
	"context"
	"io"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// query returns one value as text.
func query(t *testing.T, conn *pgx.Conn, sql string) (value string) {
	t.Helper()
	if err := conn.QueryRow(t.Context(), "SELECT ("+sql+")::text").Scan(&value); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return value
}

func TestSeed_TwiceAddsNothing(t *testing.T) {
	dsn := migrated(t)
	first, second := new(strings.Builder), new(strings.Builder)
	for _, out := range []io.Writer{first, second} {
		if err := Seed(t.Context(), dsn, out); err != nil {
			t.Fatal(err)
		}
	}
	const end = "\nTotal properties in database: 5\nTest data creation complete!\n"
	want := "Created property: Modern Downtown Apartment\nCreated property: Cozy Suburban House\nCreated property: Luxury Waterfront Condo\n" +
		"Created property: Student-Friendly Studio\nCreated property: Executive Penthouse\n" + end
	if first.String() != want {
		t.Errorf("printed:\n%s\nwant:\n%s", first, want)
	}
	if want := strings.ReplaceAll(want, "Created property:", "Property already exists:"); second.String() != want {
		t.Errorf("then printed:\n%s\nwant:\n%s", second, want)
	}
	conn := connect(t, dsn)
	if got := query(t, conn, `SELECT string_agg(price || ' ' || location, ', ' ORDER BY created_at) FROM properties`); got !=
		"1250.00 Downtown, 1800.00 Suburbia, 3200.00 Waterfront District, 850.00 University Area, 5500.00 Financial District" {
		t.Errorf("rows %s", got)
	}
}

func TestSeed_ManyAtOnceAddFive(t *testing.T) {
	dsn := migrated(t)
	errs := make(chan error)
	for range 4 {
		go func() { errs <- Seed(t.Context(), dsn, io.Discard) }()
	}
	for range 4 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if n := query(t, connect(t, dsn), `SELECT count(*) FROM properties`); n != "5" {
		t.Errorf("%s rows", n)
	}
}

func TestSeedRows_AreTheSameEveryTime(t *testing.T) {
	dsn := migrated(t)
	const n = 2*seedBatch + 1
	var batches []int
	if err := SeedRows(t.Context(), dsn, n, func(rows int) { batches = append(batches, rows) }); err != nil {
		t.Fatal(err)
	}
	if len(batches) != 3 || batches[0] != seedBatch || batches[2] != 1 {
		t.Errorf("progress %v", batches)
	}
	conn := connect(t, dsn)
	differ := query(t, conn, `SELECT count(*) FROM generate_series(1, 10001) i LEFT JOIN properties p
		ON p.title = 'Property listing number ' || i
		AND p.description = 'Beautiful ' || 1 + i % 5 || '-bedroom apartment in the heart of downtown with city views.'
		AND p.price = 500 + 37 * i % 9000
		AND p.location = ('{Downtown,Suburbia,Waterfront District,University Area,Financial District}'::text[])[1 + i % 5]
		AND p.created_at = timestamptz '2025-07-01 00:00:00+00' + i * interval '61.000123 seconds'
		WHERE p.id IS NULL`)
	if total := query(t, conn, `SELECT count(*) FROM properties`); differ != "0" || total != "10001" {
		t.Errorf("%s rows, %s missing", total, differ)
	}
}

func TestSeedRows_InterruptedLeavesNothing(t *testing.T) {
	dsn := migrated(t)
	ctx, interrupt := context.WithCancel(t.Context())
	if err := SeedRows(ctx, dsn, 3*seedBatch, func(int) { interrupt() }); err == nil {
		t.Error("no error")
	}
	if n := query(t, connect(t, dsn), `SELECT count(*) FROM properties`); n != "0" {
		t.Errorf("%s rows left", n)
	}
}
