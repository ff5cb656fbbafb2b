package coherence

import (
	"strings"
	"testing"
)

func TestParsePosition_ReadsWhatStringWrites(t *testing.T) {
	p := Position{Epoch: "k3f9", LSN: 0x16B374D848}
	if p.String() != "16/B374D848;epoch=k3f9" {
		t.Fatalf("written as %q", p)
	}
	if back, err := ParsePosition(p.String()); err != nil || back != p {
		t.Fatalf("read as %v, %v", back, err)
	}
}

func TestParsePosition_ReadsNothingElse(t *testing.T) {
	for _, s := range []string{
		"", "16/B374D848", "16/B374D848;epoch=", ";epoch=a", "/;epoch=a", "1;epoch=a", "1/;epoch=a",
		"16/b374d848;epoch=a", "016/1;epoch=a", "1/01;epoch=a", "+1/1;epoch=a", "-1/1;epoch=a", "100000000/0;epoch=a",
		"1/1;epoch=a b", "1/1;epoch=a;epoch=b", "1/1;epoch=a\n", "1/1; epoch=a", " 1/1;epoch=a", "1/1;epoch=" + strings.Repeat("a", 65),
	} {
		if p, err := ParsePosition(s); err == nil {
			t.Errorf("%q is taken for %v", s, p)
		}
	}
}

func FuzzParsePosition(f *testing.F) {
	for _, s := range []string{"16/B374D848;epoch=k3f9", "0/0;epoch=a", "FFFFFFFF/FFFFFFFF;epoch=z", "1/a;epoch=b", "x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if p, err := ParsePosition(s); err == nil && p.String() != s {
			t.Fatalf("%q is read as %v", s, p)
		}
		if lsn, err := ParseLSN(s); err == nil {
			if back, err := ParseLSN(lsn.String()); err != nil || back != lsn {
				t.Fatalf("%q is read as %v, and that as %v, %v", s, lsn, back, err)
			}
		}
	})
}
