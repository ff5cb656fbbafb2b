package rules

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestEvaluate(t *testing.T) {
	const (
		atNoon  = "Sun, 22 Nov 2026 12:00:00 GMT"
		after   = "Sun, 22 Nov 2026 12:00:01 GMT"
		before  = "Sun, 22 Nov 2026 11:59:59 GMT"
		get     = http.MethodGet
		reading = http.MethodHead
		put     = http.MethodPut
	)
	both := Validators{ETag: `"x"`, LastModified: noon, Date: noon.Add(time.Hour)}
	weak := Validators{ETag: `W/"x"`, LastModified: noon}
	dated := Validators{Date: noon}
	none := Validators{}
	for _, test := range []struct {
		name   string // with the section of RFC 9110, or RFC and section
		method string
		header http.Header
		v      Validators
		want   Outcome
	}{
		{"13.2.2 no condition", get, header(), both, Proceed},
		{"13.1.2 the same", get, header(`If-None-Match: "x"`), both, NotModified},
		{"13.1.2 the same, of a HEAD", reading, header(`If-None-Match: "x"`), both, NotModified},
		{"13.1.2 the same, of a PUT", put, header(`If-None-Match: "x"`), both, PreconditionFailed},
		{"13.1.2 another", get, header(`If-None-Match: "y"`), both, Proceed},
		{"13.1.2 another, of a PUT", put, header(`If-None-Match: "y"`), both, Proceed},
		{"13.1.2 any", get, header("If-None-Match: *"), both, NotModified},
		{"13.1.2 any, where there is no ETag", get, header("If-None-Match: *"), none, NotModified},
		{"13.1.2 any, of a PUT", put, header("If-None-Match: *"), both, PreconditionFailed},
		{"13.1.2 a star among others is none", get, header(`If-None-Match: "y", *`), both, Proceed},
		{"13.1.2 the star as a tag", get, header(`If-None-Match: "*"`), both, Proceed},
		{"13.1.2 the first of a list", get, header(`If-None-Match: "x", "y", "z"`), both, NotModified},
		{"13.1.2 the middle of a list", get, header(`If-None-Match: "y", "x", "z"`), both, NotModified},
		{"13.1.2 the last of a list", get, header(`If-None-Match: "y","z","x"`), both, NotModified},
		{"13.1.2 a list with empty members", get, header(`If-None-Match: ,, "y" ,, "x" ,`), both, NotModified},
		{"13.1.2 a list on several lines", get, header(`If-None-Match: "y"`, `If-None-Match: "x"`), both, NotModified},
		{"13.1.2 a comma within a tag", get, header(`If-None-Match: "a,b", "x"`), both, NotModified},
		{"13.1.2 a tag within a tag", get, header(`If-None-Match: "a,W/", "x`), both, Proceed},
		{"13.1.2 where there is no ETag", get, header(`If-None-Match: "x"`), none, Proceed},
		{"13.1.2 an empty tag", get, header(`If-None-Match: ""`), none, Proceed},
		{"13.1.2 an empty tag, which it has", get, header(`If-None-Match: ""`), Validators{ETag: `""`}, NotModified},
		{"13.1.2 empty", get, header("If-None-Match: "), both, Proceed},
		{"8.8.3 without quotes", get, header("If-None-Match: x"), both, Proceed},
		{"8.8.3 a quote that does not end", get, header(`If-None-Match: "x`), both, Proceed},
		{"8.8.3 behind what is no tag", get, header(`If-None-Match: y, "x"`), both, Proceed},
		{"8.8.3 something behind the tag", get, header(`If-None-Match: "x"y`), both, Proceed},
		{"8.8.3 a backslash is no escape", get, header(`If-None-Match: "\"`), Validators{ETag: `"\"`}, NotModified},
		{"8.8.3 case of the tag counts", get, header(`If-None-Match: "X"`), both, Proceed},
		{"8.8.3 bytes beyond ASCII", get, header("If-None-Match: \"\xfc\""), Validators{ETag: "\"\xfc\""}, NotModified},
		{"8.8.3 white space within a tag", get, header(`If-None-Match: "x y", "x"`), both, Proceed},
		{"8.8.3 case of the mark of weakness counts", get, header(`If-None-Match: w/"x"`), both, Proceed},
		{"8.8.3.2 weak, asked about strong", get, header(`If-None-Match: W/"x"`), both, NotModified},
		{"8.8.3.2 strong, asked about weak", get, header(`If-None-Match: "x"`), weak, NotModified},
		{"8.8.3.2 weak, asked about weak", get, header(`If-None-Match: W/"x"`), weak, NotModified},
		{"13.1.3 the same second", get, header("If-Modified-Since: " + atNoon), both, NotModified},
		{"13.1.3 later", get, header("If-Modified-Since: " + after), both, NotModified},
		{"13.1.3 earlier", get, header("If-Modified-Since: " + before), both, Proceed},
		{"13.1.3 of a HEAD", reading, header("If-Modified-Since: " + atNoon), both, NotModified},
		{"13.1.3 of a PUT", put, header("If-Modified-Since: " + atNoon), both, Proceed},
		{"13.1.3 of RFC 850", get, header("If-Modified-Since: Sunday, 22-Nov-26 12:00:00 GMT"), both, NotModified},
		{"13.1.3 of asctime", get, header("If-Modified-Since: Sun Nov 22 12:00:00 2026"), both, NotModified},
		{"13.1.3 no date", get, header("If-Modified-Since: yesterday"), both, Proceed},
		{"13.1.3 two of them", get, header("If-Modified-Since: "+after, "If-Modified-Since: "+after), both, Proceed},
		{"13.1.3 beside If-None-Match, which does not hold", get, header(`If-None-Match: "y"`, "If-Modified-Since: "+after), both, Proceed},
		{"13.1.3 beside If-None-Match, which holds", get, header(`If-None-Match: "x"`, "If-Modified-Since: "+before), both, NotModified},
		{"13.1.3 beside If-None-Match that cannot be read", get, header("If-None-Match: x", "If-Modified-Since: "+after), both, Proceed},
		{"9111-4.3.2 by Date, later", get, header("If-Modified-Since: " + after), dated, NotModified},
		{"9111-4.3.2 by Date, earlier", get, header("If-Modified-Since: " + before), dated, Proceed},
		{"9111-4.3.2 by Date, the second itself is not enough", get, header("If-Modified-Since: " + atNoon), dated, Proceed},
		{"9111-4.3.2 no date at all", get, header("If-Modified-Since: " + after), none, Proceed},
		{"13.1.1 the same", get, header(`If-Match: "x"`), both, Proceed},
		{"13.1.1 another", get, header(`If-Match: "y"`), both, PreconditionFailed},
		{"13.1.1 another, of a PUT", put, header(`If-Match: "y"`), both, PreconditionFailed},
		{"13.1.1 any", get, header("If-Match: *"), both, Proceed},
		{"13.1.1 any, where there is no ETag", get, header("If-Match: *"), none, Proceed},
		{"13.1.1 in a list", get, header(`If-Match: "y", "x"`), both, Proceed},
		{"13.1.1 on another line", get, header(`If-Match: "y"`, `If-Match: "x"`), both, Proceed},
		{"13.1.1 weak never", get, header(`If-Match: W/"x"`), both, PreconditionFailed},
		{"13.1.1 of a weak one never", get, header(`If-Match: W/"x"`), weak, PreconditionFailed},
		{"13.1.1 strong, of a weak one never", get, header(`If-Match: "x"`), weak, PreconditionFailed},
		{"13.1.1 where there is no ETag", get, header(`If-Match: "x"`), none, PreconditionFailed},
		{"13.1.1 cannot be read", get, header("If-Match: x"), both, PreconditionFailed},
		{"13.1.4 the same second", get, header("If-Unmodified-Since: " + atNoon), both, Proceed},
		{"13.1.4 later", get, header("If-Unmodified-Since: " + after), both, Proceed},
		{"13.1.4 earlier", get, header("If-Unmodified-Since: " + before), both, PreconditionFailed},
		{"13.1.4 no date", get, header("If-Unmodified-Since: x"), both, Proceed},
		{"13.1.4 where there is no Last-Modified", get, header("If-Unmodified-Since: " + before), dated, Proceed},
		{"13.1.4 two of them", get, header("If-Unmodified-Since: "+before, "If-Unmodified-Since: "+before), both, Proceed},
		{"13.2.2 If-Match, not If-Unmodified-Since", get, header(`If-Match: "x"`, "If-Unmodified-Since: "+before), both, Proceed},
		{"13.2.2 If-Match holds, then If-None-Match", get, header(`If-Match: "x"`, `If-None-Match: "x"`), both, NotModified},
		{"13.2.2 If-Match fails before If-None-Match", get, header(`If-Match: "y"`, `If-None-Match: "x"`), both, PreconditionFailed},
		{"13.2.2 If-Unmodified-Since holds, then If-Modified-Since", get, header("If-Unmodified-Since: "+after, "If-Modified-Since: "+after), both, NotModified},
		{"13.2.2 If-Unmodified-Since fails before If-None-Match", get, header("If-Unmodified-Since: "+before, `If-None-Match: "x"`), both, PreconditionFailed},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := Evaluate(test.method, test.header, http.StatusOK, test.v); got != test.want {
				t.Errorf("%v gives %d, not %d", test.header, got, test.want)
			}
		})
	}
}

// RFC 9110, section 13.2.1.
func TestEvaluate_OnlyASuccessIsConditional(t *testing.T) {
	h := header(`If-None-Match: "x"`)
	for status, want := range map[int]Outcome{200: NotModified, 203: NotModified, 204: NotModified, 301: Proceed, 404: Proceed, 500: Proceed} {
		if got := Evaluate(http.MethodGet, h, status, Validators{ETag: `"x"`}); got != want {
			t.Errorf("%d gives %d", status, got)
		}
	}
	if got := Evaluate(http.MethodGet, header(`If-Match: "y"`), 404, Validators{}); got != Proceed {
		t.Errorf("If-Match makes a 404 %d", got)
	}
}

func FuzzIfNoneMatch(f *testing.F) {
	for _, seed := range []string{`"x"`, `W/"x", "y"`, "*", `"a,b" , "x`, `"x"y`, `,,"",`, "x", `"\"`, "\"\xff\"", ` * `} {
		f.Add(seed, `"x"`)
	}
	f.Fuzz(func(t *testing.T, field, etag string) {
		v := ValidatorsOf(http.Header{"Etag": {etag}})
		h := http.Header{"If-None-Match": {field}}
		got := Evaluate(http.MethodGet, h, http.StatusOK, v)
		switch {
		case got == PreconditionFailed:
			t.Errorf("%q fails", field)
		case got == NotModified && strings.TrimSpace(field) != "*" && (v.ETag == "" || !strings.Contains(field, strings.TrimPrefix(v.ETag, "W/"))):
			t.Errorf("%q is said to have %q", field, v.ETag)
		}
		// One who has it says so, on whatever line.
		if v.ETag != "" {
			h["If-None-Match"] = []string{field, v.ETag}
			if Evaluate(http.MethodGet, h, http.StatusOK, v) != NotModified {
				t.Errorf("%q is not seen on a line behind %q", v.ETag, field)
			}
		}
		// What holds strongly holds weakly.
		h = http.Header{"If-Match": {field}}
		if Evaluate(http.MethodGet, h, http.StatusOK, v) == Proceed && got != NotModified {
			t.Errorf("%q has %q strongly and not weakly", field, v.ETag)
		}
	})
}
