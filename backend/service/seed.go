package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/big"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"walcache/backend/db"
)

var samples = []db.CreatePropertyUnlessTitledParams{
	{
		Title: "Modern Downtown Apartment", Price: "1250.00", Location: "Downtown",
		Description: "Beautiful 2-bedroom apartment in the heart of downtown with city views.",
	},
	{
		Title: "Cozy Suburban House", Price: "1800.00", Location: "Suburbia",
		Description: "Family-friendly 3-bedroom house with a large backyard and garage.",
	},
	{
		Title: "Luxury Waterfront Condo", Price: "3200.00", Location: "Waterfront District",
		Description: "Stunning waterfront condominium with premium amenities and ocean views.",
	},
	{
		Title: "Student-Friendly Studio", Price: "850.00", Location: "University Area",
		Description: "Affordable studio apartment perfect for students, close to university.",
	},
	{
		Title: "Executive Penthouse", Price: "5500.00", Location: "Financial District",
		Description: "Exclusive penthouse with 360-degree city views and private terrace.",
	},
}

// Seed adds the five sample properties, each unless there is one of its title,
// and reports on out.
func Seed(ctx context.Context, databaseURL string, out io.Writer) error {
	report := ""
	err := seed(ctx, databaseURL, func(tx pgx.Tx, q *db.Queries) error {
		// Two seeds at once would both find a title missing; nobody else
		// waits for long.
		if _, err := tx.Exec(ctx, "LOCK TABLE properties IN SHARE ROW EXCLUSIVE MODE"); err != nil {
			return err
		}
		for _, s := range samples {
			created, err := q.CreatePropertyUnlessTitled(ctx, s)
			if err != nil {
				return fmt.Errorf("property %q: %w", s.Title, err)
			}
			if created == 1 {
				report += "Created property: " + s.Title + "\n"
			} else {
				report += "Property already exists: " + s.Title + "\n"
			}
		}
		total, err := q.CountProperties(ctx)
		report += fmt.Sprintf("\nTotal properties in database: %d\nTest data creation complete!\n", total)
		return err
	})
	if err != nil {
		return err
	}
	_, err = io.WriteString(out, report)
	return err
}

// seedBatch is how many rows go into one COPY, and so how often progress is
// reported.
const seedBatch = 5000

// SeedRows adds n made-up properties in one transaction, and reports after
// each batch how many more were sent.
func SeedRows(ctx context.Context, databaseURL string, n int, sent func(rows int)) error {
	return seed(ctx, databaseURL, func(_ pgx.Tx, q *db.Queries) error {
		batch := make([]db.CopyPropertiesParams, 0, min(n, seedBatch))
		for i := 1; i <= n; i++ {
			batch = append(batch, madeUp(i))
			if len(batch) < seedBatch && i < n {
				continue
			}
			if _, err := q.CopyProperties(ctx, batch); err != nil {
				return fmt.Errorf("copy properties: %w", err)
			}
			sent(len(batch))
			batch = batch[:0]
		}
		return nil
	})
}

// madeUp is the i-th made-up property, from 1: always the same, so that
// measurements can be repeated.
func madeUp(i int) db.CopyPropertiesParams {
	start := time.Date(2025, time.July, 1, 0, 0, 0, 0, time.UTC)
	return db.CopyPropertiesParams{
		Title:       fmt.Sprintf("Property listing number %d", i),
		Description: fmt.Sprintf("Beautiful %d-bedroom apartment in the heart of downtown with city views.", 1+i%5),
		Price:       pgtype.Numeric{Int: big.NewInt(int64(500 + 37*i%9000)), Valid: true},
		Location:    samples[i%5].Location,
		CreatedAt:   start.Add(time.Duration(i) * 61_000_123 * time.Microsecond),
	}
}

// seed does its work in one transaction: a seed that fails leaves nothing.
func seed(ctx context.Context, databaseURL string, work func(pgx.Tx, *db.Queries) error) (err error) {
	conn, err := pgx.Connect(ctx, databaseURL)
	if err != nil {
		return fmt.Errorf("seed: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error { return work(tx, db.New(tx)) })
	if err != nil {
		return fmt.Errorf("seed: %w", err)
	}
	return nil
}
