// Package guard decides who gets in where operators ask and have things done:
// on the admin port, and at the management paths of the proxy's own.
//
//   - A name that is not this machine's gets a 421: a page in somebody's browser
//     whose name was made to lead here (DNS rebinding) would otherwise speak with
//     the port as its own.
//   - A request that a page of another site makes is refused, be it a write
//     (http.CrossOriginProtection) or one that reads: what is read costs something,
//     and an <img> may ask for it again and again. A link leads here all the same.
//   - Whoever changes anything needs the token; whoever only reads needs it where
//     strangers can reach the port.
package guard

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// Guard says who gets in. Its methods may be called concurrently.
type Guard struct {
	Token string   // "" refuses every call that needs one
	Hosts []string // names that the port is reached under, besides this machine's addresses
	// Open lets everybody read without the token, OpenHere who sits at this machine.
	Open, OpenHere bool
	// Trusting lets who sits at this machine change things without a token: in a
	// demo, or to debug.
	Trusting bool
}

// Protect refuses what comes under a foreign name or from another site.
func (g Guard) Protect(next http.Handler) http.Handler {
	writes := http.NewCrossOriginProtection()
	writes.SetDenyHandler(foreign)
	next = writes.Handler(next)
	return g.knownHosts(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if isEmbedded(r) {
			foreign.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	}))
}

// foreign answers a page of another site.
var foreign = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
	WriteJSON(w, http.StatusForbidden, Problem("a page of another site asks for this", "open this address itself, and ask from there"))
})

// isEmbedded reports whether a page of another site makes a request, and not a
// person who follows its link (W3C Fetch Metadata Request Headers, section 2). A
// frame of that page navigates too, without anybody seeing it. What is no browser
// says nothing of all this.
func isEmbedded(r *http.Request) bool {
	h := r.Header
	if site := h.Get("Sec-Fetch-Site"); site != "cross-site" && site != "same-site" {
		return false
	}
	reads := r.Method == http.MethodGet || r.Method == http.MethodHead
	dest := h.Get("Sec-Fetch-Dest")
	return !reads || h.Get("Sec-Fetch-Mode") != "navigate" || dest != "" && dest != "document"
}

// Loopback reports whether an address can be reached from this machine alone.
func Loopback(addr net.Addr) bool {
	tcp, ok := addr.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

// knownHosts refuses requests under a name that is not this machine's: a page
// in somebody's browser whose name was made to lead here (DNS rebinding) would
// otherwise speak with the admin port as its own.
func (g Guard) knownHosts(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !g.knows(r.Host) {
			WriteJSON(w, http.StatusMisdirectedRequest, Problem("host "+r.Host+" is no address of this machine",
				"use its address, or add the name with --admin-hosts"))
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (g Guard) knows(hostport string) bool {
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

// Reads asks for the token, unless reading is open to who asks.
func (g Guard) Reads(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if g.Open || g.hasToken(r) || g.OpenHere && isDirect(r) {
			next.ServeHTTP(w, r)
			return
		}
		g.refuse(w)
	})
}

// refuse says how to get in.
func (g Guard) refuse(w http.ResponseWriter) {
	if g.Token == "" {
		WriteJSON(w, http.StatusForbidden, Problem("no admin token is set",
			"set ADMIN_TOKEN (--admin-token-file) and send it as Authorization: Bearer"))
		return
	}
	w.Header().Set("WWW-Authenticate", `Basic realm="walcache admin", charset="UTF-8"`)
	WriteJSON(w, http.StatusUnauthorized, Problem("the admin token is missing or wrong",
		"send it as Authorization: Bearer, or as the password with any user name"))
}

// Changes asks for the token, wherever the port is: what passes here changes
// what clients get. Trusting is for a demo, or for debugging: then who sits at
// this machine needs none, if nothing stands in between that could speak for
// others.
func (g Guard) Changes(next http.Handler) http.Handler {
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
		if name == "Forwarded" || name == "Via" || name == "X-Real-Ip" || strings.HasPrefix(name, "X-Forwarded-") {
			return false
		}
	}
	return true
}

// Keep takes the token out of a request that goes on to somebody else: once a
// browser was asked for it at one path (Basic), it sends it along with every
// request beside and below (RFC 7617, section 2.2).
func (g Guard) Keep(r *http.Request) {
	if len(r.Header["Authorization"]) == 0 {
		return
	}
	if _, _, isBasic := r.BasicAuth(); isBasic && g.hasToken(r) {
		r.Header.Del("Authorization")
	}
}

// hasToken reports whether a request has the token, as Bearer or as a password.
func (g Guard) hasToken(r *http.Request) bool {
	scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		_, token, ok = r.BasicAuth()
	}
	return ok && IsToken(token, g.Token)
}

// IsToken compares in constant time, whatever the length. A token that is not set
// is nobody's.
func IsToken(token, ours string) bool {
	given, want := sha256.Sum256([]byte(token)), sha256.Sum256([]byte(ours))
	return ours != "" && subtle.ConstantTimeCompare(given[:], want[:]) == 1
}

// Problem is an answer that says what is wrong and what to do.
func Problem(what, next string) map[string]string {
	return map[string]string{"error": what, "try": next}
}

// WriteJSON answers with a value, which nobody may store.
func WriteJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	_ = e.Encode(v) // the client is gone
}
