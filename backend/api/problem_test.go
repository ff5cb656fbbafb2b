package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"walcache/backend/trouble"
)

func TestExplain_TheSameErrorHasOneAnswer(t *testing.T) {
	a := &api{log: discard, outage: trouble.NewOutage("database", discard)}
	for err, want := range map[error]struct {
		status int
		reason string
	}{
		&pgconn.PgError{Code: "57P03"}:                    {503, "the database is unavailable, try again soon"},
		&pgconn.PgError{Code: "40P01"}:                    {409, "somebody else changed the same data at the same time, and nothing was done: try again"},
		&pgconn.PgError{Code: "23505", Message: "taken"}:  {409, "the data in the database does not allow this: taken"},
		&pgconn.PgError{Code: "42601", Message: "secret"}: {500, "an error of the service, which has logged it"},
	} {
		p := a.explain(httptest.NewRequest("POST", "/", nil), fmt.Errorf("create: %w", err))
		if p.status != want.status || p.reason != want.reason {
			t.Errorf("%v: %d %s", err, p.status, p.reason)
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
	a := &api{outage: trouble.NewOutage("database", discard)}
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
