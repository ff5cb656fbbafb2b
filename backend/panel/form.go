package panel

import (
	"crypto/hmac"
	"errors"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"unicode"
)

// readForm makes sure that a POST was sent by a page of this site, and reads its
// body.
func (p *Panel) readForm(w http.ResponseWriter, r *http.Request) error {
	if err := p.checkOrigin(r); err != nil {
		return &problem{status: http.StatusForbidden, reason: "Another site has sent this request. Nothing was done."}
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/x-www-form-urlencoded" {
		return &problem{status: http.StatusUnsupportedMediaType, reason: "Send a form: application/x-www-form-urlencoded."}
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	err := r.ParseForm()
	var long *http.MaxBytesError
	switch {
	case errors.As(err, &long):
		return &problem{status: http.StatusRequestEntityTooLarge, reason: "A form may have at most 128 KiB. Shorten the description. Nothing was saved."}
	case err != nil:
		return &problem{status: http.StatusBadRequest, reason: "The form cannot be read. Go back and send it again."}
	}
	return nil
}

// checkOrigin compares the origin with the host that the browser knows, which a
// proxy may have replaced by that of this service.
func (p *Panel) checkOrigin(r *http.Request) error {
	if host := r.Header.Get("X-Forwarded-Host"); host != "" && p.trusts(peer(r)) {
		seen := *r
		seen.Host = host
		r = &seen
	}
	return p.origins.Check(r)
}

// checkToken makes sure that a form was made for the session that sends it.
func (p *Panel) checkToken(r *http.Request, v *visit) error {
	if hmac.Equal([]byte(r.PostForm.Get("token")), []byte(p.sessions.Token(v.session.ID))) {
		return nil
	}
	return &problem{status: http.StatusForbidden,
		reason: "This form belongs to another session. Nothing was done. Go back, reload the page and send it again."}
}

// local returns a path of this site to send a browser to, or the panel's own. A
// browser reads "//host" and "/\host" as another site, and drops tabs and line
// ends before it reads.
func local(next string) string {
	u, err := url.Parse(next)
	if err != nil || u.Scheme != "" || u.Host != "" || u.User != nil ||
		!strings.HasPrefix(next, "/") || strings.HasPrefix(next, "//") ||
		strings.ContainsFunc(next, func(c rune) bool { return c == '\\' || unicode.IsControl(c) }) {
		return home
	}
	return next
}

// asked is a parameter of the query, without what PostgreSQL does not take in a
// text.
func asked(r *http.Request, name string) string {
	return strings.ToValidUTF8(strings.ReplaceAll(r.URL.Query().Get(name), "\x00", ""), "\uFFFD")
}
