package panel

import (
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"walcache/proxy/sandbox/sandboxtest"
)

const (
	passwordPath = "/admin/password/"
	another      = "staple horse battery"
)

// changes sends the form with which the password is changed.
func (b *browser) changes(current, password, again string) answer {
	b.t.Helper()
	return b.submit(passwordPath, "current", current, "password", password, "again", again)
}

func TestPassword_ChangedEndsEveryOtherSession(t *testing.T) {
	s := newSite(t)
	here, elsewhere := s.ada(), s.ada()
	here.get("/admin/").expect(t, 200, `href="/admin/password/"`)
	before := here.cookie().Value
	if w := here.changes(password, another, another).expect(t, 303); w.to() != "/admin/" {
		t.Errorf("sent to %q", w.to())
	}
	here.get("/admin/").expect(t, 200, "Your password was changed.", "Logged in as <strong>Ada</strong>")
	here.get("/admin/").expect(t, 200).without(t, "Your password was changed.")
	elsewhere.get("/admin/").expect(t, 303)
	if here.cookie().Value == before {
		t.Error("the session has the id that it had")
	}
	if keys := s.keys("session:"); len(keys) != 1 {
		t.Errorf("kept are %q", keys)
	}
	s.browser().logIn("Ada", password).expect(t, 403)
	s.browser().logIn("Ada", another).expect(t, 303)
	if log := s.log.String(); !strings.Contains(log, `msg="password changed" component=panel user=Ada`) ||
		strings.Contains(log, password) || strings.Contains(log, another) {
		t.Errorf("the log:\n%s", log)
	}
}

// One that was changed is never said not to be, whatever Redis refuses then.
func TestPassword_ChangedIsSaidAlsoWhereRedisFailsAfterwards(t *testing.T) {
	for _, c := range []struct {
		name, refused string // commands, as ACLs write them
		status        int
		says          string
	}{
		{"the try stays counted", "-decr", 303, ""},
		{"the session stays", "-del", 303, ""},
		{"no session begins", "-set", 503, "Your password was changed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := sandboxtest.OwnRedis(t)
			s := newSiteOn(t, sandboxtest.Postgres(t), server.URL(), "wc:")
			here, elsewhere := s.ada(), s.ada()
			page := here.get(passwordPath).expect(t, 200)
			if err := s.redis.Do(t.Context(), "ACL", "SETUSER", "default", c.refused).Err(); err != nil {
				t.Fatal(err)
			}
			here.resend(passwordPath, page.body, "current", password, "password", another, "again", another).expect(t, c.status, c.says)
			if err := s.redis.Do(t.Context(), "ACL", "SETUSER", "default", "+@all").Err(); err != nil {
				t.Fatal(err)
			}
			if c.status == 303 {
				here.get("/admin/").expect(t, 200, "Your password was changed.")
			}
			elsewhere.get("/admin/").expect(t, 303)
			s.browser().logIn("Ada", another).expect(t, 303)
			if log := s.log.String(); !strings.Contains(log, "Redis is away: ") {
				t.Errorf("the log does not say why:\n%s", log)
			}
		})
	}
}

func TestPassword_SaysWhatIsWrong(t *testing.T) {
	s := newSite(t)
	ada := s.ada()
	stored := s.text(`SELECT password FROM users`)
	for _, c := range []struct {
		current, password, again string
		status                   int
		want                     string
	}{
		{password, "short", "short", 422, "the password must have at least 8 characters"},
		{password, strings.Repeat("x", 1025), strings.Repeat("x", 1025), 422, "at most 1024 bytes"},
		{password, another, another + "x", 422, "was not the same both times"},
		{password, another, "", 422, "was not the same both times"},
		{"wrong password", another, another, 403, "the current password is wrong"},
		{"", another, another, 403, "the current password is wrong"},
	} {
		w := ada.changes(c.current, c.password, c.again).expect(t, c.status, `role="alert"`, `aria-invalid="true"`, c.want, "<title>Error: Change your password</title>")
		w.without(t, another, password, "wrong password")
	}
	if s.text(`SELECT password FROM users`) != stored {
		t.Error("the password was changed")
	}
	ada.get("/admin/").expect(t, 200)
}

func TestPassword_WrongOnesAreCountedAsAtTheLogin(t *testing.T) {
	s := newSite(t)
	ada := s.ada()
	for range 5 {
		ada.changes("wrong password", another, another).expect(t, 403)
	}
	w := ada.changes(password, another, another).expect(t, 429, "Too many tries. Wait ")
	if after := w.Header.Get("Retry-After"); !regexp.MustCompile(`^([1-9]|[1-5]\d|60)$`).MatchString(after) {
		t.Errorf("Retry-After %q", after)
	}
	s.browser().logIn("Ada", password).expect(t, 429)
	// At another address neither is held up.
	ada.header.Set("X-Forwarded-For", "192.0.2.7")
	ada.changes(password, another, another).expect(t, 303)
}

func TestPassword_IsNotChangedByAnotherSite(t *testing.T) {
	s := newSite(t)
	ada := s.ada()
	fields := []string{"current", password, "password", another, "again", another}
	page := ada.get(passwordPath).expect(t, 200)
	for _, token := range []string{"", "x", s.panel.sessions.Token("x")} {
		ada.resend(passwordPath, page.body, append(fields, "token", token)...).expect(t, 403, "another session")
	}
	ada.header.Set("Sec-Fetch-Site", "cross-site")
	ada.resend(passwordPath, page.body, fields...).expect(t, 403, "Another site")
	ada.header.Del("Sec-Fetch-Site")
	s.browser().do("POST", passwordPath, url.Values{"current": {password}, "password": {another}, "again": {another}}).expect(t, 403, "Your session has ended")
	ada.resend(passwordPath, page.body, fields...).expect(t, 303)
}

func TestWrongToken_IsCountedByAddress(t *testing.T) {
	s := newSite(t)
	r := httptest.NewRequest("POST", "/properties/", nil)
	r.RemoteAddr = "127.0.0.1:5"
	r.Header.Set("X-Forwarded-For", "192.0.2.7")
	r.Header.Set("Authorization", "Bearer guess")
	for i := range 22 {
		if wait := s.panel.WrongToken(r); (wait > 0) != (i >= 20) || wait > time.Minute {
			t.Errorf("number %d waits %v", i+1, wait)
		}
	}
	r.Header.Set("X-Forwarded-For", "192.0.2.8")
	if wait := s.panel.WrongToken(r); wait != 0 {
		t.Errorf("another address waits %v", wait)
	}
	log := s.log.String()
	if strings.Count(log, "wrong API token\"") != 21 || strings.Count(log, "too many wrong API tokens") != 1 || strings.Contains(log, "guess") {
		t.Errorf("the log:\n%s", log)
	}
}
