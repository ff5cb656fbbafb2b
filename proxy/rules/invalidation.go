package rules

import (
	"net/http"
	"slices"
	"strings"

	"github.com/dunglas/httpsfv"
)

// Unsafe reports whether a method may change something (RFC 9110, section
// 9.2.1). One that is not known here may.
func Unsafe(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return false
	}
	return true
}

// Invalidated lists the URLs whose stored answers an unsafe request makes stale
// when it is answered with this status and header (RFC 9111, section 4.4): its
// own, and those that Location and Content-Location name, if they are of the
// same origin; another's are not its business. Only a success changes something.
//
// The request is given by scheme, host as in Host, and target as sent. URLs are
// in the form "scheme://host/target": scheme and host in lower case, without
// the scheme's own port, path and query byte for byte.
func Invalidated(status int, scheme, host, target string, h http.Header) []string {
	if status < 200 || status > 399 {
		return nil
	}
	scheme = strings.ToLower(scheme)
	here := scheme + "://" + Authority(scheme, host)
	urls := []string{here + target}
	for _, name := range [...]string{"Location", "Content-Location"} {
		if lines := h[name]; len(lines) == 1 {
			if found, ok := resolve(scheme, Authority(scheme, host), target, lines[0]); ok && !slices.Contains(urls, here+found) {
				urls = append(urls, here+found)
			}
		}
	}
	return urls
}

// Authority writes a host and port in the form in which two that mean the same
// are equal (RFC 9110, section 4.2.3).
func Authority(scheme, host string) string {
	host = strings.ToLower(host)
	name, port := host, ""
	if i := strings.LastIndexByte(host, ':'); i > strings.LastIndexByte(host, ']') {
		name, port = host[:i], strings.TrimLeft(host[i+1:], "0")
	}
	if port == "" || scheme == "http" && port == "80" || scheme == "https" && port == "443" {
		return name
	}
	return name + ":" + port
}

// resolve finds the target, in the same origin, that a reference in the answer
// to a request for base names (RFC 3986, section 5.2). net/url would write
// some bytes of a path another way, and then it is no page's key any more.
func resolve(scheme, host, base, ref string) (target string, ok bool) {
	ref, _, _ = strings.Cut(strings.Trim(ref, " \t"), "#")
	if s, rest, found := cutScheme(ref); found {
		if s != scheme || !strings.HasPrefix(rest, "//") {
			return "", false
		}
		ref = rest
	}
	if rest, found := strings.CutPrefix(ref, "//"); found {
		end := strings.IndexAny(rest, "/?")
		if end < 0 {
			end = len(rest)
		}
		if Authority(scheme, rest[:end]) != host {
			return "", false
		}
		ref = rest[end:]
		if !strings.HasPrefix(ref, "/") {
			ref = "/" + ref
		}
	}
	if !strings.HasPrefix(base, "/") {
		base = "/" // the target of OPTIONS, and of nothing that is stored
	}
	path, query, hasQuery := strings.Cut(ref, "?")
	basePath, _, _ := strings.Cut(base, "?")
	switch {
	case path == "" && !hasQuery:
		return base, true
	case path == "":
		path = basePath
	case path[0] == '/':
		path = withoutDots(path)
	default:
		path = withoutDots(basePath[:strings.LastIndexByte(basePath, '/')+1] + path)
	}
	if hasQuery {
		path += "?" + query
	}
	return path, true
}

// cutScheme cuts the scheme, in lower case, off a reference that has one.
func cutScheme(ref string) (scheme, rest string, ok bool) {
	i := strings.IndexAny(ref, ":/?")
	if i <= 0 || ref[i] != ':' {
		return "", ref, false
	}
	return strings.ToLower(ref[:i]), ref[i+1:], true
}

// withoutDots removes the segments "." and ".." from a path that begins with a
// slash (RFC 3986, section 5.2.4).
func withoutDots(path string) string {
	segments := strings.Split(path, "/")[1:]
	kept := make([]string, 0, len(segments))
	for i, segment := range segments {
		last := i == len(segments)-1
		switch segment {
		case ".", "..":
			if segment == ".." && len(kept) > 0 {
				kept = kept[:len(kept)-1]
			}
			if last {
				kept = append(kept, "")
			}
		default:
			kept = append(kept, segment)
		}
	}
	return "/" + strings.Join(kept, "/")
}

// Groups reads the lines of Cache-Groups or Cache-Group-Invalidation, a
// structured list of strings (RFC 9875, section 2). One that is anything else
// names no groups, as structured fields have it: half of a list could be half
// of a purge. Names are compared byte for byte; parameters mean nothing.
func Groups(lines []string) []string {
	list, err := httpsfv.UnmarshalList(lines)
	if err != nil {
		return nil
	}
	names := make([]string, 0, len(list))
	for _, member := range list {
		item, _ := member.(httpsfv.Item)
		name, ok := item.Value.(string)
		if !ok {
			return nil
		}
		names = append(names, name)
	}
	return names
}
