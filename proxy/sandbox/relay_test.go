package sandbox_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"walcache/proxy/sandbox"
	"walcache/proxy/sandbox/sandboxtest"
)

// echo answers each line with its name and the line, and counts the lines.
type echo struct {
	addr  string
	lines atomic.Int64
	ended atomic.Int64 // connections whose client has ended them
}

func startEcho(t *testing.T, name string) *echo {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	e := &echo{addr: listener.Addr().String()}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go e.serve(conn, name)
		}
	}()
	return e
}

func (e *echo) serve(conn net.Conn, name string) {
	defer conn.Close()
	defer e.ended.Add(1)
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		e.lines.Add(1)
		if _, err := fmt.Fprintf(conn, "%s %s\n", name, lines.Text()); err != nil {
			return
		}
	}
}

func startRelay(t *testing.T, target string) *sandbox.Relay {
	t.Helper()
	r, err := sandbox.StartRelay(target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// caller is one side of a connection through a relay.
type caller struct {
	t *testing.T
	net.Conn
	lines *bufio.Reader
}

func call(t *testing.T, r *sandbox.Relay) caller {
	t.Helper()
	conn, err := net.Dial("tcp", r.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return caller{t, conn, bufio.NewReader(conn)}
}

func (c caller) says(line string) {
	c.t.Helper()
	if _, err := fmt.Fprintln(c, line); err != nil {
		c.t.Fatal(err)
	}
}

func (c caller) hears(want string) {
	c.t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		c.t.Fatal(err)
	}
	if line, err := c.lines.ReadString('\n'); err != nil || line != want+"\n" {
		c.t.Fatalf("heard %q, %v; want %q", line, err, want)
	}
}

// hearsNothing is about what can only be waited for: a wrong relay passes it now
// and then, and a right one always.
func (c caller) hearsNothing() {
	c.t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		c.t.Fatal(err)
	}
	if line, err := c.lines.ReadString('\n'); !errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Fatalf("heard %q, %v", line, err)
	}
}

func TestRelay_CutLosesNothingOnceHealed(t *testing.T) {
	server := startEcho(t, "a")
	r := startRelay(t, server.addr)
	c := call(t, r)
	c.says("1")
	c.hears("a 1")
	r.Cut()
	c.says("2")
	c.hearsNothing()
	if n := server.lines.Load(); n != 1 {
		t.Errorf("the server has heard %d lines", n)
	}
	late := call(t, r)
	late.says("3")
	late.hearsNothing()
	if err := r.Heal(); err != nil {
		t.Fatal(err)
	}
	c.hears("a 2")
	late.hears("a 3")
}

func TestRelay_CutCarriesNoEndEither(t *testing.T) {
	server := startEcho(t, "a")
	r := startRelay(t, server.addr)
	c := call(t, r)
	c.says("1")
	c.hears("a 1")
	r.Cut()
	c.Close()
	call(t, r).hearsNothing()
	if n := server.ended.Load(); n != 0 {
		t.Errorf("the server has seen %d ends", n)
	}
	if err := r.Heal(); err != nil {
		t.Fatal(err)
	}
	sandboxtest.Eventually(t, 10*time.Second, func() error {
		if n := server.ended.Load(); n != 1 {
			return fmt.Errorf("the server has seen %d ends", n)
		}
		return nil
	})
}

func TestRelay_CutAnswersAreLostAndRequestsAreNot(t *testing.T) {
	server := startEcho(t, "a")
	r := startRelay(t, server.addr)
	c := call(t, r)
	r.CutAnswers()
	c.says("1")
	sandboxtest.Eventually(t, 10*time.Second, func() error {
		if n := server.lines.Load(); n != 1 {
			return fmt.Errorf("the server has heard %d lines", n)
		}
		return nil
	})
	c.hearsNothing()
	if err := r.Heal(); err != nil {
		t.Fatal(err)
	}
	c.hears("a 1")
}

func TestRelay_SeveredResetsAndRefusesAndHealsOnItsPort(t *testing.T) {
	r := startRelay(t, startEcho(t, "a").addr)
	addr, c := r.Addr(), call(t, r)
	c.says("1")
	c.hears("a 1")
	if err := r.Sever(); err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if line, err := c.lines.ReadString('\n'); err == nil || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, io.EOF) {
		t.Errorf("heard %q, %v; want a reset", line, err)
	}
	if conn, err := net.Dial("tcp", addr); err == nil {
		conn.Close()
		t.Error("a severed relay takes connections")
	}
	if err := r.Heal(); err != nil || r.Addr() != addr {
		t.Fatalf("%s after %s, %v", r.Addr(), addr, err)
	}
	again := call(t, r)
	again.says("2")
	again.hears("a 2")
}

func TestRelay_RetargetedSendsNewConnectionsElsewhere(t *testing.T) {
	r := startRelay(t, startEcho(t, "a").addr)
	before := call(t, r)
	before.says("1")
	before.hears("a 1")
	r.Retarget(startEcho(t, "b").addr)
	after := call(t, r)
	after.says("2")
	after.hears("b 2")
	before.says("3")
	before.hears("a 3")
}

func TestRelay_KnowsUnderWhichPortTheServerSeesIt(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	r, other := startRelay(t, listener.Addr().String()), startRelay(t, listener.Addr().String())
	c := call(t, r)
	server, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if _, err := fmt.Fprintln(server, "hello"); err != nil {
		t.Fatal(err)
	}
	c.hears("hello")
	port := server.RemoteAddr().(*net.TCPAddr).Port
	if !r.Carries(port) || other.Carries(port) {
		t.Errorf("port %d: %t, and the other relay %t", port, r.Carries(port), other.Carries(port))
	}
	c.Close()
	server.Close()
	sandboxtest.Eventually(t, 10*time.Second, func() error {
		if r.Carries(port) {
			return errors.New("a connection that has ended is still carried")
		}
		return nil
	})
}

func TestRelay_EndsTheConnectionWhenTheServerIsAway(t *testing.T) {
	port, err := sandbox.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	c := call(t, startRelay(t, fmt.Sprintf("127.0.0.1:%d", port)))
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if line, err := c.lines.ReadString('\n'); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("heard %q, %v", line, err)
	}
}
