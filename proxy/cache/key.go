package cache

import (
	"net/http"
	"slices"
	"strings"

	"walcache/proxy/coherence"
	"walcache/proxy/rules"
)

// Key names a page: what is asked for, byte for byte as it goes upstream.
type Key struct {
	Scheme, Host, Target string
}

// maxKey is the longest key, in bytes, that a page is stored under.
const maxKey = 4 << 10

// Size is the length of the key in bytes.
func (k Key) Size() int { return len(k.Scheme) + len(k.Host) + len(k.Target) }

// String writes the key as a URL, by which no two keys are alike. Below the
// host may stand what a trusted proxy said of it.
func (k Key) String() string { return k.Scheme + "://" + k.Host + k.Target }

// hash is what the page can be purged by.
func (k Key) hash() coherence.Hash { return coherence.PageHash(k.URL()) }

// URL is the page's URL as a client would write it: the host in lower case, the
// scheme's own port left out.
func (k Key) URL() string {
	scheme := strings.ToLower(k.Scheme)
	host, _, _ := strings.Cut(k.Host, "\n")
	host = strings.ToLower(host)
	switch scheme {
	case "http":
		host = strings.TrimSuffix(host, ":80")
	case "https":
		host = strings.TrimSuffix(host, ":443")
	}
	return scheme + "://" + host + k.Target
}

// fieldValue is the request's value for a field that Vary names.
func (q *request) fieldValue(name string) string {
	return rules.FieldValue(q.header, name, q.mediaTypes)
}

// fieldValues are a request's values for several fields.
func (q *request) fieldValues(names []string) []string {
	values := make([]string, len(names))
	for i, name := range names {
		values[i] = q.fieldValue(name)
	}
	return values
}

// inBothSpellings adds the names with "_" for "-". To a service behind CGI or
// WSGI they are the same, and api_key is what some clients send.
func inBothSpellings(names []string) []string {
	for _, name := range names {
		if strings.Contains(name, "-") {
			names = append(names, http.CanonicalHeaderKey(strings.ReplaceAll(name, "-", "_")))
		}
	}
	return names
}

// flightKey groups requests that one answer may serve: those alike in what the
// answers under the key were seen to vary by, or before there are any, in the
// content coding.
func (q *request) flightKey(page *Page) flightKey {
	vary := []string{"Accept-Encoding"}
	if page != nil {
		vary = page.entries[0].terms.Vary
	}
	return flightKey{q.key, strings.Join(slices.Concat(vary, q.fieldValues(vary)), "\n")}
}
