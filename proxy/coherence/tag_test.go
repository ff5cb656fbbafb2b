package coherence

import (
	"strings"
	"testing"
)

func TestTag_IsSpelledInASCII(t *testing.T) {
	for _, c := range []struct{ got, want Tag }{
		{RowTag(TableName("public", "properties"), "location", "Nairobi"), "properties/location=Nairobi"},
		{RowTag(TableName("public", "properties"), "id", "-42"), "properties/id=-42"},
		{RowTag("t", "place", "a b/c=d,é"), "t/place=a%20b%2Fc%3Dd%2C%C3%A9"},
		{RowTag("t", "price", "1.50"), "t/price=1.50"},
		{RowTag("t", "a.b", "x"), "t/a%2Eb=x"},
		{RowTag("t", "place", strings.Repeat("x", 64)), Tag("t/place=" + strings.Repeat("x", 64))},
		{TableTag(TableName("sales", "Order Lines")), "sales.Order%20Lines"},
		{TableTag(TableName("public", "a.b")), "a%2Eb"},
		{TableTag(TableName("a", "b")), "a.b"},
		{RowTag("t", "place", "x").Table(), "t"},
		{TableTag("t").Table(), "t"},
		{Any.Table(), Any},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}

func TestTag_LongValuesAreNamedByTheirHash(t *testing.T) {
	a, b := RowTag("t", "c", strings.Repeat("x", 65)), RowTag("t", "c", strings.Repeat("x", 66))
	for _, tag := range []Tag{a, b} {
		if spelled := strings.TrimPrefix(string(tag), "t/c=#"); len(spelled) != 32 {
			t.Errorf("%q is not a # and 32 digits", tag)
		}
	}
	if a == b {
		t.Error("two long values have one tag")
	}
}

func TestTag_PartsRefuseWhatNobodyWrites(t *testing.T) {
	for _, tag := range []Tag{"", "*", "/a=1", "t/", "t/a", "t/=1", "t/%zz=1", "t/a%2eb=1", "a b", "t\n", "t/%4=1", "é"} {
		if table, column, value, err := tag.parts(); err == nil {
			t.Errorf("%q is taken for %q %q %q", tag, table, column, value)
		}
	}
}

func FuzzEscape(f *testing.F) {
	for _, s := range []string{"", "a.b", "50%", "%41", "Zürich", "\x00\xff", "a/b=c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, also := range []string{"", "."} {
			back, err := unescape(escape(s, also), also)
			if err != nil || back != s {
				t.Fatalf("%q comes back as %q, %v", s, back, err)
			}
			if raw, err := unescape(s, also); err == nil && escape(raw, also) != s {
				t.Fatalf("%q is a second spelling of %q", s, raw)
			}
		}
		table, column, value, err := RowTag(TableName(s+"s", s+"t"), s+"c", s).parts()
		if err != nil || table != TableName(s+"s", s+"t") || column != s+"c" || value != spell(s) {
			t.Fatalf("parts of a tag of %q: %q %q %q, %v", s, table, column, value, err)
		}
	})
}
