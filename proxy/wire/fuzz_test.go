package wire

import "testing"

// Whatever a client sends in whatever pieces, net/http reads of what passes the
// same requests that were found here, with the same ends; readAll fails
// otherwise. And what passes is what was sent, but for empty lines.
func FuzzConn(f *testing.F) {
	for _, test := range malformed {
		f.Add([]byte(test.request+get("/next")), []byte{255})
	}
	for _, test := range wellFormed {
		f.Add([]byte(test.request+get("/next")), []byte{3, 1, 200})
	}
	for _, test := range brokenBodies {
		f.Add([]byte(post("Transfer-Encoding: chunked", test.body)+get("/next")), []byte{20, 1})
	}
	f.Fuzz(func(t *testing.T, sent, pieces []byte) {
		var sizes []int
		for _, n := range pieces {
			sizes = append(sizes, int(n))
		}
		c := newConn(newTape(string(sent), sizes...), Limits{})
		all := readAll(t, c, string(sent))
		again := newConn(newTape(string(sent)), Limits{})
		if whole := readAll(t, again, string(sent)); len(whole) != len(all) || again.refused != c.refused {
			t.Fatalf("%d requests in one piece, refused for %d; in many %d, %d", len(whole), again.refused, len(all), c.refused)
		}
	})
}
