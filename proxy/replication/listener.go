package replication

import (
	"context"
	"errors"
	"log/slog"
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

	// Cluster names those who share what the sink keeps, briefly, so that they
	// can tell one of their own who holds the slot from a stranger. It may return
	// "" until the name is known; nil means that there is none.
	Cluster func() string
}

// Sink takes what the listener says, and keeps it for whoever leads next. Its
// methods are called concurrently. *changelog.Log is one.
type Sink interface {
	// Lead says that this process has come to hold the slot. It returns what is
	// known so far, by whomever.
	Lead(ctx context.Context) (coherence.Past, error)
	// Keep keeps what whoever leads next has to know. It comes before Begin.
	Keep(state []byte)
	// Begin starts an epoch: everything stored before it is stale.
	Begin(epoch string, at coherence.LSN)
	// Apply takes a record. An error ends the session.
	Apply(coherence.Record) error
	// Beat says that every commit acknowledged before m is in records that were
	// applied. An error ends the session.
	Beat(epoch string, m time.Time) error
	// Catalog is what SetCatalog was last given, in this process or another.
	Catalog() *coherence.Catalog
	SetCatalog(*coherence.Catalog)
	// Logged is up to where records are safe beyond this process, or the highest
	// LSN where nothing else keeps any.
	Logged() coherence.LSN
	// Wait returns once everything up to lsn is known in this process, whoever
	// said it, or with the error of ctx.
	Wait(ctx context.Context, lsn coherence.LSN) error
	// Yield ends what Lead began: the slot is lost, or given back. It is called
	// once for each Lead, also for one that failed.
	Yield()
}

// Listener follows one database for the life of a process, through any number
// of lost connections. What sessions leave to each other is in the sink, where
// other processes find it as well.
type Listener struct {
	config  Config
	sink    Sink
	beats   *beats
	witness *Witness
	last    ending // written by Run alone

	mu     sync.Mutex // guards the following
	status Status
}

// Status is where the listener stands, for people.
type Status struct {
	State     string // connecting, waiting, catching up, streaming
	Reason    string // why it is not streaming, or why the last session ended
	Stranger  bool   // it waits for a slot that is held by none of this cluster
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
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	config.Log = config.Log.With("component", "replication")
	return &Listener{
		config: config, sink: sink, beats: newBeats(), witness: NewWitness(config.DatabaseURL),
		status: Status{State: stateConnecting},
	}
}

// What Status.State says.
const (
	stateConnecting = "connecting"
	stateWaiting    = "waiting"
	stateCatchingUp = "catching up"
	stateStreaming  = "streaming"
)

// Run follows the database until ctx ends, and returns nil then. It returns a
// *ConfigError, before it has ever streamed or waited for the slot, if a person
// has to change something first; everything else it tries again.
func (l *Listener) Run(ctx context.Context) error {
	defer l.witness.Close()
	pause := time.Duration(0)
	for {
		began := time.Now()
		err := l.session(ctx)
		if ctx.Err() != nil {
			return nil
		}
		var wrong *ConfigError
		if errors.As(err, &wrong) && !l.last.worked {
			return wrong
		}
		if time.Since(began) > retryLast {
			pause = 0
		}
		l.ended(err, pause)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		pause = min(max(2*pause, retryFirst), retryLast)
	}
}

// A session that worked for a while is followed by another at once, and one that
// ends early is tried again ever more slowly.
const (
	retryFirst = 100 * time.Millisecond
	retryLast  = 2 * time.Second
)

// CatchUp returns once the sink knows everything that was committed before the
// call. While no process streams it waits, as long as ctx lets it.
//
// 1. It finds that this process streams. 2. The slot is lost; another process
// streams. 3. It waits for a beat that never comes. So it looks at the state only
// once it waits, and whoever sets it to waiting sends all who wait to look again.
func (l *Listener) CatchUp(ctx context.Context) error {
	for {
		next := l.beats.next()
		if l.Status().State == stateWaiting {
			return l.witness.CatchUp(ctx, l.sink.Wait)
		}
		if proven, err := next.wait(ctx); proven || err != nil {
			return err
		}
	}
}

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
	l.update(func(s *Status) { s.State, s.Reason, s.Stranger, s.Slot = stateConnecting, reason, false, nil })
	if reason != before {
		l.config.Log.Warn("listener is not streaming", "reason", reason, "retry", retry)
	}
}

// applicationName is what pg_stat_activity shows for the connections of this
// cluster.
func (l *Listener) applicationName() string {
	if l.config.Cluster == nil {
		return applicationName
	}
	if cluster := l.config.Cluster(); cluster != "" {
		return applicationName + ":" + cluster
	}
	return applicationName
}

func (l *Listener) notice(what string, err error) {
	l.update(func(s *Status) { s.Widened++ })
	l.config.Log.Error("change stream not understood; everything it may concern is stale", "what", what, "error", err)
}
