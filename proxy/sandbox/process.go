package sandbox

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// process is one child, with everything that it forks, in a session of its own:
// a Ctrl-C meant for us does not reach it.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when the child has ended and been waited for
	err  error         // why it ended; valid once done is closed
	last *os.File      // at its end once the last process has ended: all of them have inherited the other side of this pipe
}

// startProcess starts cmd, which gets the signal orphaned when this process
// dies, however it dies (Linux only).
func startProcess(cmd *exec.Cmd, orphaned syscall.Signal) (*process, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setsid = true
	setDeathSignal(cmd.SysProcAttr, orphaned)
	last, inherited, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.ExtraFiles = append(cmd.ExtraFiles, inherited)
	p := &process{cmd: cmd, done: make(chan struct{}), last: last}
	started := make(chan error)
	go p.run(started)
	if err := errors.Join(<-started, inherited.Close()); err != nil {
		return nil, errors.Join(err, last.Close())
	}
	return p, nil
}

func (p *process) run(started chan<- error) {
	// Linux sends the death signal when the thread that forked the child ends,
	// not the process, and the Go runtime ends threads as it likes. So this
	// goroutine keeps its thread for as long as the child lives.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := p.cmd.Start()
	started <- err
	if err == nil {
		p.err = p.cmd.Wait()
		close(p.done)
	}
}

// awaitLast waits until the child and everything that it forked have ended.
func (p *process) awaitLast(limit time.Duration) error {
	<-p.done
	err := p.last.SetReadDeadline(time.Now().Add(limit))
	if err == nil {
		_, err = io.Copy(io.Discard, p.last)
	}
	return errors.Join(err, p.last.Close())
}

// pid of the child.
func (p *process) pid() int { return p.cmd.Process.Pid }

// signal sends sig to the child; one that has ended needs none.
func (p *process) signal(sig syscall.Signal) error {
	if err := p.cmd.Process.Signal(sig); !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// ended reports whether the child is gone.
func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// runningProcess is a line of the system's process table.
type runningProcess struct {
	pid     int
	stopped bool // stands still, or will never move again
}
