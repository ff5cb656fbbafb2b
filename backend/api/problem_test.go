package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

func TestUnavailable_TellsTheDatabaseFromOurMistakes(t *testing.T) {
	for err, want := range map[error]bool{
		context.DeadlineExceeded:               true,
		new(pgconn.ConnectError):               true,
		&pgconn.PgError{Code: "57P03"}:         true,  // cannot connect now
		&pgconn.PgError{Code: "53300"}:         true,  // too many connections
		&pgconn.PgError{Code: "42P01"}:         true,  // undefined table
		&pgconn.PgError{Code: "42601"}:         false, // syntax error
		&pgconn.PgError{Code: ""}:              false,
		errors.New("cannot scan into *string"): false,
	} {
		if got := unavailable(fmt.Errorf("list properties: %w", err)); got != want {
			t.Errorf("%#v: %v", err, got)
		}
	}
}

func TestMaybeDone_OnlyWhereTheConnectionBroke(t *testing.T) {
	broken := fmt.Errorf("commit: %w", context.DeadlineExceeded)
	for _, c := range []struct {
		method string
		err    error
		want   bool
	}{
		{"POST", broken, true},
		{"GET", broken, false},
		{"POST", new(pgconn.ConnectError), false},
		{"DELETE", &pgconn.PgError{Code: "57014"}, false},
	} {
		if got := maybeDone(c.method, c.err); got != c.want {
			t.Errorf("%s, %v: %v", c.method, c.err, got)
		}
	}
}

func TestQuerying_BoundsTheQuery(t *testing.T) {
	a := &api{outage: outage{log: slog.Default()}}
	err := a.querying(func(_ http.ResponseWriter, r *http.Request) error {
		if _, bounded := r.Context().Deadline(); !bounded {
			return errors.New("the query may take for ever")
		}
		return nil
	})(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	if err != nil {
		t.Error(err)
	}
}
