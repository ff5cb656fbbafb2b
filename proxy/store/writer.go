package store

import (
	"context"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"walcache/proxy/cache"
)

// queue is the pages that wait to be written, first come, first served. It is
// bounded by bytes and by number, and holds one page of a key: a newer one takes
// the place of the one that waits.
type queue struct {
	wake chan struct{} // holds a value when something changed

	mu     sync.Mutex // guards the following
	pages  map[cache.Key]waiting
	order  []cache.Key
	bytes  int
	closed bool
}

const (
	queuePages = 4096
	queueBytes = 32 << 20
	batchPages = 64
	batchBytes = 1 << 20
)

// waiting is a page in line.
type waiting struct {
	key  cache.Key
	page *cache.Page          // nil to remove what is there
	then []func(written bool) // told what became of it, or of one in its place
}

func (w waiting) size() int {
	if w.page == nil {
		return 0
	}
	return w.page.Size()
}

func (w waiting) tell(written bool) {
	for _, then := range w.then {
		then(written)
	}
}

func newQueue() *queue {
	return &queue{wake: make(chan struct{}, 1), pages: map[cache.Key]waiting{}}
}

// put reports whether there was room.
func (q *queue) put(w waiting) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	before, replaces := q.pages[w.key]
	bytes := q.bytes + w.size()
	if replaces {
		bytes -= before.size()
	}
	full := bytes > queueBytes || !replaces && len(q.pages) >= queuePages
	if q.closed || full && len(q.pages) > 0 {
		return false
	}
	if !replaces {
		q.order = append(q.order, w.key)
	}
	w.then = append(before.then, w.then...)
	q.pages[w.key], q.bytes = w, bytes
	q.signal()
	return true
}

// take removes the first pages, as many as are written at a time.
func (q *queue) take() (batch []waiting) {
	q.mu.Lock()
	defer q.mu.Unlock()
	bytes := 0
	for len(q.order) > 0 && len(batch) < batchPages && bytes < batchBytes {
		key := q.order[0]
		w := q.pages[key]
		q.order = q.order[1:]
		delete(q.pages, key)
		bytes += w.size()
		batch = append(batch, w)
	}
	q.bytes -= bytes
	return batch
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.signal()
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default: // somebody has told already
	}
}

func (q *queue) state() (pages int, closed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.pages), q.closed
}

// The reasons why a page was not written, as the statistics name them.
const (
	droppedBehind   = "behind"    // too many wait already
	droppedFailed   = "failed"    // Redis did not take it
	droppedExpired  = "expired"   // it was of no use any more when its turn came
	droppedTooLarge = "too_large" // for what may be read at once
	droppedOOM      = "oom"       // Redis has no memory, or had none a moment ago
	droppedRoom     = "room"      // Redis has what is left for the change log
)

const (
	writeTime = time.Second // for a batch

	// What a page takes up in Redis beside its bytes: key and objects, in bytes,
	// and up to a quarter more, because allocations come in classes of sizes.
	keyOverhead = 256
)

// write writes what is in line until the queue is closed and empty, or ctx ends.
func (r *Redis) write(ctx context.Context) {
	w := writer{Redis: r}
	for {
		pages, closed := r.queue.state()
		switch {
		case pages > 0 && r.ready():
			w.batch(ctx, r.queue.take())
		case closed: // and nothing there, or nobody to take it
			return
		case pages > 0:
			sleep(ctx, 20*time.Millisecond)
		default:
			select {
			case <-r.queue.wake:
			case <-ctx.Done():
			}
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// ready reports whether Redis answers, and has told its time.
func (r *Redis) ready() bool { return !r.breaker.isOpen() && r.watch.clock.Load() != nil }

// writer is the goroutine that writes.
type writer struct {
	*Redis
	// Once Redis has refused a page for want of memory, all are dropped for so
	// long, and then one is tried; it doubles while that is refused too. 0 means
	// that the last one was taken.
	pause time.Duration
	full  bool // as said last
}

const (
	firstOOMPause   = time.Second
	longestOOMPause = 30 * time.Second
)

// batch writes pages, or drops them.
func (w *writer) batch(ctx context.Context, pages []waiting) {
	pages = w.remove(ctx, pages)
	switch {
	case len(pages) == 0:
		return
	case w.watch.room.Load() <= 0:
		w.drop(droppedRoom, pages...)
		return
	case w.watch.pausing():
		w.drop(droppedOOM, pages...)
		return
	case w.pause > 0:
		w.send(ctx, pages[:1])
		if w.pause > 0 {
			w.drop(droppedOOM, pages[1:]...)
			return
		}
		pages = pages[1:]
	}
	w.send(ctx, pages)
}

// remove removes those that are to be removed, which takes no room, and returns
// the others. One that fails is left there: nothing is wrong with it but that it is
// older than it could be.
func (w *writer) remove(ctx context.Context, pages []waiting) (others []waiting) {
	ctx, cancel := context.WithTimeout(ctx, writeTime)
	defer cancel()
	pipe := w.client.Pipeline()
	var name string
	for _, p := range pages {
		if p.page != nil {
			others = append(others, p)
			continue
		}
		name = w.name(p.key)
		pipe.Unlink(ctx, name)
		p.tell(false)
	}
	if pipe.Len() == 0 {
		return others
	}
	if _, err := pipe.Exec(ctx); err != nil {
		w.breaker.failed(name, err)
	}
	return others
}

// drop gives pages up.
func (r *Redis) drop(reason string, pages ...waiting) {
	r.count.dropped.add(reason, len(pages))
	for _, p := range pages {
		p.tell(false)
	}
}

// sent is a page on its way.
type sent struct {
	waiting
	name  string
	reply *redis.Cmd
	bytes int
}

// send writes pages in one pipeline.
//
// A page expires at a time by Redis' own clock and not some time after it gets
// there. How old it is, its readers tell by the time that is left (see
// cache.DecodePage), and Redis may get it late:
//
//  1. A page is sent. 2. Redis stands still, for minutes. 3. It goes on, finds
//     the command in a buffer, and has the page live for as long as if it had
//     been made just now.
//
// See TestRedis_APageThatArrivesLateIsNoYounger.
func (w *writer) send(ctx context.Context, pages []waiting) {
	ctx, cancel := context.WithTimeout(ctx, writeTime)
	defer cancel()
	pipe := w.client.Pipeline()
	var batch []sent
	for _, p := range pages {
		now := time.Now()
		data, ttl := p.page.Encode(p.key, now, w.limit)
		switch {
		case data != nil:
			name, expires := w.name(p.key), w.watch.clock.Load().at(now).Add(ttl)
			reply := pipe.Do(ctx, "set", name, data, "pxat", expires.UnixMilli())
			batch = append(batch, sent{p, name, reply, len(data)})
		case ttl > 0:
			w.drop(droppedTooLarge, p)
		default:
			w.drop(droppedExpired, p)
		}
	}
	if len(batch) == 0 {
		return
	}
	_, _ = pipe.Exec(ctx) // each reply has its error
	var failed *sent
	for i, s := range batch {
		if !w.arrived(s) {
			failed = &batch[i]
		}
	}
	if failed != nil {
		w.breaker.failed(failed.name, failed.reply.Err())
	} else {
		w.breaker.succeeded()
	}
}

// arrived takes note of what became of a page, and reports whether Redis
// answered.
func (w *writer) arrived(s sent) bool {
	err := s.reply.Err()
	switch {
	case err == nil:
		w.count.writes.Add(1)
		w.count.bytesWritten.Add(uint64(s.bytes))
		w.watch.room.Add(-int64(s.bytes + s.bytes/4 + keyOverhead))
		w.pause = 0
		s.tell(true)
		w.say(&w.full, false, "", "Redis takes pages again")
	case redis.IsOOMError(err):
		w.drop(droppedOOM, s.waiting)
		w.refused()
	default:
		w.drop(droppedFailed, s.waiting)
		return false
	}
	return true
}

// refused stops writing for a while.
func (w *writer) refused() {
	if w.watch.pausing() {
		return // another one of the same batch
	}
	w.say(&w.full, true, "Redis is full: pages are not written there", "", "try", moreMemory)
	w.pause = min(max(2*w.pause, firstOOMPause), longestOOMPause)
	w.watch.until.Store(time.Now().Add(w.pause).UnixNano())
}
