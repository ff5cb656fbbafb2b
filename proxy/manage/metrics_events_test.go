package manage

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"walcache/proxy/sandbox/sandboxtest"
)

// event is one of a stream.
type event struct {
	kind, id string
	data     string
}

// events reads a stream in the background, until it ends.
func events(t *testing.T, res *http.Response) <-chan event {
	t.Helper()
	all := make(chan event, 1000)
	go func() {
		defer close(all)
		lines := bufio.NewScanner(res.Body)
		lines.Buffer(nil, 1<<20)
		var e event
		for lines.Scan() {
			switch name, value, _ := strings.Cut(lines.Text(), ": "); name {
			case "event":
				e.kind = value
			case "id":
				e.id = value
			case "data":
				e.data = value
			case "":
				if e.kind != "" {
					all <- e
				}
				e = event{}
			}
		}
	}()
	return all
}

// next is the next event of a kind.
func next(t *testing.T, from <-chan event, kind string) event {
	t.Helper()
	late := time.After(patience)
	for {
		select {
		case e, ok := <-from:
			if !ok {
				t.Fatalf("the stream ended before %s", kind)
			}
			if e.kind == kind {
				return e
			}
		case <-late:
			t.Fatalf("no %s within %v", kind, patience)
		}
	}
}

func samplesOf(t *testing.T, e event) (all []Sample) {
	t.Helper()
	if err := json.Unmarshal([]byte(e.data), &all); err != nil {
		t.Fatalf("%v in %s", err, e.data)
	}
	return all
}

// streaming is a monitor behind a server, whose samples the test takes.
func streaming(t *testing.T) (*proxy, *monitor, *httptest.Server) {
	t.Helper()
	p := newProxyOn(t, "", "")
	m := p.monitor(p.manager())
	server := httptest.NewServer(http.HandlerFunc(m.serveEvents))
	t.Cleanup(server.Close)
	t.Cleanup(m.stop) // before the server closes, which waits for streams
	return p, m, server
}

// address is one of this machine's.
func address(n int) string { return fmt.Sprintf("127.0.0.%d", 1+n) }

// open opens a stream, from where another ended.
func open(t *testing.T, server *httptest.Server, lastID string) *http.Response {
	t.Helper()
	return openFrom(t, address(0), server, lastID)
}

// openFrom opens one as a client of an address.
func openFrom(t *testing.T, from string, server *httptest.Server, lastID string) *http.Response {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	transport := &http.Transport{DialContext: dialer.DialContext}
	t.Cleanup(transport.CloseIdleConnections)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/properties/redis-metrics/events/", nil)
	if err != nil {
		t.Fatal(err)
	}
	if lastID != "" {
		r.Header.Set("Last-Event-ID", lastID)
	}
	res, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	return res
}

func TestEvents_BringASampleASecondAndWhatChangesOnThePage(t *testing.T) {
	p, m, server := streaming(t)
	res := open(t, server, "")
	if h := res.Header; res.StatusCode != 200 || h.Get("Content-Type") != "text/event-stream" || h.Get("Cache-Control") != "no-store" || h.Get("X-Accel-Buffering") != "no" {
		t.Errorf("%d %v", res.StatusCode, h)
	}
	stream := events(t, res)
	var parts map[string]string
	p.must(json.Unmarshal([]byte(next(t, stream, "parts").data), &parts))
	if len(parts) != len(metricsParts) || !strings.Contains(parts["proxy"], "0% Hit Ratio") {
		t.Errorf("parts to begin with: %v", parts)
	}
	p.get("/properties/1")
	p.get("/properties/1")
	m.history.take(time.Now())
	sample := samplesOf(t, next(t, stream, "samples"))
	if len(sample) != 1 || sample[0].Memory != 1 || sample[0].Misses != 1 || sample[0].Requests != 2 || valueOf(sample[0].Ratio) != 50 || sample[0].MissP99 == nil {
		t.Errorf("%+v", sample)
	}
	clear(parts)
	p.must(json.Unmarshal([]byte(next(t, stream, "parts").data), &parts))
	if !strings.Contains(parts["proxy"], "50.0% Hit Ratio") || parts["problem"] != "" || parts["analysis"] == "" && parts["advice"] != "" {
		t.Errorf("parts that changed: %v", parts)
	}
}

func TestEvents_AStreamThatBrokeIsTakenUpWhereItBroke(t *testing.T) {
	_, m, server := streaming(t)
	began := time.Now()
	for i := range 5 {
		m.history.take(began.Add(time.Duration(i) * time.Second))
	}
	res := open(t, server, "")
	first := next(t, events(t, res), "samples")
	if n := len(samplesOf(t, first)); n != 5 {
		t.Errorf("%d samples to begin with", n)
	}
	res.Body.Close()
	for i := range 3 {
		m.history.take(began.Add(time.Duration(5+i) * time.Second))
	}
	again := next(t, events(t, open(t, server, first.id)), "samples")
	if n := len(samplesOf(t, again)); n != 3 {
		t.Errorf("%d samples were missed, want 3", n)
	}
	refused := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/?after="+first.id, nil)
	if id := lastID(refused); id != first.id {
		t.Errorf("a stream that was refused in between goes on after %q", id)
	}
	if all := samplesOf(t, next(t, events(t, open(t, server, "ANOTHER-7")), "samples")); len(all) != 8 {
		t.Errorf("%d samples for who knew another process", len(all))
	}
}

func TestEvents_AreForAFewAtATimeAndEndWithTheProxy(t *testing.T) {
	_, m, server := streaming(t)
	var streams []<-chan event
	for i := range MaxStreams {
		res := openFrom(t, address(i/MaxOfOne), server, "")
		streams = append(streams, events(t, res))
	}
	for _, s := range streams {
		next(t, s, "parts")
	}
	if res := openFrom(t, "127.0.1.1", server, ""); res.StatusCode != 503 || res.Header.Get("Retry-After") == "" {
		t.Errorf("one too many: %d", res.StatusCode)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	m.run(ctx)
	for _, s := range streams {
		for range s { // until it ends
		}
	}
	sandboxtest.Eventually(t, patience, func() error {
		if n := m.watching.Open(); n != 0 {
			return fmt.Errorf("%d streams are counted after their end", n)
		}
		return nil
	})
}

func TestEvents_OneClientLeavesRoomForOthers(t *testing.T) {
	_, _, server := streaming(t)
	var mine []*http.Response
	for range MaxOfOne {
		mine = append(mine, open(t, server, ""))
	}
	if res := open(t, server, ""); res.StatusCode != 503 || res.Header.Get("Retry-After") == "" {
		t.Errorf("one too many: %d", res.StatusCode)
	}
	next(t, events(t, openFrom(t, address(1), server, "")), "parts")
	mine[0].Body.Close()
	sandboxtest.Eventually(t, patience, func() error {
		if res := open(t, server, ""); res.StatusCode != 200 {
			return fmt.Errorf("after one has ended: %d", res.StatusCode)
		}
		return nil
	})
}

func TestHistory_KeepsTheLastMinutes(t *testing.T) {
	p := newProxyOn(t, "", "")
	h := newHistory(p.Sources)
	began := time.Now()
	for i := range samplesKept + 20 {
		h.take(began.Add(time.Duration(i) * time.Second))
	}
	all, last, more := h.After("")
	if len(all) != samplesKept || all[0].number != 21 || cap(h.samples) > 2*samplesKept {
		t.Errorf("%d samples from %d on, room for %d", len(all), all[0].number, cap(h.samples))
	}
	if rest, _, _ := h.After(last); rest != nil {
		t.Errorf("%d samples after the last", len(rest))
	}
	h.take(began.Add(time.Hour))
	<-more
	if rest, _, _ := h.After(last); len(rest) != 1 {
		t.Errorf("%d samples after one more", len(rest))
	}
}
