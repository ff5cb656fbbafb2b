// Package schema holds the database schema as numbered migrations, embedded in
// the program, and moves a database up and down through them.
//
// Each migration runs in a transaction of its own, in which it also announces
// itself to those who follow the change stream (00001_properties.sql says why
// and how). Whoever migrates holds an advisory lock meanwhile: of two that
// start at once, the second waits and then finds nothing left to do.
package schema

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

//go:embed *.sql
var migrations embed.FS

// Migration is one step of the schema, and when it was applied: zero while it
// is not.
type Migration struct {
	Name      string
	AppliedAt time.Time
}

// Up applies every migration that the database at dsn does not have yet.
func Up(ctx context.Context, dsn string) error {
	return migrate(ctx, dsn, func(p *goose.Provider) error {
		_, err := p.Up(ctx)
		return err
	})
}

// Down takes back the last migration that was applied; without one it does
// nothing.
func Down(ctx context.Context, dsn string) error {
	return migrate(ctx, dsn, func(p *goose.Provider) error {
		_, err := p.Down(ctx)
		if errors.Is(err, goose.ErrNoNextVersion) {
			return nil
		}
		return err
	})
}

// Status lists all migrations in the order in which they are applied.
func Status(ctx context.Context, dsn string) ([]Migration, error) {
	var list []Migration
	err := migrate(ctx, dsn, func(p *goose.Provider) error {
		all, err := p.Status(ctx)
		for _, m := range all {
			list = append(list, Migration{Name: m.Source.Path, AppliedAt: m.AppliedAt})
		}
		return err
	})
	return list, err
}

// migrate runs one step with a provider that waits up to five minutes for a
// migration already under way.
func migrate(ctx context.Context, dsn string, step func(*goose.Provider) error) error {
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	// goose notes when it applied a migration as a timestamp without a zone.
	config.RuntimeParams["timezone"] = "UTC"
	db := stdlib.OpenDB(*config)
	defer db.Close() // its connections hold nothing that could still fail
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 300))
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, migrations, goose.WithSessionLocker(locker))
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	if err := step(provider); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}
