package manage

import (
	"context"
	"time"
)

const (
	// signalsWithin is how long a test may take, and cleanWithin how long it may
	// take then to delete its row.
	signalsWithin = time.Minute
	cleanWithin   = 30 * time.Second
	// leftAfter is how old a row is that no test has any more: signalsWithin, a call
	// under way then, and cleanWithin are less than half of it. Both times are the
	// service's, that of the row and that of its answer. Should they differ by more
	// than the other half, a test that runs loses its row, and says so.
	leftAfter = 4 * time.Minute

	sweepAgain  = 30 * time.Second // while there are rows that are too young
	sweepRetry  = 2 * time.Second  // while the service is away
	sweepRounds = 100              // of a hundred rows, in one go
)

// sweep deletes the rows of tests that were killed, of this process and of any
// other: those that are older than a test can last. It returns when there is none
// left, or ctx has ended; while the service is away it tries again. At most what
// tests have left behind is deleted, so any number of processes may do it at once.
func (m *Manager) sweep(ctx context.Context) {
	if m.Prefix == "" || !m.canWrite() {
		return
	}
	for failed := false; ; {
		deleted, young, err := m.sweepOnce(ctx)
		if deleted > 0 {
			m.Log.Info("deleted what a test of signals had left behind", "rows", deleted)
		}
		wait := sweepAgain
		switch {
		case err == nil && young == 0:
			return
		case err != nil:
			wait = sweepRetry
			if !failed {
				m.Log.Info("cannot look yet for what tests of signals have left behind", "error", err)
			}
			failed = true
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// settle waits for a test that runs: whoever stops the process gives it the time
// to delete its row, which takes no longer than cleanWithin once its client has
// been cut off.
func (m *Manager) settle() {
	m.signalling.Lock()
	defer m.signalling.Unlock()
}

// canWrite reports whether this process may change the service's data.
func (m *Manager) canWrite() bool {
	return m.APIToken != "" && m.Upstream != "" && m.Tracker != nil
}

// sweepOnce deletes the rows that are old enough, and counts those that are not.
// One that cannot be deleted does not keep the others.
func (m *Manager) sweepOnce(ctx context.Context) (deleted, young int, err error) {
	rows := m.rows()
	for range sweepRounds {
		found, now, e := rows.find(ctx, markBegins)
		if e != nil {
			return deleted, young, e
		}
		young, err = 0, nil
		before := deleted
		for _, r := range found {
			if now.Sub(r.CreatedAt) < leftAfter {
				young++
				continue
			}
			if ctx.Err() != nil {
				return deleted, young, ctx.Err()
			}
			if e := rows.remove(ctx, r.ID); e != nil {
				err = e
				continue
			}
			deleted++
		}
		if deleted == before || len(found) < 100 { // there are no others to be deleted
			break
		}
	}
	return deleted, young, err
}
