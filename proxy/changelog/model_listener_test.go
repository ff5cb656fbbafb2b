package changelog

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"walcache/proxy/coherence"
)

// listener is package replication, as the model has it: sessions that take the
// slot, decide on the epoch, and follow the stream.
type listener struct {
	p        *process
	random   *rand.Rand
	session  int
	epoch    string
	known    coherence.LSN
	received coherence.LSN
	visible  coherence.LSN
	told     coherence.LSN
	pending  []unseen
	term     coherence.LSN
	off      bool
	tables   int
	safe     []mark
	unasked  time.Time // since when the server has answered nothing
}

type unseen struct {
	end     coherence.LSN
	visible func() bool
}

type mark struct {
	at  time.Time
	lsn coherence.LSN
}

// state is what it leaves to the next leader.
type state struct {
	Epoch   string
	Lineage lineage
	Made    int
}

type lineage struct{ Recoveries int }

var (
	errHeld = errors.New("the slot is held")
	errLost = errors.New("the connection is lost")
	errDown = errors.New("the database is away")
	errTold = errors.New("told that another leads")
)

const (
	confirmAfter = 10 * time.Second
	silence      = 6 * time.Second
)

// run is Listener.Run.
func (l *listener) run() {
	pause := time.Duration(0)
	for l.p.runs() {
		began := time.Now()
		s := &listener{p: l.p, random: l.random, session: l.session + 1}
		l.session++
		err := s.lead()
		if errors.Is(err, errHeld) {
			time.Sleep(100*time.Millisecond + l.jitter())
			continue
		}
		if time.Since(began) > 2*time.Second {
			pause = 0
		}
		l.p.trace("session ends: %v", err)
		time.Sleep(pause + l.jitter())
		pause = min(max(2*pause, 100*time.Millisecond), 2*time.Second)
	}
}

func (l *listener) jitter() time.Duration {
	return time.Duration(l.random.Int64N(int64(time.Millisecond)))
}

// ask is a question to the database, answered after a moment, unless it is away
// or the process is cut off from it.
func (l *listener) ask(question func(*database) error) error {
	w := l.p.w
	for {
		if !l.p.runs() {
			return errLost
		}
		time.Sleep(time.Duration(100_000 + l.random.IntN(1_500_000)))
		w.mu.Lock()
		if !l.p.cutFromDatabase && !w.database.stalled {
			break
		}
		w.mu.Unlock()
		if l.unasked.IsZero() {
			l.unasked = time.Now()
		}
		if time.Since(l.unasked) > silence {
			return errLost
		}
		time.Sleep(50 * time.Millisecond)
	}
	defer w.mu.Unlock()
	l.unasked = time.Time{}
	if w.database.down {
		return errDown
	}
	return question(&w.database)
}

// lead is one session.
func (l *listener) lead() error {
	var was lineage
	var confirmed coherence.LSN
	made := false
	err := l.ask(func(d *database) error {
		d.release()
		if d.slot.holder != nil {
			return errHeld
		}
		was = lineage{d.recoveries}
		if d.slot.confirmed == 0 {
			made = true
			d.nudge()
			d.slot.confirmed = d.insert
			d.off = nil // a message that was sent while there was no slot reaches nobody
		}
		d.slot.holder, d.slot.heard = l, time.Now()
		confirmed = d.slot.confirmed
		d.insert += 24 // a message, sent while the slot is held: nobody else's term is the same
		d.nudge()
		l.term = d.insert
		return nil
	})
	if err != nil {
		return err
	}
	defer l.yield()
	past, err := l.p.log.Lead(l.p.ctx)
	if err != nil {
		return err
	}
	if err := l.resume(past, was, confirmed, made); err != nil {
		return err
	}
	return l.stream()
}

func (l *listener) yield() {
	l.p.log.Yield()
	w := l.p.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.database.slot.holder == l && !l.p.cutFromDatabase { // else the server does not hear of it
		w.database.slot.holder = nil
	}
}

// resume is what takeover.go does.
func (l *listener) resume(past coherence.Past, was lineage, confirmed coherence.LSN, made bool) error {
	var insert coherence.LSN
	var commits int
	var running []unseen
	err := l.ask(func(d *database) error {
		insert, commits, l.tables = d.insert, d.made, d.tables
		for _, c := range d.commits {
			if c.lsn <= confirmed && c.visible.After(time.Now()) {
				running = append(running, unseen{0, c.isVisible})
				if broken("in-progress") {
					running = append(running, unseen{confirmed, c.isVisible})
				}
			}
		}
		running = append(running, unseen{confirmed, func() bool { return true }})
		return nil
	})
	if err != nil {
		return err
	}
	log := l.p.log
	before := log.Catalog()
	if before == nil {
		before = &coherence.Catalog{}
	}
	l.off = before.Off
	why := continues(past, was, insert, commits, confirmed, made)
	switch {
	case broken("term"):
		l.term = max(insert, before.Term+1)
	case before.Term >= l.term && why == "": // of someone who has taken over since
		return errTold
	default:
		l.term = max(l.term, before.Term+1)
	}
	l.epoch, l.known = past.Epoch, past.Known
	if why != "" {
		l.epoch, l.known = l.p.w.epoch(why), 0
	}
	left, err := json.Marshal(state{l.epoch, was, commits})
	if err != nil {
		return err
	}
	l.p.trace("leads in %s at %s (%s), confirmed %s", l.epoch, past.Known, why, confirmed)
	log.Keep(left)
	visible := min(past.Visible, confirmed)
	if why != "" {
		log.Begin(l.epoch, confirmed)
		visible = 0
	}
	l.publish()
	l.received, l.visible = confirmed, visible
	if visible != confirmed {
		l.pending = running
	}
	return nil
}

// continues is past.broken: why it does not, or "".
func continues(past coherence.Past, now lineage, insert coherence.LSN, commits int, confirmed coherence.LSN, made bool) string {
	var left state
	switch err := json.Unmarshal(past.State, &left); {
	case past.Epoch == "":
		return "process started"
	case err != nil || left.Epoch != past.Epoch:
		return "what was left cannot be read"
	case left.Lineage != now && !broken("lineage"):
		return "the server recovered from a crash"
	case insert < past.Known:
		return "the server is behind"
	case commits < left.Made:
		return "the server's next transaction is behind"
	case made:
		return "the slot is new"
	case confirmed > past.Known && !broken("slot"):
		return "the slot was confirmed beyond"
	}
	return ""
}

// publish gives the sink a catalog. The version of the tables stands for what is
// in it.
func (l *listener) publish() {
	l.p.log.SetCatalog(&coherence.Catalog{
		Tables: map[string]coherence.Table{"t": {Columns: map[string]coherence.Kind{"id": coherence.Integer}}},
		Blind:  []string{strconv.Itoa(l.tables)}, Off: l.off, Term: l.term,
	})
}

// stream is the goroutines of a session, one after the other.
func (l *listener) stream() error {
	var beatAt, keepAt, watchAt, m, sampled time.Time
	var target coherence.LSN
	for {
		time.Sleep(15*time.Millisecond + 10*l.jitter())
		now := time.Now()
		if err := l.receive(); err != nil {
			return err
		}
		if err := l.observe(); err != nil {
			return err
		}
		if m.IsZero() && !now.Before(beatAt) {
			m = l.p.now()
			if err := l.ask(func(d *database) error { target = d.insert; return nil }); err != nil {
				return err
			}
			sampled, beatAt = time.Now(), now.Add(200*time.Millisecond)
		}
		if !m.IsZero() && l.received >= target {
			if err := l.beat(m); err != nil {
				return err
			}
			m = time.Time{}
		} else if !m.IsZero() && time.Since(sampled) > 20*time.Millisecond {
			if err := l.ask(func(d *database) error { d.nudge(); return nil }); err != nil {
				return err
			}
		}
		if !now.Before(keepAt) {
			keepAt = now.Add(time.Second)
			if err := l.confirm(now); err != nil {
				return err
			}
		}
		if !now.Before(watchAt) {
			watchAt = now.Add(time.Second)
			if err := l.watch(); err != nil {
				return err
			}
		}
	}
}

func (l *listener) beat(m time.Time) error {
	l.p.trace("beat %s", m)
	if broken("sampled") { // as if the one before had been acknowledged already
		w := l.p.log.writer
		w.mu.Lock()
		w.run.count, w.beating, w.acked = w.run.count+1, false, time.Time{}
		w.mu.Unlock()
	}
	if err := l.p.log.Beat(l.epoch, m); !broken("beat-error") {
		return err
	}
	return nil
}

// receive takes what the stream brings.
func (l *listener) receive() error {
	var found []*commit
	var sent coherence.LSN
	err := l.ask(func(d *database) error {
		if d.slot.holder != l {
			return errLost
		}
		d.slot.heard = time.Now()
		found, sent = slices.Clone(d.after(l.received)), d.flushed
		return nil
	})
	if err != nil {
		return err
	}
	for _, c := range found {
		if err := l.apply(c); err != nil {
			return err
		}
		if l.random.IntN(8) == 0 {
			time.Sleep(l.jitter())
		}
	}
	if sent > l.received { // a keepalive
		if err := l.say(coherence.Record{From: l.received, To: sent}); err != nil {
			return err
		}
		l.received = sent
	}
	return nil
}

func (l *listener) apply(c *commit) error {
	r := coherence.Record{From: l.received, To: c.lsn}
	if c.row < 0 && c.lsn > l.known {
		l.off = c.off
		l.publish()
	}
	if c.row >= 0 {
		for _, hash := range moves[c.row] {
			r.Changes = append(r.Changes, coherence.Change{Hash: hash, At: c.lsn})
		}
		r.Tables = []coherence.TableChanges{{Table: "t", Rows: 1}}
	}
	if err := l.say(r); err != nil {
		return err
	}
	l.received = c.lsn
	l.pending = append(l.pending, unseen{c.lsn, c.isVisible})
	return nil
}

// moves are what a change of each row moves.
var moves = func() (all [rows][3]coherence.Hash) {
	for row := range all {
		all[row] = [3]coherence.Hash{rowTag(row).Hash(), coherence.Tag("t").Hash(), coherence.Any.Hash()}
	}
	return all
}()

func rowTag(row int) coherence.Tag { return coherence.RowTag("t", "id", strconv.Itoa(row)) }

func (l *listener) say(r coherence.Record) error {
	r.Epoch = l.epoch
	return l.p.log.Apply(r)
}

// observe is the barrier.
func (l *listener) observe() error {
	received := l.received
	err := l.ask(func(*database) error {
		for len(l.pending) > 0 && l.pending[0].visible() {
			l.visible, l.pending = max(l.visible, l.pending[0].end), l.pending[1:]
		}
		if len(l.pending) == 0 {
			l.visible = max(l.visible, received)
		}
		return nil
	})
	if err != nil || l.visible <= l.told {
		return err
	}
	l.told = l.visible
	return l.say(coherence.Record{From: l.visible, To: l.visible, Visible: l.visible})
}

// confirm is confirm.go.
func (l *listener) confirm(now time.Time) error {
	safe, lag := min(l.visible, l.p.log.Logged()), confirmAfter
	if broken("confirm-lag") || broken("slot") {
		safe, lag = l.visible, 0
	}
	l.safe = append(l.safe, mark{now, safe})
	var confirmed coherence.LSN
	for _, m := range l.safe {
		if now.Sub(m.at) >= lag {
			confirmed = max(confirmed, m.lsn)
		}
	}
	return l.ask(func(d *database) error {
		if d.slot.holder == l {
			d.slot.confirmed = max(d.slot.confirmed, confirmed)
		}
		return nil
	})
}

// watch finds tables altered.
func (l *listener) watch() error {
	before := l.tables
	err := l.ask(func(d *database) error {
		l.tables = d.tables
		if d.slot.holder != l {
			return errLost
		}
		return nil
	})
	if err == nil && l.tables != before {
		l.publish()
	}
	return err
}
