package coherence

import (
	"strings"
	"testing"
)

func FuzzRowHasher(f *testing.F) {
	for _, value := range []string{"", "42", "Nairobi", "a b.c/%", "Zürich", "\x00\xff", strings.Repeat("é", 32), strings.Repeat("x", 65)} {
		f.Add("properties", "location", value)
	}
	f.Fuzz(func(t *testing.T, table, column, value string) {
		name := TableName("public", table)
		if got, want := NewRowHasher(name, column).Hash([]byte(value)), RowTag(name, column, value).Hash(); got != want {
			t.Fatalf("hasher says %x, the tag %x", got, want)
		}
	})
}

func TestRowHasher_CanBeUsedAgain(t *testing.T) {
	h := NewRowHasher("t", "c")
	first := h.Hash([]byte("a"))
	h.Hash([]byte("b"))
	if h.Hash([]byte("a")) != first {
		t.Error("hashing a value changed the hasher")
	}
}

func TestHash_TagsAndFloorsDiffer(t *testing.T) {
	seen := map[Hash]string{}
	for name, h := range map[string]Hash{
		"any": Any.Hash(), "floor of everything": TableFloor(Everything),
		"table": TableTag("t").Hash(), "floor": TableFloor("t"), "other floor": TableFloor("u"),
		"column floor": ColumnFloor("t", "c"), "other column floor": ColumnFloor("t", "d"),
		"row": RowTag("t", "c", "1").Hash(), "empty row": RowTag("t", "c", "").Hash(),
		"page": PageHash("http://t"), "group": GroupHash("http://t", "t"), "other origin": GroupHash("https://t", "t"),
		"group that is a table": GroupHash("", "t"), "group that is a URL": GroupHash("", "http://t"),
	} {
		if other, taken := seen[h]; taken {
			t.Errorf("%s and %s have one hash", name, other)
		}
		seen[h] = name
	}
}

func TestParseNamed_ReadsPagesAndGroupsAlone(t *testing.T) {
	for _, h := range []Hash{PageHash("http://a/"), GroupHash("http://a", "b"), 1 << 63} {
		if got, err := ParseNamed(h.Text()); err != nil || got != h {
			t.Errorf("%s is read as %x, %v", h.Text(), got, err)
		}
	}
	for _, text := range []string{
		"", "0", "*", Any.Hash().Text(), TableFloor("t").Text(), "8000000000000000 ", "+800000000000000", "80000000000000000", "800000000000000A",
	} {
		if h, err := ParseNamed(text); err == nil {
			t.Errorf("%q is read as %x", text, h)
		}
	}
}
