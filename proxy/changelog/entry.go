package changelog

import (
	"encoding/binary"
	"errors"
	"time"

	"walcache/proxy/coherence"
)

// entry is one element of the stream: the epoch that it is of, and exactly one
// of the rest.
type entry struct {
	epoch string

	record *coherence.Record
	beat   *beat
	news   *news
}

// beat is a place in the log. Whoever reads two of one name, one after the
// other, knows that the second was sampled after the first had been appended.
type beat struct {
	name  string // of a run of beats without an error in between
	count uint64
	at    coherence.LSN // up to where records have come before it
	news  order         // that have come before it
}

// The first byte of an entry. Another format has other ones.
const (
	recordKind = 'r'
	beatKind   = 'b'
	newsKind   = 'n'
)

var errForeign = errors.New("not of this format")

func (e *entry) encode() []byte {
	b := appendText([]byte{0}, e.epoch)
	switch {
	case e.record != nil:
		b[0] = recordKind
		return appendRecord(b, e.record)
	case e.beat != nil:
		b[0] = beatKind
		b = binary.AppendUvarint(appendText(b, e.beat.name), e.beat.count)
		b = binary.AppendUvarint(b, uint64(e.beat.at))
		return binary.AppendUvarint(binary.AppendUvarint(b, uint64(e.beat.news.term)), e.beat.news.edition)
	default:
		b[0] = newsKind
		return e.news.append(b)
	}
}

func decodeEntry(data []byte) (e entry, err error) {
	if len(data) == 0 {
		return e, errForeign
	}
	d := decoder{rest: data[1:]}
	e.epoch = d.text()
	switch data[0] {
	case recordKind:
		e.record = d.record(e.epoch)
	case beatKind:
		e.beat = &beat{d.text(), d.uvarint(), d.lsn(), order{d.lsn(), d.uvarint()}}
	case newsKind:
		e.news = d.news()
	default:
		d.fail()
	}
	if len(d.rest) > 0 {
		d.fail()
	}
	return e, d.err
}

// appendRecord writes the changes in groups of one position: those of a commit
// are many, and stand together. A group of none has the time of Committed in the
// place of its position, in microseconds of Unix time.
//
// 1. A cluster is being updated: one process leads, others follow, and some know
// no Committed. 2. They read a group of none as nothing, and go on. 3. What they
// write has no such group, and is read as having no time. So nobody falls into a
// gap, and neither form needs a first byte of its own.
func appendRecord(b []byte, r *coherence.Record) []byte {
	b = binary.AppendUvarint(b, uint64(r.From))
	b = binary.AppendUvarint(b, uint64(r.To-r.From))
	b = binary.AppendUvarint(b, uint64(r.Visible))
	b = binary.AppendUvarint(b, uint64(len(r.Tables)))
	for _, t := range r.Tables {
		b = binary.AppendUvarint(appendText(b, t.Table), uint64(t.Rows))
	}
	if !r.Committed.IsZero() {
		b = binary.AppendUvarint(binary.AppendVarint(b, r.Committed.UnixMicro()), 0)
	}
	for i := 0; i < len(r.Changes); {
		at, n := r.Changes[i].At, 1
		for i+n < len(r.Changes) && r.Changes[i+n].At == at {
			n++
		}
		b = binary.AppendVarint(b, int64(at-r.From))
		b = binary.AppendUvarint(b, uint64(n))
		for _, c := range r.Changes[i : i+n] {
			b = binary.LittleEndian.AppendUint64(b, uint64(c.Hash))
		}
		i += n
	}
	return b
}

func appendText[T string | []byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// decoder reads what the functions above write, and remembers that it could
// not.
type decoder struct {
	rest []byte
	err  error
}

func (d *decoder) fail() { d.rest, d.err = nil, errForeign }

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.rest)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) bytes(n uint64) []byte {
	if n > uint64(len(d.rest)) {
		d.fail()
		return nil
	}
	b := d.rest[:n]
	d.rest = d.rest[n:]
	return b
}

func (d *decoder) text() string { return string(d.bytes(d.uvarint())) }

func (d *decoder) lsn() coherence.LSN { return coherence.LSN(d.uvarint()) }

func (d *decoder) record(epoch string) *coherence.Record {
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
		place, n := d.varint(), d.uvarint()
		if n > uint64(len(d.rest))/8 {
			d.fail()
			break
		}
		if n == 0 && d.err == nil {
			r.Committed = time.UnixMicro(place).UTC()
		}
		at := r.From + coherence.LSN(place)
		for hashes := d.bytes(8 * n); len(hashes) > 0; hashes = hashes[8:] {
			r.Changes = append(r.Changes, coherence.Change{Hash: coherence.Hash(binary.LittleEndian.Uint64(hashes)), At: at})
		}
	}
	return r
}
