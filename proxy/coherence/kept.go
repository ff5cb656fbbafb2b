package coherence

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"time"
)

// Kept is what a value in a shared store, such as a queryset in Redis, says of
// itself: what it is as of, and what it depends on. The value begins with it, in
// a form that any program can read, whoever wrote the value and however the rest
// of it looks. Catalog.Narrow and Tracker.Judge then say whether it still holds.
//
// In bytes it is as follows. A number is a varint unless it says otherwise, a
// text is its length and its bytes.
//
//	"wck", version   1 byte
//	size             4 bytes, little-endian, of all this
//	checksum         4 bytes, little-endian, CRC-32C of what follows
//	key              a text
//	epoch, as of     a text and a number
//	until            a number
//	stored           a number: milliseconds since 1970, UTC
//	rows             a number
//	tags             their number, and a text each
//
// What comes after it is for its writer to define, and to protect.
type Kept struct {
	Key    string    // that it is kept under, prefix and all
	AsOf   Position  // every commit up to here is in it
	Until  LSN       // and none after here, in the same epoch; ^LSN(0) if that is not known
	Tags   []Tag     // that it was read under; none is the whole database
	Stored time.Time // by the clock of who wrote it, to the millisecond
	Rows   int       // that it holds
}

const (
	keptMagic  = "wck\x01"
	keptHeader = len(keptMagic) + 4 + 4

	// MaxKept is the size, in bytes, of the longest Kept: whoever wants to know
	// what a value is as of needs to read no more of it.
	MaxKept = 8 << 10

	// maxStored is the last millisecond of the year 9999. JSON knows no later one.
	maxStored = 253402300799999
)

var (
	// ErrForeign says that bytes do not begin with a Kept of this key and version.
	ErrForeign = errors.New("not kept under this key, or in another format")
	// ErrCorrupt says that bytes begin as a Kept does, and are damaged.
	ErrCorrupt = errors.New("damaged")
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Size is how many bytes Append adds, or a few more.
func (k Kept) Size() int {
	size := keptHeader + 8*binary.MaxVarintLen64 + len(k.Key) + len(k.AsOf.Epoch)
	for _, t := range k.Tags {
		size += binary.MaxVarintLen32 + len(t)
	}
	return size
}

// Append appends what ReadKept reads. Tags that are too many, or too long all in
// all, are widened: to those of their tables, or to Any. Nobody reads it if the
// key alone does not fit, or if the epoch cannot stand in a Position's text.
func (k Kept) Append(b []byte) []byte {
	at := len(b)
	b = append(b, keptMagic+"size"+"csum"...)
	b = appendText(b, k.Key)
	b = appendText(b, k.AsOf.Epoch)
	b = binary.AppendUvarint(b, uint64(k.AsOf.LSN))
	b = binary.AppendUvarint(b, uint64(k.Until))
	b = binary.AppendUvarint(b, uint64(max(k.Stored.UnixMilli(), 0)))
	b = binary.AppendUvarint(b, uint64(k.Rows))
	tags := fitting(k.Tags, MaxKept-(len(b)-at))
	b = binary.AppendUvarint(b, uint64(len(tags)))
	for _, t := range tags {
		b = appendText(b, string(t))
	}
	sealKept(b[at:])
	return b
}

// sealKept writes size and checksum of a Kept.
func sealKept(b []byte) {
	binary.LittleEndian.PutUint32(b[len(keptMagic):], uint32(len(b)))
	binary.LittleEndian.PutUint32(b[len(keptMagic)+4:], crc32.Checksum(b[keptHeader:], castagnoli))
}

// fitting returns tags that cover these, few and short enough.
func fitting(tags []Tag, room int) []Tag {
	if fit(tags, room) {
		return tags
	}
	if tags = tablesOf(tags); fit(tags, room) {
		return tags
	}
	return []Tag{Any}
}

func fit(tags []Tag, room int) bool {
	for _, t := range tags {
		room -= binary.MaxVarintLen32 + len(t)
	}
	return len(tags) <= MaxTags && room >= binary.MaxVarintLen32
}

// ReadKept reads what Append wrote at the beginning of a value that is kept under
// a key, and returns what follows. MaxKept bytes of the value are enough; then
// rest is what they hold of it. The error is ErrForeign or ErrCorrupt. Bytes that
// somebody made up cost no more memory than they have.
func ReadKept(value []byte, key string) (k Kept, rest []byte, err error) {
	k, r, rest, err := readKept(value, key)
	if err != nil {
		return Kept{}, nil, err
	}
	for range r.number(MaxTags) {
		t := Tag(r.text())
		if _, _, _, err := t.parts(); err != nil && t != Any {
			return Kept{}, nil, ErrCorrupt
		}
		k.Tags = append(k.Tags, t)
	}
	if r.failed || len(r.data) > 0 {
		return Kept{}, nil, ErrCorrupt
	}
	return k, rest, nil
}

// SkimKept is ReadKept without the tags, which it passes over whatever their
// number. It is for those who know what they have read under which tags.
func SkimKept(value []byte, key string) (k Kept, rest []byte, err error) {
	k, _, rest, err = readKept(value, key)
	return k, rest, err
}

// readKept reads up to the tags, which r is to read next.
func readKept(value []byte, key string) (k Kept, r keptReader, rest []byte, err error) {
	if len(value) < keptHeader || string(value[:len(keptMagic)]) != keptMagic {
		return Kept{}, r, nil, ErrForeign
	}
	size := binary.LittleEndian.Uint32(value[len(keptMagic):])
	sum := binary.LittleEndian.Uint32(value[len(keptMagic)+4:])
	if size < uint32(keptHeader) || size > MaxKept || int(size) > len(value) ||
		crc32.Checksum(value[keptHeader:size], castagnoli) != sum {
		return Kept{}, r, nil, ErrCorrupt
	}
	r = keptReader{data: value[keptHeader:size]}
	if name := r.text(); !r.failed && string(name) != key {
		return Kept{}, r, nil, ErrForeign
	}
	k = Kept{
		Key:    key,
		AsOf:   Position{Epoch: string(r.text()), LSN: LSN(r.number(math.MaxUint64))},
		Until:  LSN(r.number(math.MaxUint64)),
		Stored: time.UnixMilli(int64(r.number(maxStored))).UTC(),
		Rows:   int(r.number(math.MaxInt32)),
	}
	if r.failed || !isEpoch(k.AsOf.Epoch) {
		return Kept{}, r, nil, ErrCorrupt
	}
	return k, r, value[size:], nil
}

// isEpoch reports whether ParsePosition takes an epoch of this name.
func isEpoch(name string) bool {
	for i := range len(name) {
		if !plain(name[i], "") {
			return false
		}
	}
	return 0 < len(name) && len(name) <= 64
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// keptReader reads what was appended. After it has failed all it reads is zero.
type keptReader struct {
	data   []byte
	failed bool
}

// number reads a number that is at most limit.
func (r *keptReader) number(limit uint64) uint64 {
	n, size := binary.Uvarint(r.data)
	if r.failed = r.failed || size <= 0 || n > limit; r.failed {
		return 0
	}
	r.data = r.data[size:]
	return n
}

// text reads a text, which is a part of the data.
func (r *keptReader) text() []byte {
	n := r.number(uint64(len(r.data)))
	if r.failed = r.failed || n > uint64(len(r.data)); r.failed {
		return nil
	}
	text := r.data[:n]
	r.data = r.data[n:]
	return text
}
