package changelog

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"walcache/proxy/coherence"
)

// Log brings what is said about the database into this process's tracker:
// from its own listener directly, and from those of others through Redis. For
// its own listener it is what takes its records.
//
// Everything of the tracker may be read through it.
type Log struct {
	*coherence.Tracker
	id      string // of this process
	remote  remote // nil without Redis
	tail    source // what the tracker follows
	writer  *writer
	logger  *slog.Logger
	reads   readStats
	cluster atomic.Pointer[string]
	alive   atomic.Int64 // processes, when they were counted last
	now     func() time.Time
	limits  limits

	// leads is the epoch that this process leads in: nil while it does not lead,
	// and "" while that is not decided.
	leads atomic.Pointer[string]

	// What is guarded by mu belongs together with the tracker's epoch and catalog,
	// which are replaced under it alone. It is locked before the writer's.
	mu    sync.Mutex // guards the following
	found string     // the checkpoint's first line when this process came to lead
	base  string     // the epoch before the tracker's, if that is known
	news  news       // that came last; its catalog is the tracker's
}

// limits are small in tests.
type limits struct {
	batch           int // entries that are read at a time
	queued          int // changes that may wait before they are given up for a checkpoint, which holds them all in less space
	checkpointAfter int // bytes of log after which one is due
}

// A batch is at most a MiB. Two of checkpointAfter and two checkpoints of
// 4,194,304 slots stay below 64 MiB.
var usual = limits{batch: 64, queued: 1 << 20, checkpointAfter: 8 << 20}

// remote is where the log is kept beyond this process. What a source and a
// registry do may be asked for by several goroutines at a time.
type remote interface {
	source
	// append adds an entry to the log and returns its ID.
	append(ctx context.Context, data []byte) (id string, err error)
	// last returns the ID of the log's last entry, or fromTheStart if it has none.
	last(ctx context.Context) (id string, err error)
	// trim removes the entries before an ID.
	trim(ctx context.Context, before string) error
	// save replaces the checkpoint that begins with the line that was found, or
	// one that comes before the new one. Otherwise it returns errSuperseded.
	save(ctx context.Context, found string, h head, value []byte) error
	// intact reports whether the checkpoint is the one with this head, and these
	// entries are in the log.
	intact(ctx context.Context, h head, ids ...string) (bool, error)
	registry
}

// source is what a reader reads.
type source interface {
	// line returns the first line of the checkpoint, or "" if there is none.
	line(ctx context.Context) (string, error)
	// load returns the checkpoint, or nil if there is none.
	load(ctx context.Context) ([]byte, error)
	// read returns at most limit entries after an ID, and if there are none waits
	// for some, unless block is 0. It numbers the connection that they came over.
	read(ctx context.Context, after string, limit int, block time.Duration) (entries []stored, connection uint64, err error)
}

// stored is an entry in the log.
type stored struct {
	id   string
	data []byte
}

// fromTheStart comes before the ID of every entry.
const fromTheStart = "0-0"

// errSuperseded says that another process leads, or led since: what this one
// knows is not what the others know.
var errSuperseded = errors.New("another process leads the cluster")

// New makes the log of a process that shares it with nobody.
func New(tracker *coherence.Tracker, logger *slog.Logger) *Log {
	l := newLog(tracker, nil, nil, logger)
	alone := "alone-" + l.id
	l.cluster.Store(&alone)
	return l
}

func newLog(tracker *coherence.Tracker, r remote, tail source, logger *slog.Logger) *Log {
	l := &Log{Tracker: tracker, id: randomName(), remote: r, tail: tail, logger: logger.With("component", "changelog"), now: time.Now, limits: usual}
	l.writer = newWriter(l)
	return l
}

func randomName() string { return strings.ToLower(rand.Text()[:12]) }

// Run reads the log, and while this process leads writes it, until ctx ends. It
// returns nil then; whatever goes wrong it tries again.
func (l *Log) Run(ctx context.Context) error {
	if l.remote == nil {
		<-ctx.Done()
		return nil
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { l.writer.loop(ctx); return nil })
	group.Go(func() error { l.follow(ctx); return nil })
	group.Go(func() error { l.reportAll(ctx); return nil })
	return group.Wait()
}

// Cluster is the name of those who share the log, or "" while Redis has not
// told.
func (l *Log) Cluster() string {
	if name := l.cluster.Load(); name != nil {
		return *name
	}
	return ""
}

// leadTimeout bounds how long a new leader waits for what the log says, if Redis
// answers at all.
const leadTimeout = 5 * time.Second

// Lead reads the log to its end, and returns what is known then. Whoever led
// before has lost the slot by now, and may confirm nothing any more, so that
// what the log lacks the slot still has. If Redis cannot be reached it is what
// this process knows, as always without Redis; and nothing if the checkpoint is
// of another epoch and cannot be used: the cluster is somewhere else then.
func (l *Log) Lead(ctx context.Context) (coherence.Past, error) {
	r := l.catchUp(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.found = r.line
	undecided := ""
	l.leads.Store(&undecided)
	l.writer.lead(r.line, l.news.order())
	p := l.Progress(l.now())
	if r.line != "" && !r.usable && parseHead(r.line).epoch != p.Epoch {
		return coherence.Past{}, ctx.Err()
	}
	return coherence.Past{Epoch: p.Epoch, Known: p.Known, Visible: p.Visible, State: l.news.state}, ctx.Err()
}

// catchUp returns a reader that has read as much as it could.
func (l *Log) catchUp(ctx context.Context) *reader {
	r := &reader{Log: l, source: l.remote, forLeader: true}
	if l.remote == nil {
		return r
	}
	ctx, cancel := context.WithTimeout(ctx, leadTimeout)
	defer cancel()
	if err := r.join(ctx); err != nil {
		l.logger.Warn("the change log cannot be read to its end; going on with what is known of it", "error", err)
	}
	return r
}

// Yield ends what Lead began.
func (l *Log) Yield() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.endLead()
}

// endLead ends what Lead began. The caller holds mu.
func (l *Log) endLead() {
	if l.leads.Swap(nil) != nil {
		l.writer.stop()
	}
}

// Keep keeps what whoever leads next has to know.
func (l *Log) Keep(state []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.leads.Load() != nil {
		l.tell(l.Catalog(), state)
	}
}

// SetCatalog replaces what all processes take for published.
func (l *Log) SetCatalog(c *coherence.Catalog) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch n := (news{catalog: c}); {
	case l.leads.Load() == nil:
	case n.order().term < l.news.order().term: // that of someone who leads since
		l.endLead()
	default:
		l.tell(c, l.news.state)
	}
}

// tell makes news. The caller holds mu.
func (l *Log) tell(c *coherence.Catalog, state []byte) {
	l.Tracker.SetCatalog(c)
	l.news = news{c, state, l.news.edition + 1}
	l.writer.news(l.news)
}

// Begin starts an epoch, upon the one that was found in the log or known here.
func (l *Log) Begin(epoch string, at coherence.LSN) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.leads.Load() == nil {
		return
	}
	l.base = cmp.Or(parseHead(l.found).epoch, l.Epoch())
	l.Tracker.Begin(epoch, at)
	l.leads.Store(&epoch)
	l.writer.begin(epoch, l.base)
}

// Apply takes a record from the listener of this process: at once into the
// tracker, and then into the log. Its error ends what Lead began.
func (l *Log) Apply(r coherence.Record) error {
	if err := l.leadsIn(r.Epoch); err != nil {
		return err
	}
	r = l.told(r)
	if err := l.Tracker.Apply(r); err != nil {
		return err
	}
	l.writer.record(r)
	return nil
}

// told leaves out of a record what is for people, if all of it is known here: a
// listener that begins says the last ten seconds again, and the log says to the
// leader what it has said itself. What moved stays, for those who lack it.
//
// 1. A leader says ten seconds again. 2. They become one record with what is new.
// 3. Whoever reads that counts their rows twice, and takes the time of the first
// commit, long known, for that of the last. So they are left out before 2 too.
func (l *Log) told(r coherence.Record) coherence.Record {
	if r.To <= l.Known().LSN {
		r.Tables, r.Committed = nil, time.Time{}
	}
	return r
}

// Beat takes a beat from the listener of this process, whose evidence needs no
// log. Its error ends what Lead began: a listener that has nothing else to say
// hears of it here.
func (l *Log) Beat(epoch string, m time.Time) error {
	l.Tracker.Beat(epoch, m)
	if err := l.leadsIn(epoch); err != nil {
		return err
	}
	l.writer.beat(m)
	return nil
}

// leadsIn returns an error unless this process leads in an epoch. What is said
// in the tracker's epoch without a Begin decides that it goes on.
func (l *Log) leadsIn(epoch string) error {
	leads := l.leads.Load()
	if leads != nil && *leads == "" {
		leads = l.goOn()
	}
	switch {
	case leads == nil:
		return errSuperseded
	case *leads != epoch:
		return fmt.Errorf("%w in epoch %s", errSuperseded, *leads)
	}
	return nil
}

func (l *Log) goOn() *string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if leads := l.leads.Load(); leads == nil || *leads != "" {
		return leads
	}
	epoch := l.Epoch()
	l.leads.Store(&epoch)
	l.writer.begin(epoch, l.base)
	return &epoch
}

// Logged is up to where records are safe beyond this process.
func (l *Log) Logged() coherence.LSN {
	if l.remote == nil {
		return math.MaxUint64
	}
	return l.writer.upTo()
}

// superseded ends what Lead began, in favour of another process. name is of the
// run that found it out: it says nothing of one that began since.
func (l *Log) superseded(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.writer.stopIf(name) {
		l.leads.Store(nil)
	}
}
