package api

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"walcache/backend/db"
)

func FuzzAppendString(f *testing.F) {
	for _, s := range []string{"", "plain", `"\`, "\x00\x1f\x7f\n\r\t", "é🏠\u2028", "\xff\xfe", "a\xc3"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var got string
		if err := json.Unmarshal(appendString(nil, s), &got); err != nil {
			t.Fatalf("%q: %v", s, err)
		}
		if want := strings.ToValidUTF8(s, "\uFFFD"); got != want {
			t.Errorf("%q reads back as %q", want, got)
		}
	})
}

func TestAppendTime_LeavesZeroMicrosecondsOut(t *testing.T) {
	for at, want := range map[time.Time]string{
		time.Date(2026, 11, 22, 19, 7, 28, 256157000, time.UTC):                   `"2026-11-22T19:07:28.256157+00:00"`,
		time.Date(2026, 11, 22, 19, 7, 28, 1000, time.UTC):                        `"2026-11-22T19:07:28.000001+00:00"`,
		time.Date(2026, 11, 22, 19, 7, 28, 0, time.UTC):                           `"2026-11-22T19:07:28+00:00"`,
		time.Date(2026, 11, 22, 22, 7, 28, 0, time.FixedZone("Nairobi", 3*60*60)): `"2026-11-22T19:07:28+00:00"`,
	} {
		if got := string(appendTime(nil, at)); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// property is what encoding/json would be given in place of appendProperty.
type property struct {
	ID          int64     `json:"id"`
	Title       string    `json:"title"`
	Description string    `json:"description"`
	Price       string    `json:"price"`
	Location    string    `json:"location"`
	CreatedAt   time.Time `json:"created_at"`
}

// BenchmarkList measures a list of 1,000 rows: appended to a pooled buffer as
// the service does, and marshalled by reflection.
func BenchmarkList(b *testing.B) {
	rows := make([]db.ListPropertiesRow, 1000)
	for i := range rows {
		rows[i] = db.ListPropertiesRow{
			ID: int64(i), Title: fmt.Sprintf("Property listing number %d", i), Price: "1250.00", Location: "Downtown",
			Description: "Beautiful 2-bedroom apartment in the heart of downtown with city views.",
			CreatedAt:   time.Date(2026, 11, 22, 19, 7, 28, 256157000, time.UTC),
		}
	}
	b.Run("append", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			withBody(func(body []byte) []byte {
				l, _ := listed(rows, nil)
				body = appendList(body, l)
				b.SetBytes(int64(len(body)))
				return body
			})
		}
	})
	b.Run("reflect", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			list := make([]property, len(rows))
			for i, r := range rows {
				list[i] = property(r)
			}
			body, err := json.Marshal(list)
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(len(body)))
		}
	})
}
