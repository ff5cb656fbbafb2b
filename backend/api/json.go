package api

import (
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"walcache/backend/db"
)

// The bodies are appended to and not marshalled by reflection: this is the path
// of every miss, and reflection takes five times as long (BenchmarkList).

func appendList(b []byte, l listing) []byte {
	b = append(b, `{"properties":[`...)
	for p := range l.rows {
		b = append(appendProperty(b, p), ',')
	}
	if l.shown > 0 {
		b = b[:len(b)-len(",")]
	}
	b = append(b, `],"count":`...)
	return strconv.AppendInt(b, l.count, 10)
}

func appendProperty(b []byte, p db.GetPropertyRow) []byte {
	b = strconv.AppendInt(append(b, `{"id":`...), p.ID, 10)
	b = appendString(append(b, `,"title":`...), p.Title)
	b = appendString(append(b, `,"description":`...), p.Description)
	b = appendString(append(b, `,"price":`...), p.Price)
	b = appendString(append(b, `,"location":`...), p.Location)
	b = appendTime(append(b, `,"created_at":`...), p.CreatedAt)
	return append(b, '}')
}

// appendTime writes ISO 8601 in UTC, the microseconds left out when zero. The
// standard layout that it starts from is the one that Format is fast at.
func appendTime(b []byte, t time.Time) []byte {
	b = t.UTC().AppendFormat(append(b, '"'), time.RFC3339)
	b = b[:len(b)-len("Z")]
	if micros := t.Nanosecond() / 1000; micros != 0 {
		b = strconv.AppendInt(b, int64(1_000_000+micros), 10)
		b[len(b)-len("1256157")] = '.' // where the leading 1 kept the zeros
	}
	return append(b, `+00:00"`...)
}

// appendString writes s as a JSON string (RFC 8259 section 7). What is not
// UTF-8, as a database in SQL_ASCII may hold, becomes U+FFFD.
func appendString(b []byte, s string) []byte {
	const digits = "0123456789abcdef"
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "\uFFFD")
	}
	b = append(b, '"')
	start := 0
	for i := range len(s) {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		b = append(b, s[start:i]...)
		start = i + 1
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, `\n`...)
		case '\r':
			b = append(b, `\r`...)
		case '\t':
			b = append(b, `\t`...)
		default:
			b = append(b, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		}
	}
	return append(append(b, s[start:]...), '"')
}

// maxPooled is the largest body whose memory is kept for the next one.
const maxPooled = 4 << 20

var bodies = sync.Pool{New: func() any { return new([]byte) }}

// withBody lends a buffer to write for the time of the call.
func withBody(write func(b []byte) []byte) {
	p := bodies.Get().(*[]byte)
	if *p = write((*p)[:0]); cap(*p) <= maxPooled {
		bodies.Put(p)
	}
}
