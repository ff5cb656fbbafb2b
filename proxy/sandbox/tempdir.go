package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// TempDir makes a temporary directory that every account can pass through, so
// that servers can have theirs below it. Remove deletes it, and is to be called
// when they have stopped.
//
// The pattern is that of os.MkdirTemp and has to be one that nobody else uses:
// directories of that pattern whose process was killed are deleted first.
func TempDir(pattern string) (dir string, remove func() error, err error) {
	sweepTempDirs(pattern)
	for {
		dir, err := os.MkdirTemp("", pattern)
		if err != nil {
			return "", nil, fmt.Errorf("temporary directory: %w", err)
		}
		lock, err := lockPath(dir)
		// Between the two calls another process may have swept it away.
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, errLocked) || (err == nil && !stillThere(lock, dir)) {
			if lock != nil {
				lock.Close()
			}
			continue
		}
		if err == nil {
			err = os.Chmod(dir, 0o711)
		}
		if err != nil {
			return "", nil, fmt.Errorf("temporary directory: %w", err)
		}
		remove := func() error { return errors.Join(os.RemoveAll(dir), lock.Close()) }
		return dir, remove, nil
	}
}

func stillThere(lock *os.File, dir string) bool {
	held, errHeld := lock.Stat()
	found, errFound := os.Stat(dir)
	return errHeld == nil && errFound == nil && os.SameFile(held, found)
}

// sweepTempDirs deletes what killed processes left behind: our directories of
// the pattern that nobody holds locked. What cannot be deleted now is left to
// the next sweep.
func sweepTempDirs(pattern string) {
	matches, err := filepath.Glob(filepath.Join(os.TempDir(), pattern))
	if err != nil {
		return // os.MkdirTemp will say what is wrong with it
	}
	for _, dir := range matches {
		info, err := os.Lstat(dir)
		if err != nil || !info.IsDir() || info.Sys().(*syscall.Stat_t).Uid != uint32(os.Geteuid()) {
			continue
		}
		if lock, err := lockPath(dir); err == nil {
			killOrphans(dir)
			os.RemoveAll(dir)
			lock.Close()
		}
	}
}

// killOrphans ends servers that still run below a directory whose owner is
// dead. They got a signal when that died, but one that stood still at the time
// (SIGSTOP) cannot obey it.
func killOrphans(dir string) {
	for _, program := range []string{"postgres", "redis-server", "valkey-server"} {
		orphans, err := serverProcesses(program, dir)
		if err != nil {
			return
		}
		for _, p := range orphans {
			syscall.Kill(p.pid, syscall.SIGKILL)
		}
	}
}
