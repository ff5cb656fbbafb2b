package wire

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// One that reads slowly gets all of it: the limit is for progress, not for the
// whole.
func TestPaced_AClientThatReadsSlowlyGetsAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		below, client := net.Pipe()
		count := &Counters{}
		c := &paced{Conn: below, limit: time.Minute, count: count}
		sent := bytes.Repeat([]byte("0123456789"), 10)
		written := make(chan error, 1)
		go func() {
			_, err := c.Write(sent)
			written <- errors.Join(err, c.Close())
		}()
		var got []byte
		began := time.Now()
		for p := make([]byte, 10); ; {
			time.Sleep(50 * time.Second)
			n, err := client.Read(p)
			if got = append(got, p[:n]...); err != nil {
				break
			}
		}
		if err := <-written; err != nil || !bytes.Equal(got, sent) || time.Since(began) < 8*time.Minute {
			t.Errorf("%q in %s, %v", got, time.Since(began), err)
		}
		if n := len(count.Refused()); n > 0 {
			t.Errorf("counted %v", count.Refused())
		}
	})
}

func TestPaced_AClientThatStopsReadingIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		below, client := net.Pipe()
		count := &Counters{}
		c := &paced{Conn: below, limit: time.Minute, count: count}
		go func() { _, _ = io.CopyN(io.Discard, client, 5) }()
		began := time.Now()
		n, err := c.Write([]byte("0123456789"))
		if took := time.Since(began); n != 5 || !errors.Is(err, os.ErrDeadlineExceeded) || took < time.Minute || took > 2*time.Minute {
			t.Errorf("%d bytes in %s, %v", n, took, err)
		}
		if got := count.Refused(); got["slow-reader"] != 1 {
			t.Errorf("counted %v", got)
		}
	})
}

// A pause between two writes is the server's own.
func TestPaced_SilenceIsNoPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		below, client := net.Pipe()
		c := &paced{Conn: below, limit: time.Minute, count: &Counters{}}
		go func() { _, _ = io.Copy(io.Discard, client) }()
		for range 3 {
			if _, err := c.Write([]byte("event")); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Hour)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}

// Who sets a deadline of its own gets it, if it is the earlier one.
func TestPaced_AnotherDeadlineHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		below, _ := net.Pipe()
		count := &Counters{}
		c := &paced{Conn: below, limit: time.Minute, count: count}
		must(t, c.SetWriteDeadline(time.Now().Add(time.Second)))
		began := time.Now()
		if _, err := c.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
		if len(count.Refused()) > 0 {
			t.Error("it was counted")
		}
	})
}
