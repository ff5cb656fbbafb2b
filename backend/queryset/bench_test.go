package queryset

import (
	"context"
	"fmt"
	"testing"

	"walcache/backend/db"
	"walcache/proxy/sandbox/sandboxtest"
)

// BenchmarkRead compares reading from the cache with the query, by one client
// and its Redis and PostgreSQL on this machine.
func BenchmarkRead(b *testing.B) {
	s := newSite(b)
	for _, n := range []int{10, 1000, 10_000} {
		s.exec("TRUNCATE properties")
		s.exec(`INSERT INTO properties (id, title, description, price, location, created_at)
			SELECT i, 'Property number ' || i, repeat('d', 70), i, 'location ' || i % 100, timestamptz '2026-01-01' + i * interval '1 minute'
			FROM generate_series(1, $1::int) i`, n)
		s.exec("ANALYZE properties")
		s.learns("properties", property1)
		s.compare(b, fmt.Sprint("list of ", n), func(ctx context.Context, q *Querier) error {
			rows, err := q.ListProperties(ctx)
			if len(rows) != n {
				b.Errorf("%d rows", len(rows))
			}
			return err
		})
	}
	s.compare(b, "one", func(ctx context.Context, q *Querier) error {
		_, err := q.GetProperty(ctx, 1)
		return err
	})
	s.compare(b, "page and count", func(ctx context.Context, q *Querier) error {
		return q.Consistent(ctx, func(ctx context.Context) error {
			_, err := q.SearchProperties(ctx, db.SearchPropertiesParams{Search: "number 7", Take: 20})
			if err != nil {
				return err
			}
			_, err = q.CountSearchedProperties(ctx, db.CountSearchedPropertiesParams{Search: "number 7"})
			return err
		})
	})
}

// compare measures a read that the cache has, and the same from the database.
func (s *site) compare(b *testing.B, what string, read func(ctx context.Context, q *Querier) error) {
	ctx, _ := Collect(context.Background())
	must(b, read(ctx, s.Querier))
	s.kept()
	s.learns()
	for from, q := range map[string]*Querier{"cache": s.Querier, "database": New(s.pool)} {
		b.Run(what+"/"+from, func(b *testing.B) {
			misses := s.Stats().Absent + s.Stats().Changed
			b.ReportAllocs()
			for b.Loop() {
				ctx, _ := Collect(context.Background())
				must(b, read(ctx, q))
			}
			if n := s.Stats().Absent + s.Stats().Changed - misses; n != 0 {
				b.Errorf("%d misses", n)
			}
		})
	}
}

// BenchmarkDecode is what the cache costs beside Redis, on reading.
func BenchmarkDecode(b *testing.B) {
	for _, n := range []int{10, 1000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			data := encode(sampleCodec, sampleShape, sampleAbout(n), benchRows(n))
			text := string(data)
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := decode(sampleCodec, sampleKey, sampleShape, data, text); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkStore is what an entry costs the writer, with and without Redis.
func BenchmarkStore(b *testing.B) {
	url, prefix := sandboxtest.Redis(b)
	client := newClient(b, url)
	for _, n := range []int{10, 1000, 10_000} {
		rows, about := benchRows(n), sampleAbout(n)
		b.Run(fmt.Sprint("encode/", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				encode(sampleCodec, sampleShape, about, rows)
			}
		})
		b.Run(fmt.Sprint("redis/", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				must(b, client.Set(b.Context(), prefix+"x", encode(sampleCodec, sampleShape, about, rows), querysetLife).Err())
			}
		})
	}
}

func benchRows(n int) []db.GetPropertyRow {
	rows := make([]db.GetPropertyRow, n)
	for i := range rows {
		rows[i] = db.GetPropertyRow{ID: int64(i), Title: fmt.Sprint("Property number ", i), Description: fmt.Sprintf("%070d", i), Price: "2100.00", Location: "location 17"}
	}
	return rows
}
