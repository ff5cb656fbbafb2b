package manage

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"walcache/proxy/coherence"
)

const (
	probeRounds = 10
	probeWithin = 5 * time.Second // for each
	// probeTag is what is said to have changed: the table none of a schema of that
	// name, which nobody has. Nothing depends on it.
	probeTag coherence.Tag = "walcache-probe.none"
)

// probeResult is how long a message took from being sent. Times are milliseconds.
// That every process has it is known from what they report every 250 ms, so
// everywhere is that much more than it took.
type probeResult struct {
	Success    bool     `json:"success"`
	Message    string   `json:"message"`
	Note       string   `json:"note"`
	Timestamp  string   `json:"timestamp"`
	Probe      bool     `json:"probe"`
	Passed     bool     `json:"passed"`
	Verdict    string   `json:"verdict"`
	Rounds     int      `json:"rounds"`
	Committed  spread   `json:"committed_ms"`  // by the database
	Here       spread   `json:"here_ms"`       // known to this process
	Everywhere spread   `json:"everywhere_ms"` // known to every process that is alive
	Processes  int      `json:"processes"`
	Behind     []string `json:"behind"` // those that it did not reach
	Position   string   `json:"position"`
	LeftBehind int      `json:"left_behind"` // a message leaves nothing
	Error      string   `json:"error,omitempty"`
	Try        string   `json:"try,omitempty"`
}

type spread struct {
	Min float64 `json:"min"`
	P50 float64 `json:"p50"`
	Max float64 `json:"max"`
}

func spreadOf(times []time.Duration) spread {
	slices.Sort(times)
	return spread{millis(quantile(times, 1)), millis(quantile(times, 50)), millis(quantile(times, 100))}
}

// probe sends messages through the change stream, one after the other, and
// measures until this process and all others have them. It works before any
// service, and touches none of its data.
func (m *Manager) probe(ctx context.Context) (r probeResult) {
	r = probeResult{Probe: true, Behind: []string{}, Timestamp: time.Now().UTC().Format(stamp),
		Note: "processes report every 250 ms what they know, so that everywhere is up to as much more than it took"}
	var committed, here, everywhere []time.Duration
	var err error
	for r.Rounds < probeRounds && err == nil {
		var took [3]time.Duration
		var at coherence.LSN
		if at, took, r.Behind, err = m.probeOnce(ctx); err == nil {
			committed, here, everywhere = append(committed, took[0]), append(here, took[1]), append(everywhere, took[2])
			r.Position = at.String()
			r.Rounds++
		}
	}
	r.Committed, r.Here, r.Everywhere = spreadOf(committed), spreadOf(here), spreadOf(everywhere)
	r.Processes = 1
	if members, err := m.Records.Members(ctx); err == nil {
		r.Processes = max(1, len(members))
	}
	r.Passed = err == nil
	r.Success = r.Passed
	r.Verdict = fmt.Sprintf("passed: a change is known here within %.1f ms, and on every process within %.1f ms", r.Here.Max, r.Everywhere.Max)
	var why cannot
	switch {
	case errors.As(err, &why):
		r.Error, r.Try = why.what, why.next
		r.Verdict = "not tested to the end: " + why.what
	case err != nil:
		r.Verdict = fmt.Sprintf("failed in round %d: %v", r.Rounds+1, err)
	}
	r.Message = "Test message sent through the change stream: " + r.Verdict
	return r
}

// probeOnce sends a message. A cannot says that it was not sent, any other error
// that it did not arrive.
func (m *Manager) probeOnce(ctx context.Context) (at coherence.LSN, took [3]time.Duration, behind []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, probeWithin)
	defer cancel()
	behind = []string{}
	began := time.Now()
	if at, err = m.Announcer.Announce(ctx, "bump "+string(probeTag)); err != nil {
		return 0, took, behind, cannot{what: err.Error(), next: "see /status for what the listener says, and test again"}
	}
	took[0] = time.Since(began)
	if err := m.Records.Wait(ctx, at); err != nil {
		return 0, took, behind, fmt.Errorf("the message did not become known here within %s", probeWithin)
	}
	took[1] = time.Since(began)
	missing, err := m.Records.WaitAll(ctx, at)
	for _, member := range missing {
		behind = append(behind, member.Name)
	}
	if err != nil {
		return 0, took, behind, fmt.Errorf("whether every process has the message is not known after %s: %w", probeWithin, err)
	}
	took[2] = time.Since(began)
	return at, took, behind, nil
}
