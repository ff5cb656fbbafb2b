package edit

import (
	"errors"
	"strings"
	"testing"
)

var good = Property{Title: "Loft", Description: "Two rooms", Price: "2100", Location: "Nairobi"}

func TestCheck_WrongFieldsAreNamed(t *testing.T) {
	long := strings.Repeat("é", 256)
	for _, c := range []struct {
		what  string
		wrong func(p *Property)
		want  string
	}{
		{"nothing", func(p *Property) { *p = Property{} }, "title is required; price is required; location is required"},
		{"a title of spaces", func(p *Property) { p.Title = " \t\n" }, "title is required"},
		{"a short title", func(p *Property) { p.Title = "  éé " }, "title must have at least 3 characters"},
		{"a long title", func(p *Property) { p.Title = long }, "title must have at most 255 characters, and has 256"},
		{"a broken title", func(p *Property) { p.Title = "abc\xff" }, "title must be UTF-8"},
		{"a NUL", func(p *Property) { p.Description = "a\x00b" }, "description must not contain a NUL"},
		{"a long description", func(p *Property) { p.Description = strings.Repeat("x", 10_001) }, "description must have at most 10000 characters, and has 10001"},
		{"a long location", func(p *Property) { p.Location = long }, "location must have at most 255 characters, and has 256"},
		{"two at once", func(p *Property) { p.Title, p.Price = "x", "x" }, "title must have at least 3 characters; price must be a number with at most two decimals, such as 1250 or 1250.50"},
	} {
		p := good
		c.wrong(&p)
		_, err := p.Check()
		var invalid Invalid
		if !errors.As(err, &invalid) || err.Error() != c.want {
			t.Errorf("%s: %v, want %s", c.what, err, c.want)
		}
	}
}

func TestCheck_StoresOneForm(t *testing.T) {
	edge := strings.Repeat("é", 255)
	got, err := Property{Title: " " + edge + "\n", Description: "one\r\ntwo\r\n", Price: " 007.5 ", Location: "\tNairobi "}.Check()
	if want := (Property{edge, "one\ntwo\n", "7.50", "Nairobi"}); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	if again, err := got.Check(); err != nil || again != got {
		t.Errorf("what is stored is stored otherwise the second time: %+v, %v", again, err)
	}
}

func TestCheck_Price(t *testing.T) {
	for in, want := range map[string]string{
		"1": "1.00", "1.5": "1.50", "0.01": "0.01", "00.10": "0.10", "99999999.99": "99999999.99", "99999999": "99999999.00",
		"0": "", "0.00": "", "000": "", "100000000": "", "1e3": "", "1E3": "", "NaN": "", "Infinity": "", "-1": "", "+1": "",
		"1.001": "", "1.000": "", "1,000": "", "1 000": "", ".5": "", "5.": "", ".": "", "0x10": "", "1.5.0": "", "१": "", "$5": "", "1\x00": "",
	} {
		p := good
		p.Price = in
		p, err := p.Check()
		if want == "" && err == nil || want != "" && (err != nil || p.Price != want) {
			t.Errorf("%q: %q, %v, want %q", in, p.Price, err, want)
		}
	}
}
