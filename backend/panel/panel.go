// Package panel is where people edit the data, at /admin/.
//
//	/admin/                            the properties: search, location, sort, pages
//	/admin/login/  /admin/logout/
//	/admin/password/                   one's own
//	/admin/properties/add/
//	/admin/properties/{id}/            change
//	/admin/properties/{id}/delete/     ask, then delete
//	/admin/properties/{id}/history/    who changed what of it, and when
//	/admin/history/                    the same of all
//
// It reads and writes the database itself, past every cache, and no answer of it
// may be stored: all say no-store.
//
// What a POST goes through, in this order: it must come from a page of this site
// (http.CrossOriginProtection), be a form of at most 128 KiB, belong to a session
// that still holds (package session), and carry the token of that session. Only
// then is it looked at.
//
// Two people may have the same form open. Each form carries the version of the
// property that it shows, and one that was sent after somebody else's is not
// written over it: it comes back with what is there now.
//
// # Behind the proxy
//
// A client's address, which limits its tries to log in, and whether it came by
// TLS are what the proxy says (X-Forwarded-For, X-Forwarded-Proto). That is
// believed of peers on this machine or in a private network, where the proxy
// runs, or of those that Config names. Whoever else reaches the port is taken by
// the address that the connection comes from.
package panel

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/v9"

	"walcache/backend/db"
	"walcache/backend/edit"
	"walcache/backend/panel/keep"
	"walcache/backend/panel/session"
	"walcache/backend/panel/throttle"
	"walcache/backend/trouble"
	"walcache/proxy/web"
)

const (
	// home is where all paths of the panel begin.
	home = "/admin/"
	// requestTimeout bounds what one request may wait for.
	requestTimeout = 10 * time.Second
	// maxBody bounds a form, in bytes.
	maxBody = 128 << 10
)

// Config is what a panel needs.
type Config struct {
	Pool *pgxpool.Pool
	// Redis keeps the sessions. Without one they are in this process's memory:
	// they end with it, and another process does not know them.
	Redis redis.UniversalClient
	// Prefix begins every key in Redis, as "wc:".
	Prefix string
	// SecretKey signs. It is to have passed CheckSecret. If empty one is made,
	// and the sessions end with this process.
	SecretKey string
	// TrustedProxies are the peers that are believed about the client; nil
	// stands for this machine and private networks.
	TrustedProxies []netip.Prefix
	// Outage logs that the database is away, for all who ask it; nil is one of this
	// panel's own.
	Outage *trouble.Outage
	Log    *slog.Logger
}

// Panel answers every request below /admin/, and /admin itself. It may be used
// concurrently.
type Panel struct {
	log      *slog.Logger
	pool     *pgxpool.Pool
	query    *db.Queries
	editor   *edit.Editor
	sessions *session.Sessions
	tries    *throttle.Throttle
	trusted  []netip.Prefix
	origins  *http.CrossOriginProtection
	pages    web.Pages
	mux      *http.ServeMux

	database, redis             *trouble.Outage
	tooManyTries, tooManyTokens tooMany
}

// New returns a panel, and connects to nothing yet. The error is one of the
// panel's own pages.
func New(c Config) (*Panel, error) {
	pages, err := parsePages()
	if err != nil {
		return nil, fmt.Errorf("read the panel's pages: %w", err)
	}
	c.Log = c.Log.With("component", "panel")
	memory := &keep.Memory{}
	var keeper session.Keeper = memory
	var counter throttle.Counter = memory
	if c.Redis != nil {
		shared := keep.NewRedis(c.Redis, c.Prefix)
		keeper, counter = shared, &keep.Counts{Shared: shared}
	} else {
		c.Log.Warn("sessions of the panel are in this process's memory, since there is no Redis: they end with it")
	}
	if c.SecretKey == "" {
		c.SecretKey = randomSecret()
		c.Log.Warn("sessions of the panel end with this process, since SECRET_KEY is not set")
	}
	if c.Outage == nil {
		c.Outage = trouble.NewOutage("database", c.Log)
	}
	if c.TrustedProxies == nil {
		c.TrustedProxies = private
	}
	p := &Panel{
		log:      c.Log,
		pool:     c.Pool,
		query:    db.New(c.Pool),
		editor:   edit.New(c.Pool),
		sessions: session.New(keeper, c.SecretKey),
		tries:    throttle.New(counter),
		trusted:  c.TrustedProxies,
		origins:  http.NewCrossOriginProtection(),
		pages:    pages,
		mux:      http.NewServeMux(),
		database: c.Outage,
		redis:    trouble.NewOutage("redis", c.Log),

		tooManyTries:  tooMany{what: "login put off: too many tries"},
		tooManyTokens: tooMany{what: "too many wrong API tokens"},
	}
	p.routes()
	return p, nil
}

func (p *Panel) routes() {
	p.handle("login/", route{open: true, get: p.showLogin, post: p.logIn})
	p.handle("logout/", route{open: true, post: p.logOut})
	p.handle("password/", route{get: p.showPassword, post: p.changePassword})
	p.mux.HandleFunc("GET "+home+"panel.css", styles) // for the page that says what is away, too
	p.handle("", route{get: p.list})
	p.handle("history/", route{get: p.allHistory})
	p.handle("properties/add/", route{get: p.showAdd, post: p.add})
	p.handle("properties/{id}/", route{get: p.showChange, post: p.change})
	p.handle("properties/{id}/delete/", route{get: p.showDelete, post: p.delete})
	p.handle("properties/{id}/history/", route{get: p.history})
	p.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		p.fail(w, r, nil, &problem{status: http.StatusNotFound, reason: "There is nothing at this address."})
	})
}

// A handler answers a request, or returns why it did not; then it has not begun
// to answer. v is who asks: nobody is nil, and only an open route sees that.
type handler func(w http.ResponseWriter, r *http.Request, v *visit) error

// route is what there is at a path.
type route struct {
	open bool // to those who have not logged in
	get  handler
	post handler
}

// handle also sends those to a path who ask for it without its slash.
func (p *Panel) handle(path string, to route) {
	p.mux.HandleFunc(home+path+"{$}", func(w http.ResponseWriter, r *http.Request) {
		if v, err := p.dispatch(w, r, to); err != nil {
			p.fail(w, r, v, err)
		}
	})
	p.mux.HandleFunc(strings.TrimSuffix(home+path, "/"), addSlash)
}

func (p *Panel) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer func() {
		switch v := recover(); v {
		case nil:
		case http.ErrAbortHandler:
			panic(v)
		default:
			p.fail(w, r, nil, fmt.Errorf("panic: %v\n%s", v, debug.Stack()))
		}
	}()
	ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
	defer cancel()
	w.Header().Set("Cache-Control", "no-store")
	p.mux.ServeHTTP(w, r.WithContext(ctx))
}

// dispatch finds the handler for a request, makes sure that it may have it, and
// calls it. It returns who asks, for the page that tells the error.
func (p *Panel) dispatch(w http.ResponseWriter, r *http.Request, to route) (*visit, error) {
	h := to.get
	switch {
	case r.Method == http.MethodPost:
		h = to.post
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		h = nil
	}
	if h == nil {
		return nil, notAllowed(to)
	}
	if r.Method == http.MethodPost {
		if err := p.readForm(w, r); err != nil {
			return nil, err
		}
	}
	v, err := p.visit(r)
	switch {
	case err != nil:
		return nil, err
	case to.open:
	case v == nil:
		return nil, p.askToLogIn(w, r)
	case r.Method == http.MethodPost:
		if err := p.checkToken(r, v); err != nil {
			return v, err
		}
	}
	return v, h(w, r, v)
}

// addSlash redirects with method and body.
func addSlash(w http.ResponseWriter, r *http.Request) {
	to := r.URL.EscapedPath() + "/"
	if r.URL.RawQuery != "" {
		to += "?" + r.URL.RawQuery
	}
	http.Redirect(w, r, to, http.StatusPermanentRedirect)
}

// seeOther sends the browser on with a GET (RFC 9110 section 15.4.4).
func seeOther(w http.ResponseWriter, r *http.Request, to string) {
	http.Redirect(w, r, to, http.StatusSeeOther)
}
