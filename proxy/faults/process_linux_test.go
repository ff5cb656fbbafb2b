package faults

import "syscall"

// diesWithUs makes the kernel kill the child when the thread that forked it ends.
func diesWithUs(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }
