package panel

import (
	"errors"
	"net/http"
	"strings"

	"walcache/backend/edit"
	"walcache/backend/panel/keep"
	"walcache/backend/trouble"
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
		p.redis.Add(r.Context(), err)
		return &problem{status: http.StatusServiceUnavailable,
			reason: "Redis, which keeps the sessions, is away. Nobody can log in or edit until it is back. Try again in a moment."}
	}
	switch trouble.Of(err) {
	case trouble.Conflict:
		return &problem{status: http.StatusConflict, reason: "Somebody else changed the same at the same time, and nothing was saved. Go back and try again."}
	case trouble.Refused:
		return &problem{status: http.StatusConflict, reason: "The data in the database does not allow this: " + trouble.Reason(err)}
	case trouble.Away:
		p.database.Add(r.Context(), err)
		if r.Method == http.MethodPost && trouble.MaybeDone(err) {
			return &problem{status: http.StatusServiceUnavailable, reason: "The connection to the database broke. Look whether the change was made before you try again."}
		}
		return &problem{status: http.StatusServiceUnavailable, reason: "The database is away. Try again in a moment."}
	}
	p.log.Error("request failed", "method", r.Method, "path", r.URL.Path, "error", err)
	return &problem{status: http.StatusInternalServerError, reason: "An error of the service, which has logged it."}
}
