package api

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"walcache/backend/queryset"
)

// listProperties answers all properties, or with ?location=X those of one
// location.
func (a *api) listProperties(w http.ResponseWriter, r *http.Request) error {
	location, filtered, err := locationOf(r)
	if err != nil {
		return err
	}
	ctx, reads := queryset.Collect(r.Context())
	if filtered {
		rows, err := a.query.ListPropertiesByLocation(ctx, location)
		return answerList(w, r, reads, rows, err)
	}
	rows, err := a.query.ListProperties(ctx)
	return answerList(w, r, reads, rows, err)
}

func answerList[R row](w http.ResponseWriter, r *http.Request, reads *queryset.Reads, rows []R, err error) error {
	if err != nil {
		return fmt.Errorf("list properties: %w", err)
	}
	if err := cacheable(w, reads); err != nil {
		return err
	}
	withBody(func(b []byte) []byte {
		b = appendList(b, rows)
		b = append(b, `,"cached":false,"cache_info":{"queryset_cache":"1 hour","page_cache":"15 minutes"}}`...)
		serveBody(w, r, b)
		return b
	})
	return nil
}

// listPropertiesUncached answers all properties past every cache.
func (a *api) listPropertiesUncached(w http.ResponseWriter, r *http.Request) error {
	rows, err := a.query.ListProperties(r.Context())
	if err != nil {
		return fmt.Errorf("list properties: %w", err)
	}
	w.Header().Set("Cache-Control", "no-store")
	withBody(func(b []byte) []byte {
		b = appendList(b, rows)
		b = append(b, `,"cached":false,"note":"This response bypasses all caching"}`...)
		writeJSON(w, http.StatusOK, b)
		return b
	})
	return nil
}

// getProperty answers one property. That there is none is an answer like any
// other: it may be kept, and ends when the row appears.
func (a *api) getProperty(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("id")
	missing := &problem{status: http.StatusNotFound, reason: "there is no property " + name}
	id, err := strconv.ParseInt(name, 10, 64)
	if err != nil || strconv.FormatInt(id, 10) != name {
		return missing // as are 042 and +42: one property, one URL
	}
	ctx, reads := queryset.Collect(r.Context())
	property, err := a.query.GetProperty(ctx, id)
	exists := !errors.Is(err, pgx.ErrNoRows)
	if err != nil && exists {
		return fmt.Errorf("get property %d: %w", id, err)
	}
	if err := cacheable(w, reads); err != nil {
		return err
	}
	if !exists {
		missing.write(w)
		return nil
	}
	withBody(func(b []byte) []byte {
		b = appendProperty(b, property)
		serveBody(w, r, b)
		return b
	})
	return nil
}

// locationOf reads the query parameter location, and whether there is one.
// Parameters that it does not know are ignored.
func locationOf(r *http.Request) (location string, given bool, err error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return "", false, &problem{status: http.StatusBadRequest, field: "query", reason: err.Error()}
	}
	values := query["location"]
	if len(values) == 0 {
		return "", false, nil
	}
	wrong := ""
	switch location = values[0]; {
	case len(values) > 1:
		wrong = "given more than once"
	case location == "":
		wrong = "must not be empty"
	case !utf8.ValidString(location):
		wrong = "must be UTF-8"
	case strings.ContainsRune(location, 0):
		wrong = "must not contain a NUL"
	default:
		return location, true, nil
	}
	return "", true, &problem{status: http.StatusBadRequest, field: "location", reason: wrong}
}
