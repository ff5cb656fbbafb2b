package changelog

import (
	"math/rand/v2"
	"time"

	"walcache/proxy/coherence"
)

// database is PostgreSQL, as the model has it. As there, a commit is sent to a
// follower of the change stream before others see it, and whoever made it is
// told last; with synchronous_commit = off, before it is sent.
type database struct {
	commits []*commit // in the order of their LSNs
	rows    [rows]*commit
	off     *commit // the last that switched caching
	insert  coherence.LSN
	flushed coherence.LSN
	made    int // commits, lost ones too

	recoveries int // from a crash
	tables     int // versions of the catalog
	down       bool
	stalled    bool
	slot       slot
}

const rows = 12

// commit changes a row, or switches caching off or on.
type commit struct {
	n       int
	lsn     coherence.LSN
	row     int     // or -1
	off     bool    // if it changes no row
	before  *commit // of the row, or of the switch
	flushed time.Time
	visible time.Time
	told    time.Time // whoever made it
}

func (c *commit) isVisible() bool { return !c.visible.After(time.Now()) }

// includes reports whether a row as of one commit reflects another of it.
func (c *commit) includes(other *commit) bool {
	for ; c != nil && c.n >= other.n; c = c.before {
		if c == other {
			return true
		}
	}
	return false
}

func (c *commit) number() int {
	if c == nil {
		return 0
	}
	return c.n
}

// slot is the replication slot.
type slot struct {
	confirmed coherence.LSN // 0 if there is no slot
	holder    *listener
	heard     time.Time // from the holder
	dropped   int
}

func (d *database) commit(random *rand.Rand) {
	now := time.Now()
	c := &commit{n: d.made + 1, row: random.IntN(rows)}
	var last **commit
	message := random.IntN(40) == 0
	if message {
		c.row, c.off, last = -1, random.IntN(3) == 0, &d.off
	} else {
		last = &d.rows[c.row]
	}
	if c.before = *last; c.before != nil && c.before.visible.After(now) {
		return // it waits for the lock on the row
	}
	*last = c
	d.made++
	d.insert += coherence.LSN(50 + random.IntN(200))
	c.lsn = d.insert
	d.commits = append(d.commits, c)
	c.flushed, c.visible = now, now.Add(time.Duration(random.Int64N(int64(3*time.Millisecond))))
	switch random.IntN(10) {
	case 0: // a standby is waited for
		c.visible = now.Add(time.Duration(random.Int64N(int64(1500 * time.Millisecond))))
	case 1, 2: // asynchronous
		if message { // which is synchronous always
			break
		}
		c.flushed, c.visible = now.Add(time.Duration(random.Int64N(int64(600*time.Millisecond)))), now
	}
	c.told = c.visible.Add(time.Duration(random.Int64N(int64(time.Millisecond))))
	d.write()
}

// write moves flushed: what is flushed takes with it what comes before.
func (d *database) write() {
	now := time.Now()
	for i := len(d.commits); i > 0; i-- {
		c := d.commits[i-1]
		if c.lsn <= d.flushed {
			return
		}
		if !c.flushed.After(now) {
			d.flushed = c.lsn
			return
		}
	}
}

// nudge flushes everything.
func (d *database) nudge() { d.flushed = d.insert }

// after returns what was committed after an LSN and is flushed.
func (d *database) after(lsn coherence.LSN) []*commit {
	d.write()
	to := len(d.commits)
	for to > 0 && d.commits[to-1].lsn > d.flushed {
		to--
	}
	from := to
	for from > 0 && d.commits[from-1].lsn > lsn {
		from--
	}
	return d.commits[from:to]
}

// snapshot is a row, or the switch, as a new snapshot sees it.
func snapshot(last *commit) *commit {
	for last != nil && !last.isVisible() {
		last = last.before
	}
	return last
}

// crash loses what was not flushed. What was committed and flushed is visible
// afterwards, and nobody is told of it any more.
func (d *database) crash() {
	d.write()
	now := time.Now()
	for len(d.commits) > 0 && d.commits[len(d.commits)-1].lsn > d.flushed {
		c := d.commits[len(d.commits)-1]
		d.commits = d.commits[:len(d.commits)-1]
		if c.row < 0 {
			d.off = c.before
		} else {
			d.rows[c.row] = c.before
		}
	}
	for _, c := range d.commits {
		if c.visible.After(now) {
			c.visible = now
		}
		if c.told.After(now) {
			c.told = never
		}
	}
	d.insert = d.flushed
	d.recoveries++
	d.down = true
	d.slot.holder = nil
}

// promote goes on with a standby, which has no slot, and lacks what was flushed
// last.
func (d *database) promote(lacks time.Duration) {
	d.write()
	received := time.Now().Add(-lacks)
	for i := len(d.commits); i > 1 && d.commits[i-1].flushed.After(received); i-- {
		d.flushed = min(d.flushed, d.commits[i-2].lsn)
	}
	d.crash()
	d.dropSlot()
}

var never = time.Date(2999, 1, 1, 0, 0, 0, 0, time.UTC)

// release ends the hold of a slot whose holder has said nothing for too long.
func (d *database) release() {
	if d.slot.holder != nil && time.Since(d.slot.heard) > walSenderTimeout {
		d.slot.holder = nil
	}
}

const walSenderTimeout = 5 * time.Second

func (d *database) dropSlot() {
	d.slot = slot{dropped: d.slot.dropped + 1}
}
