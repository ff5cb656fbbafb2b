package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// source is a body that a test writes.
type source struct {
	*io.PipeReader
	in     *io.PipeWriter
	stream *stream
	copied chan []byte // what is kept; nil if there is no copy
	ctx    context.Context
	cut    atomic.Int64
}

func newSource(length, limit int64) *source {
	out, in := io.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	s := &source{PipeReader: out, in: in, copied: make(chan []byte, 1), ctx: ctx}
	context.AfterFunc(ctx, func() { _ = out.CloseWithError(context.Canceled) })
	s.stream = newStream(s, length, limit, cancel, func(body []byte, err error) { s.copied <- body })
	s.stream.cut = func() { s.cut.Add(1) }
	return s
}

func (s *source) Close() error { return nil }

// seat is one more reader, whose client stays until ctx ends.
func (s *source) seat(t *testing.T, ctx context.Context) *seat {
	t.Helper()
	r := newSeat(ctx, nil)
	if !s.stream.join(r) {
		t.Fatal("the beginning is gone")
	}
	return r
}

// numbered is a part of a body that tells by its bytes where it belongs.
func numbered(from, n int) []byte {
	data := make([]byte, n)
	for i := range data {
		data[i] = byte((from + i) % 251)
	}
	return data
}

// held is what the stream keeps in memory: the chunks that can be reached.
func (s *stream) held() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := map[*chunk]bool{}
	follow := func(c *chunk) {
		for ; c != nil && !seen[c]; c = c.next {
			seen[c] = true
			n += cap(c.data)
		}
	}
	follow(s.first)
	follow(s.oldest)
	for _, r := range s.readers {
		follow(r.at)
	}
	return n
}

// Readers at any pace, in pieces of any size, get the same bytes, as does the
// copy.
func TestStream_AllGetTheSame(t *testing.T) {
	for _, length := range []int{0, 1, 100, firstChunk, 100_000, 1_000_000} {
		for _, known := range []int64{-1, int64(length)} {
			for _, limit := range []int64{1_000_000, 50_000, 0} {
				t.Run(fmt.Sprint(length, known, limit), func(t *testing.T) {
					s := newSource(known, limit)
					want := numbered(0, length)
					var wg sync.WaitGroup
					for range 4 {
						r := s.seat(t, t.Context())
						wg.Go(func() {
							got, err := io.ReadAll(r)
							if err != nil || !bytes.Equal(got, want) {
								t.Errorf("got %d bytes, %v", len(got), err)
							}
							_ = r.Close()
						})
					}
					for rest := want; len(rest) > 0; {
						n := min(len(rest), 1+rand.IntN(200_000))
						if _, err := s.in.Write(rest[:n]); err != nil {
							t.Fatal(err)
						}
						rest = rest[n:]
					}
					_ = s.in.Close()
					wg.Wait()
					if copied := <-s.copied; int64(length) <= limit && !bytes.Equal(copied, want) || int64(length) > limit && copied != nil {
						t.Errorf("the copy has %d bytes", len(copied))
					}
					<-s.ctx.Done()
				})
			}
		}
	}
}

// As long as the body is kept, nobody waits for a reader, and if all have left
// it is kept all the same.
func TestStream_WhatIsKeptWaitsForNobody(t *testing.T) {
	const limit = 1 << 20
	s := newSource(-1, limit)
	slow := s.seat(t, t.Context())
	fast := s.seat(t, t.Context())
	for sent := 0; sent < limit; sent += 1 << 16 {
		go func() { _, _ = s.in.Write(numbered(sent, 1<<16)) }()
		if _, err := io.ReadFull(fast, make([]byte, 1<<16)); err != nil {
			t.Fatal(err)
		}
	}
	_ = fast.Close()
	_ = s.in.Close()
	if copied := <-s.copied; !bytes.Equal(copied, numbered(0, limit)) {
		t.Errorf("the copy has %d bytes", len(copied))
	}
	<-s.ctx.Done()
	// The slow one costs no more than the copy does.
	if held := s.stream.held(); held > limit+limit/8 {
		t.Errorf("%d bytes are held", held)
	}
	if got, err := io.ReadAll(slow); err != nil || len(got) != limit {
		t.Errorf("the slow one got %d bytes, %v", len(got), err)
	}
}

// However long the body, what is in memory is a window, whoever reads: readers
// that are apart, one that is left alone, and one that stands still.
func TestStream_ALongBodyTakesNoMoreThanAWindow(t *testing.T) {
	const limit, length = 1 << 20, 16 << 20
	synctest.Test(t, func(t *testing.T) {
		for _, known := range []int64{-1, length} {
			s := newSource(known, limit)
			go func() {
				_, _ = s.in.Write(numbered(0, length))
				_ = s.in.Close()
			}()
			var readers []*seat
			for range 3 {
				readers = append(readers, s.seat(t, t.Context()))
			}
			most, got := 0, make([]int, len(readers))
			read := func(i, n int) {
				data := make([]byte, n)
				n, err := io.ReadFull(readers[i], data)
				if !bytes.Equal(data[:n], numbered(got[i], n)) {
					t.Fatalf("%d has the wrong bytes after %d: %v", i, got[i], err)
				}
				got[i] += n
				synctest.Wait()
				most = max(most, s.stream.held())
			}
			for got[0] < length/2 {
				read(0, limit/2)
				read(1, limit/4)
				read(1, limit/4)
				read(2, limit/2)
			}
			waits := make(chan int)
			go func() { // for two that stand still
				n, _ := io.ReadFull(readers[0], make([]byte, 2*limit))
				waits <- n
			}()
			synctest.Wait()
			if behind := s.stream.got - readers[2].taken; behind < limit || behind > limit+maxChunk {
				t.Errorf("%d bytes were read for one that stands still", behind)
			}
			readers[1].leave()
			readers[2].leave()
			got[0] += <-waits
			for got[0] < length {
				read(0, limit/2)
				if held := s.stream.held(); held > 3*maxChunk {
					t.Fatalf("%d bytes are held for one that is alone", held)
				}
			}
			if most > limit+3*maxChunk {
				t.Errorf("%d bytes were held, the window has %d", most, limit)
			}
			if _, err := readers[0].Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("at the end: %v", err)
			}
			late := newSeat(t.Context(), nil)
			if s.stream.join(late) {
				t.Error("one joined when the beginning was gone")
			}
			readers[0].leave()
			synctest.Wait()
		}
	})
}

// A reader that stands still for too long while others wait is cut off, and they
// go on. One on whom nobody waits may take its time, and so may one that takes a
// little now and then.
func TestStream_WhoHoldsUpOthersIsCutOff(t *testing.T) {
	const limit = 1 << 20
	synctest.Test(t, func(t *testing.T) {
		s := newSource(-1, limit)
		go func() { // without an end
			for n, err := 0, error(nil); err == nil; n++ {
				_, err = s.in.Write(numbered(0, 1<<16))
			}
		}()
		var aborted atomic.Bool
		still := newSeat(t.Context(), func() { aborted.Store(true) })
		s.stream.join(still)
		slow, fast := s.seat(t, t.Context()), s.seat(t, t.Context())
		take := func(r *seat, n int) {
			if _, err := io.CopyN(io.Discard, r, int64(n)); err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
		take(slow, limit)
		take(fast, limit)
		time.Sleep(time.Hour) // nobody waits for more than there is
		if synctest.Wait(); aborted.Load() {
			t.Fatal("one was cut off on whom nobody waited")
		}
		waits := make(chan struct{})
		go func() { take(fast, 8*limit); close(waits) }()
		time.Sleep(stallTime - time.Second)
		take(still, 1000)
		time.Sleep(stallTime - time.Second)
		if synctest.Wait(); aborted.Load() {
			t.Fatal("one was cut off that took something")
		}
		for range 5 {
			time.Sleep(stallTime / 5)
			take(slow, limit/4)
		}
		if synctest.Wait(); !aborted.Load() || s.cut.Load() != 1 {
			t.Fatalf("one stood still; aborted: %v, %d cut off", aborted.Load(), s.cut.Load())
		}
		if _, err := still.Read(make([]byte, 1)); err == nil {
			t.Error("one reads that was cut off")
		}
		take(slow, 4*limit)
		// Two are left, and the slow one leaves: the other is alone.
		slow.leave()
		<-waits
		time.Sleep(time.Hour)
		take(fast, 8*limit)
		if s.cut.Load() != 1 {
			t.Errorf("%d were cut off", s.cut.Load())
		}
		fast.leave()
		<-s.ctx.Done()
	})
}

// A client that leaves wakes nobody but its own reader, and one that waits for
// more at once.
func TestStream_WhoLeavesWaitsNoLonger(t *testing.T) {
	s := newSource(-1, 1000)
	ctx, leave := context.WithCancel(t.Context())
	gone, stays := s.seat(t, ctx), s.seat(t, t.Context())
	ended := make(chan error)
	go func() { _, err := gone.Read(make([]byte, 1)); ended <- err }()
	leave()
	if err := <-ended; err != context.Canceled {
		t.Errorf("who has left got %v", err)
	}
	go func() { _, _ = io.WriteString(s.in, "x"); _ = s.in.Close() }()
	if got, err := io.ReadAll(stays); string(got) != "x" || err != nil {
		t.Errorf("who stays got %q, %v", got, err)
	}
}
