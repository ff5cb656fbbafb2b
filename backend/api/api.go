// Package api answers HTTP requests from the database, in JSON, and says on
// each answer what a cache may do with it.
//
// An answer that was read from the database, a missing property's 404
// included, carries
//
//	Cache-Control: no-cache            a browser asks every time (a 304 is cheap)
//	CDN-Cache-Control: max-age=900     the proxy may keep it (RFC 9213)
//	Cache-Groups: "properties/id=42"   the tags of what was read (RFC 9875)
//
// and the proxy ends it as soon as one of these tags moves. No handler names a
// tag: package queryset notes them as it reads. Everything else (an error, a
// wrong request) says no-store: nothing in the database would end it.
package api

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"walcache/backend/queryset"
)

// queryTimeout bounds what one request may ask of the database, the wait for
// a free connection included.
const queryTimeout = 10 * time.Second

type api struct {
	query  *queryset.Querier
	log    *slog.Logger
	outage outage
	mux    *http.ServeMux
}

// New returns the service's handler. It logs failures, and no requests.
func New(query *queryset.Querier, log *slog.Logger) http.Handler {
	a := &api{query: query, log: log, outage: outage{log: log}, mux: http.NewServeMux()}
	a.handle("/{$}", home)
	a.handle("/healthz", health)
	a.handleSlashed("/properties/", a.reading(a.listProperties))
	a.handleSlashed("/properties/no-cache/", a.reading(a.listPropertiesUncached))
	a.handleSlashed("/properties/{id}/", a.reading(a.getProperty))
	a.mux.HandleFunc("/", a.noRoute)
	return a
}

// A handler answers the request, or returns why it did not; then it has not
// begun to answer. The error is a problem for the client to read, or whatever
// reading the database returned.
type handler func(w http.ResponseWriter, r *http.Request) error

func (a *api) handle(path string, h handler) {
	a.mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
		err := error(&problem{status: http.StatusMethodNotAllowed, reason: "use GET or HEAD"})
		if r.Method == http.MethodGet || r.Method == http.MethodHead {
			err = h(w, r)
		}
		if err != nil {
			a.fail(w, r, err)
		}
	})
}

// handleSlashed also sends those to path who ask for it without its slash.
func (a *api) handleSlashed(path string, h handler) {
	a.handle(path+"{$}", h)
	a.mux.HandleFunc(strings.TrimSuffix(path, "/"), addSlash)
}

// reading bounds the time of a handler that reads the database, and notes
// that the database answered.
func (a *api) reading(h handler) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		ctx, cancel := context.WithTimeout(r.Context(), queryTimeout)
		defer cancel()
		err := h(w, r.WithContext(ctx))
		if err == nil {
			a.outage.end()
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
	http.Redirect(w, r, "/properties/", http.StatusFound)
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
