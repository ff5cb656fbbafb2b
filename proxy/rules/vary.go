package rules

import (
	"net/http"
	"strings"
)

// FieldValue is a request's value for a field that Vary names, in a form in
// which two requests that mean the same are equal more often (RFC 9111,
// section 4.1): lines are joined, white space around them goes, and in Accept and
// Accept-Language around commas too; Accept-Encoding is reduced to one coding,
// Accept to one media type if the operator named some, and Accept-Language is
// written as browsers do.
func FieldValue(h http.Header, name string, mediaTypes []string) string {
	lines := h[name]
	switch name {
	case "Accept-Encoding":
		return ReduceEncoding(lines)
	case "Accept":
		if reduced := ReduceAccept(lines, mediaTypes); reduced != "" {
			return reduced
		}
	}
	value := combined(lines)
	if !IsNegotiated(name) || !strings.Contains(value, ",") && name != "Accept-Language" {
		return value
	}
	var buf [256]byte
	normal := appendList(buf[:0], value)
	if name == "Accept-Language" {
		normal = normalLanguage(normal)
	}
	if string(normal) == value {
		return value // as most clients write it, and nothing is allocated
	}
	return string(normal)
}

// combined is the value of a field of several lines (RFC 9110, section 5.3).
func combined(lines []string) string {
	switch len(lines) {
	case 0:
		return ""
	case 1:
		return strings.Trim(lines[0], " \t")
	}
	trimmed := make([]string, len(lines))
	for i, line := range lines {
		trimmed[i] = strings.Trim(line, " \t")
	}
	return strings.Join(trimmed, ", ")
}

// IsNegotiated reports whether a field is known to be a list in which white space
// and empty members mean nothing. Of any other every byte counts: what we take for
// the same, a service may not. These two go upstream as FieldValue has them, so
// that nobody has the answer to another spelling stored as that to the usual one.
func IsNegotiated(name string) bool { return name == "Accept" || name == "Accept-Language" }

// appendList appends a list without the white space around its commas, and
// without its empty members (RFC 9110, section 5.6.1).
func appendList(to []byte, value string) []byte {
	members := list{rest: value}
	for member, ok := members.next(); ok; member, ok = members.next() {
		if len(to) > 0 {
			to = append(to, ',')
		}
		to = append(to, member...)
	}
	return to
}

// normalLanguage writes language ranges without white space, in the case in
// which browsers send them: regions are in capitals, all else is not (RFC 5646,
// section 2.1.1). Their order stays: where weights are equal, it may be what
// the client prefers.
func normalLanguage(value []byte) []byte {
	normal := value[:0]
	for _, c := range value {
		switch {
		case c == ' ' || c == '\t':
		case 'A' <= c && c <= 'Z':
			normal = append(normal, c+'a'-'A')
		default:
			normal = append(normal, c)
		}
	}
	for i, c := range normal {
		if c == '-' && letters(normal[i+1:]) == 2 {
			normal[i+1] -= 'a' - 'A'
			normal[i+2] -= 'a' - 'A'
		}
	}
	return normal
}

// letters is how many lower-case letters there are before the next separator;
// 0 if there is anything else.
func letters(s []byte) (n int) {
	for ; n < len(s) && s[n] != '-' && s[n] != ',' && s[n] != ';'; n++ {
		if s[n] < 'a' || s[n] > 'z' {
			return 0
		}
	}
	return n
}

// FieldNames reads a field that lists field names, such as Vary.
func FieldNames(lines []string) []string {
	var names []string
	for _, line := range lines {
		for name := range strings.SplitSeq(line, ",") {
			// No other space: what is one by Unicode is part of a name that is none,
			// and who forwards the request leaves in what that does not name.
			if name = strings.Trim(name, " \t"); name != "" {
				names = append(names, http.CanonicalHeaderKey(name))
			}
		}
	}
	return names
}
