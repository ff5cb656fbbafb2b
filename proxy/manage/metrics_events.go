package manage

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"walcache/proxy/guard"
)

const (
	retryAfter = 2 * time.Second
	heartbeat  = 15 * time.Second
	// writeTime is how long a client may take to read an event: one that has
	// stopped reading does not keep its stream.
	writeTime = 5 * time.Second
)

// serveEvents sends what changes on the page as it changes, as server-sent events
// (https://html.spec.whatwg.org/multipage/server-sent-events.html):
//
//	samples  an array of Sample: the history to begin with, or as much of it as
//	         came after Last-Event-ID, then one a second
//	parts    an object of HTML by the id of the element that it belongs in: those
//	         that have changed
//
// A stream ends when its client leaves or the proxy stops.
func (m *monitor) serveEvents(w http.ResponseWriter, r *http.Request) {
	leave, err := m.watching.Enter(r)
	if err != nil {
		w.Header().Set("Retry-After", "10")
		guard.WriteJSON(w, http.StatusServiceUnavailable, guard.Problem(err.Error(), "close a page that is kept up to date, or reload this one to have its figures of now"))
		return
	}
	defer leave()
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx would hold events back
	h.Set("X-Content-Type-Options", "nosniff")
	s := eventStream{to: w, control: http.NewResponseController(w), sent: map[string]string{}}
	// The connection may be of use to another request after this one.
	defer func() { _ = s.control.SetWriteDeadline(time.Time{}) }()
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead || !s.begin() {
		return
	}
	m.follow(r.Context(), &s, m.place(r), lastID(r))
}

// lastID is the last event that a client has seen, by the header that browsers
// send, or the parameter that live.js does.
func lastID(r *http.Request) string {
	return cmp.Or(r.Header.Get("Last-Event-ID"), r.URL.Query().Get("after"))
}

// follow sends events until something ends.
func (m *monitor) follow(ctx context.Context, s *eventStream, at place, after string) {
	for {
		samples, last, more := m.history.After(after)
		ok := len(samples) == 0 || s.event("samples", last, samples)
		after = last
		if !ok || !s.parts(m.parts(ctx, at, last)) {
			return
		}
		for waiting := true; waiting; {
			select {
			case <-ctx.Done():
				return
			case <-m.stopped:
				return
			case <-more:
				waiting = false
			case <-time.After(heartbeat):
				if !s.write(": still here\n\n") {
					return
				}
			}
		}
	}
}

// eventStream writes events, each at once.
type eventStream struct {
	to      http.ResponseWriter
	control *http.ResponseController
	sent    map[string]string // parts, as they were sent last
}

// begin says how soon a client that has lost the stream comes again.
func (s *eventStream) begin() bool {
	return s.write(fmt.Sprintf("retry: %d\n\n", retryAfter.Milliseconds()))
}

// parts sends those that are other than before.
func (s *eventStream) parts(all map[string]string) bool {
	changed := map[string]string{}
	for id, html := range all {
		if was, known := s.sent[id]; !known || was != html {
			changed[id] = html
			s.sent[id] = html
		}
	}
	return len(changed) == 0 || s.event("parts", "", changed)
}

// event sends a value. JSON has no line ends in it, which would end the data.
func (s *eventStream) event(kind, id string, value any) bool {
	var b bytes.Buffer
	fmt.Fprintf(&b, "event: %s\n", kind)
	if id != "" {
		fmt.Fprintf(&b, "id: %s\n", id)
	}
	b.WriteString("data: ")
	if err := json.NewEncoder(&b).Encode(value); err != nil {
		return false
	}
	b.WriteString("\n")
	return s.write(b.String())
}

// write reports whether the client is still there.
func (s *eventStream) write(text string) bool {
	_ = s.control.SetWriteDeadline(time.Now().Add(writeTime)) // not every writer has one
	if _, err := s.to.Write([]byte(text)); err != nil {
		return false
	}
	return s.control.Flush() == nil
}
