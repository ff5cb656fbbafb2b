package rules

import (
	"net/http"
	"slices"
	"strconv"
)

// Storable is the header that is stored of an answer: without the fields that
// are about one connection or one proxy, those that Connection names, and
// those to be omitted (RFC 9111, section 3.1; see Terms.Omit). It is the header
// itself if none of them is there, else a copy. The values are shared.
func Storable(h http.Header, omit []string) http.Header {
	return without(h, slices.Concat(FieldNames(h["Connection"]), omit))
}

// without leaves out the named fields, and those of one hop.
func without(h http.Header, names []string) http.Header {
	goes := func(name string) bool { return isHopByHop(name) || slices.Contains(names, name) }
	for name := range h {
		if goes(name) {
			kept := make(http.Header, len(h))
			for name, values := range h {
				if !goes(name) {
					kept[name] = values
				}
			}
			return kept
		}
	}
	return h
}

// isHopByHop reports whether a field is about one connection (RFC 9110, section
// 7.6.1) or for the proxy that it meets first (RFC 9111, section 3.1). Trailers
// are not stored, and so it is not said that they will come.
func isHopByHop(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
		"Proxy-Authenticate", "Proxy-Authentication-Info", "Proxy-Authorization":
		return true
	}
	return false
}

// Freshen is the header of a stored answer after a 304, or the answer to a HEAD,
// has confirmed it (RFC 9111, section 3.2): the new one's fields take the place
// of the stored ones, except for those about the body as it was stored. Neither
// argument is changed; values are shared.
//
// Age and Date are those of the new answer or none, so that the age of what is
// confirmed counts from the confirmation. Whether the result may be kept at all
// is for Policy.Terms to say again: a 304 can bring a Set-Cookie, or a no-store.
func Freshen(stored, fresh http.Header) http.Header {
	h := make(http.Header, len(stored)+len(fresh))
	for name, values := range stored {
		if name != "Age" && name != "Date" {
			h[name] = values
		}
	}
	for name, values := range Storable(fresh, nil) {
		if !isAboutBody(name) {
			h[name] = values
		}
	}
	return h
}

// isAboutBody reports whether a field says how the stored body is to be read: a
// 304 has none, and its word on that is about another message.
func isAboutBody(name string) bool {
	switch name {
	case "Content-Length", "Content-Encoding", "Content-Range", "Content-Md5", "Content-Digest":
		return true
	}
	return false
}

// SameRepresentation reports whether the header of a 200 to a HEAD says that a
// stored body still is what a GET would give (RFC 9111, section 4.3.5): it has
// a validator, and all of its validators and its length are those of the stored
// answer. The RFC takes an answer without validators as agreeing; it would make
// a changed answer pass for a fresh one.
func SameRepresentation(head, stored http.Header) bool {
	is, was := ValidatorsOf(head), ValidatorsOf(stored)
	switch {
	case !is.Any():
		return false
	case len(head["Etag"]) > 0 && (is.ETag == "" || is.ETag != was.ETag):
		return false
	case len(head["Last-Modified"]) > 0 && (is.LastModified.IsZero() || !is.LastModified.Equal(was.LastModified)):
		return false
	}
	return len(head["Content-Length"]) == 0 || sameLength(head["Content-Length"], stored["Content-Length"])
}

func sameLength(a, b []string) bool {
	if len(a) != 1 || len(b) != 1 {
		return false
	}
	m, errM := strconv.ParseUint(a[0], 10, 63)
	n, errN := strconv.ParseUint(b[0], 10, 63)
	return errM == nil && errN == nil && m == n
}
