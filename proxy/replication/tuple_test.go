package replication

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/jackc/pglogrepl"
)

func TestTuples_ReadWhatWasSent(t *testing.T) {
	var all tuples // whose room is used again
	for _, c := range []struct {
		kind          byte
		message       wire
		before, after string
	}{
		{'I', wire{}.row('N', "1", "a"), "absent", "[1 a]"},
		{'U', wire{}.row('N', "1", ""), "absent", "[1 ]"},
		{'U', wire{}.row('K', "1").row('N', "2", "b"), "[1]", "[2 b]"},
		{'U', wire{}.row('O', "1", "long enough to need room").row('N', "2"), "[1 long enough to need room]", "[2]"},
		{'D', wire{}.row('K', "7"), "[7]", "absent"},
		{'D', wire{}.row('O', "7", "8"), "[7 8]", "absent"},
		{'I', wire{}.row('N'), "absent", "[]"},
	} {
		if err := all.read(c.kind, &cursor{rest: c.message}); err != nil {
			t.Errorf("%c %q: %v", c.kind, c.message, err)
		}
		if before, after := show(all.before), show(all.after); before != c.before || after != c.after {
			t.Errorf("%c %q: before %s, after %s", c.kind, c.message, before, after)
		}
		for n := range len(c.message) {
			if err := all.read(c.kind, &cursor{rest: c.message[:n]}); err == nil {
				t.Errorf("%c %q is whole", c.kind, c.message[:n])
			}
		}
	}
	for kind, message := range map[byte]wire{'I': wire{}.row('K', "1"), 'D': wire{}.row('N', "1"), 'U': wire{}.row('K', "1").row('K', "2")} {
		if err := all.read(kind, &cursor{rest: message}); err == nil {
			t.Errorf("%c %q is understood", kind, message)
		}
	}
}

func show(t tuple) string {
	if t == nil {
		return "absent"
	}
	var values []string
	for _, c := range t {
		values = append(values, string(c.data))
	}
	return fmt.Sprint(values)
}

func TestTuples_TakeNoMemoryPerRow(t *testing.T) {
	var all tuples
	message := wire{}.row('K', "1").row('N', "2", "b", "c", "d")
	if n := testing.AllocsPerRun(100, func() {
		if err := all.read('U', &cursor{rest: message}); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// What is read here pglogrepl reads the same, and what pglogrepl cannot read is
// not read here, except a row of a table without columns, which it takes for too
// short.
func FuzzTuples(f *testing.F) {
	for i, message := range []wire{
		wire{}.row('N', "1", "a"), wire{}.row('K', "1").row('N', "2", "b"), wire{}.row('O', "", "xyz"),
		wire("N\x00\x03nut\x00\x00\x00\x02hi"), wire("K\x00\x01b\x00\x00\x00\x01\x00N\x00\x00"), wire("N\x00\x01t\x00\x00\x01\x00"), wire("N\x00\x01x"),
	} {
		f.Add(byte(i), i%2 == 0, []byte(message))
	}
	f.Fuzz(func(t *testing.T, which byte, streamed bool, data []byte) {
		kind := "IUD"[which%3]
		message := append(message(kind).u32(7), data...)
		if streamed {
			message = append(wire{kind}.u32(9).u32(7), data...)
		}
		if implausible(message) {
			return
		}
		var ours tuples
		if err := ours.read(kind, &cursor{rest: data}); err != nil {
			return // theirs takes some that make no sense
		}
		before, after, err := theirs(message, streamed)
		if err != nil && len(ours.before)+len(ours.after) > 0 {
			t.Fatalf("%c %q: they say: %v", kind, data, err)
		}
		if err == nil && !(equal(ours.before, before) && equal(ours.after, after)) {
			t.Fatalf("%c %q: %s and %s", kind, data, show(ours.before), show(ours.after))
		}
	})
}

func theirs(message []byte, streamed bool) (before, after *pglogrepl.TupleData, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	parsed, err := pglogrepl.ParseV2(message, streamed)
	switch m := parsed.(type) {
	case *pglogrepl.InsertMessageV2:
		return nil, m.Tuple, err
	case *pglogrepl.UpdateMessageV2:
		return m.OldTuple, m.NewTuple, err
	case *pglogrepl.DeleteMessageV2:
		return m.OldTuple, nil, err
	}
	return nil, nil, err
}

func equal(ours tuple, theirs *pglogrepl.TupleData) bool {
	if ours == nil || theirs == nil {
		return ours == nil && theirs == nil
	}
	return slices.EqualFunc(ours, theirs.Columns, func(a column, b *pglogrepl.TupleDataColumn) bool {
		return a.kind == b.DataType && bytes.Equal(a.data, b.Data)
	})
}
