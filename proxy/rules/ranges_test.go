package rules

import (
	"net/http"
	"testing"
	"time"
)

func TestRangeOf(t *testing.T) {
	const modified = "Sun, 22 Nov 2026 12:00:00 GMT"
	v := Validators{ETag: `"x"`, LastModified: noon, Date: noon.Add(time.Minute)}
	for _, test := range []struct {
		name    string // with the section of RFC 9110
		header  http.Header
		v       Validators
		size    int64
		want    Range
		outcome RangeOutcome
	}{
		{"14.2 none", header(), v, 10, Range{}, Whole},
		{"14.1.2 the first bytes", header("Range: bytes=0-4"), v, 10, Range{0, 4}, Partial},
		{"14.1.2 one byte", header("Range: bytes=0-0"), v, 10, Range{0, 0}, Partial},
		{"14.1.2 in the middle", header("Range: bytes=3-5"), v, 10, Range{3, 5}, Partial},
		{"14.1.2 all of it", header("Range: bytes=0-9"), v, 10, Range{0, 9}, Partial},
		{"14.1.2 the last byte", header("Range: bytes=9-9"), v, 10, Range{9, 9}, Partial},
		{"14.1.2 beyond the end", header("Range: bytes=5-99"), v, 10, Range{5, 9}, Partial},
		{"14.1.2 open", header("Range: bytes=5-"), v, 10, Range{5, 9}, Partial},
		{"14.1.2 open from the first", header("Range: bytes=0-"), v, 10, Range{0, 9}, Partial},
		{"14.1.2 the end", header("Range: bytes=-3"), v, 10, Range{7, 9}, Partial},
		{"14.1.2 the end, all of it", header("Range: bytes=-10"), v, 10, Range{0, 9}, Partial},
		{"14.1.2 the end, more than there is", header("Range: bytes=-11"), v, 10, Range{0, 9}, Partial},
		{"14.1.2 behind the end", header("Range: bytes=10-"), v, 10, Range{}, Unsatisfiable},
		{"14.1.2 far behind the end", header("Range: bytes=10-20"), v, 10, Range{}, Unsatisfiable},
		{"14.1.2 the last 0 bytes", header("Range: bytes=-0"), v, 10, Range{}, Unsatisfiable},
		{"14.1.2 of an empty body", header("Range: bytes=0-"), v, 0, Range{}, Unsatisfiable},
		{"14.1.2 the first byte of an empty body", header("Range: bytes=0-0"), v, 0, Range{}, Unsatisfiable},
		{"14.1.2 the end of an empty body", header("Range: bytes=-1"), v, 0, Range{}, Whole},
		{"14.1.2 the last 0 bytes of an empty body", header("Range: bytes=-0"), v, 0, Range{}, Unsatisfiable},
		{"14.1.2 a last position beyond 64 bits", header("Range: bytes=5-99999999999999999999"), v, 10, Range{5, 9}, Partial},
		{"14.1.2 a first position beyond 64 bits", header("Range: bytes=99999999999999999999-"), v, 10, Range{}, Unsatisfiable},
		{"14.1.2 positions beyond 64 bits", header("Range: bytes=99999999999999999998-99999999999999999999"), v, 10, Range{}, Unsatisfiable},
		{"14.1.2 an end beyond 64 bits", header("Range: bytes=-99999999999999999999"), v, 10, Range{0, 9}, Partial},
		{"14.1.2 at the limit of 64 bits", header("Range: bytes=9223372036854775807-9223372036854775807"), v, 10, Range{}, Unsatisfiable},
		{"14.1.2 leading zeros", header("Range: bytes=0000000000000000000000005-07"), v, 10, Range{5, 7}, Partial},
		{"14.1.1 last before first", header("Range: bytes=5-4"), v, 10, Range{}, Whole},
		{"14.1.1 last before first, behind the end", header("Range: bytes=50-40"), v, 10, Range{}, Whole},
		{"14.1.1 several", header("Range: bytes=0-1,3-4"), v, 10, Range{}, Whole},
		{"14.1.1 several, of which one is satisfiable", header("Range: bytes=0-1, 30-40"), v, 10, Range{}, Whole},
		{"14.1.1 very many", header("Range: bytes=0-,0-,0-,0-,0-,0-,0-,0-"), v, 10, Range{}, Whole},
		{"14.1.1 one with empty members", header("Range: bytes=,0-1,"), v, 10, Range{0, 1}, Partial},
		{"14.1.1 white space", header("Range: bytes= 0-1 "), v, 10, Range{0, 1}, Partial},
		{"14.1.1 white space within", header("Range: bytes=0 - 1"), v, 10, Range{}, Whole},
		{"14.1.1 white space before the equals sign", header("Range: bytes =0-1"), v, 10, Range{}, Whole},
		{"14.1 the unit in capitals", header("Range: BYTES=0-1"), v, 10, Range{0, 1}, Partial},
		{"14.1 another unit", header("Range: lines=0-1"), v, 10, Range{}, Whole},
		{"14.1 no unit", header("Range: 0-1"), v, 10, Range{}, Whole},
		{"14.1 an empty unit", header("Range: =0-1"), v, 10, Range{}, Whole},
		{"14.1.1 empty", header("Range: "), v, 10, Range{}, Whole},
		{"14.1.1 no range", header("Range: bytes="), v, 10, Range{}, Whole},
		{"14.1.1 a dash", header("Range: bytes=-"), v, 10, Range{}, Whole},
		{"14.1.1 two dashes", header("Range: bytes=--1"), v, 10, Range{}, Whole},
		{"14.1.1 no dash", header("Range: bytes=5"), v, 10, Range{}, Whole},
		{"14.1.1 a sign", header("Range: bytes=+1-2"), v, 10, Range{}, Whole},
		{"14.1.1 hexadecimal", header("Range: bytes=0x1-0x2"), v, 10, Range{}, Whole},
		{"14.1.1 a third number", header("Range: bytes=0-1-2"), v, 10, Range{}, Whole},
		{"14.2 two lines", header("Range: bytes=0-1", "Range: bytes=0-1"), v, 10, Range{}, Whole},
		{"13.1.5 the same tag", header("Range: bytes=0-1", `If-Range: "x"`), v, 10, Range{0, 1}, Partial},
		{"13.1.5 another tag", header("Range: bytes=0-1", `If-Range: "y"`), v, 10, Range{}, Whole},
		{"13.1.5 another tag, and nothing to satisfy", header("Range: bytes=99-", `If-Range: "y"`), v, 10, Range{}, Whole},
		{"13.1.5 a weak tag", header("Range: bytes=0-1", `If-Range: W/"x"`), v, 10, Range{}, Whole},
		{"13.1.5 a weak tag of a weak one", header("Range: bytes=0-1", `If-Range: W/"x"`), Validators{ETag: `W/"x"`}, 10, Range{}, Whole},
		{"13.1.5 a strong tag of a weak one", header("Range: bytes=0-1", `If-Range: "x"`), Validators{ETag: `W/"x"`}, 10, Range{}, Whole},
		{"13.1.5 a tag where there is none", header("Range: bytes=0-1", `If-Range: "x"`), Validators{}, 10, Range{}, Whole},
		{"13.1.5 a tag without quotes", header("Range: bytes=0-1", `If-Range: x`), v, 10, Range{}, Whole},
		{"13.1.5 two tags", header("Range: bytes=0-1", `If-Range: "x", "x"`), v, 10, Range{}, Whole},
		{"13.1.5 two lines", header("Range: bytes=0-1", `If-Range: "x"`, `If-Range: "x"`), v, 10, Range{}, Whole},
		{"13.1.5 any tag", header("Range: bytes=0-1", `If-Range: *`), v, 10, Range{}, Whole},
		{"13.1.5 empty", header("Range: bytes=0-1", "If-Range: "), v, 10, Range{}, Whole},
		{"13.1.5 the date", header("Range: bytes=0-1", "If-Range: "+modified), v, 10, Range{0, 1}, Partial},
		{"13.1.5 the date, otherwise written", header("Range: bytes=0-1", "If-Range: Sun Nov 22 12:00:00 2026"), v, 10, Range{0, 1}, Partial},
		{"13.1.5 an earlier date", header("Range: bytes=0-1", "If-Range: Sun, 22 Nov 2026 11:59:59 GMT"), v, 10, Range{}, Whole},
		{"13.1.5 a later date", header("Range: bytes=0-1", "If-Range: Sun, 22 Nov 2026 12:00:01 GMT"), v, 10, Range{}, Whole},
		{"13.1.5 a date where there is none", header("Range: bytes=0-1", "If-Range: "+modified), Validators{Date: noon}, 10, Range{}, Whole},
		{"8.8.2.2 a date that is no strong validator", header("Range: bytes=0-1", "If-Range: "+modified), Validators{LastModified: noon, Date: noon}, 10, Range{}, Whole},
		{"8.8.2.2 a date that is one, just so", header("Range: bytes=0-1", "If-Range: "+modified), Validators{LastModified: noon, Date: noon.Add(time.Second)}, 10, Range{0, 1}, Partial},
		{"8.8.2.2 a date, and it is not known when the answer was made", header("Range: bytes=0-1", "If-Range: "+modified), Validators{LastModified: noon}, 10, Range{}, Whole},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got, outcome := RangeOf(test.header, test.v, test.size); got != test.want || outcome != test.outcome {
				t.Errorf("%v gives %v, %d", test.header, got, outcome)
			}
		})
	}
}

func FuzzRange(f *testing.F) {
	for _, seed := range []string{"bytes=0-4", "bytes=5-", "bytes=-3", "bytes=-0", "bytes=9223372036854775807-", "bytes=0-1,2-3", "BYTES=,1-2,", "bytes=00-99999999999999999999"} {
		f.Add(seed, `"x"`, int64(10))
	}
	f.Add("bytes=0-", "Sun, 22 Nov 2026 12:00:00 GMT", int64(0))
	f.Add("bytes=-1", `W/"x"`, int64(1)<<62)
	f.Fuzz(func(t *testing.T, field, ifRange string, size int64) {
		size = max(size, 0)
		v := Validators{ETag: `"x"`, LastModified: noon, Date: noon.Add(time.Minute)}
		h := http.Header{"Range": {field}}
		got, outcome := RangeOf(h, v, size)
		switch outcome {
		case Partial:
			if got.First < 0 || got.Last < got.First || got.Last >= size {
				t.Errorf("%q of %d bytes gives %v", field, size, got)
			}
		default:
			if got != (Range{}) {
				t.Errorf("%q gives %v, and %d", field, got, outcome)
			}
		}
		// If-Range never makes more of it than there is without.
		h["If-Range"] = []string{ifRange}
		if conditional, its := RangeOf(h, v, size); its != Whole && (its != outcome || conditional != got) {
			t.Errorf("%q if %q gives %v, %d", field, ifRange, conditional, its)
		}
	})
}
