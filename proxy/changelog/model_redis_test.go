package changelog

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// copyOfRedis is a server with the log and the checkpoint, as the model has it.
// One that was cut off goes on beside the one that took its place.
type copyOfRedis struct {
	w    *world
	name int // connections to another one are new

	entries  []kept // all since the copy was made, in order
	first    int    // of those that are not trimmed
	trims    []trimmed
	last     kept // the ID that comes before the next, whatever became of its entry
	clock    time.Duration
	values   []saved // of the checkpoint, in order
	stalled  bool
	dead     bool
	full     bool
	waiting  []func() // commands that came while it was stalled
	appended chan struct{}
}

type kept struct {
	at     time.Time
	ms     int64
	count  int
	stored stored
}

type trimmed struct {
	at    time.Time
	first int
}

type saved struct {
	at    time.Time
	value []byte
}

func newCopy(w *world) *copyOfRedis {
	w.copies++
	return &copyOfRedis{w: w, name: w.copies, appended: make(chan struct{})}
}

// asOf is another copy, with the log as it was at one time and the checkpoint as
// it was at another.
func (c *copyOfRedis) asOf(log, checkpoint time.Time, clock time.Duration) *copyOfRedis {
	n := newCopy(c.w)
	n.clock = clock
	first := 0
	for _, t := range c.trims {
		if !t.at.After(log) {
			first = t.first
		}
	}
	for i, e := range c.entries {
		if !e.at.After(log) {
			n.last = e
			if i >= first {
				n.entries = append(n.entries, e)
			}
		}
	}
	for _, v := range c.values {
		if !v.at.After(checkpoint) {
			n.values = append(n.values, v)
		}
	}
	return n
}

func (c *copyOfRedis) checkpoint() []byte {
	if len(c.values) == 0 {
		return nil
	}
	return c.values[len(c.values)-1].value
}

func (c *copyOfRedis) put(value []byte) { c.values = append(c.values, saved{time.Now(), value}) }

// flush forgets everything, the last ID too.
func (c *copyOfRedis) flush() { c.forgetLog(); c.put(nil) }

func (c *copyOfRedis) forgetLog() {
	c.trimTo(len(c.entries))
	c.last = kept{}
}

func (c *copyOfRedis) trimTo(first int) {
	if first > c.first {
		c.first = first
		c.trims = append(c.trims, trimmed{time.Now(), first})
	}
}

func (c *copyOfRedis) add(data []byte) string {
	ms, count := time.Now().Add(c.clock).UnixMilli(), 0
	if ms <= c.last.ms {
		ms, count = c.last.ms, c.last.count+1
	}
	e := kept{at: time.Now(), ms: ms, count: count, stored: stored{fmt.Sprintf("%d-%d", ms, count), data}}
	c.entries, c.last = append(c.entries, e), e
	close(c.appended)
	c.appended = make(chan struct{})
	return e.stored.id
}

// after returns what XREAD does: it is no error to ask for what was trimmed, or
// has not come yet.
func (c *copyOfRedis) after(id string, limit int) (found []stored) {
	time, count := parseID(id)
	for i := len(c.entries); i > c.first; i-- {
		if e := c.entries[i-1]; e.ms < int64(time) || e.ms == int64(time) && e.count <= int(count) {
			break
		}
		found = append(found, c.entries[i-1].stored)
	}
	slices.Reverse(found)
	return found[:min(len(found), limit)]
}

func (c *copyOfRedis) resume() {
	c.stalled = false
	c.w.random.Shuffle(len(c.waiting), func(i, j int) { c.waiting[i], c.waiting[j] = c.waiting[j], c.waiting[i] })
	for _, command := range c.waiting {
		command()
	}
	c.waiting = nil
}

// client is a process's connection to Redis, for one purpose.
type client struct {
	p       *process
	random  *rand.Rand
	to      *copyOfRedis
	number  uint64
	renewed func()
	readAt  time.Time // for a check that is switched off
}

var (
	errRefused = errors.New("connection refused")
	errFull    = errors.New("OOM command not allowed")
)

// do has a command executed: perhaps, and perhaps later than the caller waits.
func do[T any](ctx context.Context, c *client, command func(*copyOfRedis) (T, error)) (nothing T, err error) {
	type answer struct {
		value T
		err   error
	}
	answers := make(chan answer, 1)
	if !c.p.runs() {
		return nothing, context.Canceled
	}
	time.Sleep(time.Duration(200_000 + c.random.IntN(800_000)))
	to := c.connect()
	w := c.p.w
	w.mu.Lock()
	execute := func() {
		value, err := command(to)
		answers <- answer{value, err}
	}
	switch cut := c.p.cutFromRedis; {
	case to.dead || to != w.redisOf(c.p):
		w.mu.Unlock()
		c.to = nil
		return nothing, errRefused
	case !cut && !to.stalled:
		execute()
	case !cut: // it waits in the server's socket, whoever waits for it
		to.waiting = append(to.waiting, execute)
	case c.random.IntN(3) == 0: // only the answer is lost
		_, _ = command(to)
	case c.random.IntN(2) == 0: // it comes through at last
		w.later(time.Duration(c.random.Int64N(int64(4*time.Second))), func() {
			if !to.dead {
				_, _ = command(to)
			}
		})
	}
	w.mu.Unlock()
	select {
	case a := <-answers:
		if !c.p.runs() {
			return nothing, context.Canceled
		}
		return a.value, a.err
	case <-ctx.Done():
		c.to = nil // the next command takes another connection
		return nothing, ctx.Err()
	}
}

// connect returns the server that the client is connected to.
func (c *client) connect() *copyOfRedis {
	w := c.p.w
	w.mu.Lock()
	to := w.redisOf(c.p)
	w.mu.Unlock()
	if c.to != to {
		c.to = to
		c.number++
		if c.renewed != nil {
			c.renewed()
		}
	}
	return to
}

// writingClient is the remote of a process, as redisLog is.
type writingClient struct {
	readingClient
	writing *client
	registry
}

// readingClient is a source of a process, as redisSource is.
type readingClient struct{ *client }

func (c *writingClient) append(ctx context.Context, data []byte) (string, error) {
	return do(ctx, c.writing, func(r *copyOfRedis) (string, error) {
		if r.full {
			return "", errFull
		}
		return r.add(data), nil
	})
}

func (c *writingClient) last(ctx context.Context) (string, error) {
	return do(ctx, c.writing, func(r *copyOfRedis) (string, error) {
		if r.first == len(r.entries) {
			return fromTheStart, nil
		}
		return r.entries[len(r.entries)-1].stored.id, nil
	})
}

func (c *writingClient) trim(ctx context.Context, before string) error {
	_, err := do(ctx, c.writing, func(r *copyOfRedis) (bool, error) {
		first := r.first
		for first < len(r.entries) && compareIDs(r.entries[first].stored.id, before) < 0 {
			first++
		}
		r.trimTo(first)
		return true, nil
	})
	return err
}

func (c *writingClient) intact(ctx context.Context, h head, ids ...string) (bool, error) {
	return do(ctx, c.writing, func(r *copyOfRedis) (bool, error) {
		if lineOf(string(r.checkpoint())) != h.line() {
			return false, nil
		}
		for _, e := range r.entries[r.first:] {
			ids = slices.DeleteFunc(ids, func(id string) bool { return id == e.stored.id })
		}
		return len(ids) == 0, nil
	})
}

// save does what the script does; TestRedis_ReplacesACheckpoint compares them.
func (c *writingClient) save(ctx context.Context, found string, h head, value []byte) error {
	if broken("checkpoint-first") && c.p.savedIn == h.epoch {
		return nil
	}
	_, err := do(ctx, c.writing, func(r *copyOfRedis) (bool, error) {
		switch {
		case r.full:
			return false, errFull
		case !replaces(lineOf(string(r.checkpoint())), found, h) && !broken("compare-and-set"):
			return false, errSuperseded
		}
		r.put(value)
		return true, nil
	})
	if err == nil {
		c.p.savedIn = h.epoch
	}
	return err
}

// replaces is what the script decides about a line that is there.
func replaces(line, found string, h head) bool {
	was := parseHead(line)
	follows := was.epoch != "" && (was.epoch == h.epoch || was.epoch == h.base)
	later := was.term > h.term || was.by == h.by && (was.edition > h.edition || was.known > h.known)
	return line == "" || line == found || follows && !later
}

func (c readingClient) line(ctx context.Context) (string, error) {
	return do(ctx, c.client, func(r *copyOfRedis) (string, error) { return lineOf(string(r.checkpoint())), nil })
}

func (c readingClient) load(ctx context.Context) ([]byte, error) {
	return do(ctx, c.client, func(r *copyOfRedis) ([]byte, error) { return r.checkpoint(), nil })
}

func (c readingClient) read(ctx context.Context, after string, limit int, block time.Duration) ([]stored, uint64, error) {
	type read struct {
		entries []stored
		more    chan struct{}
	}
	get := func(r *copyOfRedis) (read, error) { return read{r.after(after, limit), r.appended}, nil }
	asked := c.p.now()
	found, err := do(ctx, c.client, get)
	if err == nil && len(found.entries) == 0 && block > 0 {
		select {
		case <-found.more:
		case <-time.After(block):
		case <-ctx.Done():
		}
		found, err = do(ctx, c.client, get)
	}
	if broken("two-beats") {
		c.believe(found.entries)
	}
	if len(found.entries) < limit {
		c.readAt = asked
	}
	if broken("connection") {
		return found.entries, 0, err
	}
	return rewrite(found.entries), c.number, err
}

// believe takes one beat for proof.
func (c readingClient) believe(entries []stored) {
	for _, s := range entries {
		if e, err := decodeEntry(s.data); err == nil && e.beat != nil && e.beat.at <= c.p.log.Checkpoint().Known && !c.readAt.IsZero() {
			c.p.log.Tracker.Beat(e.epoch, c.readAt)
		}
	}
}

// rewrite has entries say what a reader would see that lacks one of its checks.
func rewrite(entries []stored) []stored {
	if !broken("gap") && !broken("position") && !broken("news") {
		return entries
	}
	for i, s := range entries {
		e, err := decodeEntry(s.data)
		if err != nil {
			continue
		}
		if e.record != nil && broken("gap") {
			e.record.From = 0
		}
		if e.beat != nil && broken("position") {
			e.beat.at = 0
		}
		if e.beat != nil && broken("news") {
			e.beat.news = order{}
		}
		entries[i].data = e.encode()
	}
	return entries
}
