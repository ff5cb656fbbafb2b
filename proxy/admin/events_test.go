package admin

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"walcache/proxy/coherence"
	"walcache/proxy/manage"
	"walcache/proxy/sandbox/sandboxtest"
)

// event is one of a stream.
type event struct{ kind, id, data string }

// listen opens a stream of events.
func listen(t *testing.T, url string, lines ...string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Set(name, value)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	return res
}

// next reads an event, and fails when the stream ends before there is one.
func next(t *testing.T, from *bufio.Scanner) (e event) {
	t.Helper()
	for from.Scan() {
		name, value, _ := strings.Cut(from.Text(), ": ")
		switch name {
		case "event":
			e.kind = value
		case "id":
			e.id = value
		case "data":
			e.data = value
		case "":
			if e.data != "" {
				return e
			}
		}
	}
	t.Fatalf("the stream ended: %v", from.Err())
	return e
}

func lines(r io.Reader) *bufio.Scanner {
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	return s
}

// watched waits until somebody follows what changes.
func watched(t *testing.T, p *proxy, s *Server) {
	t.Helper()
	sandboxtest.Eventually(t, patience, func() error {
		p.commit("users", 1)
		if kept, _ := s.changes.after(0); len(kept) == 0 {
			return fmt.Errorf("nobody watches")
		}
		return nil
	})
}

func TestEvents_TellHowThingsStand(t *testing.T) {
	p := newCalmProxy(t)
	p.sources.History = lately{}
	_, web := served(t, p, Config{Addr: loopback})
	res := listen(t, web.URL+"/events")
	if kind := res.Header.Get("Content-Type"); kind != "text/event-stream" || res.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("header %v", res.Header)
	}
	from, said := lines(res.Body), ""
	for until := time.Now().Add(patience); !strings.Contains(said, "Every hit is proven fresh."); {
		if time.Now().After(until) {
			t.Fatalf("it says %s", said)
		}
		e := next(t, from)
		var status statusEvent
		if err := json.Unmarshal([]byte(e.data), &status); err != nil {
			t.Fatal(err)
		}
		if len(status.Parts) != len(partNames) || e.kind != "status" || e.id != "run-2" {
			t.Fatalf("%s %s with parts %v", e.kind, e.id, status.Parts)
		}
		said = status.Parts["verdict"]
		p.beat()
	}
	resumed := listen(t, web.URL+"/events", "Last-Event-ID: run-1")
	if e := next(t, lines(resumed.Body)); !strings.Contains(e.data, `"samples":[{"at":2,`) {
		t.Errorf("from where the client was: %s", e.data)
	}
}

// lately is a history of two samples.
type lately struct{}

func (lately) After(id string) ([]manage.Sample, string, <-chan struct{}) {
	all := []manage.Sample{{At: 1}, {At: 2}}
	if _, n, ok := strings.Cut(id, "-"); ok {
		had, _ := strconv.Atoi(n)
		all = all[had:]
	}
	return all, "run-2", nil
}

func TestChanges_AreSentAsTheyHappen(t *testing.T) {
	p := newCalmProxy(t)
	p.beat()
	p.ask("/properties") // an answer that names the tag
	s, web := served(t, p, Config{Addr: loopback})
	watched(t, p, s)
	from := lines(listen(t, web.URL+"/changes/events").Body)
	p.commit("properties", 3)
	for {
		var c Change
		e := next(t, from)
		if err := json.Unmarshal([]byte(e.data), &c); err != nil {
			t.Fatal(err)
		}
		if e.kind != "change" || e.id != strconv.FormatUint(c.ID, 10) {
			t.Fatalf("%s %s: %+v", e.kind, e.id, c)
		}
		if len(c.Tables) == 1 && c.Tables[0] == (TableRows{"properties", 3}) {
			if len(c.Tags) != 1 || c.Tags[0] != "properties" || c.Unnamed != 0 || c.Delay != nil || c.Position != p.at.String() || time.Since(c.At) > patience {
				t.Errorf("%+v", c)
			}
			break
		}
	}
	wants(t, get(t, s, "/"), "<td>properties</td>", `<td class="number">3</td>`)
}

func TestChanges_GoOnWhereAClientWas(t *testing.T) {
	p := newCalmProxy(t)
	p.beat()
	s, web := served(t, p, Config{Addr: loopback})
	watched(t, p, s)
	kept, _ := s.changes.after(0)
	had := kept[len(kept)-1].ID
	p.commit("properties", 1)
	for _, how := range [][]string{{"/changes/events?after=" + fmt.Sprint(had)}, {"/changes/events?after=1", fmt.Sprint("Last-Event-ID: ", had)}} {
		e := next(t, lines(listen(t, web.URL+how[0], how[1:]...).Body))
		if want := fmt.Sprint(had + 1); e.id != want {
			t.Errorf("%v begins with %s, want %s", how, e.id, want)
		}
	}
}

func TestChanges_WhoIsSlowMissesSomeAndHoldsUpNobody(t *testing.T) {
	var c changes
	c.start(time.UnixMicro(1_000_000))
	kept, more := c.after(0)
	if len(kept) != 0 {
		t.Errorf("before the first: %v", kept)
	}
	for range 3 * keptChanges {
		c.add(Change{})
	}
	select {
	case <-more:
	default:
		t.Error("nobody is told that there is more")
	}
	for after, want := range map[uint64]int{0: keptChanges, 1_000_000: keptChanges, 1_000_299: 1, 1_000_300: 0, 1_000_250: 50, 1 << 60: keptChanges} {
		kept, _ := c.after(after)
		if len(kept) != want {
			t.Errorf("after %d there are %d, want %d", after, len(kept), want)
		}
		for i, one := range kept {
			if one.ID != kept[0].ID+uint64(i) {
				t.Fatalf("after %d comes %d in place %d", after, one.ID, i)
			}
		}
		if len(kept) > 0 && kept[len(kept)-1].ID != 1_000_300 {
			t.Errorf("after %d the last is %d", after, kept[len(kept)-1].ID)
		}
	}
}

func TestChanges_SayHowLongAfterTheCommitAndWhatMoved(t *testing.T) {
	p := newCalmProxy(t)
	p.sources.Tracker.SetCatalog(&coherence.Catalog{Tables: map[string]coherence.Table{"books": {Columns: map[string]coherence.Kind{"id": coherence.Integer}}}})
	n, now := namer{sources: p.sources}, time.Now()
	seen := coherence.Seen{To: 16, Known: now, Committed: now.Add(-1500 * time.Microsecond), More: 4, Hashes: []coherence.Hash{
		coherence.Any.Hash(), coherence.TableTag("books").Hash(), coherence.TableTag("books").Hash(), coherence.TableFloor("books"),
		coherence.ColumnFloor("books", "id"), coherence.TableFloor(coherence.Everything), coherence.RowTag("books", "id", "42").Hash(),
	}}
	c := n.describe(seen)
	if c.Delay == nil || *c.Delay != 1.5 || c.Unnamed != 5 {
		t.Errorf("delay %v, unnamed %d", c.Delay, c.Unnamed)
	}
	if got, want := strings.Join(c.Tags, ", "), "books, floor *, floor books, floor books/{id}"; got != want {
		t.Errorf("moved %s, want %s", got, want)
	}
	seen.Committed = now.Add(time.Second) // by a clock that is ahead
	if c := n.describe(seen); c.Delay != nil {
		t.Errorf("delay %v", *c.Delay)
	}
	seen.Committed = time.Time{}
	if c := n.describe(seen); c.Delay != nil {
		t.Errorf("delay %v of a commit at no time", *c.Delay)
	}
}

func TestEvents_ListenersAreBoundedAndLeaveRoom(t *testing.T) {
	p := newCalmProxy(t)
	s, web := served(t, p, Config{Addr: loopback})
	var open []*http.Response
	for range manage.MaxOfOne {
		res := listen(t, web.URL+"/events")
		if res.StatusCode != 200 {
			t.Fatalf("%d", res.StatusCode)
		}
		open = append(open, res)
	}
	if res := listen(t, web.URL+"/changes/events"); res.StatusCode != 503 || res.Header.Get("Retry-After") == "" {
		t.Errorf("one too many: %d %v", res.StatusCode, res.Header)
	}
	r := httptest.NewRequest("HEAD", "/events", nil) // by another client
	r.Host = "127.0.0.1:8003"
	w := httptest.NewRecorder()
	if s.ServeHTTP(w, r); w.Code != 200 {
		t.Errorf("another client: %d", w.Code)
	}
	_ = open[0].Body.Close()
	sandboxtest.Eventually(t, patience, func() error {
		if n := s.listeners.Open(); n >= manage.MaxOfOne {
			return fmt.Errorf("%d listen", n)
		}
		return nil
	})
	if res := listen(t, web.URL+"/changes/events"); res.StatusCode != 200 {
		t.Errorf("once there is room: %d", res.StatusCode)
	}
}

func TestEvents_EndWhenTheProxyDrains(t *testing.T) {
	p := newCalmProxy(t)
	s, web := served(t, p, Config{Addr: loopback})
	var open []*http.Response
	for _, path := range []string{"/events", "/changes/events"} {
		open = append(open, listen(t, web.URL+path))
	}
	s.Drain()
	for _, res := range open {
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			t.Errorf("it does not end in order: %v", err)
		}
	}
	if res := listen(t, web.URL+"/events"); res.StatusCode != 503 {
		t.Errorf("while it drains: %d", res.StatusCode)
	}
	if w := send(s, "HEAD", "/events"); w.Code != 503 {
		t.Errorf("HEAD: %d", w.Code)
	}
}

func TestRun_WithoutCoherenceItWaitsForTheEnd(t *testing.T) {
	served(t, ordinary(t), Config{Addr: loopback})
}
