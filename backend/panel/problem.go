package panel

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"walcache/backend/edit"
	"walcache/backend/panel/keep"
)

// problem is an error in words for a person.
type problem struct {
	status int
	reason string
	allow  string // for a 405
}

func (p *problem) Error() string { return p.reason }

// notAllowed names the methods that a route has.
func notAllowed(to route) error {
	var allow []string
	if to.get != nil {
		allow = append(allow, http.MethodGet, http.MethodHead)
	}
	if to.post != nil {
		allow = append(allow, http.MethodPost)
	}
	names := strings.Join(allow, ", ")
	return &problem{status: http.StatusMethodNotAllowed, allow: names, reason: "Use one of " + names + " here."}
}

// fail answers with a page that says what went wrong. v may be nil.
func (p *Panel) fail(w http.ResponseWriter, r *http.Request, v *visit, err error) {
	h := w.Header()
	told := p.explain(r, err)
	switch told.status {
	case http.StatusServiceUnavailable:
		h.Set("Retry-After", "2") // seconds
	case http.StatusMethodNotAllowed:
		h.Set("Allow", told.allow)
	}
	err = p.show(w, r, v, told.status, "problem", view{Title: http.StatusText(told.status), Body: told.reason})
	if err != nil {
		p.log.Error("cannot render the page of a problem", "error", err)
		http.Error(w, told.reason, told.status)
	}
}

// explain puts an error into words, and logs what the operator should know.
func (p *Panel) explain(r *http.Request, err error) *problem {
	var told *problem
	switch {
	case errors.As(err, &told):
		return told
	case errors.Is(err, edit.ErrNotFound):
		return &problem{status: http.StatusNotFound, reason: "There is no such property, or it has been deleted."}
	case errors.Is(err, keep.ErrAway):
		p.away(r, err)
		return &problem{status: http.StatusServiceUnavailable,
			reason: "Redis, which keeps the sessions, is away. Nobody can log in or edit until it is back. Try again in a moment."}
	case unavailable(err):
		p.away(r, err)
		if r.Method == http.MethodPost && edit.MaybeDone(err) {
			return &problem{status: http.StatusServiceUnavailable, reason: "The connection to the database broke. Look whether the change was made before you try again."}
		}
		return &problem{status: http.StatusServiceUnavailable, reason: "The database is away. Try again in a moment."}
	}
	p.log.Error("request failed", "method", r.Method, "path", r.URL.Path, "error", err)
	return &problem{status: http.StatusInternalServerError, reason: "An error of the service, which has logged it."}
}

// away counts a failure, unless the client left: then it has cancelled what it
// had asked for itself.
func (p *Panel) away(r *http.Request, err error) {
	if !errors.Is(r.Context().Err(), context.Canceled) {
		p.outage.add(err)
	}
}

// unavailable reports whether the database could not be asked, or would not
// answer for now.
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

// passing are the classes of the errors of PostgreSQL that end by themselves
// (PostgreSQL documentation, appendix A): connection, resources, locks and
// deadlocks, shutdown, disk, and a table that a migration has yet to make.
var passing = []string{"08", "40", "53", "55", "57", "58", "42P01", "42703"}

// outageEvery is how often an outage that lasts is logged.
const outageEvery = 10 * time.Second

// outage logs that something is away at a fixed rate, with the number of
// requests that it cost.
type outage struct {
	log *slog.Logger

	mu     sync.Mutex // guards the following
	logged time.Time
	failed int
}

func (o *outage) add(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.failed++
	if now := time.Now(); now.Sub(o.logged) >= outageEvery {
		o.log.Error("panel cannot answer", "error", err, "failed", o.failed)
		o.logged, o.failed = now, 0
	}
}
