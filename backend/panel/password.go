package panel

import (
	"errors"
	"fmt"
	"net/http"

	"walcache/backend/db"
	"walcache/backend/panel/users"
)

// passwordForm is the page on which somebody changes the own password. What was
// entered is not on it: it goes to the browser once, and not back.
type passwordForm struct {
	Name  string // for the browser, which keeps passwords by it
	Error string
	Field string // that is wrong
}

func (p *Panel) showPassword(w http.ResponseWriter, r *http.Request, v *visit) error {
	return p.passwordPage(w, r, v, http.StatusOK, passwordForm{})
}

func (p *Panel) passwordPage(w http.ResponseWriter, r *http.Request, v *visit, status int, f passwordForm) error {
	title := "Change your password"
	if f.Error != "" {
		title = "Error: " + title
	}
	f.Name = v.user.Name
	return p.show(w, r, v, status, "password", view{
		Title: title, Crumbs: []crumb{{"Properties", home}, {"Password", ""}}, Body: f,
	})
}

// changePassword gives the user another password, which ends all sessions of the
// user, and begins a new one here. Whoever enters a wrong one is counted like one
// who does at the login: a session that was left open is not to help in guessing.
func (p *Panel) changePassword(w http.ResponseWriter, r *http.Request, v *visit) error {
	ctx, client := r.Context(), p.client(r)
	current, password := r.PostForm.Get("current"), r.PostForm.Get("password")
	if err := users.CheckPassword(v.user.Name, password); err != nil {
		return p.passwordPage(w, r, v, http.StatusUnprocessableEntity, passwordForm{Field: "password", Error: "Nothing was changed: " + err.Error() + "."})
	}
	if r.PostForm.Get("again") != password {
		return p.passwordPage(w, r, v, http.StatusUnprocessableEntity, passwordForm{Field: "again", Error: "Nothing was changed: the new password was not the same both times."})
	}
	wait, err := p.tries.Try(ctx, client, v.user.Name)
	if err != nil {
		return err
	}
	if wait > 0 {
		p.tooManyTries.add(p.log, client, wait)
		return p.passwordPage(w, r, v, http.StatusTooManyRequests, passwordForm{Field: "current", Error: "Too many tries. " + askToWait(w, wait)})
	}
	user, err := users.ChangePassword(ctx, p.pool, v.user, current, password)
	switch {
	case errors.Is(err, users.ErrRefused):
		p.log.Warn("password not changed: the current one was wrong", "user", v.user.Name, "client", client)
		return p.passwordPage(w, r, v, http.StatusForbidden, passwordForm{Field: "current", Error: "Nothing was changed: the current password is wrong."})
	case err != nil:
		return fmt.Errorf("change the password: %w", err)
	}
	p.log.Info("password changed", "user", user.Name, "client", client)
	return p.beginAnew(w, r, v, user)
}

// beginAnew begins a session for a user whose password was changed. That it was
// is true whatever becomes of the rest: the try that stays counted is over in a
// minute, and the session before is none with another password.
func (p *Panel) beginAnew(w http.ResponseWriter, r *http.Request, v *visit, user db.User) error {
	ctx := r.Context()
	err := errors.Join(p.tries.Right(ctx, p.client(r), user.Name), p.sessions.End(ctx, v.session.ID))
	if err != nil {
		p.log.Warn("what was before a change of password is not cleared away", "user", user.Name, "error", err)
	}
	s, err := p.sessions.Begin(ctx, user)
	if err != nil {
		p.explain(r, err) // to the log alone
		return &problem{status: http.StatusServiceUnavailable, reason: "Your password was changed, and wherever you had logged in, you no longer are. " +
			"Redis, which keeps the sessions, is away: log in with the new password in a moment."}
	}
	p.setCookie(w, r, s.ID)
	p.tell(r, &visit{user, s}, "Your password was changed. Wherever else you had logged in, you no longer are.")
	seeOther(w, r, home)
	return nil
}
