package replication

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// tuple is a row as a message has it, its columns in order; nil if the message
// has none.
type tuple []column

// column is a value in a tuple. Its kind is 't' for text, 'b' for binary, 'n' for
// NULL and 'u' for a TOASTed value that did not change and was not sent.
type column struct {
	kind byte
	data []byte // part of the message
}

// tuples are the rows before and after a change. Their room is used again for the
// next, because a transaction may have millions: pglogrepl's, which say the
// same, take two allocations for each column.
type tuples struct {
	before, after tuple
	room          [2]tuple
}

var errRow = errors.New("the row is cut off")

// read takes apart what follows the relation in an Insert ('I'), Update ('U') or
// Delete ('D') message.
func (t *tuples) read(kind byte, m *cursor) error {
	t.before, t.after = nil, nil
	part := m.byte()
	if (part == 'K' || part == 'O') && kind != 'I' {
		t.before = m.tuple(&t.room[0])
		if kind == 'D' {
			return m.err
		}
		part = m.byte()
	}
	if part != 'N' || kind == 'D' {
		m.fail(fmt.Errorf("%q is not what a row begins with", part))
	}
	t.after = m.tuple(&t.room[1])
	return m.err
}

// cursor reads a message from its front. After an error all that it reads is
// zero.
type cursor struct {
	rest []byte
	err  error // the first
}

func (c *cursor) fail(err error) {
	if c.err == nil {
		c.err = err
	}
	c.rest = nil
}

func (c *cursor) take(n uint32) []byte {
	if uint64(n) > uint64(len(c.rest)) {
		c.fail(errRow)
		return nil
	}
	taken := c.rest[:n]
	c.rest = c.rest[n:]
	return taken
}

func (c *cursor) byte() byte {
	if b := c.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (c *cursor) uint32() uint32 {
	if b := c.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (c *cursor) uint16() uint16 {
	if b := c.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

// tuple reads the columns of a row.
func (c *cursor) tuple(room *tuple) tuple {
	t := (*room)[:0]
	if t == nil {
		t = tuple{}
	}
	for range c.uint16() {
		column := column{kind: c.byte()}
		switch column.kind {
		case 't', 'b':
			column.data = c.take(c.uint32())
		case 'n', 'u':
		default:
			c.fail(fmt.Errorf("column of kind %q", column.kind))
		}
		if c.err != nil {
			return nil
		}
		t = append(t, column)
	}
	*room = t
	return t
}
