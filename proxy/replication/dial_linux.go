package replication

import (
	"strings"
	"syscall"
)

// tcpUserTimeout is TCP_USER_TIMEOUT (tcp(7)), in milliseconds.
const tcpUserTimeout = 18

// endUnacknowledged lets the kernel end a connection on which what was sent has
// not been acknowledged for as long as unreachable says.
func endUnacknowledged(network, _ string, c syscall.RawConn) (err error) {
	if !strings.HasPrefix(network, "tcp") {
		return nil
	}
	failed := c.Control(func(fd uintptr) {
		err = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(unreachable.Milliseconds()))
	})
	if failed != nil {
		return failed
	}
	return err
}
