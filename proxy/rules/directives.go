package rules

import (
	"iter"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/dunglas/httpsfv"
)

// Directives are those of Cache-Control that the cache acts on (RFC 9111,
// section 5.2). A time that is not given is unset; one that cannot be read is
// 0, because freshness that is not understood is none (section 4.2.1).
type Directives struct {
	NoStore, NoCache, Private, Public bool
	MustRevalidate, ProxyRevalidate   bool
	OnlyIfCached                      bool
	MaxAge, SMaxAge                   time.Duration
	WhileRevalidate, IfError          time.Duration // RFC 5861
}

const Unset time.Duration = -1

func newDirectives() Directives {
	return Directives{MaxAge: Unset, SMaxAge: Unset, WhileRevalidate: Unset, IfError: Unset}
}

// set takes in one directive. private and no-cache count in full also where
// they name fields: the cache keeps an answer whole or not at all.
func (d *Directives) set(name, value string) {
	switch name {
	case "no-store":
		d.NoStore = true
	case "no-cache":
		d.NoCache = true
	case "private":
		d.Private = true
	case "public":
		d.Public = true
	case "must-revalidate":
		d.MustRevalidate = true
	case "proxy-revalidate":
		d.ProxyRevalidate = true
	case "only-if-cached":
		d.OnlyIfCached = true
	case "max-age":
		lower(&d.MaxAge, value)
	case "s-maxage":
		lower(&d.SMaxAge, value)
	case "stale-while-revalidate":
		lower(&d.WhileRevalidate, value)
	case "stale-if-error":
		lower(&d.IfError, value)
	}
}

// lower sets a time; of several the shortest counts.
func lower(d *time.Duration, seconds string) {
	if t := deltaSeconds(seconds); *d == Unset || t < *d {
		*d = t
	}
}

// maxDelta is what a longer time is taken for (RFC 9111, section 1.2.2).
const maxDelta = 1 << 31

// deltaSeconds reads a number of seconds; what is none counts as 0.
func deltaSeconds(s string) time.Duration {
	n := 0
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0
		}
		n = min(n*10+int(s[i]-'0'), maxDelta)
	}
	return time.Duration(n) * time.Second
}

// ParseCacheControl reads the lines of a Cache-Control field.
func ParseCacheControl(lines []string) Directives {
	d := newDirectives()
	for name, value := range members(lines) {
		d.set(strings.ToLower(name), value)
	}
	return d
}

// Asks reads the directives of a request. Pragma counts only where there is no
// Cache-Control (RFC 9111, section 5.4).
func Asks(h http.Header) Directives {
	lines := h["Cache-Control"]
	if len(lines) > 0 {
		return ParseCacheControl(lines)
	}
	d := newDirectives()
	for _, line := range h["Pragma"] {
		d.NoCache = d.NoCache || strings.Contains(strings.ToLower(line), "no-cache")
	}
	return d
}

// members goes through a comma-separated field of the form name[=value], where
// a value may be a quoted string (RFC 9110, section 5.6). Members that are not
// of the form come as they are; nobody asks for them.
func members(lines []string) iter.Seq2[string, string] {
	return func(yield func(name, value string) bool) {
		for _, rest := range lines {
			for rest != "" {
				var member string
				member, rest = cutMember(rest)
				name, value, _ := strings.Cut(member, "=")
				name, value = strings.TrimSpace(name), strings.TrimSpace(value)
				if len(value) > 1 && value[0] == '"' && value[len(value)-1] == '"' {
					value = value[1 : len(value)-1]
				}
				if name != "" && !yield(name, value) {
					return
				}
			}
		}
	}
}

// cutMember cuts at the first comma that is not inside a quoted string. A
// string that does not end quotes nothing, or it could hide a no-store.
func cutMember(s string) (member, rest string) {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"':
			quoted = !quoted
		case s[i] == '\\' && quoted:
			i++
		case s[i] == ',' && !quoted:
			return s[:i], s[i+1:]
		}
	}
	if quoted {
		member, rest, _ = strings.Cut(s, ",")
		return member, rest
	}
	return s, ""
}

// ParseTargeted reads CDN-Cache-Control. ok is false if it says nothing or is
// no structured dictionary, and then it counts for nothing as a whole (RFC
// 9213, section 2.2).
func ParseTargeted(lines []string) (d Directives, ok bool) {
	d = newDirectives()
	dict, err := httpsfv.UnmarshalDictionary(lines)
	if err != nil || len(dict.Names()) == 0 {
		return d, false
	}
	for _, name := range dict.Names() {
		member, _ := dict.Get(name)
		item, _ := member.(httpsfv.Item)
		switch value := item.Value.(type) {
		case bool:
			if value {
				d.set(name, "")
			}
		case int64:
			d.set(name, strconv.FormatInt(max(value, 0), 10))
		default:
			// A value of the wrong type permits nothing, and forbids as usual.
			if name != "public" {
				d.set(name, "")
			}
		}
	}
	return d, true
}
