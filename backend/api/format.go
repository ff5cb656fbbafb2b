package api

import (
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
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
	otherwise := asHTML
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		otherwise = asJSON
	}
	h.Add("Vary", "Accept")
	return preferred(r.Header.Values("Accept"), otherwise), err
}

// preferred is the format that Accept ranks first: the one of the greater
// weight, between equals the one that is named more exactly, then the one that
// is named first.
func preferred(accept []string, otherwise format) format {
	ranges := splitList(strings.Join(accept, ","))
	html, json := rank(ranges, "text", "html"), rank(ranges, "application", "json")
	switch {
	case html.less(json):
		return asJSON
	case json.less(html):
		return asHTML
	}
	return otherwise
}

// A ranking is what the header says of one media type.
type ranking struct {
	weight float64
	exact  int // 3 for the type itself, 1 for any type, 0 for a type not accepted
	place  int // in the header
}

func (a ranking) less(b ranking) bool {
	switch {
	case a.weight != b.weight:
		return a.weight < b.weight
	case a.exact != b.exact:
		return a.exact < b.exact
	}
	return a.place > b.place
}

// rank finds the most exact range that a media type is in. Parameters other than
// the weight are ignored, since our types have none to compare them with; a
// range that cannot be read is ignored too.
func rank(ranges []string, major, minor string) (best ranking) {
	for i, text := range ranges {
		name, parameters, err := mime.ParseMediaType(text)
		if err != nil {
			continue
		}
		found := ranking{weight: 1, place: i}
		switch name {
		case major + "/" + minor:
			found.exact = 3
		case major + "/*":
			found.exact = 2
		case "*/*", "*": // the second in old Java clients
			found.exact = 1
		}
		if q, weighted := parameters["q"]; weighted {
			found.weight, err = strconv.ParseFloat(q, 64)
		}
		if err == nil && found.weight >= 0 && found.weight <= 1 && found.exact > best.exact {
			best = found
		}
	}
	if best.weight == 0 {
		return ranking{}
	}
	return best
}

// splitList takes the list of a header apart at its commas, but those in quotes
// (RFC 9110 section 5.6.1).
func splitList(s string) (members []string) {
	quoted, start := false, 0
	for i := 0; i <= len(s); i++ {
		switch {
		case i == len(s), s[i] == ',' && !quoted:
			if member := strings.TrimSpace(s[start:i]); member != "" {
				members = append(members, member)
			}
			start = i + 1
		case s[i] == '\\' && quoted:
			i = min(i+1, len(s)-1)
		case s[i] == '"':
			quoted = !quoted
		}
	}
	return members
}
