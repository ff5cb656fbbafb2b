package wire

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// paced is a connection on which a write ends if nobody reads: each that makes no
// progress within limit, or up to twice that. It is below TLS, whose writes cannot
// go on after one of them timed out.
type paced struct {
	net.Conn
	limit time.Duration
	count *Counters
	armed atomic.Int64 // when the deadline was set last, as Unix time in nanoseconds
	over  sync.Once    // somebody did not read

	mu    sync.Mutex // guards the following
	given time.Time  // the write deadline that somebody above wants
}

// Write implements net.Conn.
func (c *paced) Write(p []byte) (written int, err error) {
	for {
		if err := c.arm(); err != nil {
			return written, err
		}
		n, err := c.Conn.Write(p[written:])
		if written += n; err == nil || !errors.Is(err, os.ErrDeadlineExceeded) || c.isOver() {
			return written, err
		}
		if n == 0 {
			c.over.Do(func() { c.count.add(SlowReader) })
			return written, err
		}
		c.armed.Store(0) // it did read something
	}
}

// arm sets the deadline anew, unless that has been done so lately that most of
// the limit is left: a hit in memory should not pay for it.
func (c *paced) arm() error {
	now := time.Now()
	if at := now.UnixNano(); at-c.armed.Load() < int64(c.limit/16) {
		return nil
	} else {
		c.armed.Store(at)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.Conn.SetWriteDeadline(earlier(c.given, now.Add(c.limit)))
}

// isOver reports whether the time that somebody above gave has run out.
func (c *paced) isOver() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.given.IsZero() && !time.Now().Before(c.given)
}

// SetWriteDeadline implements net.Conn. net/http takes one back after each
// request, which there was none of.
func (c *paced) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.IsZero() && c.given.IsZero() {
		return nil
	}
	c.given = t
	c.armed.Store(0)
	return c.Conn.SetWriteDeadline(earlier(t, time.Now().Add(c.limit)))
}

// SetDeadline implements net.Conn.
func (c *paced) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// CloseWrite says that nothing more will be written.
func (c *paced) CloseWrite() error {
	if below, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return below.CloseWrite()
	}
	return nil
}
