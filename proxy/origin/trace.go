package origin

import (
	"encoding/binary"
	"encoding/hex"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httputil"
	"strings"
)

// RequestID is the field that names one request, so that it can be found again in
// a client's log, in ours and in the service's.
const RequestID = "X-Request-Id"

// The fields of W3C Trace Context (https://www.w3.org/TR/trace-context/) do so for
// all that follows from it; with the last newer services answer.
const (
	traceParent   = "Traceparent"
	traceState    = "Tracestate"
	traceResponse = "Traceresponse"
)

// Identify gives the header of a client's request one X-Request-Id and one
// traceparent, and returns the request's id and its trace's. What the client sent
// is kept if it is valid. Forward does the same for a request that has neither:
// this is for who wants to know the names of one that may never go upstream.
func Identify(h http.Header) (id, trace string) {
	id = requestIDOf(h)
	h[RequestID] = []string{id}
	t, ok := traceOf(h)
	if !ok {
		delete(h, traceState)
		h[traceParent] = []string{t.child()}
	}
	return id, t.id
}

// setTrace names the request for the upstream. It looks at what came in and not
// at what is left of that: Connection may name any of the fields.
func (x *Exchange) setTrace(p *httputil.ProxyRequest) {
	x.id = []string{requestIDOf(p.In.Header)}
	t, ok := traceOf(p.In.Header)
	p.Out.Header[RequestID] = x.id
	p.Out.Header[traceParent] = []string{t.child()}
	if state := p.In.Header[traceState]; ok && state != nil {
		p.Out.Header[traceState] = state
	}
}

// takeTrace takes the fields that name one request out of a response, before it
// is seen by whoever may keep it for others. What it returns puts those back that
// are the client's, and our id of its request for whatever the upstream made of it.
func (x *Exchange) takeTrace(h http.Header) (giveBack func()) {
	taken := http.Header{}
	for _, name := range []string{RequestID, traceParent, traceState, traceResponse} {
		if values, ok := h[name]; ok {
			taken[name] = values
			delete(h, name)
		}
	}
	taken[RequestID] = x.id
	return func() { maps.Copy(h, taken) }
}

// maxRequestID is the longest X-Request-Id that is kept, in bytes.
const maxRequestID = 128

// requestIDOf is the X-Request-Id that a client sent, or a new one if it sent
// none, several, or one that could be anything but a name in a log.
func requestIDOf(h http.Header) string {
	if lines := h[RequestID]; len(lines) == 1 && isRequestID(lines[0]) {
		return lines[0]
	}
	return randomHex() + randomHex()
}

func isRequestID(s string) bool {
	if len(s) == 0 || len(s) > maxRequestID {
		return false
	}
	for _, c := range []byte(s) {
		isAlphanumeric := c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
		if !isAlphanumeric && strings.IndexByte("._~+/=-", c) < 0 {
			return false
		}
	}
	return true
}

// trace is what a traceparent hands on.
type trace struct{ id, flags string }

// traceOf reads traceparent (W3C Trace Context, sections 2.2.2 and 3.2.3). ok is
// false if there is none that is valid; then the trace is a new one, and not
// sampled: who wants it to be says so.
func traceOf(h http.Header) (t trace, ok bool) {
	if lines := h[traceParent]; len(lines) == 1 {
		if t, ok = parseTrace(lines[0]); ok {
			return t, true
		}
	}
	return trace{randomHex() + randomHex(), "00"}, false
}

// parseTrace reads version-id-parent-flags. Of a version to come only the bit
// "sampled" is known to mean what it does here.
func parseTrace(s string) (t trace, ok bool) {
	const size = len("00-") + 32 + len("-") + 16 + len("-00")
	if len(s) < size || s[2] != '-' || s[35] != '-' || s[52] != '-' {
		return t, false
	}
	version, id, parent, flags := s[:2], s[3:35], s[36:52], s[53:55]
	for _, digits := range []string{version, id, parent, flags} {
		if strings.Trim(digits, "0123456789abcdef") != "" {
			return t, false
		}
	}
	longer := len(s) > size
	switch {
	case version == "ff", strings.Trim(id, "0") == "", strings.Trim(parent, "0") == "":
		return t, false
	case version == "00":
		return trace{id, flags}, !longer
	case longer && s[size] != '-':
		return t, false
	}
	if strings.Contains("13579bdf", flags[1:]) {
		return trace{id, "01"}, true
	}
	return trace{id, "00"}, true
}

// child is the traceparent of a request that is made for this one.
func (t trace) child() string { return "00-" + t.id + "-" + randomHex() + "-" + t.flags }

// randomHex is 16 random digits, of which not all are 0.
func randomHex() string {
	return hex.EncodeToString(binary.BigEndian.AppendUint64(nil, rand.Uint64()|1))
}
