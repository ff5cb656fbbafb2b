package rules

import (
	"net/http"
	"strings"
	"time"
)

// Outcome is what a request's preconditions make of its answer.
type Outcome uint8

const (
	Proceed            Outcome = iota // the answer as it is
	NotModified                       // 304
	PreconditionFailed                // 412
)

// Evaluate evaluates the preconditions of a request on the answer that it would
// get, in the order of RFC 9110, section 13.2.2, and as RFC 9111, section
// 4.3.2, has it for a cache. An answer that is no success is sent as it is (RFC
// 9110, section 13.2.1).
//
// A cache may leave If-Match and If-Unmodified-Since alone, and only an origin
// knows what is true now: whoever calls this for a request that has them must
// be as sure of the answer as an origin is.
func Evaluate(method string, h http.Header, status int, v Validators) Outcome {
	if status < 200 || status > 299 {
		return Proceed
	}
	reads := method == http.MethodGet || method == http.MethodHead
	if lines := h["If-Match"]; len(lines) > 0 {
		if !listed(lines, v.ETag, strongly) {
			return PreconditionFailed
		}
	} else if since, ok := dateOf(h["If-Unmodified-Since"]); ok && v.LastModified.After(since) {
		return PreconditionFailed
	}
	if lines := h["If-None-Match"]; len(lines) > 0 {
		switch {
		case !listed(lines, v.ETag, weakly):
			return Proceed
		case reads:
			return NotModified
		}
		return PreconditionFailed
	}
	if since, ok := dateOf(h["If-Modified-Since"]); ok && reads && v.unmodifiedSince(since) {
		return NotModified
	}
	return Proceed
}

// unmodifiedSince compares a client's date with that of the last modification,
// or where there is none, with when the answer was made (RFC 9111, section
// 4.3.2). A second may see an answer, a change, and the next answer: so the
// second of its making itself says nothing of what the client has. The RFC lets
// it pass; the date of a modification is the origin's own word.
func (v Validators) unmodifiedSince(since time.Time) bool {
	if !v.LastModified.IsZero() {
		return !v.LastModified.After(since)
	}
	return !v.Date.IsZero() && v.Date.Before(since)
}

// comparison is one of the two of entity tags (RFC 9110, section 8.8.3.2).
type comparison bool

const (
	weakly   comparison = false
	strongly comparison = true
)

func isWeak(tag string) bool { return strings.HasPrefix(tag, "W/") }

func sameTag(a, b string, how comparison) bool {
	if how == strongly {
		return a != "" && a == b && !isWeak(a)
	}
	return a != "" && strings.TrimPrefix(a, "W/") == strings.TrimPrefix(b, "W/")
}

// listed reports whether an entity tag is in a list of them. "*" is any answer,
// and stands alone.
func listed(lines []string, tag string, how comparison) bool {
	if len(lines) == 1 && strings.Trim(lines[0], " \t") == "*" {
		return true
	}
	for _, rest := range lines {
		for rest != "" {
			var member string
			if member, rest = cutETag(rest); sameTag(member, tag, how) {
				return true
			}
		}
	}
	return false
}

// cutETag cuts the first entity tag, as sent, off a list (RFC 9110, section
// 8.8.3). It may contain commas and has no escapes. What is none ends the list:
// behind it nobody knows what is quoted.
func cutETag(list string) (tag, rest string) {
	list = strings.TrimLeft(list, ", \t")
	start := 0
	if isWeak(list) {
		start = 2
	}
	if len(list) <= start || list[start] != '"' {
		return "", ""
	}
	for i := start + 1; i < len(list); i++ {
		switch c := list[i]; {
		case c == '"':
			rest = strings.TrimLeft(list[i+1:], " \t")
			if rest != "" && rest[0] != ',' {
				return "", ""
			}
			return list[:i+1], rest
		case c <= ' ' || c == 0x7f:
			return "", ""
		}
	}
	return "", ""
}
