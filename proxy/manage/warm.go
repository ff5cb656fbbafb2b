package manage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"walcache/proxy/cache"
	"walcache/proxy/guard"
)

// What may be warmed at a time, and what is if nobody says.
const (
	maxWarm, usualWarm                       = 10_000, 100
	maxWarmConnections, usualWarmConnections = 16, 4
	maxWarmAsked                             = 4 << 20 // bytes of a request
	maxWarmAccepts                           = 8
	maxWarmShown                             = 1000 // answers in the result
	maxVariants                              = 32   // of a URL; the cache keeps no more

	// warmWait is how long an answer may take: one that streams has no end.
	warmWait = 30 * time.Second
)

// warming fetches what people ask for, as they would, and then looks whether it
// is a hit.
type warming struct {
	*Manager
	urls        []string
	accepts     []string
	connections int
	wait        time.Duration // for each answer

	mu      sync.Mutex // guards the following
	fetched int        // URLs
	result  warmResult
}

// warmResult is what came of it. Of an URL there may be several answers: one for
// each Accept, if they vary by it.
type warmResult struct {
	Success      bool     `json:"success"` // nothing failed
	Message      string   `json:"message"`
	Timestamp    string   `json:"timestamp"`
	URLs         int      `json:"urls_asked"`
	Asked        int      `json:"asked"` // answers
	Warmed       int      `json:"warmed"`
	Already      int      `json:"already"`
	NotCacheable int      `json:"not_cacheable"`
	Failed       int      `json:"failed"`
	Accepts      []string `json:"accepts"`
	LeftOut      []string `json:"left_out"` // that cannot be asked for from here
	Answers      []warmed `json:"urls"`     // those that are no hit, or failed, first
	More         int      `json:"more"`     // that are not in the list
	Seconds      float64  `json:"seconds"`
}

// warmed is one answer: what it was before, what it is now, and if it is no hit,
// why.
type warmed struct {
	URL    string            `json:"url"`
	Varied map[string]string `json:"varied"` // fields of the request
	Status int               `json:"status"`
	Was    string            `json:"was"`
	Is     string            `json:"is"`
	Why    string            `json:"why,omitempty"`
	Took   float64           `json:"took_ms"`
}

// warmProgress is how far it is.
type warmProgress struct {
	Done    int `json:"done"`
	Of      int `json:"of"`
	Warmed  int `json:"warmed"`
	Already int `json:"already"`
	Failed  int `json:"failed"`
}

// warm fetches paths of this proxy, or what was asked for most.
func (m *Manager) warm(w http.ResponseWriter, r *http.Request) {
	if m.Cache == nil {
		guard.WriteJSON(w, http.StatusServiceUnavailable, guard.Problem(errNoCache.Error(), "ask a process that runs proxy serve"))
		return
	}
	j, err := m.readWarm(r)
	if err != nil {
		guard.WriteJSON(w, http.StatusBadRequest, guard.Problem(err.Error(),
			`send JSON such as {"paths": ["/properties/"], "host": "shop.example"}, {"urls": ["http://shop.example/properties/"]} or {"top": 100}`))
		return
	}
	answer := newTeller(w, r)
	began := time.Now()
	answer.during(func() { j.run(r.Context()) }, j.progress)
	result := j.finish(time.Since(began))
	status := http.StatusOK
	if result.Asked > 0 && result.Failed == result.Asked {
		status = http.StatusBadGateway
	}
	answer.end(status, result)
}

func (m *Manager) readWarm(r *http.Request) (*warming, error) {
	a, err := readAsked(r, maxWarmAsked, "paths", "urls", "host", "top", "connections", "accept")
	if err != nil {
		return nil, err
	}
	j := &warming{Manager: m, wait: warmWait, connections: a.whole("connections", usualWarmConnections, maxWarmConnections), accepts: a.list("accept", maxWarmAccepts)}
	paths, urls, wanted, top := a.list("paths", maxWarm), a.list("urls", maxWarm), a.text("host"), a.whole("top", usualWarm, maxWarm)
	if a.err != nil {
		return nil, a.err
	}
	if len(paths)+len(urls) > 0 && a.values["top"] != nil {
		return nil, errors.New("top is for what was asked for most, and goes with neither paths nor urls")
	}
	if len(j.accepts) == 0 {
		j.accepts = []string{asHTML, asJSON}
	}
	for _, accept := range j.accepts {
		if err := checkAccept(accept); err != nil {
			return nil, err
		}
	}
	host, err := m.hostOf(r, wanted)
	if err != nil {
		return nil, err
	}
	j.result.LeftOut = []string{}
	if len(paths)+len(urls) == 0 {
		j.mostRequested(top)
		return j, nil
	}
	return j, j.take(host, paths, urls)
}

// take notes the URLs that are given.
func (j *warming) take(host string, paths, urls []string) error {
	for _, path := range paths {
		if err := j.checkPath(path); err != nil {
			return err
		}
		j.urls = append(j.urls, j.scheme()+"://"+host+path)
	}
	for _, u := range urls {
		key, err := cache.ParseKey(u)
		if err == nil {
			err = errors.Join(checkHost(key.Host), j.checkPath(key.Target))
		}
		if err != nil {
			return fmt.Errorf("url %.100q: %w", u, err)
		}
		j.urls = append(j.urls, u)
	}
	return nil
}

// mostRequested notes the URLs that were asked for most.
func (j *warming) mostRequested(n int) {
	for _, known := range j.Cache.Hottest(n) {
		if !known.Exact {
			j.result.LeftOut = append(j.result.LeftOut, known.URL)
			continue
		}
		j.urls = append(j.urls, known.URL)
	}
}

func (j *warming) progress() any {
	j.mu.Lock()
	defer j.mu.Unlock()
	return warmProgress{j.fetched, len(j.urls), j.result.Warmed, j.result.Already, j.result.Failed}
}

// run fetches all, a few at a time, until ctx ends.
func (j *warming) run(ctx context.Context) {
	var group errgroup.Group
	group.SetLimit(j.connections)
	for _, u := range j.urls {
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error {
			answers := j.fetch(ctx, u)
			j.mu.Lock()
			defer j.mu.Unlock()
			j.fetched++
			for _, a := range answers {
				j.count(a)
			}
			return nil
		})
	}
	_ = group.Wait()
}

func (j *warming) count(a warmed) {
	r := &j.result
	r.Asked++
	switch {
	case a.failed():
		r.Failed++
	case a.Is == isHit && a.Was == isHit:
		r.Already++
	case a.Is == isHit:
		r.Warmed++
	default:
		r.NotCacheable++
	}
	r.Answers = append(r.Answers, a)
}

const isHit = "hit"

// failed reports whether the service did not answer, or said that it cannot: that
// this is stored, and a hit, makes it no better.
func (a warmed) failed() bool { return a.Status == 0 || a.Status >= 500 }

// fetch asks for the answers of one URL: those that clients have had and that are
// still remembered, with the very fields that they sent, and those of each
// Accept. One that does not vary by Accept is asked for once.
func (j *warming) fetch(ctx context.Context, u string) (answers []warmed) {
	known, err := j.Cache.Inspect(ctx, u)
	if err != nil {
		return []warmed{{URL: u, Varied: map[string]string{}, Was: "unknown", Is: "unknown", Why: err.Error()}}
	}
	varies := true
	asked := map[string]bool{}
	ask := func(fields map[string]string) {
		if name := fmt.Sprint(fields); !asked[name] && len(asked) < maxVariants && ctx.Err() == nil { // fmt sorts a map's keys
			asked[name] = true
			var a warmed
			a, varies = j.fetchOne(ctx, u, fields)
			answers = append(answers, a)
		}
	}
	for _, v := range known {
		if nobodys(v.Varied) {
			ask(v.Varied)
		}
	}
	if len(known) > 0 && !varies {
		return answers
	}
	for _, accept := range j.accepts {
		if ask(map[string]string{"Accept": accept}); !varies {
			break
		}
	}
	return answers
}

// nobodys reports whether the fields that an answer varies by say nothing of who
// asked, such as a cookie: those are not to be sent in somebody's name, or shown.
func nobodys(varied map[string]string) bool {
	for name := range varied {
		if !strings.HasPrefix(name, "Accept") {
			return false
		}
	}
	return true
}

func variesByAccept(vary []string) bool {
	for name := range strings.SplitSeq(strings.Join(vary, ","), ",") {
		if strings.EqualFold(strings.TrimSpace(name), "Accept") {
			return true
		}
	}
	return false
}

// fetchOne asks for one answer, and again for what is stored then. An answer that
// a change overtook on its way is fetched anew.
func (j *warming) fetchOne(ctx context.Context, u string, fields map[string]string) (a warmed, varies bool) {
	const tries = 3
	header := http.Header{}
	for name, value := range fields {
		if value != "" {
			header.Set(name, value)
		}
	}
	a = warmed{URL: u, Varied: fields, Is: "unknown"}
	began := time.Now()
	defer func() { a.Took = millis(time.Since(began)) }()
	for range tries {
		got, err := j.askInTime(ctx, u, header)
		how := readWay(got.how())
		if a.Was == "" {
			a.Was = how.String()
		}
		if err != nil {
			a.Why = err.Error()
			return a, false
		}
		varies = variesByAccept(got.header["Vary"])
		a.Status = got.status
		if now := j.again(ctx, u, header); now.hit {
			if a.Is, a.Why = isHit, ""; a.failed() {
				a.Why = notStored(got) // but for the reason
			}
			return a, varies
		}
		a.Is = "miss"
		if a.Why = notStored(got); a.Why != overtaken {
			break
		}
	}
	return a, varies
}

// askInTime asks as clients do, and gives up on an answer that does not end.
func (j *warming) askInTime(ctx context.Context, u string, header http.Header) (answer, error) {
	limit, cancel := context.WithTimeout(ctx, j.wait)
	defer cancel()
	got, err := j.ask(limit, u, 0, header)
	if err != nil && limit.Err() != nil && ctx.Err() == nil {
		err = fmt.Errorf("did not end within %s", j.wait)
	}
	return got, err
}

// again asks for what is stored and fresh, and for nothing else (RFC 9111,
// section 5.2.1.7).
func (j *warming) again(ctx context.Context, u string, header http.Header) way {
	header = header.Clone()
	header.Set("Cache-Control", "only-if-cached")
	got, err := j.ask(ctx, u, 0, header)
	if err != nil {
		return way{}
	}
	return readWay(got.how())
}

const overtaken = "changed while it was fetched"

// notStored says why an answer is not a hit when it is asked for again.
func notStored(got answer) string {
	how := readWay(got.how())
	switch {
	case got.status >= 500:
		return fmt.Sprintf("the service answers %d", got.status)
	case strings.Contains(got.how(), "; stored"):
		return overtaken
	case how.fwd == "bypass":
		return how.String()
	}
	return cmp.Or(how.detail, how.fwd, "not stored")
}

// finish puts those first that are no hit or failed, and leaves out what is too much.
func (j *warming) finish(took time.Duration) warmResult {
	j.mu.Lock()
	defer j.mu.Unlock()
	r := &j.result
	slices.SortStableFunc(r.Answers, func(a, b warmed) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), strings.Compare(a.URL, b.URL))
	})
	r.More = max(0, len(r.Answers)-maxWarmShown)
	r.Answers = append([]warmed{}, r.Answers[:len(r.Answers)-r.More]...)
	r.URLs, r.Accepts, r.Seconds = j.fetched, j.accepts, took.Seconds()
	r.Success, r.Timestamp = r.Failed == 0, time.Now().UTC().Format(stamp)
	r.Message = fmt.Sprintf("%d of %d answers are hits now, %d of them were before", r.Warmed+r.Already, r.Asked, r.Already)
	if r.Asked == 0 {
		r.Message = "Nothing is remembered that was asked for, so nothing was fetched: give paths"
	}
	return *r
}

func rank(a warmed) int {
	if a.Is == isHit && !a.failed() {
		return 1
	}
	return 0
}
