package manage

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"time"

	"walcache/proxy/coherence"
	"walcache/proxy/guard"
	"walcache/proxy/querysets"
)

// signalTest creates, changes and deletes a row of its own, and watches the
// answers of this proxy follow. It leaves nothing behind:
//
//   - Whatever ends it, its client going away too, it deletes its row
//     (clean); a write that is under way is waited for, or nobody would know
//     whether there is a row.
//   - Should the process be killed, the next one that starts or tests deletes the
//     row once no test can have it any more (signals_sweep.go).
//   - Only a row that has the exact form of a test's is ever deleted, and only as
//     it was seen (rows.remove).
//
// Two processes that test at once have each a row, locations and a search of
// their own. Their lists they share, and look there for their own row.
type signalTest struct {
	*Manager
	rows  rows
	base  string // scheme and host that clients ask under
	title string
	// patience is how long after a change an answer may be as it was before.
	patience time.Duration

	row   row  // as the service said it last; ID is 0 while there is none
	wrote bool // there may be a row, or may have been
	// unsure says that a row may have been created although the service did not
	// say so.
	unsure bool
	result signalResult
}

// signalResult is what came of it. Times are milliseconds.
type signalResult struct {
	Success     bool          `json:"success"`
	Message     string        `json:"message"`
	Property    *row          `json:"property"`
	CacheBefore querysetCache `json:"cache_before"`
	CacheAfter  querysetCache `json:"cache_after"`
	Note        string        `json:"note"`
	Timestamp   string        `json:"timestamp"`

	Passed     bool         `json:"passed"`
	Verdict    string       `json:"verdict"`
	Failures   []string     `json:"failures"`
	Disturbed  []string     `json:"disturbed"` // what says nothing, since others changed it meanwhile
	Steps      []signalStep `json:"steps"`
	LeftBehind int          `json:"left_behind"` // rows of this test; -1 if that is not known
	Swept      int          `json:"swept"`       // rows that earlier tests had left behind
	Error      string       `json:"error,omitempty"`
	Try        string       `json:"try,omitempty"`
	Seconds    float64      `json:"seconds"`
}

// querysetCache is how the two querysets that everybody knows stand. What is kept
// and has changed since does not count as cached.
type querysetCache struct {
	All      bool             `json:"all_properties_cached"`
	Count    bool             `json:"property_count_cached"`
	Keys     QuerysetKeys     `json:"cache_keys"`
	Timeouts QuerysetTimeouts `json:"cache_timeouts"` // seconds
}

// signals tests whether changes arrive. A test that ran and did not pass is a
// 500, so that a script needs to look at nothing else: this proxy then may serve
// what is no longer so. One that could not run is a 502 where the service is the
// reason, and a 403 or 503 where something is missing here.
func (m *Manager) signals(w http.ResponseWriter, r *http.Request) {
	a, err := readAsked(r, maxAsked, "probe")
	probes := err == nil && a.yes("probe")
	if err == nil {
		err = a.err
	}
	if err != nil {
		guard.WriteJSON(w, http.StatusBadRequest, guard.Problem(err.Error(), `send nothing, or {"probe": true}`))
		return
	}
	if status, problem := m.cannotTest(probes); status != 0 {
		guard.WriteJSON(w, status, problem)
		return
	}
	if !m.signalling.TryLock() {
		guard.WriteJSON(w, http.StatusConflict, guard.Problem("a test of signals runs already", "wait for its end, at most two minutes"))
		return
	}
	defer m.signalling.Unlock()
	ctx, cancel := context.WithTimeout(r.Context(), signalsWithin)
	defer cancel()
	if probes {
		result := m.probe(ctx)
		guard.WriteJSON(w, passedStatus(result.Passed, result.Error), result)
		return
	}
	host, _ := m.hostOf(r, "")
	t := m.newSignalTest(host, rand.Text())
	t.run(ctx)
	guard.WriteJSON(w, passedStatus(t.result.Passed, t.result.Error), t.result)
}

func (m *Manager) newSignalTest(host, name string) *signalTest {
	return &signalTest{Manager: m, rows: m.rows(), base: m.scheme() + "://" + host, title: markBegins + name, patience: followWithin}
}

func passedStatus(passed bool, problem string) int {
	switch {
	case passed:
		return http.StatusOK
	case problem != "":
		return http.StatusBadGateway
	}
	return http.StatusInternalServerError
}

// cannotTest says what this process lacks for a test, with the status for it.
func (m *Manager) cannotTest(probes bool) (status int, problem map[string]string) {
	switch {
	case m.Tracker == nil:
		return http.StatusServiceUnavailable, guard.Problem("this process follows no database, so no change arrives here",
			"ask a process that was given --database-url (DATABASE_URL) or --redis-url (REDIS_URL)")
	case probes && (m.Announcer == nil || m.Records == nil):
		return http.StatusServiceUnavailable, guard.Problem("this process has no database to send a message through",
			"ask a process that was given --database-url (DATABASE_URL)")
	case probes:
		return 0, nil
	case m.Cache == nil:
		return http.StatusServiceUnavailable, guard.Problem(errNoCache.Error(), "ask a process that runs proxy serve")
	case !m.canWrite():
		return http.StatusForbidden, guard.Problem("this proxy has no API_TOKEN, so it cannot change the service's data",
			`give it the service's API_TOKEN (--api-token-file); or, for any service, send {"probe": true} (proxy cache test-signals --probe)`)
	}
	return 0, nil
}

// run tests, cleans up, and judges.
func (t *signalTest) run(ctx context.Context) {
	began, r := time.Now(), &t.result
	r.Failures, r.Disturbed, r.Steps, r.LeftBehind = []string{}, []string{}, []signalStep{}, -1
	err := t.steps(ctx)
	var why cannot
	switch {
	case errors.As(err, &why):
		r.Error, r.Try = why.what, why.next
	case err != nil:
		r.Error, r.Try = "the test was ended before it was through: "+err.Error(), "test again"
	}
	t.clean(ctx)
	t.judge()
	r.Timestamp, r.Seconds = time.Now().UTC().Format(stamp), time.Since(began).Seconds()
	t.Log.Info("tested signals", "passed", r.Passed, "verdict", r.Verdict, "took", time.Since(began))
}

// judge says in words what the steps say.
func (t *signalTest) judge() {
	r := &t.result
	if r.LeftBehind != 0 {
		r.Failures = append(r.Failures, fmt.Sprintf("the row %q may still be there", t.title))
	}
	r.Passed = r.Error == "" && len(r.Failures) == 0
	r.Success = r.Passed
	slowest := 0.0
	for _, s := range r.Steps {
		for _, a := range s.Answers {
			slowest = max(slowest, a.After)
		}
	}
	switch {
	case r.Error != "":
		r.Verdict = "not tested to the end: " + r.Error
	case !r.Passed:
		r.Verdict = fmt.Sprintf("failed: %s", r.Failures[0])
	case len(r.Disturbed) > 0:
		r.Verdict = fmt.Sprintf("passed: every answer followed within %.1f ms; less is proven of what was disturbed: %s", slowest, r.Disturbed[0])
	default:
		r.Verdict = fmt.Sprintf("passed: every answer followed within %.1f ms, and nothing else went stale", slowest)
	}
	r.Message = "Test property created, changed and deleted: " + r.Verdict
	r.Note = "cache_before is before the test property was created; cache_after says whether what was kept then counted once it was. If signals are working, it does not"
}

// clean deletes what the test has created, also when its client is gone.
func (t *signalTest) clean(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanWithin)
	defer cancel()
	if !t.wrote {
		t.result.LeftBehind = 0
		return
	}
	if t.row.ID != 0 {
		tag := idTag(t.row.ID)
		was := t.Tracker.MovedAt(tag.Hash())
		if t.rows.remove(ctx, t.row.ID) == nil {
			t.learn(ctx, tag, was)
		}
	}
	// A row that nobody was told of may come yet: the service may be at it.
	const looks, pause = 10, 500 * time.Millisecond
	for range looks {
		found, _, err := t.rows.find(ctx, t.title)
		if err == nil {
			if t.result.LeftBehind = len(found); len(found) == 0 && !t.unsure {
				return
			}
			for _, r := range found {
				_ = t.rows.remove(ctx, r.ID) // it is looked for again
			}
			t.unsure = t.unsure && len(found) == 0
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// learn waits a moment until this process knows that a tag has moved: find reads
// by what it knows.
func (t *signalTest) learn(ctx context.Context, tag coherence.Tag, was coherence.LSN) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	for t.Tracker.MovedAt(tag.Hash()) == was {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Millisecond):
		}
	}
}

// known are the querysets that everybody knows, as they are kept now. Without Redis,
// or while it is away, none is.
func (m *Manager) known(ctx context.Context) map[string]querysets.Queryset {
	known := map[string]querysets.Queryset{}
	if m.redis == nil {
		return known
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	list, _, err := querysets.List(ctx, m.redis, m.RedisPrefix, 0)
	for _, q := range list {
		if err == nil {
			known[q.Name] = q
		}
	}
	return known
}

// counting says which of them count: those whose tags have not moved since.
func (m *Manager) counting(known map[string]querysets.Queryset) querysetCache {
	all, count := querysets.Known[0], querysets.Known[1]
	counts := func(name string) bool {
		q, ok := known[name]
		return ok && m.state(q, time.Now()) == coherence.Fresh.String()
	}
	return querysetCache{counts(all), counts(count), QuerysetKeys{all, count}, QuerysetTimeouts{Lists: 3600, Counts: 1800}}
}
