//go:build unix && !linux

package faults

import "syscall"

// diesWithUs does nothing: only Linux has such a signal.
func diesWithUs(*syscall.SysProcAttr) {}
