package queryset

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/v9"

	"walcache/proxy/coherence"
	"walcache/proxy/redisurl"
	"walcache/proxy/sandbox/sandboxtest"
	"walcache/schema"
)

const patience = time.Minute

// site is a caching Querier on a database with two properties, and a tracker
// that knows what the test tells it.
type site struct {
	*Querier
	t       testing.TB
	pool    *pgxpool.Pool
	gate    *gate
	tracker *coherence.Tracker
	client  redis.UniversalClient
	prefix  string
}

func newSite(t testing.TB) *site {
	url, prefix := sandboxtest.Redis(t)
	return newSiteOn(t, url, prefix, patience)
}

func newSiteOn(t testing.TB, url, prefix string, budget time.Duration) *site {
	t.Helper()
	s := &site{t: t, pool: newPool(t), tracker: newTracker(), client: newClient(t, url), prefix: prefix}
	s.gate = &gate{Pool: s.pool}
	s.Querier = NewCached(s.gate, Config{
		Client: s.client, Prefix: prefix, Truth: s.tracker, Budget: budget,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	run(t, s.Querier.Run)
	s.exec(`INSERT INTO properties (id, title, description, price, location, created_at) VALUES
		(1, 'Loft', 'Two rooms', 2100, 'Nairobi', '2026-11-22 22:07:28.256157+03'),
		(2, 'Shed', '', 0.5, 'São Tomé', '2026-11-23 00:00:00+00')`)
	s.tracker.Begin("k3f9", 1)
	s.tracker.SetCatalog(catalog())
	s.tracker.Beat("k3f9", time.Now())
	s.learns()
	return s
}

func newPool(t testing.TB) *pgxpool.Pool {
	t.Helper()
	dsn := sandboxtest.Postgres(t)
	must(t, schema.Up(t.Context(), dsn))
	pool, err := pgxpool.New(t.Context(), dsn+"&pool_max_conns=20")
	must(t, err)
	t.Cleanup(pool.Close)
	return pool
}

// newTracker makes one whose evidence holds for as long as a test runs.
func newTracker() *coherence.Tracker { return coherence.NewTracker(1<<16, time.Hour) }

func newClient(t testing.TB, url string) redis.UniversalClient {
	t.Helper()
	client, err := redisurl.Open(url, func(o *redis.UniversalOptions) { o.ReadTimeout, o.WriteTimeout = patience, patience })
	must(t, err)
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func catalog() *coherence.Catalog {
	return &coherence.Catalog{Tables: map[string]coherence.Table{
		"properties": {Columns: map[string]coherence.Kind{"id": coherence.Integer, "location": coherence.Text}},
		"releases":   {},
	}}
}

// run runs a part until the test ends.
func run(t testing.TB, part func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- part(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
	})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (s *site) exec(sql string, args ...any) {
	s.t.Helper()
	_, err := s.pool.Exec(context.Background(), sql, args...)
	must(s.t, err)
}

// learns tells the tracker of everything up to now: that these tags changed,
// and nothing else.
func (s *site) learns(changed ...coherence.Tag) {
	s.t.Helper()
	s.applies(s.position(), s.position(), changed...)
}

// applies gives the tracker a record.
func (s *site) applies(known, visible coherence.LSN, changed ...coherence.Tag) {
	s.t.Helper()
	r := coherence.Record{Epoch: s.tracker.Epoch(), From: s.tracker.Known().LSN, To: known, Visible: visible}
	for _, tag := range changed {
		r.Changes = append(r.Changes, coherence.Change{Hash: tag.Hash(), At: known})
	}
	must(s.t, s.tracker.Apply(r))
}

// position is where the server writes next.
func (s *site) position() coherence.LSN {
	s.t.Helper()
	w := writer{cache: &cache{conns: s.pool}}
	lsn, err := w.insertPosition(context.Background())
	must(s.t, err)
	return lsn
}

// title reads the title of property 1 on behalf of a new request.
func (s *site) title() string {
	s.t.Helper()
	title, _ := s.read()
	return title
}

// read reads the title of property 1, and says as of when it is.
func (s *site) read() (title, asOf string) {
	s.t.Helper()
	ctx, reads := Collect(context.Background())
	p, err := s.GetProperty(ctx, 1)
	must(s.t, err)
	return p.Title, reads.AsOf()
}

// rename gives property 1 another title, which the tracker does not know of.
func (s *site) rename(title string) {
	s.t.Helper()
	s.exec("UPDATE properties SET title = $1 WHERE id = 1", title)
}

// kept waits until everything that was put in line has been written or dropped,
// and returns how many entries were written.
func (s *site) kept() uint64 {
	s.t.Helper()
	sandboxtest.Eventually(s.t, patience, func() error {
		if n := s.cache.queued.Load(); n != 0 {
			return fmt.Errorf("%d bytes wait to be written", n)
		}
		return nil
	})
	return s.Stats().Writes
}

// warm has the cache keep what a read returns.
func (s *site) warm(read func(ctx context.Context) error) {
	s.t.Helper()
	before := s.kept()
	ctx, _ := Collect(context.Background())
	must(s.t, read(ctx))
	if s.kept() == before {
		s.t.Fatalf("nothing was kept: %+v", *s.Stats())
	}
}

func (s *site) warmProperty() {
	s.t.Helper()
	s.warm(func(ctx context.Context) error { _, err := s.GetProperty(ctx, 1); return err })
}

func (s *site) warmList() {
	s.t.Helper()
	s.warm(func(ctx context.Context) error { _, err := s.ListProperties(ctx); return err })
}

func (s *site) warmCount() {
	s.t.Helper()
	s.warm(func(ctx context.Context) error { _, err := s.CountProperties(ctx); return err })
}

func (s *site) expectTitle(want string) {
	s.t.Helper()
	if got := s.title(); got != want {
		s.t.Errorf("title %q, want %q; %+v", got, want, *s.Stats())
	}
}

// gate is a pool that counts the queries of one row, and on which a test can do
// something after one.
type gate struct {
	*pgxpool.Pool
	queries atomic.Int64
	after   atomic.Pointer[func()] // called once, when the next row has been read
}

func (g *gate) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	row := g.Pool.QueryRow(ctx, sql, args...)
	if !strings.HasPrefix(sql, "-- name: ") {
		return row // the writer's own
	}
	g.queries.Add(1)
	return gatedRow{row, g}
}

type gatedRow struct {
	pgx.Row
	gate *gate
}

func (r gatedRow) Scan(into ...any) error {
	err := r.Row.Scan(into...)
	if f := r.gate.after.Swap(nil); f != nil {
		(*f)()
	}
	return err
}

// then has something done when the next row has been read, and before whoever
// asked has it.
func (g *gate) then(f func()) { g.after.Store(&f) }
