package rules

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

func TestUnsafe(t *testing.T) {
	for _, test := range []struct {
		name, method string
		want         bool
	}{
		{"9110-9.2.1 GET", "GET", false},
		{"9110-9.2.1 HEAD", "HEAD", false},
		{"9110-9.2.1 OPTIONS", "OPTIONS", false},
		{"9110-9.2.1 TRACE", "TRACE", false},
		{"9110-9.2.1 POST", "POST", true},
		{"9110-9.2.1 PUT", "PUT", true},
		{"9110-9.2.1 PATCH", "PATCH", true},
		{"9110-9.2.1 DELETE", "DELETE", true},
		{"4.4 unknown", "M-SEARCH", true},
		{"4.4 case counts", "get", true},
		{"4.4 none", "", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := Unsafe(test.method); got != test.want {
				t.Errorf("%q: %v", test.method, got)
			}
		})
	}
}

func TestInvalidated(t *testing.T) {
	const origin = "http://example.com"
	own := origin + "/a/b?q=1"
	for _, test := range []struct {
		name   string // with the section of RFC 9111, or RFC and section
		status int
		header http.Header
		want   []string
	}{
		{"4.4 200", 200, header(), []string{own}},
		{"4.4 201", 201, header(), []string{own}},
		{"4.4 204", 204, header(), []string{own}},
		{"4.4 299", 299, header(), []string{own}},
		{"4.4 303", 303, header(), []string{own}},
		{"4.4 399", 399, header(), []string{own}},
		{"4.4 100", 100, header("Location: /x"), nil},
		{"4.4 400", 400, header("Location: /x"), nil},
		{"4.4 412", 412, header(), nil},
		{"4.4 500", 500, header("Content-Location: /x"), nil},
		{"4.4 Location", 201, header("Location: /x"), []string{own, origin + "/x"}},
		{"4.4 Content-Location", 200, header("Content-Location: /x"), []string{own, origin + "/x"}},
		{"4.4 both", 200, header("Location: /x", "Content-Location: /y"), []string{own, origin + "/x", origin + "/y"}},
		{"4.4 both the same", 200, header("Location: /x", "Content-Location: /x"), []string{own, origin + "/x"}},
		{"4.4 itself", 200, header("Content-Location: /a/b?q=1"), []string{own}},
		{"4.4 two lines say nothing", 200, header("Location: /x", "Location: /y"), []string{own}},
		{"4.4 absolute", 201, header("Location: http://example.com/x?y"), []string{own, origin + "/x?y"}},
		{"4.4 another host", 201, header("Location: http://example.org/x"), []string{own}},
		{"4.4 a host below", 201, header("Location: http://www.example.com/x"), []string{own}},
		{"4.4 another scheme", 201, header("Location: https://example.com/x"), []string{own}},
		{"4.4 another port", 201, header("Location: http://example.com:8080/x"), []string{own}},
		{"4.4 a user before the host", 201, header("Location: http://example.com@example.org/x", "Content-Location: http://me@example.com/x"), []string{own}},
		{"4.4 a backslash is no slash", 201, header(`Location: http://example.com\@example.org/x`), []string{own}},
		{"4.4 a scheme without a host", 201, header("Location: http:/x"), []string{own}},
		{"4.4 a scheme that locates nothing", 201, header("Location: urn:x", "Content-Location: javascript:x"), []string{own}},
		{"9110-4.2.3 the port of the scheme", 201, header("Location: http://example.com:80/x"), []string{own, origin + "/x"}},
		{"9110-4.2.3 an empty port", 201, header("Location: http://example.com:/x"), []string{own, origin + "/x"}},
		{"9110-4.2.3 a port with zeros", 201, header("Location: http://example.com:0080/x"), []string{own, origin + "/x"}},
		{"9110-4.2.3 the port of another scheme", 201, header("Location: http://example.com:443/x"), []string{own}},
		{"9110-4.2.3 capitals", 201, header("Location: HTTP://EXAMPLE.com/X"), []string{own, origin + "/X"}},
		{"9110-4.2.3 an empty path", 201, header("Location: http://example.com"), []string{own, origin + "/"}},
		{"9110-4.2.3 an empty path with a query", 201, header("Location: http://example.com?x"), []string{own, origin + "/?x"}},
		{"3986-5.2 only a host", 201, header("Location: //example.com/x"), []string{own, origin + "/x"}},
		{"3986-5.2 only another host", 201, header("Location: //example.org/x"), []string{own}},
		{"3986-5.2 a path beside", 201, header("Location: x"), []string{own, origin + "/a/x"}},
		{"3986-5.2 a path below", 201, header("Location: x/y"), []string{own, origin + "/a/x/y"}},
		{"3986-5.2 a path above", 201, header("Location: ../x"), []string{own, origin + "/x"}},
		{"3986-5.2 a path above the root", 201, header("Location: ../../../x"), []string{own, origin + "/x"}},
		{"3986-5.2 here", 201, header("Location: ."), []string{own, origin + "/a/"}},
		{"3986-5.2 above", 201, header("Location: .."), []string{own, origin + "/"}},
		{"3986-5.2 dots within", 201, header("Location: /x/./y/../z"), []string{own, origin + "/x/z"}},
		{"3986-5.2 more than two dots", 201, header("Location: /x/.../y"), []string{own, origin + "/x/.../y"}},
		{"3986-5.2 empty segments", 201, header("Location: /x//y/"), []string{own, origin + "/x//y/"}},
		{"3986-5.2 another query", 201, header("Location: ?q=2"), []string{own, origin + "/a/b?q=2"}},
		{"3986-5.2 an empty query", 201, header("Location: ?"), []string{own, origin + "/a/b?"}},
		{"3986-5.2 dots in a query", 201, header("Location: /x?../y"), []string{own, origin + "/x?../y"}},
		{"3986-5.2 a colon behind a slash", 201, header("Location: ./x:y"), []string{own, origin + "/a/x:y"}},
		{"3986-5.2 nothing", 201, header("Location: "), []string{own}},
		{"3986-5.2 a fragment goes", 201, header("Location: /x#y"), []string{own, origin + "/x"}},
		{"3986-5.2 a fragment alone", 201, header("Location: #y"), []string{own}},
		{"own bytes stay: escapes", 201, header("Location: /%7Ex/%2f/%zz"), []string{own, origin + "/%7Ex/%2f/%zz"}},
		{"own bytes stay: escaped dots", 201, header("Location: /x/%2e%2e/y"), []string{own, origin + "/x/%2e%2e/y"}},
		{"own bytes stay: what has to be escaped", 201, header("Location: /x|y{\xfc}"), []string{own, origin + "/x|y{\xfc}"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := Invalidated(test.status, "http", "Example.com:80", "/a/b?q=1", test.header); !slices.Equal(got, test.want) {
				t.Errorf("got %q", got)
			}
		})
	}
}

func TestInvalidated_OfOtherRequests(t *testing.T) {
	for _, test := range []struct {
		name, scheme, host, target, location string
		want                                 []string
	}{
		{"9110-4.2.3 https", "https", "example.com:443", "/", "https://example.com/x", []string{"https://example.com/", "https://example.com/x"}},
		{"9110-4.2.3 https on the port of http", "https", "example.com:80", "/", "https://example.com/x", []string{"https://example.com:80/"}},
		{"9110-4.2.3 IPv6", "http", "[::1]:80", "/", "http://[::1]/x", []string{"http://[::1]/", "http://[::1]/x"}},
		{"9110-4.2.3 IPv6 with a port", "http", "[::1]:81", "/", "//[::1]:81/x", []string{"http://[::1]:81/", "http://[::1]:81/x"}},
		{"3986-5.2 a query with a slash", "http", "h", "/a?b/c", "x", []string{"http://h/a?b/c", "http://h/x"}},
		{"3986-5.2 OPTIONS *", "http", "h", "*", "x", []string{"http://h*", "http://h/x"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := Invalidated(200, test.scheme, test.host, test.target, header("Location: "+test.location)); !slices.Equal(got, test.want) {
				t.Errorf("got %q", got)
			}
		})
	}
}

func TestGroups(t *testing.T) {
	many := make([]string, 32)
	for i := range many {
		many[i] = strings.Repeat(string(rune('0'+i)), 32)
	}
	for _, test := range []struct {
		name  string // with the section of RFC 9875
		lines []string
		want  []string
	}{
		{"2 none", nil, nil},
		{"2 one", []string{`"a"`}, []string{"a"}},
		{"2 several", []string{`"a", "b" ,"c"`}, []string{"a", "b", "c"}},
		{"2 several lines", []string{`"a"`, `"b"`}, []string{"a", "b"}},
		{"2 case counts", []string{`"a", "A"`}, []string{"a", "A"}},
		{"2 parameters mean nothing", []string{`"a";x=1;y`}, []string{"a"}},
		{"2 commas and escapes within", []string{`"a, b", "\"\\"`}, []string{"a, b", `"\`}},
		{"2 an empty name", []string{`""`}, []string{""}},
		{"2 32 of 32 characters", []string{`"` + strings.Join(many, `", "`) + `"`}, many},
		{"2 a token", []string{"a"}, nil},
		{"2 a token among strings", []string{`"a", b`}, nil},
		{"2 a number", []string{"1"}, nil},
		{"2 an inner list", []string{`("a" "b")`}, nil},
		{"2 a string that does not end", []string{`"a", "b`}, nil},
		{"2 a trailing comma", []string{`"a",`}, nil},
		{"2 one line of two does not parse", []string{`"a"`, "=="}, nil},
		{"2 bytes beyond ASCII", []string{"\"\xfc\""}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := Groups(test.lines); !slices.Equal(got, test.want) {
				t.Errorf("%q gives %q", test.lines, got)
			}
		})
	}
}

func FuzzGroups(f *testing.F) {
	for _, seed := range []string{`"a", "b"`, `"a";x=1`, `("a" "b")`, `"a", "b`, `"\"\\"`, `a`, `"",`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, field string) {
		names := Groups([]string{field})
		// Written again they are the same.
		quoted := make([]string, len(names))
		for i, name := range names {
			quoted[i] = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(name) + `"`
		}
		if again := Groups([]string{strings.Join(quoted, ", ")}); !slices.Equal(again, names) {
			t.Errorf("%q gives %q, and that %q", field, names, again)
		}
		if names := Groups([]string{field, "=="}); names != nil {
			t.Errorf("%q gives %q although it does not parse", field, names)
		}
	})
}

func FuzzInvalidated(f *testing.F) {
	for _, seed := range []string{"/x", "../x?y#z", "http://example.com:080/x", "//example.org/x", "?q", "http://example.com@example.org/", `\\example.org/x`, "x:y", "http:///x", "/%2e%2e/./.."} {
		f.Add(seed, "/a/b?q")
	}
	f.Add("x", "*")
	f.Add("..", "/?/../..")
	f.Fuzz(func(t *testing.T, location, target string) {
		if !strings.HasPrefix(target, "/") {
			target = "/" + target
		}
		const here = "http://example.com"
		for _, found := range Invalidated(200, "http", "example.com", target, http.Header{"Location": {location}})[1:] {
			rest, ok := strings.CutPrefix(found, here)
			if !ok || !strings.HasPrefix(rest, "/") {
				t.Fatalf("%q at %q invalidates %q", location, target, found)
			}
			// Where net/url reads it, it reads the same host.
			base, err := url.Parse(here + target)
			if err != nil {
				continue
			}
			if ref, err := base.Parse(location); err == nil && !strings.EqualFold(ref.Hostname(), "example.com") {
				t.Errorf("%q is of host %q, and invalidates %q", location, ref.Hostname(), found)
			}
		}
	})
}
