package rules

import (
	"iter"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dunglas/httpsfv"
	"golang.org/x/net/http/httpguts"
)

// Directives are those of Cache-Control that the cache acts on (RFC 9111,
// section 5.2). A time that is not given is Unset; one that cannot be read is
// 0, because freshness that is not understood is none (section 4.2.1).
type Directives struct {
	NoStore, NoCache, Private, Public bool
	MustRevalidate, ProxyRevalidate   bool
	MustUnderstand                    bool
	NoTransform                       bool
	OnlyIfCached                      bool
	// Immutable (RFC 8246) tells a client not to ask again about an answer that
	// is fresh. This cache never does ask about one; to those who reload in spite
	// of it, and to whether a row has changed, it means nothing.
	Immutable bool
	// NoCacheFields and PrivateFields are the fields, in canonical spelling, that
	// no-cache="f" and private="f" name: the rest of the answer is for everyone.
	NoCacheFields, PrivateFields []string
	MaxAge, SMaxAge              time.Duration
	WhileRevalidate, IfError     time.Duration // RFC 5861
	MaxStale, MinFresh           time.Duration // of a request
}

// Unset is a time that is not given.
const Unset time.Duration = -1

func newDirectives() Directives {
	return Directives{MaxAge: Unset, SMaxAge: Unset, WhileRevalidate: Unset, IfError: Unset, MaxStale: Unset, MinFresh: Unset}
}

// forEveryone reports whether an origin says that an answer is not one user's,
// whoever asked for it.
func (d Directives) forEveryone() bool { return d.Public || d.SMaxAge != Unset }

// Accepts reports whether a request is content with a stored answer of this age
// and freshness lifetime, as far as its own directives go (RFC 9111, sections
// 5.2.1.1, 5.2.1.3 and 5.2.1.4). It is about an answer that is fresh. No answer
// is young enough for max-age=0, whose only use is to say so.
func (d Directives) Accepts(age, lifetime time.Duration) bool {
	return !d.NoCache && d.young(age) && lifetime-age >= d.MinFresh
}

// AcceptsExpired reports whether a request is content with a stored answer that
// has outlived its lifetime (RFC 9111, section 5.2.1.2). Whether the answer's
// own terms permit it (Terms.NoStale) is another question.
func (d Directives) AcceptsExpired(age, lifetime time.Duration) bool {
	return !d.NoCache && d.young(age) && d.MinFresh == Unset && d.MaxStale != Unset && age-lifetime <= d.MaxStale
}

func (d Directives) young(age time.Duration) bool {
	return d.MaxAge == Unset || d.MaxAge > 0 && age <= d.MaxAge
}

// set takes in one directive, its name in lower case.
func (d *Directives) set(name, value string) {
	switch name {
	case "no-store":
		d.NoStore = true
	case "no-cache":
		setFor(&d.NoCache, &d.NoCacheFields, value)
	case "private":
		setFor(&d.Private, &d.PrivateFields, value)
	case "public":
		d.Public = true
	case "must-revalidate":
		d.MustRevalidate = true
	case "proxy-revalidate":
		d.ProxyRevalidate = true
	case "must-understand":
		d.MustUnderstand = true
	case "no-transform":
		d.NoTransform = true
	case "immutable":
		d.Immutable = true
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
	case "min-fresh":
		d.MinFresh = max(d.MinFresh, deltaSeconds(value))
	case "max-stale":
		if value == "" {
			value = "2147483648" // any time
		}
		lower(&d.MaxStale, value)
	}
}

// setFor sets a directive that may be about some fields only. It is about the
// whole answer unless its value is a quoted list of field names, and of such
// without which what is left is still the answer: an unquoted value may as well
// be somebody's way to write "yes".
func setFor(whole *bool, fields *[]string, value string) {
	quoted, ok := unquote(value)
	names := FieldNames([]string{quoted})
	if !ok || len(names) == 0 || slices.ContainsFunc(names, func(name string) bool { return !httpguts.ValidHeaderFieldName(name) || isEssential(name) }) {
		*whole = true
		return
	}
	*fields = append(*fields, names...)
}

// isEssential reports whether an answer without this field is another one.
func isEssential(name string) bool {
	return name == "Vary" || name == "Location" || name == "*" || strings.HasPrefix(name, "Content-")
}

// lower sets a time; of several the shortest counts.
func lower(d *time.Duration, seconds string) {
	if t := deltaSeconds(seconds); *d == Unset || t < *d {
		*d = t
	}
}

// maxDelta is what a longer time is taken for (RFC 9111, section 1.2.2).
const maxDelta = 1 << 31

// deltaSeconds reads a number of seconds, quoted or not; what is none counts as
// 0.
func deltaSeconds(s string) time.Duration {
	if quoted, ok := unquote(s); ok {
		s = quoted
	}
	t, _ := parseSeconds(s)
	return t
}

// parseSeconds reads a number of seconds.
func parseSeconds(s string) (t time.Duration, ok bool) {
	n := 0
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = min(n*10+int(s[i]-'0'), maxDelta)
	}
	return time.Duration(n) * time.Second, s != ""
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
// a value, which comes as it stands, may be a quoted string (RFC 9110, section
// 5.6). Members that are not of the form come as they are; nobody asks for
// them. White space around "=" is not of the form (RFC 9111, section 5.2): it
// stays with the value, so that the name is seen and no value is read.
func members(lines []string) iter.Seq2[string, string] {
	return func(yield func(name, value string) bool) {
		for _, line := range lines {
			l := list{rest: line}
			for member, ok := l.next(); ok; member, ok = l.next() {
				name, value, _ := strings.Cut(member, "=")
				if trimmed := strings.TrimRight(name, " \t"); trimmed != name {
					name, value = trimmed, " "+value
				}
				if name != "" && !yield(name, value) {
					return
				}
			}
		}
	}
}

// unquote takes the quotes off a quoted string.
func unquote(value string) (s string, ok bool) {
	if len(value) > 1 && value[0] == '"' && value[len(value)-1] == '"' {
		return value[1 : len(value)-1], true
	}
	return value, false
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
		case string:
			d.setMistyped(name, `"`+value+`"`)
		default:
			d.setMistyped(name, "?")
		}
	}
	return d, true
}

// setMistyped takes in a directive of CDN-Cache-Control whose value is of a type
// that it cannot have: it permits nothing, and forbids as usual. Lists of field
// names are strings, and rightly so.
func (d *Directives) setMistyped(name, value string) {
	switch name {
	case "no-cache", "private":
		d.set(name, value)
	case "public", "must-understand", "immutable":
	case "must-revalidate":
		d.set("proxy-revalidate", "") // which says nothing of Authorization
	default:
		d.set(name, "?")
	}
}
