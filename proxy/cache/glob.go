package cache

import (
	"fmt"
	"strings"
)

// glob is a pattern in which "*" stands for any run of characters, slashes too,
// and everything else for itself: "/admin/*" is all below /admin/, "/cart*" is
// /cart, /cart/items and /carts.
type glob []string // the literal parts between the stars

func parseGlobs(patterns []string) ([]glob, error) {
	var globs []glob
	for _, p := range patterns {
		if p == "" {
			return nil, fmt.Errorf("empty pattern in %q", patterns)
		}
		globs = append(globs, strings.Split(p, "*"))
	}
	return globs, nil
}

func (g glob) matches(s string) bool {
	first, last := g[0], g[len(g)-1]
	if len(g) == 1 {
		return s == first
	}
	if len(s) < len(first)+len(last) || !strings.HasPrefix(s, first) || !strings.HasSuffix(s, last) {
		return false
	}
	s = s[len(first) : len(s)-len(last)]
	for _, part := range g[1 : len(g)-1] {
		at := strings.Index(s, part)
		if at < 0 {
			return false
		}
		s = s[at+len(part):]
	}
	return true
}

func anyMatches(globs []glob, s string) bool {
	for _, g := range globs {
		if g.matches(s) {
			return true
		}
	}
	return false
}
