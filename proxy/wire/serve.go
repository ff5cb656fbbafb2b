package wire

import (
	"cmp"
	"crypto/tls"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// Config is how Serve reads requests.
type Config struct {
	Limits   Limits
	Counters *Counters // what is refused; nil counts for nobody
	// Certificate is the server's, with its key. It is asked for each handshake, in
	// TLS 1.2 or later for HTTP/1.1 or HTTP/2; nil is no TLS.
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// Hits answers what it can before the server's Handler is asked, over HTTP/1.1;
	// nil is nobody.
	Hits Answerer
}

// Serve answers on a listener, as s.Serve does, and lets nothing through that is
// not well-formed. It takes over s.ConnState, s.HTTP2 and s.MaxHeaderBytes, and
// wraps s.Handler if there is TLS.
func Serve(s *http.Server, l net.Listener, c Config) error {
	s.ConnState = follow
	c.Limits = c.Limits.orDefaults()
	if c.Counters == nil {
		c.Counters = &Counters{}
	}
	s.MaxHeaderBytes = c.Limits.Head
	at := &listener{Listener: l, config: c, idleTime: cmp.Or(s.IdleTimeout, s.ReadTimeout)}
	if c.Certificate == nil {
		return s.Serve(at)
	}
	s.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: maxStreams}
	s.Handler = c.overHTTP2(s.Handler)
	return s.Serve(newSecure(at, &tls.Config{
		GetCertificate: c.Certificate, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"},
	}))
}

// follow tells a connection how far net/http is with it. It is called on the
// goroutine that reads requests, while nothing is being read.
func follow(nc net.Conn, state http.ConnState) {
	var c *Conn
	switch nc := nc.(type) {
	case *Conn:
		c = nc
	case *secureConn:
		c = nc.Conn
	default:
		return // HTTP/2
	}
	switch state {
	case http.StateIdle:
		c.answering, c.idle = false, true
	case http.StateHijacked:
		c.raw = true
	}
}

// listener wraps what it accepts.
type listener struct {
	net.Listener
	config   Config
	idleTime time.Duration
	closing  atomic.Int64 // when it was closed, as Unix time in nanoseconds; 0 before
}

// Close implements net.Listener. A server that shuts down calls it before it
// closes connections.
func (l *listener) Close() error {
	l.closing.CompareAndSwap(0, time.Now().UnixNano())
	return l.Listener.Close()
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.read(l.pace(nc)), nil
}

func (l *listener) pace(nc net.Conn) *paced {
	return &paced{Conn: nc, limit: l.config.Limits.Pause, count: l.config.Counters}
}

func (l *listener) read(nc net.Conn) *Conn {
	return &Conn{
		Conn: nc, limits: &l.config.Limits, count: l.config.Counters,
		hits: l.config.Hits, idleTime: l.idleTime, closing: &l.closing,
	}
}
