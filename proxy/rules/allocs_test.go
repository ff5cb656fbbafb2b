package rules

import (
	"net/http"
	"testing"
	"time"
)

// Every request that is answered from memory comes by here, and one that
// allocates is slower for all others too.
func TestNothingOnTheWayToAHitAllocates(t *testing.T) {
	v := Validators{ETag: `"x"`, LastModified: noon, Date: noon.Add(time.Hour)}
	plain := header("Accept: */*", "Accept-Encoding: gzip, deflate, br, zstd", "Accept-Language: de-DE,de;q=0.9,en-US;q=0.8,en;q=0.7", "User-Agent: Mozilla/5.0 (KHTML, like Gecko)", "Foo: 1", "Bar: 1,2")
	conditional := header(`If-None-Match: "a", W/"b", "x"`, "If-Modified-Since: Sun, 22 Nov 2026 12:00:00 GMT")
	dated := header("If-Modified-Since: Sun, 22 Nov 2026 12:00:00 GMT")
	inRFC850 := header("If-Modified-Since: Sunday, 22-Nov-26 12:00:00 GMT")
	partial := header("Range: bytes=0-1", `If-Range: "x"`)
	types := []string{"application/json", "text/html"}
	var d Directives
	for name, f := range map[string]func(){
		"Evaluate without a condition":    func() { Evaluate(http.MethodGet, plain, 200, v) },
		"Evaluate with tags":              func() { Evaluate(http.MethodGet, conditional, 200, v) },
		"Evaluate with a date":            func() { Evaluate(http.MethodGet, dated, 200, v) },
		"Evaluate with a date of RFC 850": func() { Evaluate(http.MethodGet, inRFC850, 200, v) },
		"RangeOf without Range":           func() { RangeOf(plain, v, 10) },
		"RangeOf with Range":              func() { RangeOf(partial, v, 10) },
		"Asks without Cache-Control":      func() { d = Asks(plain) },
		"Accepts":                         func() { d.Accepts(time.Second, time.Minute) },
		"FieldValue of a missing field":   func() { FieldValue(plain, "Missing", types) },
		"FieldValue of one value":         func() { FieldValue(plain, "Foo", types) },
		"FieldValue of a list":            func() { FieldValue(plain, "Bar", types) },
		"FieldValue of prose":             func() { FieldValue(plain, "User-Agent", types) },
		"FieldValue of languages":         func() { FieldValue(plain, "Accept-Language", types) },
		"FieldValue of codings":           func() { FieldValue(plain, "Accept-Encoding", types) },
		"FieldValue of media types":       func() { FieldValue(plain, "Accept", types) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
	if d.MaxAge != Unset {
		t.Errorf("it asks for %+v", d)
	}
}
