package rules

import (
	"net/http"
	"reflect"
	"slices"
	"testing"
	"time"
)

func TestValidatorsOf(t *testing.T) {
	for _, test := range []struct {
		name   string // with the section of RFC 9110
		header http.Header
		want   Validators
	}{
		{"8.8 none", header(), Validators{}},
		{"8.8.3 strong", header(`Etag: "x"`), Validators{ETag: `"x"`}},
		{"8.8.3 weak", header(`Etag: W/"x"`), Validators{ETag: `W/"x"`}},
		{"8.8.3 empty within its quotes", header(`Etag: ""`), Validators{ETag: `""`}},
		{"8.8.3 a comma within", header(`Etag: "a,b"`), Validators{ETag: `"a,b"`}},
		{"8.8.3 without quotes", header("Etag: x"), Validators{}},
		{"8.8.3 half a pair of quotes", header(`Etag: "x`), Validators{}},
		{"8.8.3 a small w", header(`Etag: w/"x"`), Validators{}},
		{"8.8.3 white space within", header(`Etag: "x y"`), Validators{}},
		{"8.8.3 a line break within", header("Etag: \"x\ry\""), Validators{}},
		{"8.8.3 two in a list", header(`Etag: "x", "y"`), Validators{}},
		{"8.8.3 two lines", header(`Etag: "x"`, `Etag: "x"`), Validators{}},
		{"8.8.3 empty", header("Etag: "), Validators{}},
		{"8.8.2 a date", header("Last-Modified: Sun, 22 Nov 2026 12:00:00 GMT"), Validators{LastModified: noon}},
		{"8.8.2 of RFC 850", header("Last-Modified: Sunday, 22-Nov-26 12:00:00 GMT"), Validators{LastModified: noon}},
		{"8.8.2 no date", header("Last-Modified: x"), Validators{}},
		{"8.8.2 two lines", header(dayAgo, dayAgo), Validators{}},
		{"8.8 Date is none by itself", header(dateNow), Validators{Date: noon}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := ValidatorsOf(test.header)
			if got != test.want {
				t.Errorf("%v gives %+v", test.header, got)
			}
			if want := got.ETag != "" || !got.LastModified.IsZero(); got.Any() != want {
				t.Errorf("any: %v", got.Any())
			}
		})
	}
}

func TestCondition(t *testing.T) {
	x, y := Validators{ETag: `"x"`, LastModified: noon}, Validators{ETag: `W/"y"`}
	dated := Validators{LastModified: noon.Add(time.Hour)}
	const since = "If-Modified-Since: Sun, 22 Nov 2026 12:00:00 GMT"
	for _, test := range []struct {
		name   string // with the section of RFC 9111
		header http.Header
		stored []Validators
		want   http.Header
	}{
		{"4.3.1 nothing stored", header("Accept: a"), nil, header("Accept: a")},
		{"4.3.1 one", header(), []Validators{x}, header(`If-None-Match: "x"`, since)},
		{"4.3.1 one with a date only", header(), []Validators{dated}, header("If-Modified-Since: Sun, 22 Nov 2026 13:00:00 GMT")},
		{"4.3.1 one with a weak tag", header(), []Validators{y}, header(`If-None-Match: W/"y"`)},
		{"4.3.1 one without any", header(), []Validators{{Date: noon}}, header()},
		{"4.3.1 several: a date would not say which", header(), []Validators{x, y}, header(`If-None-Match: "x", W/"y"`)},
		{"4.3.1 several, one with a date only", header(), []Validators{dated, x}, header(`If-None-Match: "x"`)},
		{"4.3.1 several, alike", header(), []Validators{x, x, y}, header(`If-None-Match: "x", W/"y"`)},
		{"4.3.1 several with dates only", header(), []Validators{dated, dated}, header()},
		{"4.3.1 the client's go", header(`If-None-Match: "c"`, `If-None-Match: "d"`, "If-Modified-Since: x"), []Validators{y}, header(`If-None-Match: W/"y"`)},
		{"4.3.1 the client's go, and there is none", header(`If-None-Match: "c"`, "If-Modified-Since: x"), nil, header()},
		{"4.3.1 the client's If-Range would be about a part", header(`If-Range: "x"`), []Validators{y}, header(`If-None-Match: W/"y"`)},
	} {
		t.Run(test.name, func(t *testing.T) {
			Condition(test.header, test.stored)
			if !reflect.DeepEqual(test.header, test.want) {
				t.Errorf("got %v", test.header)
			}
		})
	}
}

func TestSelected(t *testing.T) {
	const modified = "Last-Modified: Sun, 22 Nov 2026 12:00:00 GMT"
	x, weakX, y := Validators{ETag: `"x"`, Date: noon}, Validators{ETag: `W/"x"`, Date: noon}, Validators{ETag: `"y"`, Date: noon}
	later := func(v Validators) Validators { v.Date = v.Date.Add(time.Hour); return v }
	dated := Validators{LastModified: noon, Date: noon}
	strong := later(dated)
	for _, test := range []struct {
		name   string // with the section of RFC 9111
		fresh  http.Header
		stored []Validators
		want   []int
	}{
		{"4.3.4 nothing stored", header(`Etag: "x"`), nil, nil},
		{"4.3.4 strong, the one", header(`Etag: "x"`), []Validators{y, x}, []int{1}},
		{"4.3.4 strong, all of them", header(`Etag: "x"`), []Validators{x, y, x}, []int{0, 2}},
		{"4.3.4 strong, another", header(`Etag: "z"`), []Validators{x, y}, nil},
		{"4.3.4 strong, another than the only one", header(`Etag: "z"`), []Validators{x}, nil},
		{"4.3.4 strong, stored weak", header(`Etag: "x"`), []Validators{weakX}, nil},
		{"4.3.4 strong, whatever the date", header(`Etag: "z"`, modified), []Validators{strong}, nil},
		{"4.3.4 weak, the one", header(`Etag: W/"x"`), []Validators{y, weakX}, []int{1}},
		{"4.3.4 weak, the latest", header(`Etag: W/"x"`), []Validators{weakX, later(weakX), weakX}, []int{1}},
		{"4.3.4 weak, stored strong", header(`Etag: W/"x"`), []Validators{x}, []int{0}},
		{"4.3.4 weak, another", header(`Etag: W/"z"`), []Validators{weakX}, nil},
		{"4.3.4 a strong date, all of them", header(modified), []Validators{strong, dated, strong}, []int{0, 2}},
		{"4.3.4 a weak date, the latest", header(modified), []Validators{dated, {LastModified: noon, Date: noon.Add(999 * time.Millisecond)}}, []int{1}},
		{"4.3.4 another date", header(modified), []Validators{{LastModified: noon.Add(-time.Hour), Date: noon}}, nil},
		{"4.3.4 a date, stored with a tag too", header(modified), []Validators{{ETag: `"x"`, LastModified: noon, Date: noon.Add(time.Hour)}}, []int{0}},
		{"4.3.4 none, the only one without any", header(), []Validators{{Date: noon}}, []int{0}},
		{"4.3.4 none, several without any", header(), []Validators{{}, {}}, nil},
		{"own none, the only one that was asked about", header(dateNow), []Validators{x}, []int{0}},
		{"own none, several that were asked about", header(dateNow), []Validators{x, y}, nil},
		{"own one that cannot be read is none that was asked about", header("Etag: x"), []Validators{x}, nil},
		{"own two tags say nothing", header(`Etag: "x"`, `Etag: "y"`), []Validators{x}, nil},
		{"own a date that cannot be read", header("Last-Modified: x"), []Validators{dated}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := Selected(test.fresh, test.stored); !slices.Equal(got, test.want) {
				t.Errorf("%v selects %v", test.fresh, got)
			}
		})
	}
}
