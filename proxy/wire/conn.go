package wire

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Conn is a client's connection, of which only whole, well-formed requests can
// be read. It is for net/http: one goroutine reads at a time, and Serve says of
// each request when it has been answered.
type Conn struct {
	net.Conn
	limits *Limits
	count  *Counters

	buf       []byte
	r, w      int // what is in buf and has not been read from here
	pass      int // how much of that may be
	head      Head
	body      body
	skipped   bool      // an empty line before this head
	headBy    time.Time // when the head has to be complete; zero before its first byte
	answering bool      // net/http has a request, or a part of one
	raw       bool      // it is no HTTP any more
	refused   Reason    // what came next is not allowed, and still to be answered
	failed    error     // nothing is read any more

	// What answers at once has its own (answer.go); hits is nil if there is none.
	hits     Answerer
	idle     bool          // net/http has answered a request of it
	idleTime time.Duration // how long net/http waits for the next one
	closing  *atomic.Int64 // when the server began to shut down, as Unix time in nanoseconds; 0 before
	remote   string        // see peer
	secure   *tls.ConnectionState
	writing  sync.Mutex // held while an answer is written, which closed is guarded by
	closed   bool

	mu      sync.Mutex // guards the following
	given   time.Time  // the read deadline that net/http wants
	own     time.Time  // the one that the limits do
	applied time.Time  // the one that the connection below has
	reading bool       // it is being read
}

const smallBuffer = 4 << 10

// Head is that of the last request that was read. It is good until the connection
// is read again.
func (c *Conn) Head() *Head { return &c.head }

// Read implements net.Conn: it returns bytes of one request at a time.
func (c *Conn) Read(p []byte) (int, error) {
	for c.pass == 0 {
		switch empty := c.r == c.w; {
		case c.failed != nil:
			return 0, c.failed
		case c.raw && empty:
			return c.receive(p, time.Time{})
		case c.raw:
			c.pass = c.w - c.r
			continue
		case c.refused != allowed && !c.answering:
			return 0, c.turnAway()
		case c.refused != allowed:
			c.r, c.w = 0, 0 // it ends with the answer to the request before
		case !c.answering && c.body.step != ended:
			c.failed = errOutOfStep
			continue
		case c.body.streaming() && empty:
			return c.stream(p)
		case !c.undecided():
			if c.look() {
				continue
			}
		case c.w-c.r > c.limits.Head:
			c.fail(EarlyBytes)
			continue
		}
		if err := c.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.buf[c.r:c.r+c.pass])
	c.r, c.pass, c.answering = c.r+n, c.pass-n, true
	return n, nil
}

// errOutOfStep cannot happen. Invariant: net/http takes a request for read where
// the framing here says that it ends, and nowhere else; or the rest of a body
// would be a request. Kept by Read, which asks each time; see FuzzConn.
var errOutOfStep = errors.New("net/http and package wire disagree where a request ends")

// undecided reports whether what comes next may be another protocol: the last
// request asked for an upgrade, and has no answer yet.
func (c *Conn) undecided() bool {
	return c.answering && c.head.upgrade && c.body.step == ended
}

// look finds out how much of what is in the buffer may pass. It reports whether it
// came to something: if not, there has to be more.
func (c *Conn) look() bool {
	var why Reason
	if c.body.step != ended {
		if c.pass, why = c.body.take(c.buf[c.r:c.w], c.limits); why != allowed {
			c.fail(why)
		}
		return c.pass > 0 || why != allowed
	}
	if c.head.text != nil {
		c.head.reset()
	}
	b := c.skipEmptyLine()
	if len(b) == 0 {
		return false
	}
	n, why := c.head.read(b, c.limits)
	switch {
	case why != allowed:
		c.refuse(why)
		return true
	case n == 0:
		return false
	}
	c.skipped, c.headBy = false, time.Time{}
	if c.mayAnswer() && c.answer() {
		c.r += n
	} else {
		c.pass = n
		c.body.begin(c.head.length)
	}
	return true
}

// skipEmptyLine takes one off before a request line, which old clients send
// behind a body (RFC 9112, section 2.2). It returns what is left to look at.
func (c *Conn) skipEmptyLine() []byte {
	b := c.buf[c.r:c.w]
	switch {
	case c.skipped || len(b) == 0 || b[0] != '\r':
		return b
	case len(b) == 1:
		return nil
	case b[1] == '\n':
		c.r, c.skipped = c.r+2, true
	}
	return c.buf[c.r:c.w]
}

// fail ends a body before its end. Whoever reads it is told, and answers.
func (c *Conn) fail(why Reason) {
	c.count.add(why)
	c.failed = &Error{why}
}

// refuse keeps what comes next from net/http.
func (c *Conn) refuse(why Reason) {
	c.count.add(why)
	c.refused = why
}

// fill reads more into the buffer. If it returns no error, there is more, or
// what there is has been refused.
func (c *Conn) fill() error {
	if c.r == c.w {
		c.r, c.w = 0, 0
		if len(c.buf) > smallBuffer {
			c.buf = nil // one large request is no reason to keep as much for ever
		}
	}
	c.makeRoom()
	n, err := c.receive(c.buf[c.w:], c.deadline())
	c.w += n
	switch {
	case n > 0:
		return nil
	case !errors.Is(err, os.ErrDeadlineExceeded):
		return c.cutShort(err)
	case !c.answering && c.w > c.r:
		c.refuse(SlowHead)
		return nil
	}
	return c.slow(err)
}

// stream reads a body straight to where it is wanted.
func (c *Conn) stream(p []byte) (int, error) {
	if int64(len(p)) > c.body.left {
		p = p[:c.body.left]
	}
	n, err := c.receive(p, c.deadline())
	if n > 0 {
		c.body.passed(n)
		return n, nil
	}
	return 0, c.slow(err)
}

// slow is what an error of a read is to net/http: if the time that ran out was
// that of a body, this is the end.
func (c *Conn) slow(err error) error {
	c.mu.Lock()
	ours := !c.own.IsZero() && !earlier(c.own, c.given).Before(c.own)
	c.mu.Unlock()
	if ours && errors.Is(err, os.ErrDeadlineExceeded) {
		c.fail(SlowBody)
		return c.failed
	}
	return c.cutShort(err)
}

// cutShort is what an error of a read is to who reads a body: if the client has
// ended it before its end, that is the client's doing and nobody else's.
func (c *Conn) cutShort(err error) error {
	if c.body.step == ended || !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	if c.head.length == Chunked {
		c.fail(Chunk)
	} else {
		c.fail(ContentLength)
	}
	return c.failed
}

// deadline is until when more has to come, or zero.
func (c *Conn) deadline() time.Time {
	switch {
	case c.refused != allowed:
	case c.body.step != ended:
		return time.Now().Add(c.limits.Pause)
	case !c.answering && c.w > c.r:
		// A head begins with its first byte. If that came while the request before
		// was being answered, it begins now.
		if c.headBy.IsZero() {
			c.headBy = time.Now().Add(c.limits.HeadTime)
		}
		return c.headBy
	}
	return time.Time{}
}

// makeRoom makes room behind w.
func (c *Conn) makeRoom() {
	switch {
	case c.buf == nil:
		c.buf = make([]byte, smallBuffer)
	case c.w < len(c.buf):
	case c.r > 0:
		c.w, c.r = copy(c.buf, c.buf[c.r:c.w]), 0
	default:
		c.buf = append(c.buf, make([]byte, len(c.buf))...)
	}
}

// receive reads from the connection below, until a deadline of ours or the given
// one, whichever is earlier.
func (c *Conn) receive(p []byte, own time.Time) (int, error) {
	c.mu.Lock()
	c.own, c.reading = own, true
	err := c.applyDeadline()
	c.mu.Unlock()
	if err != nil {
		return 0, err
	}
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	c.reading = false
	c.mu.Unlock()
	return n, err
}

// SetReadDeadline implements net.Conn. net/http sets five a request, and wakes a
// read with one; they go to the connection below only if somebody reads there.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.given = t
	if c.reading {
		return c.applyDeadline()
	}
	return nil
}

// applyDeadline hands the earlier deadline on. Callers hold mu.
func (c *Conn) applyDeadline() error {
	t := earlier(c.given, c.own)
	if t.Equal(c.applied) {
		return nil
	}
	c.applied = t
	return c.Conn.SetReadDeadline(t)
}

// earlier is the earlier of two deadlines, of which zero is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// How long, and for how many bytes, a refused client is listened to, so that it
// can read its answer: data that nobody takes would reset the connection (RFC
// 9112, section 9.6).
const (
	lingerTime  = time.Second
	lingerBytes = 256 << 10
)

// turnAway answers a request that is refused, and ends the connection. It is
// called only while net/http waits for a request, so that nothing else is
// written. net/http takes io.EOF for a client that has gone.
func (c *Conn) turnAway() error {
	c.failed = io.EOF
	head := bytes.HasPrefix(c.buf[c.r:c.w], []byte("HEAD "))
	if _, err := c.Conn.Write(c.refused.answer(head)); err != nil {
		return io.EOF
	}
	_ = c.CloseWrite()
	until := time.Now().Add(lingerTime)
	for left := lingerBytes; left > 0; {
		n, err := c.receive(c.buf, until)
		if left -= n; err != nil {
			break
		}
	}
	return io.EOF
}

// CloseWrite says that nothing more will be written.
func (c *Conn) CloseWrite() error {
	if below, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return below.CloseWrite()
	}
	return nil
}
