package queryset

import (
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"walcache/backend/db"
	"walcache/proxy/coherence"
)

var (
	sampleCodec = propertyRows[db.GetPropertyRow]{}
	sampleAsOf  = coherence.Position{Epoch: "k3f9", LSN: 0x16B374D848}
)

const (
	sampleKey   = "wc:qs:all_properties"
	sampleShape = 0x0123456789abcdef
)

// sampleAbout is what is said of an entry, in which there is every bit.
func sampleAbout(rows int) coherence.Kept {
	return coherence.Kept{Key: sampleKey, AsOf: sampleAsOf, Until: math.MaxUint64, Tags: []coherence.Tag{properties}, Stored: time.Now(), Rows: rows}
}

func sampleEntry(rows int) entry[db.GetPropertyRow] {
	e := entry[db.GetPropertyRow]{asOf: sampleAsOf, until: math.MaxUint64}
	for i := range rows {
		e.rows = append(e.rows, db.GetPropertyRow{
			ID: int64(i) - 3, Title: "Löft", Description: strings.Repeat("d", i), Price: "2100.00", Location: "",
			CreatedAt: time.Date(2026-i*700, 11, 22, 19, 7, 28, 256157000*(i%2), time.UTC),
		})
	}
	return e
}

func encodeSample(rows int) []byte {
	return encode(sampleCodec, sampleShape, sampleAbout(rows), sampleEntry(rows).rows)
}

func decodeSample(data []byte, key string, shape uint64) (*entry[db.GetPropertyRow], error) {
	return decode(sampleCodec, key, shape, data, string(data))
}

func TestCodec_ReadsWhatItWrote(t *testing.T) {
	for _, n := range []int{0, 1, 7} {
		want := sampleEntry(n)
		data := encodeSample(n)
		got, err := decodeSample(data, sampleKey, sampleShape)
		if err != nil || !reflect.DeepEqual(*got, want) {
			t.Errorf("%d rows: %v\ngot  %v\nwant %v", n, err, got, want)
		}
		if size := sizeOf(sampleCodec, sampleAbout(n), want.rows); len(data) > size {
			t.Errorf("%d rows take %d bytes, and were said to take %d", n, len(data), size)
		}
	}
	roundTrip(t, numberRows{}, []int64{0, -1, math.MinInt64, math.MaxInt64})
	roundTrip(t, textRows{}, []string{"", "Nairobi", "São Tomé\x00"})
}

func roundTrip[R any](t *testing.T, c codec[R], rows []R) {
	t.Helper()
	data := encode(c, sampleShape, sampleAbout(len(rows)), rows)
	got, err := decode(c, sampleKey, sampleShape, data, string(data))
	if err != nil || !reflect.DeepEqual(got.rows, rows) {
		t.Errorf("got %v, %v, want %v", got, err, rows)
	}
}

func TestCodec_AnythingElseIsAnError(t *testing.T) {
	data := encodeSample(5)
	refused := func(what string, data []byte, key string, shape uint64) {
		t.Helper()
		if _, err := decodeSample(data, key, shape); err == nil {
			t.Errorf("%s was read", what)
		}
	}
	refused("another key's entry", data, "wc:qs:properties:location=x", sampleShape)
	refused("an entry of another shape", data, sampleKey, sampleShape+1)
	for i := range data {
		refused("a truncated entry", data[:i], sampleKey, sampleShape)
		bit := byte(1) << rand.IntN(8)
		data[i] ^= bit
		refused("a corrupted entry", data, sampleKey, sampleShape)
		data[i] ^= bit
	}
	about := sampleAbout(5).Append(nil)
	body := data[len(about):]
	refused("rows of which nothing is said", body, sampleKey, sampleShape)
	refused("what is said of rows, alone", about, sampleKey, sampleShape)
	refused("more rows than there are", append(sampleAbout(6).Append(nil), body...), sampleKey, sampleShape)
	refused("fewer rows than there are", append(sampleAbout(4).Append(nil), body...), sampleKey, sampleShape)
	refused("far more rows than there are", append(sampleAbout(math.MaxInt32).Append(nil), body...), sampleKey, sampleShape)
	long := append(data, 0)
	seal(long[len(about):])
	refused("more than an entry", long, sampleKey, sampleShape)
}

// Anybody can tell what an entry is as of, and by which tags.
func TestCodec_AnEntrySaysWhatItIs(t *testing.T) {
	got, _, err := coherence.ReadKept(encodeSample(7), sampleKey)
	want := sampleAbout(7)
	if err != nil || got.AsOf != want.AsOf || got.Until != want.Until || got.Rows != 7 || !slices.Equal(got.Tags, want.Tags) || time.Since(got.Stored) > patience {
		t.Errorf("%v: %+v", err, got)
	}
}

// FuzzDecode has the decoder read anything that has the right checksums.
func FuzzDecode(f *testing.F) {
	for _, n := range []int{0, 1, 20} {
		f.Add(n, encodeSample(n)[len(sampleAbout(n).Append(nil))+headerSize:])
	}
	texts := encode(textRows{}, sampleShape, sampleAbout(2), []string{"a", ""})
	f.Add(2, texts[len(sampleAbout(2).Append(nil))+headerSize:])
	f.Fuzz(func(t *testing.T, rows int, rest []byte) {
		about := sampleAbout(rows)
		data := about.Append(nil)
		body := len(data)
		data = append(append(data, magic+"csum"...), rest...)
		seal(data[body:])
		e, err := decodeSample(data, sampleKey, sampleShape)
		if err == nil {
			if len(e.rows)*sampleCodec.least() > len(data) {
				t.Fatalf("%d rows from %d bytes", len(e.rows), len(data))
			}
			again := encode(sampleCodec, sampleShape, about, e.rows)
			if back, err := decodeSample(again, sampleKey, sampleShape); err != nil || !reflect.DeepEqual(back, e) {
				t.Fatalf("%v: %v became %v", err, e, back)
			}
		}
		_, _ = decode(textRows{}, sampleKey, sampleShape, data, string(data))
		_, _ = decode(numberRows{}, sampleKey, sampleShape, data, string(data))
	})
}
