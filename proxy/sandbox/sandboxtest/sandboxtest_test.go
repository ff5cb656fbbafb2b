package sandboxtest_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"walcache/proxy/sandbox/sandboxtest"
)

func TestMain(m *testing.M) { sandboxtest.Main(m) }

func TestPostgres_DatabaseIsEmptyAndLogical(t *testing.T) {
	conn, err := pgx.Connect(t.Context(), sandboxtest.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	var level string
	if err := conn.QueryRow(t.Context(), "SHOW wal_level").Scan(&level); err != nil || level != "logical" {
		t.Fatalf("wal_level %q, %v", level, err)
	}
}

func TestRedis_Answers(t *testing.T) {
	url, prefix := sandboxtest.Redis(t)
	options, err := redis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(options)
	defer client.Close()
	if err := client.Set(t.Context(), prefix+"a", 1, 0).Err(); err != nil {
		t.Fatal(err)
	}
}

func TestOwnPostgres_RestartsAfterKill(t *testing.T) {
	p := sandboxtest.OwnPostgres(t, nil)
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := p.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
}
