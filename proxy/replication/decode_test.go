package replication

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"walcache/proxy/coherence"
)

// wire writes pgoutput messages (PostgreSQL documentation, "Logical Replication
// Message Formats").
type wire []byte

func message(kind byte) wire           { return wire{kind} }
func (w wire) u8(v byte) wire          { return append(w, v) }
func (w wire) u16(v int) wire          { return binary.BigEndian.AppendUint16(w, uint16(v)) }
func (w wire) u32(v uint32) wire       { return binary.BigEndian.AppendUint32(w, v) }
func (w wire) u64(v uint64) wire       { return binary.BigEndian.AppendUint64(w, v) }
func (w wire) text(s string) wire      { return append(append(w, s...), 0) }
func begin(xid uint32) wire            { return message('B').u64(0).u64(0).u32(xid) }
func commitAt(end uint64) wire         { return message('C').u8(0).u64(end - 1).u64(end).u64(0) }
func streamStart(xid uint32) wire      { return message('S').u32(xid).u8(1) }
func streamStop() wire                 { return message('E') }
func streamAbort(xid, sub uint32) wire { return message('A').u32(xid).u32(sub) }
func emitted(prefix, content string, transactional byte) wire {
	w := message('M').u8(transactional).u64(500).text(prefix).u32(uint32(len(content)))
	return append(w, content...)
}

func streamCommit(xid uint32, end uint64) wire {
	return message('c').u32(xid).u8(0).u64(end - 1).u64(end).u64(0)
}

// describe is a table public.t whose columns are int8; the first is its
// identity.
func describe(oid uint32, table string, columns ...string) wire {
	w := message('R').u32(oid).text("public").text(table).u8('d').u16(len(columns))
	for i, name := range columns {
		w = w.u8(map[bool]byte{true: 1}[i == 0]).text(name).u32(20).u32(0)
	}
	return w
}

func (w wire) row(kind byte, values ...string) wire {
	w = w.u8(kind).u16(len(values))
	for _, v := range values {
		w = append(w.u8('t').u32(uint32(len(v))), v...)
	}
	return w
}

func insert(oid uint32, values ...string) wire { return message('I').u32(oid).row('N', values...) }

// streamed is a message as it stands in a block of a streamed transaction.
func streamed(sub uint32, w wire) wire {
	return append(wire{w[0]}.u32(sub), w[1:]...)
}

// decoding is a decoder whose catalog has a table t (id, n), with an index on
// n, of oid 1.
type decoding struct {
	*decoder
	t       testing.TB
	reloads int
	notices []string
}

func newDecoding(t testing.TB) *decoding {
	d := &decoding{t: t}
	c := &catalog{tables: map[uint32]*table{1: {
		oid: 1, name: "t", kind: "r", logged: true, identity: true, listed: 1,
		columns: []tableColumn{
			{Name: "id", Type: 20, Kind: coherence.Integer, Indexed: true},
			{Name: "n", Type: 20, Kind: coherence.Integer, Indexed: true},
		},
	}}}
	reload := func(...string) (*catalog, error) { d.reloads++; return c, nil }
	d.decoder = newDecoder(func() *catalog { return c }, reload, func(what string, err error) {
		d.notices = append(d.notices, fmt.Sprintf("%s: %v", what, err))
	})
	return d
}

// take decodes messages and returns the commits that they complete.
func (d *decoding) take(messages ...wire) (done []*commit) {
	d.t.Helper()
	for _, m := range messages {
		c, err := d.decode(1000, m)
		if err != nil {
			d.t.Fatalf("%q: %v", m, err)
		}
		if c != nil {
			done = append(done, c)
		}
	}
	return done
}

func (c *commit) moves(h coherence.Hash) bool {
	return slices.ContainsFunc(c.changes, func(x coherence.Change) bool { return x.Hash == h && x.At == c.end })
}

func (c *commit) movesEverything() bool {
	return c.moves(coherence.TableFloor(coherence.Everything)) && c.moves(coherence.Any.Hash())
}

var rowOne = coherence.RowTag("t", "id", "1").Hash()

func TestDecoder_CommitsMoveWhatTheyChanged(t *testing.T) {
	d := newDecoding(t)
	done := d.take(begin(7), describe(1, "t", "id", "n"), insert(1, "1", "5"), commitAt(90))
	if len(done) != 1 || done[0].xid != 7 || done[0].end != 90 || !done[0].moves(rowOne) || done[0].movesEverything() {
		t.Fatalf("%+v", done)
	}
	if len(d.notices) > 0 || d.inFlight() {
		t.Errorf("notices %q, in flight %t", d.notices, d.inFlight())
	}
}

// Both kinds of commit say when they were; what is no transaction does not.
func TestDecoder_CommitsSayWhenTheyWere(t *testing.T) {
	d, at := newDecoding(t), time.Date(2026, time.November, 23, 9, 7, 0, 123456000, time.UTC)
	micros := uint64(at.Sub(postgresEpoch).Microseconds())
	done := d.take(
		begin(7), describe(1, "t", "id", "n"), insert(1, "1", "5"), message('C').u8(0).u64(89).u64(90).u64(micros),
		streamStart(8), streamed(8, insert(1, "1", "5")), streamStop(), message('c').u32(8).u8(0).u64(99).u64(100).u64(micros+1),
		emitted(Prefix, "bump t/id=1", 0), message('?'),
	)
	for i, want := range []time.Time{at, at.Add(time.Microsecond), {}, {}} {
		if i >= len(done) || !done[i].at.Equal(want) {
			t.Errorf("commit %d of %d: want %s: %+v", i, len(done), want, done)
		}
	}
}

func TestDecoder_WhatIsNotUnderstoodMovesEverything(t *testing.T) {
	for name, messages := range map[string][]wire{
		"nothing at all":            {{}},
		"unknown message":           {message('?')},
		"row outside a transaction": {describe(1, "t", "id", "n"), insert(1, "1", "5")},
		"commit outside one":        {commitAt(90)},
		"empty message inside":      {begin(7), {}, commitAt(90)},
		"row of unknown table":      {begin(7), insert(99, "1"), commitAt(90)},
		"truncate of unknown table": {begin(7), message('T').u32(1).u8(0).u32(99), commitAt(90)},
		"cut row":                   {begin(7), describe(1, "t", "id", "n"), insert(1, "1", "5")[:9], commitAt(90)},
		"row of other width":        {begin(7), describe(1, "t", "id", "n"), insert(1, "1"), commitAt(90)},
		"wider row":                 {begin(7), describe(1, "t", "id", "n"), insert(1, "1", "2", "3"), commitAt(90)},
		"cut description":           {begin(7), describe(1, "t", "id", "n")[:12], commitAt(90)},
		"cut commit":                {begin(7), describe(1, "t", "id", "n"), commitAt(90)[:5], begin(8), commitAt(99)},
		"cut begin":                 {begin(7)[:5], describe(1, "t", "id", "n"), insert(1, "1", "5"), commitAt(90)},
		"unknown stream":            {streamCommit(7, 90)},
		"cut stream start":          {streamStart(7)[:2], streamed(7, insert(1, "1", "5")), streamStop(), streamCommit(7, 90)},
		"unknown within a stream":   {streamStart(7), message('?'), streamStop(), streamCommit(7, 90)},
		"garbage for us":            {begin(7), emitted(Prefix, "drop everything", 1), commitAt(90)},
	} {
		d := newDecoding(t)
		done := d.take(messages...)
		if len(done) == 0 || !done[len(done)-1].movesEverything() || len(d.notices) == 0 {
			t.Errorf("%s: %d commits, notices %q", name, len(done), d.notices)
		}
	}
}

func TestDecoder_KeepsStreamedTransactionsApart(t *testing.T) {
	d := newDecoding(t)
	done := d.take(
		streamStart(7), streamed(7, describe(1, "t", "id", "n")), streamed(7, insert(1, "1", "5")),
	)
	if len(done) > 0 || !d.inFlight() {
		t.Fatalf("%d commits, in flight %t, within a block", len(done), d.inFlight())
	}
	done = d.take(streamStop(), begin(8), describe(1, "t", "id", "n"), insert(1, "2", "6"), commitAt(80))
	if len(done) != 1 || done[0].xid != 8 || done[0].moves(rowOne) {
		t.Fatalf("a small commit between two blocks: %+v", done)
	}
	done = d.take(streamStart(7), streamed(9, insert(1, "3", "5")), streamStop(), streamAbort(7, 9), streamCommit(7, 90))
	if len(done) != 1 || done[0].xid != 7 || done[0].end != 90 || !done[0].moves(rowOne) {
		t.Fatalf("the streamed commit: %+v", done)
	}
	if done := d.take(streamStart(7), streamed(7, insert(1, "1", "5")), streamStop(), streamAbort(7, 7)); len(done) > 0 || len(d.streams) > 0 {
		t.Errorf("a streamed rollback: %d commits, %d streams left", len(done), len(d.streams))
	}
	if len(d.notices) > 0 {
		t.Errorf("notices %q", d.notices)
	}
}

func TestDecoder_WhatARolledBackStreamDescribedIsForgotten(t *testing.T) {
	d := newDecoding(t)
	d.take(begin(6), describe(1, "t", "id", "n"), commitAt(70))
	d.take(streamStart(7), streamed(7, describe(1, "t", "n", "id")), streamStop())
	done := d.take(begin(8), insert(1, "1", "5"), commitAt(80))
	if !done[0].moves(rowOne) {
		t.Error("a description that was not committed was used")
	}
	d.take(streamAbort(7, 7))
	if done := d.take(begin(9), insert(1, "1", "5"), commitAt(90)); !done[0].moves(rowOne) {
		t.Error("a description that was rolled back was used")
	}
	d.take(streamStart(10), streamed(10, describe(1, "t", "n", "id")), streamStop(), streamCommit(10, 100))
	if done := d.take(begin(11), insert(1, "5", "1"), commitAt(110)); done[0].moves(rowOne) {
		t.Error("a description that was committed was not used")
	}
}

func TestDecoder_AnAlteredTableRaisesItsFloorUnderBothNames(t *testing.T) {
	for name, altered := range map[string]wire{
		"renamed": describe(1, "u", "id", "n"), "new column": describe(1, "t", "id", "n", "m"), "renamed column": describe(1, "t", "id", "m"),
	} {
		d := newDecoding(t)
		d.take(begin(6), describe(1, "t", "id", "n"), commitAt(70))
		if done := d.take(begin(7), describe(1, "t", "id", "n"), commitAt(75)); len(done[0].changes) > 0 {
			t.Errorf("described again as before: %+v", done[0])
		}
		if done := d.take(begin(8), altered, commitAt(80)); !done[0].moves(coherence.TableFloor("t")) {
			t.Errorf("%s: the floor is not raised", name)
		} else if name == "renamed" && !done[0].moves(coherence.TableFloor("u")) {
			t.Errorf("%s: the floor of the new name is not raised", name)
		}
	}
}

func TestDecoder_ReadsLogicalMessages(t *testing.T) {
	floor, all := coherence.TableFloor, coherence.TableFloor(coherence.Everything)
	one, two := coherence.PageHash("http://a/"), coherence.GroupHash("http://a", "t")
	for content, want := range map[string][]coherence.Hash{
		"floor t":                                {floor("t"), coherence.TableTag("t").Hash(), coherence.Any.Hash()},
		"floor s.u\nfloor t\n":                   {floor("s.u"), floor("t")},
		"floor *":                                {all, coherence.Any.Hash()},
		"bump t/id=1":                            {rowOne},
		"purge /a?b=c d":                         {coherence.PageHash("/a?b=c d")},
		"cache off\nbump t/id=1":                 {rowOne},
		" bump t/id=1 \r\n\n floor t":            {rowOne, floor("t")},
		"floor":                                  {all},
		"stale " + one.Text():                    {one},
		"stale " + one.Text() + " " + two.Text(): {one, two},
		"stale":                                  {all},
		"stale " + rowOne.Text():                 {all}, // which only a change of the row moves
		"stale x":                                {all},
		"purge":                                  {all},
		"cache":                                  {all},
		"cache maybe":                            {all},
		"bump ":                                  {all},
		"bump t/id=1\nfloort":                    {rowOne, all},
		"\x00\xff":                               {all},
	} {
		for _, transactional := range []byte{0, 1} {
			d := newDecoding(t)
			done := d.take(begin(7), emitted(Prefix, content, transactional))
			if transactional == 0 {
				if len(done) != 1 || done[0].xid != 0 {
					t.Fatalf("%q outside its transaction: %+v", content, done)
				}
			} else if len(done) > 0 {
				t.Fatalf("%q before its transaction ends: %+v", content, done)
			} else {
				done = d.take(commitAt(90))
			}
			for _, h := range want {
				if !done[0].moves(h) {
					t.Errorf("%q, transactional %d: does not move %x", content, transactional, h)
				}
			}
			if done[0].movesEverything() != slices.Contains(want, all) {
				t.Errorf("%q: moves everything: %t", content, done[0].movesEverything())
			}
		}
	}
	if done := newDecoding(t).take(emitted("other", "floor *", 0), emitted(Prefix, "", 0)); len(done) != 1 || len(done[0].changes) > 0 {
		t.Errorf("messages of others, and empty ones, move something: %+v", done)
	}
}

func TestDecoder_TheLastSwitchOfATransactionCounts(t *testing.T) {
	for content, want := range map[string]string{"": "", "floor t": "", "cache off": "off", "cache on": "on", "cache on\ncache off": "off", "cache off\ncache on": "on"} {
		for _, done := range []*commit{
			newDecoding(t).take(emitted(Prefix, content, 0))[0],
			newDecoding(t).take(begin(7), emitted(Prefix, content, 1), commitAt(90))[0],
			newDecoding(t).take(streamStart(7), streamed(7, emitted(Prefix, content, 1)), streamStop(), streamCommit(7, 90))[0],
		} {
			if got := done.off; (got == nil) != (want == "") || got != nil && *got != (want == "off") {
				t.Errorf("%q: %v", content, got)
			}
		}
	}
}

// A message outside a transaction lies where PostgreSQL says; a position beyond
// that would be beyond the end of the WAL.
func TestDecoder_AMessageOutsideATransactionEndsWhereItLies(t *testing.T) {
	done := newDecoding(t).take(emitted(Prefix, "floor t", 0))
	if len(done) != 1 || done[0].end != 500 {
		t.Errorf("%+v", done)
	}
}

func TestDecoder_WideTransactionsRaiseTheFloor(t *testing.T) {
	d := newDecoding(t)
	d.take(begin(7), describe(1, "t", "id", "n"))
	latest := d.latest()
	for i := range wideRows + 1000 {
		if i%1000 == 0 { // the system catalogs are read every second
			again := *latest
			d.decoder.latest = func() *catalog { return &again }
			d.take(describe(1, "t", "id", "n")) // as after any invalidation in the server
		}
		d.take(insert(1, fmt.Sprint(i), "5"))
	}
	done := d.take(commitAt(90))
	if !done[0].moves(coherence.TableFloor("t")) || len(done[0].changes) > wideRows+10 {
		t.Errorf("%d changes, floor %t", len(done[0].changes), done[0].moves(coherence.TableFloor("t")))
	}
	if tables := done[0].tables; len(tables) != 1 || tables[0] != (coherence.TableChanges{Table: "t", Rows: wideRows + 1000}) {
		t.Errorf("counted %+v", tables)
	}
	done = d.take(begin(8), insert(1, "1", "5"), commitAt(99))
	if done[0].moves(coherence.TableFloor("t")) || !done[0].moves(rowOne) {
		t.Error("the next transaction raises the floor too")
	}
}

func TestDecoder_CannotReadTheCatalogs(t *testing.T) {
	d := newDecoding(t)
	lost := errors.New("connection lost")
	d.reload = func(...string) (*catalog, error) { return nil, lost }
	d.take(begin(7))
	if _, err := d.decode(1, describe(2, "new", "id")); !errors.Is(err, lost) {
		t.Errorf("got %v: the table counts as published", err)
	}
}

// Whatever the bytes are, a decoder does not panic, and what it did not
// understand moves everything, at once or with the transaction it stands in.
func FuzzDecoder(f *testing.F) {
	join := func(messages ...wire) (all []byte) {
		for _, m := range messages {
			all = append(append(all, byte(len(m))), m...)
		}
		return all
	}
	f.Add(join(begin(7), describe(1, "t", "id", "n"), insert(1, "1", "5"), commitAt(90)))
	f.Add(join(streamStart(7), streamed(7, describe(1, "t", "id", "n")), streamed(8, insert(1, "1", "5")), streamStop(), streamAbort(7, 8), streamCommit(7, 90)))
	f.Add(join(begin(7), message('U').u32(1).row('K', "1", "2").row('N', "1", "3"), message('D').u32(1).row('O', "1", "3"), commitAt(90)))
	f.Add(join(begin(7), message('T').u32(1).u8(0).u32(1), emitted(Prefix, "floor t", 1), commitAt(90), emitted(Prefix, "bump *", 0)))
	f.Add(join(wire{}, begin(7), wire{}, commitAt(1)))
	f.Add([]byte("\x05I\x00\x00\x00\x01\x03Ufoo\x01C\x01B"))
	f.Fuzz(func(t *testing.T, data []byte) {
		d := newDecoding(t)
		for len(data) > 0 {
			n := min(int(data[0]), len(data)-1)
			m := slices.Clip(data[1 : 1+n])
			data = data[1+n:]
			before := len(d.notices)
			if implausible(m) {
				continue
			}
			done, err := d.decode(1000, m)
			if err != nil {
				t.Fatal(err)
			}
			if len(d.notices) == before || done != nil && done.movesEverything() {
				continue
			}
			if _, all := d.current().changes[coherence.TableFloor(coherence.Everything)]; !all {
				t.Fatalf("%q was not understood, and moved nothing", m)
			}
		}
	})
}

// implausible reports lengths for which the parser would allocate gigabytes.
func implausible(m []byte) bool {
	for i := range len(m) - 3 {
		if v := binary.BigEndian.Uint32(m[i:]); v > 1<<20 && (m[0] == 'T' || i > 0 && (m[i-1] == 't' || m[i-1] == 'b')) {
			return true
		}
	}
	return false
}
