package wire

import (
	"cmp"
	"time"
)

// Limits bound what one connection can cost. Zero is the default.
type Limits struct {
	Line   int // bytes of the request line, 8 KiB; past it 414
	Field  int // bytes of one header line, 16 KiB; past it 431
	Head   int // bytes of a head in all, 64 KiB; past it 431
	Fields int // header fields, 100; past it 431

	HeadTime time.Duration // from the first byte of a head to its last, and for a TLS handshake, 10 s; past it 408
	Pause    time.Duration // the longest rest of a body, or of a client that is to read, 60 s; past it the connection ends
}

// maxTrailer bounds what may follow a chunked body, in bytes: net/http reads no
// more.
const maxTrailer = 4 << 10

func (l Limits) orDefaults() Limits {
	return Limits{
		Line: cmp.Or(l.Line, 8<<10), Field: cmp.Or(l.Field, 16<<10), Head: cmp.Or(l.Head, 64<<10), Fields: cmp.Or(l.Fields, 100),
		HeadTime: cmp.Or(l.HeadTime, 10*time.Second), Pause: cmp.Or(l.Pause, time.Minute),
	}
}
