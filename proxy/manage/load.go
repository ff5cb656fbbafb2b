package manage

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"walcache/proxy/guard"
)

// What a load test may ask for, and what it does if nobody says.
const (
	maxRequests, usualRequests       = 10_000, 500
	maxConnections, usualConnections = 64, 8
	maxSeconds, usualSeconds         = 30, 10
	maxLoadPaths                     = 100
	maxAsked                         = 64 << 10 // bytes of a request
)

// loadTest sends GETs to this proxy, over TCP as clients do, and to nobody else:
// whatever the Host and the path say, it connects to the proxy's own address.
type loadTest struct {
	scheme, addr, host    string
	accept                string
	paths                 []string
	requests, connections int
	within                time.Duration

	begun, done, hits, failed atomic.Int64
}

// loadResult is what came of it. Times are milliseconds.
type loadResult struct {
	Success         bool               `json:"success"` // every request was answered, some well, and none with a 5xx
	Message         string             `json:"message"`
	OperationsCount int                `json:"operations_count"`
	Note            string             `json:"note"`
	Timestamp       string             `json:"timestamp"`
	Host            string             `json:"host"`
	Paths           []string           `json:"paths"`
	Connections     int                `json:"connections"`
	Requests        int                `json:"requests"`
	Failed          int                `json:"failed"`          // without an answer
	Error           string             `json:"error,omitempty"` // of a request that failed, or why else it is no success
	Try             string             `json:"try,omitempty"`
	Hits            map[string]int     `json:"hits"`   // by layer
	Misses          map[string]int     `json:"misses"` // by reason
	HitRatio        float64            `json:"hit_ratio_percent"`
	Statuses        map[string]int     `json:"statuses"`
	Latency         map[string]float64 `json:"latency_ms"`
	Rate            float64            `json:"requests_per_second"`
	Bytes           int64              `json:"bytes"` // of bodies
	Seconds         float64            `json:"seconds"`
	TimeIsUp        bool               `json:"time_is_up"` // before all requests were sent
}

// loadProgress is how far it is.
type loadProgress struct {
	Done   int64 `json:"done"`
	Of     int   `json:"of"`
	Hits   int64 `json:"hits"`
	Failed int64 `json:"failed"`
}

// load has many requests sent to this proxy, one test at a time: two would
// measure each other.
func (m *Manager) load(w http.ResponseWriter, r *http.Request) {
	t, err := m.readLoad(r)
	if err != nil {
		guard.WriteJSON(w, http.StatusBadRequest, guard.Problem(err.Error(),
			`send JSON such as {"paths": ["/properties/"], "requests": 500, "connections": 8, "seconds": 10}, or nothing`))
		return
	}
	if m.Cache == nil {
		guard.WriteJSON(w, http.StatusServiceUnavailable, guard.Problem(errNoCache.Error(), "ask a process that runs proxy serve"))
		return
	}
	if !m.loading.TryLock() {
		guard.WriteJSON(w, http.StatusConflict, guard.Problem("a load test runs already", "wait for its end, at most 30 seconds"))
		return
	}
	defer m.loading.Unlock()
	answer := newTeller(w, r)
	var result loadResult
	answer.during(func() { result = t.run(r.Context()) }, t.progress)
	result.Note = "Check " + m.metricsPath() + " to see updated statistics"
	status := http.StatusOK
	if result.well() == 0 {
		status = http.StatusBadGateway
	}
	answer.end(status, result)
}

// metricsPath is where the figures are.
func (m *Manager) metricsPath() string {
	if m.Prefix == "" {
		return "/cache/metrics"
	}
	return m.Prefix + "redis-metrics/"
}

func (m *Manager) readLoad(r *http.Request) (*loadTest, error) {
	a, err := readAsked(r, maxAsked, "paths", "requests", "connections", "seconds", "host", "accept")
	if err != nil {
		return nil, err
	}
	t := &loadTest{
		scheme: m.scheme(), addr: m.Addr, paths: a.list("paths", maxLoadPaths), accept: a.text("accept"),
		requests:    a.whole("requests", usualRequests, maxRequests),
		connections: a.whole("connections", usualConnections, maxConnections),
		within:      time.Duration(a.whole("seconds", usualSeconds, maxSeconds)) * time.Second,
	}
	host := a.text("host")
	if a.err != nil {
		return nil, a.err
	}
	if t.host, err = m.hostOf(r, host); err != nil {
		return nil, err
	}
	if t.accept == "" {
		t.accept = asJSON
	} else if err := checkAccept(t.accept); err != nil {
		return nil, err
	}
	if len(t.paths) == 0 {
		t.paths = []string{"/"}
		if m.Prefix != "" {
			t.paths[0] = m.Prefix
		}
	}
	for _, path := range t.paths {
		if err := m.checkPath(path); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// asJSON is the Accept of programs, and asHTML of the plainest browser.
const asJSON, asHTML = "application/json", "text/html"

// checkAccept refuses what would be no line of a header.
func checkAccept(accept string) error {
	for _, c := range []byte(accept) {
		if c < ' ' || c >= 0x7f {
			return fmt.Errorf("accept is %.60q, and has to be a list of media types", accept)
		}
	}
	return nil
}

func (t *loadTest) progress() any {
	return loadProgress{t.done.Load(), t.requests, t.hits.Load(), t.failed.Load()}
}

// run sends the requests, until all are answered, the time is up, or ctx ends.
func (t *loadTest) run(ctx context.Context) loadResult {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, t.within)
	defer cancel()
	transport := &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, t.addr)
		},
		MaxIdleConnsPerHost: t.connections, DisableCompression: true,
		// It is this process that answers, whatever its certificate says.
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}
	defer transport.CloseIdleConnections()
	tallies := make([]loadTally, t.connections)
	var group errgroup.Group
	for i := range tallies {
		group.Go(func() error {
			tallies[i] = t.work(ctx, transport)
			return nil
		})
	}
	_ = group.Wait()
	return t.result(tallies, time.Since(began))
}

// loadTally is what one connection has seen.
type loadTally struct {
	took                   []time.Duration
	hits, misses, statuses map[string]int
	bytes                  int64
	err                    error
}

// work sends one request after the other on one connection.
func (t *loadTest) work(ctx context.Context, transport http.RoundTripper) loadTally {
	tally := loadTally{hits: map[string]int{}, misses: map[string]int{}, statuses: map[string]int{}}
	for ctx.Err() == nil {
		n := int(t.begun.Add(1)) - 1
		if n >= t.requests {
			break
		}
		err := t.one(ctx, transport, t.paths[n%len(t.paths)], &tally)
		if err != nil && ctx.Err() != nil {
			break // cut short, which says nothing of the proxy
		}
		if err != nil {
			tally.err = err
			t.failed.Add(1)
		}
		t.done.Add(1)
	}
	return tally
}

// one sends a request, and reads its answer to the end. The path goes as it is.
func (t *loadTest) one(ctx context.Context, transport http.RoundTripper, path string, tally *loadTally) error {
	req := (&http.Request{
		Method: http.MethodGet, URL: &url.URL{Scheme: t.scheme, Host: t.addr, Opaque: path}, Host: t.host,
		Header: http.Header{"Accept": {t.accept}, "User-Agent": {"walcache-load-test"}},
	}).WithContext(ctx)
	began := time.Now()
	res, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	n, err := io.Copy(io.Discard, res.Body)
	if err != nil {
		return err
	}
	tally.took = append(tally.took, time.Since(began))
	tally.bytes += n
	tally.statuses[strconv.Itoa(res.StatusCode)]++
	if how := readWay(answer{header: res.Header}.how()); how.hit {
		tally.hits[how.detail]++
		t.hits.Add(1)
	} else {
		tally.misses[how.reason()]++
	}
	return nil
}

// result puts together what all connections have seen.
func (t *loadTest) result(tallies []loadTally, took time.Duration) loadResult {
	r := loadResult{
		Timestamp: time.Now().UTC().Format(stamp), Host: t.host, Paths: t.paths, Connections: t.connections, Seconds: took.Seconds(),
		Hits: map[string]int{"memory": 0, "redis": 0}, Misses: map[string]int{}, Statuses: map[string]int{},
		Failed: int(t.failed.Load()), TimeIsUp: int(t.done.Load()) < t.requests,
	}
	var all []time.Duration
	var failure error
	for _, tally := range tallies {
		all = append(all, tally.took...)
		r.Bytes += tally.bytes
		add(r.Hits, tally.hits)
		add(r.Misses, tally.misses)
		add(r.Statuses, tally.statuses)
		if tally.err != nil {
			failure = tally.err
		}
	}
	slices.Sort(all)
	r.Requests, r.OperationsCount = len(all), len(all)
	r.judge(t.within, failure)
	r.Latency = map[string]float64{"p50": millis(quantile(all, 50)), "p90": millis(quantile(all, 90)), "p99": millis(quantile(all, 99)), "max": millis(quantile(all, 100))}
	if r.Requests > 0 {
		r.Rate = float64(r.Requests) / took.Seconds()
		r.HitRatio = 100 * float64(t.hits.Load()) / float64(r.Requests)
	}
	return r
}

// judge says whether it is a success, or why not and what to do. The failure is
// that of a request without an answer, if there was one.
func (r *loadResult) judge(within time.Duration, failure error) {
	r.Message = fmt.Sprintf("Generated %d cache operations for testing", r.Requests)
	switch broken := r.answered('5'); {
	case r.Failed > 0:
		r.Message += fmt.Sprintf(", but %d requests failed", r.Failed)
		r.Error, r.Try = failure.Error(), "look at the proxy's log"
		return
	case r.Requests == 0:
		r.Error, r.Try = fmt.Sprintf("no request was answered within %s", within), "see whether the service answers, or allow more seconds"
	case broken > 0:
		r.Error, r.Try = fmt.Sprintf("%d of %d answers say that the service failed (5xx)", broken, r.Requests), "see whether the service runs, and its log"
	case r.well() == 0:
		r.Error, r.Try = fmt.Sprintf("none of %d answers is a page (2xx or 3xx)", r.Requests), "see whether the service has these paths, under this host"
	default:
		r.Success = true
		return
	}
	r.Message += ", but " + r.Error
}

// answered is how many answers had a status that begins with a digit, and well how
// many brought what was asked for.
func (r *loadResult) answered(digit byte) (n int) {
	for status, count := range r.Statuses {
		if status[0] == digit {
			n += count
		}
	}
	return n
}

func (r *loadResult) well() int { return r.answered('2') + r.answered('3') }

func add(to, from map[string]int) {
	for name, n := range from {
		to[name] += n
	}
}

// quantile is the least of the sorted that so many per cent are not above; 0 if
// there are none.
func quantile(sorted []time.Duration, percent int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[max(0, (len(sorted)*percent+99)/100-1)]
}

// millis is a time in milliseconds, to the microsecond.
func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
