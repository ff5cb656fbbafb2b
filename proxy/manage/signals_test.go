package manage

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"walcache/proxy/coherence"
	"walcache/proxy/sandbox/sandboxtest"
)

const (
	apiToken = "what writes in tests"
	// testName is always the same here: the trackers of these tests are small, and
	// names that have nothing to do with each other may share a slot.
	testName = "AAAAAAAAAAAAAAAAAAAAAAAAAA"
)

// estate is a service with properties, whose changes the stream carries.
type estate struct {
	p    *proxy
	mu   sync.Mutex // guards the following
	rows map[int64]row
	last int64
	// also are tags that each change moves too, at its own place, and other those
	// of a change of somebody else's that comes before each.
	also, other []coherence.Tag
	silent      bool // no change is announced
	// meddle is done before a row is changed or deleted.
	meddle func(id int64)
}

// newEstate is a proxy before a service that has one property.
func newEstate(t *testing.T) *estate {
	t.Helper()
	p := newProxy(t)
	p.APIToken = apiToken
	e := &estate{p: p, rows: map[int64]row{}}
	e.add(row{Title: "somebody's", Description: "a home", Price: "1.00", Location: "Nairobi"})
	p.service.answers(e.serve)
	return e
}

// manager is one that does nothing by itself.
func (e *estate) manager() *Manager {
	e.p.t.Helper()
	m, err := New(e.p.Config, e.p.Sources)
	e.p.must(err)
	e.p.t.Cleanup(func() { _ = m.redis.Close() })
	return m
}

func (e *estate) add(r row) int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.last++
	r.ID = e.last
	if r.CreatedAt.IsZero() {
		r.CreatedAt = time.Now()
	}
	e.rows[r.ID] = r
	return r.ID
}

func (e *estate) titles() (titles []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, r := range e.rows {
		titles = append(titles, r.Title)
	}
	slices.Sort(titles)
	return titles
}

// moved says that rows changed.
func (e *estate) moved(rows ...row) {
	if e.silent {
		return
	}
	if len(e.other) > 0 {
		e.p.stream.commit(e.other...)
	}
	tags := slices.Clone(e.also)
	for _, r := range rows {
		tags = append(tags, idTag(r.ID), locationTag(r.Location))
	}
	e.p.stream.commit(tags...)
}

func (e *estate) serve(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Header.Get("Authorization") != "Bearer "+apiToken {
		http.Error(w, "the token is wrong", http.StatusUnauthorized)
		return
	}
	name, ok := strings.CutPrefix(r.URL.Path, "/properties/")
	if !ok {
		http.NotFound(w, r)
		return
	}
	id, _ := strconv.ParseInt(strings.TrimSuffix(name, "/"), 10, 64)
	if (r.Method == http.MethodPatch || r.Method == http.MethodDelete) && e.meddle != nil {
		e.meddle(id)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	found, exists := e.rows[id]
	var sent row
	_ = json.NewDecoder(r.Body).Decode(&sent)
	switch {
	case r.Method == http.MethodPost:
		e.last++
		sent.ID, sent.CreatedAt = e.last, time.Now()
		e.rows[sent.ID] = sent
		e.moved(sent)
		answerRow(w, http.StatusCreated, sent)
	case id == 0:
		e.list(w, r)
	case r.Method == http.MethodGet:
		w.Header().Set("Cache-Groups", strconv.Quote(string(idTag(id))))
		if !exists {
			http.NotFound(w, r)
			return
		}
		answerRow(w, http.StatusOK, found)
	case !exists:
		http.NotFound(w, r)
	case r.Header.Get("If-Match") != "" && r.Header.Get("If-Match") != etagOf(found):
		http.Error(w, "it is another", http.StatusPreconditionFailed)
	case r.Method == http.MethodPatch:
		was := found
		found.Price, found.Location = sent.Price, sent.Location
		e.rows[id] = found
		e.moved(was, found)
		answerRow(w, http.StatusOK, found)
	case r.Method == http.MethodDelete:
		delete(e.rows, id)
		e.moved(found)
		w.WriteHeader(http.StatusNoContent)
	}
}

func (e *estate) list(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	tag := coherence.TableTag("properties")
	if q.Get("location") != "" {
		tag = locationTag(q.Get("location"))
	}
	list := []row{}
	for _, p := range e.rows {
		if strings.Contains(p.Title, q.Get("search")) && (q.Get("location") == "" || p.Location == q.Get("location")) {
			list = append(list, p)
		}
	}
	slices.SortFunc(list, func(a, b row) int { return int(a.ID - b.ID) })
	w.Header().Set("Cache-Groups", strconv.Quote(string(tag)))
	w.Header().Set("ETag", etagOf(list))
	_ = json.NewEncoder(w).Encode(map[string]any{"properties": list})
}

func etagOf(v any) string {
	text, _ := json.Marshal(v)
	sum := sha256.Sum256(text)
	return strconv.Quote(hex.EncodeToString(sum[:8]))
}

func answerRow(w http.ResponseWriter, status int, r row) {
	w.Header().Set("ETag", etagOf(r))
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(r)
}

// test runs one, which has patience for what is to happen, or none.
func (e *estate) test(patience time.Duration) signalResult {
	e.p.t.Helper()
	before := e.titles()
	t := e.manager().newSignalTest(host, testName)
	t.patience = patience
	t.run(e.p.t.Context())
	if after := e.titles(); !slices.Equal(before, after) || t.result.LeftBehind != 0 {
		e.p.t.Errorf("%q before, %q after, and it says that %d were left behind", before, after, t.result.LeftBehind)
	}
	return t.result
}

func TestSignals_Guard(t *testing.T) { wantGuarded(t, newEstate(t).p, "test-signals") }

func TestSignals_PassesWhereChangesArrive(t *testing.T) {
	r := newEstate(t).test(patience)
	if !r.Passed || !r.Success || passedStatus(r.Passed, r.Error) != http.StatusOK || len(r.Steps) != 3 || len(r.Failures)+len(r.Disturbed) > 0 {
		t.Fatalf("%+v", r)
	}
	for _, s := range r.Steps {
		if s.Position == "0/0" {
			t.Errorf("%s has no position", s.Step)
		}
		for _, c := range s.Controls {
			if c.Outcome != outcomeHit {
				t.Errorf("%s: %+v", s.Step, c)
			}
		}
	}
	if p := r.Property; p.ID == 0 || p.Price != "1500.00" || p.Title != markBegins+testName {
		t.Errorf("%+v", p)
	}
}

func TestSignals_AnswersByBothPorts(t *testing.T) {
	e := newEstate(t)
	m := e.manager()
	for port, ask := range e.p.both(m, "test-signals", "/cache/test-signals") {
		w := ask("")
		for _, key := range []string{"success", "message", "property", "cache_before", "cache_after", "note", "timestamp", "passed", "verdict", "steps", "left_behind"} {
			if _, ok := object(t, w)[key]; !ok {
				t.Errorf("%s: no %s in %s", port, key, w.Body)
			}
		}
		for body, names := range map[string]string{`{`: "JSON", `{"prob": true}`: "prob", `{"probe": "perhaps"}`: "true or false", `[true]`: "JSON"} {
			if w := ask(body); w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), names) || object(t, w)["try"] == nil {
				t.Errorf("%s: %s: %d %s", port, body, w.Code, w.Body)
			}
		}
	}
}

func TestSignals_FailsWhereNoChangeArrives(t *testing.T) {
	e := newEstate(t)
	e.silent = true
	r := e.test(100 * time.Millisecond)
	said := strings.Join(r.Failures, "\n")
	if r.Passed || r.Success || passedStatus(r.Passed, r.Error) != http.StatusInternalServerError ||
		!strings.Contains(said, "had not changed") || !strings.Contains(said, "did not arrive") {
		t.Errorf("%+v", r)
	}
}

func TestSignals_FailsWhereAChangeMakesStaleWhatItHasNothingToDoWith(t *testing.T) {
	e := newEstate(t)
	e.also = []coherence.Tag{idTag(1)}
	r := e.test(patience)
	if r.Passed || len(r.Failures) != 3 || !strings.Contains(r.Failures[0], "/properties/1/") || !strings.Contains(r.Failures[0], "depends on although") {
		t.Errorf("%+v", r)
	}
}

func TestSignals_IsDisturbedAndNotFailedByOthersChanges(t *testing.T) {
	e := newEstate(t)
	e.other = []coherence.Tag{idTag(1)}
	r := e.test(patience)
	if !r.Passed || len(r.Disturbed) != 3 || !strings.Contains(r.Disturbed[0], "another change") || !strings.Contains(r.Verdict, "less is proven") {
		t.Errorf("%+v", r)
	}
}

func TestSignals_ProvesNothingWhereNothingIsCached(t *testing.T) {
	e := newEstate(t)
	c := *e.p.Tracker.Catalog()
	c.Off = true
	e.p.Tracker.SetCatalog(&c)
	r := e.test(patience)
	if r.Passed || !strings.Contains(r.Verdict, "proves nothing") || !strings.Contains(r.Verdict, "off") {
		t.Errorf("%+v", r)
	}
}

func TestSignals_WhatIsMissingIsNamed(t *testing.T) {
	for _, c := range []struct {
		what   string
		change func(*estate)
		status int
		names  []string
	}{
		{"no token", func(e *estate) { e.p.APIToken = "" }, 403, []string{"API_TOKEN", "--probe"}},
		{"a token that is wrong", func(e *estate) { e.p.APIToken = "another" }, 502, []string{"API_TOKEN", "401"}},
		{"no such API", func(e *estate) { e.p.service.answers(http.NotFound) }, 502, []string{"--probe", "404"}},
		{"another API", func(e *estate) {
			e.p.service.answers(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") })
		}, 502, []string{"no list"}},
		{"no service", func(e *estate) { e.p.service.Close() }, 502, []string{"cannot be asked", "--upstream"}},
		{"no database", func(e *estate) { e.p.Tracker = nil }, 503, []string{"--database-url"}},
		{"no cache", func(e *estate) { e.p.Cache = nil }, 503, []string{"proxy serve"}},
	} {
		e := newEstate(t)
		c.change(e)
		w := e.p.both(e.manager(), "", "/cache/test-signals")["back"]("")
		o := object(t, w)
		for _, name := range c.names {
			if said := fmt.Sprint(o["error"], o["try"]); w.Code != c.status || !strings.Contains(said, name) || strings.Contains(said, apiToken) {
				t.Errorf("%s: %d %s", c.what, w.Code, w.Body)
			}
		}
	}
}

func TestSignals_OneAtATime(t *testing.T) {
	e := newEstate(t)
	arrived, goOn := e.p.service.stalled()
	defer goOn()
	m := e.manager()
	ask := e.p.both(m, "test-signals", "/cache/test-signals")["front"]
	ended := make(chan struct{})
	go func() { defer close(ended); ask("") }()
	<-arrived
	if w := ask(""); w.Code != http.StatusConflict || object(t, w)["try"] == nil {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	goOn()
	<-ended
}

// rows of a sweep: what is exactly a test's and old, and what is not.
func (e *estate) leave() (old, stays int64) {
	long := time.Now().Add(-2 * leftAfter)
	mine := row{Title: markBegins + testName, Description: description, Price: "1500.00", Location: "x", CreatedAt: long}
	young, lower, longer, own := mine, mine, mine, mine
	young.CreatedAt = time.Time{}
	lower.Title = markBegins + strings.ToLower(testName)
	longer.Title += "A"
	own.Description = "a home"
	old = e.add(mine)
	e.add(young)
	e.add(lower)
	e.add(longer)
	return old, e.add(own)
}

func TestSignals_ASweepDeletesOnlyWhatIsATestsAndOld(t *testing.T) {
	e := newEstate(t)
	old, _ := e.leave()
	m := e.manager()
	deleted, young, err := m.sweepOnce(t.Context())
	if err != nil || deleted != 1 || young != 1 {
		t.Errorf("%d deleted, %d young, %v", deleted, young, err)
	}
	if _, there := e.rows[old]; there || len(e.rows) != 5 {
		t.Errorf("what is left: %q", e.titles())
	}
}

// takeOver makes of a row a property that somebody wants to keep.
func (e *estate) takeOver(id int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	r := e.rows[id]
	r.Title = "my home"
	e.rows[id] = r
}

func TestSignals_WhatSomebodyTakesOverIsNotChanged(t *testing.T) {
	e := newEstate(t)
	e.meddle = e.takeOver
	s := e.manager().newSignalTest(host, testName)
	s.run(t.Context())
	if r := e.rows[2]; s.result.Passed || !strings.Contains(s.result.Error, "412") || r.Title != "my home" || r.Price != "1500.00" {
		t.Errorf("%+v, %+v", r, s.result)
	}
}

// TestSignals_ARowThatIsSomebodysIsNotBelievedToBeTheTests answers a POST with
// another property than the one that was made.
func TestSignals_ARowThatIsSomebodysIsNotBelievedToBeTheTests(t *testing.T) {
	for _, others := range []row{
		{ID: 1, Title: "somebody's", Description: "a home", Price: "1.00", Location: "Nairobi"},
		{ID: 1, Title: markBegins + testName, Description: "a home", Price: "1.00"},
		{ID: 1, Title: markBegins + strings.Repeat("B", 26), Description: description},
	} {
		e := newEstate(t)
		var writes []string
		e.p.service.answers(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodGet {
				e.mu.Lock()
				writes = append(writes, r.Method+" "+r.URL.Path)
				e.mu.Unlock()
			}
			if r.Method == http.MethodPost {
				e.serve(nobody{}, r)
				answerRow(w, http.StatusCreated, others)
				return
			}
			e.serve(w, r)
		})
		r := e.test(patience)
		if r.Passed || !strings.Contains(r.Error, "another property") || !slices.Equal(writes, []string{"POST /properties/", "DELETE /properties/2/"}) {
			t.Errorf("%q was written, %+v", writes, r)
		}
	}
}

func TestSignals_ASweepKeepsWhatSomebodyChangesMeanwhile(t *testing.T) {
	e := newEstate(t)
	old, _ := e.leave()
	e.meddle = e.takeOver
	deleted, _, err := e.manager().sweepOnce(t.Context())
	var why cannot
	if deleted != 0 || !errors.As(err, &why) || why.status != http.StatusPreconditionFailed || e.rows[old].Title != "my home" {
		t.Errorf("%d deleted, %v", deleted, err)
	}
}

func TestSignals_ASweepWaitsForTheServiceAndEnds(t *testing.T) {
	e := newEstate(t)
	e.add(row{Title: markBegins + testName, Description: description, CreatedAt: time.Now().Add(-2 * leftAfter)})
	var away sync.Once
	asked := make(chan struct{})
	e.p.service.answers(func(w http.ResponseWriter, r *http.Request) {
		first := false
		away.Do(func() { first = true; close(asked) })
		if first {
			http.Error(w, "not yet", http.StatusServiceUnavailable)
			return
		}
		e.serve(w, r)
	})
	m := e.manager()
	swept := make(chan struct{})
	go func() { defer close(swept); m.sweep(t.Context()) }()
	<-asked
	sandboxtest.Eventually(t, patience, func() error {
		if left := e.titles(); len(left) != 1 {
			return fmt.Errorf("%q", left)
		}
		return nil
	})
	<-swept
	m.APIToken = ""
	m.sweep(t.Context()) // without a token there is nothing to be done
}

func TestSignals_ASweepEndsWhereItIsRefusedAndTellsNobodyTheToken(t *testing.T) {
	for what, refuse := range map[string]http.HandlerFunc{
		"the service refuses": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "not you", http.StatusForbidden) },
		"it has another API":  func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") },
		"a login is first":    func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/login", http.StatusFound) },
	} {
		e := newEstate(t)
		var told []string
		e.p.service.answers(func(w http.ResponseWriter, r *http.Request) {
			e.mu.Lock()
			told = append(told, r.Header.Get("Authorization"))
			e.mu.Unlock()
			refuse(w, r)
		})
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		e.manager().sweep(ctx)
		if ctx.Err() != nil || len(told) != 1 || told[0] != "" {
			t.Errorf("%s: it was asked %d times, with %q", what, len(told), told)
		}
	}
}

func TestSignals_ASweepOfAProcessWithoutAPrefix(t *testing.T) {
	e := newEstate(t)
	e.p.Prefix = ""
	e.add(row{Title: markBegins + testName, Description: description, CreatedAt: time.Now().Add(-2 * leftAfter)})
	e.manager().sweep(t.Context())
	if left := e.titles(); len(left) != 1 {
		t.Errorf("%q", left)
	}
}

func TestSweepPause_GrowsUpToAMinute(t *testing.T) {
	for failures, want := range map[int]time.Duration{0: sweepAgain, 1: 2 * time.Second, 2: 4 * time.Second, 5: 32 * time.Second, 6: time.Minute, 1000: time.Minute} {
		if got := sweepPause(failures); got != want {
			t.Errorf("after %d: %s, want %s", failures, got, want)
		}
	}
}

func TestSignals_ASweepEndsWithItsProcess(t *testing.T) {
	e := newEstate(t)
	e.p.service.Close()
	ctx, stop := context.WithCancel(t.Context())
	m := e.manager()
	swept := make(chan struct{})
	go func() { defer close(swept); m.sweep(ctx) }()
	stop()
	<-swept
}

func TestSignals_AWriteWhoseAnswerIsLostIsLookedFor(t *testing.T) {
	e := newEstate(t)
	e.p.service.answers(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			e.serve(nobody{}, r)
			panic(http.ErrAbortHandler)
		}
		e.serve(w, r)
	})
	r := e.test(patience)
	if r.Passed || r.Error == "" || r.LeftBehind != 0 {
		t.Errorf("%+v", r)
	}
}

// nobody gets an answer.
type nobody struct{}

func (nobody) Header() http.Header         { return http.Header{} }
func (nobody) Write(p []byte) (int, error) { return len(p), nil }
func (nobody) WriteHeader(int)             {}
