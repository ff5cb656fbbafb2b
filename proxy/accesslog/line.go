package accesslog

import (
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// Line is what is written of one request. It has no values of a query, no
// cookies, no credentials and no bodies: those hold secrets, and a log is read by
// more people than a service. What a client can make as long as it likes is cut.
type Line struct {
	Time      time.Time `json:"time"` // when its header had arrived
	Method    string    `json:"method"`
	Host      string    `json:"host"`
	Path      string    `json:"path"`            // as sent
	Query     []string  `json:"query,omitempty"` // the names of its parameters, as sent
	Proto     string    `json:"proto"`
	Status    int       `json:"status"` // 0 if there was no answer
	Bytes     int64     `json:"bytes"`  // of the answer's body
	Duration  float64   `json:"duration_ms"`
	FirstByte float64   `json:"first_byte_ms"` // until the answer's header was written
	Cache     string    `json:"cache"`         // our member of Cache-Status
	Client    string    `json:"client"`        // address
	UserAgent string    `json:"user_agent,omitempty"`
	Referer   string    `json:"referer,omitempty"` // without its query
	RequestID string    `json:"request_id"`
	Trace     string    `json:"trace"`
	Aborted   bool      `json:"aborted,omitempty"` // the answer broke off, or the client had left
}

// How much of a text is written, in bytes, and how many parameters are named.
const (
	maxPath      = 2 << 10
	maxUserAgent = 256
	maxName      = 64 // and of a method
	maxHost      = 256
	maxNames     = 32
)

// asked is what a line says of a request.
func (l *Log) asked(r *http.Request) Line {
	return Line{
		Method:    cut(r.Method, maxName),
		Host:      cut(r.Host, maxHost),
		Path:      cut(pathOf(r), maxPath),
		Query:     parameterNames(r.URL.RawQuery),
		Proto:     r.Proto,
		Client:    l.client(r),
		UserAgent: cut(r.Header.Get("User-Agent"), maxUserAgent),
		Referer:   cut(withoutQuery(r.Header.Get("Referer")), maxPath),
	}
}

func cut(s string, most int) string { return s[:min(len(s), most)] }

// pathOf is the path as sent, or of a target that is a whole URL as net/http
// understands it: it may name a user and a password.
func pathOf(r *http.Request) string {
	if path, _, _ := strings.Cut(r.RequestURI, "?"); strings.HasPrefix(path, "/") || path == "*" {
		return path
	}
	return r.URL.EscapedPath()
}

// parameterNames are the names of a query. What has no "=" may as well be a
// value, such as the key in /unsubscribe?k3yT0..., and is no name.
func parameterNames(query string) []string {
	var names []string
	for parameter := range strings.SplitSeq(query, "&") {
		if name, value, ok := strings.Cut(parameter, "="); ok && !isPadded(name, value) && len(names) < maxNames {
			names = append(names, cut(name, maxName))
		}
	}
	return names
}

// isPadded reports whether what looks like a long name without a value may as well
// be a key in base64, ?k3yT0...==, whose end is padding.
func isPadded(name, value string) bool { return len(name) > 16 && strings.Trim(value, "=") == "" }

// withoutQuery is a referer without what may be secret in it; one that is no URL
// is not written at all.
func withoutQuery(referer string) string {
	if referer == "" {
		return ""
	}
	u, err := url.Parse(referer)
	if err != nil || u.Opaque != "" {
		return ""
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}).String()
}

// client is the address that a request came from: that of the peer, or if that is
// a trusted proxy, the last in X-Forwarded-For that is none. What stands before
// that one anybody may have written.
func (l *Log) client(r *http.Request) string {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return ""
	}
	client := peer.Addr().Unmap()
	hops := strings.Split(strings.Join(r.Header["X-Forwarded-For"], ","), ",")
	for i := len(hops) - 1; i >= 0 && l.trusts(client); i-- {
		before, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			break
		}
		client = before.Unmap().WithZone("")
	}
	return client.String()
}

func (l *Log) trusts(client netip.Addr) bool {
	for _, network := range l.config.Trusted {
		if network.Contains(client) {
			return true
		}
	}
	return false
}
