package api

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"walcache/backend/db"
	"walcache/backend/edit"
	"walcache/proxy/web"
)

// tokenWriter is who changed what was changed with the API token.
const tokenWriter = "api"

// writer says who makes the change that a request asks for, or why the request
// may not: 401 for want of a right name, 403 where none would help.
//
// A token says who is asking by itself. A session's cookie does not, since
// browsers send it along with whatever another site makes them send: such a
// request must come from a page of this site.
func (a *api) writer(r *http.Request) (who string, err error) {
	if scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " "); strings.EqualFold(scheme, "Bearer") {
		return tokenWriter, a.checkToken(r, strings.TrimSpace(token))
	}
	if a.user != nil {
		if name, ok := a.user(r); ok {
			if err := a.origins.Check(r); err != nil {
				return "", &problem{status: http.StatusForbidden, reason: "a page of another site may not change anything here"}
			}
			return name, nil
		}
	}
	if a.token == "" {
		return "", a.tokenless()
	}
	return "", unauthorized("", `send the header "Authorization: Bearer", with the service's API_TOKEN`+a.orSignIn())
}

// checkToken lets a right token pass, however many wrong ones came from the same
// address: a program is not held up by another behind the same router. So what is
// limited is what guesses cost; that none is right is for the token to see to,
// which is to be as long as tokenless says.
func (a *api) checkToken(r *http.Request, token string) error {
	if a.token == "" {
		return a.tokenless()
	}
	// Of hashes, so that the time does not tell the length either.
	given, want := sha256.Sum256([]byte(token)), sha256.Sum256([]byte(a.token))
	if subtle.ConstantTimeCompare(given[:], want[:]) == 1 {
		return nil
	}
	if a.wrongToken != nil {
		if wait := a.wrongToken(r); wait > 0 {
			return tooManyTokens(wait)
		}
	}
	return unauthorized(`, error="invalid_token"`, "the token is not the service's API_TOKEN")
}

// tooManyTokens tells a client to wait (RFC 6585 section 4).
func tooManyTokens(wait time.Duration) *problem {
	seconds := strconv.Itoa(int(wait / time.Second))
	return &problem{
		status: http.StatusTooManyRequests,
		reason: "too many wrong tokens from this address: wait " + seconds + " seconds, and send the service's API_TOKEN",
		header: header("Retry-After", seconds),
	}
}

func unauthorized(because, reason string) *problem {
	return &problem{
		status: http.StatusUnauthorized,
		reason: reason,
		header: header("WWW-Authenticate", `Bearer realm="properties"`+because), // RFC 6750 section 3
	}
}

func (a *api) tokenless() *problem {
	return &problem{
		status: http.StatusForbidden,
		reason: "this service has no API_TOKEN, so no token is right: start it with one, such as the output of: openssl rand -hex 32" + a.orSignIn(),
	}
}

func (a *api) orSignIn() string {
	if a.user == nil {
		return ""
	}
	return "; or sign in at /admin/"
}

// createProperty adds a property.
func (a *api) createProperty(w http.ResponseWriter, r *http.Request) error {
	f, err := choose(w.Header(), r)
	if err != nil {
		return err
	}
	who, err := a.writer(r)
	if err != nil {
		return err
	}
	d, err := readDraft(w, r)
	if err != nil {
		return err
	}
	row, err := a.edit.Create(r.Context(), who, d.over(edit.Property{}))
	if err != nil {
		return err
	}
	w.Header().Set("Location", pathOf(row.ID))
	written(w, r, f, http.StatusCreated, db.GetPropertyRow(row))
	return nil
}

// changeProperty makes of a property what the function makes of it and of what
// the client says.
func (a *api) changeProperty(change func(draft, edit.Property) (edit.Property, error)) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		f, err := choose(w.Header(), r)
		if err != nil {
			return err
		}
		who, err := a.writer(r)
		if err != nil {
			return err
		}
		id, err := idOf(r)
		if err != nil {
			return err
		}
		d, err := readDraft(w, r)
		if err != nil {
			return err
		}
		row, err := a.edit.Change(r.Context(), who, id, func(current db.LockPropertyRow) (edit.Property, error) {
			if err := a.precondition(r, f, current); err != nil {
				return edit.Property{}, err
			}
			return change(d, edit.Of(current))
		})
		if err != nil {
			return err
		}
		written(w, r, f, http.StatusOK, db.GetPropertyRow(row))
		return nil
	}
}

// deleteProperty deletes a property.
func (a *api) deleteProperty(w http.ResponseWriter, r *http.Request) error {
	f, err := choose(w.Header(), r)
	if err != nil {
		return err
	}
	who, err := a.writer(r)
	if err != nil {
		return err
	}
	id, err := idOf(r)
	if err != nil {
		return err
	}
	err = a.edit.Delete(r.Context(), who, id, func(current db.LockPropertyRow) error {
		return a.precondition(r, f, current)
	})
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// written answers a change with the property as it is now. A person is sent to
// its page, so that reloading that does not make the change again.
func written(w http.ResponseWriter, r *http.Request, f format, status int, row db.GetPropertyRow) {
	w.Header().Set("Cache-Control", "no-store")
	if f == asHTML {
		http.Redirect(w, r, pathOf(row.ID), http.StatusSeeOther)
		return
	}
	body := appendProperty(nil, row)
	w.Header().Set("Content-Location", pathOf(row.ID)) // the body is what a GET there brings
	if r.Method != http.MethodPut {
		// After a PUT it would say that what the client sent is kept to the
		// byte (RFC 9110 section 9.3.4).
		w.Header().Set("ETag", entityTag(body))
	}
	writeJSON(w, status, body)
}

// precondition compares the property, which is locked, with the one that the
// client has seen (RFC 9110 section 13.1). It may have seen it as HTML or as
// JSON: the ETag of either will do. When a property was changed is not known, so
// a condition on a date is ignored.
//
//  1. Two clients read a property, and its ETag.  2. Both send what they make of
//     it, If-Match.  3. The first change is made.  4. The second, compared with the
//     row before 3, would undo the first unseen. So it is compared under the lock.
func (a *api) precondition(r *http.Request, f format, current db.LockPropertyRow) error {
	match, noMatch := conditions(r, "If-Match"), conditions(r, "If-None-Match")
	for i, tag := range noMatch { // compared weakly, RFC 9110 section 13.1.2
		noMatch[i] = strings.TrimPrefix(tag, "W/")
	}
	if match == nil && noMatch == nil {
		return nil
	}
	html, json, err := a.entityTags(db.GetPropertyRow(current))
	if err != nil {
		return err
	}
	if (match == nil || includes(match, html, json)) && !includes(noMatch, html, json) {
		return nil
	}
	seen := json
	if f == asHTML {
		seen = html
	}
	return &problem{
		status: http.StatusPreconditionFailed,
		reason: "the property is no longer, or not yet, as the condition says: get it, and decide again",
		header: header("ETag", seen),
	}
}

// conditions are the ETags of a header, nil if there is no such header.
func conditions(r *http.Request, name string) []string {
	values := r.Header.Values(name)
	if values == nil {
		return nil
	}
	return append([]string{}, web.SplitList(strings.Join(values, ","))...)
}

// includes reports whether one of our ETags, which are strong, is among those of
// a condition.
func includes(condition []string, tags ...string) bool {
	return slices.ContainsFunc(condition, func(c string) bool { return c == "*" || slices.Contains(tags, c) })
}

// entityTags are those of a property's answers.
func (a *api) entityTags(row db.GetPropertyRow) (html, json string, err error) {
	page, err := a.pages.Render("property", propertyPage{row})
	if err != nil {
		return "", "", fmt.Errorf("make the ETag of property %d: %w", row.ID, err)
	}
	return entityTag(page), entityTag(appendProperty(nil, row)), nil
}
