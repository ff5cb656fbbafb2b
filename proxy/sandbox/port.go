package sandbox

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

var errPortTaken = errors.New("port already in use")

// portAttempts is how often a free port is looked for anew when another
// process took the one just found.
const portAttempts = 8

// freePort finds a port on 127.0.0.1 that nothing listens on. It stays below
// the ports that kernels hand out by themselves (32768 and up): out of those,
// the port of a server that is down for a moment may go to a client's
// connection, at worst to one that tries to reach that very server.
func freePort() (int, error) {
	const low, high = 15000, 32000
	for range 100 {
		port := low + rand.IntN(high-low)
		if portFree(port) == nil {
			return port, nil
		}
	}
	return 0, fmt.Errorf("no free port found between %d and %d", low, high)
}

// portFree returns an error unless a server could listen on the port.
func portFree(port int) error {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return fmt.Errorf("%w: %w", errPortTaken, err)
	}
	return l.Close()
}

// startOnPort calls start with the port wanted, or with free ones until one is
// not taken by somebody else in the meantime.
func startOnPort(wanted int, start func(port int) error) error {
	if wanted != 0 {
		return start(wanted)
	}
	var err error
	for range portAttempts {
		port, portErr := freePort()
		if portErr != nil {
			return portErr
		}
		if err = start(port); !errors.Is(err, errPortTaken) {
			return err
		}
	}
	return err
}
