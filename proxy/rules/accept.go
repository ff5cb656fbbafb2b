package rules

import "strings"

// A liking is what an Accept field says of one media type.
type liking struct {
	weight int // in thousandths, 0 for a type that is not wanted
	exact  int // 3 for the type itself, 2 for its range, 1 for any type, 0 for a type not named
	place  int // in the field
	// narrow says that it has parameters beside the weight: it asks for one form of
	// the type among several.
	narrow bool
}

func (a liking) less(b liking) bool {
	switch {
	case a.weight != b.weight:
		return a.weight < b.weight
	case a.exact != b.exact:
		return a.exact < b.exact
	}
	return a.place > b.place
}

// ReduceAccept reduces an Accept field to the one of several media types that it
// ranks first (RFC 9110, section 12.5.1): by weight, then the one that it names
// more exactly, then the one that it names first. It is "" where that is none, or
// two of them by the same range, as with */*, or one with parameters: what it asks
// for beside the type would be lost, and its answer others'.
func ReduceAccept(lines []string, types []string) (first string) {
	var best liking
	for _, t := range types {
		switch l := like(lines, t); {
		case l.weight == 0:
		case best.less(l):
			best, first = l, t
		case l == best:
			first = ""
		}
	}
	if best.narrow {
		return ""
	}
	return first
}

// like finds the most exact range that a media type is in.
func like(lines []string, mediaType string) (best liking) {
	major, _, _ := strings.Cut(mediaType, "/")
	place := 0
	for _, rest := range lines {
		for rest != "" {
			var member string
			member, rest, _ = strings.Cut(rest, ",")
			name, weight := weighted(member)
			place++
			if exact := exactness(name, major, mediaType); exact > best.exact {
				best = liking{weight, exact, place, isNarrow(member)}
			}
		}
	}
	return best
}

// isNarrow reports whether a range has parameters beside the weight.
func isNarrow(member string) bool {
	_, rest, hasParams := strings.Cut(member, ";")
	for hasParams {
		var param string
		param, rest, hasParams = strings.Cut(rest, ";")
		name, _, _ := strings.Cut(param, "=")
		if name = strings.TrimSpace(name); name != "" && !strings.EqualFold(name, "q") {
			return true
		}
	}
	return false
}

func exactness(name, major, mediaType string) int {
	switch {
	case strings.EqualFold(name, mediaType):
		return 3
	case len(name) == len(major)+2 && strings.HasSuffix(name, "/*") && strings.EqualFold(name[:len(major)], major):
		return 2
	case name == "*/*", name == "*": // the second in old Java clients
		return 1
	}
	return 0
}
