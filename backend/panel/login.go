package panel

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"walcache/backend/panel/users"
	"walcache/backend/trouble"
)

// login is the page on which somebody logs in.
type login struct {
	Name  string
	Next  string
	Error string
}

func (p *Panel) showLogin(w http.ResponseWriter, r *http.Request, v *visit) error {
	next := local(r.URL.Query().Get("next"))
	if v != nil {
		seeOther(w, r, next)
		return nil
	}
	return p.loginPage(w, r, http.StatusOK, login{Next: next})
}

func (p *Panel) loginPage(w http.ResponseWriter, r *http.Request, status int, l login) error {
	title := "Log in"
	if l.Error != "" {
		title = "Error: " + title
	}
	return p.show(w, r, nil, status, "login", view{Title: title, Body: l})
}

// askToLogIn answers somebody whose session has ended, or never began.
func (p *Panel) askToLogIn(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodPost {
		seeOther(w, r, home+"login/?next="+url.QueryEscape(r.URL.RequestURI()))
		return nil
	}
	return p.loginPage(w, r, http.StatusForbidden, login{
		Next:  r.URL.EscapedPath(),
		Error: "Your session has ended, and what you sent was not saved. Log in and send it again.",
	})
}

// logIn begins a session.
//
// The form has no token. A token ties a form to a session, and there is none yet.
// What one might keep out, another site that logs a browser in as somebody else,
// is kept out by the check of where the form comes from: every browser says that
// (Sec-Fetch-Site, or Origin with a POST), and what is no browser has no user to
// mislead.
func (p *Panel) logIn(w http.ResponseWriter, r *http.Request, v *visit) error {
	ctx, client := r.Context(), p.client(r)
	l := login{Name: strings.TrimSpace(r.PostForm.Get("name")), Next: local(r.PostForm.Get("next"))}

	wait, err := p.tries.Try(ctx, client, l.Name)
	if err != nil {
		return err
	}
	if wait > 0 {
		p.tooManyTries.add(p.log, client, wait)
		l.Error = "Too many tries to log in. " + askToWait(w, wait)
		return p.loginPage(w, r, http.StatusTooManyRequests, l)
	}
	user, err := users.LogIn(ctx, p.pool, l.Name, r.PostForm.Get("password"))
	switch {
	case errors.Is(err, users.ErrRefused):
		// Without the name, which may be a password in the wrong field.
		p.log.Warn("login refused", "client", client)
		l.Error = "The name or the password is wrong, or the user is not active."
		return p.loginPage(w, r, http.StatusForbidden, l)
	case err != nil:
		return fmt.Errorf("log in: %w", err)
	}
	if err := p.tries.Right(ctx, client, l.Name); err != nil {
		return err
	}
	if v != nil {
		if err := p.sessions.End(ctx, v.session.ID); err != nil {
			return err
		}
	}
	// Always a new id: one that somebody else has planted in the browser is
	// worth nothing after the login.
	s, err := p.sessions.Begin(ctx, user)
	if err != nil {
		return err
	}
	p.log.Info("logged in", "user", user.Name, "client", client)
	p.setCookie(w, r, s.ID)
	seeOther(w, r, l.Next)
	return nil
}

// tooMany logs tries that are put off, at a fixed rate with their number: whoever
// floods the login is not to fill the disk as well.
type tooMany struct {
	what string

	mu     sync.Mutex // guards the following
	logged time.Time
	n      int
}

func (m *tooMany) add(log *slog.Logger, client netip.Addr, wait time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.n++
	if now := time.Now(); now.Sub(m.logged) >= trouble.LogEvery {
		log.Warn(m.what, "tries", m.n, "client", client, "wait", wait)
		m.logged, m.n = now, 0
	}
}

// askToWait tells a client to wait (RFC 6585 section 4), and returns that in words.
func askToWait(w http.ResponseWriter, wait time.Duration) string {
	seconds := strconv.Itoa(int(wait / time.Second))
	w.Header().Set("Retry-After", seconds)
	return "Wait " + seconds + " seconds, then try again."
}

func (p *Panel) logOut(w http.ResponseWriter, r *http.Request, v *visit) error {
	if v != nil {
		if err := p.checkToken(r, v); err != nil {
			return err
		}
		if err := p.sessions.End(r.Context(), v.session.ID); err != nil {
			return err
		}
		p.log.Info("logged out", "user", v.user.Name)
	}
	p.setCookie(w, r, "")
	seeOther(w, r, home+"login/")
	return nil
}
