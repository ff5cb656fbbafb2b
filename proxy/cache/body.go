package cache

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"time"
)

// copiedBody is an upstream's body on its way to a client, of which a copy is
// kept. A goroutine copies at the upstream's pace, and the client reads behind
// it at its own: so neither a slow client nor one that leaves holds up or fails
// those who wait for the copy.
//
// copying ──► complete | broken      the client reads the rest from the copy
// copying ──► tooLong                the copy is given up, and the client reads
// on from the upstream, at its own pace.
type copiedBody struct {
	upstream io.ReadCloser
	length   int64 // -1 if unknown
	limit    int64
	cancel   context.CancelFunc // gives up the fetch
	// ended is called once, when the copy has been made or given up, before the
	// client is given the last of it.
	ended func(copied []byte, err error)

	start sync.Once

	mu     sync.Mutex // guards the following
	grew   sync.Cond  // on mu: data or err changed
	data   []byte     // what the client may have
	err    error      // io.EOF once complete; nil while copying
	read   int        // how much of data the client has
	closed bool       // the client reads no more
	orphan *time.Timer
}

var errTooLong = errors.New("the body is longer than what is stored")

// orphanTime is how long a copy may go on once its client has left.
const orphanTime = 30 * time.Second

func newCopiedBody(upstream io.ReadCloser, length, limit int64, cancel context.CancelFunc, ended func([]byte, error)) *copiedBody {
	b := &copiedBody{upstream: upstream, length: length, limit: limit, cancel: cancel, ended: ended}
	b.grew.L = &b.mu
	return b
}

// Read gives the client what has been copied, waiting for more if need be.
//
// The first Read starts the copying, and not the response's arrival: reading
// the end of a body sets the response's Trailer, which httputil.ReverseProxy
// looks at before it reads.
func (b *copiedBody) Read(p []byte) (int, error) {
	b.begin()
	b.mu.Lock()
	for b.read == len(b.data) && b.err == nil {
		b.grew.Wait()
	}
	if b.read < len(b.data) {
		n := copy(p, b.data[b.read:])
		b.read += n
		b.mu.Unlock()
		return n, nil
	}
	err := b.err
	if err == errTooLong {
		b.data, b.read = nil, 0
	}
	b.mu.Unlock()
	if err == errTooLong {
		return b.upstream.Read(p)
	}
	return 0, err
}

// Close says that the client reads no more.
func (b *copiedBody) Close() error {
	b.begin()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	if b.err == errTooLong {
		b.cancel()
		return b.upstream.Close()
	}
	return nil
}

// abandon says that the client has left. The copy is given a while to end.
func (b *copiedBody) abandon() {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.err == errTooLong:
		b.cancel()
	case b.err == nil && b.orphan == nil:
		b.orphan = time.AfterFunc(orphanTime, b.cancel)
	}
}

func (b *copiedBody) begin() { b.start.Do(func() { go b.copy() }) }

// copy reads the body until its end or the limit.
func (b *copiedBody) copy() {
	buf := make([]byte, 0, max(b.length, 512))
	for {
		n, err := b.upstream.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if int64(len(buf)) > b.limit {
			err = errTooLong
		}
		if err != nil {
			b.finish(buf, err)
			return
		}
		// The last byte of a body whose length is known waits for its end, so that
		// the copy is stored before the client can ask again.
		if int64(len(buf)) != b.length {
			b.publish(buf, nil)
		}
		if len(buf) == cap(buf) {
			buf = append(make([]byte, 0, 2*cap(buf)), buf...)
		}
	}
}

func (b *copiedBody) publish(data []byte, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.data, b.err = data, err
	b.grew.Broadcast()
}

// finish ends the copying, for whoever waits for the copy and then for the
// client.
func (b *copiedBody) finish(data []byte, err error) {
	if err == io.EOF {
		b.ended(fitted(data), nil)
	} else {
		b.ended(nil, err)
	}
	b.publish(data, err)
	b.mu.Lock()
	defer b.mu.Unlock()
	abandoned := b.orphan != nil
	if abandoned {
		b.orphan.Stop()
	}
	if err == errTooLong && !b.closed && !abandoned {
		return // the client reads on
	}
	// The body is at its end, or nobody wants the rest: closing can say nothing
	// new.
	_ = b.upstream.Close()
	b.cancel()
}

// fitted is data without much room to spare.
func fitted(data []byte) []byte {
	if cap(data)-len(data) > len(data)/8 {
		return bytes.Clone(data)
	}
	return data
}
