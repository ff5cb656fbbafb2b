package web

import (
	"mime"
	"strconv"
	"strings"
)

// PrefersJSON reports whether a client would rather have JSON than HTML, by its
// Accept fields as RFC 9110 section 12.5.1 ranks them. Where they are missing, or
// like both alike as */* does, it is otherwise.
func PrefersJSON(accept []string, otherwise bool) bool {
	ranges := SplitList(strings.Join(accept, ","))
	html, json := rank(ranges, "text", "html"), rank(ranges, "application", "json")
	switch {
	case html.less(json):
		return true
	case json.less(html):
		return false
	}
	return otherwise
}

// A ranking is what the header says of one media type: the one of the greater
// weight goes first, between equals the one that is named more exactly, then the
// one that is named first.
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

// SplitList takes the list of a header apart at its commas, but those in quotes
// (RFC 9110 section 5.6.1).
func SplitList(s string) (members []string) {
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
