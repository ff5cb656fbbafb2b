package cache

import (
	"net/http"
	"slices"
	"strconv"

	"walcache/proxy/origin"
)

// forwarded says, as our member of Cache-Status, that a request was not
// answered from the store (RFC 9211, section 2).
type forwarded struct {
	why       string // the fwd parameter
	status    int    // of the upstream's response; 0 if there was none
	stored    bool
	collapsed bool // the response is that to another request
	detail    string
}

// missed makes a forwarded of a reason for which a stored answer could not be
// used, with the reason why the new one was not stored as second choice of
// detail.
func missed(reason, refusal string) forwarded {
	switch reason {
	case missURI, missVary, missRequest:
		return forwarded{why: reason, detail: refusal}
	}
	return forwarded{why: "stale", detail: reason}
}

func (f forwarded) String() string {
	s := origin.Pseudonym
	if f.why != "" {
		s += "; fwd=" + f.why
	}
	if f.status != 0 {
		s += "; fwd-status=" + strconv.Itoa(f.status)
	}
	if f.stored {
		s += "; stored"
	}
	if f.collapsed {
		s += "; collapsed"
	}
	if f.detail != "" {
		s += "; detail=" + f.detail
	}
	return s
}

// addTo puts our member behind those of caches nearer to the origin.
func (f forwarded) addTo(h http.Header) {
	h["Cache-Status"] = append(slices.Clip(h["Cache-Status"]), f.String())
}
