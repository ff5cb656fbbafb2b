package edit

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"walcache/backend/db"
	"walcache/proxy/sandbox/sandboxtest"
	"walcache/schema"
)

func TestMain(m *testing.M) { sandboxtest.Main(m) }

func newEditor(t *testing.T) (*Editor, *pgxpool.Pool) {
	t.Helper()
	dsn := sandboxtest.Postgres(t)
	if err := schema.Up(t.Context(), dsn); err != nil {
		t.Fatal(err)
	}
	pool, err := pgxpool.New(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return New(pool), pool
}

// told are the lines in changes, oldest first.
func told(t *testing.T, pool *pgxpool.Pool) []string {
	t.Helper()
	rows, err := pool.Query(t.Context(), `SELECT concat_ws(' ', who, action, property_id, title, fields) FROM changes ORDER BY id`)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

func to(p Property) func(db.LockPropertyRow) (Property, error) {
	return func(db.LockPropertyRow) (Property, error) { return p, nil }
}

func TestEditor_TellsWhatWasDone(t *testing.T) {
	e, pool := newEditor(t)
	ctx := t.Context()
	row, err := e.Create(ctx, "ann", Property{" Loft ", `"two" rooms`, "2100", "Nairobi"})
	if err != nil || row.Title != "Loft" || row.Price != "2100.00" || row.CreatedAt.IsZero() {
		t.Fatalf("%+v, %v", row, err)
	}
	dearer := Property{"Loft", `"two" rooms`, "2200.5", "Nairobi"}
	for range 2 { // the second time there is nothing to change
		after, err := e.Change(ctx, "bob", row.ID, to(dearer))
		if err != nil || after.Price != "2200.50" || !after.CreatedAt.Equal(row.CreatedAt) {
			t.Fatalf("%+v, %v", after, err)
		}
	}
	if err := e.Delete(ctx, "cy", row.ID, nil); err != nil {
		t.Fatal(err)
	}
	want := []string{
		`ann added 1 Loft {"price": [null, "2100.00"], "title": [null, "Loft"], "location": [null, "Nairobi"], "description": [null, "\"two\" rooms"]}`,
		`bob changed 1 Loft {"price": ["2100.00", "2200.50"]}`,
		`cy deleted 1 Loft {"price": ["2200.50", null], "title": ["Loft", null], "location": ["Nairobi", null], "description": ["\"two\" rooms", null]}`,
	}
	if got := told(t, pool); !slices.Equal(got, want) {
		t.Errorf("changes\n%s", strings.Join(got, "\n"))
	}
	if _, err := e.Change(ctx, "bob", row.ID, to(dearer)); !errors.Is(err, ErrNotFound) {
		t.Errorf("change what is gone: %v", err)
	}
	if err := e.Delete(ctx, "bob", row.ID, nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("delete what is gone: %v", err)
	}
}

func TestEditor_WritesAllOrNothing(t *testing.T) {
	e, pool := newEditor(t)
	ctx := t.Context()
	row, err := e.Create(ctx, "ann", good)
	if err != nil {
		t.Fatal(err)
	}
	state := func() string {
		var s string
		if err := pool.QueryRow(ctx, `SELECT (SELECT string_agg(p::text, ' ') FROM properties p) || (SELECT count(*) FROM changes)`).Scan(&s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	before := state()
	no := errors.New("no")
	nobody := strings.Repeat("x", 151) // more than who may have, so the line in changes fails
	other := Property{"Other", "", "5", "Elsewhere"}
	for what, err := range map[string]func() error{
		"create what is wrong":    func() error { _, err := e.Create(ctx, "ann", Property{}); return err },
		"create without a line":   func() error { _, err := e.Create(ctx, nobody, other); return err },
		"change to what is wrong": func() error { _, err := e.Change(ctx, "ann", row.ID, to(Property{})); return err },
		"change without a line":   func() error { _, err := e.Change(ctx, nobody, row.ID, to(other)); return err },
		"delete without a line":   func() error { return e.Delete(ctx, nobody, row.ID, nil) },
		"change against the will": func() error {
			_, err := e.Change(ctx, "ann", row.ID, func(db.LockPropertyRow) (Property, error) { return other, no })
			return err
		},
		"delete against the will": func() error {
			return e.Delete(ctx, "ann", row.ID, func(db.LockPropertyRow) error { return no })
		},
	} {
		if err := err(); err == nil {
			t.Errorf("%s: no error", what)
		}
		if after := state(); after != before {
			t.Errorf("%s left %s, it was %s", what, after, before)
		}
	}
}

func TestChange_TheSecondSeesTheFirst(t *testing.T) {
	e, pool := newEditor(t)
	row, err := e.Create(t.Context(), "ann", good)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			_, err := e.Change(t.Context(), "ann", row.ID, func(current db.LockPropertyRow) (Property, error) {
				p := Of(current)
				p.Description += "!"
				return p, nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	var description string
	if err := pool.QueryRow(t.Context(), `SELECT description FROM properties`).Scan(&description); err != nil {
		t.Fatal(err)
	}
	if want := good.Description + "!!!!!!!!"; description != want {
		t.Errorf("description %q, want %q", description, want)
	}
}
