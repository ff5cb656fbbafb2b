package queryset

import (
	"math"
	"math/rand/v2"
	"reflect"
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
	return encode(sampleCodec, sampleKey, sampleShape, sampleEntry(rows))
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
		if size := sizeOf(sampleCodec, sampleKey, want.rows); len(data) > size {
			t.Errorf("%d rows take %d bytes, and were said to take %d", n, len(data), size)
		}
	}
	roundTrip(t, numberRows{}, []int64{0, -1, math.MinInt64, math.MaxInt64})
	roundTrip(t, textRows{}, []string{"", "Nairobi", "São Tomé\x00"})
}

func roundTrip[R any](t *testing.T, c codec[R], rows []R) {
	t.Helper()
	data := encode(c, sampleKey, sampleShape, entry[R]{sampleAsOf, 1, rows})
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
	refused("more than an entry", seal(append(data, 0)), sampleKey, sampleShape)
}

// FuzzDecode has the decoder read anything that has the right checksum.
func FuzzDecode(f *testing.F) {
	for _, n := range []int{0, 1, 20} {
		f.Add(encodeSample(n)[headerSize:])
	}
	f.Add(encode(textRows{}, sampleKey, sampleShape, entry[string]{sampleAsOf, 1, []string{"a", ""}})[headerSize:])
	f.Fuzz(func(t *testing.T, rest []byte) {
		data := seal(append(make([]byte, headerSize), rest...))
		e, err := decodeSample(data, sampleKey, sampleShape)
		if err == nil {
			if len(e.rows)*sampleCodec.least() > len(data) {
				t.Fatalf("%d rows from %d bytes", len(e.rows), len(data))
			}
			again := encode(sampleCodec, sampleKey, sampleShape, *e)
			if back, err := decodeSample(again, sampleKey, sampleShape); err != nil || !reflect.DeepEqual(back, e) {
				t.Fatalf("%v: %v became %v", err, e, back)
			}
		}
		_, _ = decode(textRows{}, sampleKey, sampleShape, data, string(data))
		_, _ = decode(numberRows{}, sampleKey, sampleShape, data, string(data))
	})
}
