package queryset

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"time"

	"walcache/backend/db"
	"walcache/proxy/coherence"
)

// An entry in Redis is these bytes. Numbers are varints, unless they say
// otherwise; a text is its length and its bytes.
//
//	"wcq", version   1 byte
//	checksum         4 bytes, CRC-32C of all that follows, little-endian
//	shape            8 bytes, little-endian, see newStatement
//	key              a text: the key that the entry is under
//	epoch, as of     a text and a number, see entry
//	until            a number, see entry
//	rows             their number, and each as its codec writes it
const (
	magic      = "wcq\x01"
	headerSize = len(magic) + 4

	// maxEntry is the size, in bytes, of the largest entry that is kept.
	maxEntry = 8 << 20
)

// errForeign says that bytes are no entry of this key, version and shape.
var errForeign = errors.New("queryset: not an entry of this key, version and shape")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// entry is what a query returned, and when that was so.
type entry[R any] struct {
	asOf  coherence.Position // every commit up to here is in rows
	until coherence.LSN      // and none after here, in the same epoch
	rows  []R
}

// codec writes and reads the rows of a query. Reading one costs no allocation:
// the texts of all rows are parts of one string.
type codec[R any] interface {
	// least is the number of bytes that a row takes at least.
	least() int
	// size is the number of bytes that a row takes, or a few more.
	size(row *R) int
	append(b []byte, row *R) []byte
	read(r *reader, row *R)
}

// sizeOf is the size, in bytes, of an entry, or a few bytes more.
func sizeOf[R any](c codec[R], key string, rows []R) int {
	size := headerSize + 8 + len(key) + 64 + 6*binary.MaxVarintLen64
	for i := range rows {
		size += c.size(&rows[i])
	}
	return size
}

// encode writes the entry of a key.
func encode[R any](c codec[R], key string, shape uint64, e entry[R]) []byte {
	b := make([]byte, headerSize, sizeOf(c, key, e.rows))
	b = binary.LittleEndian.AppendUint64(b, shape)
	b = appendText(b, key)
	b = appendText(b, e.asOf.Epoch)
	b = binary.AppendUvarint(b, uint64(e.asOf.LSN))
	b = binary.AppendUvarint(b, uint64(e.until))
	b = binary.AppendUvarint(b, uint64(len(e.rows)))
	for i := range e.rows {
		b = c.append(b, &e.rows[i])
	}
	return seal(b)
}

// seal writes the header before what it is about.
func seal(b []byte) []byte {
	copy(b, magic)
	binary.LittleEndian.PutUint32(b[len(magic):], crc32.Checksum(b[headerSize:], castagnoli))
	return b
}

// decode reads what encode wrote under the same key and shape, given as bytes
// and as the same string. Everything else is an error.
func decode[R any](c codec[R], key string, shape uint64, data []byte, text string) (*entry[R], error) {
	if len(data) < headerSize+8 || text[:len(magic)] != magic ||
		binary.LittleEndian.Uint32(data[len(magic):]) != crc32.Checksum(data[headerSize:], castagnoli) ||
		binary.LittleEndian.Uint64(data[headerSize:]) != shape {
		return nil, errForeign
	}
	r := reader{data: data, text: text, pos: headerSize + 8}
	if r.next() != key {
		return nil, errForeign
	}
	e := new(entry[R])
	e.asOf = coherence.Position{Epoch: r.next(), LSN: coherence.LSN(r.number(math.MaxUint64))}
	e.until = coherence.LSN(r.number(math.MaxUint64))
	if n := r.count(c.least()); n > 0 {
		e.rows = make([]R, n)
	}
	for i := 0; i < len(e.rows) && !r.failed; i++ {
		c.read(&r, &e.rows[i])
	}
	if r.failed || r.pos < len(data) {
		return nil, errForeign
	}
	return e, nil
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// reader reads what was appended. After it has failed all it reads is zero.
type reader struct {
	data   []byte
	text   string // the same, to take texts from
	pos    int
	failed bool
}

// number reads a number that is at most limit.
func (r *reader) number(limit uint64) uint64 {
	n, size := binary.Uvarint(r.data[r.pos:])
	if r.failed = r.failed || size <= 0 || n > limit; r.failed {
		return 0
	}
	r.pos += size
	return n
}

// signed reads a number that may be below zero.
func (r *reader) signed() int64 {
	n, size := binary.Varint(r.data[r.pos:])
	if r.failed = r.failed || size <= 0; r.failed {
		return 0
	}
	r.pos += size
	return n
}

// count reads the length of a list whose members take size bytes at least, so
// that no list is made for members that are not there.
func (r *reader) count(size int) int {
	n := r.number(math.MaxInt32)
	if r.failed = r.failed || int(n) > (len(r.data)-r.pos)/size; r.failed {
		return 0
	}
	return int(n)
}

func (r *reader) next() string {
	n := r.count(1)
	r.pos += n
	return r.text[r.pos-n : r.pos]
}

// numberRows are rows of one integer.
type numberRows struct{}

func (numberRows) least() int                         { return 1 }
func (numberRows) size(*int64) int                    { return binary.MaxVarintLen64 }
func (numberRows) append(b []byte, row *int64) []byte { return binary.AppendVarint(b, *row) }
func (numberRows) read(r *reader, row *int64)         { *row = r.signed() }

// textRows are rows of one text.
type textRows struct{}

func (textRows) least() int                          { return 1 }
func (textRows) size(row *string) int                { return binary.MaxVarintLen32 + len(*row) }
func (textRows) append(b []byte, row *string) []byte { return appendText(b, *row) }
func (textRows) read(r *reader, row *string)         { *row = r.next() }

// propertyRows are the rows of properties. The generated types differ in name
// alone.
type propertyRows[R interface {
	db.GetPropertyRow | db.ListPropertiesRow | db.ListPropertiesByLocationRow |
		db.SearchPropertiesRow | db.SearchPropertiesByLocationRow
}] struct{}

func (propertyRows[R]) least() int { return 7 }

func (propertyRows[R]) size(row *R) int {
	p := db.GetPropertyRow(*row)
	return 3*binary.MaxVarintLen64 + 4*binary.MaxVarintLen32 + len(p.Title) + len(p.Description) + len(p.Price) + len(p.Location)
}

func (propertyRows[R]) append(b []byte, row *R) []byte {
	p := db.GetPropertyRow(*row)
	b = binary.AppendVarint(b, p.ID)
	b = appendText(b, p.Title)
	b = appendText(b, p.Description)
	b = appendText(b, p.Price)
	b = appendText(b, p.Location)
	b = binary.AppendVarint(b, p.CreatedAt.Unix())
	return binary.AppendUvarint(b, uint64(p.CreatedAt.Nanosecond()))
}

func (propertyRows[R]) read(r *reader, row *R) {
	*row = R(db.GetPropertyRow{
		ID:          r.signed(),
		Title:       r.next(),
		Description: r.next(),
		Price:       r.next(),
		Location:    r.next(),
		CreatedAt:   time.Unix(r.signed(), int64(r.number(999_999_999))).UTC(),
	})
}
