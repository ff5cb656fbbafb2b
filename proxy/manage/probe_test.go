package manage

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
)

func TestProbe_MeasuresTenMessagesThatTouchNothing(t *testing.T) {
	p := newProxy(t)
	p.get("/properties/1/")
	for port, ask := range p.both(p.manager(), "test-signals", "/cache/test-signals") {
		var r probeResult
		w := ask(`{"probe": true}`)
		into(t, w, &r)
		if w.Code != http.StatusOK || !r.Passed || !r.Success || r.Rounds != 10 || r.Processes != 1 || len(r.Behind) > 0 || r.LeftBehind != 0 || r.Position == "" {
			t.Errorf("%s: %d %s", port, w.Code, w.Body)
		}
		for _, s := range []spread{r.Committed, r.Here, r.Everywhere} {
			if s.P50 < s.Min || s.Max < s.P50 {
				t.Errorf("%s: %s", port, w.Body)
			}
		}
	}
	said := p.stream.lines()
	if slices.Sort(said); len(said) != 20 || said[0] != said[19] || said[0] != "bump walcache-probe.none" {
		t.Errorf("said %q", said)
	}
	if w := p.get("/properties/1/"); !hit(w) {
		t.Errorf("after it: %s", w.Header().Get("Cache-Status"))
	}
}

func TestProbe_AsksByTheQueryToo(t *testing.T) {
	p := newProxy(t)
	w := send(p.front(p.manager()), http.MethodPost, "/properties/test-signals/?probe=1", "", bearer)
	if w.Code != http.StatusOK || object(t, w)["probe"] != true {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestProbe_SaysWhatItLacks(t *testing.T) {
	p := newProxy(t)
	p.stream.err = errors.New("the primary is away")
	w := p.both(p.manager(), "", "/cache/test-signals")["back"](`{"probe": true}`)
	if w.Code != http.StatusBadGateway || !strings.Contains(w.Body.String(), "the primary is away") || object(t, w)["try"] == nil {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	p.Announcer = nil
	w = p.both(p.manager(), "", "/cache/test-signals")["back"](`{"probe": true}`)
	if w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "--database-url") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
