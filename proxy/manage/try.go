package manage

import (
	"context"
	"crypto/rand"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"walcache/proxy/cache"
	"walcache/proxy/guard"
	"walcache/proxy/store"
)

// Tried is what cache-test answers.
type Tried struct {
	Working   bool    `json:"cache_working"` // each step of each layer that this process has was right
	Original  string  `json:"original_value"`
	Cached    *string `json:"cached_value"` // as the farthest layer gave it back; null if it did not
	Backend   string  `json:"cache_backend"`
	Timestamp string  `json:"timestamp"`
	Steps     []Step  `json:"steps"`
	Error     string  `json:"error,omitempty"`
	Try       string  `json:"try,omitempty"`
}

// Step is something that was tried with a layer.
type Step struct {
	Step  string  `json:"step"`  // write, read, expire, read again
	Layer string  `json:"layer"` // memory or redis
	OK    bool    `json:"ok"`
	Took  float64 `json:"took_ms"`
	What  string  `json:"what"`
}

// layer is where a sample is tried.
type layer struct {
	name string
	set  func(cache.Key, *cache.Page)
	// get returns what is under a key, or nil; answered is false if the layer did
	// not say.
	get    func(context.Context, cache.Key) (page *cache.Page, answered bool)
	forget func(cache.Key)
	why    func() string // why what was set may not be there; "" if nothing is known against it
}

func (m *Manager) layers() (all []layer) {
	if m.Memory != nil {
		all = append(all, layer{
			name: cache.Memory.String(), set: m.Memory.Set, forget: m.Memory.Delete,
			get: func(_ context.Context, key cache.Key) (*cache.Page, bool) { return m.Memory.Get(key), true },
			why: func() string { return "" },
		})
	}
	if m.Pages != nil {
		before := m.Pages.Stats()
		all = append(all, layer{
			name: cache.Redis.String(), get: m.below,
			set:    func(key cache.Key, page *cache.Page) { m.Pages.Set(key, page, nil) },
			forget: func(cache.Key) {}, // it expires there
			why:    func() string { return whyNot(before, m.Pages.Stats()) },
		})
	}
	return all
}

// below reads a page from Redis, which answered if nothing failed meanwhile.
func (m *Manager) below(ctx context.Context, key cache.Key) (page *cache.Page, answered bool) {
	before := m.Pages.Stats()
	page = m.Pages.Get(ctx, key)
	after := m.Pages.Stats()
	return page, page != nil || after.Failures == before.Failures && after.Skipped == before.Skipped
}

// whyNot says what went wrong with Redis between two readings of its counters. A
// page that was late already when its turn came says nothing of Redis.
func whyNot(before, after store.RedisStats) string {
	if after.BreakerOpen || after.Failures > before.Failures {
		return "Redis does not answer"
	}
	var reasons []string
	for reason, n := range after.Dropped {
		if n > before.Dropped[reason] && reason != "expired" {
			reasons = append(reasons, reason)
		}
	}
	if len(reasons) == 0 {
		return ""
	}
	slices.Sort(reasons)
	return "pages are not written there: " + strings.Join(reasons, ", ")
}

// lifetimes are those of a sample: one that is over before it can be read says
// nothing but that the machine is busy, and is followed by one that lives longer.
var lifetimes = []time.Duration{time.Second, 5 * time.Second}

// try has every layer keep a page of its own that no client can ask for, and
// looks whether it is there, and gone when its time is over. All layers are tried
// at the same time.
func (m *Manager) try(w http.ResponseWriter, r *http.Request) {
	if !m.trying.TryLock() {
		guard.WriteJSON(w, http.StatusConflict, guard.Problem("the cache is being tested for somebody else", "ask again in a few seconds"))
		return
	}
	defer m.trying.Unlock()
	now := time.Now().UTC().Format(stamp)
	t := Tried{Working: true, Original: "Cache test at " + now, Backend: m.backend(), Timestamp: now, Steps: []Step{}}
	trials := m.tryAll(r.Context(), t.Original)
	for _, trial := range trials {
		t.Steps, t.Cached = append(t.Steps, trial.steps...), trial.read
	}
	for _, s := range t.Steps {
		if !s.OK && t.Working {
			t.Working, t.Error = false, s.Layer+", "+s.Step+": "+s.What
			t.Try = "see /status on the admin port for what it says of this layer"
		}
	}
	status := http.StatusOK
	if !t.Working {
		status = http.StatusServiceUnavailable
	}
	guard.WriteJSON(w, status, t)
}

// backend names the layers.
func (m *Manager) backend() string {
	if m.Pages != nil {
		return "memory and Redis"
	}
	return "memory"
}

func (m *Manager) tryAll(ctx context.Context, value string) []trial {
	layers := m.layers()
	trials := make([]trial, len(layers))
	var group sync.WaitGroup
	for i, l := range layers {
		group.Go(func() {
			for _, lifetime := range lifetimes {
				trials[i] = trial{layer: l, key: cache.Key{Scheme: "cache-test", Host: rand.Text(), Target: "/"}, value: value}
				if trials[i].run(ctx, lifetime); !trials[i].late || ctx.Err() != nil {
					return
				}
			}
		})
	}
	group.Wait()
	return trials
}

// trial is what one sample shows of a layer.
type trial struct {
	layer
	key   cache.Key
	value string

	steps []Step
	read  *string // nil if it was not there
	late  bool    // its time was over before it was seen, and nothing else is known against the layer
}

// spare is how long a sample may still be there when its time is over: by whose
// clock that is, it is not ours.
const spare = time.Second

// run ends when the sample's time is over and spare, or ctx has ended.
func (t *trial) run(ctx context.Context, lifetime time.Duration) {
	defer t.forget(t.key)
	over := time.Now().Add(lifetime)
	t.step("write", func() (bool, string) {
		t.set(t.key, cache.NewSample([]byte(t.value), lifetime))
		return true, "a page that lives for " + lifetime.String()
	})
	if !t.step("read", func() (bool, string) { return t.reads(ctx, over) }) {
		return
	}
	t.step("expire", func() (bool, string) {
		until(ctx, over, func() bool { return false })
		return ctx.Err() == nil, "its time is over"
	})
	t.step("read again", func() (bool, string) { return t.gone(ctx, over.Add(spare)) })
}

// reads waits until the sample is there: a layer may take what it is given later.
func (t *trial) reads(ctx context.Context, over time.Time) (ok bool, what string) {
	until(ctx, over, func() bool {
		page, _ := t.get(ctx, t.key)
		if body := page.Sample(); body != nil {
			t.read = new(string(body))
		}
		return t.read != nil
	})
	switch why := t.why(); {
	case t.read != nil && *t.read == t.value:
		return true, "what was written"
	case t.read != nil:
		return false, "not what was written"
	case why != "":
		return false, why
	}
	t.late = true
	return false, "nothing is there while it should be"
}

// gone waits until the layer says that the sample is not there.
func (t *trial) gone(ctx context.Context, end time.Time) (ok bool, what string) {
	what = "it is still there"
	ok = until(ctx, end, func() bool {
		page, answered := t.get(ctx, t.key)
		if !answered {
			what = "Redis does not answer"
		}
		return page == nil && answered
	})
	if ok {
		what = "nothing is there"
	}
	return ok, what
}

func (t *trial) step(name string, do func() (ok bool, what string)) bool {
	began := time.Now()
	ok, what := do()
	took := float64(time.Since(began).Microseconds()) / 1000
	t.steps = append(t.steps, Step{Step: name, Layer: t.name, OK: ok, Took: took, What: what})
	return ok
}

// until asks for a fact every few milliseconds, and reports whether it held before
// the time was over and ctx ended.
func until(ctx context.Context, over time.Time, fact func() bool) bool {
	ctx, cancel := context.WithDeadline(ctx, over)
	defer cancel()
	for !fact() {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(5 * time.Millisecond):
		}
	}
	return true
}
