package accesslog

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"walcache/proxy/origin"
)

// Handler logs what next answers. It gives each request the names by which it can
// be found again, in this log, in the service's and in the client's: its id goes
// into every answer. Identify puts them into the request, so that next sends them on.
func (l *Log) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		line := l.asked(r) // next may alter the request
		line.Time = began.UTC().Truncate(time.Microsecond)
		line.RequestID, line.Trace = origin.Identify(r.Header)
		a := &answer{ResponseWriter: w, began: began, id: []string{line.RequestID}}
		returned := false
		defer func() { // also when next panics, which net/http tells the client by cutting it off
			a.into(&line)
			line.Aborted = line.Aborted || !returned
			l.Add(line)
		}()
		next.ServeHTTP(a, r)
		a.beginsAnyhow()
		returned = true
	})
}

// answer is a http.ResponseWriter that notes what it passes on. The rest of what
// the one below can do, http.ResponseController finds through Unwrap.
type answer struct {
	http.ResponseWriter
	began     time.Time
	id        []string
	status    int // 0 until the header is written
	firstByte time.Duration
	bytes     int64
	cache     string
	failed    bool // the client takes no more
}

func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// WriteHeader notes the status. Informational answers come before it, and are
// none; 101 ends HTTP on the connection.
func (a *answer) WriteHeader(status int) {
	if a.status == 0 && (status >= 200 || status == http.StatusSwitchingProtocols) {
		a.begins(status)
		a.Header()[origin.RequestID] = a.id
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) begins(status int) {
	a.status, a.firstByte = status, time.Since(a.began)
	if lines := a.Header()["Cache-Status"]; len(lines) > 0 && strings.HasPrefix(lines[len(lines)-1], origin.Pseudonym) {
		a.cache = lines[len(lines)-1]
	}
}

func (a *answer) Write(p []byte) (int, error) {
	a.beginsAnyhow()
	n, err := a.ResponseWriter.Write(p)
	a.wrote(int64(n), err)
	return n, err
}

// ReadFrom lets the one below copy in its own way, sendfile for one.
func (a *answer) ReadFrom(from io.Reader) (int64, error) {
	a.beginsAnyhow()
	n, err := io.Copy(a.ResponseWriter, from)
	a.wrote(n, err)
	return n, err
}

// FlushError is called by http.ResponseController.
func (a *answer) FlushError() error {
	a.beginsAnyhow()
	return http.NewResponseController(a.ResponseWriter).Flush()
}

// Hijack is what a proxy does to a connection that has switched protocols. It
// writes the header itself, and what passes then is not counted.
func (a *answer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := http.NewResponseController(a.ResponseWriter).Hijack()
	if err == nil && a.status == 0 {
		a.begins(http.StatusSwitchingProtocols)
	}
	return conn, buffered, err
}

// beginsAnyhow writes the header that net/http would.
func (a *answer) beginsAnyhow() {
	if a.status == 0 {
		a.WriteHeader(http.StatusOK)
	}
}

func (a *answer) wrote(n int64, err error) {
	a.bytes += n
	a.failed = a.failed || err != nil && err != http.ErrBodyNotAllowed
}

// into notes the answer in a line.
func (a *answer) into(line *Line) {
	line.Duration = milliseconds(time.Since(a.began))
	line.FirstByte = milliseconds(a.firstByte)
	line.Status, line.Bytes, line.Cache, line.Aborted = a.status, a.bytes, a.cache, a.failed
	if line.Method == http.MethodHead {
		line.Bytes = 0 // net/http sends none of it
	}
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
