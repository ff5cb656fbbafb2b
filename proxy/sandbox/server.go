package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

const (
	pollInterval = 10 * time.Millisecond
	// A server whose parent was killed needs a moment to end.
	lockWait = 3 * time.Second
	// What got SIGKILL is gone at once, unless the disk hangs.
	killWait = 10 * time.Second
)

// server is what Postgres and Redis have in common: a program that runs in a
// directory of its own, can be stopped in several ways, and started again.
//
// Invariant: the lock file is locked while any process of the server lives, and
// no longer. The processes themselves hold the lock, by a file descriptor that
// they inherit and that we close, so it holds even when the first of them was
// killed, or we were.
type server struct {
	program  string         // name in the process table
	dir      string         // private to the server; no symbolic links
	work     string         // where its processes work, dir or below
	log      serverLog      // what it prints
	as       *account       // whom it runs as
	shutdown syscall.Signal // ends it in good order
	orphaned syscall.Signal // ends it when this process dies

	// prepare makes ready what the server needs to run on s.port, and returns
	// the command to run. What it starts itself has to inherit lock.
	prepare func(ctx context.Context, lock *os.File) (*exec.Cmd, error)
	// ready reports whether the server takes connections.
	ready func(context.Context) bool

	mu      sync.Mutex // held while the server starts, stops, freezes or thaws; guards the following
	process *process   // nil when stopped
	port    int
}

// Dir returns the directory that holds everything of this server.
func (s *server) Dir() string { return s.dir }

// Port returns the TCP port on 127.0.0.1; it stays the same across restarts.
func (s *server) Port() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.port
}

// Start starts a stopped server again, on the same port, and returns once it
// takes connections. ctx bounds the start, not the life of the server.
func (s *server) Start(ctx context.Context) error { return s.startOn(ctx, s.Port()) }

// Restart stops the server in good order if it runs, and starts it again.
func (s *server) Restart(ctx context.Context) error {
	if err := s.Stop(ctx); err != nil {
		return err
	}
	return s.Start(ctx)
}

func (s *server) startOn(ctx context.Context, port int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.start(ctx, port); err != nil {
		return fmt.Errorf("start %s: %w", s.program, err)
	}
	return nil
}

func (s *server) start(ctx context.Context, port int) error {
	if s.process != nil && !s.process.ended() {
		return errors.New("it already runs")
	}
	if err := s.kill(); err != nil { // what is left of one that ended by itself
		return err
	}
	if err := portFree(port); err != nil {
		return err
	}
	lock, err := s.acquire(ctx)
	if err != nil {
		return err
	}
	defer lock.Close() // the server has inherited it
	s.port = port
	cmd, err := s.prepare(ctx, lock)
	if err != nil {
		return err
	}
	logged := s.log.size()
	if s.process, err = s.launch(cmd, lock, s.orphaned); err != nil {
		return err
	}
	return s.awaitReady(ctx, logged)
}

// launch starts cmd as the server's main process, or as a program that prepares
// for it, with output to the log and with the lock.
func (s *server) launch(cmd *exec.Cmd, lock *os.File, orphaned syscall.Signal) (*process, error) {
	log, err := s.log.open(s.as)
	if err != nil {
		return nil, err
	}
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.dir, log, log
	cmd.ExtraFiles = []*os.File{lock}
	p, err := startProcess(cmd, orphaned)
	return p, errors.Join(err, log.Close())
}

func (s *server) awaitReady(ctx context.Context, logged int64) error {
	for {
		select {
		case <-s.process.done:
			err := s.log.explain(s.process.err, logged)
			return errors.Join(err, s.kill())
		case <-ctx.Done():
			err := s.log.explain(context.Cause(ctx), logged)
			return errors.Join(err, s.kill())
		case <-time.After(pollInterval):
		}
		if s.ready(ctx) {
			return nil
		}
	}
}

// Stop ends the server in good order and waits until every process of it is
// gone. One that has not ended when ctx is done is killed, and that is an error.
// Stopping a stopped server does nothing.
func (s *server) Stop(ctx context.Context) error { return s.stop(ctx, s.shutdown) }

func (s *server) stop(ctx context.Context, sig syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return nil
	}
	if err := s.signalAll(syscall.SIGCONT); err != nil {
		return err
	}
	if err := s.process.signal(sig); err != nil {
		return fmt.Errorf("stop %s: %w", s.program, err)
	}
	select {
	case <-s.process.done:
		return s.kill() // whatever it left behind
	case <-ctx.Done():
		err := fmt.Errorf("%s did not stop and was killed: %w", s.program, context.Cause(ctx))
		return errors.Join(err, s.kill())
	}
}

// Kill sends SIGKILL to every process of the server and waits until they are gone.
func (s *server) Kill() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kill()
}

func (s *server) kill() error {
	if s.process == nil {
		return nil
	}
	// The main process is frozen first, so that it starts none that we miss.
	if err := s.freeze(); err != nil {
		return err
	}
	if err := s.signalAll(syscall.SIGKILL); err != nil {
		return err
	}
	killed := s.process
	s.process = nil
	if err := killed.awaitLast(killWait); err != nil {
		return fmt.Errorf("%s has ended, but not all of its processes: %w", s.program, err)
	}
	return nil
}

// Pause freezes every process of the server (SIGSTOP): connections stay open
// and nothing answers on them. It returns once all of them stand still.
func (s *server) Pause() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.freeze()
}

// Resume lets a paused server go on.
func (s *server) Resume() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.signalAll(syscall.SIGCONT)
}

func (s *server) freeze() error {
	if s.process == nil || s.process.ended() {
		return nil
	}
	if err := s.process.signal(syscall.SIGSTOP); err != nil {
		return fmt.Errorf("pause %s: %w", s.program, err)
	}
	if err := s.awaitFrozen(func(p runningProcess) bool { return p.pid == s.process.pid() }); err != nil {
		return err
	}
	if err := s.signalAll(syscall.SIGSTOP); err != nil {
		return err
	}
	return s.awaitFrozen(func(runningProcess) bool { return true })
}

// awaitFrozen waits until the selected processes stand still: a signal is sent
// at once, but obeyed only when the process is next scheduled.
func (s *server) awaitFrozen(selected func(runningProcess) bool) error {
	for deadline := time.Now().Add(killWait); ; time.Sleep(time.Millisecond) {
		processes, err := serverProcesses(s.program, s.work)
		if err != nil {
			return err
		}
		moving := 0
		for _, p := range processes {
			if selected(p) && !p.stopped {
				moving++
			}
		}
		if moving == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("pause %s: %d processes do not stop", s.program, moving)
		}
	}
}

func (s *server) signalAll(sig syscall.Signal) error {
	processes, err := serverProcesses(s.program, s.work)
	if err != nil {
		return err
	}
	for _, p := range processes {
		if err := syscall.Kill(p.pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("signal %s (pid %d): %w", s.program, p.pid, err)
		}
	}
	return nil
}

// acquire locks the directory, and fails with the pid of the server that runs
// in it if that does not end in a moment.
func (s *server) acquire(ctx context.Context) (*os.File, error) {
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	for {
		lock, err := lockPath(filepath.Join(s.dir, lockFile))
		if !errors.Is(err, errLocked) {
			return lock, err
		}
		select {
		case <-ctx.Done():
			return nil, s.occupied()
		case <-time.After(pollInterval):
		}
	}
}

// occupied says who runs in the directory.
func (s *server) occupied() error {
	processes, err := serverProcesses(s.program, s.work)
	if err != nil {
		return err
	}
	who := "another process"
	if len(processes) > 0 {
		who = fmt.Sprintf("%s, pid %d", s.program, processes[0].pid)
	}
	return fmt.Errorf("%s is in use by %s\n  try: stop that, or choose another directory", s.dir, who)
}
