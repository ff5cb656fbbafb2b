package api

import (
	"net/http"
	"net/url"

	"walcache/proxy/web"
)

// format is how an answer is written.
type format int

const (
	asHTML format = iota // for people
	asJSON               // for programs
)

// choose decides how to answer, and says so in the header where Accept decided:
//
//  1. ?format=json and ?format=html, if given. Any other is a problem: whoever
//     writes it means something that a page of HTML is not.
//  2. Accept, ranked as RFC 9110 section 12.5.1 says.
//  3. Where Accept is missing, or likes both alike as */* does: HTML for a read,
//     as ever, and JSON for a write. No browser writes without saying that it
//     wants HTML, and no program wants a redirect for its JSON.
//
// Nobody is refused for Accept alone (406): a client gets rather what it did not
// ask for than nothing.
func choose(h http.Header, r *http.Request) (format, error) {
	// Whoever reads the other parameters says what is wrong with the query.
	query, _ := url.ParseQuery(r.URL.RawQuery)
	asked, err := single(query, "format")
	switch {
	case err == nil && asked == "json":
		return asJSON, nil
	case err == nil && asked == "html":
		return asHTML, nil
	case err == nil && asked != "":
		err = wrong("format", "must be json or html")
	}
	h.Add("Vary", "Accept")
	writes := r.Method != http.MethodGet && r.Method != http.MethodHead
	if web.PrefersJSON(r.Header.Values("Accept"), writes) {
		return asJSON, err
	}
	return asHTML, err
}
