package rules

import (
	"net/http"
	"strings"
	"time"
)

// NotModified evaluates a client's preconditions on the answer that it would
// get (RFC 9110, section 13.2.2, and RFC 9111, section 4.3.2): true means that
// it has that answer already.
func NotModified(h http.Header, etag string, lastModified time.Time) bool {
	if lines := h["If-None-Match"]; len(lines) > 0 {
		return etagListed(lines, etag)
	}
	lines := h["If-Modified-Since"]
	if len(lines) != 1 || lastModified.IsZero() {
		return false
	}
	since, err := http.ParseTime(lines[0])
	return err == nil && !lastModified.After(since)
}

// etagListed compares weakly (RFC 9110, section 8.8.3.2).
func etagListed(lines []string, etag string) bool {
	etag = strings.TrimPrefix(etag, "W/")
	for _, rest := range lines {
		if strings.TrimSpace(rest) == "*" {
			return true
		}
		for rest != "" {
			var tag string
			tag, rest = cutETag(rest)
			if tag != "" && tag == etag {
				return true
			}
		}
	}
	return false
}

// cutETag cuts the first opaque tag, with its quotes, out of a list. A tag may
// contain commas and has no escapes.
func cutETag(list string) (tag, rest string) {
	start := strings.IndexByte(list, '"')
	if start < 0 {
		return "", ""
	}
	end := strings.IndexByte(list[start+1:], '"')
	if end < 0 {
		return "", ""
	}
	end += start + 2
	return list[start:end], list[end:]
}
