package rules

import (
	"strconv"
	"strings"
)

// codings are what Accept-Encoding is reduced to, best first.
var codings = [...]string{"zstd", "br", "gzip", "identity"}

const identity = len(codings) - 1

// ReduceEncoding reduces an Accept-Encoding field to the one coding that it
// ranks highest (RFC 9110, section 12.5.3), so that a page has a handful of
// variants and not one for each way in which browsers write the field.
// Identity is last unless the field gives it a weight.
func ReduceEncoding(lines []string) string {
	weights := [len(codings)]int{-1, -1, -1, -1}
	other := -1
	for _, rest := range lines {
		for rest != "" {
			var member string
			member, rest, _ = strings.Cut(rest, ",")
			name, weight := weighted(member)
			if name == "*" {
				other = max(other, weight)
			} else if i := codingIndex(name); i >= 0 {
				weights[i] = max(weights[i], weight)
			}
		}
	}
	best, highest := identity, max(weights[identity], 0)
	for i, w := range weights {
		if w < 0 && i != identity {
			w = other
		}
		if w > highest || w == highest && w > 0 && i < best {
			best, highest = i, w
		}
	}
	return codings[best]
}

func codingIndex(name string) int {
	if strings.EqualFold(name, "x-gzip") {
		name = "gzip" // RFC 9110, section 8.4.1.3
	}
	for i, coding := range codings {
		if strings.EqualFold(name, coding) {
			return i
		}
	}
	return -1
}

// weighted splits "gzip;q=0.5" into the name and its weight in thousandths. A
// weight that cannot be read is 0: what a client may not want is not sent.
func weighted(member string) (name string, weight int) {
	name, rest, hasParams := strings.Cut(member, ";")
	name = strings.TrimSpace(name)
	for hasParams {
		var param string
		param, rest, hasParams = strings.Cut(rest, ";")
		key, value, _ := strings.Cut(param, "=")
		if !strings.EqualFold(strings.TrimSpace(key), "q") {
			continue
		}
		q, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		if err != nil || !(q >= 0 && q <= 1) {
			return name, 0
		}
		return name, int(q*1000 + 0.5)
	}
	return name, 1000
}
