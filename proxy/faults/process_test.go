package faults

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// patience is how long something may take that has to happen in the end; far
// more than it takes, for machines under load.
const patience = time.Minute

// process is one of our programs, which can be started again and again with the
// same arguments. What it prints goes to a file.
type process struct {
	name    string
	path    string
	args    []string
	environ []string
	dir     string // its working directory

	mu     sync.Mutex // guards the following
	cmd    *exec.Cmd  // nil when it does not run
	ended  chan struct{}
	asked  bool  // it is to end
	failed error // it has ended unasked
}

func (p *process) logPath() string { return filepath.Join(p.dir, p.name+".log") }

// start runs the program, which dies with us.
func (p *process) start() error {
	log, err := os.OpenFile(p.logPath(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(p.path, p.args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = p.dir, p.environ, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	diesWithUs(cmd.SysProcAttr)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		return fmt.Errorf("%s already runs", p.name)
	}
	started := make(chan error)
	ended := make(chan struct{})
	go p.run(cmd, started, ended)
	if err := <-started; err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	p.cmd, p.ended, p.asked = cmd, ended, false
	return nil
}

func (p *process) run(cmd *exec.Cmd, started chan<- error, ended chan<- struct{}) {
	// The child dies with this thread, so the thread has to live as long.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := cmd.Start()
	started <- err
	if err != nil {
		return
	}
	err = cmd.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cmd = nil
	if !p.asked {
		p.failed = fmt.Errorf("%s ended by itself: %w", p.name, unasked(err))
	}
	close(ended)
}

// unasked makes an error of a good end too.
func unasked(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}

// kill ends it by SIGKILL, and stop by SIGTERM, in good order; both return once
// it is gone. One that has ended is left alone.
func (p *process) kill() error { return p.end(syscall.SIGKILL) }
func (p *process) stop() error { return p.end(syscall.SIGTERM) }

func (p *process) end(sig syscall.Signal) error {
	p.mu.Lock()
	p.asked = true
	cmd, ended := p.cmd, p.ended
	p.mu.Unlock()
	if cmd == nil {
		return nil
	}
	if err := p.signal(sig); err != nil {
		return err
	}
	select {
	case <-ended:
		return nil
	case <-time.After(patience):
		return errors.Join(fmt.Errorf("%s does not end", p.name), cmd.Process.Kill())
	}
}

// freeze makes it stand still, and thaw lets it go on.
func (p *process) freeze() error { return p.signal(syscall.SIGSTOP) }
func (p *process) thaw() error   { return p.signal(syscall.SIGCONT) }

func (p *process) signal(sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return fmt.Errorf("signal %s: it does not run", p.name)
	}
	if err := p.cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("signal %s: %w", p.name, err)
	}
	return nil
}

// broken is what went wrong with the program itself: it ended unasked, or its log
// has the end of a goroutine or a race in it.
func (p *process) broken() error {
	p.mu.Lock()
	failed := p.failed
	p.mu.Unlock()
	text, err := os.ReadFile(p.logPath())
	if err := errors.Join(failed, err); err != nil {
		return err
	}
	for _, sign := range []string{"WARNING: DATA RACE", "panic: ", "fatal error: "} {
		if at := bytes.Index(text, []byte(sign)); at >= 0 {
			return fmt.Errorf("%s: %s", p.name, text[at:min(at+4000, len(text))])
		}
	}
	return nil
}

// tail is the end of a log.
func tail(path string) string {
	const lines = 25
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
