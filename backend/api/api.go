// Package api answers HTTP requests about properties, in HTML for people and in
// JSON for programs at the same URLs, and says on each answer what a cache may
// do with it.
//
//	GET                /properties/           all, or what a query looks for
//	POST               /properties/           add one
//	GET                /properties/no-cache/  all, past every cache
//	GET                /properties/{id}/      one
//	PUT PATCH DELETE   /properties/{id}/      replace, change, delete it
//	GET                /static/...            the style sheets of the pages
//	GET                /healthz
//
// ?format=json or ?format=html says which is wanted, else Accept does; see
// choose. A change is made by whoever has the API token, or is signed in to the
// panel; see writer. Too many wrong tokens from one address get a 429. Package
// edit says what a property must be.
//
// An answer that was read from the database, a missing property's 404
// included, carries
//
//	Cache-Control: no-cache                        a browser asks every time (a 304 is cheap)
//	CDN-Cache-Control: max-age=900                 the proxy may keep it (RFC 9213)
//	Cache-Groups: "properties/id=42", "releases"   the tags of what was read (RFC 9875)
//	As-Of-LSN: request                             as of when it is; see queryset.Reads.AsOf
//
// and the proxy ends it as soon as one of these tags moves. No handler names a
// tag: package queryset notes them as it reads. Everything else (an error, a
// wrong request, a change) says no-store: nothing in the database would end it.
package api

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"path"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"walcache/backend/edit"
	"walcache/backend/queryset"
	"walcache/backend/trouble"
	"walcache/proxy/coherence"
	"walcache/proxy/web"
)

// queryTimeout bounds what one request may ask of the database, the wait for
// a free connection included.
const queryTimeout = 10 * time.Second

//go:embed templates
var templates embed.FS

// Config is what the service answers from, and who may change it.
type Config struct {
	Query  *queryset.Querier // answers reads, perhaps from a cache
	Direct *queryset.Querier // answers /properties/no-cache/, from no cache
	Edit   *edit.Editor      // makes changes
	// Token is the secret with which programs change properties. Without one
	// none may.
	Token string
	// User names the person who is signed in to the panel with this request.
	// Without it nobody is. It may be called concurrently.
	User func(*http.Request) (name string, ok bool)
	// WrongToken is told of a request with a wrong token, and says how many
	// whole seconds whoever sent it has to wait; 0 if it was not one too many. Without
	// it none is. It may be called concurrently.
	WrongToken func(*http.Request) time.Duration
	// Release names the release, for /healthz.
	Release string
	// Current reports whether there is no newer release: what an older one answers
	// is not kept. nil is always so. It may be called concurrently.
	Current func() bool
	// Outage logs that the database is away, for all who ask it; nil is one of this
	// API's own.
	Outage *trouble.Outage
	Log    *slog.Logger // of failures; requests are not logged
}

type api struct {
	query, direct *queryset.Querier
	edit          *edit.Editor
	token         string
	user          func(*http.Request) (string, bool)
	origins       *http.CrossOriginProtection
	release       string
	current       func() bool // nil is true
	log           *slog.Logger
	pages         web.Pages
	unpaged       unpaged
	wrongToken    func(*http.Request) time.Duration // nil always says 0
	outage        *trouble.Outage
	mux           *http.ServeMux
}

// New returns the service's handler. It fails only if a page of this program is
// wrong.
func New(c Config) (http.Handler, error) {
	files, err := fs.Sub(templates, "templates")
	if err != nil {
		return nil, fmt.Errorf("read the pages: %w", err)
	}
	pages, err := web.Parse(files, helpers)
	if err != nil {
		return nil, fmt.Errorf("read the pages: %w", err)
	}
	c.Log = c.Log.With("component", "api")
	if c.Outage == nil {
		c.Outage = trouble.NewOutage("database", c.Log)
	}
	a := &api{
		query: c.Query, direct: c.Direct, edit: c.Edit,
		token: c.Token, user: c.User, origins: http.NewCrossOriginProtection(),
		release: c.Release, current: c.Current, log: c.Log, wrongToken: c.WrongToken, outage: c.Outage,
		pages: pages, unpaged: make(unpaged, mostUnpaged), mux: http.NewServeMux(),
	}
	a.route()
	return a, nil
}

func (a *api) route() {
	a.handle("/{$}", methods{"GET": home})
	a.handle("/healthz", methods{"GET": a.health})
	a.handle(web.AssetPrefix, methods{"GET": asset})
	a.handleSlashed(listPath, methods{
		"GET":  a.querying(a.listProperties),
		"POST": a.querying(a.createProperty),
	})
	a.handleSlashed(listPath+"no-cache/", methods{"GET": a.querying(a.listPropertiesUncached)})
	a.handleSlashed(listPath+"{id}/", methods{
		"GET":    a.querying(a.getProperty),
		"PUT":    a.querying(a.changeProperty(replace)),
		"PATCH":  a.querying(a.changeProperty(modify)),
		"DELETE": a.querying(a.deleteProperty),
	})
	a.mux.HandleFunc("/", a.noRoute)
}

// A handler answers the request, or returns why it did not; then it has not
// begun to answer. The error is a problem for the client to read, or whatever
// asking the database returned.
type handler func(w http.ResponseWriter, r *http.Request) error

// methods are what may be done at a path. HEAD is a GET whose body net/http
// leaves out.
type methods map[string]handler

func (m methods) allowed() (names []string) {
	for _, name := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"} {
		if _, ok := m[strings.Replace(name, "HEAD", "GET", 1)]; ok {
			names = append(names, name)
		}
	}
	return names
}

func (a *api) handle(path string, m methods) {
	allowed := m.allowed()
	last := len(allowed) - 1
	refuse := func(http.ResponseWriter, *http.Request) error {
		return &problem{
			status: http.StatusMethodNotAllowed,
			reason: "use " + strings.Join(allowed[:last], ", ") + " or " + allowed[last],
			header: header("Allow", strings.Join(allowed, ", ")),
		}
	}
	a.mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
		do := refuse
		if slices.Contains(allowed, r.Method) {
			do = m[strings.Replace(r.Method, "HEAD", "GET", 1)]
		}
		if err := do(w, r); err != nil {
			a.fail(w, r, err)
		}
	})
}

// handleSlashed also sends those to path who ask for it without its slash.
func (a *api) handleSlashed(path string, m methods) {
	a.handle(path+"{$}", m)
	a.mux.HandleFunc(strings.TrimSuffix(path, "/"), addSlash)
}

// querying bounds the time of a handler that asks the database, and notes that
// the database answered.
func (a *api) querying(h handler) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		ctx, cancel := context.WithTimeout(r.Context(), queryTimeout)
		defer cancel()
		err := h(w, r.WithContext(ctx))
		if err == nil {
			a.outage.End()
		}
		return err
	}
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer func() {
		switch v := recover(); v {
		case nil:
		case http.ErrAbortHandler:
			panic(v)
		default:
			a.fail(w, r, fmt.Errorf("panic: %v\n%s", v, debug.Stack()))
		}
	}()
	w.Header().Set("X-Content-Type-Options", "nosniff")
	a.mux.ServeHTTP(w, r)
}

func home(w http.ResponseWriter, r *http.Request) error {
	http.Redirect(w, r, listPath, http.StatusFound)
	return nil
}

// asset serves a style sheet, which is as old as the release. One that there is
// none of is perhaps a newer release's, and whoever has that will be asked too.
func asset(w http.ResponseWriter, r *http.Request) error {
	if url, err := web.Asset(path.Base(r.URL.Path)); err != nil || url != r.URL.Path {
		return &problem{status: http.StatusNotFound, reason: "there is nothing at this path"}
	}
	if err := dependent(w.Header(), []coherence.Tag{released}, coherence.AsOfRequest); err != nil {
		return err
	}
	web.Assets().ServeHTTP(w, r)
	return nil
}

func (a *api) noRoute(w http.ResponseWriter, r *http.Request) {
	a.fail(w, r, &problem{status: http.StatusNotFound, reason: "there is nothing at this path"})
}

// addSlash redirects, by 308 where a 301 would let the client turn the request
// into a GET.
func addSlash(w http.ResponseWriter, r *http.Request) {
	to := r.URL.EscapedPath() + "/"
	if r.URL.RawQuery != "" {
		to += "?" + r.URL.RawQuery
	}
	status := http.StatusPermanentRedirect
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		status = http.StatusMovedPermanently
	}
	http.Redirect(w, r, to, status)
}
