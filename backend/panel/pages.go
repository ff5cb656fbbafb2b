package panel

import (
	"embed"
	"html/template"
	"io/fs"
	"net/http"
	"time"

	"walcache/proxy/web"
)

//go:embed all:pages
var files embed.FS

func parsePages() (web.Pages, error) {
	pages, err := fs.Sub(files, "pages")
	if err != nil {
		return nil, err
	}
	return web.Parse(pages, template.FuncMap{
		"iso":  func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
		"when": func(t time.Time) string { return t.UTC().Format("2 Jan 2006, 15:04 UTC") },
	})
}

// view is what every page is made of.
type view struct {
	Title  string
	Crumbs []crumb // to the page, from the outermost inwards
	Body   any     // of the page itself

	// Set by show.
	User    string // who has logged in, if somebody has
	Token   string
	Message string
}

type crumb struct{ Name, URL string }

// show answers with a page. A message of the page before is on it, and gone with
// it.
func (p *Panel) show(w http.ResponseWriter, r *http.Request, v *visit, status int, name string, page view) error {
	if v != nil {
		page.User, page.Token = v.user.Name, p.sessions.Token(v.session.ID)
		page.Message = v.session.Message
	}
	html, err := p.pages.Render(name, page)
	if err != nil {
		return err
	}
	if page.Message != "" && r.Method == http.MethodGet {
		p.tell(r, v, "")
	}
	web.Write(w, status, html)
	return nil
}

// tell leaves a message for the next page, which does without where Redis has
// gone away meanwhile: what it tells of is done.
func (p *Panel) tell(r *http.Request, v *visit, message string) {
	if err := p.sessions.Tell(r.Context(), v.session, message); err != nil {
		p.explain(r, err) // to the log alone
	}
}

// styles answers with what the panel adds to the site's style sheet.
func styles(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	http.ServeFileFS(w, r, files, "pages/panel.css")
}
