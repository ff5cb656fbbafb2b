package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
)

// secure is a listener with TLS. It shakes hands before it hands a connection
// on, since net/http takes one for HTTP/2 only if it is a *tls.Conn and nothing
// around it, and HTTP/1.1 is to have a Conn around.
type secure struct {
	*listener
	tls   *tls.Config
	ready chan accepted
	ctx   context.Context // ends when the listener closes
	stop  context.CancelFunc
	once  sync.Once
}

type accepted struct {
	net.Conn
	err error
}

func newSecure(l *listener, config *tls.Config) *secure {
	s := &secure{listener: l, tls: config, ready: make(chan accepted)}
	s.ctx, s.stop = context.WithCancel(context.Background())
	return s
}

// secureConn is a Conn over TLS. net/http finds by ConnectionState what to set
// Request.TLS to.
type secureConn struct{ *Conn }

// ConnectionState is that of TLS.
func (c *secureConn) ConnectionState() tls.ConnectionState {
	return c.Conn.Conn.(*tls.Conn).ConnectionState()
}

// Accept implements net.Listener.
func (s *secure) Accept() (net.Conn, error) {
	s.once.Do(func() { go s.acceptAll() })
	select {
	case a := <-s.ready:
		return a.Conn, a.err
	case <-s.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. It also ends the handshakes under way.
func (s *secure) Close() error {
	s.stop()
	return s.listener.Close()
}

// acceptAll accepts until that fails for good, with a goroutine for each
// handshake.
func (s *secure) acceptAll() {
	for s.ctx.Err() == nil {
		nc, err := s.Listener.Accept()
		if err != nil {
			s.hand(accepted{err: err}) // net/http waits if it is temporary
			continue
		}
		go s.shake(s.pace(nc))
	}
}

// hand gives a connection to Accept, or closes it.
func (s *secure) hand(a accepted) {
	select {
	case s.ready <- a:
	case <-s.ctx.Done():
		if a.Conn != nil {
			_ = a.Close()
		}
	}
}

// shake does the handshake of a connection, and hands it on.
func (s *secure) shake(below *paced) {
	ctx, cancel := context.WithTimeout(s.ctx, s.config.Limits.HeadTime)
	defer cancel()
	nc := tls.Server(below, s.tls)
	if err := nc.HandshakeContext(ctx); err != nil {
		s.failed(below, err)
		return
	}
	if nc.ConnectionState().NegotiatedProtocol == "h2" {
		s.hand(accepted{Conn: nc})
		return
	}
	s.hand(accepted{Conn: &secureConn{s.read(nc)}})
}

// failed ends a connection without TLS. To who speaks HTTP it says so.
func (s *secure) failed(below *paced, err error) {
	var record tls.RecordHeaderError
	if errors.As(err, &record) && record.Conn != nil && all(record.RecordHeader[:3], inToken) {
		s.config.Counters.add(PlainText)
		c := s.read(below)
		c.buf, c.refused = make([]byte, smallBuffer), PlainText
		_ = c.turnAway()
	}
	_ = below.Close()
}
