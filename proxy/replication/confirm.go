package replication

import (
	"context"
	"fmt"
	"time"

	"walcache/proxy/coherence"
)

const (
	// confirmAfter is for how long a position has been safe before PostgreSQL may
	// forget what lies before it. Replays cost nothing, and where the records are
	// kept the last seconds may be lost.
	confirmAfter = 10 * time.Second
	// confirmUnlogged is for how long one that is not safe is held back.
	confirmUnlogged = time.Minute
)

// keep confirms positions, and ends the session when the server has fallen
// silent.
//
// Invariant: confirmed <= logged <= known, and confirmed <= visible. PostgreSQL
// may forget what lies before confirmed, so it follows only once whoever leads
// next finds all of that in the records, and nothing of it can be unseen.
//
// The exception: what is not logged is confirmed all the same when it has waited
// for a minute, or when half of the WAL that the slot may keep is kept. A full
// disk is worse than a cold cache: whoever leads next finds that what is known
// ends before the slot's confirmed position, and begins an epoch.
//
// Kept by confirmable; see TestSession_ConfirmsNothingThatIsNotLogged.
func (s *session) keep(ctx context.Context) error {
	c := confirmable{log: s.config.Log}
	every := time.NewTicker(time.Second)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case now := <-every.C:
			if s.stream.silent() {
				return fmt.Errorf("%w: the server has been silent for %s", errStream, s.stream.silence)
			}
			visible, _ := s.barrier.position()
			s.stream.confirm(c.add(now, visible, s.sink.Logged(), s.pressed()))
			confirmed := s.stream.confirmedUpTo()
			s.update(func(st *Status) { st.Confirmed = confirmed })
		}
	}
}

// pressed reports that the slot keeps half of the WAL that it may keep.
func (s *session) pressed() bool {
	slot := s.Status().Slot
	return slot != nil && s.config.MaxRetainedWAL > 0 && slot.Retained > s.config.MaxRetainedWAL/2
}

// confirmable remembers for how long positions have been visible, and safe.
type confirmable struct {
	visible, safe marks
	told          bool // that it goes on without the change log
	log           interface{ Warn(msg string, args ...any) }
}

// add notes what is visible and logged now, and returns what may be confirmed.
// pressed says that it is urgent.
func (c *confirmable) add(now time.Time, visible, logged coherence.LSN, pressed bool) coherence.LSN {
	c.visible.add(now, visible)
	c.safe.add(now, min(visible, logged))
	safe := c.safe.before(now.Add(-confirmAfter))
	overdue := now.Add(-confirmUnlogged)
	if pressed {
		overdue = now.Add(-confirmAfter)
	}
	forced := c.visible.before(overdue)
	if forced <= logged {
		c.told = false
	} else if !c.told {
		c.told = true
		c.log.Warn("positions are confirmed that the change log does not have, so that PostgreSQL need not keep them; the next leader will begin an epoch",
			"logged", logged, "confirmed", forced)
	}
	return max(safe, forced)
}

// marks are positions and when they were reached, oldest first.
type marks []mark

type mark struct {
	at  time.Time
	lsn coherence.LSN
}

// add notes a position. Of the marks that are older than anybody asks for, it
// keeps the last.
func (m *marks) add(now time.Time, lsn coherence.LSN) {
	*m = append(*m, mark{now, lsn})
	for len(*m) > 1 && now.Sub((*m)[1].at) >= confirmUnlogged {
		*m = (*m)[1:]
	}
}

// before is the last position that was reached at that time or earlier, or 0.
func (m marks) before(t time.Time) (lsn coherence.LSN) {
	for _, mark := range m {
		if !mark.at.After(t) {
			lsn = mark.lsn
		}
	}
	return lsn
}
