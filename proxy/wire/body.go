package wire

import "bytes"

// step is what comes next in the body of a request.
type step uint8

const (
	ended  step = iota // nothing: the next request begins
	sized              // the rest of a body of a known length
	size               // the line before a chunk
	data               // the rest of a chunk
	crlf               // its end
	fields             // what follows the last chunk
)

// body is where in the body of a request a connection is (RFC 9112, section 7).
type body struct {
	step    step
	left    int64 // bytes, if they are sized or data
	trailer Head
}

// begin stands at the start of a body of a length.
func (f *body) begin(length int64) {
	switch {
	case length == Chunked:
		f.step = size
	case length > 0:
		f.step, f.left = sized, length
	}
}

// streaming reports whether what comes next passes without being looked at.
func (f *body) streaming() bool { return f.step == sized || f.step == data }

// passed takes note of bytes that are sized or data.
func (f *body) passed(n int) {
	if f.left -= int64(n); f.left > 0 {
		return
	}
	if f.step == data {
		f.step = crlf
	} else {
		f.step = ended
	}
}

// take says how many of the bytes b may pass; none asks for more of them.
func (f *body) take(b []byte, l *Limits) (n int, why Reason) {
	switch f.step {
	case sized, data:
		n = int(min(int64(len(b)), f.left))
		f.passed(n)
	case crlf:
		if len(b) > 0 && b[0] != '\r' || len(b) > 1 && b[1] != '\n' {
			return 0, Chunk
		}
		if len(b) > 1 {
			f.step = size
			return 2, allowed
		}
	case size:
		return f.takeSize(b)
	case fields:
		n, why = f.trailer.read(b, l)
		switch {
		case n > maxTrailer, n == 0 && len(b) > maxTrailer:
			return 0, Trailer
		case n > 0:
			f.step = ended
		}
	}
	return n, why
}

func (f *body) takeSize(b []byte) (int, Reason) {
	end := bytes.IndexByte(b, '\n')
	if end < 0 {
		if len(b) > maxChunkDigits+maxExtension+1 {
			return 0, Chunk
		}
		return 0, allowed
	}
	n, ok := int64(0), end > 0 && b[end-1] == '\r'
	if ok {
		n, ok = chunkSize(b[:end-1])
	}
	if !ok {
		return 0, Chunk
	}
	if f.step, f.left = data, n; n == 0 {
		f.step = fields
		f.trailer.trailer = true
		f.trailer.reset()
	}
	return end + 1, allowed
}
