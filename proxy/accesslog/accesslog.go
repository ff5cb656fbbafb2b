// Package accesslog writes a line of JSON for each request, after its answer.
//
//	request ──► Handler ──► ... ──► answer ──► buffer ──► Run ──► file
//	                                             └─► full: the line is lost, and counted
//
// No request waits for a disk. Its line goes into a buffer of a few MiB; Run
// writes that twice a second, and when it fills. A file that is slower than the
// requests costs lines and nothing else; how many is said in the program's own
// log, every ten seconds at most.
//
// What is in a line, and what never is, stands with Line.
package accesslog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"time"
)

// Config is what a Log is made from.
type Config struct {
	File   string    // its path; "-" is Stdout
	Stdout io.Writer // not closed
	// Trusted are the proxies that are believed for whom they ask.
	Trusted []netip.Prefix
	// Log gets what an operator should know; nil is nobody.
	Log *slog.Logger
}

const (
	maxBuffered = 4 << 20 // bytes that wait to be written
	enough      = 256 << 10
	writeEvery  = 500 * time.Millisecond
	tellEvery   = 10 * time.Second
	lastWrite   = 2 * time.Second // how long the last lines may take to be written
)

// Log is an access log. Its methods may be called concurrently.
type Log struct {
	config Config
	log    *slog.Logger
	filled chan struct{} // has room for one: there is enough to write

	mu      sync.Mutex // guards the following
	waiting []byte     // whole lines
	lost    int        // lines, since it was last said
	failed  error      // why, if not because too much waited

	writing sync.Mutex // guards the following, and is held while writing
	out     io.Writer
	file    *os.File // nil if out is Stdout
	torn    bool     // out ends within a line
	spare   []byte   // for the next to wait
}

// Open opens the file, at whose end it will write.
func Open(c Config) (*Log, error) {
	l := &Log{config: c, log: c.Log, filled: make(chan struct{}, 1)}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	if c.File == "-" {
		l.out = c.Stdout
		return l, nil
	}
	return l, l.Reopen()
}

// IsFile reports whether there is something to reopen.
func (l *Log) IsFile() bool { return l.config.File != "-" }

// Reopen goes on in the file that the path names by now: what rotates logs has
// given the one before another name. If it cannot be opened, the one before is
// written on.
func (l *Log) Reopen() error {
	if !l.IsFile() {
		return nil
	}
	file, err := os.OpenFile(l.config.File, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return fmt.Errorf("cannot open %s: %w\n  try: %s", l.config.File, errors.Unwrap(err), advice(err))
	}
	l.write() // what was asked before belongs to the file before
	l.writing.Lock()
	defer l.writing.Unlock()
	before := l.file
	l.out, l.file, l.torn = file, file, false
	if before == nil {
		return nil
	}
	return before.Close()
}

func advice(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "make its directory first"
	case errors.Is(err, fs.ErrPermission):
		return "let this user write there, or name another file"
	}
	return "name a file that can be written, or - for standard output"
}

// Add takes in a line, or loses it if too much waits already.
func (l *Log) Add(line Line) {
	text := encode(line)
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting)+text.Len() > maxBuffered {
		l.lost++
	} else {
		l.waiting = append(l.waiting, text.Bytes()...)
	}
	texts.Put(text)
	if len(l.waiting) > enough {
		select {
		case l.filled <- struct{}{}:
		default: // it has been told
		}
	}
}

var texts = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// encode writes a line into a buffer of texts. What is no UTF-8 in it is replaced.
func encode(line Line) *bytes.Buffer {
	text := texts.Get().(*bytes.Buffer)
	text.Reset()
	e := json.NewEncoder(text)
	e.SetEscapeHTML(false)
	_ = e.Encode(line) // a Line has nothing that cannot be written
	return text
}

// Run writes what is added until ctx ends, and then the rest.
func (l *Log) Run(ctx context.Context) error {
	tick := time.NewTicker(writeEvery)
	defer tick.Stop()
	var told time.Time
	for {
		select {
		case <-ctx.Done():
			return l.finish()
		case <-tick.C:
		case <-l.filled:
		}
		l.write()
		if now := time.Now(); now.Sub(told) >= tellEvery && l.tell() {
			told = now
		}
	}
}

// finish writes the rest, unless the file takes nothing: then the program does
// not wait for it.
func (l *Log) finish() error {
	written := make(chan struct{})
	go func() {
		l.write()
		close(written)
	}()
	select {
	case <-written:
	case <-time.After(lastWrite):
		l.log.Warn("the last lines of the access log could not be written in time", "file", l.config.File)
		return nil
	}
	l.tell()
	l.writing.Lock()
	defer l.writing.Unlock()
	if l.file == nil {
		return nil
	}
	return l.file.Close()
}

// write writes what waits.
func (l *Log) write() {
	l.writing.Lock()
	defer l.writing.Unlock()
	l.mu.Lock()
	lines := l.waiting
	l.waiting = l.spare[:0]
	l.mu.Unlock()
	l.spare = lines
	if len(lines) == 0 {
		return
	}
	n, err := l.append(lines)
	if err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.lost, l.failed = l.lost+bytes.Count(lines[n:], []byte("\n")), err
	}
}

// append writes lines to the file, none of them behind half of one that could
// not be written.
func (l *Log) append(lines []byte) (n int, err error) {
	if l.torn {
		if _, err := l.out.Write([]byte("\n")); err != nil {
			return 0, err
		}
	}
	n, err = l.out.Write(lines)
	l.torn = n > 0 && lines[n-1] != '\n'
	return n, err
}

// tell says how many lines were lost since it last did, if any were.
func (l *Log) tell() bool {
	l.mu.Lock()
	lost, err := l.lost, l.failed
	l.lost, l.failed = 0, nil
	l.mu.Unlock()
	if lost == 0 {
		return false
	}
	l.log.Warn("lines of the access log were lost", "file", l.config.File, "lost", lost, "err", err)
	return true
}
