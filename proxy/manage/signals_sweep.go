package manage

import (
	"context"
	"errors"
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
	sweepRetry  = 2 * time.Second  // while the service is away, and twice as long each time
	sweepSeldom = time.Minute      // at most
	sweepRounds = 100              // of a hundred rows, in one go
)

// sweep deletes the rows of tests that were killed, of this process and of any
// other: those that are older than a test can last. It returns when there is none
// left, or ctx has ended, or the service has another API or refuses this process;
// while the service is away it tries again, less and less often. At most what tests
// have left behind is deleted, so any number of processes may do it at once.
func (m *Manager) sweep(ctx context.Context) {
	if !m.canWrite() {
		return
	}
	for failures := 0; ; {
		deleted, young, err := m.sweepOnce(ctx)
		if deleted > 0 {
			m.Log.Info("deleted what a test of signals had left behind", "rows", deleted)
		}
		if err == nil && failures > 0 {
			m.Log.Info("could look for what tests of signals had left behind", "failures", failures)
		}
		var why cannot
		switch {
		case err == nil && young == 0, ctx.Err() != nil:
			return
		case errors.As(err, &why) && why.lasting():
			m.Log.Info("what tests of signals have left behind stays until the next test", "error", err, "try", why.next)
			return
		case err == nil:
			failures = 0
		default:
			if failures++; failures == 1 {
				m.Log.Info("cannot look yet for what tests of signals have left behind", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(sweepPause(failures)):
		}
	}
}

// sweepPause is how long to wait after so many failures in succession.
func sweepPause(failures int) time.Duration {
	if failures == 0 {
		return sweepAgain
	}
	return min(sweepRetry<<min(failures-1, 10), sweepSeldom)
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
