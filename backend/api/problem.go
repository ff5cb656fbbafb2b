package api

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// problem is an error in words for the client.
type problem struct {
	status int
	field  string // the part of the request that is wrong, if one is
	reason string
}

func (p *problem) Error() string { return p.reason }

func (p *problem) write(w http.ResponseWriter) {
	b := appendString([]byte(`{"error":`), strings.ToLower(http.StatusText(p.status)))
	if p.field != "" {
		b = appendString(append(b, `,"field":`...), p.field)
	}
	b = appendString(append(b, `,"reason":`...), p.reason)
	writeJSON(w, p.status, append(b, '}'))
}

// fail answers with an error that no cache keeps.
func (a *api) fail(w http.ResponseWriter, r *http.Request, err error) {
	clear(w.Header()) // of the answer that was to be
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")

	var p *problem
	switch {
	case errors.As(err, &p):
	case unavailable(err):
		// A client that left has cancelled its query; the database is well.
		if !errors.Is(r.Context().Err(), context.Canceled) {
			a.outage.add(err)
		}
		p = &problem{status: http.StatusServiceUnavailable, reason: "the database is unavailable, try again soon"}
	default:
		a.log.Error("request failed", "method", r.Method, "path", r.URL.Path, "error", err)
		p = &problem{status: http.StatusInternalServerError, reason: "an error of the service, which has logged it"}
	}
	switch p.status {
	case http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", "2") // seconds
	case http.StatusMethodNotAllowed:
		w.Header().Set("Allow", "GET, HEAD")
	}
	p.write(w)
}

// unavailable reports whether the database could not be asked, or would not
// answer for now, so that the same request may succeed later.
func unavailable(err error) bool {
	var connect *pgconn.ConnectError
	if errors.As(err, &connect) {
		return true
	}
	var answer *pgconn.PgError
	if errors.As(err, &answer) {
		return slices.ContainsFunc(passing, func(class string) bool { return strings.HasPrefix(answer.Code, class) })
	}
	var broken net.Error
	return errors.As(err, &broken) || errors.Is(err, io.ErrUnexpectedEOF) || pgconn.SafeToRetry(err) ||
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// passing are the classes, and a few codes, of the errors of PostgreSQL that
// end by themselves (PostgreSQL documentation, appendix A).
var passing = []string{
	"08",    // connection exception
	"53",    // insufficient resources, as too many connections
	"55",    // object not in prerequisite state, as a lock not available
	"57",    // operator intervention, as a shutdown or a cancelled statement
	"58",    // system error
	"42P01", // undefined table: the migration that makes it has not run yet
	"42703", // undefined column, likewise
}
