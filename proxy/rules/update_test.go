package rules

import (
	"maps"
	"net/http"
	"reflect"
	"slices"
	"testing"
)

func TestStorable(t *testing.T) {
	for _, test := range []struct {
		name   string // with the section of RFC 9111
		header http.Header
		omit   []string
		want   http.Header
	}{
		{"3.1 nothing goes", header("A: 1", "Set-Cookie: x"), nil, header("A: 1", "Set-Cookie: x")},
		{"3.1 Connection and what it names", header("Connection: a, B", "A: 1", "B: 2", "C: 3"), nil, header("C: 3")},
		{"3.1 Connection on two lines", header("Connection: a", "Connection: close,b", "A: 1", "B: 2", "C: 3"), nil, header("C: 3")},
		{"3.1 Connection alone", header("Connection: close", "C: 3"), nil, header("C: 3")},
		{"3.1 fields of one hop", header("Keep-Alive: 5", "Proxy-Connection: x", "Te: x", "Transfer-Encoding: chunked", "Upgrade: x", "Trailer: T", "C: 3"), nil, header("C: 3")},
		{"3.1 fields for one proxy", header("Proxy-Authenticate: x", "Proxy-Authentication-Info: x", "Proxy-Authorization: x", "Www-Authenticate: y"), nil, header("Www-Authenticate: y")},
		{"5.2.2.4 omitted", header("A: 1", "A: 2", "C: 3"), []string{"A"}, header("C: 3")},
		{"5.2.2.7 omitted, and not there", header("C: 3"), []string{"A"}, header("C: 3")},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := maps.Clone(test.header)
			got := Storable(test.header, test.omit)
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %v", got)
			}
			if !reflect.DeepEqual(test.header, before) {
				t.Errorf("the header is now %v", test.header)
			}
		})
	}
}

func TestFreshen(t *testing.T) {
	for _, test := range []struct {
		name                string // with the section of RFC 9111
		stored, fresh, want http.Header
	}{
		{"3.2 replaces", header("A: 1"), header("A: 2"), header("A: 2")},
		{"3.2 replaces all lines", header("A: 1", "A: 2"), header("A: 3"), header("A: 3")},
		{"3.2 adds", header("A: 1"), header("B: 2"), header("A: 1", "B: 2")},
		{"3.2 keeps", header("A: 1", "B: 2"), header("B: 3"), header("A: 1", "B: 3")},
		{"3.2 Content-Type", header("Content-Type: text/plain"), header("Content-Type: text/plain;charset=utf-8"), header("Content-Type: text/plain;charset=utf-8")},
		{"3.2 Cache-Control and Expires", header("Cache-Control: max-age=1", "Expires: 0"), header("Cache-Control: max-age=2"), header("Cache-Control: max-age=2", "Expires: 0")},
		{"3.2 Vary", header("Vary: A"), header("Vary: B"), header("Vary: B")},
		{"3.2 ETag", header(`Etag: W/"x"`), header(`Etag: "x"`), header(`Etag: "x"`)},
		{"3.2 Content-Location", header("Content-Location: /a"), header("Content-Location: /b"), header("Content-Location: /b")},
		{"3.2 Content-Length never", header("Content-Length: 10"), header("Content-Length: 0"), header("Content-Length: 10")},
		{"3.2 Content-Length not even where there was none", header(), header("Content-Length: 0"), header()},
		{"3.2 Content-Encoding never", header("Content-Encoding: gzip"), header("Content-Encoding: br"), header("Content-Encoding: gzip")},
		{"3.2 Content-Range never", header(), header("Content-Range: bytes 0-1/2"), header()},
		{"3.2 Transfer-Encoding never", header(), header("Transfer-Encoding: chunked"), header()},
		{"3.1 nor what is about the connection", header("A: 1"), header("Connection: a, close", "A: 2", "Keep-Alive: 5", "Upgrade: x"), header("A: 1")},
		{"3.1 nor what is for one proxy", header(), header("Proxy-Authenticate: x"), header()},
		{"4.3.4 Age and Date are the new ones", header("Age: 900", longAgoDated), header("Age: 5", dateNow), header("Age: 5", dateNow)},
		{"4.3.4 Age and Date are not the old ones", header("Age: 900", longAgoDated, "A: 1"), header(), header("A: 1")},
	} {
		t.Run(test.name, func(t *testing.T) {
			stored, fresh := maps.Clone(test.stored), maps.Clone(test.fresh)
			if got := Freshen(test.stored, test.fresh); !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %v", got)
			}
			if !reflect.DeepEqual(test.stored, stored) || !reflect.DeepEqual(test.fresh, fresh) {
				t.Error("an argument was changed")
			}
		})
	}
}

func TestSameRepresentation(t *testing.T) {
	stored := header(`Etag: "x"`, dayAgo, "Content-Length: 10")
	for _, test := range []struct {
		name         string // with the section of RFC 9111
		head, stored http.Header
		want         bool
	}{
		{"4.3.5 all agree", header(`Etag: "x"`, dayAgo, "Content-Length: 10"), stored, true},
		{"4.3.5 the tag agrees", header(`Etag: "x"`), stored, true},
		{"4.3.5 the date agrees", header(dayAgo), stored, true},
		{"4.3.5 the date agrees, otherwise written", header("Last-Modified: Sat Nov 21 12:00:00 2026"), stored, true},
		{"4.3.5 another tag", header(`Etag: "y"`, dayAgo), stored, false},
		{"4.3.5 a weak tag", header(`Etag: W/"x"`), stored, false},
		{"4.3.5 a tag where there was none", header(`Etag: "x"`, dayAgo), header(dayAgo), false},
		{"4.3.5 another date", header(`Etag: "x"`, "Last-Modified: Sun, 22 Nov 2026 12:00:00 GMT"), stored, false},
		{"4.3.5 another length", header(`Etag: "x"`, "Content-Length: 11"), stored, false},
		{"4.3.5 a length where none is known", header(`Etag: "x"`, "Content-Length: 10"), header(`Etag: "x"`), false},
		{"4.3.5 a length that is no number", header(`Etag: "x"`, "Content-Length: x"), stored, false},
		{"4.3.5 two lengths", header(`Etag: "x"`, "Content-Length: 10", "Content-Length: 10"), stored, false},
		{"4.3.5 a tag that cannot be read", header("Etag: x", dayAgo), stored, false},
		{"own no validator says nothing", header("Content-Length: 10"), stored, false},
		{"own nothing says nothing", header(), header(), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := SameRepresentation(test.head, test.stored); got != test.want {
				t.Errorf("%v and %v: %v", test.head, test.stored, got)
			}
		})
	}
}

func FuzzFreshen(f *testing.F) {
	f.Add("Content-Length", "0", "Connection", "content-type")
	f.Add("content-length", "99", "Etag", `"x"`)
	f.Add("Age", "5", "Date", "x")
	f.Add("Content-Type", "text/html", "Connection", "Content-Length, Content-Type")
	f.Fuzz(func(t *testing.T, name, value, other, otherValue string) {
		stored := header("Content-Length: 10", "Content-Encoding: gzip", "Content-Type: text/plain", "Age: 900", "X: 1")
		fresh := http.Header{}
		fresh.Add(name, value)
		fresh.Add(other, otherValue)
		got := Freshen(stored, fresh)
		for _, name := range []string{"Content-Length", "Content-Encoding"} {
			if !slices.Equal(got[name], stored[name]) {
				t.Errorf("%v makes %s %q", fresh, name, got[name])
			}
		}
		for name, values := range got {
			if isHopByHop(name) || name == "Content-Range" {
				t.Errorf("%v brings in %s", fresh, name)
			}
			if !slices.Equal(values, stored[name]) && !slices.Equal(values, fresh[name]) {
				t.Errorf("%v makes %s %q", fresh, name, values)
			}
		}
		for name := range stored {
			if got[name] == nil && name != "Age" {
				t.Errorf("%v removes %s", fresh, name)
			}
		}
		if again := Freshen(got, fresh); !reflect.DeepEqual(again, got) {
			t.Errorf("the second time it gives %v", again)
		}
	})
}
