package cache

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
)

// Answer answers a request from memory, if what ServeHTTP would answer is a fresh
// answer from there. It is that answer, and the same functions decide. For what
// it asks of r and promises see wire.Answerer.
//
// Invariant: nothing that outlives the call refers to r, or what is stored would
// change as the next request arrives. Kept by who keeps a key, of which there is
// one on the way of a hit (Key.clone in askFor); see TestAnswer_KeepsNothingOfARequest.
func (c *Cache) Answer(r *http.Request, buf []byte) (head, body []byte, ok bool) {
	now := time.Now()
	view, err := c.origin.View(r)
	if err != nil || c.off() || c.cannotUse(r, view) != "" {
		return nil, nil, false
	}
	q, _, f := c.find(r, &view, now)
	if !f.fresh || q.asks.NoStore {
		return nil, nil, false
	}
	a := c.answerHit(&q, f, now)
	if head, ok = a.appendHead(buf); !ok {
		return nil, nil, false
	}
	if !q.head {
		body = a.body
	}
	if sampled := c.countHit(f, len(body)); sampled {
		c.count.hitTimes.add(time.Since(now))
	}
	return head, body, true
}

// appendHead appends what net/http would send before the body. ok is false if it
// would send something else than what is there.
func (a *answer) appendHead(to []byte) (head []byte, ok bool) {
	if a.unclean || len(a.part) > 0 || !areClean(a.cacheStatus[:len(a.cacheStatus)-1]) {
		return nil, false
	}
	typed := len(a.body) == 0 // or net/http would guess the type
	sized := a.status == http.StatusNoContent || a.status == http.StatusNotModified
	to = append(to, "HTTP/1.1 "...)
	to = strconv.AppendInt(to, int64(a.status), 10)
	to = append(to, ' ')
	if text := http.StatusText(a.status); text != "" {
		to = append(to, text...)
	} else {
		to = strconv.AppendInt(append(to, "status code "...), int64(a.status), 10)
	}
	to = append(to, "\r\n"...)
	for _, f := range a.fields {
		typed = typed || f.name == "Content-Type"
		sized = sized || f.name == "Content-Length"
		to = appendField(to, f.name, f.values)
	}
	if a.age != nil {
		to = appendField(to, "Age", a.age)
	}
	to = appendField(to, "Cache-Status", a.cacheStatus)
	return append(to, "\r\n"...), typed && sized
}

func appendField(to []byte, name string, values []string) []byte {
	for _, value := range values {
		to = append(to, name...)
		to = append(to, ": "...)
		to = append(to, value...)
		to = append(to, "\r\n"...)
	}
	return to
}

// isClean reports whether net/http would send a field as it is.
func isClean(name string, values []string) bool {
	return httpguts.ValidHeaderFieldName(name) && areClean(values)
}

func areClean(values []string) bool {
	for _, value := range values {
		if strings.Trim(value, " \t") != value || !httpguts.ValidHeaderFieldValue(value) {
			return false
		}
	}
	return true
}
