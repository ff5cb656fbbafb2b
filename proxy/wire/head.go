package wire

import "bytes"

// Chunked is the length of a body that says itself where it ends.
const Chunked = -1

// Head is what a request line and the fields below it say. It is read into
// buffers that the next one is read into too.
type Head struct {
	text                 []byte // all of it, once it is complete
	method, target, host span
	minor                byte // of the version
	fields               []field
	length               int64 // of the body, or Chunked
	upgrade              bool
	trailer              bool // it is fields behind a body, without a request line

	line int // where the line begins that is being read
	seen int // up to where an end of it has been looked for

	hasHost, hasLength, hasCoding bool
}

// span is where something stands in a head.
type span struct{ from, to uint32 }

type field struct{ name, value span }

func (h *Head) at(s span) []byte { return h.text[s.from:s.to] }

// Method is as it was sent. It and the others below are good until the
// connection is read again.
func (h *Head) Method() []byte { return h.at(h.method) }

// Target is as it was sent: a path and a query, or an asterisk.
func (h *Head) Target() []byte { return h.at(h.target) }

// Host is the Host field, or empty in HTTP/1.0.
func (h *Head) Host() []byte { return h.at(h.host) }

// Minor is the version's: 1 or 0.
func (h *Head) Minor() int { return int(h.minor) }

// Length is that of the body in bytes, or Chunked.
func (h *Head) Length() int64 { return h.length }

// Fields is how many there are.
func (h *Head) Fields() int { return len(h.fields) }

// Field is one of them, in the order sent, its value without space around it.
func (h *Head) Field(i int) (name, value []byte) {
	return h.at(h.fields[i].name), h.at(h.fields[i].value)
}

// reset makes it ready for the next one.
func (h *Head) reset() { *h = Head{fields: h.fields[:0], trailer: h.trailer} }

// read goes on reading a head, of which b is all that there is so far. It returns
// the length of the head once that is complete, and 0 before.
func (h *Head) read(b []byte, l *Limits) (int, Reason) {
	for {
		line, from, why := h.nextLine(b, l)
		switch {
		case line == nil || why != allowed:
			return 0, why
		case from == 0 && !h.trailer:
			why = h.requestLine(line)
		case len(line) == 0:
			h.text = b[:h.line]
			return h.line, h.finish()
		case len(h.fields) == l.Fields:
			return 0, HeadTooLarge
		default:
			why = h.field(line, from)
		}
		if why != allowed {
			return 0, why
		}
	}
}

// nextLine returns the next line without its end, and where it begins; nil if it
// is not all there.
func (h *Head) nextLine(b []byte, l *Limits) (line []byte, from int, why Reason) {
	from = h.line
	limit, tooLong := l.Field, HeadTooLarge
	if from == 0 && !h.trailer {
		limit, tooLong = l.Line, LineTooLong
		if len(b) > 0 && classes[b[0]]&inToken == 0 {
			return nil, 0, RequestLine // such as a TLS handshake, which has no lines
		}
	}
	end := bytes.IndexByte(b[h.seen:], '\n')
	if end < 0 {
		h.seen = len(b)
		end = len(b)
	} else {
		end += h.seen
		line, h.seen, h.line = b[from:end], end+1, end+1
	}
	switch {
	case end-from > limit:
		return nil, 0, tooLong
	case end > l.Head:
		return nil, 0, HeadTooLarge
	case line == nil:
		return nil, from, allowed
	case len(line) == 0 || line[len(line)-1] != '\r':
		return nil, 0, LineEnding
	}
	return line[:len(line)-1], from, allowed
}

// requestLine reads METHOD SP target SP version (RFC 9112, section 3).
func (h *Head) requestLine(line []byte) Reason {
	first := bytes.IndexByte(line, ' ')
	last := bytes.LastIndexByte(line, ' ')
	switch {
	case bytes.IndexByte(line, '\r') >= 0:
		return LineEnding
	case first <= 0 || first == last || !all(line[:first], inToken):
		return RequestLine
	}
	h.method = span{0, uint32(first)}
	h.target = span{uint32(first + 1), uint32(last)}
	switch version := line[last+1:]; {
	case string(version) == "HTTP/1.1":
		h.minor = 1
	case string(version) == "HTTP/1.0":
	case len(version) == 8 && string(version[:5]) == "HTTP/" && version[6] == '.' && classes[version[5]]&classes[version[7]]&inDigit != 0:
		return Version
	default:
		return RequestLine
	}
	target := line[first+1 : last]
	if bytes.IndexByte(target, ' ') >= 0 {
		return RequestLine
	}
	return checkTarget(line[:first], target)
}

// field reads a line of the header (RFC 9112, section 5).
func (h *Head) field(line []byte, from int) Reason {
	if line[0] == ' ' || line[0] == '\t' {
		return Folded
	}
	colon := bytes.IndexByte(line, ':')
	if colon <= 0 || !all(line[:colon], inToken) {
		return FieldName
	}
	name, rest := line[:colon], line[colon+1:]
	if !all(rest, inValue) {
		if bytes.IndexByte(rest, '\r') >= 0 {
			return LineEnding
		}
		return FieldValue
	}
	begin, end := trim(rest)
	value, at := rest[begin:end], uint32(from+colon+1)
	where := span{at + uint32(begin), at + uint32(end)}
	h.fields = append(h.fields, field{span{uint32(from), uint32(from + colon)}, where})
	if h.trailer {
		return checkTrailer(name)
	}
	return h.note(name, value, where)
}

// note takes in what the few fields say that decide where the request ends and
// whom it is for.
func (h *Head) note(name, value []byte, where span) Reason {
	switch {
	case is(name, "host"):
		if h.hasHost || !validHost(value) {
			return Host
		}
		h.hasHost, h.host = true, where
	case is(name, "content-length"):
		n, ok := length(value)
		if h.hasLength || !ok {
			return ContentLength
		}
		h.hasLength, h.length = true, n
	case is(name, "transfer-encoding"):
		switch {
		case h.hasCoding || h.minor == 0:
			return TransferEncoding
		case !is(value, "chunked"):
			return UnknownCoding
		}
		h.hasCoding = true
	case is(name, "upgrade"):
		h.upgrade = true
	case is(name, "trailer"):
		for name := range bytes.SplitSeq(value, []byte{','}) {
			begin, end := trim(name)
			if why := checkTrailer(name[begin:end]); why != allowed {
				return why
			}
		}
	}
	return allowed
}

// checkTrailer keeps out of a trailer what says where a message ends or whom it
// is for (RFC 9110, section 6.5.1).
func checkTrailer(name []byte) Reason {
	for _, not := range []string{"host", "content-length", "transfer-encoding", "trailer", "connection", "upgrade", "te"} {
		if is(name, not) {
			return Trailer
		}
	}
	return allowed
}

// finish looks at the head as a whole.
func (h *Head) finish() Reason {
	switch {
	case h.trailer:
	case !h.hasHost && h.minor == 1:
		return Host
	case h.hasCoding && h.hasLength:
		return TwoLengths
	case h.hasCoding:
		h.length = Chunked
	}
	return allowed
}
