package sandbox

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
)

// Relay carries TCP connections from a port of its own on 127.0.0.1 to a
// server, until somebody breaks it. Its methods may be called from several
// goroutines.
//
// Each side has a connection with the relay and not with the other, so a cut is
// seen by nothing below the programs themselves: keepalives of the kernel go on
// being answered, and connecting succeeds.
type Relay struct {
	port     int
	requests gate // what clients send passes while it is open
	answers  gate // and what the server sends, this one
	running  sync.WaitGroup

	mu       sync.Mutex // guards the following
	target   string
	listener net.Listener // nil while severed
	links    map[*link]struct{}
}

// StartRelay carries connections to target, HOST:PORT, which may be away: a
// client that then connects sees its connection end at once.
func StartRelay(target string) (*Relay, error) {
	r := &Relay{target: target, links: map[*link]struct{}{}}
	r.requests.open()
	r.answers.open()
	err := startOnPort(0, func(port int) error {
		r.port = port
		return r.Heal()
	})
	if err != nil {
		return nil, fmt.Errorf("start relay to %s: %w", target, err)
	}
	return r, nil
}

// FreePort finds a port on 127.0.0.1 for a program that is no server of this
// package, and that is to keep it while it is down for a moment.
func FreePort() (int, error) { return freePort() }

// Port is where the relay listens; it stays the same when severed and healed.
func (r *Relay) Port() int { return r.port }

// Addr is HOST:PORT of where it listens.
func (r *Relay) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(r.port)) }

// Cut drops what either side sends from now on, as a network that loses every
// packet: connections stay open, and no end of one is heard of. As TCP would
// send it again, all of it arrives once the relay is healed.
func (r *Relay) Cut() {
	r.requests.shut()
	r.answers.shut()
}

// CutAnswers drops what the server sends and carries what clients send: they
// are obeyed, and never hear of it.
func (r *Relay) CutAnswers() { r.answers.shut() }

// Sever resets every connection, and refuses new ones.
func (r *Relay) Sever() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var err error
	if r.listener != nil {
		err = r.listener.Close()
		r.listener = nil
	}
	for l := range r.links {
		l.reset()
	}
	return err
}

// Heal undoes Cut, CutAnswers and Sever. It fails if another program has taken
// the port meanwhile.
func (r *Relay) Heal() error {
	r.requests.open()
	r.answers.open()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.listener != nil {
		return nil
	}
	listener, err := net.Listen("tcp", r.Addr())
	if err != nil {
		return fmt.Errorf("%w: %w", errPortTaken, err)
	}
	r.listener = listener
	r.running.Go(func() { r.accept(listener) })
	return nil
}

// Retarget sends connections made from now on to another server; open ones stay
// where they are.
func (r *Relay) Retarget(target string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.target = target
}

// Carries reports whether the server sees one of the relay's connections under
// this port as the client's.
func (r *Relay) Carries(port int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for l := range r.links {
		if l.server != nil && l.server.LocalAddr().(*net.TCPAddr).Port == port {
			return true
		}
	}
	return false
}

// Close ends every connection, and waits for what the relay runs.
func (r *Relay) Close() error {
	err := r.Sever()
	r.running.Wait()
	return err
}

func (r *Relay) accept(listener net.Listener) {
	for {
		client, err := listener.Accept()
		if err != nil {
			return // severed
		}
		l := &link{client: client.(*net.TCPConn), ended: make(chan struct{})}
		if r.add(l, listener) {
			r.running.Go(func() { r.carry(l) })
		}
	}
}

// add notes a link, unless the relay was severed as it was accepted.
func (r *Relay) add(l *link, from net.Listener) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.listener != from {
		l.reset()
		return false
	}
	r.links[l] = struct{}{}
	return true
}

// carry connects a link and passes bytes until both sides have ended it.
func (r *Relay) carry(l *link) {
	defer r.remove(l)
	if !r.requests.pass(l.ended) { // nor does a cut network carry the wish to connect
		return
	}
	if err := r.connect(l); err != nil {
		return
	}
	var back sync.WaitGroup
	back.Go(func() { l.pass(l.client, l.server, &r.answers) })
	l.pass(l.server, l.client, &r.requests)
	back.Wait()
}

func (r *Relay) connect(l *link) error {
	r.mu.Lock()
	target := r.target
	r.mu.Unlock()
	server, err := net.Dial("tcp", target)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	l.server = server.(*net.TCPConn)
	if l.over() {
		l.reset()
		return errors.New("severed")
	}
	return nil
}

func (r *Relay) remove(l *link) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l.close()
	delete(r.links, l)
}

// link is one connection with a client, and one with the server. The relay's mu
// is held to close it, and to set server.
type link struct {
	client, server *net.TCPConn  // server is nil until connected
	ended          chan struct{} // closed when the link is
}

func (l *link) over() bool {
	select {
	case <-l.ended:
		return true
	default:
		return false
	}
}

// reset ends both connections by an RST, and what is still on its way is lost.
func (l *link) reset() {
	for _, conn := range l.conns() {
		_ = conn.SetLinger(0) // fails on one that has ended
	}
	l.close()
}

// close ends both connections; one that has ended already is no error.
func (l *link) close() {
	if !l.over() {
		close(l.ended)
	}
	for _, conn := range l.conns() {
		_ = conn.Close()
	}
}

func (l *link) conns() []*net.TCPConn {
	if l.server == nil {
		return []*net.TCPConn{l.client}
	}
	return []*net.TCPConn{l.client, l.server}
}

// pass copies from one side to the other while the gate is open. What was read,
// an end included, waits at the gate.
func (l *link) pass(to, from *net.TCPConn, g *gate) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if !g.pass(l.ended) {
			return
		}
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if errors.Is(err, io.EOF) {
			_ = to.CloseWrite()
			return
		}
		if err != nil {
			_ = to.Close() // wakes the other direction, which ends the link
			return
		}
	}
}

// gate holds up who wants to pass while it is shut. The zero gate is shut.
type gate struct {
	mu   sync.Mutex    // guards the following
	wide chan struct{} // closed while the gate is open; nil is shut and nobody waits
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.wide == nil {
		g.wide = make(chan struct{})
	}
	select {
	case <-g.wide:
	default:
		close(g.wide)
	}
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.wide:
		g.wide = make(chan struct{})
	default:
	}
}

// pass returns once the gate is open, or false once ended is closed.
func (g *gate) pass(ended <-chan struct{}) bool {
	g.mu.Lock()
	wide := g.wide
	g.mu.Unlock()
	select {
	case <-wide:
		return true
	case <-ended:
		return false
	}
}
