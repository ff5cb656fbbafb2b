package cache

import (
	"net/url"
	"strings"
)

// ignoredQuery are the query parameters that say nothing of what is asked for,
// by patterns of their names, such as utm_*.
type ignoredQuery []glob

// reduce returns a target without the parameters that are ignored. All others
// stay byte for byte and in their order.
//
// What is not in the key must not reach the upstream either. 1. Somebody asks for
// /a?utm_source=<script>. 2. The service puts the value into its page, as many do
// into links. 3. The page is stored for /a, and everybody gets it.
func (ignored ignoredQuery) reduce(target string) string {
	if len(ignored) == 0 {
		return target
	}
	path, query, ok := strings.Cut(target, "?")
	if !ok || !ignored.anyIn(query) {
		return target
	}
	var rest strings.Builder
	rest.Grow(len(target))
	rest.WriteString(path)
	separator := byte('?')
	for parameter := range strings.SplitSeq(query, "&") {
		if !ignored.has(parameter) {
			rest.WriteByte(separator)
			rest.WriteString(parameter)
			separator = '&'
		}
	}
	return rest.String()
}

func (ignored ignoredQuery) anyIn(query string) bool {
	for parameter := range strings.SplitSeq(query, "&") {
		if ignored.has(parameter) {
			return true
		}
	}
	return false
}

// has reports whether a parameter is to be ignored: its name matches as sent, or
// decoded as services do. One with a ";" in it some services take for two, of
// which the other may matter.
func (ignored ignoredQuery) has(parameter string) bool {
	name, _, _ := strings.Cut(parameter, "=")
	if name == "" || strings.Contains(parameter, ";") {
		return false
	}
	if anyMatches(ignored, name) {
		return true
	}
	if !strings.ContainsAny(name, "%+") {
		return false
	}
	decoded, err := url.QueryUnescape(name)
	return err == nil && anyMatches(ignored, decoded)
}
