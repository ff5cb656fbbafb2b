package wire

import (
	"bytes"
	"crypto/tls"
	"io"
	"maps"
	"net/http"
	"net/textproto"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"
)

// Answerer answers requests at once, before net/http sees them: it makes a
// request, a goroutine's wake-up and a buffer for each, and takes longer for that
// than a cache does to find the answer.
type Answerer interface {
	// Answer answers a request if it can do so from what is at hand. It appends the
	// head of the response, with its empty line, to buf; the body is written as it is.
	// If ok is false, the request goes to the server's Handler, as if nothing had been
	// asked.
	//
	// The request is a GET or HEAD without a body, and nothing in it concerns the
	// connection; the response must say itself where it ends. r is as net/http would
	// have it, but for its context and URL.RawPath. It and each string that it refers to
	// may be used until Answer returns, and not be kept: what they are made of is
	// overwritten then. Answer is called concurrently.
	Answer(r *http.Request, buf []byte) (head, body []byte, ok bool)
}

// lent is a request for an Answerer. Its strings are over the buffer of a
// connection, and it serves one connection after the other.
type lent struct {
	http.Request
	url    url.URL
	values [maxLent]string
	out    []byte // the response
}

// maxLent is how many fields a request for an Answerer has at most.
const maxLent = 64

var lents = sync.Pool{New: func() any {
	r := &lent{Request: http.Request{Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Body: http.NoBody, Header: http.Header{}}}
	r.URL = &r.url
	return r
}}

// fill makes it the request of a head. ok is false if that is none for an
// Answerer.
func (r *lent) fill(h *Head) (ok bool) {
	switch string(h.Method()) {
	case http.MethodGet:
		r.Method = http.MethodGet
	case http.MethodHead:
		r.Method = http.MethodHead
	default:
		return false
	}
	if h.minor != 1 || h.length != 0 || h.hasLength || h.upgrade || len(h.fields) > maxLent {
		return false
	}
	return r.fillTarget(h.Target()) && r.fillFields(h)
}

// fillTarget reads the target as net/url does.
func (r *lent) fillTarget(target []byte) (ok bool) {
	if target[0] != '/' || len(target) > 1 && target[1] == '/' {
		return false
	}
	r.RequestURI = over(target)
	path, query, asked := bytes.Cut(target, []byte{'?'})
	r.url = url.URL{Path: over(path), RawQuery: over(query), ForceQuery: asked && len(query) == 0}
	if bytes.IndexByte(path, '%') >= 0 {
		var err error
		if r.url.Path, err = url.PathUnescape(over(path)); err != nil {
			return false
		}
	}
	return true
}

// fillFields reads the fields as net/http does. One that is there twice is for
// net/http.
func (r *lent) fillFields(h *Head) (ok bool) {
	clear(r.Header)
	r.Host = over(h.Host())
	known := *names.Load()
	for i := range h.fields {
		raw, value := h.Field(i)
		name, ok := known[string(raw)]
		if !ok {
			name = learn(string(raw))
		}
		switch name {
		case "":
			return false
		case "Host":
			continue
		case "Connection":
			if !is(value, "keep-alive") {
				return false
			}
		}
		if r.Header[name] != nil {
			return false
		}
		r.values[i] = over(value)
		r.Header[name] = r.values[i : i+1 : i+1]
	}
	return true
}

// over is a string of the very bytes of b.
func over(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// names are those of fields, by how clients write them, in canonical spelling; ""
// for those with which a request is for net/http. It is replaced by learn.
var names atomic.Pointer[map[string]string]

// maxNames bounds what is learnt. Who sends a name beyond it is answered all the
// same, by net/http.
const maxNames = 1024

var learning sync.Mutex // held to replace names

// What most clients send is known from the start, whatever others fill names with.
func init() {
	names.Store(&map[string]string{})
	for _, name := range []string{
		"Accept", "Accept-Encoding", "Accept-Language", "Authorization", "Cache-Control", "Connection", "Cookie", "Dnt", "Forwarded",
		"Host", "If-Modified-Since", "If-None-Match", "Origin", "Priority", "Purpose", "Referer", "Save-Data", "Sec-Ch-Ua",
		"Sec-Ch-Ua-Mobile", "Sec-Ch-Ua-Platform", "Sec-Fetch-Dest", "Sec-Fetch-Mode", "Sec-Fetch-Site", "Sec-Fetch-User",
		"Sec-Gpc", "Sec-Purpose", "Traceparent", "Tracestate", "Upgrade-Insecure-Requests", "User-Agent", "Via",
		"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Port", "X-Forwarded-Proto", "X-Real-Ip", "X-Request-Id", "X-Requested-With",
	} {
		learn(name)
		learn(strings.ToLower(name))
	}
	learn("DNT")
	learn("X-Real-IP")
	learn("X-Request-ID")
}

// learn takes in a name, and returns its canonical spelling as names has it.
func learn(raw string) string {
	if len(raw) > 64 || len(*names.Load()) >= maxNames {
		return ""
	}
	learning.Lock()
	defer learning.Unlock()
	known := *names.Load()
	if name, ok := known[raw]; ok {
		return name
	}
	more := maps.Clone(known)
	more[raw] = canonical(raw)
	names.Store(&more)
	return more[raw]
}

// canonical is a name as net/http spells it, or "" for that of a field which
// concerns more than the answer: the connection, a body, or a part of it.
func canonical(raw string) string {
	switch name := textproto.CanonicalMIMEHeaderKey(raw); name {
	case "Content-Length", "Transfer-Encoding", "Te", "Trailer", "Upgrade", "Expect", "Keep-Alive", "Proxy-Connection",
		"Http2-Settings", "Range", "If-Range", "If-Match", "If-Unmodified-Since",
		"Pragma": // which net/http takes for Cache-Control
		return ""
	default:
		return name
	}
}

// mayAnswer reports whether a request that begins now may be answered here.
// net/http waits for it, and has nothing of it. It has had one before: the
// connection is one that it closes if it shuts down, or if nothing comes.
func (c *Conn) mayAnswer() bool {
	return c.hits != nil && c.idle && !c.answering && c.closing.Load() == 0
}

// atOnce is how much of a response is written in one piece.
const atOnce = 16 << 10

// answer answers the request whose head is read, and reports whether it did. If
// it could not be written, nothing is read any more.
func (c *Conn) answer() bool {
	r := lents.Get().(*lent)
	defer lents.Put(r)
	if !r.fill(&c.head) {
		return false
	}
	r.RemoteAddr, r.TLS = c.peer()
	head, body, ok := c.hits.Answer(&r.Request, r.out[:0])
	if !ok {
		return false
	}
	first := min(len(body), max(atOnce-len(head), 0))
	r.out = append(head, body[:first]...)
	if err := c.writeAnswer(r.out, body[first:]); err != nil {
		c.failed = io.EOF // net/http takes it for a client that has gone
		return true
	}
	c.staysOpen()
	return true
}

// peer is who asks, as net/http would say it.
func (c *Conn) peer() (address string, over *tls.ConnectionState) {
	if c.remote == "" {
		c.remote = c.RemoteAddr().String()
		if secure, ok := c.Conn.(*tls.Conn); ok {
			state := secure.ConnectionState()
			c.secure = &state
		}
	}
	return c.remote, c.secure
}

// writeAnswer writes a response.
//
//  1. A request is answered here: net/http takes the connection for idle.
//  2. The server shuts down, and closes all that are idle.
//
// So Close waits for writing, and nothing is written after it.
func (c *Conn) writeAnswer(first, rest []byte) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	if c.closed {
		return io.ErrClosedPipe
	}
	_, err := c.Conn.Write(first)
	if err == nil && len(rest) > 0 {
		_, err = c.Conn.Write(rest)
	}
	return err
}

// closingTime is how long an answer that is being written may take from when the
// server began to shut down.
const closingTime = 5 * time.Second

// Close implements net.Conn. An answer of an Answerer that is being written is
// finished first, if its client reads it.
func (c *Conn) Close() error {
	if c.hits == nil {
		return c.Conn.Close()
	}
	if !c.writing.TryLock() {
		began := time.Now()
		if at := c.closing.Load(); at > 0 {
			began = time.Unix(0, at)
		}
		_ = c.SetWriteDeadline(began.Add(closingTime))
		c.writing.Lock()
	}
	c.closed = true
	c.writing.Unlock()
	return c.Conn.Close()
}

// staysOpen sets anew, each second at most, until when the next request has to
// begin: net/http, which has not seen this one, counts from the last that it saw.
func (c *Conn) staysOpen() {
	if c.idleTime <= 0 {
		return
	}
	until := time.Now().Add(c.idleTime)
	c.mu.Lock()
	defer c.mu.Unlock()
	if until.Sub(c.given) > time.Second {
		c.given = until
	}
}
