package panel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"walcache/backend/panel/users"
	"walcache/backend/trouble"
	"walcache/proxy/sandbox/sandboxtest"
)

func TestLogIn_AndOutAgain(t *testing.T) {
	s := newSite(t)
	b := s.browser()
	b.get("/admin/").expect(t, 303).without(t, "Properties")
	w := b.logIn(" ada ", password).expect(t, 303)
	cookie := w.Header.Get("Set-Cookie")
	if !regexp.MustCompile(`^session=[\w-]{43}; Path=/; HttpOnly; SameSite=Lax$`).MatchString(cookie) {
		t.Errorf("cookie %q", cookie)
	}
	page := b.get("/admin/").expect(t, 200, "Properties", "Logged in as <strong>Ada</strong>", "Log out Ada")
	if w := b.get("/admin/login/?next=/admin/history/").expect(t, 303); w.to() != "/admin/history/" {
		t.Errorf("somebody who has logged in is sent to %q", w.to())
	}

	id := b.cookie().Value
	w = b.resend("/admin/logout/", page.body).expect(t, 303)
	if w.to() != "/admin/login/" || !strings.Contains(w.Header.Get("Set-Cookie"), "Max-Age=0") {
		t.Errorf("sent to %q, cookie %q", w.to(), w.Header.Get("Set-Cookie"))
	}
	if keys := s.keys("session:"); len(keys) != 0 {
		t.Errorf("kept after logout: %q", keys)
	}
	b.header.Set("Cookie", "session="+id)
	b.get("/admin/").expect(t, 303)
	if log := s.log.String(); strings.Contains(log, id) || strings.Contains(log, password) {
		t.Errorf("a secret is in the log:\n%s", log)
	}
}

func TestLogIn_TellsNobodyWhichNamesExist(t *testing.T) {
	s := newSite(t)
	if err := users.Create(t.Context(), s.pool, "Bob", password); err != nil {
		t.Fatal(err)
	}
	s.exec(`UPDATE users SET active = false WHERE name = 'Bob'`)
	bodies := map[string]bool{}
	for _, try := range [][2]string{{"Ada", "wrong password"}, {"Eve", password}, {"Bob", password}} {
		w := s.browser().logIn(try[0], try[1]).expect(t, 403, `role="alert"`, "The name or the password is wrong, or the user is not active.", `value="`+try[0]+`"`)
		w.without(t, try[1])
		if w.Header.Get("Set-Cookie") != "" {
			t.Error("a cookie for a refused login")
		}
		bodies[strings.ReplaceAll(w.body, try[0], "NAME")] = true
	}
	if len(bodies) != 1 {
		t.Errorf("%d different answers", len(bodies))
	}
}

func TestLogIn_MakesANewSession(t *testing.T) {
	s := newSite(t)
	b := s.browser()
	planted := strings.Repeat("A", 43)
	b.header.Set("Cookie", "session="+planted)
	w := b.do("POST", "/admin/login/", url.Values{"name": {"Ada"}, "password": {password}}).expect(t, 303)
	first := w.Cookies()[0].Value
	if first == planted {
		t.Fatal("the session is the one that was planted")
	}
	b.get("/admin/").expect(t, 303) // with the planted cookie

	b.header.Set("Cookie", "session="+first)
	w = b.do("POST", "/admin/login/", url.Values{"name": {"Ada"}, "password": {password}}).expect(t, 303)
	if w.Cookies()[0].Value == first {
		t.Error("the old session goes on")
	}
	if keys := s.keys("session:"); len(keys) != 1 {
		t.Errorf("%d sessions are kept", len(keys))
	}
}

func TestLogIn_SendsOnlyToThisSite(t *testing.T) {
	for next, want := range map[string]string{
		"/admin/history/?page=2":   "/admin/history/?page=2",
		"/properties/1/":           "/properties/1/",
		"":                         "/admin/",
		"admin":                    "/admin/",
		"//evil.example":           "/admin/",
		"///evil.example":          "/admin/",
		`/\evil.example`:           "/admin/",
		`\\evil.example`:           "/admin/",
		"/\t/evil.example":         "/admin/",
		"/\n/evil.example":         "/admin/",
		" //evil.example":          "/admin/",
		"https://evil.example/":    "/admin/",
		"http:/evil.example":       "/admin/",
		"javascript:alert(1)":      "/admin/",
		"https:evil.example":       "/admin/",
		"/admin/\\..\\..\\evil":    "/admin/",
		"//evil.example/%2f..":     "/admin/",
		"/%zz":                     "/admin/",
		"//admin@evil.example/":    "/admin/",
		"/admin/\x00//evil.exampl": "/admin/",
	} {
		if got := local(next); got != want {
			t.Errorf("%q leads to %q", next, got)
		}
	}
	s := newSite(t)
	w := s.browser().submit("/admin/login/?next="+url.QueryEscape("//evil.example/"), "name", "Ada", "password", password)
	if w.StatusCode != 303 || w.to() != "/admin/" {
		t.Errorf("%d to %q", w.StatusCode, w.to())
	}
	w = s.browser().do("POST", "/admin/login/", url.Values{"name": {"Ada"}, "password": {password}, "next": {`/\evil.example`}})
	if w.StatusCode != 303 || w.to() != "/admin/" {
		t.Errorf("%d to %q", w.StatusCode, w.to())
	}
	b := s.browser()
	asked := b.get("/admin/history/?page=2").expect(t, 303)
	if w := b.submit(asked.to(), "name", "Ada", "password", password); w.to() != "/admin/history/?page=2" {
		t.Errorf("not sent back to what was asked for, but to %q", w.to())
	}
}

func FuzzLocal(f *testing.F) {
	for _, next := range []string{"/admin/", "//evil", `/\evil`, "https://evil", "/a?b=//c"} {
		f.Add(next)
	}
	base, err := url.Parse("http://site.example/admin/login/")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, next string) {
		to, err := base.Parse(local(next))
		if err != nil || to.Host != "site.example" || to.Scheme != "http" {
			t.Errorf("%q leads to %v, %v", next, to, err)
		}
	})
}

func TestThrottle_TooManyTriesWait(t *testing.T) {
	s := newSite(t)
	b := s.browser()
	for range 5 {
		b.logIn("Ada", "wrong password").expect(t, 403)
	}
	w := b.logIn("Ada", password).expect(t, 429, "Too many tries to log in. Wait ", `value="Ada"`)
	if after := w.Header.Get("Retry-After"); !regexp.MustCompile(`^([1-9]|[1-5]\d|60)$`).MatchString(after) {
		t.Errorf("Retry-After %q", after)
	}
	for _, key := range s.keys("login:") {
		if strings.Contains(strings.ToLower(key), "ada") {
			t.Errorf("the key %s names the account", key)
		}
		if left := s.redis.TTL(t.Context(), key).Val(); left <= 0 || left > 10*time.Minute {
			t.Errorf("%s lives for %v", key, left)
		}
	}
	// Somebody behind the same proxy, at another address, is not held up.
	other := s.browser()
	other.header.Set("X-Forwarded-For", "192.0.2.7")
	other.logIn("Ada", password).expect(t, 303)
}

func TestThrottle_SoManyAtOnceAreNotAllLookedAt(t *testing.T) {
	s := newSite(t)
	statuses := make(chan int)
	for range 12 {
		b := s.browser()
		go func() {
			w := b.do("POST", "/admin/login/", url.Values{"name": {"Ada"}, "password": {"wrong password"}})
			statuses <- w.StatusCode
		}()
	}
	got := map[int]int{}
	for range 12 {
		got[<-statuses]++
	}
	if got[403] != 5 || got[429] != 7 {
		t.Errorf("status: times %v", got)
	}
}

func TestClient_IsWhatTheProxySays(t *testing.T) {
	p := &Panel{trusted: private}
	for _, c := range []struct{ peer, forwarded, want string }{
		{"127.0.0.1:5", "", "127.0.0.1"},
		{"127.0.0.1:5", "192.0.2.7", "192.0.2.7"},
		{"[::1]:5", "2001:db8::1", "2001:db8::1"},
		{"[::ffff:10.0.0.3]:5", "192.0.2.7", "192.0.2.7"},
		{"172.18.0.2:5", "203.0.113.9, 192.0.2.7", "192.0.2.7"},             // the first is forged
		{"172.18.0.2:5", "192.0.2.7, 10.0.0.8", "192.0.2.7"},                // by way of a balancer
		{"127.0.0.1:5", "192.168.1.4", "192.168.1.4"},                       // in the same network
		{"127.0.0.1:5", "nonsense", "127.0.0.1"},                            //
		{"127.0.0.1:5", "192.0.2.7, nonsense", "127.0.0.1"},                 //
		{"198.51.100.1:5", "192.0.2.7", "198.51.100.1"},                     // past the proxy
		{"[2001:db8:ffff::1]:5", "192.0.2.7, 10.0.0.1", "2001:db8:ffff::1"}, //
		{"@", "192.0.2.7", "invalid IP"},                                    // a socket in the file system
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = c.peer
		if c.forwarded != "" {
			r.Header.Set("X-Forwarded-For", c.forwarded)
		}
		if got := p.client(r).Unmap().String(); got != c.want {
			t.Errorf("%s, forwarded for %q: %s, want %s", c.peer, c.forwarded, got, c.want)
		}
	}
}

func TestCookie_IsBoundToTheHostUnderTLS(t *testing.T) {
	s := newSite(t)
	b := s.browser()
	b.header.Set("X-Forwarded-Proto", "https")
	w := b.do("POST", "/admin/login/", url.Values{"name": {"Ada"}, "password": {password}}).expect(t, 303)
	cookie := w.Header.Get("Set-Cookie")
	if !regexp.MustCompile(`^__Host-session=[\w-]{43}; Path=/; HttpOnly; Secure; SameSite=Lax$`).MatchString(cookie) {
		t.Errorf("cookie %q", cookie)
	}
	// The name without the prefix is one that anybody on the way can set.
	id := w.Cookies()[0].Value
	b.jar = nil
	b.header.Set("Cookie", "session="+id)
	b.get("/admin/").expect(t, 303)
	b.header.Set("Cookie", "__Host-session="+id)
	b.get("/admin/").expect(t, 200)

	tls := httptest.NewTLSServer(s.panel)
	defer tls.Close()
	r, err := tls.Client().PostForm(tls.URL+"/admin/login/", url.Values{"name": {"Ada"}, "password": {"wrong password"}})
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != 403 {
		t.Errorf("over TLS %d", r.StatusCode)
	}

	r2 := httptest.NewRequest("GET", "/", nil)
	r2.RemoteAddr = "198.51.100.1:5"
	r2.Header.Set("X-Forwarded-Proto", "https")
	if s.panel.secure(r2) {
		t.Error("anybody is believed to have come by TLS")
	}
}

func TestSession_EndsWithPasswordOrRight(t *testing.T) {
	s := newSite(t)
	for what, end := range map[string]func(){
		"a new password": func() {
			if err := users.SetPassword(t.Context(), s.pool, "Ada", password); err != nil {
				t.Fatal(err)
			}
		},
		"deactivation": func() { s.exec(`UPDATE users SET active = false`) },
		"deletion": func() {
			s.exec(`DELETE FROM users`)
		},
	} {
		s.exec(`DELETE FROM users`)
		if err := users.Create(t.Context(), s.pool, "Ada", password); err != nil {
			t.Fatal(err)
		}
		one, two := s.ada(), s.ada()
		end()
		for _, b := range []*browser{one, two} {
			if b.get("/admin/").StatusCode != 303 {
				t.Errorf("a session goes on after %s", what)
			}
		}
		if keys := s.keys("session:"); len(keys) != 0 {
			t.Errorf("after %s are kept %q", what, keys)
		}
	}
}

func TestSession_ExpiresInRedis(t *testing.T) {
	s := newSite(t)
	s.ada()
	keys := s.keys("")
	if len(keys) != 4 { // the session, and three counts at zero
		t.Errorf("keys %q", keys)
	}
	for _, key := range keys {
		if left := s.redis.TTL(t.Context(), key).Val(); left <= 0 || left > 12*time.Hour {
			t.Errorf("%s lives for %v", key, left)
		}
	}
}

func TestSession_OutlivesAClearedCacheAndARestart(t *testing.T) {
	s := newSite(t)
	ada := s.ada()
	for _, key := range []string{"qs:all_properties", "page:x"} {
		if err := s.redis.Set(t.Context(), s.prefix+key, "1", time.Hour).Err(); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range append(s.keys("qs:"), s.keys("page:")...) {
		if err := s.redis.Del(t.Context(), key).Err(); err != nil {
			t.Fatal(err)
		}
	}
	ada.get("/admin/").expect(t, 200)

	again := httptest.NewServer(s.newPanel(secret))
	defer again.Close()
	cookie := ada.cookie()
	s.url = again.URL
	b := s.browser()
	b.header.Set("Cookie", cookie.String())
	b.get("/admin/").expect(t, 200)

	other := httptest.NewServer(s.newPanel(secret + "!"))
	defer other.Close()
	s.url = other.URL
	b.get("/admin/").expect(t, 303)
}

func TestUser_TellsTheAPIWhoAsks(t *testing.T) {
	s := newSite(t)
	ada := s.ada()
	r := httptest.NewRequest("POST", "/properties/", nil)
	if name, ok := s.panel.User(r); ok {
		t.Errorf("nobody is %q", name)
	}
	r.AddCookie(ada.cookie())
	if name, ok := s.panel.User(r); name != "Ada" || !ok {
		t.Errorf("Ada is %q, %v", name, ok)
	}
	s.exec(`UPDATE users SET active = false`)
	if name, ok := s.panel.User(r); ok {
		t.Errorf("an inactive user is %q", name)
	}
}

func TestWithoutRedis_SessionsAreInMemory(t *testing.T) {
	s := newSiteOn(t, sandboxtest.Postgres(t), "", "")
	ada := s.ada()
	ada.submit("/admin/properties/add/", "title", "Loft", "price", "1", "location", "x").expect(t, 303)
	ada.get("/admin/").expect(t, 200, "was added")
	ada.resend("/admin/logout/", ada.get("/admin/").body).expect(t, 303)
	ada.get("/admin/").expect(t, 303)
	for range 5 {
		ada.logIn("Ada", "wrong password").expect(t, 403)
	}
	ada.logIn("Ada", password).expect(t, 429)
	if n := strings.Count(s.log.String(), "no Redis"); n != 1 {
		t.Errorf("said %d times", n)
	}
}

func TestRedisAway_IsSaidUntilItIsBack(t *testing.T) {
	server := sandboxtest.OwnRedis(t)
	s := newSiteOn(t, sandboxtest.Postgres(t), server.URL(), "wc:")
	ada := s.ada()
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	form := url.Values{"name": {"Ada"}, "password": {password}}
	for range 3 {
		ada.get("/admin/").expect(t, 503, "Redis", "is away")
		ada.do("POST", "/admin/properties/add/", form).expect(t, 503)
		w := s.browser().do("POST", "/admin/login/", form).expect(t, 503, "Redis", "is away")
		if w.Header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
	}
	s.browser().get("/admin/login/").expect(t, 200)
	s.browser().get("/admin/panel.css").expect(t, 200)
	r := httptest.NewRequest("POST", "/properties/", nil)
	r.AddCookie(ada.cookie())
	if _, ok := s.panel.User(r); ok {
		t.Error("somebody has logged in")
	}
	if n := strings.Count(s.log.String(), "redis unavailable"); n == 0 || n > 5 {
		t.Errorf("logged %d times", n)
	}
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	sandboxtest.Eventually(t, 10*time.Second, func() error {
		if w := ada.do("POST", "/admin/login/", form); w.StatusCode != 303 {
			return fmt.Errorf("%d %s", w.StatusCode, w.body)
		}
		return nil
	})
	ada.get("/admin/").expect(t, 200)
	if n := strings.Count(s.log.String(), "redis available again"); n != 1 {
		t.Errorf("the end is logged %d times", n)
	}
}

func TestDatabaseAway_Is503UntilItIsBack(t *testing.T) {
	server := sandboxtest.OwnPostgres(t, nil)
	redisURL, prefix := sandboxtest.Redis(t)
	s := newSiteOn(t, server.DSN("postgres"), redisURL, prefix)
	ada := s.ada()
	if err := server.Crash(t.Context()); err != nil {
		t.Fatal(err)
	}
	ada.get("/admin/").expect(t, 503, "The database is away.")
	s.browser().do("POST", "/admin/login/", url.Values{"name": {"Ada"}, "password": {password}}).expect(t, 503, "The database is away.")
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	sandboxtest.Eventually(t, 10*time.Second, func() error {
		if w := ada.get("/admin/"); w.StatusCode != 200 {
			return fmt.Errorf("%d %s", w.StatusCode, w.body)
		}
		return nil
	})
	if log := s.log.String(); !strings.Contains(log, "database unavailable") || strings.Count(log, "database available again") != 1 {
		t.Errorf("the outage is not told, or not that it is over:\n%s", log)
	}
}

func TestCheckSecret_SaysHowToMakeOne(t *testing.T) {
	good := "q8Zt3mW0yB6nLr5kVx2cJf9hDs4gTa7pEuXoIiQwRvMzNbKj"
	if err := CheckSecret(good, false); err != nil {
		t.Error(err)
	}
	if err := CheckSecret(randomSecret(), false); err != nil {
		t.Error(err)
	}
	for key, want := range map[string]string{
		"":                             "is not set",
		"   ":                          "is not set",
		good[:31]:                      "has 31 characters, and needs at least 32",
		"your-secret-key-here":         "has 20 characters",
		"django-insecure-" + good:      "out of an example",
		"YOUR_SECRET_KEY_HERE_" + good: "out of an example",
		"change-me-change-me-change-me-change-me": "out of an example",
		strings.Repeat("a1", 20):                  "can be guessed",
	} {
		err := CheckSecret(key, false)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "try: ") ||
			!strings.Contains(err.Error(), "openssl rand -base64 48") || len(key) > 3 && strings.Contains(err.Error(), key) {
			t.Errorf("%q: %v, want %q", key, err, want)
		}
		if err := CheckSecret(key, true); err != nil {
			t.Errorf("%q in debug: %v", key, err)
		}
	}
}

func TestNew_MakesASecretAndSaysSo(t *testing.T) {
	s := newSite(t)
	a, b := s.newPanel(""), s.newPanel("")
	if a.sessions.Token("x") == b.sessions.Token("x") {
		t.Error("the secret is always the same")
	}
	if n := strings.Count(s.log.String(), "SECRET_KEY is not set"); n != 2 {
		t.Errorf("said %d times", n)
	}
}

func TestExplain_TheSameErrorHasOneAnswer(t *testing.T) {
	discard := slog.New(slog.DiscardHandler)
	p := &Panel{log: discard, database: trouble.NewOutage("database", discard)}
	for err, want := range map[error]struct {
		status int
		reason string
	}{
		&pgconn.PgError{Code: "57P03"}:                   {503, "The database is away."},
		context.DeadlineExceeded:                         {503, "Look whether the change was made"},
		&pgconn.PgError{Code: "40P01"}:                   {409, "Somebody else changed the same at the same time, and nothing was saved."},
		&pgconn.PgError{Code: "23505", Message: "taken"}: {409, "The data in the database does not allow this: taken"},
		errors.New("secret detail"):                      {500, "An error of the service, which has logged it."},
	} {
		told := p.explain(httptest.NewRequest("POST", "/", nil), fmt.Errorf("save: %w", err))
		if told.status != want.status || !strings.Contains(told.reason, want.reason) {
			t.Errorf("%v: %d %s", err, told.status, told.reason)
		}
	}
}
