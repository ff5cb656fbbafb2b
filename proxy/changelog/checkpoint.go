package changelog

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strings"

	"walcache/proxy/coherence"
)

// checkpoint is what the key of that name holds: all that the log has said of
// an epoch so far, and what the next leader has to know.
type checkpoint struct {
	head
	news
	visible coherence.LSN
	slots   int
	changes []byte // as encodeCheckpoint writes them
}

// head begins the value as a line of text, which the script that replaces it
// reads.
type head struct {
	epoch   string
	base    string // the epoch before; "" if there is none that is known
	by      string // who leads, from Lead to Yield
	term    coherence.LSN
	edition uint64
	known   coherence.LSN
	cursor  string // an entry of the log that comes before all that the checkpoint lacks
}

const version = "walcache1"

// maxHead bounds the line, in bytes.
const maxHead = 256

// fields of the line, as the script takes and finds them.
func (h head) fields() []string {
	base := h.base
	if base == "" {
		base = "-"
	}
	sixteen := func(n uint64) string { return fmt.Sprintf("%016X", n) }
	return []string{version, h.epoch, base, h.by, sixteen(uint64(h.term)), sixteen(h.edition), sixteen(uint64(h.known)), h.cursor}
}

// line is how the value begins.
func (h head) line() string { return strings.Join(h.fields(), " ") + "\n" }

// lineOf is the first line of a value, or "" if it is not ours.
func lineOf(value string) string {
	line, _, ended := strings.Cut(value[:min(len(value), maxHead)], "\n")
	if !ended || !strings.HasPrefix(line, version+" ") {
		return ""
	}
	return line + "\n"
}

// parseHead reads a line. Of one that is damaged, or none, it returns the zero
// head.
func parseHead(line string) (h head) {
	fields := strings.Split(strings.TrimSuffix(line, "\n"), " ")
	if len(fields) != 8 {
		return h
	}
	read := head{epoch: fields[1], base: fields[2], by: fields[3], cursor: fields[7]}
	if read.base == "-" {
		read.base = ""
	}
	_, err := fmt.Sscanf(strings.Join(fields[4:7], " "), "%X %X %X", &read.term, &read.edition, &read.known)
	if err != nil || read.line() != line {
		return h
	}
	return read
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func encodeCheckpoint(h head, n news, c coherence.Checkpoint) []byte {
	b := n.append([]byte(h.line()))
	b = binary.AppendUvarint(b, uint64(c.Visible))
	b = binary.AppendUvarint(b, uint64(c.Slots))
	next := coherence.Hash(0)
	for change := range c.Changes {
		b = binary.AppendUvarint(b, uint64(change.Hash-next))
		b = binary.AppendVarint(b, int64(h.known-change.At))
		next = change.Hash + 1
	}
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// decodeCheckpoint takes nothing that is not whole: a value that something else
// left there is as good as none.
func decodeCheckpoint(value []byte) (c checkpoint, err error) {
	line := lineOf(string(value[:min(len(value), maxHead)]))
	c.head = parseHead(line)
	begin, end := len(line), len(value)-4
	if c.head == (head{}) || end < begin {
		return c, errForeign
	}
	if crc32.Checksum(value[:end], castagnoli) != binary.LittleEndian.Uint32(value[end:]) {
		return c, errForeign
	}
	d := decoder{rest: value[begin:end]}
	c.news = *d.news()
	c.visible = d.lsn()
	slots := d.uvarint()
	if slots == 0 || slots > 1<<32 || slots&(slots-1) != 0 {
		d.fail()
	}
	c.slots, c.changes = int(slots), d.rest
	return c, d.err
}

// facts is the checkpoint for a tracker.
func (c *checkpoint) facts() coherence.Checkpoint {
	return coherence.Checkpoint{
		Epoch: c.epoch, Known: c.known, Visible: c.visible, Slots: c.slots,
		Changes: func(yield func(coherence.Change) bool) {
			d, next := decoder{rest: c.changes}, coherence.Hash(0)
			for len(d.rest) > 0 {
				slot := next + coherence.Hash(d.uvarint())
				at := c.known - coherence.LSN(d.varint())
				if d.err != nil || !yield(coherence.Change{Hash: slot, At: at}) {
					return
				}
				next = slot + 1
			}
		},
	}
}
