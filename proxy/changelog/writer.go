package changelog

import (
	"cmp"
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"

	"walcache/proxy/coherence"
)

// writer appends what this process's listener says, one entry after the other,
// while it leads.
//
//	unsaved ──checkpoint──► saved ──entries──► saved
//	   ▲                      │
//	   └──── any error ◄──────┘
//
// Invariant: what the log and the checkpoint say together has no gap that a
// reader could not find. So whenever it is not certain that the log has
// everything (at first, in a new epoch, after an error, on a new connection,
// which may lead to a server that lacks the last entries, or when too much
// waits), a checkpoint from the tracker's memory comes before the next entry.
// Kept by save and lost; see TestWriter_AfterAnErrorACheckpointComesFirst.
type writer struct {
	*Log
	wake chan struct{} // holds one token while there is work

	// No other lock is taken while mu is held.
	mu       sync.Mutex // guards the following
	epoch    string     // that this process leads in; "" while there is nothing to write
	base     string     // the epoch before, of which the checkpoint may be
	by       string     // names what Lead began
	found    string     // the first line of the checkpoint then
	gathers  bool       // what is said is queued; else it is in the tracker when that is saved
	saved    bool       // the checkpoint and the queue have everything
	queue    queue
	said     coherence.LSN // everything up to it was said to the queue, or saved
	told     order         // news, likewise
	logged   coherence.LSN
	run      beat      // the run of beats that goes on: its last that was acknowledged
	beating  bool      // the next of them is queued or under way
	acked    time.Time // when run was acknowledged
	previous string    // the cursor of the last checkpoint
	troubled bool      // the last attempt failed
	stats    WriterStats

	// The rest is the loop's.
	head    head   // of the last checkpoint
	size    int    // of it, in bytes
	since   int    // bytes of log after it
	end     string // the last entry that was appended after it, or its cursor
	at      time.Time
	checked time.Time
}

// WriterStats is what the writer did, for people.
type WriterStats struct {
	Entries          uint64        `json:"entries"`
	Bytes            uint64        `json:"bytes"`
	Errors           uint64        `json:"errors"`
	LastError        string        `json:"last_error,omitempty"`
	Checkpoints      uint64        `json:"checkpoints"`
	CheckpointBytes  int           `json:"checkpoint_bytes"`
	CheckpointTook   time.Duration `json:"checkpoint_took_ns"`
	LastCheckpointAt time.Time     `json:"last_checkpoint_at,omitzero"`
	QueuedChanges    int           `json:"queued_changes"`
	GivenUp          uint64        `json:"given_up"` // times that a queue was given up for a checkpoint
	Damages          uint64        `json:"damages"`  // times that log or checkpoint were found damaged
	Refused          uint64        `json:"refused"`  // checkpoints
	Saved            bool          `json:"saved"`
	BeatsSkipped     uint64        `json:"beats_skipped"`
	LoggedLSN        string        `json:"logged_lsn,omitempty"`
}

const (
	appendTimeout = time.Second
	checkEvery    = time.Second
	// A checkpoint is due after a time that grows with its size, and may take as
	// long: it holds up everything else in Redis while it is written.
	checkpointEvery  = 5 * time.Second
	checkpointPerMiB = time.Second
)

func checkpointTime(size int) time.Duration {
	return checkpointEvery + time.Duration(size>>20)*checkpointPerMiB
}

func newWriter(l *Log) *writer { return &writer{Log: l, wake: make(chan struct{}, 1)} }

// lead prepares for an epoch that is not decided yet. found begins the
// checkpoint that the first one replaces.
func (w *writer) lead(found string, told order) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.told = told
	w.epoch, w.by, w.found, w.previous = "", randomName(), found, parseHead(found).cursor
	w.lost()
}

// begin has everything of an epoch written from now on.
func (w *writer) begin(epoch, base string) {
	if w.remote == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.epoch, w.base, w.said, w.logged = epoch, base, 0, 0
	w.lost()
	w.nudge()
}

func (w *writer) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.epoch = ""
	w.lost()
}

// stopIf stops in the run of beats that has the name, and returns whether that
// goes on.
func (w *writer) stopIf(name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.run.name != name {
		return false
	}
	w.epoch = ""
	w.lost()
	return true
}

// lost says that the log may lack something. The next beats go under a new
// name: two of one name are proof that nothing came between them.
func (w *writer) lost() {
	w.saved, w.gathers = false, false
	w.queue = queue{}
	w.run, w.beating, w.acked = beat{name: randomName()}, false, time.Time{}
}

// reconnected is called when the connection is a new one. The server behind it
// may lack what was acknowledged last, or everything.
func (w *writer) reconnected() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lost()
}

func (w *writer) record(r coherence.Record) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.epoch != r.Epoch {
		return
	}
	w.said = max(w.said, r.To)
	if w.gathers {
		w.queue.push(entry{epoch: w.epoch, record: &r})
	}
	if w.queue.changes > w.limits.queued {
		w.stats.GivenUp++
		w.lost()
	}
	w.nudge()
}

func (w *writer) news(n news) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.told = n.order()
	if w.gathers {
		w.queue.push(entry{epoch: w.epoch, news: &n})
	}
	w.nudge()
}

// beat queues a beat that was sampled at m or later.
//
// 1. A beat is appended. 2. A commit is acknowledged. 3. Someone reads the beat.
// 4. A beat that was sampled before 2 is appended. 5. The reader takes the two
// for proof that it knows of the commit. So the next one counts only if it was
// sampled after the one before was acknowledged.
//
// Everything that was committed before m was said before the call. A beat says
// how far that is, so that whoever lacks some of it finds out: what was in the
// queue when a checkpoint had to come is nowhere else, and news leave no gap.
func (w *writer) beat(m time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.saved && !w.beating && m.After(w.acked) {
		w.queue.push(entry{epoch: w.epoch, beat: &beat{w.run.name, w.run.count + 1, w.said, w.told}})
		w.beating = true
	} else {
		w.stats.BeatsSkipped++
	}
	w.nudge()
}

func (w *writer) upTo() coherence.LSN {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.logged
}

func (w *writer) nudge() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

const (
	retryFirst = 50 * time.Millisecond
	retryLast  = 500 * time.Millisecond
)

// loop writes until ctx ends. It asks for nothing while nothing is said, not
// even whether Redis is there: a listener that streams beats.
func (w *writer) loop(ctx context.Context) {
	pause := retryFirst
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		}
		began := w.now()
		err := w.work(ctx)
		if err == nil {
			pause = retryFirst
			continue
		}
		if ctx.Err() != nil {
			return
		}
		w.failed(err)
		// A checkpoint that a full Redis refuses is sent in vain each time.
		costs := 4 * w.now().Sub(began)
		select {
		case <-ctx.Done():
			return
		case <-time.After(min(max(pause, costs), 2*time.Second)):
			pause = min(2*pause, retryLast)
			w.nudge()
		}
	}
}

// work writes until nothing is left to write.
func (w *writer) work(ctx context.Context) error {
	for {
		if err := w.keepSaved(ctx); err != nil {
			return err
		}
		name, e, ok := w.next()
		if !ok {
			return nil
		}
		if err := w.appendEntry(ctx, name, e); err != nil {
			return err
		}
	}
}

func (w *writer) next() (name string, e entry, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.saved {
		return "", e, false
	}
	e, ok = w.queue.pop()
	return w.run.name, e, ok
}

// keepSaved writes a checkpoint if one is due.
func (w *writer) keepSaved(ctx context.Context) error {
	w.mu.Lock()
	epoch, due := w.epoch, !w.saved
	w.mu.Unlock()
	if epoch == "" {
		return nil
	}
	if due = due || w.late(); !due {
		var err error
		if due, err = w.damaged(ctx); err != nil {
			return err
		}
	}
	if !due {
		return nil
	}
	return w.save(ctx)
}

// late reports whether it is time for a checkpoint.
func (w *writer) late() bool {
	return w.since > w.limits.checkpointAfter || w.now().Sub(w.at) > checkpointTime(w.size)
}

// damaged looks whether log and checkpoint are still there. Nothing else says so
// when they were flushed or evicted, when another leader's checkpoint is in the
// place of ours, or when what stands between us and Redis hid a failover.
func (w *writer) damaged(ctx context.Context) (bool, error) {
	if w.now().Sub(w.checked) < checkEvery {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, appendTimeout)
	defer cancel()
	var entries []string // the first and the last that whoever loads the checkpoint reads
	for _, id := range []string{w.head.cursor, w.end} {
		if id != fromTheStart {
			entries = append(entries, id)
		}
	}
	intact, err := w.remote.intact(ctx, w.head, entries...)
	if err != nil || intact {
		w.checked = w.now()
		return false, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stats.Damages++
	return true, nil
}

// save writes a checkpoint, and trims the log to what the one before needs.
//
// Nothing is missing from checkpoint and queue together: Apply tells the tracker
// before it tells the writer. What it has told by the time that the queue
// gathers is in the tracker when that is read, and everything else is queued.
func (w *writer) save(ctx context.Context) error {
	cursor, err := w.last(ctx) // also shows a new connection before anything counts on it
	if err != nil {
		return err
	}
	w.mu.Lock()
	run, found, previous := w.run.name, w.found, w.previous
	h := head{epoch: w.epoch, base: w.base, by: w.by, cursor: cursor}
	w.gathers = true
	w.mu.Unlock()

	began := w.now()
	facts, n := w.state()
	h.term, h.edition, h.known = n.order().term, n.edition, facts.Known
	if facts.Epoch != h.epoch { // this process leads no more
		return nil
	}
	value := encodeCheckpoint(h, n, facts)
	if err := w.replace(ctx, run, found, h, value); err != nil {
		return err
	}
	if err := w.trimTo(ctx, previous, cursor); err != nil {
		return err
	}
	w.head, w.size, w.since, w.end, w.at, w.checked = h, len(value), 0, cursor, w.now(), w.now()
	w.isSaved(run, h, w.at.Sub(began))
	return nil
}

func (w *writer) last(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, appendTimeout)
	defer cancel()
	return w.remote.last(ctx)
}

// state is what a checkpoint says. The catalog is as new as what is known or
// newer: a leader that finds a change of it known does not look for it in the
// stream.
func (w *writer) state() (coherence.Checkpoint, news) {
	w.Log.mu.Lock()
	defer w.Log.mu.Unlock()
	return w.Checkpoint(), w.Log.news
}

func (w *writer) replace(ctx context.Context, run, found string, h head, value []byte) error {
	ctx, cancel := context.WithTimeout(ctx, checkpointTime(len(value)))
	defer cancel()
	err := w.remote.save(ctx, found, h, value)
	if errors.Is(err, errSuperseded) {
		w.superseded(run)
		w.mu.Lock()
		w.stats.Refused++
		w.mu.Unlock()
	}
	return err
}

// trimTo removes what comes before the checkpoint before: whoever has just
// loaded that still needs the rest. After a flush its cursor may come after
// everything.
func (w *writer) trimTo(ctx context.Context, previous, cursor string) error {
	if previous == "" || compareIDs(previous, cursor) > 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, appendTimeout)
	defer cancel()
	return w.remote.trim(ctx, previous)
}

func (w *writer) isSaved(run string, h head, took time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stats.Checkpoints++
	w.stats.CheckpointBytes, w.stats.CheckpointTook, w.stats.LastCheckpointAt = w.size, took, w.at
	if w.run.name != run { // something was lost meanwhile
		w.nudge()
		return
	}
	if w.troubled {
		w.logger.Info("change log is written again")
	}
	w.saved, w.troubled, w.previous = true, false, h.cursor
	w.said, w.logged = max(w.said, h.known), max(w.logged, h.known)
}

// appendEntry appends what was queued in a run of beats. That run may have
// ended since: another connection has come, or another leader. A record is as
// true as before.
func (w *writer) appendEntry(ctx context.Context, run string, e entry) error {
	if e.record == nil {
		return w.append(ctx, run, e)
	}
	for piece := range pieces(*e.record) {
		e.record = &piece
		if err := w.append(ctx, run, e); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) append(ctx context.Context, run string, e entry) error {
	data := e.encode()
	ctx, cancel := context.WithTimeout(ctx, appendTimeout)
	defer cancel()
	id, err := w.remote.append(ctx, data)
	if err != nil {
		return err
	}
	w.end = id
	w.since += len(data)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stats.Entries++
	w.stats.Bytes += uint64(len(data))
	if w.run.name != run {
		w.nudge()
		return nil
	}
	switch {
	case e.record != nil:
		w.logged = max(w.logged, e.record.To)
	case e.beat != nil:
		w.run, w.beating, w.acked = *e.beat, false, w.now()
	}
	return nil
}

func (w *writer) failed(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stats.Errors++
	w.stats.LastError = err.Error()
	w.lost()
	if !w.troubled && !errors.Is(err, errSuperseded) {
		w.logger.Warn("change log cannot be written; a checkpoint follows when it can", "error", err)
		w.troubled = true
	}
}

// compareIDs orders IDs of entries as Redis does: by time, then by count.
func compareIDs(a, b string) int {
	timeA, countA := parseID(a)
	timeB, countB := parseID(b)
	return cmp.Or(cmp.Compare(timeA, timeB), cmp.Compare(countA, countB))
}

// parseID takes an ID apart. What is none comes first.
func parseID(id string) (time, count uint64) {
	t, c, _ := strings.Cut(id, "-")
	time, _ = strconv.ParseUint(t, 10, 64)
	count, _ = strconv.ParseUint(c, 10, 64)
	return time, count
}
