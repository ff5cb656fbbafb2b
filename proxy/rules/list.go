package rules

import "strings"

// list goes through a comma-separated field whose members may have quoted
// strings in them (RFC 9110, section 5.6).
type list struct {
	rest  string
	plain bool // quotes mean nothing in the rest
}

// next returns the next member that is not empty, without the white space
// around it.
//
// A string that does not end quotes nothing, and nor does what comes behind it,
// or it could hide a no-store. That is found out once and remembered, so that a
// field of nothing but commas is read in time proportional to its length.
func (l *list) next() (member string, ok bool) {
	for l.rest != "" {
		if member = strings.Trim(l.cut(), " \t"); member != "" {
			return member, true
		}
	}
	return "", false
}

// cut cuts off what stands before the first comma outside a quoted string.
func (l *list) cut() (member string) {
	quoted := false
	for i := 0; i < len(l.rest) && !l.plain; i++ {
		switch c := l.rest[i]; {
		case c == '"':
			quoted = !quoted
		case c == '\\' && quoted:
			i++
		case c == ',' && !quoted:
			member, l.rest = l.rest[:i], l.rest[i+1:]
			return member
		}
	}
	l.plain = l.plain || quoted
	if !l.plain {
		member, l.rest = l.rest, ""
		return member
	}
	member, l.rest, _ = strings.Cut(l.rest, ",")
	return member
}
