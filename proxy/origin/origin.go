package origin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// Pseudonym is what the proxy calls itself in Via (RFC 9110, section 7.6.3)
// and Cache-Status (RFC 9211).
const Pseudonym = "walcache"

// Config is what an Origin is made from.
type Config struct {
	// Upstream is the service: http or https, host and port, no path.
	Upstream string
	// Host replaces the client's Host, if it is not empty.
	Host string
	// Trusted are the addresses of proxies that are believed what they say
	// about where a request came from.
	Trusted []netip.Prefix
	// Timeout is how long the upstream may take until its response header.
	Timeout time.Duration
	// Log gets what an operator should know; nil is nobody.
	Log *slog.Logger
	// Dial replaces net.Dialer.DialContext, if it is not nil.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Origin forwards requests to an upstream. It may be used concurrently.
type Origin struct {
	scheme, authority string
	host              string
	trusted           []netip.Prefix
	transport         *http.Transport
	proxy             *httputil.ReverseProxy
	outage            outage
}

// New makes an Origin. It does not try to reach the upstream.
func New(c Config) (*Origin, error) {
	u, err := url.Parse(c.Upstream)
	if err != nil {
		// A *url.Error repeats the URL, which may contain a password.
		return nil, fmt.Errorf("upstream is no URL: %w", errors.Unwrap(err))
	}
	plain := u.User == nil && u.Opaque == "" && (u.Path == "" || u.Path == "/") && u.RawQuery == "" && u.Fragment == ""
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || !plain {
		return nil, fmt.Errorf("upstream %q is not of the form http://host:port", u.Redacted())
	}
	dial := c.Dial
	if dial == nil {
		dial = (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}).DialContext
	}
	log := c.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	log = log.With("component", "origin")
	o := &Origin{scheme: u.Scheme, authority: u.Host, host: c.Host, trusted: c.Trusted, outage: outage{log: log}}
	// Upgrades do not exist in HTTP/2 in this form, and a connection for each
	// fetch keeps a slow one from holding up the others.
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	o.transport = &http.Transport{
		DialContext:           reusing(dial),
		TLSHandshakeTimeout:   5 * time.Second,
		ResponseHeaderTimeout: c.Timeout,
		ExpectContinueTimeout: time.Second,
		IdleConnTimeout:       90 * time.Second,
		MaxIdleConnsPerHost:   256,
		// More is more than other processes take from Redis, and counts in memory.
		MaxResponseHeaderBytes: 256 << 10,
		DisableCompression:     true,
		Protocols:              &protocols,
	}
	o.proxy = &httputil.ReverseProxy{
		Rewrite:        o.rewrite,
		Transport:      o.transport,
		FlushInterval:  -1,
		ErrorLog:       slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		ModifyResponse: o.respond,
		ErrorHandler:   o.fail,
	}
	return o, nil
}

// Close closes the connections that are idle.
func (o *Origin) Close() { o.transport.CloseIdleConnections() }

// Exchange is how a caller follows one request. Its functions are called one
// after the other, on the goroutine that called Forward.
type Exchange struct {
	// Request alters the header fields that the upstream gets, if it is not nil.
	Request func(http.Header)
	// Response sees and alters the upstream's response before any of it goes to
	// the client, its body too. If it returns an error the client gets what
	// Failed writes instead.
	Response func(*http.Response) error
	// Failed answers the client: err is what Response returned, or a *Failure.
	Failed func(w http.ResponseWriter, err error)

	url *url.URL
	id  []string // of the request, as the upstream gets it; nil until then
}

type exchangeKey struct{}

func exchangeOf(r *http.Request) *Exchange { return r.Context().Value(exchangeKey{}).(*Exchange) }

// Forward sends a request to the upstream, under the request's context, and
// what comes back to w. It returns when the body has been sent. Under a server
// it panics with http.ErrAbortHandler if the body breaks off.
func (o *Origin) Forward(w http.ResponseWriter, r *http.Request, v View, x *Exchange) {
	u, err := o.url(v.Target)
	if err != nil {
		x.Failed(w, &Failure{Status: http.StatusBadRequest, Err: err})
		return
	}
	x.url = u
	ctx := httptrace.WithClientTrace(context.WithValue(r.Context(), exchangeKey{}, x), taking)
	o.proxy.ServeHTTP(w, r.WithContext(ctx))
}

func (o *Origin) rewrite(p *httputil.ProxyRequest) {
	x := exchangeOf(p.In)
	p.Out.URL = x.url
	p.Out.Host = p.In.Host
	if o.host != "" {
		p.Out.Host = o.host
	}
	o.setForwarding(p)
	x.setTrace(p)
	if strings.EqualFold(p.Out.Header.Get("Upgrade"), "h2c") {
		// HTTP/2 inside the connection would carry requests past all of this. RFC
		// 9113, section 3.1, has no such upgrade any more.
		p.Out.Header.Del("Upgrade")
		p.Out.Header.Del("Connection")
	}
	p.Out.Header.Add("Via", via(p.In.ProtoMajor, p.In.ProtoMinor))
	if x.Request != nil {
		x.Request(p.Out.Header)
	}
}

var errStatusCode = errors.New("the status code is not one of HTTP's")

// declined is an error that Exchange.Response returned, to tell it from those
// of the transport.
type declined struct{ error }

func (o *Origin) respond(res *http.Response) error {
	o.outage.end(o.authority)
	// http.ResponseWriter.WriteHeader panics on these.
	if res.StatusCode < 100 || res.StatusCode > 999 {
		return errStatusCode
	}
	res.Header.Add("Via", via(res.ProtoMajor, res.ProtoMinor))
	x := exchangeOf(res.Request)
	giveBack := x.takeTrace(res.Header)
	if err := x.Response(res); err != nil {
		return declined{err}
	}
	giveBack()
	return nil
}

func (o *Origin) fail(w http.ResponseWriter, r *http.Request, err error) {
	x := exchangeOf(r)
	if x.id != nil {
		w.Header()[RequestID] = x.id
	}
	if d, ok := err.(declined); ok {
		x.Failed(w, d.error)
		return
	}
	f := failure(err)
	if upstreams := f.Status != http.StatusBadRequest && f.Status != http.StatusRequestTimeout; upstreams && !errors.Is(err, context.Canceled) {
		o.outage.count(o.authority, err)
	}
	x.Failed(w, f)
}

// via is a member of the Via field for a message that came by a version of HTTP.
func via(major, minor int) string {
	if major >= 2 {
		return fmt.Sprintf("%d %s", major, Pseudonym)
	}
	return fmt.Sprintf("%d.%d %s", major, minor, Pseudonym)
}
