package rules

import (
	"net/http"
	"slices"
	"strings"
	"time"
)

// Validators are what tells two representations of a resource apart (RFC 9110,
// section 8.8). What an answer does not have, or not in a form that can be
// read, is zero.
type Validators struct {
	// ETag is the entity tag as sent, quotes and W/ included.
	ETag string
	// LastModified is to the second, and so is Date, when the answer was made.
	LastModified, Date time.Time
}

// ValidatorsOf reads the validators of an answer. A field that is repeated, or
// malformed, says nothing: two entity tags are those of two representations.
func ValidatorsOf(h http.Header) (v Validators) {
	if lines := h["Etag"]; len(lines) == 1 {
		if tag, rest := cutETag(lines[0]); rest == "" {
			v.ETag = tag
		}
	}
	v.LastModified, _ = dateOf(h["Last-Modified"])
	v.Date, _ = dateOf(h["Date"])
	return v
}

// Any reports whether there is a validator, so that the upstream can be asked
// whether the answer still holds.
func (v Validators) Any() bool { return v.ETag != "" || !v.LastModified.IsZero() }

// strongDate reports whether Last-Modified is a strong validator: nothing can
// have been changed again in the second that it names, because the answer was
// made in a later one (RFC 9110, section 8.8.2.2).
func (v Validators) strongDate() bool {
	return !v.LastModified.IsZero() && v.Date.Sub(v.LastModified) >= time.Second
}

// Condition makes a request to the upstream one for what has changed since the
// stored answers were made (RFC 9111, section 4.3.1). It replaces the
// conditions that the request came with: a 304 then speaks of a stored answer,
// and of nothing that only the client has.
//
// All entity tags are sent. The date is only where there is one answer, because
// a 304 could not say which of several it is about.
func Condition(h http.Header, stored []Validators) {
	for _, name := range [...]string{"If-None-Match", "If-Modified-Since", "If-Match", "If-Unmodified-Since", "If-Range"} {
		delete(h, name)
	}
	var tags []string
	for _, v := range stored {
		if v.ETag != "" && !slices.Contains(tags, v.ETag) {
			tags = append(tags, v.ETag)
		}
	}
	if len(tags) > 0 {
		h["If-None-Match"] = []string{strings.Join(tags, ", ")}
	}
	if len(stored) == 1 && !stored[0].LastModified.IsZero() {
		h["If-Modified-Since"] = []string{stored[0].LastModified.UTC().Format(http.TimeFormat)}
	}
}

// Selected names, by their indices, the stored answers that a 304 freshens (RFC
// 9111, section 4.3.4): those with its strong validator, the latest of those
// with its weak one, and if it has none, the only one there is. None are
// selected by a 304 about something else.
//
// The RFC lets a 304 without validators speak only of an answer without any.
// But stored is what Condition has asked about, and of one answer asked about
// nothing else can be meant. Many servers repeat neither ETag nor date.
func Selected(fresh http.Header, stored []Validators) []int {
	v := ValidatorsOf(fresh)
	switch {
	case !v.Any():
		if len(stored) == 1 && !hasValidator(fresh) {
			return []int{0}
		}
		return nil
	case v.ETag != "" && !isWeak(v.ETag):
		return all(stored, func(s Validators) bool { return s.ETag == v.ETag })
	case v.ETag != "":
		return latest(stored, func(s Validators) bool { return sameTag(s.ETag, v.ETag, weakly) })
	}
	same := func(s Validators) bool { return s.LastModified.Equal(v.LastModified) }
	if strong := all(stored, func(s Validators) bool { return same(s) && s.strongDate() }); len(strong) > 0 {
		return strong
	}
	return latest(stored, same)
}

// hasValidator reports whether there is a field that would hold a validator,
// readable or not.
func hasValidator(h http.Header) bool { return len(h["Etag"])+len(h["Last-Modified"]) > 0 }

func all(stored []Validators, match func(Validators) bool) (selected []int) {
	for i, s := range stored {
		if match(s) {
			selected = append(selected, i)
		}
	}
	return selected
}

func latest(stored []Validators, match func(Validators) bool) []int {
	best := -1
	for i, s := range stored {
		if match(s) && (best < 0 || s.Date.After(stored[best].Date)) {
			best = i
		}
	}
	if best < 0 {
		return nil
	}
	return []int{best}
}
