package origin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Failure is why there is no response of the upstream, as a client is told.
type Failure struct {
	Status int
	Err    error  // for logs: it may name addresses
	Advice string // for the client; "" is the usual one of the status
}

func (f *Failure) Error() string { return fmt.Sprintf("%d: %v", f.Status, f.Err) }

func (f *Failure) Unwrap() error { return f.Err }

// failure sorts the errors of a round trip. One that has a status is about the
// client's own request: its body broke a rule, or came to a stop, on its way.
func failure(err error) *Failure {
	var clients interface {
		error
		Status() int
	}
	if errors.As(err, &clients) {
		return &Failure{Status: clients.Status(), Err: err}
	}
	var timed net.Error
	if errors.As(err, &timed) && timed.Timeout() || errors.Is(err, context.DeadlineExceeded) {
		return &Failure{Status: http.StatusGatewayTimeout, Err: err}
	}
	return &Failure{Status: http.StatusBadGateway, Err: err}
}

var advice = map[int]string{
	http.StatusBadRequest:         "The request cannot be forwarded as it is. Use a target of the form /path?query, with every special character percent-encoded, and a body of the length that its header says.",
	http.StatusRequestTimeout:     "The body of the request came to a stop. Send it again without pauses.",
	http.StatusBadGateway:         "The proxy got no answer from the service behind it. Check that the service is running, and that the proxy's upstream address is its address.",
	http.StatusServiceUnavailable: "Too many requests are waiting for the service behind the proxy. Try again in a moment; if it lasts, look for slow requests in the service.",
	http.StatusGatewayTimeout:     "The service behind the proxy did not answer in time. Check whether it, or the database behind it, is overloaded.",
}

// Write answers a client with the failure, beside the fields that w has.
func (f *Failure) Write(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	if f.Status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "1")
	}
	w.WriteHeader(f.Status)
	text := f.Advice
	if text == "" {
		text = advice[f.Status]
	}
	// If the client is gone there is nobody left to tell.
	_, _ = io.WriteString(w, fmt.Sprintf("%d %s\n%s\n", f.Status, http.StatusText(f.Status), text))
}

// outage logs that the upstream fails: the first time, then every ten seconds
// with a count, and its end.
type outage struct {
	log     *slog.Logger
	failing atomic.Bool // that end need not lock in good times

	mu     sync.Mutex // guards the following
	since  time.Time
	logged time.Time
	failed int
}

const outageLogInterval = 10 * time.Second

func (o *outage) count(upstream string, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	if !o.failing.Load() {
		o.since, o.failed, o.logged = now, 0, time.Time{}
		o.failing.Store(true)
	}
	o.failed++
	if now.Sub(o.logged) >= outageLogInterval {
		o.log.Warn("upstream does not answer", "upstream", upstream, "failed", o.failed, "err", err)
		o.logged = now
	}
}

func (o *outage) end(upstream string) {
	if !o.failing.Load() {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.failing.Swap(false) {
		o.log.Info("upstream answers again", "upstream", upstream, "failed", o.failed, "for", time.Since(o.since))
	}
}
