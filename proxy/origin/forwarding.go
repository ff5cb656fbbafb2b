package origin

import (
	"net/http"
	"net/http/httputil"
	"net/netip"
	"slices"
	"strings"
)

// View is a request as the upstream sees it, apart from its header fields: two
// requests for one View, alike in what Vary names, get the same answer.
type View struct {
	Scheme string
	// Host is the client's Host and, below it, what a trusted proxy said of
	// host, port, prefix and the like.
	Host   string
	Target string
	// Overridden says that a trusted proxy sent a field that can replace the
	// target, the method or the host, and is not part of the View.
	Overridden bool
}

// View tells what the upstream sees. The error says that a request has no
// target that can be forwarded, which is the client's mistake.
func (o *Origin) View(r *http.Request) (View, error) {
	t, err := target(r)
	v := View{Scheme: "http", Host: r.Host, Target: t}
	if r.TLS != nil {
		v.Scheme = "https"
	}
	if o.trusts(r.RemoteAddr) {
		v.believe(r.Header)
	}
	return v, err
}

// believe takes in what a trusted proxy says, except the client's address:
// answers that depend on it would have to say so.
func (v *View) believe(h http.Header) {
	if proto := h.Get("X-Forwarded-Proto"); proto != "" {
		v.Scheme = proto
	}
	var also []string
	for name, values := range h {
		switch forwardingKind(name) {
		case replaces:
			v.Overridden = true
		case describes:
			// In lines, as sent: of several, some services read the first and some all.
			also = append(also, name+": "+strings.Join(values, "\n"+name+": "))
		}
	}
	slices.Sort(also)
	for _, field := range also {
		v.Host += "\n" + field
	}
}

func (o *Origin) trusts(peer string) bool {
	if len(o.trusted) == 0 {
		return false
	}
	address, err := netip.ParseAddrPort(peer)
	return err == nil && slices.ContainsFunc(o.trusted, func(p netip.Prefix) bool {
		return p.Contains(address.Addr().Unmap())
	})
}

type kind uint8

const (
	passes    kind = iota // goes on as it is
	describes             // says how the request came
	locates               // says from which address, and by way of which
	replaces              // can make a service answer another request than the one it got
	internal              // said by this proxy alone: to its service, or by its operators to it
)

// OperatorToken is the field in which operators send the admin token to the
// proxy's own port. It is a field of its own because Authorization there is for
// the service, which must never see this one.
const OperatorToken = "X-Walcache-Token"

// forwardingKind sorts header fields. Names are compared as CGI and WSGI see
// them, where "_" and "-" are one, so that X_Forwarded_For does not slip past.
func forwardingKind(name string) kind {
	if strings.Contains(name, "_") {
		name = http.CanonicalHeaderKey(strings.ReplaceAll(name, "_", "-"))
		if isOurs(name) {
			return internal
		}
	}
	switch name {
	case "X-Real-Ip", "X-Forwarded-For":
		return locates
	case "Forwarded", "X-Original-Url", "X-Rewrite-Url", "X-Http-Method-Override", "X-Http-Method", "X-Method-Override", "X-Host",
		"X-Original-Host", "X-Original-Uri", "X-Script-Name":
		return replaces
	case "As-Of-Lsn", "Min-Lsn", "Cache-Groups", "Cache-Group-Invalidation", "Cdn-Cache-Control", OperatorToken, RequestID, traceParent, traceState:
		return internal
	}
	if strings.HasPrefix(name, "X-Forwarded-") {
		return describes
	}
	return passes
}

// isOurs reports whether a field is one that we act on, alter or store answers by.
// In another spelling we do not see it, and a service that does would answer what
// we have not asked: with a 304, in another language, or of another length.
func isOurs(name string) bool {
	switch name {
	case "Transfer-Encoding", "Cache-Control", "User-Agent",
		"Script-Name", "Path-Info": // which gunicorn takes from who asks at this machine
		return true
	}
	return strings.HasPrefix(name, "Accept-") || strings.HasPrefix(name, "If-") || strings.HasPrefix(name, "Content-")
}

// setForwarding says how the request came: on the word of a trusted proxy, if
// it came by one, else as seen from here.
func (o *Origin) setForwarding(p *httputil.ProxyRequest) {
	trusted := o.trusts(p.In.RemoteAddr)
	for name := range p.Out.Header {
		if k := forwardingKind(name); k == internal || !trusted && k != passes {
			delete(p.Out.Header, name)
		}
	}
	if !trusted {
		p.SetXForwarded()
		return
	}
	// ReverseProxy has removed these four before calling Rewrite.
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
		if said := p.In.Header[name]; said != nil {
			p.Out.Header[name] = said
		}
	}
	p.SetXForwarded()
	for _, name := range []string{"X-Forwarded-Host", "X-Forwarded-Proto"} {
		if said := p.In.Header[name]; said != nil {
			p.Out.Header[name] = said
		}
	}
}
