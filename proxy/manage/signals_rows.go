package manage

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"time"

	"walcache/proxy/coherence"
)

// rows changes the service's data by the service's own API. It does not go by way
// of the proxy: the answer to a write through it waits until the proxy knows of
// the change, and that is what is to be measured.
type rows struct {
	upstream, token string
	tracker         *coherence.Tracker
	client          *http.Client
}

func (m *Manager) rows() rows {
	return rows{m.Upstream, m.APIToken, m.Tracker, &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true}, // a handful of requests, and nothing to close then
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// row is a property, as the service says it.
type row struct {
	ID          int64     `json:"id,omitempty"`
	Title       string    `json:"title,omitempty"`
	Description string    `json:"description,omitempty"`
	Price       string    `json:"price,omitempty"`
	Location    string    `json:"location,omitempty"`
	CreatedAt   time.Time `json:"created_at,omitzero"`
}

// mark is the form of the titles of a test's rows: nobody else has rows with such
// a title and this description. What is not exactly so is never deleted.
var mark = regexp.MustCompile("^" + markBegins + "[A-Z2-7]{26}$")

const (
	markBegins  = "walcache signal test "
	description = "This is a test property created to demonstrate signal-based cache invalidation."
)

func (r row) marked() bool { return mark.MatchString(r.Title) && r.Description == description }

const (
	properties  = "/properties/" // of the service's API
	callWithin  = 10 * time.Second
	maxCallBody = 8 << 20 // bytes
)

func propertyPath(id int64) string { return properties + strconv.FormatInt(id, 10) + "/" }

// cannot is why a test could not go on, and what to do.
type cannot struct {
	what, next string
	status     int // that the service answered, 0 if it did not, or if that says nothing
}

// lasting reports whether the same answer is to be expected again: the service was
// there, and neither at fault, nor busy, nor ahead of what was read before.
func (c cannot) lasting() bool {
	switch c.status {
	case 0, http.StatusRequestTimeout, http.StatusPreconditionFailed, http.StatusTooManyRequests:
		return false
	}
	return c.status < 500
}

// probeInstead is what to do where this API is not.
const probeInstead = `for a service with another API send {"probe": true} (proxy cache test-signals --probe)`

func (c cannot) Error() string { return c.what }

// call sends one request. A write goes on without a ctx that has ended: whoever
// breaks it off does not know what became of it. What this process knows to
// have changed is not read from the service's own cache. The error is a cannot.
func (s rows) call(ctx context.Context, method, path string, body any, status int, lines ...string) (*http.Response, []byte, error) {
	if method != http.MethodGet {
		ctx = context.WithoutCancel(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, callWithin)
	defer cancel()
	var text []byte
	if body != nil {
		text, _ = json.Marshal(body) // a row
	}
	req, err := http.NewRequestWithContext(ctx, method, s.upstream+path, bytes.NewReader(text))
	if err != nil {
		return nil, nil, cannot{what: "the upstream's URL is none", next: "see --upstream"}
	}
	req.Header.Set("Accept", asJSON)
	if method != http.MethodGet { // everybody reads, and who only reads needs no secret
		req.Header.Set("Authorization", "Bearer "+s.token)
	}
	if body != nil {
		req.Header.Set("Content-Type", asJSON)
	}
	if known := s.tracker.Known(); method == http.MethodGet && known != (coherence.Position{}) {
		req.Header.Set("Min-LSN", known.String())
	}
	for i := 0; i+1 < len(lines); i += 2 {
		req.Header.Set(lines[i], lines[i+1])
	}
	res, err := s.client.Do(req)
	if err != nil {
		return nil, nil, cannot{what: fmt.Sprintf("%s %s: the service cannot be asked: %v", method, path, errors.Unwrap(err)), next: "see whether it runs at --upstream, and test again"}
	}
	defer res.Body.Close()
	got, err := io.ReadAll(io.LimitReader(res.Body, maxCallBody))
	if err != nil {
		return nil, nil, cannot{what: fmt.Sprintf("%s %s: the answer broke off: %v", method, path, err), next: "see the service's log, and test again"}
	}
	if res.StatusCode != status {
		return res, got, refused(method, path, res.Status, res.StatusCode, got)
	}
	return res, got, nil
}

// refused puts in words what another status than the one expected means.
func refused(method, path, status string, code int, body []byte) cannot {
	c := cannot{fmt.Sprintf("%s %s: the service answers %.60q: %.200q", method, path, status, body), "see the service's log, and test again", code}
	switch code {
	case http.StatusUnauthorized, http.StatusForbidden:
		if c.next = "give this proxy the service's own API_TOKEN (--api-token-file)"; method == http.MethodGet {
			c.next = probeInstead // not everybody may read there
		}
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented:
		c.next = probeInstead
	}
	return c
}

// write sends a row, and returns it as the service has it now.
func (s rows) write(ctx context.Context, method, path string, r row, status int, lines ...string) (row, error) {
	_, text, err := s.call(ctx, method, path, r, status, lines...)
	if err != nil {
		return row{}, err
	}
	var now row
	if err := json.Unmarshal(text, &now); err != nil || now.ID == 0 {
		return row{}, cannot{fmt.Sprintf("%s %s: the answer is no property: %.200q", method, path, text), probeInstead, status}
	}
	return now, nil
}

// list returns some properties, the oldest first and at most a hundred, and what
// time it is there.
func (s rows) list(ctx context.Context, search string) (list []row, now time.Time, err error) {
	query := url.Values{"page": {"1"}, "page_size": {"100"}, "sort": {"created_at"}}
	if search != "" {
		query.Set("search", search)
	}
	path := properties + "?" + query.Encode()
	res, body, err := s.call(ctx, http.MethodGet, path, nil, http.StatusOK)
	if err != nil {
		return nil, now, err
	}
	var said struct{ Properties []row }
	if err := json.Unmarshal(body, &said); err != nil || said.Properties == nil {
		return nil, now, cannot{"GET " + path + ": the answer is no list of properties", probeInstead, http.StatusOK}
	}
	if now, err = http.ParseTime(res.Header.Get("Date")); err != nil {
		now = time.Now()
	}
	return said.Properties, now, nil
}

// find returns those of them that are the rows of tests.
func (s rows) find(ctx context.Context, text string) (found []row, now time.Time, err error) {
	list, now, err := s.list(ctx, text)
	return slices.DeleteFunc(list, func(r row) bool { return !r.marked() }), now, err
}

// seen returns a row that is one of a test, and the ETag to write by, so that it
// is written to only while it is so:
//
//  1. A row is found to be a test's.  2. Somebody makes a property of it that he
//     wants to keep.  3. The row is changed or deleted. So what is read in 1 is
//     written to only as it was then (RFC 9110, section 13.1.1).
func (s rows) seen(ctx context.Context, id int64) (r row, etag string, err error) {
	path := propertyPath(id)
	res, body, err := s.call(ctx, http.MethodGet, path, nil, http.StatusOK)
	if err != nil {
		return row{}, "", err
	}
	if err := json.Unmarshal(body, &r); err != nil || !r.marked() || r.ID != id {
		return row{}, "", cannot{what: "GET " + path + ": it is no row of a test any more, and stays as it is", next: "look at it"}
	}
	if etag = res.Header.Get("ETag"); etag == "" {
		return row{}, "", cannot{"GET " + path + ": no ETag to write to it by, so it stays as it is", "delete it by hand", http.StatusOK}
	}
	return r, etag, nil
}

// remove deletes a row, if it is one of a test and stays so until it is deleted.
// A row that is gone is removed.
func (s rows) remove(ctx context.Context, id int64) error {
	_, etag, err := s.seen(ctx, id)
	if err == nil {
		_, _, err = s.call(ctx, http.MethodDelete, propertyPath(id), nil, http.StatusNoContent, "If-Match", etag)
	}
	var refused cannot
	if errors.As(err, &refused) && refused.status == http.StatusNotFound {
		return nil
	}
	return err
}
