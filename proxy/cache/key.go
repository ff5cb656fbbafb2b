package cache

import (
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
// host may stand what a trusted proxy said of it, and then the target below that:
// or a prefix that it said would be the beginning of another target.
func (k Key) String() string {
	if strings.Contains(k.Host, "\n") {
		return k.Scheme + "://" + k.Host + "\n" + k.Target
	}
	return k.Scheme + "://" + k.Host + k.Target
}

// clone is the key in memory of its own.
func (k Key) clone() Key {
	return Key{strings.Clone(k.Scheme), strings.Clone(k.Host), strings.Clone(k.Target)}
}

// hash is what the page can be purged by.
func (k Key) hash() coherence.Hash { return coherence.PageHash(k.URL()) }

// group is what the pages of this one's origin in a group can be purged by.
func (k Key) group(name string) coherence.Hash {
	return coherence.GroupHash(Key{Scheme: k.Scheme, Host: k.Host}.URL(), name)
}

// URL is the page's URL as a client would write it: the host in lower case, the
// scheme's own port left out.
func (k Key) URL() string {
	scheme := strings.ToLower(k.Scheme)
	host, _, _ := strings.Cut(k.Host, "\n")
	return scheme + "://" + rules.Authority(scheme, host) + k.Target
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
