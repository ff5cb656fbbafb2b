// Package edit says what a property must be, and adds, changes and deletes
// properties: each in one transaction with its line in the table changes, which
// says who did what.
//
// Whoever serves a form or an API reads the fields, and leaves to this package
// what they must be. It reads and locks the row straight from the database,
// never through a cache.
package edit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"walcache/backend/db"
)

// ErrNotFound says that there is no property of that id, or none any more.
var ErrNotFound = errors.New("there is no such property")

// Editor changes properties. It may be used concurrently: of two changes to one
// property the second waits, and sees what the first has made of it.
//
// Invariant: a property and its line in changes come about together or not at
// all, since a change that nobody can be asked about is not to be undone either.
// Kept by Editor.transaction; see TestEditor_WritesAllOrNothing.
type Editor struct {
	pool *pgxpool.Pool
}

// New returns an Editor that takes its connections from the pool.
func New(pool *pgxpool.Pool) *Editor { return &Editor{pool: pool} }

// The actions that a line in changes can tell of.
const (
	added   = "added"
	changed = "changed"
	deleted = "deleted"
)

// Create adds a property for who, 1 to 150 characters. It returns Invalid when
// the property is not as Check wants it.
func (e *Editor) Create(ctx context.Context, who string, p Property) (db.CreatePropertyRow, error) {
	var row db.CreatePropertyRow
	p, err := p.Check()
	if err != nil {
		return row, err
	}
	err = e.transaction(ctx, func(q *db.Queries) error {
		var err error
		if row, err = q.CreateProperty(ctx, db.CreatePropertyParams(p)); err != nil {
			return fmt.Errorf("create a property: %w", err)
		}
		return note(ctx, q, who, added, row.ID, p.Title, fieldsOf(nil, &p))
	})
	return row, err
}

// Change makes of a property what the function returns for its row, which
// nobody else changes meanwhile. It returns the row as it is afterwards,
// ErrNotFound, Invalid, or the error of the function. What changes nothing
// writes nothing, no line in changes either. The function runs in the
// transaction: it must be quick.
func (e *Editor) Change(ctx context.Context, who string, id int64, change func(current db.LockPropertyRow) (Property, error)) (db.UpdatePropertyRow, error) {
	var row db.UpdatePropertyRow
	err := e.transaction(ctx, func(q *db.Queries) error {
		current, err := lock(ctx, q, id)
		if err != nil {
			return err
		}
		after, err := change(current)
		if err != nil {
			return err
		}
		if after, err = after.Check(); err != nil {
			return err
		}
		before := Of(current)
		if after == before {
			row = db.UpdatePropertyRow(current)
			return nil
		}
		row, err = q.UpdateProperty(ctx, db.UpdatePropertyParams{
			ID: id, Title: after.Title, Description: after.Description, Price: after.Price, Location: after.Location,
		})
		if err != nil {
			return fmt.Errorf("change property %d: %w", id, err)
		}
		return note(ctx, q, who, changed, id, after.Title, fieldsOf(&before, &after))
	})
	return row, err
}

// Delete deletes a property, unless the function, which may be nil, returns an
// error for its row. It returns that error, or ErrNotFound.
func (e *Editor) Delete(ctx context.Context, who string, id int64, may func(current db.LockPropertyRow) error) error {
	return e.transaction(ctx, func(q *db.Queries) error {
		current, err := lock(ctx, q, id)
		if err != nil {
			return err
		}
		if may != nil {
			if err := may(current); err != nil {
				return err
			}
		}
		if _, err := q.DeleteProperty(ctx, id); err != nil {
			return fmt.Errorf("delete property %d: %w", id, err)
		}
		before := Of(current)
		return note(ctx, q, who, deleted, id, before.Title, fieldsOf(&before, nil))
	})
}

// transaction commits what the function has done, if it returns no error.
func (e *Editor) transaction(ctx context.Context, do func(q *db.Queries) error) error {
	return pgx.BeginFunc(ctx, e.pool, func(tx pgx.Tx) error { return do(db.New(tx)) })
}

// lock reads a property that nobody else may change until the transaction ends.
func lock(ctx context.Context, q *db.Queries, id int64) (db.LockPropertyRow, error) {
	row, err := q.LockProperty(ctx, id)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return row, ErrNotFound
	case err != nil:
		return row, fmt.Errorf("lock property %d: %w", id, err)
	}
	return row, nil
}

// note writes the line in changes.
func note(ctx context.Context, q *db.Queries, who, action string, id int64, title string, fields map[string][2]*string) error {
	text, err := json.Marshal(fields)
	if err != nil {
		return fmt.Errorf("note the change: %w", err)
	}
	err = q.AddChange(ctx, db.AddChangeParams{PropertyID: id, Who: who, Action: action, Title: title, Fields: text})
	if err != nil {
		return fmt.Errorf("note the change of property %d: %w", id, err)
	}
	return nil
}

// fieldsOf says what each field was and what it is since, for those that
// differ. Where there was or is no property it is null.
func fieldsOf(before, after *Property) map[string][2]*string {
	fields := map[string][2]*string{}
	for name, field := range map[string]func(*Property) *string{
		"title":       func(p *Property) *string { return &p.Title },
		"description": func(p *Property) *string { return &p.Description },
		"price":       func(p *Property) *string { return &p.Price },
		"location":    func(p *Property) *string { return &p.Location },
	} {
		var was, is *string
		if before != nil {
			was = field(before)
		}
		if after != nil {
			is = field(after)
		}
		if was == nil || is == nil || *was != *is {
			fields[name] = [2]*string{was, is}
		}
	}
	return fields
}
