//go:build !linux

package replication

import "syscall"

// endUnacknowledged does nothing where there is no such option: a connection
// that was cut off ends when the server has been silent for too long.
func endUnacknowledged(string, string, syscall.RawConn) error { return nil }
