package manage

import (
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"walcache/proxy/guard"
)

// lines is the type of an answer that tells how far it is: lines of JSON, of
// which the last is the result.
const lines = "application/x-ndjson"

const (
	tellEvery = 200 * time.Millisecond
	// tellWithin is how long a client may leave a line unread, before it is taken
	// for gone.
	tellWithin = 10 * time.Second
)

// teller answers whoever asked for something that takes a while.
type teller struct {
	w     http.ResponseWriter
	lines bool // the client wants to know how far it is
}

func newTeller(w http.ResponseWriter, r *http.Request) teller {
	return teller{w, strings.Contains(r.Header.Get("Accept"), lines)}
}

// during runs work, and tells meanwhile what state says.
func (t teller) during(work func(), state func() any) {
	if !t.lines {
		work()
		return
	}
	t.w.Header().Set("Content-Type", lines)
	t.w.Header().Set("Cache-Control", "no-store")
	done := make(chan struct{})
	go func() {
		defer close(done)
		work()
	}()
	tick := time.NewTicker(tellEvery)
	defer tick.Stop()
	for {
		t.line(state())
		select {
		case <-done:
			return
		case <-tick.C:
		}
	}
}

// line sends a value. A client that is gone ends what is done for it by its
// context.
func (t teller) line(v any) {
	c := http.NewResponseController(t.w)
	_ = c.SetWriteDeadline(time.Now().Add(tellWithin)) // where there is one
	_ = json.NewEncoder(t.w).Encode(v)
	_ = c.Flush()
	_ = c.SetWriteDeadline(time.Time{})
}

// end sends the result. Where lines were told the status is out already.
func (t teller) end(status int, result any) {
	if t.lines {
		t.line(result)
		return
	}
	guard.WriteJSON(t.w, status, result)
}
