package rules

import (
	"net/http"
	"testing"
	"time"
)

func TestInitialAge(t *testing.T) {
	const s = time.Second
	for _, test := range []struct {
		name   string
		header http.Header
		delay  time.Duration
		want   time.Duration
	}{
		{"4.2.3 nothing", header(), 0, 0},
		{"4.2.3 the time that it took", header(), 2 * s, 2 * s},
		{"4.2.3 Age and the time that it took", header("Age: 30"), 2 * s, 32 * s},
		{"4.2.3 by Date", header(longAgoDated), 2 * s, 62 * s},
		{"4.2.3 by Date, which is less", header(longAgoDated, "Age: 300"), 0, 300 * s},
		{"4.2.3 a Date in the future", header("Date: Sun, 22 Nov 2026 13:00:00 GMT"), 0, 0},
		{"4.2.3 a Date in the future, and an Age", header("Date: Sun, 22 Nov 2026 13:00:00 GMT", "Age: 15"), 0, 15 * s},
		{"4.2.3 a Date that cannot be read", header("Date: today", "Age: 15"), 0, 15 * s},
		{"4.2.3 two Dates", header(longAgoDated, dateNow), 0, 60 * s},
		{"5.1 no number", header("Age: x"), 0, 0},
		{"5.1 negative", header("Age: -7200"), 0, 0},
		{"5.1 a fraction", header("Age: 7200.0"), 0, 0},
		{"5.1 quoted", header(`Age: "60"`), 0, 0},
		{"5.1 empty", header("Age: "), 0, 0},
		{"5.1 the first of a list", header("Age: 30, 60"), 0, 30 * s},
		{"5.1 the first of a list, if it is longer", header("Age: 60,0"), 0, 60 * s},
		{"5.1 the first of two lines", header("Age: 30", "Age: 60"), 0, 30 * s},
		{"5.1 the first is no number", header("Age: x, 60"), 0, 0},
		{"5.1 the first line is no number", header("Age: x", "Age: 60"), 0, 0},
		{"1.2.2 enormous", header("Age: 99999999999999999999"), 0, 1 << 31 * s},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := initialAge(test.header, noon, noon.Add(test.delay)); got != test.want {
				t.Errorf("%v after %s: %s, want %s", test.header, test.delay, got, test.want)
			}
		})
	}
}

func TestParseDate(t *testing.T) {
	at := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	early := time.Date(2026, 11, 2, 12, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		name, field string
		want        time.Time
	}{
		{"9110-5.6.7 the form to be sent", "Sun, 22 Nov 2026 12:00:00 GMT", at},
		{"9110-5.6.7 of RFC 850", "Sunday, 22-Nov-26 12:00:00 GMT", at},
		{"9110-5.6.7 of asctime", "Sun Nov 22 12:00:00 2026", at},
		{"9110-5.6.7 of asctime, one digit", "Mon Nov  2 12:00:00 2026", early},
		{"9110-5.6.7 of RFC 850, another weekday", "Wednesday, 22-Nov-26 12:00:00 GMT", at},
		{"9110-5.6.7 the weekday is wrong", "Mon, 22 Nov 2026 12:00:00 GMT", at},
		{"9110-5.6.7 the weekday in capitals", "SUN, 22 Nov 2026 12:00:00 GMT", at},
		{"9110-5.6.7 the month in capitals", "Sun, 22 NOV 2026 12:00:00 GMT", at},
		{"9110-5.6.7 a zero", "0", time.Time{}},
		{"9110-5.6.7 nothing", "", time.Time{}},
		{"9110-5.6.7 a number of seconds", "1795348800", time.Time{}},
		{"9110-5.6.7 UTC", "Sun, 22 Nov 2026 12:00:00 UTC", time.Time{}},
		{"9110-5.6.7 a zone in the form of RFC 850", "Sunday, 22-Nov-26 12:00:00 AEST", time.Time{}},
		{"9110-5.6.7 an offset", "Sun, 22 Nov 2026 12:00:00 +0100", time.Time{}},
		{"9110-5.6.7 two digits of the year", "Sun, 22 Nov 26 12:00:00 GMT", time.Time{}},
		{"9110-5.6.7 no comma", "Sun 22 Nov 2026 12:00:00 GMT", time.Time{}},
		{"9110-5.6.7 two spaces", "Sun, 22  Nov  2026 12:00:00 GMT", time.Time{}},
		{"9110-5.6.7 dashes", "Sun, 22-Nov-2026 12:00:00 GMT", time.Time{}},
		{"9110-5.6.7 periods", "Sun, 22 Nov 2026 12.00.00 GMT", time.Time{}},
		{"9110-5.6.7 one digit of the hour", "Sun, 22 Nov 2026 2:00:00 GMT", time.Time{}},
		{"9110-5.6.7 one digit of the day", "Mon, 2 Nov 2026 12:00:00 GMT", time.Time{}},
		{"9110-5.6.7 a fraction", "Sun, 22 Nov 2026 12:00:00.5 GMT", time.Time{}},
		{"9110-5.6.7 no such day", "Tue, 31 Nov 2026 12:00:00 GMT", time.Time{}},
		{"9110-5.6.7 no such hour", "Sun, 22 Nov 2026 24:00:00 GMT", time.Time{}},
		{"9110-5.6.7 something behind it", "Sun, 22 Nov 2026 12:00:00 GMT, x", time.Time{}},
		{"9110-5.6.7 quoted", `"Sun, 22 Nov 2026 12:00:00 GMT"`, time.Time{}},
		{"9110-5.6.7 white space around it", " Sun, 22 Nov 2026 12:00:00 GMT ", time.Time{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, ok := parseDate(test.field)
			if ok == test.want.IsZero() || ok && !got.Equal(test.want) {
				t.Errorf("%q is %s, %v", test.field, got, ok)
			}
		})
	}
}

func FuzzAgeAndExpires(f *testing.F) {
	f.Add("30, 60", "Sun, 22 Nov 2026 12:10:00 GMT", "Sun, 22 Nov 2026 12:00:00 GMT")
	f.Add("99999999999999999999", "Sunday, 22-Nov-26 12:00:00 GMT", "Sun Nov 22 12:00:00 2026")
	f.Add("-1", "0", "Fri, 31 Dec 9999 23:59:59 GMT")
	f.Add("", "Mon, 01 Jan 0001 00:00:00 GMT", "Mon, 01 Jan 0000 00:00:00 GMT")
	f.Fuzz(func(t *testing.T, age, expires, date string) {
		h := http.Header{"Age": {age}, "Expires": {expires}, "Date": {date}}
		got := initialAge(h, noon, noon)
		if got < 0 {
			t.Errorf("an age of %s", got)
		}
		lifetime, explicit := explicitLifetime(newDirectives(), false, h, noon)
		if !explicit || lifetime < 0 {
			t.Errorf("a lifetime of %s, explicit %v", lifetime, explicit)
		}
		at, ok := parseDate(expires)
		if !ok && lifetime != 0 {
			t.Errorf("%q is no date, and gives %s", expires, lifetime)
		}
		// What is read as a date means the same written as it should be.
		if ok && at.Year() > 0 {
			if again, ok := parseDate(at.Format(http.TimeFormat)); !ok || !again.Equal(at) {
				t.Errorf("%q is read as %s, and that as %s", expires, at, again)
			}
		}
		// Nothing is fresh beyond its terms, whatever is said of its age.
		terms := testPolicy.Terms(anonymous, Reply{Status: 200, Header: h, Length: 1, Framed: true}, noon, noon)
		if terms.Refusal == "" && (terms.Lifetime > testPolicy.MaxTTL || !terms.Revalidate && terms.InitialAge >= terms.Lifetime) {
			t.Errorf("stored with %+v", terms)
		}
	})
}
