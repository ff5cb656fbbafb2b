package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"walcache/proxy/guard"
	"walcache/proxy/manage"
)

const (
	// statusEvery is how often the figures on the page are renewed, and
	// changesEvery how soon after some changes others are sent: what comes in
	// between is sent together.
	statusEvery  = time.Second
	changesEvery = 100 * time.Millisecond
	// sendTimeout is how long a client may take to read an event, and quietTime
	// how long nothing may be sent before it is tried whether it still listens.
	sendTimeout = 5 * time.Second
	quietTime   = 15 * time.Second
)

// feed is an answer of server-sent events (WHATWG HTML, section 9.2).
type feed struct {
	w   http.ResponseWriter
	out *http.ResponseController
}

// streams answers with what serve sends. serve returns when the client has left,
// or when done is closed: then the client has, or the proxy is about to stop.
func (s *Server) streams(serve func(out feed, r *http.Request, done <-chan struct{})) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		leave, err := s.listeners.Enter(r)
		if err == nil {
			defer leave()
		}
		if s.draining() {
			err = errors.New("the proxy is about to stop")
		}
		if err != nil {
			w.Header().Set("Retry-After", "5")
			guard.WriteJSON(w, http.StatusServiceUnavailable, guard.Problem(err.Error(), "close pages that nobody looks at, and ask again"))
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Accel-Buffering", "no") // by a proxy in front that knows it
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.WriteHeader(http.StatusOK)
		if r.Method == http.MethodHead {
			return
		}
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(s.serving, cancel)()
		out := feed{w, http.NewResponseController(w)}
		// The connection may be of use to another request afterwards.
		defer func() { _ = out.out.SetWriteDeadline(time.Time{}) }()
		serve(out, r, ctx.Done())
	})
}

// send sends an event, whose data is written as JSON.
func (f feed) send(kind, id string, data any) error {
	text, err := json.Marshal(data)
	if err != nil {
		return err
	}
	return f.write(fmt.Sprintf("event: %s\nid: %s\ndata: %s\n\n", kind, id, text))
}

// quiet sends nothing that counts, to find out whether somebody listens.
func (f feed) quiet() error { return f.write(":\n\n") }

func (f feed) write(text string) error {
	_ = f.out.SetWriteDeadline(time.Now().Add(sendTimeout)) // where there is one to set
	if _, err := f.w.Write([]byte(text)); err != nil {
		return err
	}
	return f.out.Flush()
}

// statusEvent is what renews the page: HTML by the id of the element that it is
// for, and the samples that the plots do not have yet.
type statusEvent struct {
	Parts   map[string]string `json:"parts"`
	Samples []manage.Sample   `json:"samples"`
}

// statusEvents sends how things stand, again and again.
func (s *Server) statusEvents(out feed, r *http.Request, done <-chan struct{}) {
	for last := lastID(r); ; {
		parts, err := s.parts.read(s.renderParts)
		if err != nil {
			return
		}
		event := statusEvent{Parts: parts}
		event.Samples, last = s.samples(last)
		if out.send("status", last, event) != nil || !pause(done, nil, statusEvery) {
			return
		}
	}
}

// samples are those after the one of an ID, and the ID of the last.
func (s *Server) samples(after string) ([]manage.Sample, string) {
	if s.sources.History == nil {
		return []manage.Sample{}, "0"
	}
	some, last, _ := s.sources.History.After(after)
	return append([]manage.Sample{}, some...), last
}

// changeEvents sends the changes that came after the one that the client had
// last, and others as they happen.
func (s *Server) changeEvents(out feed, r *http.Request, done <-chan struct{}) {
	last, _ := strconv.ParseUint(lastID(r), 10, 64) // 0, which is before all, if it is none
	for {
		some, more := s.changes.after(last)
		for _, change := range some {
			if out.send("change", strconv.FormatUint(change.ID, 10), change) != nil {
				return
			}
			last = change.ID
		}
		if len(some) == 0 && out.quiet() != nil {
			return
		}
		if !pause(done, nil, changesEvery) || !pause(done, more, quietTime) {
			return
		}
	}
}

// pause waits for a time, or less if there is more to do, and reports whether to
// go on.
func pause(done, more <-chan struct{}, most time.Duration) bool {
	select {
	case <-done:
		return false
	case <-more:
	case <-time.After(most):
	}
	return true
}

// lastID is that of the last event that a client had, "" if it had none.
func lastID(r *http.Request) string {
	if id := r.Header.Get("Last-Event-ID"); id != "" {
		return id
	}
	return r.URL.Query().Get("after")
}

// recent keeps what was rendered for all who listen, so that a second costs one
// rendering however many they are.
type recent struct {
	mu    sync.Mutex // guards the following
	at    time.Time
	parts map[string]string // replaced and never written to
}

// read returns the parts, no older than half of statusEvery.
func (p *recent) read(render func() (map[string]string, error)) (map[string]string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.at) < statusEvery/2 {
		return p.parts, nil
	}
	parts, err := render()
	if err == nil {
		p.parts, p.at = parts, time.Now()
	}
	return parts, err
}
