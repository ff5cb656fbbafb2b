package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
)

// serverLog is the path of the file that a server prints to.
type serverLog string

func (l serverLog) open(as *account) (*os.File, error) {
	f, err := os.OpenFile(string(l), os.O_WRONLY|os.O_CREATE|os.O_APPEND|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	if err := as.own(string(l)); err != nil {
		return nil, errors.Join(fmt.Errorf("open log: %w", err), f.Close())
	}
	return f, nil
}

// size is where the log ends now, to tell later what was added.
func (l serverLog) size() int64 {
	info, err := os.Stat(string(l))
	if err != nil {
		return 0 // there is none yet
	}
	return info.Size()
}

// explain is the error for a program that failed after the log had the given
// size: what it printed since then says why.
func (l serverLog) explain(cause error, since int64) error {
	if cause == nil {
		cause = errors.New("it ended at once")
	}
	text, err := l.tail(since)
	if err != nil {
		return errors.Join(cause, err)
	}
	if strings.Contains(text, "Address already in use") {
		return fmt.Errorf("%w\n%s", errPortTaken, text)
	}
	return fmt.Errorf("%w; its log, %s, ends with\n%s", cause, l, text)
}

// tail returns the last lines that were added after the log had the given size.
func (l serverLog) tail(since int64) (string, error) {
	const most = 2000
	f, err := os.Open(string(l))
	if err != nil {
		return "", err
	}
	defer f.Close()
	since = max(since, l.size()-most)
	text, err := io.ReadAll(io.NewSectionReader(f, since, most))
	if err != nil {
		return "", fmt.Errorf("read log: %w", err)
	}
	return string(bytes.TrimSpace(text)), nil
}
