package panel

import (
	"bytes"
	"context"
	"fmt"
	"html"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/v9"

	"walcache/backend/panel/users"
	"walcache/proxy/sandbox/sandboxtest"
	"walcache/schema"
)

func TestMain(m *testing.M) { sandboxtest.Main(m) }

const (
	password = "correct horse battery"
	secret   = "for tests alone: 0123456789abcdefghijkl"
)

// site is a panel on a database and a Redis, with one user, Ada.
type site struct {
	t      *testing.T
	url    string
	panel  *Panel
	pool   *pgxpool.Pool
	redis  redis.UniversalClient
	prefix string
	log    *logged
}

// newSite makes a site on servers that are shared with other tests.
func newSite(t *testing.T) *site {
	t.Helper()
	url, prefix := sandboxtest.Redis(t)
	return newSiteOn(t, sandboxtest.Postgres(t), url, prefix)
}

// newSiteOn makes a site on these servers; with no Redis if its URL is "".
func newSiteOn(t *testing.T, dsn, redisURL, prefix string) *site {
	t.Helper()
	s := &site{t: t, prefix: prefix, log: new(logged)}
	if err := schema.Up(t.Context(), dsn); err != nil {
		t.Fatal(err)
	}
	var err error
	if s.pool, err = pgxpool.New(t.Context(), dsn); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.pool.Close)
	if redisURL != "" {
		options, err := redis.ParseURL(redisURL)
		if err != nil {
			t.Fatal(err)
		}
		options.MaxRetries = -1
		client := redis.NewClient(options)
		t.Cleanup(func() { client.Close() })
		s.redis = client
	}
	s.panel = s.newPanel(secret)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(s.log)
		}
	})
	server := httptest.NewServer(s.panel)
	t.Cleanup(server.Close)
	s.url = server.URL
	if err := users.Create(t.Context(), s.pool, "Ada", password); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *site) newPanel(secret string) *Panel {
	s.t.Helper()
	p, err := New(Config{Pool: s.pool, Redis: s.redis, Prefix: s.prefix, SecretKey: secret, Log: slog.New(slog.NewTextHandler(s.log, nil))})
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

// exec changes the database behind the panel's back.
func (s *site) exec(sql string, args ...any) {
	s.t.Helper()
	if _, err := s.pool.Exec(s.t.Context(), sql, args...); err != nil {
		s.t.Fatal(err)
	}
}

// text reads one value, as text.
func (s *site) text(sql string, args ...any) string {
	s.t.Helper()
	var value string
	if err := s.pool.QueryRow(s.t.Context(), sql, args...).Scan(&value); err != nil {
		s.t.Fatalf("%s: %v", sql, err)
	}
	return value
}

// insert adds a property and returns its id.
func (s *site) insert(title, price, location string) (id int64) {
	s.t.Helper()
	err := s.pool.QueryRow(s.t.Context(), `INSERT INTO properties (title, description, price, location, created_at)
		VALUES ($1, 'Bright.', $2::text::numeric, $3, clock_timestamp()) RETURNING id`, title, price, location).Scan(&id)
	if err != nil {
		s.t.Fatal(err)
	}
	return id
}

// keys are the keys in Redis that begin with the site's prefix and more.
func (s *site) keys(more string) []string {
	s.t.Helper()
	keys, err := s.redis.Keys(context.Background(), s.prefix+more+"*").Result()
	if err != nil {
		s.t.Fatal(err)
	}
	return keys
}

// browser is somebody with a cookie jar, who follows no redirect alone.
type browser struct {
	*site
	jar    http.CookieJar
	header http.Header // sent with each request
}

func (s *site) browser() *browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return &browser{s, jar, http.Header{}}
}

// answer is what a browser got.
type answer struct {
	*http.Response
	body string
}

// to is where an answer sends the browser.
func (a answer) to() string { return a.Header.Get("Location") }

func (b *browser) do(method, path string, form url.Values) answer {
	b.t.Helper()
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	r, err := http.NewRequestWithContext(b.t.Context(), method, b.url+path, body)
	if err != nil {
		b.t.Fatal(err)
	}
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return b.send(r)
}

func (b *browser) send(r *http.Request) answer {
	b.t.Helper()
	for name, values := range b.header {
		r.Header[name] = values
	}
	client := http.Client{Jar: b.jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	w, err := client.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer w.Body.Close()
	text, err := io.ReadAll(w.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	if got := w.Header.Get("Cache-Control"); got != "no-store" {
		b.t.Errorf("%s %s: Cache-Control %q", r.Method, r.URL.Path, got)
	}
	for _, name := range []string{"Cache-Groups", "CDN-Cache-Control", "ETag"} {
		if got := w.Header.Get(name); got != "" {
			b.t.Errorf("%s %s: %s %q", r.Method, r.URL.Path, name, got)
		}
	}
	return answer{w, string(text)}
}

func (b *browser) get(path string) answer {
	b.t.Helper()
	return b.do("GET", path, nil)
}

// hidden finds the hidden fields of the page's last form.
var hidden = regexp.MustCompile(`<input type="hidden" name="([a-z]+)" value="([^"]*)">`)

// submit loads a page and sends its form with these fields.
func (b *browser) submit(path string, fields ...string) answer {
	b.t.Helper()
	page := b.get(path)
	if page.StatusCode != 200 {
		b.t.Fatalf("GET %s: %d\n%s", path, page.StatusCode, page.body)
	}
	return b.resend(path, page.body, fields...)
}

// resend sends the form of a page that was loaded before.
func (b *browser) resend(path, page string, fields ...string) answer {
	b.t.Helper()
	form := url.Values{}
	for _, m := range hidden.FindAllStringSubmatch(page, -1) {
		form.Set(m[1], html.UnescapeString(m[2]))
	}
	for i := 0; i < len(fields); i += 2 {
		form.Set(fields[i], fields[i+1])
	}
	return b.do("POST", path, form)
}

func (b *browser) logIn(name, password string) answer {
	b.t.Helper()
	return b.submit("/admin/login/", "name", name, "password", password)
}

// ada is a browser in which Ada has logged in.
func (s *site) ada() *browser {
	s.t.Helper()
	b := s.browser()
	if w := b.logIn("Ada", password); w.StatusCode != 303 || w.to() != "/admin/" {
		s.t.Fatalf("log in: %d to %q\n%s", w.StatusCode, w.to(), w.body)
	}
	return b
}

// cookie is the session's, or nil.
func (b *browser) cookie() *http.Cookie {
	u, err := url.Parse(b.url)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, c := range b.jar.Cookies(u) {
		return c
	}
	return nil
}

// expect compares the status and looks for parts of the body.
func (a answer) expect(t *testing.T, status int, parts ...string) answer {
	t.Helper()
	if a.StatusCode != status {
		t.Errorf("%s %s: %d, want %d\n%s", a.Request.Method, a.Request.URL, a.StatusCode, status, a.body)
	}
	for _, part := range parts {
		if !strings.Contains(a.body, part) {
			t.Errorf("%s %s lacks %q\n%s", a.Request.Method, a.Request.URL, part, a.body)
		}
	}
	return a
}

// without looks for parts that must not be in the body.
func (a answer) without(t *testing.T, parts ...string) answer {
	t.Helper()
	for _, part := range parts {
		if strings.Contains(a.body, part) {
			t.Errorf("%s %s has %q\n%s", a.Request.Method, a.Request.URL, part, a.body)
		}
	}
	return a
}

func path(id int64, more string) string { return fmt.Sprintf("/admin/properties/%d/%s", id, more) }

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

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
