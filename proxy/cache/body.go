package cache

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
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
//
// Too long is a body of too many bytes, and one that takes longer than copyTime:
// a stream that never ends must not hold a slot at the upstream for ever.
type copiedBody struct {
	upstream io.ReadCloser
	length   int64 // -1 if unknown
	limit    int64
	cancel   context.CancelFunc // gives up the fetch
	// ended is called once, when the copy has been made or given up, before the
	// client is given the last of it.
	ended func(copied []byte, err error)

	start, over sync.Once
	late        atomic.Bool // copyTime is over

	mu    sync.Mutex // guards the following
	grew  sync.Cond  // on mu: data or err changed
	data  []byte     // what the client may have
	err   error      // io.EOF once complete; nil while copying
	read  int        // how much of data the client has
	left  bool       // the client reads no more
	timer *time.Timer
}

var errTooLong = errors.New("the body is longer than what is stored")

// copyTime is how long a body may take to be copied.
const copyTime = 30 * time.Second

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

// Close says that the client reads no more. The copy goes on.
func (b *copiedBody) Close() error {
	b.begin()
	b.abandon()
	return nil
}

// abandon says that the client has left.
func (b *copiedBody) abandon() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left = true
	if b.late.Load() || b.err == errTooLong {
		b.cancel()
	}
}

func (b *copiedBody) begin() {
	b.start.Do(func() {
		b.timer = time.AfterFunc(copyTime, b.giveUp)
		go b.copy()
	})
}

// giveUp ends the copy, and the fetch too if the client has left.
func (b *copiedBody) giveUp() {
	b.end(nil, errTooLong)
	b.late.Store(true)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.left {
		b.cancel()
	}
}

func (b *copiedBody) end(copied []byte, err error) { b.over.Do(func() { b.ended(copied, err) }) }

// copy reads the body until its end or the limit.
func (b *copiedBody) copy() {
	buf := make([]byte, 0, max(b.length, 512))
	for {
		n, err := b.upstream.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if int64(len(buf)) > b.limit || err == nil && b.late.Load() {
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
	b.timer.Stop()
	if err == io.EOF {
		b.end(fitted(data), nil)
	} else {
		b.end(nil, err)
	}
	b.publish(data, err)
	b.mu.Lock()
	defer b.mu.Unlock()
	if err == errTooLong && !b.left {
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
