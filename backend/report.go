package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/urfave/cli/v2"
)

// usageError is a command line that cannot be meant.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...)}
}

func asUsageError(_ *cli.Context, err error, _ bool) error { return usageError{err} }

// report tells the user what went wrong and what to try, and returns the exit
// code.
func report(stderr io.Writer, err error) int {
	if err == nil {
		return 0
	}
	what, try := explain(err)
	fmt.Fprintf(stderr, "backend: %s\n", what)
	if try != "" {
		fmt.Fprintf(stderr, "  try: %s\n", try)
	}
	if errors.As(err, new(usageError)) {
		return 2
	}
	return 1
}

// explain puts an error into the words of who typed the command. No password
// is in them: the driver masks it.
func explain(err error) (what, try string) {
	var connect *pgconn.ConnectError
	var pg *pgconn.PgError
	switch {
	case errors.As(err, new(usageError)):
		return err.Error(), "backend --help"
	case errors.As(err, &connect):
		where := fmt.Sprintf("%s:%d/%s", connect.Config.Host, connect.Config.Port, connect.Config.Database)
		return fmt.Sprintf("cannot reach PostgreSQL at %s: %v", where, cause(connect)),
			"start it, or correct DATABASE_URL (--database-url)"
	case errors.As(err, &pg) && pg.Code == "42P01": // undefined table
		return err.Error(), "backend migrate"
	case errors.Is(err, syscall.EADDRINUSE):
		return err.Error(), "stop what listens there, or another --addr"
	default:
		return err.Error(), ""
	}
}

// cause is the heart of why a connection was not made.
func cause(connect *pgconn.ConnectError) error {
	var pg *pgconn.PgError
	var op *net.OpError
	switch {
	case errors.As(connect, &pg):
		return errors.New(pg.Message)
	case errors.As(connect, &op):
		return op.Err
	default:
		return connect.Unwrap()
	}
}
