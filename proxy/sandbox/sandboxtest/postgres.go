package sandboxtest

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"walcache/proxy/sandbox"
)

// Postgres makes an empty database with a random name and returns its URL, for
// the superuser. Its replication slots and the database itself are dropped when
// the test ends; sessions that are still open are ended.
//
// The server is shared and does not flush to disk.
func Postgres(t testing.TB) (dsn string) {
	t.Helper()
	p, err := shared.postgres.get(startSharedPostgres)
	if err != nil {
		t.Fatalf("shared PostgreSQL: %v", err)
	}
	name := randomName()
	if err := onPostgres(p, func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, `CREATE DATABASE `+name)
		return err
	}); err != nil {
		t.Fatalf("create database: %v", err)
	}
	t.Cleanup(func() {
		if err := onPostgres(p, func(ctx context.Context, conn *pgx.Conn) error {
			return dropDatabase(ctx, conn, name)
		}); err != nil {
			t.Errorf("drop database: %v", err)
		}
	})
	return p.DSN(name)
}

// OwnPostgres starts a server for this test alone, which may stop, kill or
// freeze it. It flushes to disk as a real one does unless settings say
// otherwise, and is killed when the test ends.
func OwnPostgres(t testing.TB, settings map[string]string) *sandbox.Postgres {
	t.Helper()
	dir, remove, err := sandbox.TempDir(tempPattern)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := remove(); err != nil {
			t.Errorf("remove %s: %v", dir, err)
		}
	})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	p, err := sandbox.StartPostgres(ctx, sandbox.PostgresConfig{
		Dir:      filepath.Join(dir, "postgres"),
		Settings: settings,
	})
	if err != nil {
		t.Fatalf("PostgreSQL for this test: %v", err)
	}
	t.Cleanup(func() {
		if err := p.Kill(); err != nil {
			t.Errorf("kill postgres: %v", err)
		}
	})
	return p
}

func startSharedPostgres() (*sandbox.Postgres, error) {
	dir, err := sharedDir("postgres")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return sandbox.StartPostgres(ctx, sandbox.PostgresConfig{
		Dir:      dir,
		Settings: map[string]string{"fsync": "off", "full_page_writes": "off"},
	})
}

// onPostgres runs do on a short connection to the maintenance database.
func onPostgres(p *sandbox.Postgres, do func(context.Context, *pgx.Conn) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, p.DSN("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	return do(ctx, conn)
}

// dropDatabase drops a database against the will of who still uses it. The
// order matters: nobody may come back, and a slot can be dropped only when its
// replication connection is gone.
func dropDatabase(ctx context.Context, conn *pgx.Conn, name string) error {
	if _, err := conn.Exec(ctx, `ALTER DATABASE `+name+` ALLOW_CONNECTIONS false`); err != nil {
		return err
	}
	for {
		if _, err := conn.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1`, name); err != nil {
			return err
		}
		if _, err := conn.Exec(ctx, `SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
			WHERE database = $1 AND NOT active`, name); err != nil {
			return err
		}
		var left int
		if err := conn.QueryRow(ctx, `SELECT count(*) FROM pg_replication_slots WHERE database = $1`, name).Scan(&left); err != nil {
			return err
		}
		if left == 0 {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d replication slots are still in use: %w", left, ctx.Err())
		case <-time.After(pollInterval):
		}
	}
	_, err := conn.Exec(ctx, `DROP DATABASE `+name+` WITH (FORCE)`)
	return err
}
