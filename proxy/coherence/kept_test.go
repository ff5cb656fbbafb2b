package coherence

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func sampleKept() Kept {
	return Kept{
		Key: "wc:qs:all_properties", AsOf: Position{Epoch: "k3f9", LSN: 0x16B374D848}, Until: 0x16B374D900,
		Tags: []Tag{"properties", RowTag("properties", "location", "São Tomé")}, Stored: time.UnixMilli(1_795_000_000_123).UTC(), Rows: 10,
	}
}

func TestKept_ReadsWhatItWrote(t *testing.T) {
	full := sampleKept()
	bare := Kept{Key: "", AsOf: Position{Epoch: "a"}, Until: math.MaxUint64, Stored: time.UnixMilli(0).UTC(), Rows: math.MaxInt32}
	for _, want := range []Kept{full, bare} {
		value := append(want.Append(nil), "rows"...)
		if n := len(value) - len("rows"); n > want.Size() {
			t.Errorf("%d bytes, and it said %d", n, want.Size())
		}
		got, rest, err := ReadKept(value, want.Key)
		if err != nil || string(rest) != "rows" || !reflect.DeepEqual(got, want) {
			t.Errorf("%v, %q\ngot  %+v\nwant %+v", err, rest, got, want)
		}
		want.Tags = nil
		got, rest, err = SkimKept(value, want.Key)
		if err != nil || string(rest) != "rows" || !reflect.DeepEqual(got, want) {
			t.Errorf("skimmed: %v, %q\ngot  %+v\nwant %+v", err, rest, got, want)
		}
	}
}

func TestKept_IsAppended(t *testing.T) {
	value := sampleKept().Append([]byte("before"))
	if _, _, err := ReadKept(value[len("before"):], sampleKept().Key); err != nil || !strings.HasPrefix(string(value), "before") {
		t.Error(err)
	}
}

func TestKept_TheFirstBytesOfAValueAreEnough(t *testing.T) {
	k := sampleKept()
	k.Key = strings.Repeat("k", 4<<10)
	k.Tags = k.Tags[:0]
	for i := range MaxTags {
		k.Tags = append(k.Tags, RowTag("properties", "location", fmt.Sprint(strings.Repeat("x", 60), i)))
	}
	value := append(k.Append(nil), make([]byte, 1<<20)...)
	got, _, err := ReadKept(value[:MaxKept], k.Key)
	if err != nil || !slices.Equal(got.Tags, k.Tags) {
		t.Errorf("%v: %q", err, got.Tags)
	}
}

func TestKept_TagsThatDoNotFitAreWidened(t *testing.T) {
	var rows, tables, long []Tag
	for i := range MaxTags + 1 {
		rows = append(rows, RowTag(fmt.Sprint("t", i%3), "id", fmt.Sprint(i)))
		tables = append(tables, TableTag(fmt.Sprint("t", i)))
	}
	for i := range 20 {
		long = append(long, RowTag("t", strings.Repeat("ä", 200), fmt.Sprint(i)))
	}
	for _, c := range []struct{ tags, want []Tag }{
		{rows, []Tag{"t0", "t1", "t2"}},
		{tables, []Tag{Any}},
		{long, []Tag{"t"}},
		{[]Tag{TableTag(strings.Repeat("t", MaxKept))}, []Tag{Any}},
	} {
		k := sampleKept()
		k.Tags = c.tags
		value := k.Append(nil)
		got, _, err := ReadKept(value, k.Key)
		if err != nil || !slices.Equal(got.Tags, c.want) || len(value) > MaxKept {
			t.Errorf("%d tags: %d bytes, %q, %v", len(c.tags), len(value), got.Tags, err)
		}
	}
}

func TestKept_AnythingElseIsAnError(t *testing.T) {
	value := sampleKept().Append(nil)
	refused := func(what string, want error, value []byte, key string) {
		t.Helper()
		if _, _, err := ReadKept(value, key); err == nil || want != nil && !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
		if _, _, err := SkimKept(value, key); err == nil {
			t.Errorf("%s was skimmed", what)
		}
	}
	refused("nothing", ErrForeign, nil, sampleKept().Key)
	refused("the value of another key", ErrForeign, value, "wc:qs:property_count")
	for i := range value {
		refused("a truncated one", nil, value[:i], sampleKept().Key)
		for bit := range 8 {
			value[i] ^= 1 << bit
			want := ErrCorrupt
			if i < len(keptMagic) {
				want = ErrForeign
			}
			refused(fmt.Sprint("bit ", bit, " of byte ", i), want, value, sampleKept().Key)
			value[i] ^= 1 << bit
		}
	}
	for what, spoil := range map[string]func(*Kept){
		"no epoch":                 func(k *Kept) { k.AsOf.Epoch = "" },
		"an epoch that is none":    func(k *Kept) { k.AsOf.Epoch = "a;b" },
		"an epoch that is long":    func(k *Kept) { k.AsOf.Epoch = strings.Repeat("a", 65) },
		"fewer rows than none":     func(k *Kept) { k.Rows = -1 },
		"a date that JSON has not": func(k *Kept) { k.Stored = time.UnixMilli(maxStored + 1) },
		"a key that is too long":   func(k *Kept) { k.Key = strings.Repeat("k", MaxKept) },
	} {
		k := sampleKept()
		spoil(&k)
		refused(what, ErrCorrupt, k.Append(nil), k.Key)
	}
	k := sampleKept()
	k.Tags = []Tag{"a tag"}
	if _, _, err := ReadKept(k.Append(nil), k.Key); !errors.Is(err, ErrCorrupt) {
		t.Errorf("what is no tag is read: %v", err)
	}
}

// FuzzReadKept has anything read that has the right size and checksum.
func FuzzReadKept(f *testing.F) {
	for _, k := range []Kept{sampleKept(), {AsOf: Position{Epoch: "a"}}} {
		f.Add(k.Append(nil)[keptHeader:], k.Key)
	}
	f.Fuzz(func(t *testing.T, raw []byte, key string) {
		_, _, _ = ReadKept(raw, key)
		value := append([]byte(keptMagic+"size"+"csum"), raw...)
		sealKept(value)
		k, rest, err := ReadKept(value, key)
		if err != nil {
			return
		}
		if len(rest) > 0 || len(k.Tags) > len(raw) {
			t.Fatalf("%d bytes after it, %d tags", len(rest), len(k.Tags))
		}
		again, _, err := ReadKept(k.Append(nil), key)
		if err != nil || !reflect.DeepEqual(again, k) {
			t.Fatalf("%v: %+v became %+v", err, k, again)
		}
	})
}

// BenchmarkSkimKept is what it costs a hit that a value says so much of itself.
func BenchmarkSkimKept(b *testing.B) {
	for _, n := range []int{1, MaxTags} {
		k := sampleKept()
		k.Tags = nil
		for i := range n {
			k.Tags = append(k.Tags, RowTag("properties", "id", fmt.Sprint(i)))
		}
		value := k.Append(nil)
		b.Run(fmt.Sprint(n, " tags"), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := SkimKept(value, k.Key); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
