package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"walcache/backend/edit"
	"walcache/backend/queryset"
	"walcache/proxy/sandbox/sandboxtest"
	"walcache/schema"
)

func TestMain(m *testing.M) { sandboxtest.Main(m) }

// site is the service on a database.
type site struct {
	t    *testing.T
	url  string
	pool *pgxpool.Pool
	log  *logged
}

func newSite(t *testing.T, dsn string) *site {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	log := new(logged)
	handler, err := New(Config{
		Query: queryset.New(pool), Direct: queryset.New(pool), Edit: edit.New(pool),
		Token: token, User: signedIn, Release: "r1", Log: slog.New(slog.NewTextHandler(log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, pool: pool, log: log}
	s.serve(handler)
	return s
}

// serve has a handler answer what is sent from now on.
func (s *site) serve(handler http.Handler) {
	server := httptest.NewServer(handler)
	s.t.Cleanup(server.Close)
	s.url = server.URL
}

var discard = slog.New(slog.DiscardHandler)

// waitForServer is how long a server may take to be there again.
const waitForServer = 10 * time.Second

const token = "what programs write with"

// signedIn is the panel's part: a cookie that names the person.
func signedIn(r *http.Request) (name string, ok bool) {
	cookie, err := r.Cookie("session")
	if err != nil {
		return "", false
	}
	return cookie.Value, true
}

// newMigratedSite is a site on a migrated and otherwise empty database.
func newMigratedSite(t *testing.T) *site {
	t.Helper()
	dsn := sandboxtest.Postgres(t)
	if err := schema.Up(t.Context(), dsn); err != nil {
		t.Fatal(err)
	}
	return newSite(t, dsn)
}

func (s *site) exec(sql string, args ...any) {
	s.t.Helper()
	if _, err := s.pool.Exec(s.t.Context(), sql, args...); err != nil {
		s.t.Fatal(err)
	}
}

// do sends a request of a program, without a body; see send.
func (s *site) do(method, path string, header ...string) (*http.Response, string) {
	s.t.Helper()
	return s.send(method, path, "", append([]string{"Accept", "application/json"}, header...)...)
}

// send sends a request, follows no redirect, and returns the answer with its
// body.
func (s *site) send(method, path, content string, header ...string) (*http.Response, string) {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, strings.NewReader(content))
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	w, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer w.Body.Close()
	body, err := io.ReadAll(w.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return w, string(body)
}

// logged is a log to look into.
type logged struct {
	mu   sync.Mutex // guards the following
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) count(part string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), part)
}

const insertTwo = `INSERT INTO properties (id, title, description, price, location, created_at) VALUES
	(1, 'Loft', 'Two "rooms" & a 🏠', 2100, 'Nairobi', '2026-11-22 22:07:28.256157+03'),
	(2, E'Tab\there', '', 0.5, 'São Tomé', '2026-11-23 00:00:00+00')`

const (
	loft = `{"id":1,"title":"Loft","description":"Two \"rooms\" & a 🏠","price":"2100.00","location":"Nairobi","created_at":"2026-11-22T19:07:28.256157+00:00"}`
	tab  = `{"id":2,"title":"Tab\there","description":"","price":"0.50","location":"São Tomé","created_at":"2026-11-23T00:00:00+00:00"}`
	info = `,"cached":false,"cache_info":{"queryset_cache":"1 hour","page_cache":"15 minutes"}}`
)

func TestAnswers_ShapeAndTags(t *testing.T) {
	s := newMigratedSite(t)
	s.exec(insertTwo)
	for _, c := range []struct {
		path   string
		status int
		body   string
		groups string
	}{
		{"/properties/", 200, `{"properties":[` + tab + `,` + loft + `],"count":2` + info, `"properties", "releases"`},
		{"/properties/?location=Nairobi", 200, `{"properties":[` + loft + `],"count":1` + info, `"properties/location=Nairobi", "releases"`},
		{"/properties/?x=1&location=S%C3%A3o+Tom%C3%A9", 200, `{"properties":[` + tab + `],"count":1` + info, `"properties/location=S%C3%A3o%20Tom%C3%A9", "releases"`},
		{"/properties/?location=nairobi", 200, `{"properties":[],"count":0` + info, `"properties/location=nairobi", "releases"`},
		{"/properties/1/", 200, loft, `"properties/id=1", "releases"`},
		{"/properties/3/", 404, `{"error":"not found","reason":"there is no property 3"}`, `"properties/id=3", "releases"`},
		{"/properties/-3/", 404, `{"error":"not found","reason":"there is no property -3"}`, `"properties/id=-3", "releases"`},
	} {
		w, body := s.do("GET", c.path)
		if w.StatusCode != c.status || body != c.body {
			t.Errorf("%s: %d\n%s\nwant %d\n%s", c.path, w.StatusCode, body, c.status, c.body)
		}
		if got := w.Header.Get("Cache-Groups"); got != c.groups {
			t.Errorf("%s: Cache-Groups %s, want %s", c.path, got, c.groups)
		}
		expectHeader(t, c.path, w, "Cache-Control", "no-cache")
		expectHeader(t, c.path, w, "CDN-Cache-Control", "max-age=900")
		expectHeader(t, c.path, w, "As-Of-LSN", "request")
		expectHeader(t, c.path, w, "Vary", "Accept")
		expectHeader(t, c.path, w, "Content-Type", "application/json")
		if !json.Valid([]byte(body)) {
			t.Errorf("%s: not JSON: %s", c.path, body)
		}
	}
}

func expectHeader(t *testing.T, what string, w *http.Response, name, want string) {
	t.Helper()
	if got := strings.Join(w.Header.Values(name), "; "); got != want {
		t.Errorf("%s: %s %q, want %q", what, name, got, want)
	}
}

func TestList_NewestFirstAndTiesByID(t *testing.T) {
	s := newMigratedSite(t)
	s.exec(`INSERT INTO properties (title, description, price, location, created_at)
		SELECT 't', 'd', 1, 'l', timestamptz '2026-01-01' + (i % 3) * interval '1 day' FROM generate_series(1, 9) i`)
	_, body := s.do("GET", "/properties/?location=l")
	var list struct{ Properties []struct{ ID int } }
	if err := json.Unmarshal([]byte(body), &list); err != nil {
		t.Fatal(err)
	}
	var ids []int
	for _, p := range list.Properties {
		ids = append(ids, p.ID)
	}
	if want := []int{8, 5, 2, 7, 4, 1, 9, 6, 3}; !slices.Equal(ids, want) {
		t.Errorf("order %v, want %v", ids, want)
	}
}

func TestNoCache_IsStoredNowhere(t *testing.T) {
	s := newMigratedSite(t)
	s.exec(insertTwo)
	w, body := s.do("GET", "/properties/no-cache/")
	want := `{"properties":[` + tab + `,` + loft + `],"count":2,"cached":false,"note":"This response bypasses all caching"}`
	if body != want {
		t.Errorf("body %s", body)
	}
	expectHeader(t, "no-cache", w, "Cache-Control", "no-store")
	for _, name := range []string{"CDN-Cache-Control", "Cache-Groups", "ETag"} {
		expectHeader(t, "no-cache", w, name, "")
	}
}

func TestConditions_NotModifiedUntilTheRowChanges(t *testing.T) {
	s := newMigratedSite(t)
	s.exec(insertTwo)
	for _, path := range []string{"/properties/", "/properties/1/", "/properties/?location=Nairobi"} {
		full, body := s.do("GET", path)
		tag := full.Header.Get("ETag")
		for _, condition := range []string{tag, "W/" + tag, `"other", ` + tag, "*"} {
			w, rest := s.do("GET", path, "If-None-Match", condition)
			if w.StatusCode != http.StatusNotModified || rest != "" {
				t.Errorf("%s if not %s: %d %q", path, condition, w.StatusCode, rest)
			}
			for _, name := range []string{"ETag", "Cache-Control", "CDN-Cache-Control", "Cache-Groups"} {
				expectHeader(t, path, w, name, full.Header.Get(name))
			}
		}
		s.exec(`UPDATE properties SET price = price + 1 WHERE id = 1`)
		w, rest := s.do("GET", path, "If-None-Match", tag)
		if w.StatusCode != 200 || rest == body || w.Header.Get("ETag") == tag {
			t.Errorf("%s after a change: %d, ETag %s", path, w.StatusCode, w.Header.Get("ETag"))
		}
	}
}

func TestHead_SaysWhatGetSays(t *testing.T) {
	s := newMigratedSite(t)
	s.exec(insertTwo)
	for _, path := range []string{"/", "/properties", "/properties/", "/properties/1/", "/properties/9/", "/properties/no-cache/", "/healthz", "/nowhere/"} {
		get, _ := s.do("GET", path)
		head, body := s.do("HEAD", path)
		get.Header.Del("Date")
		head.Header.Del("Date")
		// A redirect's short body is for GET alone, and has a length there.
		if get.StatusCode/100 == 3 {
			get.Header.Del("Content-Length")
		}
		if body != "" || head.StatusCode != get.StatusCode || !maps.EqualFunc(get.Header, head.Header, slices.Equal) {
			t.Errorf("%s: HEAD %d %v\nGET %d %v", path, head.StatusCode, head.Header, get.StatusCode, get.Header)
		}
	}
}

func TestWrongRequests_AreToldWhatIsWrong(t *testing.T) {
	s := newMigratedSite(t)
	s.exec(insertTwo)
	for _, c := range []struct {
		method, path  string
		status        int
		field, reason string
	}{
		{"GET", "/properties/?location=a&location=b", 400, "location", "given more than once"},
		{"GET", "/properties/?location=%FF", 400, "location", "must be UTF-8"},
		{"GET", "/properties/?location=a%00", 400, "location", "must not contain a NUL"},
		{"GET", "/properties/?location=%zz", 400, "query", `invalid URL escape "%zz"`},
		{"GET", "/properties/abc/", 404, "", "there is no property abc"},
		{"GET", "/properties/01/", 404, "", "there is no property 01"},
		{"GET", "/properties/+1/", 404, "", "there is no property +1"},
		{"GET", "/properties/-0/", 404, "", "there is no property -0"},
		{"GET", "/properties/9223372036854775808/", 404, "", "there is no property 9223372036854775808"},
		{"GET", "/nowhere", 404, "", "there is nothing at this path"},
		{"GET", "/properties/?format=xml", 400, "format", "must be json or html"},
		{"GET", "/properties/1/?format=JSON", 400, "format", "must be json or html"},
		{"GET", "/properties/no-cache/?format=json&format=json", 400, "format", "given more than once"},
		{"GET", "/properties/?min_price=1e3", 400, "min_price", "must be a number with at most two decimals, such as 1250 or 1250.50"},
		{"GET", "/properties/?max_price=-1", 400, "max_price", "must be a number with at most two decimals, such as 1250 or 1250.50"},
		{"GET", "/properties/?max_price=100000000", 400, "max_price", "must be at most 99,999,999.99"},
		{"GET", "/properties/?min_price=10&max_price=9.99", 400, "min_price", "must not be more than max_price"},
		{"GET", "/properties/?sort=Price", 400, "sort", "must be one of -created_at, created_at, price, -price, title, -title, location, -location"},
		{"GET", "/properties/?page=0", 400, "page", "must be a whole number from 1 to 1000000000"},
		{"GET", "/properties/?page=1.5", 400, "page", "must be a whole number from 1 to 1000000000"},
		{"GET", "/properties/?page=9999999999999999999999", 400, "page", "must be a whole number from 1 to 1000000000"},
		{"GET", "/properties/?page_size=101", 400, "page_size", "must be a whole number from 1 to 100"},
		{"GET", "/properties/?page_size=+5", 400, "page_size", "must be a whole number from 1 to 100"},
		{"GET", "/properties/?search=" + strings.Repeat("x", 256), 400, "search", "must have at most 255 characters"},
		{"PUT", "/properties/", 405, "", "use GET, HEAD or POST"},
		{"POST", "/properties/1/", 405, "", "use GET, HEAD, PUT, PATCH or DELETE"},
		{"OPTIONS", "/properties/no-cache/", 405, "", "use GET or HEAD"},
		{"POST", "/", 405, "", "use GET or HEAD"},
		{"PUT", "/healthz", 405, "", "use GET or HEAD"},
	} {
		what := c.method + " " + c.path
		w, body := s.do(c.method, c.path)
		var got struct{ Error, Field, Reason string }
		if err := json.Unmarshal([]byte(body), &got); err != nil {
			t.Errorf("%s: %v: %s", what, err, body)
		}
		if w.StatusCode != c.status || got.Field != c.field || got.Reason != c.reason || got.Error != strings.ToLower(http.StatusText(c.status)) {
			t.Errorf("%s: %d %s", what, w.StatusCode, body)
		}
		allow, _ := strings.CutPrefix(c.reason, "use ")
		if c.status != 405 {
			allow = ""
		}
		expectHeader(t, what, w, "Allow", strings.ReplaceAll(allow, " or", ","))
		expectHeader(t, what, w, "Cache-Control", "no-store")
		expectHeader(t, what, w, "CDN-Cache-Control", "")
		expectHeader(t, what, w, "Cache-Groups", "")
	}
}

func TestRedirects_HomeAndMissingSlash(t *testing.T) {
	s := newMigratedSite(t)
	for _, c := range []struct {
		method, path string
		status       int
		location     string
	}{
		{"GET", "/", 302, "/properties/"},
		{"GET", "/properties", 301, "/properties/"},
		{"HEAD", "/properties", 301, "/properties/"},
		{"POST", "/properties", 308, "/properties/"},
		{"GET", "/properties?location=a%20b", 301, "/properties/?location=a%20b"},
		{"GET", "/properties/1", 301, "/properties/1/"},
		{"DELETE", "/properties/1", 308, "/properties/1/"},
		{"GET", "/properties/a%2Fb", 301, "/properties/a%2Fb/"},
		{"GET", "/properties/no-cache", 301, "/properties/no-cache/"},
	} {
		w, _ := s.do(c.method, c.path)
		if w.StatusCode != c.status || w.Header.Get("Location") != c.location {
			t.Errorf("%s %s: %d to %q, want %d to %q", c.method, c.path, w.StatusCode, w.Header.Get("Location"), c.status, c.location)
		}
	}
}

func TestPanic_IsA500ThatIsLogged(t *testing.T) {
	log := new(logged)
	w := httptest.NewRecorder()
	handler, err := New(Config{Log: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	handler.ServeHTTP(w, httptest.NewRequest("GET", "/properties/?format=json", nil))
	if w.Code != 500 || w.Header().Get("Cache-Control") != "no-store" || !json.Valid(w.Body.Bytes()) {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}
	if log.count("request failed") != 1 || log.count("listProperties") == 0 {
		t.Error("the log does not say where")
	}
}

func TestDatabaseAway_Is503UntilItIsBack(t *testing.T) {
	server := sandboxtest.OwnPostgres(t, nil)
	if err := schema.Up(t.Context(), server.DSN("postgres")); err != nil {
		t.Fatal(err)
	}
	s := newSite(t, server.DSN("postgres"))
	s.exec(insertTwo)
	if w, body := s.do("GET", "/properties/1/"); w.StatusCode != 200 {
		t.Fatalf("%d %s", w.StatusCode, body)
	}

	if err := server.Crash(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		for _, path := range []string{"/properties/", "/properties/1/", "/properties/no-cache/"} {
			w, body := s.do("GET", path)
			if w.StatusCode != 503 || !json.Valid([]byte(body)) {
				t.Errorf("%s: %d %s", path, w.StatusCode, body)
			}
			expectHeader(t, path, w, "Retry-After", "2")
			expectHeader(t, path, w, "Cache-Control", "no-store")
			expectHeader(t, path, w, "CDN-Cache-Control", "")
			expectHeader(t, path, w, "Cache-Groups", "")
		}
	}
	if w, _ := s.do("GET", "/healthz"); w.StatusCode != 200 {
		t.Errorf("healthz %d", w.StatusCode)
	}

	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	sandboxtest.Eventually(t, waitForServer, func() error {
		w, body := s.do("GET", "/properties/1/")
		if w.StatusCode != 200 {
			return fmt.Errorf("%d %s", w.StatusCode, body)
		}
		return nil
	})
	if n := s.log.count("database unavailable"); n != 1 {
		t.Errorf("logged the outage %d times, want once in its first seconds", n)
	}
	if n := s.log.count("database available again"); n != 1 {
		t.Errorf("logged the end of the outage %d times", n)
	}
}

func TestBeforeMigration_Is503(t *testing.T) {
	s := newSite(t, sandboxtest.Postgres(t))
	if w, body := s.do("GET", "/properties/"); w.StatusCode != 503 {
		t.Errorf("%d %s", w.StatusCode, body)
	}
}
