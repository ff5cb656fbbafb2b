package changelog

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"walcache/proxy/coherence"
)

// reader brings the log into the tracker.
//
//	joining ──the log's end──► following      joining: the checkpoint, and the log
//	   ▲                           │          from there on
//	   └──error, new checkpoint────┘
//
// Invariant: a beat is taken for proof only if everything that comes before it
// in the log has been applied. A process that read the log to its end at a time
// m of its own, and then reads two beats of one name, knows of everything that
// was committed before m: the first was appended after m, the second was
// sampled after the first had been appended, and the records up to that sample
// come before the second. So no clock is compared with another, and a Redis
// that stood still, or went on with an older copy, cannot make old evidence
// look young. Kept by takeBeat; see TestReader_OneBeatProvesNothing and
// TestReader_ABeatAfterALostRecordProvesNothing.
type reader struct {
	*Log
	source    source
	forLeader bool // reads for a new leader: what began upon the checkpoint's epoch goes on

	line       string // that the checkpoint began with, when it was looked at last
	loaded     string // that the one began with which was loaded last
	usable     bool   // that one is whole
	cursor     string
	connection uint64 // that the log was read over
	readAt     time.Time
	joined     time.Time
	runs       map[string]seen // by the name of a run of beats
	puzzled    bool            // by a gap, or an entry of another epoch: there may be another checkpoint
	looked     time.Time
	tooSlow    int // times in a row that a checkpoint did not come in time
}

// seen is the last beat of a run, and the time at which the log had been read
// to its end, without it.
type seen struct {
	count uint64
	m     time.Time
}

const (
	blockFor   = 100 * time.Millisecond // the age of readAt while nothing comes
	readWithin = time.Second
	loadWithin = 5 * time.Second // at first, and up to eight times as long where that is too short
	doubtAfter = time.Second     // without proof
	lookAgain  = 500 * time.Millisecond
)

var (
	errAnother = errors.New("there is another checkpoint")
	errMoved   = errors.New("the connection is a new one, and may lead to another copy of the log")
)

// readStats is what readers did, for people.
type readStats struct {
	mu    sync.Mutex // guards the following
	stats ReaderStats
}

// ReaderStats is what the reader did, for people.
type ReaderStats struct {
	Entries   uint64 `json:"entries"`
	Joins     uint64 `json:"joins"`
	Loads     uint64 `json:"checkpoints_loaded"`
	Gaps      uint64 `json:"gaps"` // entries that came after one
	Proofs    uint64 `json:"proofs"`
	Errors    uint64 `json:"errors"`
	LastError string `json:"last_error,omitempty"`
	Unread    uint64 `json:"not_understood"`
	State     string `json:"state"` // joining, following
}

func (s *readStats) update(f func(*ReaderStats)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.stats)
}

func (s *readStats) read() ReaderStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}

// follow reads the log until ctx ends.
func (l *Log) follow(ctx context.Context) {
	r := &reader{Log: l, source: l.tail}
	pause, troubled := retryFirst, false
	for {
		began := l.now()
		err := r.join(ctx)
		for err == nil {
			l.reads.update(func(s *ReaderStats) { s.State = "following" })
			if troubled {
				troubled = false
				l.logger.Info("change log is followed again")
			}
			err = r.step(ctx)
		}
		if ctx.Err() != nil {
			return
		}
		l.stopped(err)
		if !troubled && !errors.Is(err, errAnother) && !errors.Is(err, errMoved) {
			troubled = true
			l.logger.Warn("change log is not followed", "reason", err)
		}
		if l.now().Sub(began) > 2*retryLast {
			pause = retryFirst
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
			pause = min(2*pause, retryLast)
		}
	}
}

// stopped counts why the log is not followed.
func (l *Log) stopped(err error) {
	l.reads.update(func(s *ReaderStats) {
		s.State = "joining"
		if !errors.Is(err, errAnother) && !errors.Is(err, errMoved) {
			s.Errors++
			s.LastError = err.Error()
		}
	})
}

// join loads the checkpoint, unless it is the one that was loaded before, and
// reads the log from there to its end.
func (r *reader) join(ctx context.Context) error {
	r.reads.update(func(s *ReaderStats) { s.Joins++ })
	r.runs, r.readAt = map[string]seen{}, time.Time{}
	if err := r.look(ctx); err != nil {
		return err
	}
	if r.line != r.loaded {
		if err := r.load(ctx); err != nil {
			return err
		}
	}
	r.cursor, r.puzzled, r.joined = fromTheStart, false, r.now()
	if r.usable {
		r.cursor = parseHead(r.loaded).cursor
	}
	for r.readAt.IsZero() {
		if err := r.read(ctx, 0); err != nil {
			return err
		}
	}
	return nil
}

// look reads how the checkpoint begins.
func (r *reader) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readWithin)
	defer cancel()
	r.looked = r.now()
	line, err := r.source.line(ctx)
	if err != nil {
		return fmt.Errorf("look at the checkpoint: %w", err)
	}
	r.line = line
	return nil
}

// step reads what comes next. If that proves nothing, or makes no sense, there
// may be another checkpoint that does.
func (r *reader) step(ctx context.Context) error {
	if err := r.read(ctx, blockFor); err != nil {
		return err
	}
	now := r.now()
	fresh := r.Vouches(now)
	if doubts := r.puzzled || !fresh && now.Sub(r.joined) > doubtAfter; !doubts || now.Sub(r.looked) < lookAgain {
		return nil
	}
	if err := r.look(ctx); err != nil {
		return err
	}
	if r.line == r.loaded || fresh && parseHead(r.line).epoch == r.Epoch() {
		r.puzzled = false
		return nil
	}
	return errAnother
}

func (r *reader) read(ctx context.Context, block time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, block+readWithin)
	defer cancel()
	asked := r.now()
	entries, connection, err := r.source.read(ctx, r.cursor, r.limits.batch, block)
	if err != nil {
		return fmt.Errorf("read the change log: %w", err)
	}
	// 1. The primary is cut off, with this process. 2. A replica takes its place,
	// and the leader appends beats there. 3. This process reads the old one to its
	// end, where nothing comes. 4. It reads the new one, and takes the beats of 2
	// for evidence that is younger than 3. So what was read over one connection
	// says nothing of what comes over another.
	if !r.readAt.IsZero() && connection != r.connection {
		return errMoved
	}
	for _, e := range entries {
		r.take(e.data)
		r.cursor = e.id
	}
	if len(entries) < r.limits.batch {
		r.readAt, r.connection = asked, connection
	}
	return nil
}

// take applies an entry. After a gap it goes on: what begins beyond is not
// taken, and the rest is as true as before.
func (r *reader) take(data []byte) {
	e, err := decodeEntry(data)
	r.reads.update(func(s *ReaderStats) {
		s.Entries++
		if err != nil {
			s.Unread++
		}
	})
	switch {
	case err != nil: // what it would have said shows as a gap
	case e.epoch != r.Epoch():
		r.puzzled = true
	case e.record != nil:
		r.takeRecord(*e.record)
	case e.beat != nil:
		r.takeBeat(e.epoch, *e.beat)
	case e.news != nil:
		r.takeNews(e.epoch, *e.news)
	}
}

func (r *reader) takeRecord(record coherence.Record) (taken bool) {
	if err := r.Tracker.Apply(r.told(record)); err != nil {
		r.puzzled = true
		r.reads.update(func(s *ReaderStats) { s.Gaps++ })
		return false
	}
	return true
}

func (r *reader) takeBeat(epoch string, b beat) {
	if !r.takeRecord(coherence.Record{Epoch: epoch, From: b.at, To: b.at}) || !r.heard(b.news) {
		return
	}
	// Two that are read at once prove nothing: a copy of the log from which less
	// was deleted has old beats again.
	before, ok := r.runs[b.name]
	if ok && b.count > before.count && !before.m.IsZero() && r.readAt.After(before.m) {
		r.Tracker.Beat(epoch, before.m)
		r.reads.update(func(s *ReaderStats) { s.Proofs++ })
	}
	if len(r.runs) > 16 { // of leaders long gone
		clear(r.runs)
	}
	r.runs[b.name] = seen{b.count, r.readAt}
}

// heard reports whether these news, or later ones, are known.
func (r *reader) heard(told order) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.puzzled = r.puzzled || r.news.order().before(told)
	return !r.news.order().before(told)
}

func (r *reader) takeNews(epoch string, n news) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if epoch == r.Epoch() {
		r.hear(n)
	}
}

// hear takes news of the tracker's epoch, if they are later than what is known.
// While this process leads that says that another leads since. The caller holds
// mu.
func (r *reader) hear(n news) {
	if !r.news.order().before(n.order()) {
		return
	}
	r.news = n
	r.Tracker.SetCatalog(n.catalog)
	r.endLead()
}

// load takes the checkpoint. What is not whole is as good as none.
func (r *reader) load(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, loadWithin<<min(r.tooSlow, 3))
	defer cancel()
	r.reads.update(func(s *ReaderStats) { s.Loads++ })
	value, err := r.source.load(ctx)
	if err != nil {
		r.tooSlow++
		return fmt.Errorf("load the checkpoint: %w", err)
	}
	r.tooSlow = 0
	r.line = lineOf(string(value[:min(len(value), maxHead)]))
	r.loaded, r.usable = r.line, false
	if c, err := decodeCheckpoint(value); err == nil {
		r.usable = true
		r.adopt(&c)
	}
	return nil
}

// adopt makes the tracker know what a checkpoint says. One of another epoch is
// where the cluster is.
//
// Not so while this process leads: then its listener says which epoch it is,
// and the writer finds out whether the others agree. And what begins upon the
// checkpoint's epoch comes after it, for whoever leads next: a flushed Redis may
// have gone on with an old copy.
func (r *reader) adopt(c *checkpoint) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case c.epoch == r.Epoch():
		r.hear(c.news)
	case r.leads.Load() != nil || r.forLeader && r.base == c.epoch:
		return
	default:
		r.news, r.base = c.news, c.base
		r.Tracker.SetCatalog(c.catalog)
	}
	r.Tracker.Load(c.facts())
}
