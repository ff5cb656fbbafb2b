package wire

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"time"
)

// Reason is why a request was refused, or its connection ended.
type Reason uint8

// The reasons. Their names, statuses and texts are in refusals.
const (
	allowed Reason = iota
	RequestLine
	Version
	Target
	AbsoluteForm
	Connect
	LineEnding
	Folded
	FieldName
	FieldValue
	Host
	ContentLength
	TransferEncoding
	UnknownCoding
	TwoLengths
	LineTooLong
	HeadTooLarge
	SlowHead
	Chunk
	Trailer
	SlowBody
	EarlyBytes
	SlowReader
	PlainText
	reasons // how many there are
)

// refusals say what a reason is called in metrics, what it is answered with, and
// in which words.
var refusals = [reasons]struct {
	name   string
	status int
	text   string
}{
	RequestLine:      {"request-line", 400, "The request line is not METHOD, one space, target, one space, HTTP/1.1."},
	Version:          {"version", 505, "The request is of another version than HTTP/1.1 or HTTP/1.0. Use one of these; HTTP/2 takes TLS."},
	Target:           {"target", 400, "The request target has characters that no target may have. Use the form /path?query, with every special character percent-encoded."},
	AbsoluteForm:     {"absolute-form", 400, "The request line has a whole URL, as a forward proxy takes it. Put /path?query there, and the host into the Host field."},
	Connect:          {"connect", 400, "This is no forward proxy: it opens no tunnels. Ask for a path on this host."},
	LineEnding:       {"line-ending", 400, "A line of the request does not end in CR LF, or has a CR elsewhere."},
	Folded:           {"folded-field", 400, "A header field goes on in a second line. Write each field in one line."},
	FieldName:        {"field-name", 400, "A header line is not NAME: VALUE, where the name has only letters, digits and !#$%&'*+-.^_`|~, and no space before the colon."},
	FieldValue:       {"field-value", 400, "A header field has a control character in its value."},
	Host:             {"host", 400, "The request has to have one Host field, such as Host: example.com:8001."},
	ContentLength:    {"content-length", 400, "The request may have one Content-Length field, which is a number of bytes."},
	TransferEncoding: {"transfer-encoding", 400, "The request may have one Transfer-Encoding field, which is chunked, and only in HTTP/1.1."},
	UnknownCoding:    {"transfer-coding", 501, "The only Transfer-Encoding that is understood is chunked."},
	TwoLengths:       {"two-lengths", 400, "The request has both Transfer-Encoding and Content-Length. Send one of them."},
	LineTooLong:      {"target-too-long", 414, "The request line is too long. Send less in the URL, such as in a body."},
	HeadTooLarge:     {"head-too-large", 431, "The request has too many header fields, or they are too large. Clear cookies, or send less."},
	SlowHead:         {"slow-head", 408, "The request did not arrive in time. Send it again."},
	Chunk:            {"chunk", 400, "The body is not chunked as its Transfer-Encoding says."},
	Trailer:          {"trailer", 400, "The body is followed by a field that may not be there, or by too many."},
	SlowBody:         {"slow-body", 408, "The body did not arrive in time. Send it again."},
	EarlyBytes:       {"early-bytes", 400, "Too much was sent before the upgrade was answered."},
	SlowReader:       {"slow-reader", 0, "The client did not read its answer."},
	PlainText:        {"plain-text", 400, "This port speaks https. Use https:// in the URL."},
}

// String is what the reason is called in metrics.
func (r Reason) String() string { return refusals[r].name }

// Error is why a body ended before its end. The handler that reads it gets it,
// and answers Status.
type Error struct{ Reason Reason }

func (e *Error) Error() string { return "request body: " + refusals[e.Reason].text }

// Status is how a client is told, such as 400.
func (e *Error) Status() int { return refusals[e.Reason].status }

// Counters count refusals by reason. They may be used concurrently.
type Counters struct{ by [reasons]atomic.Uint64 }

func (c *Counters) add(r Reason) { c.by[r].Add(1) }

// Refused returns the counts by the names of their reasons, without those that
// are none.
func (c *Counters) Refused() map[string]uint64 {
	counts := map[string]uint64{}
	for r := range reasons {
		if n := c.by[r].Load(); n > 0 {
			counts[r.String()] = n
		}
	}
	return counts
}

// write answers a refused request that came by HTTP/2.
func (r Reason) write(w http.ResponseWriter) {
	w.Header().Set("Cache-Control", "no-store")
	http.Error(w, r.body(), refusals[r].status)
}

func (r Reason) body() string {
	status := refusals[r].status
	return fmt.Sprintf("%d %s\n%s", status, http.StatusText(status), refusals[r].text)
}

// answer is the response to a refused request, the last on its connection. To
// HEAD it has no body (RFC 9110, section 9.3.2).
func (r Reason) answer(head bool) []byte {
	status, body := refusals[r].status, r.body()+"\n"
	answer := fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nDate: %s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n",
		status, http.StatusText(status), time.Now().UTC().Format(http.TimeFormat), len(body))
	if head {
		return answer
	}
	return append(answer, body...)
}
