package store

import (
	"errors"
	"math"
	"testing"
	"time"
)

func TestRoomOf_LeavesAReserveWhereNothingIsEvicted(t *testing.T) {
	const mib = 1 << 20
	for info, want := range map[string]int64{
		"":                    math.MaxInt64,
		"used_memory:100\r\n": math.MaxInt64,
		"used_memory:100\r\nmaxmemory:0\r\nmaxmemory_policy:noeviction\r\n":             math.MaxInt64,
		"used_memory:1048576\r\nmaxmemory:8388608\r\nmaxmemory_policy:noeviction\r\n":   5 * mib,
		"used_memory:8388608\r\nmaxmemory:8388608\r\nmaxmemory_policy:noeviction\r\n":   -2 * mib,
		"used_memory:0\r\nmaxmemory:1073741824\r\nmaxmemory_policy:noeviction\r\n":      (1024 - 96) * mib,
		"used_memory:8388608\r\nmaxmemory:8388608\r\nmaxmemory_policy:volatile-lru\r\n": math.MaxInt64,
		"used_memory:8388608\r\nmaxmemory:8388608\r\nmaxmemory_policy:allkeys-lfu\r\n":  math.MaxInt64,
		"used_memory:x\r\nmaxmemory:8388608\r\nmaxmemory_policy:noeviction\r\n":         math.MaxInt64,
	} {
		if got := roomOf(info); got != want {
			t.Errorf("%q: %d, want %d", info, got, want)
		}
	}
}

// What a page is told to expire at is never later than it would be if the
// server's time were asked for at once.
func TestClock_IsNeverAhead(t *testing.T) {
	server := time.Now().Add(-time.Hour) // of another machine
	c := clock{said: server, here: time.Now()}
	for _, after := range []time.Duration{0, time.Millisecond, time.Minute} {
		if got, now := c.at(c.here.Add(after)), server.Add(after); got.After(now) {
			t.Errorf("after %v it is %v ahead", after, got.Sub(now))
		}
	}
}

func TestBreaker_OpensAfterFailuresInARow(t *testing.T) {
	b := breaker{tripped: make(chan struct{}, 1)}
	err := errors.New("no answer")
	for range breakAfter - 1 {
		b.failed("k", err)
	}
	b.succeeded()
	for range breakAfter - 1 {
		b.failed("k", err)
	}
	if b.isOpen() {
		t.Fatal("open too early")
	}
	for range 3 {
		b.failed("k", err) // those that were on their way
	}
	if !b.isOpen() || b.opened.Load() != 1 || len(b.tripped) != 1 {
		t.Fatalf("open %t, %d times", b.isOpen(), b.opened.Load())
	}
	<-b.tripped
	b.close()
	b.failed("k", err)
	if b.isOpen() {
		t.Fatal("open again after one failure")
	}
}
