package rules

import (
	"net/http"
	"strings"
	"time"
)

// explicitLifetime is the freshness lifetime that the origin gave (RFC 9111,
// section 4.2.1). A targeted field replaces Expires too (RFC 9213, section 2.2).
func explicitLifetime(d Directives, targeted bool, h http.Header, received time.Time) (lifetime time.Duration, explicit bool) {
	switch {
	case d.SMaxAge != Unset:
		return d.SMaxAge, true
	case d.MaxAge != Unset:
		return d.MaxAge, true
	case targeted || len(h["Expires"]) == 0:
		return 0, false
	}
	expires, ok := dateOf(h["Expires"])
	if !ok {
		return 0, true // such as "0", or two of them: in the past
	}
	return max(expires.Sub(date(h, received)), 0), true
}

// implicitLifetime is the lifetime of a response whose origin gave none: the
// one configured, or a tenth of the time since its last modification (RFC
// 9111, section 4.2.2).
func (p Policy) implicitLifetime(h http.Header, received time.Time) time.Duration {
	if p.TTL > 0 {
		return p.TTL
	}
	modified, ok := dateOf(h["Last-Modified"])
	if !ok {
		return 0
	}
	return max(date(h, received).Sub(modified)/10, 0)
}

// date is when the response was made, or received if it does not say. Of two
// dates the first counts.
func date(h http.Header, received time.Time) time.Time {
	if t, ok := parseDate(h.Get("Date")); ok {
		return t
	}
	return received
}

// initialAge is a response's age on arrival (RFC 9111, section 4.2.3).
func initialAge(h http.Header, requested, received time.Time) time.Duration {
	apparent := received.Sub(date(h, received))
	corrected := statedAge(h["Age"]) + received.Sub(requested)
	return max(apparent, corrected, 0)
}

// statedAge is the age that caches on the way have counted. Of several the first
// counts; one that is no number is ignored (RFC 9111, section 5.1).
func statedAge(lines []string) time.Duration {
	if len(lines) == 0 {
		return 0
	}
	first, _, _ := strings.Cut(lines[0], ",")
	age, _ := parseSeconds(strings.Trim(first, " \t"))
	return age
}

// dateOf reads a field that is one date.
func dateOf(lines []string) (t time.Time, ok bool) {
	if len(lines) != 1 {
		return time.Time{}, false
	}
	return parseDate(lines[0])
}

// The forms of a date, as RFC 9110, section 5.6.7, has them: the one to be sent,
// and two obsolete ones.
const (
	rfc850  = "Monday, 02-Jan-06 15:04:05 GMT"
	asctime = time.ANSIC
)

// parseDate reads an HTTP date. The time package is lenient with digits, spaces
// and fractions, and gives a zone that it does not know the offset of GMT; here
// what is not written as the standard writes it is no date. Which case letters
// are in and what day of the week is claimed make no difference.
func parseDate(s string) (t time.Time, ok bool) {
	layout := rfc850
	if len(s) > 3 && s[3] == ',' {
		layout = http.TimeFormat
	} else if len(s) > 3 && s[3] == ' ' {
		layout = asctime
	}
	t, err := time.Parse(layout, s)
	if err != nil {
		return time.Time{}, false
	}
	var buf [len("Wednesday, 02-Jan-06 15:04:05 GMT")]byte
	written := t.AppendFormat(buf[:0], layout)
	if !strings.EqualFold(behindWeekday(string(written)), behindWeekday(s)) {
		return time.Time{}, false
	}
	return t, true
}

func behindWeekday(date string) string { return date[max(strings.IndexByte(date, ' '), 0):] }
