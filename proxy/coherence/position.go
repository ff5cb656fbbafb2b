package coherence

import (
	"fmt"
	"strconv"
	"strings"
)

// LSN is a place in PostgreSQL's write-ahead log, in bytes since its start
// (PostgreSQL documentation, "pg_lsn Type").
type LSN uint64

// String writes an LSN as PostgreSQL does: two halves in hexadecimal.
func (l LSN) String() string { return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l)) }

// ParseLSN reads what String and PostgreSQL's pg_lsn write.
func ParseLSN(s string) (LSN, error) {
	high, low, ok := strings.Cut(s, "/")
	h, errH := strconv.ParseUint(high, 16, 32)
	l, errL := strconv.ParseUint(low, 16, 32)
	if !ok || errH != nil || errL != nil {
		return 0, fmt.Errorf("%q is not an LSN, such as 16/B374D848", s)
	}
	return LSN(h<<32 | l), nil
}

// Position says up to where data reflects the database: every commit whose
// record ends at or before LSN is in it. An LSN means something only within
// its epoch, a random name for one unbroken run of the change stream, so
// positions of two epochs are never compared.
type Position struct {
	Epoch string
	LSN   LSN
}

// String writes a position as the As-Of-LSN header carries it:
// 16/B374D848;epoch=k3f9.
func (p Position) String() string { return p.LSN.String() + ";epoch=" + p.Epoch }

// ParsePosition reads what String writes, and nothing else.
func ParsePosition(s string) (Position, error) {
	at, epoch, ok := strings.Cut(s, ";epoch=")
	lsn, err := ParseLSN(at)
	p := Position{Epoch: epoch, LSN: lsn}
	if !ok || err != nil || epoch == "" || len(epoch) > 64 || escape(epoch, "") != epoch || p.String() != s {
		return Position{}, fmt.Errorf("%q is not a position, such as 16/B374D848;epoch=k3f9", s)
	}
	return p, nil
}
