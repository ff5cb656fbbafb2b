package rules

import (
	"slices"
	"strings"
	"testing"
)

func TestMembers_KeepQuotedCommasTogether(t *testing.T) {
	var got []string
	for name, value := range members([]string{`a, b=1 ,c="x, \", y",`, "", " D = 2 ", `e="open, f`, "g= 3, ,"}) {
		got = append(got, name+"|"+value)
	}
	want := []string{"a|", "b|1", `c|"x, \", y"`, "D|  2", `e|"open`, "f|", "g| 3"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

// A field may be as long as a header, and a client writes it.
func TestList_OfAStringThatDoesNotEndIsReadOnce(t *testing.T) {
	const commas = 4 << 20 // read again from each comma on, that would take hours
	l := list{rest: `a="` + strings.Repeat(",", commas) + "b"}
	var got []string
	for member, ok := l.next(); ok; member, ok = l.next() {
		got = append(got, member)
	}
	if !slices.Equal(got, []string{`a="`, "b"}) {
		t.Errorf("got %q", got)
	}
}
