package api

import (
	"errors"
	"maps"
	"net/http"
	"strings"

	"walcache/backend/edit"
	"walcache/backend/trouble"
)

// problem is an error in words for the client.
type problem struct {
	status int
	field  string // the part of the request that is wrong, if one is
	reason string
	fields edit.Invalid // all that is wrong with a body; field and reason are the first
	header http.Header  // what the client needs besides, if anything
}

func (p *problem) Error() string { return strings.TrimSpace(p.field + " " + p.reason) }

// wrong is what is wrong with a parameter of the query.
func wrong(field, reason string) *problem {
	return &problem{status: http.StatusBadRequest, field: field, reason: reason}
}

// wrongFields is what is wrong with the fields of a body, at least one.
func wrongFields(status int, fields edit.Invalid) *problem {
	return &problem{status: status, field: fields[0].Field, reason: fields[0].Reason, fields: fields}
}

func header(name, value string) http.Header {
	h := http.Header{}
	h.Set(name, value)
	return h
}

// name says the status in words: "not found".
func (p *problem) name() string { return strings.ToLower(http.StatusText(p.status)) }

func (p *problem) appendJSON(b []byte) []byte {
	b = appendString(append(b, `{"error":`...), p.name())
	b = appendReason(append(b, ','), p.field, p.reason)
	for i, f := range p.fields {
		b = append(b, [...]string{`,"fields":[{`, `,{`}[min(i, 1)]...)
		b = append(appendReason(b, f.Field, f.Reason), '}')
	}
	if p.fields != nil {
		b = append(b, ']')
	}
	return append(b, '}')
}

func appendReason(b []byte, field, reason string) []byte {
	if field != "" {
		b = append(appendString(append(b, `"field":`...), field), ',')
	}
	return appendString(append(b, `"reason":`...), reason)
}

// writeProblem answers with a problem. The header says already what a cache may
// do with it.
func (a *api) writeProblem(w http.ResponseWriter, f format, p *problem) error {
	maps.Copy(w.Header(), p.header)
	if f == asHTML {
		return a.writePage(w, p.status, "problem", problemPage{p})
	}
	writeJSON(w, p.status, p.appendJSON(nil))
	return nil
}

// fail answers with an error that no cache keeps.
func (a *api) fail(w http.ResponseWriter, r *http.Request, err error) {
	clear(w.Header()) // of the answer that was to be
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	f, _ := choose(w.Header(), r) // if ?format is wrong, that is the problem already
	p := a.explain(r, err)
	if err := a.writeProblem(w, f, p); err != nil {
		a.log.Error("page failed", "error", err)
		writeJSON(w, p.status, p.appendJSON(nil))
	}
}

// explain puts an error in words, and logs what the client cannot mend.
func (a *api) explain(r *http.Request, err error) *problem {
	var p *problem
	var invalid edit.Invalid
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &invalid):
		return wrongFields(http.StatusUnprocessableEntity, invalid)
	case errors.Is(err, edit.ErrNotFound):
		return noProperty(r.PathValue("id"))
	}
	switch trouble.Of(err) {
	case trouble.Conflict:
		return &problem{status: http.StatusConflict, reason: "somebody else changed the same data at the same time, and nothing was done: try again"}
	case trouble.Refused:
		return &problem{status: http.StatusConflict, reason: "the data in the database does not allow this: " + trouble.Reason(err)}
	case trouble.Away:
		a.outage.Add(r.Context(), err)
		p := &problem{status: http.StatusServiceUnavailable, header: header("Retry-After", "2")} // seconds
		p.reason = "the database is unavailable, try again soon"
		if maybeDone(r.Method, err) {
			p.reason = "the connection to the database broke: look whether the change was made before you try again"
		}
		return p
	}
	a.log.Error("request failed", "method", r.Method, "path", r.URL.Path, "error", err)
	return &problem{status: http.StatusInternalServerError, reason: "an error of the service, which has logged it"}
}

// maybeDone reports whether a request may have changed something although that is
// not known.
func maybeDone(method string, err error) bool {
	return method != http.MethodGet && method != http.MethodHead && trouble.MaybeDone(err)
}
