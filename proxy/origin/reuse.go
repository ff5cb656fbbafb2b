package origin

import (
	"context"
	"errors"
	"net"
	"net/http/httptrace"
	"sync"
)

// reusable is a connection to the upstream that carries one request after the
// other.
//
// Invariant: what the upstream sent before a request was written is no part of its
// answer. net/http closes a connection on which something came that nobody asked
// for, but may have handed it to the next request by then:
//
//  1. An upstream sends more than the length of its answer, such as a body with a
//  304. 2. net/http has read all of that, and puts the connection back. 3. The
//     next request takes it. 4. net/http looks for the next answer, finds what is
//     left over, and gives it to the request of 3.
//
// What is left over in 4 need not be read any more. So 3 waits until somebody reads
// or the connection is closed, and what is read then before a request has been
// written ends it. Kept by rested and Read; see
// TestAttack_WhatFollowsAnAnswerIsNotTheNextOne.
type reusable struct {
	net.Conn

	mu      sync.Mutex // guards the following
	changed sync.Cond
	asked   bool // a request has been written, or begun to be, since it was taken
	reading bool // a read waits: nothing is left of what came before
	closed  bool
}

var errUnasked = errors.New("the upstream sent something that nobody had asked for")

// reusing makes the connections that dial opens reusable.
func reusing(dial func(ctx context.Context, network, address string) (net.Conn, error)) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		nc, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		c := &reusable{Conn: nc}
		c.changed.L = &c.mu
		return c, nil
	}
}

// taking has a request wait until the connection that it gets has rested.
var taking = &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
	nc := info.Conn
	if secure, ok := nc.(interface{ NetConn() net.Conn }); ok { // TLS
		nc = secure.NetConn()
	}
	if c, ok := nc.(*reusable); ok && info.Reused {
		c.rested()
	}
}}

// rested returns when a read waits for the next answer, or will for none. That is
// soon: net/http reads on, or closes, as soon as it has put a connection back.
func (c *reusable) rested() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for !c.reading && !c.closed {
		c.changed.Wait()
	}
	c.asked = false
}

// Read implements net.Conn.
func (c *reusable) Read(p []byte) (int, error) {
	c.set(&c.reading, true)
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reading = false
	if n > 0 && !c.asked {
		return 0, errUnasked
	}
	return n, err
}

// Write implements net.Conn.
func (c *reusable) Write(p []byte) (int, error) {
	c.set(&c.asked, true)
	return c.Conn.Write(p)
}

// Close implements net.Conn.
func (c *reusable) Close() error {
	c.set(&c.closed, true)
	return c.Conn.Close()
}

func (c *reusable) set(state *bool, to bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	*state = to
	c.changed.Broadcast()
}

// CloseWrite says that nothing more will be written: what was switched to another
// protocol may end so.
func (c *reusable) CloseWrite() error {
	if below, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return below.CloseWrite()
	}
	return nil
}
