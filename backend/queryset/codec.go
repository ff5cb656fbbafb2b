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

// An entry in Redis begins with a coherence.Kept, which anybody can read: its key,
// what it is as of, under which tags, the number of its rows. These bytes follow,
// for this package alone:
//
//	"wcq", version   1 byte
//	checksum         4 bytes, CRC-32C of all that follows, little-endian
//	shape            8 bytes, little-endian, see newStatement
//	rows             each as its codec writes it; numbers are varints, a text is
//	                 its length and its bytes
const (
	magic      = "wcq\x02"
	headerSize = len(magic) + 4
	shapeSize  = 8

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
func sizeOf[R any](c codec[R], about coherence.Kept, rows []R) int {
	size := about.Size() + headerSize + shapeSize
	for i := range rows {
		size += c.size(&rows[i])
	}
	return size
}

// encode writes an entry: what is said about it, and its rows.
func encode[R any](c codec[R], shape uint64, about coherence.Kept, rows []R) []byte {
	about.Rows = len(rows)
	b := about.Append(make([]byte, 0, sizeOf(c, about, rows)))
	body := len(b)
	b = append(b, magic+"csum"...)
	b = binary.LittleEndian.AppendUint64(b, shape)
	for i := range rows {
		b = c.append(b, &rows[i])
	}
	seal(b[body:])
	return b
}

// seal writes the checksum of what follows it.
func seal(body []byte) {
	binary.LittleEndian.PutUint32(body[len(magic):], crc32.Checksum(body[headerSize:], castagnoli))
}

// decode reads what encode wrote under the same key and shape, given as bytes
// and as the same string. Everything else is an error.
func decode[R any](c codec[R], key string, shape uint64, data []byte, text string) (*entry[R], error) {
	about, body, err := coherence.SkimKept(data, key)
	if err != nil || len(body) < headerSize+shapeSize || string(body[:len(magic)]) != magic ||
		binary.LittleEndian.Uint32(body[len(magic):]) != crc32.Checksum(body[headerSize:], castagnoli) ||
		binary.LittleEndian.Uint64(body[headerSize:]) != shape {
		return nil, errForeign
	}
	r := reader{data: data, text: text, pos: len(data) - len(body) + headerSize + shapeSize}
	e := &entry[R]{asOf: about.AsOf, until: about.Until}
	if about.Rows > (len(data)-r.pos)/c.least() {
		return nil, errForeign // before a list is made for them
	}
	if about.Rows > 0 {
		e.rows = make([]R, about.Rows)
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

func (r *reader) next() string {
	n := int(r.number(math.MaxInt32))
	if r.failed = r.failed || n > len(r.data)-r.pos; r.failed {
		return ""
	}
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
