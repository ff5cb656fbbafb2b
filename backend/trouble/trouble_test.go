package trouble

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"walcache/proxy/sandbox/sandboxtest"
)

func TestMain(m *testing.M) { sandboxtest.Main(m) }

func TestOf_TellsTheDatabaseFromOurMistakes(t *testing.T) {
	for err, want := range map[error]Kind{
		context.DeadlineExceeded:               Away,
		context.Canceled:                       Away,
		io.ErrUnexpectedEOF:                    Away,
		new(pgconn.ConnectError):               Away,
		&pgconn.PgError{Code: "57P03"}:         Away, // cannot connect now
		&pgconn.PgError{Code: "53300"}:         Away, // too many connections
		&pgconn.PgError{Code: "42P01"}:         Away, // undefined table
		&pgconn.PgError{Code: "55P03"}:         Away, // lock not available
		&pgconn.PgError{Code: "40P01"}:         Conflict,
		&pgconn.PgError{Code: "40001"}:         Conflict,
		&pgconn.PgError{Code: "23505"}:         Refused,
		&pgconn.PgError{Code: "42601"}:         Ours, // syntax error
		&pgconn.PgError{Code: ""}:              Ours,
		errors.New("cannot scan into *string"): Ours,
		nil:                                    Ours,
	} {
		if got := Of(fmt.Errorf("list properties: %w", err)); got != want {
			t.Errorf("%#v: %v, want %v", err, got, want)
		}
	}
}

func TestMaybeDone_OnlyWhereTheConnectionBroke(t *testing.T) {
	for err, want := range map[error]bool{
		context.DeadlineExceeded:       true,
		io.ErrUnexpectedEOF:            true,
		new(pgconn.ConnectError):       false,
		&pgconn.PgError{Code: "57014"}: false,
		&pgconn.PgError{Code: "40P01"}: false,
	} {
		if got := MaybeDone(fmt.Errorf("commit: %w", err)); got != want {
			t.Errorf("%v: %v", err, got)
		}
	}
}

// A server says what it refuses even when it refuses the connection; that is not
// its answer to what was asked.
func TestOf_AServerThatWantsNoConnectionIsAway(t *testing.T) {
	dsn := sandboxtest.Postgres(t)
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	config.Database = "no_such_database"
	_, err = pgx.ConnectConfig(t.Context(), config)
	if _, said := errors.AsType[*pgconn.PgError](err); !said || Of(err) != Away || MaybeDone(err) {
		t.Errorf("%v: %v", err, Of(err))
	}
}

func TestOf_TwoThatWaitForEachOtherAreAConflict(t *testing.T) {
	dsn := sandboxtest.Postgres(t)
	lock := func(conn *pgx.Conn, key int) error {
		_, err := conn.Exec(t.Context(), "SELECT pg_advisory_xact_lock($1)", key)
		return err
	}
	var conns [2]*pgx.Conn
	for i := range conns {
		conn, err := pgx.Connect(t.Context(), dsn)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.Background())
		conns[i] = conn
		if _, err := conn.Exec(t.Context(), "BEGIN"); err != nil {
			t.Fatal(err)
		}
		if err := lock(conn, i); err != nil {
			t.Fatal(err)
		}
	}
	first := make(chan error)
	go func() {
		err := lock(conns[0], 1)
		conns[0].Close(context.Background()) // gives way to the other
		first <- err
	}()
	second := lock(conns[1], 0)
	conns[1].Close(context.Background())
	err := errors.Join(<-first, second)
	if Of(err) != Conflict || !strings.Contains(Reason(err), "deadlock") {
		t.Errorf("%v: %v, %q", err, Of(err), Reason(err))
	}
}

func TestOutage_IsToldAtAFixedRateAndWhenItIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		o := NewOutage("database", slog.New(slog.NewTextHandler(&log, nil)))
		o.End()
		left, leave := context.WithCancel(t.Context())
		leave()
		o.Add(left, io.ErrUnexpectedEOF)
		for range 25 { // seconds
			o.Add(t.Context(), io.ErrUnexpectedEOF)
			o.Add(t.Context(), io.ErrUnexpectedEOF)
			time.Sleep(time.Second)
		}
		o.End()
		o.End()
		if n := strings.Count(log.String(), "database unavailable"); n != 3 || !strings.Contains(log.String(), "failed=41") {
			t.Errorf("said %d times:\n%s", n, log.String())
		}
		if strings.Count(log.String(), `msg="database available again" after=25s failed=50`) != 1 {
			t.Errorf("the end is not told:\n%s", log.String())
		}
		o.Add(t.Context(), io.ErrUnexpectedEOF)
		if n := strings.Count(log.String(), "failed=1\n"); n != 2 {
			t.Errorf("a second outage is not told:\n%s", log.String())
		}
	})
}
