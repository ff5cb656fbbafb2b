package replication

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"walcache/proxy/coherence"
)

// Config is what a Listener needs to know.
type Config struct {
	DatabaseURL    string
	Slot           string   // name of the replication slot
	Publication    string   // name of the first publication; the second adds "_updates"
	IgnoreTables   []string // globs of tables (name or schema.name) whose changes do not matter
	MaxRetainedWAL int64    // bytes; past it the slot is given up
	Log            *slog.Logger
}

// Sink takes what the listener says. Its methods are called concurrently.
// *coherence.Tracker is one.
type Sink interface {
	Begin(epoch string, at coherence.LSN)
	Apply(coherence.Record) error
	Beat(epoch string, m time.Time)
	Catalog() *coherence.Catalog // what SetCatalog was last given
	SetCatalog(*coherence.Catalog)
}

// Listener follows one database for the life of a process, through any number
// of lost connections.
type Listener struct {
	config Config
	sink   Sink
	beats  beats
	past   past // written by run alone

	mu     sync.Mutex // guards the following
	status Status
}

// Status is where the listener stands, for people.
type Status struct {
	State     string // connecting, waiting, catching up, streaming
	Reason    string // why it is not streaming, or why the last session ended
	Epoch     string
	Began     string // why the epoch began
	Epochs    int    // begun by this process
	Sessions  int
	Confirmed coherence.LSN
	Slot      *Slot
	Blind     []string // logged tables whose updates and deletes do not reach the stream
	Unlogged  []string // tables whose changes never reach a stream
	Widened   uint64   // times that something in the stream was not understood
}

// New makes a Listener; Run makes it listen.
func New(config Config, sink Sink) *Listener {
	return &Listener{config: config, sink: sink, beats: newBeats(), status: Status{State: "connecting"}}
}

// Run follows the database until ctx ends, and returns nil then. It returns a
// *ConfigError, before it has ever streamed, if a person has to change
// something first; everything else it tries again.
func (l *Listener) Run(ctx context.Context) error {
	pause := retryFirst
	for {
		began := time.Now()
		err := l.session(ctx)
		if ctx.Err() != nil {
			return nil
		}
		var wrong *ConfigError
		if errors.As(err, &wrong) && l.Status().Sessions == 0 {
			return wrong
		}
		if time.Since(began) > retryLast {
			pause = retryFirst
		}
		l.ended(err, pause)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		if !errors.Is(err, errHeld) { // whoever waits for the slot takes over at once
			pause = min(2*pause, retryLast)
		}
	}
}

const (
	retryFirst = 100 * time.Millisecond
	retryLast  = 2 * time.Second
)

// CatchUp returns once the sink knows everything that was committed before the
// call. While the stream is away it waits, as long as ctx lets it.
func (l *Listener) CatchUp(ctx context.Context) error { return l.beats.wait(ctx) }

// Status reports where the listener stands.
func (l *Listener) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.status
}

func (l *Listener) update(f func(s *Status)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f(&l.status)
}

// ended logs the end of a session once, and not again while the reason stays
// the same.
func (l *Listener) ended(err error, retry time.Duration) {
	reason := err.Error()
	before := l.Status().Reason
	l.update(func(s *Status) { s.State, s.Reason, s.Slot = "connecting", reason, nil })
	if reason != before {
		l.config.Log.Warn("listener is not streaming", "reason", reason, "retry", retry)
	}
}

// newEpoch begins an epoch: whatever was stored before is stale.
func (l *Listener) newEpoch(why string, at coherence.LSN) string {
	name := strings.ToLower(rand.Text()[:16])
	l.sink.Begin(name, at)
	l.update(func(s *Status) { s.Epoch, s.Began, s.Epochs = name, why, s.Epochs+1 })
	l.config.Log.Info("epoch begins", "epoch", name, "reason", why, "at", at)
	return name
}

func (l *Listener) notice(what string, err error) {
	l.update(func(s *Status) { s.Widened++ })
	l.config.Log.Error("change stream not understood; everything it may concern is stale", "what", what, "error", err)
}
