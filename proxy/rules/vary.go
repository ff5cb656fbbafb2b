package rules

import (
	"net/http"
	"strings"
)

// FieldValue is a request's value for a field that Vary names, in a form in
// which two requests that mean the same are equal more often (RFC 9111,
// section 4.1): lines are joined, white space around them goes,
// Accept-Encoding is reduced to one coding, and Accept to one media type if the
// operator named some.
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
	switch len(lines) {
	case 0:
		return ""
	case 1:
		return strings.TrimSpace(lines[0])
	}
	trimmed := make([]string, len(lines))
	for i, line := range lines {
		trimmed[i] = strings.TrimSpace(line)
	}
	return strings.Join(trimmed, ", ")
}

// FieldNames reads a field that lists field names, such as Vary.
func FieldNames(lines []string) []string {
	var names []string
	for _, line := range lines {
		for name := range strings.SplitSeq(line, ",") {
			if name = strings.TrimSpace(name); name != "" {
				names = append(names, http.CanonicalHeaderKey(name))
			}
		}
	}
	return names
}
