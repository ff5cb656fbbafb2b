package wire

import (
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"time"
)

// maxStreams is how many requests one HTTP/2 connection may have open.
const maxStreams = 250

// overHTTP2 wants of requests that came by HTTP/2 what a Conn wants of others:
// net/http checks the framing, and leaves open what a target and a host may look
// like. It also ends those whose client rests: flow control is above the
// connection, which therefore looks alive.
func (c *Config) overHTTP2(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 2 {
			if why := c.check2(r); why != allowed {
				c.Counters.add(why)
				why.write(w)
				return
			}
			delete(r.Header, "Host") // the same as r.Host, and net/http has it there alone
			out := newStream(w, r, c)
			defer out.end()
			w = out
		}
		next.ServeHTTP(w, r)
	})
}

// check2 is what a Head is checked for, as far as HTTP/2 has it (RFC 9113,
// section 8.3).
func (c *Config) check2(r *http.Request) Reason {
	method := []byte(r.Method)
	if !all(method, inToken) {
		return RequestLine
	}
	if why := checkTarget(method, []byte(r.RequestURI)); why != allowed {
		return why
	}
	// Host beside :authority may not say another thing.
	for _, host := range r.Header["Host"] {
		if host != r.Host || len(r.Header["Host"]) > 1 {
			return Host
		}
	}
	switch lengths := r.Header["Content-Length"]; {
	case !validHost([]byte(r.Host)):
		return Host
	case len(lengths) > 1:
		return ContentLength
	case len(lengths) == 1:
		if n, ok := length([]byte(lengths[0])); !ok || r.ContentLength != n {
			return ContentLength
		}
	}
	n := 0
	for _, values := range r.Header {
		n += len(values)
	}
	if n > c.Limits.Fields {
		return HeadTooLarge
	}
	return allowed
}

// stream is a response whose client may not rest for ever.
type stream struct {
	http.ResponseWriter
	limit   time.Duration
	control *http.ResponseController
	written watch
	read    watch
}

func newStream(w http.ResponseWriter, r *http.Request, c *Config) *stream {
	control := http.NewResponseController(w)
	s := &stream{ResponseWriter: w, limit: c.Limits.Pause, control: control}
	s.written = watch{limit: s.limit, cut: func() {
		c.Counters.add(SlowReader)
		_ = control.SetWriteDeadline(past)
	}}
	if r.ContentLength != 0 {
		s.read = watch{limit: s.limit, cut: func() {
			c.Counters.add(SlowBody)
			_ = control.SetReadDeadline(past)
		}}
		r.Body = &streamBody{r.Body, &s.read}
	}
	return s
}

var past = time.Unix(1, 0)

// Write implements http.ResponseWriter.
func (s *stream) Write(p []byte) (int, error) {
	s.written.begin()
	defer s.written.end()
	return s.ResponseWriter.Write(p)
}

// FlushError is what http.ResponseController calls.
func (s *stream) FlushError() error {
	s.written.begin()
	defer s.written.end()
	return s.control.Flush()
}

// Flush implements http.Flusher.
func (s *stream) Flush() { _ = s.FlushError() }

// Unwrap is for http.ResponseController.
func (s *stream) Unwrap() http.ResponseWriter { return s.ResponseWriter }

// end is called when the handler ends. What net/http has still to send is bounded
// too.
func (s *stream) end() {
	s.written.close()
	s.read.close()
	_ = s.control.SetWriteDeadline(time.Now().Add(s.limit))
}

// streamBody is the body of a request, whose client may not rest either.
type streamBody struct {
	io.ReadCloser
	watch *watch
}

func (b *streamBody) Read(p []byte) (int, error) {
	b.watch.begin()
	defer b.watch.end()
	n, err := b.ReadCloser.Read(p)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = &Error{SlowBody}
	case err != nil && err != io.EOF: // it is not of the length that it says, or its client has left
		err = &Error{ContentLength}
	}
	return n, err
}

// watch cuts off what takes longer than limit.
type watch struct {
	limit time.Duration
	cut   func()

	mu     sync.Mutex // guards the following
	timer  *time.Timer
	begun  time.Time // of what goes on; zero if nothing does
	closed bool
}

func (w *watch) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.begun = time.Now()
	if w.timer == nil {
		w.timer = time.AfterFunc(w.limit, w.expire)
	} else {
		w.timer.Reset(w.limit)
	}
}

func (w *watch) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.begun = time.Time{}
	w.timer.Stop()
}

// close keeps it from cutting anything any more: net/http takes no deadlines once
// the handler has ended, and somebody may still be reading the body then.
func (w *watch) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
}

func (w *watch) expire() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.begun.IsZero() && time.Since(w.begun) >= w.limit && !w.closed {
		w.cut()
	}
}
