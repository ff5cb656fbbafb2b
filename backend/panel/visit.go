package panel

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"walcache/backend/db"
	"walcache/backend/panel/session"
)

// visit is a request of somebody who has logged in.
type visit struct {
	user    db.User
	session session.Session
}

// User returns the name of the user whose session a request has. It has none
// either while the database or Redis is away. That the user means the request is
// for the caller to see to: a cookie comes with a forged one too.
func (p *Panel) User(r *http.Request) (name string, ok bool) {
	v, err := p.visit(r)
	if err != nil {
		p.explain(r, err) // to the log alone
	}
	if v == nil {
		return "", false
	}
	return v.user.Name, true
}

// WrongToken counts a request with a wrong token towards what its address may
// send of them. It returns how many whole seconds the client has to wait, 0 if
// this one was not too many, or if Redis, where it is counted, is away.
func (p *Panel) WrongToken(r *http.Request) (wait time.Duration) {
	client := p.client(r)
	wait, err := p.tries.WrongToken(r.Context(), client)
	switch {
	case err != nil:
		p.explain(r, err) // to the log alone
	case wait > 0:
		p.tooManyTokens.add(p.log, client, wait)
	default:
		p.log.Warn("wrong API token", "client", client)
	}
	return wait
}

// visit returns who asks, or nil if nobody has logged in. The row of the user is
// read each time, by its primary key, so that a session ends with the password
// or the right that it began with.
func (p *Panel) visit(r *http.Request) (*visit, error) {
	ctx := r.Context()
	cookie, err := r.Cookie(p.cookieName(r))
	if err != nil {
		return nil, nil
	}
	s, err := p.sessions.Find(ctx, cookie.Value)
	switch {
	case errors.Is(err, session.ErrNone):
		return nil, nil
	case err != nil:
		return nil, err
	}
	p.redis.End()
	user, err := p.query.GetUser(ctx, s.User)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return nil, fmt.Errorf("get user %d: %w", s.User, err)
	}
	p.database.End()
	if !p.sessions.Holds(s, user) {
		return nil, p.sessions.End(ctx, s.ID)
	}
	return &visit{user, s}, nil
}

// cookieName has a prefix under TLS by which a browser knows that the cookie was
// set by this host, over TLS, and by nobody else
// (draft-ietf-httpbis-rfc6265bis section 4.1.3.2).
func (p *Panel) cookieName(r *http.Request) string {
	if p.secure(r) {
		return "__Host-session"
	}
	return "session"
}

// setCookie hands the session's id to the browser, until that closes; when the
// session ends is not for the browser to say.
func (p *Panel) setCookie(w http.ResponseWriter, r *http.Request, id string) {
	age := 0
	if id == "" {
		age = -1 // take it away
	}
	http.SetCookie(w, &http.Cookie{
		Name: p.cookieName(r), Value: id, Path: "/", MaxAge: age,
		HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: p.secure(r),
	})
}

// private are the addresses of this machine and of private networks (RFC 1122,
// 1918, 3927, 4193, 4291).
var private = []netip.Prefix{
	netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("fc00::/7"), netip.MustParsePrefix("fe80::/10"),
}

func (p *Panel) trusts(a netip.Addr) bool {
	return slices.ContainsFunc(p.trusted, func(of netip.Prefix) bool { return of.Contains(a.Unmap().WithZone("")) })
}

// peer is the address that a request's connection comes from; none for what is
// no TCP connection.
func peer(r *http.Request) netip.Addr {
	address, _ := netip.ParseAddrPort(r.RemoteAddr)
	return address.Addr()
}

// secure reports whether the client came by TLS.
func (p *Panel) secure(r *http.Request) bool {
	return r.TLS != nil || p.trusts(peer(r)) && r.Header.Get("X-Forwarded-Proto") == "https"
}

// client is the address that a request was made from. Every proxy adds the one
// that it was asked by at the end, so the list is read from there, for as long as
// who says so is trusted. One who can send a forged list from a trusted network
// escapes the limits on addresses, not that on accounts.
func (p *Panel) client(r *http.Request) netip.Addr {
	address := peer(r)
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for _, hop := range slices.Backward(hops) {
		before, err := netip.ParseAddr(strings.TrimSpace(hop))
		if err != nil || !p.trusts(address) {
			break
		}
		address = before
	}
	return address
}
