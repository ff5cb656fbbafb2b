package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// guard decides who gets in.
type guard struct{ Config }

// knownHosts refuses requests under a name that is not this machine's: a page
// in somebody's browser whose name was made to lead here (DNS rebinding) would
// otherwise speak with the admin port as its own.
func (g guard) knownHosts(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !g.knows(r.Host) {
			writeJSON(w, http.StatusMisdirectedRequest, problem("host "+r.Host+" is no address of this machine",
				"use its address, or add the name with --admin-hosts"))
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (g guard) knows(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	if strings.EqualFold(host, "localhost") || slices.ContainsFunc(g.Hosts, func(name string) bool { return strings.EqualFold(name, host) }) {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && (ip.IsLoopback() || isOurs(ip))
}

func isOurs(ip netip.Addr) bool {
	addrs, err := net.InterfaceAddrs()
	return err == nil && slices.ContainsFunc(addrs, func(a net.Addr) bool {
		prefix, err := netip.ParsePrefix(a.String())
		return err == nil && prefix.Addr() == ip
	})
}

// operators asks for the token, unless the port can be reached from this
// machine alone.
func (g guard) operators(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if g.onLoopback() || g.hasToken(r) {
			next.ServeHTTP(w, r)
			return
		}
		g.refuse(w)
	})
}

// refuse says how to get in.
func (g guard) refuse(w http.ResponseWriter) {
	if g.Token == "" {
		writeJSON(w, http.StatusForbidden, problem("no admin token is set",
			"set ADMIN_TOKEN (--admin-token-file) and send it as Authorization: Bearer"))
		return
	}
	w.Header().Set("WWW-Authenticate", `Basic realm="walcache admin", charset="UTF-8"`)
	writeJSON(w, http.StatusUnauthorized, problem("the admin token is missing or wrong",
		"send it as Authorization: Bearer, or as the password with any user name"))
}

// changes asks for the token, wherever the port is: what passes here changes
// what clients get. Trusting is for a demo, or for debugging: then who sits at
// this machine needs none, if nothing stands in between that could speak for
// others.
func (g guard) changes(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if g.Trusting && isDirect(r) || g.hasToken(r) {
			next.ServeHTTP(w, r)
			return
		}
		g.refuse(w)
	})
}

// isDirect reports whether a request comes from this machine, to it by its own
// name, and by no proxy that says so.
func isDirect(r *http.Request) bool {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !peer.Addr().Unmap().IsLoopback() {
		return false
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if !slices.Contains([]string{"localhost", "127.0.0.1", "::1", "[::1]"}, strings.ToLower(host)) {
		return false
	}
	for name := range r.Header {
		if name == "Forwarded" || name == "Via" || strings.HasPrefix(name, "X-Forwarded-") {
			return false
		}
	}
	return true
}

func (g guard) onLoopback() bool {
	tcp, ok := g.Addr.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

// hasToken compares in constant time, whatever the length.
func (g guard) hasToken(r *http.Request) bool {
	scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		_, token, ok = r.BasicAuth()
	}
	given, want := sha256.Sum256([]byte(token)), sha256.Sum256([]byte(g.Token))
	return ok && g.Token != "" && subtle.ConstantTimeCompare(given[:], want[:]) == 1
}

func problem(what, next string) map[string]string {
	return map[string]string{"error": what, "try": next}
}
