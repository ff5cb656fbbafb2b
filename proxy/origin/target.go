package origin

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
)

var errTarget = errors.New("the request target is not of the form /path?query")

// target is what the request line asks for, as sent. A target in absolute form
// loses its scheme and authority, which net/http has made the request's Host
// (RFC 9112, section 3.2.2).
func target(r *http.Request) (string, error) {
	t := r.RequestURI
	switch {
	case r.Method == http.MethodConnect:
		return "", errTarget
	case strings.HasPrefix(t, "/"), t == "*" && r.Method == http.MethodOptions:
	case r.URL.Host != "" && (r.URL.Scheme == "http" || r.URL.Scheme == "https"):
		_, t, _ = strings.Cut(t, "://")
		if end := strings.IndexAny(t, "/?"); end < 0 {
			t = "/"
		} else if t = t[end:]; t[0] == '?' {
			t = "/" + t
		}
	default:
		return "", errTarget
	}
	if strings.HasPrefix(t, "//") {
		if _, err := split(t); err != nil {
			return "", err
		}
	}
	return t, nil
}

// url makes the URL that net/http writes as exactly this target. Opaque does
// that for every target but those that begin with "//", which it would take
// for an authority; there the parts do, if they are written as net/url would.
func (o *Origin) url(target string) (*url.URL, error) {
	u := &url.URL{Opaque: target}
	if strings.HasPrefix(target, "//") {
		var err error
		if u, err = split(target); err != nil {
			return nil, err
		}
	}
	u.Scheme, u.Host = o.scheme, o.authority
	return u, nil
}

func split(target string) (*url.URL, error) {
	raw, query, hasQuery := strings.Cut(target, "?")
	path, err := url.PathUnescape(raw)
	u := &url.URL{Path: path, RawPath: raw, RawQuery: query, ForceQuery: hasQuery}
	if err != nil || u.EscapedPath() != raw {
		return nil, errTarget
	}
	return u, nil
}
