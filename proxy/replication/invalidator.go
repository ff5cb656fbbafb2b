package replication

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"walcache/proxy/coherence"
)

// Invalidator tells all processes through the change stream which pages and
// groups count no longer. One message is under way at a time, and whatever comes
// meanwhile goes with the next: each waits for the database's disk, and for a
// thousand writes a second there is no time to wait a thousand times.
//
// What it was told it tells, whoever waits for it: while the database does not
// answer it keeps that and tries again. All methods may be called concurrently.
type Invalidator struct {
	witness *Witness
	log     *slog.Logger
	sender  sync.WaitGroup // the goroutine that sends, while there is anything to send

	mu      sync.Mutex // guards the following
	next    *notice    // nil if nothing waits
	sending bool
	closed  bool
}

// notice is what goes with one message.
type notice struct {
	hashes map[coherence.Hash]struct{}
	all    bool          // they were too many
	at     coherence.LSN // of the message. Written before sent is closed.
	sent   chan struct{}
}

// maxNotice is how many hashes wait for one message. Of more it makes everything:
// that is not much worse after an outage in which so many came together.
const maxNotice = 1 << 14

// NewInvalidator makes one that sends by way of a witness.
func NewInvalidator(w *Witness, log *slog.Logger) *Invalidator {
	return &Invalidator{witness: w, log: log.With("component", "replication")}
}

// Invalidate returns once these hashes of pages and groups are known to have
// changed, and everything that was committed before the call, as wait says: it
// returns once everything up to a position is known. When ctx ends it returns its
// error, and goes on telling.
func (i *Invalidator) Invalidate(ctx context.Context, hashes []coherence.Hash, wait func(context.Context, coherence.LSN) error) error {
	n := i.add(hashes)
	select {
	case <-n.sent:
		return wait(ctx, n.at)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (i *Invalidator) add(hashes []coherence.Hash) *notice {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.next == nil {
		i.next = &notice{hashes: map[coherence.Hash]struct{}{}, sent: make(chan struct{})}
	}
	n := i.next
	for _, h := range hashes {
		n.hashes[h] = struct{}{}
	}
	if len(n.hashes) > maxNotice {
		n.all = true
		clear(n.hashes)
	}
	if !i.sending && !i.closed {
		i.sending = true
		i.sender.Go(i.send)
	}
	return n
}

// take returns what is to be sent, or nil when there is nothing, and then nobody
// sends any more.
func (i *Invalidator) take() *notice {
	i.mu.Lock()
	defer i.mu.Unlock()
	n := i.next
	i.next, i.sending = nil, n != nil
	return n
}

// send sends until nothing waits.
func (i *Invalidator) send() {
	for n := i.take(); n != nil; n = i.take() {
		if !i.tell(n) {
			return
		}
	}
}

// tell sends one message, and tries until it succeeds. It reports false when the
// witness was closed.
func (i *Invalidator) tell(n *notice) bool {
	const sayEvery = 30 * time.Second
	var said time.Time
	pause := retryFirst
	for failed := 1; ; failed++ {
		at, err := i.witness.ask(i.witness.life, "tell what requests made stale", func(ctx context.Context, db *pgx.Conn) (coherence.LSN, error) {
			return announceNow(ctx, db, n.line())
		})
		if err == nil {
			if failed > 1 {
				i.log.Info("other processes are told again what requests made stale", "failed", failed-1)
			}
			n.at = at
			close(n.sent)
			return true
		}
		if i.witness.life.Err() != nil {
			return false
		}
		if time.Since(said) > sayEvery {
			said = time.Now()
			i.log.Warn("cannot tell other processes what requests made stale; they may answer with it until the database answers",
				"failed", failed, "err", err)
		}
		select {
		case <-time.After(pause):
			pause = min(2*pause, retryLast)
		case <-i.witness.life.Done():
			return false
		}
	}
}

// line is that of the message (see Prefix).
func (n *notice) line() string {
	if n.all {
		return "floor " + coherence.Everything
	}
	line := make([]byte, 0, len("stale")+17*len(n.hashes))
	line = append(line, "stale"...)
	for h := range n.hashes {
		line = append(append(line, ' '), h.Text()...)
	}
	return string(line)
}

// closeInvalidator is how long Close waits for what is still to be told.
const closeInvalidator = time.Second

// Close tells what is still to be told, if that takes no longer than a second, and
// closes the witness. Nothing may be told later.
func (i *Invalidator) Close() {
	i.mu.Lock()
	i.closed = true
	i.mu.Unlock()
	late := time.AfterFunc(closeInvalidator, i.witness.end)
	i.sender.Wait()
	late.Stop()
	i.witness.Close()
}
