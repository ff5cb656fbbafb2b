package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/urfave/cli/v2"
)

// usageError is a command line that cannot be meant.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

func asUsageError(_ *cli.Context, err error, _ bool) error { return usageError{err} }

// report tells the user what went wrong and what to try, and returns the exit
// code. help is the command that explains the one that was typed.
func report(stderr io.Writer, err error, help string) int {
	if err == nil {
		return 0
	}
	if errors.Is(err, errFindings) { // it has been told
		return 1
	}
	what, try := explain(err, help)
	fmt.Fprintf(stderr, "proxy: %s\n", what)
	if try != "" {
		fmt.Fprintf(stderr, "  try: %s\n", try)
	}
	if errors.As(err, new(usageError)) {
		return 2
	}
	return 1
}

// explain puts an error into the words of who typed the command. Errors that
// bring their own next step are left as they are; no password is in them.
func explain(err error, help string) (what, try string) {
	var connect *pgconn.ConnectError
	switch {
	case strings.Contains(err.Error(), "\n  try: "):
		return err.Error(), ""
	case errors.As(err, new(usageError)):
		return err.Error(), help
	case errors.As(err, &connect):
		return err.Error(), "start PostgreSQL, or correct DATABASE_URL (--database-url)"
	}
	return err.Error(), ""
}
