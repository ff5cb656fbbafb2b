package cache

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"time"
)

// stream is an upstream's body on its way to all who read it: the client whose
// request fetched it, and those who waited for that. One goroutine reads the
// upstream, and each reader takes from what has arrived at its own pace.
//
// keeping ──► complete | broken     nobody is held up by a slow reader, and the
// body goes on arriving if all have left: it is kept anyway.
//
// keeping ──► passing ──► over      there is no copy, and so much of the body is
// in memory as lies between the readers: the upstream is read when the slowest
// is less than a window behind. When the last reader leaves, it is given up.
//
// A body passes that is longer than what is stored, and one that takes longer
// than copyTime: what never ends must not hold a slot at the upstream for ever.
//
// Invariant: while passing, all that is in memory comes after first, or after
// the slowest reader, and is then no more than a window, but for a few chunks. So
// memory is bounded: first is nil once more than limit has arrived. Kept by
// arrived and space; see TestStream_ALongBodyTakesNoMoreThanAWindow.
type stream struct {
	upstream io.ReadCloser
	length   int64              // -1 if unknown
	limit    int64              // of what is kept, in bytes
	window   int64              // how far readers may be apart without a copy, in bytes: the limit, or a chunk
	cancel   context.CancelFunc // gives up the fetch
	// ended is called once, when the copy has been made or given up, before any
	// reader is given the last of it.
	ended func(copied []byte, err error)
	cut   func() // is called when a reader is cut off

	start sync.Once
	timer *time.Timer   // ends keeping
	room  chan struct{} // has an element when space may look again

	mu      sync.Mutex // guards the following
	keeping bool
	first   *chunk // where the body begins; nil if that is not there any more
	oldest  *chunk // that may still be read; before it is what all have read
	last    *chunk // where the upstream is read into
	got     int64  // bytes that have arrived
	size    int64  // of those, what readers may have
	err     error  // what comes after them: io.EOF if the body is whole, nil if more bytes
	readers []*seat
}

// chunk is a part of a body. What is in it does not change as long as a reader is
// there.
type chunk struct {
	data []byte
	next *chunk
	lent bool // to a reader who was cut off, and may still be sending it
}

// seat is the place of one who reads a stream.
type seat struct {
	client context.Context // ends when the client leaves
	abort  func()          // ends a write to the client that does not end; nil for none
	stream *stream         // nil until there is one to wait for
	wake   chan struct{}   // has an element when waits has become false

	// Guarded by stream.mu.
	place int    // in stream.readers
	at    *chunk // where it is
	off   int    // and how far into that
	taken int64
	moved time.Time // when it last took something while passing
	waits bool      // it has taken all there is
	err   error     // why it gets no more, whatever there is
}

var errTooLong = errors.New("the body is longer than what is stored")

const (
	// copyTime is how long a body may take to be copied.
	copyTime = 30 * time.Second

	// stallTime is how long a reader may take nothing while others wait for it.
	// For that long one client that stands still holds up those who happened to
	// ask at the same time; a lone one holds up nobody, and takes its time.
	stallTime = 10 * time.Second

	firstChunk = 4 << 10
	maxChunk   = 64 << 10
)

// newStream makes a stream that nobody reads yet. One that is known to be longer
// than the limit is not kept.
func newStream(upstream io.ReadCloser, length, limit int64, cancel context.CancelFunc, ended func([]byte, error)) *stream {
	s := &stream{upstream: upstream, length: length, limit: limit, cancel: cancel, ended: ended}
	s.window = max(limit, maxChunk)
	s.keeping = length <= limit
	s.room = make(chan struct{}, 1)
	size := int64(firstChunk)
	if 0 < length && length <= limit {
		size = length
	}
	s.first = &chunk{data: make([]byte, 0, size)}
	s.oldest, s.last = s.first, s.first
	return s
}

// newSeat makes one for a client, who reads no stream yet.
func newSeat(client context.Context, abort func()) *seat {
	return &seat{client: client, abort: abort, wake: make(chan struct{}, 1)}
}

// join has a reader read from the beginning, if that is still there.
func (s *stream) join(r *seat) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.first == nil {
		return false
	}
	r.stream, r.at, r.place = s, s.first, len(s.readers)
	s.readers = append(s.readers, r)
	return true
}

// begin starts the reading of the upstream. The first Read of the client whose
// fetch it is does that, and not the response's arrival: reading the end of a
// body sets the response's Trailer, which httputil.ReverseProxy looks at before
// it reads.
func (s *stream) begin() {
	s.start.Do(func() {
		if s.keeping {
			s.timer = time.AfterFunc(copyTime, s.giveUp)
		} else {
			s.ended(nil, errTooLong)
		}
		go s.pump()
	})
}

// giveUp ends the keeping, and the fetch too if all readers have left.
func (s *stream) giveUp() {
	s.mu.Lock()
	was := s.keeping
	if was {
		s.keeping, s.first = false, nil
	}
	if !s.keeping && len(s.readers) == 0 {
		s.cancel()
	}
	s.mu.Unlock()
	if was {
		s.ended(nil, errTooLong)
	}
}

// pump reads the upstream to the end of the body.
func (s *stream) pump() {
	for {
		n, err := s.upstream.Read(s.space())
		if err != nil {
			s.finish(n, err)
			return
		}
		s.arrived(n)
	}
}

// space waits until more may be read, and returns where to.
func (s *stream) space() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	for since := time.Now(); !s.keeping && s.full(); {
		if !s.holdsUp() {
			s.awaitRoom(nil)
			since = time.Now()
			continue
		}
		s.awaitRoom(time.After(s.cutOff(since)))
	}
	if len(s.last.data) == cap(s.last.data) {
		s.last.next = s.anotherChunk()
		s.last = s.last.next
	}
	return s.last.data[len(s.last.data):cap(s.last.data)]
}

// anotherChunk is one that all have read, or a new one. The others that all have
// read are for the next time, or for nobody if only one reader is left, which
// does not need a whole window.
func (s *stream) anotherChunk() *chunk {
	var read *chunk
	for !s.keeping && s.first == nil && s.oldest != s.last && !s.readFrom(s.oldest) {
		if !s.oldest.lent && cap(s.oldest.data) == maxChunk {
			read = s.oldest
		}
		s.oldest = s.oldest.next
		if read != nil && len(s.readers) > 1 {
			break
		}
	}
	if read != nil {
		*read = chunk{data: read.data[:0]}
		return read
	}
	return &chunk{data: make([]byte, 0, min(max(2*cap(s.last.data), firstChunk), maxChunk))}
}

// readFrom reports whether a reader is at a chunk. It stays there until it takes
// something else, so also while it sends what it has taken.
func (s *stream) readFrom(c *chunk) bool {
	return slices.ContainsFunc(s.readers, func(r *seat) bool { return r.at == c })
}

// full reports whether the slowest reader is as far behind as it may be. A lone
// one gains nothing by what lies ready for it.
func (s *stream) full() bool {
	window := s.window
	if len(s.readers) == 1 {
		window = maxChunk
	}
	return slices.ContainsFunc(s.readers, func(r *seat) bool { return s.size-r.taken >= window })
}

// awaitRoom waits until a reader has taken something, waits or has left, or it
// is over. s.mu is held, but not meanwhile.
func (s *stream) awaitRoom(over <-chan time.Time) {
	s.mu.Unlock()
	defer s.mu.Lock()
	select {
	case <-s.room:
	case <-over:
	}
}

// cutOff cuts off the readers that have held up others for too long, and returns
// in how long it is to be called again. Others have waited since then.
func (s *stream) cutOff(since time.Time) (next time.Duration) {
	next = stallTime
	now := time.Now()
	for i := len(s.readers) - 1; i >= 0; i-- {
		r := s.readers[i]
		if s.size-r.taken < s.window {
			continue
		}
		still := min(now.Sub(since), now.Sub(r.moved))
		if still < stallTime {
			next = min(next, stallTime-still)
			continue
		}
		r.at.lent = true
		s.drop(r)
		s.cut()
		if r.abort != nil {
			r.abort()
		}
	}
	return next
}

// holdsUp reports whether anybody has taken all there is.
func (s *stream) holdsUp() bool {
	return slices.ContainsFunc(s.readers, func(r *seat) bool { return r.waits })
}

// arrived gives the readers what has arrived.
func (s *stream) arrived(n int) {
	s.mu.Lock()
	s.take(n)
	tooLong := s.got > s.limit
	if tooLong {
		s.first = nil
	}
	tooLong = tooLong && s.keeping
	// The last byte of a body whose length is known waits for its end, so that
	// the copy is stored before a client can ask again.
	if !s.keeping || s.got != s.length {
		s.publish(nil)
	}
	s.mu.Unlock()
	if tooLong {
		s.giveUp()
	}
}

// take adds to what has arrived.
func (s *stream) take(n int) {
	s.last.data = s.last.data[:len(s.last.data)+n]
	s.got += int64(n)
}

// publish gives the readers all that has arrived.
func (s *stream) publish(err error) {
	s.size, s.err = s.got, err
	for _, r := range s.readers {
		r.rouse()
	}
}

// finish ends the stream: for whoever waits for the copy, and then for the
// readers.
func (s *stream) finish(n int, err error) {
	if s.timer != nil {
		s.timer.Stop()
	}
	s.mu.Lock()
	s.take(n)
	kept := s.keeping
	s.keeping = false
	s.mu.Unlock()
	switch {
	case kept && s.got > s.limit:
		s.ended(nil, errTooLong)
	case kept && err == io.EOF:
		s.ended(s.joined(), nil)
	case kept:
		s.ended(nil, err)
	}
	s.mu.Lock()
	s.publish(err)
	s.mu.Unlock()
	// The body is at its end: closing can say nothing new.
	_ = s.upstream.Close()
	s.cancel()
}

// joined makes one piece of the body, without much room to spare, and has the
// readers go on in that: a slow one then needs no more memory than the copy.
func (s *stream) joined() []byte {
	if data := s.first.data; s.first == s.last && cap(data)-len(data) <= len(data)/8 {
		return data
	}
	whole := &chunk{data: make([]byte, 0, s.got)}
	for c := s.first; c != nil; c = c.next {
		whole.data = append(whole.data, c.data...)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.first, s.oldest, s.last = whole, whole, whole
	for _, r := range s.readers {
		r.at, r.off = whole, int(r.taken)
	}
	return whole.data
}

// take returns what is there for the reader, at most so much. If it is nothing,
// and there is no error either, there will be when wait returns.
func (r *seat) take(most int) ([]byte, error) {
	s := r.stream
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.err != nil {
		return nil, r.err
	}
	if !s.keeping {
		r.moved = time.Now()
		s.makeRoom()
	}
	there := s.size - r.taken
	if there == 0 {
		r.waits = s.err == nil
		return nil, s.err
	}
	if r.off == len(r.at.data) {
		r.at, r.off = r.at.next, 0
	}
	data := r.at.data[r.off:]
	data = data[:min(int64(len(data)), there, int64(most))]
	r.off += len(data)
	r.taken += int64(len(data))
	return data, nil
}

// makeRoom has space look again.
func (s *stream) makeRoom() {
	select {
	case s.room <- struct{}{}:
	default:
	}
}

// wait waits until there is something to take, or the client has left.
func (r *seat) wait() {
	select {
	case <-r.wake:
	case <-r.client.Done():
		r.leave()
	}
}

func (r *seat) rouse() {
	if r.waits {
		r.waits = false
		r.wake <- struct{}{}
	}
}

// leave says that the reader reads no more, which others need not notice. One
// that has no stream has nothing to leave.
func (r *seat) leave() {
	s := r.stream
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(r)
	if !s.keeping && len(s.readers) == 0 {
		s.cancel()
	}
}

// drop takes a reader out of the stream. It forgets where the reader was: a
// chunk leads to all that came after it.
func (s *stream) drop(r *seat) {
	if r.err != nil {
		return
	}
	r.err, r.at = context.Canceled, nil
	r.rouse()
	last := len(s.readers) - 1
	s.readers[r.place] = s.readers[last]
	s.readers[r.place].place = r.place
	s.readers[last] = nil
	s.readers = s.readers[:last]
	s.makeRoom()
}

// Read makes the reader of a fetch's own client the body of its response.
func (r *seat) Read(p []byte) (int, error) {
	r.stream.begin()
	for {
		data, err := r.take(len(p))
		if len(data) > 0 || err != nil {
			return copy(p, data), err
		}
		r.wait()
	}
}

// Close says that this client reads no more. The stream goes on.
func (r *seat) Close() error {
	r.stream.begin()
	r.leave()
	return nil
}
