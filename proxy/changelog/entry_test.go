package changelog

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
	"math/rand/v2"
	"reflect"
	"runtime"
	"testing"
	"time"

	"walcache/proxy/coherence"
)

var samples = []entry{
	{epoch: "e", record: &coherence.Record{Epoch: "e", From: 100, To: 100, Visible: 100}},
	{epoch: "e", record: &coherence.Record{Epoch: "e", From: 100, To: 1 << 62, Visible: 7}},
	{epoch: "epoch", record: &coherence.Record{
		Epoch: "epoch", From: 100, To: 300, Visible: 250,
		Changes: []coherence.Change{{Hash: 1, At: 150}, {Hash: 1<<64 - 1, At: 150}, {Hash: 3, At: 300}, {Hash: 4, At: 90}},
		Tables:  []coherence.TableChanges{{Table: "books", Rows: 3}, {Table: "app.authors", Rows: 1}},
	}},
	{epoch: "epoch", record: &coherence.Record{
		Epoch: "epoch", From: 100, To: 300, Committed: time.Date(2026, 11, 23, 9, 7, 0, 123456000, time.UTC),
		Changes: []coherence.Change{{Hash: 1, At: 150}, {Hash: 3, At: 300}},
		Tables:  []coherence.TableChanges{{Table: "books", Rows: 3}},
	}},
	{epoch: "e", record: &coherence.Record{Epoch: "e", From: 100, To: 300, Committed: time.UnixMicro(-1).UTC()}},
	{epoch: "e", beat: &beat{name: "abc", count: 1 << 40, at: 200, news: order{5, 6}}},
	{epoch: "e", news: &news{state: []byte{}}},
	{epoch: "e", news: &news{catalog: &coherence.Catalog{
		Tables: map[string]coherence.Table{"books": {Columns: map[string]coherence.Kind{"id": coherence.UUID}}},
		Blind:  []string{"authors"}, Off: true, Term: 17,
	}, state: []byte("state"), edition: 9}},
}

func TestEntry_IsReadAsItWasWritten(t *testing.T) {
	for _, want := range samples {
		got, err := decodeEntry(want.encode())
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v: got %+v, %v", want, got, err)
		}
		data := want.encode()
		for n := range len(data) {
			if got, err := decodeEntry(data[:n]); err == nil && want.record == nil {
				t.Errorf("%d of %d bytes are read as %+v", n, len(data), got)
			}
		}
		if _, err := decodeEntry(append(data, 0)); err == nil {
			t.Errorf("%+v with a byte more is read", want)
		}
	}
}

// olderRecord is how records were read before they had a time of commit.
func olderRecord(epoch string, d *decoder) *coherence.Record {
	r := &coherence.Record{Epoch: epoch, From: d.lsn()}
	r.To = r.From + d.lsn()
	r.Visible = d.lsn()
	if r.To < r.From {
		d.fail()
	}
	for n := d.uvarint(); n > 0 && d.err == nil; n-- {
		r.Tables = append(r.Tables, coherence.TableChanges{Table: d.text(), Rows: int(d.uvarint())})
	}
	for d.err == nil && len(d.rest) > 0 {
		at, n := r.From+coherence.LSN(d.varint()), d.uvarint()
		if n > uint64(len(d.rest))/8 {
			d.fail()
			break
		}
		for hashes := d.bytes(8 * n); len(hashes) > 0; hashes = hashes[8:] {
			r.Changes = append(r.Changes, coherence.Change{Hash: coherence.Hash(binary.LittleEndian.Uint64(hashes)), At: at})
		}
	}
	return r
}

// While a cluster is being updated, processes that know the time of a commit
// share a log with others that do not: each reads what the other writes, and
// what is not for people it reads in full.
func TestEntry_IsReadByProcessesThatKnowNoCommitTime(t *testing.T) {
	for _, e := range samples {
		if e.record == nil {
			continue
		}
		older := *e.record
		older.Committed = time.Time{}
		data := e.encode()
		d := decoder{rest: data[1:]}
		if got := olderRecord(d.text(), &d); d.err != nil || !reflect.DeepEqual(got, &older) {
			t.Errorf("%+v is read by an older process as %+v, %v", e.record, got, d.err)
		}
	}
	// What an older process wrote, byte for byte.
	data, err := hex.DecodeString("7205" + "65706f6368" + "64c801fa01" + "0205626f6f6b73030b6170702e617574686f727301" +
		"64020100000000000000ffffffffffffffff" + "9003010300000000000000" + "13010400000000000000")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := decodeEntry(data); err != nil || !reflect.DeepEqual(got, samples[2]) {
		t.Errorf("what an older process wrote is read as %+v, %v", got.record, err)
	}
}

// bounded fails the test if reading some bytes takes far more memory than they
// are.
func bounded(t *testing.T, data []byte, read func()) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	read()
	runtime.ReadMemStats(&after)
	// A catalog may be unpacked to 1,000 times its size, and more in memory.
	if took := after.TotalAlloc - before.TotalAlloc; took > 1<<20+uint64(len(data))*20_000 {
		t.Errorf("%d bytes took %d of memory", len(data), took)
	}
}

func FuzzDecodeEntry(f *testing.F) {
	for _, e := range samples {
		f.Add(e.encode())
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		bounded(t, data, func() {
			e, err := decodeEntry(data)
			if err != nil {
				return
			}
			again, err := decodeEntry(e.encode())
			if err != nil || !reflect.DeepEqual(again, e) {
				t.Errorf("%+v is written and read as %+v, %v", e, again, err)
			}
		})
	})
}

// slots are random changes of a tracker, in order.
func slots(random *rand.Rand, n int, known coherence.LSN) (changes []coherence.Change) {
	for slot := range coherence.Hash(n) {
		if random.IntN(3) > 0 {
			changes = append(changes, coherence.Change{Hash: slot, At: 1 + coherence.LSN(random.Int64N(int64(known+100)))})
		}
	}
	return changes
}

func checkpointOf(h head, n news, slots int, changes []coherence.Change) []byte {
	return encodeCheckpoint(h, n, coherence.Checkpoint{
		Epoch: h.epoch, Known: h.known, Visible: h.known / 2, Slots: slots,
		Changes: func(yield func(coherence.Change) bool) {
			for _, c := range changes {
				if !yield(c) {
					return
				}
			}
		},
	})
}

func TestCheckpoint_IsReadAsItWasWritten(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	n := *samples[len(samples)-1].news
	for _, h := range []head{
		{epoch: "e", by: "x", cursor: fromTheStart},
		{epoch: "epoch", base: "base", by: "leader", term: 17, edition: 9, known: 1 << 50, cursor: "1700000000000-12"},
	} {
		changes := slots(random, 1<<10, h.known)
		value := checkpointOf(h, n, 1<<10, changes)
		c, err := decodeCheckpoint(value)
		if err != nil || c.head != h || !reflect.DeepEqual(c.news, n) || c.visible != h.known/2 || c.slots != 1<<10 {
			t.Fatalf("got %+v, %v", c.head, err)
		}
		var got []coherence.Change
		for change := range c.facts().Changes {
			got = append(got, change)
		}
		if !reflect.DeepEqual(got, changes) {
			t.Errorf("%d changes are read as %d others", len(changes), len(got))
		}
		if line := lineOf(string(value[:min(len(value), maxHead)])); parseHead(line) != h || line != h.line() {
			t.Errorf("the line is %q", line)
		}
		for range 200 { // one byte is another
			damaged := bytes.Clone(value)
			damaged[random.IntN(len(damaged))] ^= byte(1 + random.IntN(255))
			if _, err := decodeCheckpoint(damaged); err == nil {
				t.Fatal("a damaged checkpoint is read")
			}
			if _, err := decodeCheckpoint(value[:random.IntN(len(value))]); err == nil {
				t.Fatal("a part of a checkpoint is read")
			}
		}
	}
}

func TestParseHead_RefusesWhatItWouldWriteDifferently(t *testing.T) {
	for _, line := range []string{
		"", "\n", "walcache1\n", "walcache1 e - x 0 0 0 0-0\n",
		"walcache1 e - x 000000000000000g 0000000000000000 0000000000000000 0-0\n",
		"walcache1 e - x 0000000000000001 0000000000000000 0000000000000000\n",
		"walcache2 e - x 0000000000000001 0000000000000000 0000000000000000 0-0\n",
		"walcache1 e - x 00000000000000aa 0000000000000000 0000000000000000 0-0\n",
	} {
		if h := parseHead(line); h != (head{}) {
			t.Errorf("%q is read as %+v", line, h)
		}
	}
}

// The checksum is made right, so that it is not what everything fails at.
func FuzzDecodeCheckpoint(f *testing.F) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, n := range []news{{}, *samples[len(samples)-1].news} {
		value := checkpointOf(head{epoch: "e", by: "x", known: 1000, cursor: "1-1"}, n, 16, slots(random, 16, 1000))
		f.Add(value[:len(value)-4])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		value := binary.LittleEndian.AppendUint32(bytes.Clone(data), crc32.Checksum(data, castagnoli))
		bounded(t, data, func() {
			if c, err := decodeCheckpoint(value); err == nil {
				coherence.NewTracker(1<<4, 1).Load(c.facts())
			}
			_, _ = decodeCheckpoint(data) // without
		})
	})
}
