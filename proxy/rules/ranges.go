package rules

import (
	"math"
	"net/http"
	"strings"
)

// Range is a part of a body: the bytes from First to Last, both included,
// counted from 0.
type Range struct{ First, Last int64 }

// RangeOutcome is what a request's Range makes of its answer.
type RangeOutcome uint8

const (
	Whole         RangeOutcome = iota // a 200, with all of the body
	Partial                           // a 206, with one part
	Unsatisfiable                     // a 416: nothing of the body is asked for
)

// RangeOf reads which part a GET asks for of a 200 whose body has this size, in
// bytes (RFC 9110, section 14). Several parts, another unit and what is
// malformed are ignored, as section 14.2 allows: the whole body is an answer to
// all of them, and one that a hostile client cannot make longer than it is.
//
// Preconditions come first (RFC 9110, section 13.2.2), except for If-Range,
// which is evaluated here.
func RangeOf(h http.Header, v Validators, size int64) (Range, RangeOutcome) {
	lines := h["Range"]
	if len(lines) != 1 {
		return Range{}, Whole
	}
	spec, ok := onlyRange(lines[0])
	if !ok || !v.inRange(h["If-Range"]) {
		return Range{}, Whole
	}
	first, last, ok := strings.Cut(spec, "-")
	if !ok {
		return Range{}, Whole
	}
	if first == "" {
		return suffix(last, size)
	}
	from, ok := position(first)
	to := int64(math.MaxInt64)
	if ok && last != "" {
		to, ok = position(last)
	}
	switch {
	case !ok || to < from:
		return Range{}, Whole
	case from >= size:
		return Range{}, Unsatisfiable
	}
	return Range{from, min(to, size-1)}, Partial
}

// suffix is the end of a body. Of an empty one it is all, for which a 206 has no
// form: Content-Range cannot name no bytes.
func suffix(length string, size int64) (Range, RangeOutcome) {
	n, ok := position(length)
	switch {
	case !ok, n > 0 && size == 0:
		return Range{}, Whole
	case n == 0:
		return Range{}, Unsatisfiable
	}
	return Range{size - min(n, size), size - 1}, Partial
}

// onlyRange cuts out of "bytes=0-499" what asks for the one part.
func onlyRange(field string) (spec string, ok bool) {
	unit, set, ok := strings.Cut(field, "=")
	if !ok || !strings.EqualFold(unit, "bytes") {
		return "", false
	}
	spec = strings.Trim(set, ", \t")
	return spec, spec != "" && !strings.Contains(spec, ",")
}

// position reads a number of bytes. One that is too large to tell is larger
// than any body.
func position(s string) (n int64, ok bool) {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		if n > (math.MaxInt64-9)/10 {
			n = (math.MaxInt64 - 9) / 10
		}
		n = n*10 + int64(s[i]-'0')
	}
	return n, s != ""
}

// inRange evaluates If-Range (RFC 9110, section 13.1.5): the client has other
// parts of this very answer, byte for byte, and so only a strong validator will
// do.
func (v Validators) inRange(lines []string) bool {
	if len(lines) == 0 {
		return true
	}
	if len(lines) > 1 {
		return false
	}
	if tag, rest := cutETag(lines[0]); tag != "" {
		return rest == "" && sameTag(tag, v.ETag, strongly)
	}
	since, ok := parseDate(lines[0])
	return ok && v.strongDate() && since.Equal(v.LastModified)
}
