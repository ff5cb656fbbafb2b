package doctor

import (
	"encoding/binary"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// relay stands between a client and servers.
type relay struct {
	dsn     string
	servers []string                        // each connection goes to the next of them
	change  func(sent []byte) []byte        // of what the client sends; nil ends the connection
	answer  func(server net.Conn) io.Reader // reads what the server sends
	count   atomic.Int64
}

// newRelay relays to the servers of URLs; adjust, if not nil, has it change what
// is said. Its own URL is the first one's but for
// the port.
func newRelay(t *testing.T, adjust func(*relay), dsns ...string) *relay {
	t.Helper()
	at, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{dsn: withHost(t, dsns[0], at.Addr().String())}
	for _, dsn := range dsns {
		r.servers = append(r.servers, parsed(t, dsn).Host)
	}
	r.change = func(b []byte) []byte { return b }
	r.answer = func(server net.Conn) io.Reader { return server }
	if adjust != nil {
		adjust(r)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			client, err := at.Accept()
			if err != nil {
				return
			}
			all.Go(func() { r.serve(t, client) })
		}
	})
	t.Cleanup(func() {
		_ = at.Close()
		all.Wait() // clients have closed theirs
	})
	return r
}

func (r *relay) serve(t *testing.T, client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", r.servers[int(r.count.Add(1)-1)%len(r.servers)])
	if err != nil {
		t.Error(err)
		return
	}
	defer server.Close()
	var both sync.WaitGroup
	both.Go(func() {
		_, _ = io.Copy(client, r.answer(server))
		_ = client.Close()
	})
	buffer := make([]byte, 64<<10)
	for {
		n, err := client.Read(buffer)
		if err != nil {
			break
		}
		changed := r.change(buffer[:n])
		if _, err := server.Write(changed); err != nil || changed == nil {
			break
		}
	}
	_ = server.Close()
	both.Wait()
}

// anotherKey reads a server's messages, and puts a pid of its own into the
// cancel key, as poolers do.
type anotherKey struct {
	server io.Reader
	rest   []byte
}

func (k *anotherKey) Read(b []byte) (int, error) {
	for len(k.rest) == 0 {
		head := make([]byte, 5)
		if _, err := io.ReadFull(k.server, head); err != nil {
			return 0, err
		}
		message := make([]byte, 1+binary.BigEndian.Uint32(head[1:]))
		copy(message, head)
		if _, err := io.ReadFull(k.server, message[5:]); err != nil {
			return 0, err
		}
		if head[0] == 'K' {
			binary.BigEndian.PutUint32(message[5:], 4711)
		}
		k.rest = message
	}
	n := copy(b, k.rest)
	k.rest = k.rest[n:]
	return n, nil
}
