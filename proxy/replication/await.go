package replication

import (
	"context"
	"fmt"
	"time"
)

// Whoever holds the slot leads. The others wait on one connection, change
// nothing, and look ten times a second whether it has become free; the server
// itself takes it from a holder that died, froze or was cut off (stream.go).

const (
	awaitEvery = 100 * time.Millisecond
	// lookTimeout bounds a look at the slot: a server that froze answers nothing,
	// and by the time it does, another may be the primary.
	lookTimeout = 5 * time.Second
	// strangerAfter is how long a stranger holds the slot before that is worth a
	// warning: one of our own that has just begun may not know its cluster yet.
	strangerAfter = 3 * time.Second
	// nameTimeout is how long a session waits for the name of its cluster.
	nameTimeout = time.Second
)

// learnName is the application name of this session's connections. It waits a
// moment where the cluster has a name and it is not known yet.
func (s *session) learnName(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, nameTimeout)
	defer cancel()
	for s.config.Cluster != nil && s.config.Cluster() == "" && ctx.Err() == nil {
		time.Sleep(10 * time.Millisecond)
	}
	return s.applicationName()
}

// await returns when nobody holds the slot, or there is none.
func (s *session) await(ctx context.Context) error {
	every := time.NewTicker(awaitEvery)
	defer every.Stop()
	var holder *holder
	for {
		slot, err := s.look(ctx)
		if err != nil {
			return err
		}
		if slot == nil || slot.ActivePID == 0 {
			s.update(func(st *Status) { st.State, st.Stranger = stateConnecting, false })
			return nil
		}
		holder = s.waiting(slot, holder)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-every.C:
		}
	}
}

func (s *session) look(ctx context.Context) (*Slot, error) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	return findSlot(ctx, s.sql, s.config.Slot)
}

// holder is who holds the slot while this process waits.
type holder struct {
	pid    int32
	since  time.Time
	warned bool
}

// waiting says for whom this process waits, once for each holder.
func (s *session) waiting(slot *Slot, before *holder) *holder {
	s.last.worked = true
	stranger := s.stranger(slot)
	reason := fmt.Sprintf("the replication slot is held by pid %d (%s)", slot.ActivePID, slot.Holder)
	if stranger {
		reason += ", which is not of this cluster"
	}
	s.update(func(st *Status) { st.State, st.Reason, st.Stranger, st.Slot = stateWaiting, reason, stranger, slot })
	tell(s.beats.take(), false) // who waits for a beat (see CatchUp)
	h := before
	if h == nil || h.pid != slot.ActivePID {
		h = &holder{pid: slot.ActivePID, since: time.Now()}
		s.config.Log.Info("waiting for the replication slot", "slot", slot.Name, "pid", slot.ActivePID, "holder", slot.Holder)
	}
	if stranger && !h.warned && time.Since(h.since) > strangerAfter {
		h.warned = true
		s.config.Log.Warn("the replication slot is held by another cluster, or by another program; until it lets go, nothing is known to be fresh here",
			"slot", slot.Name, "pid", slot.ActivePID, "holder", slot.Holder,
			"try", "give this cluster a slot of its own with --slot; it may use the same --publication")
	}
	return h
}

// stranger reports that none of this cluster holds the slot, as far as it can be
// told: the cluster's own name may not be known yet.
func (s *session) stranger(slot *Slot) bool {
	if s.config.Cluster != nil && s.config.Cluster() == "" {
		return false
	}
	return slot.Application != s.applicationName()
}
