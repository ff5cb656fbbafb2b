package manage

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"walcache/proxy/cache"
)

// warm asks for it on the admin port.
func (p *proxy) warm(body string, lines ...string) (*httptest.ResponseRecorder, warmResult) {
	p.t.Helper()
	w := p.both(p.manager(), "", "/cache/warm")["back"](body, lines...)
	var r warmResult
	if w.Code == http.StatusOK || w.Code == http.StatusBadGateway {
		into(p.t, w, &r)
	}
	return w, r
}

func TestWarm_Guard(t *testing.T) {
	p := newProxy(t)
	m := p.manager()
	for _, op := range operations {
		if op.admin == "/cache/warm" {
			wantRefusals(t, p.back(m), op, op.admin)
		}
	}
	if n := p.service.fetches.Load(); n != 0 {
		t.Errorf("%d requests went to the service", n)
	}
	if w := send(p.front(m), http.MethodPost, "/properties/warm/", "", bearer); w.Header().Get("Cache-Status") == "" {
		t.Error("it is on the proxy's own port too, where it was not promised")
	}
}

// negotiating answers each Accept otherwise.
func negotiating(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.HasPrefix(r.URL.Path, "/private"):
		w.Header().Set("Cache-Control", "no-store")
	case strings.HasPrefix(r.URL.Path, "/broken"):
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	case strings.HasPrefix(r.URL.Path, "/cut"):
		w.Header().Set("Content-Length", "100")
	case !strings.HasPrefix(r.URL.Path, "/plain"):
		w.Header().Set("Vary", "Accept")
	}
	fmt.Fprint(w, r.Header.Get("Accept"))
}

func TestWarm_FetchesWhatIsGivenAndSaysWhatIsAHitNow(t *testing.T) {
	p := newProxy(t)
	p.service.answers(negotiating)
	p.get("/a/", "Host: shop.example", "Accept: application/json")
	// By way of a server: only there an answer that breaks off is noticed.
	s := httptest.NewServer(p.back(p.manager()))
	defer s.Close()
	req, err := http.NewRequest(http.MethodPost, s.URL+"/cache/warm",
		strings.NewReader(`{"paths": ["/a/", "/plain/", "/private/", "/broken/", "/cut/"], "urls": ["https://shop.example/b/?x=%20"], "host": "shop.example"}`))
	p.must(err)
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := http.DefaultClient.Do(req)
	p.must(err)
	defer res.Body.Close()
	w := httptest.NewRecorder()
	w.Code = res.StatusCode
	_, err = w.Body.ReadFrom(res.Body)
	p.must(err)
	var r warmResult
	p.must(json.Unmarshal(w.Body.Bytes(), &r))
	if w.Code != http.StatusOK || r.Success || r.URLs != 6 || r.Asked != r.Warmed+r.Already+r.NotCacheable+r.Failed {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if r.Already != 1 || r.Warmed != 4 || r.NotCacheable != 1 || r.Failed != 2 {
		t.Errorf("%s", w.Body)
	}
	hits := true
	for i := len(r.Answers) - 1; i >= 0; i-- {
		a := r.Answers[i]
		if hits = hits && a.Is == isHit; !hits && (a.Is == isHit || a.Why == "") {
			t.Errorf("%+v comes before what is no hit, or does not say why", a)
		}
	}
	for _, accept := range []string{asHTML, asJSON} {
		for _, path := range []string{"/a/", "/plain/"} {
			if w := p.get(path, "Host: shop.example", "Accept: "+accept); !hit(w) {
				t.Errorf("%s as %s: %s", path, accept, w.Header().Get("Cache-Status"))
			}
		}
	}
}

func TestWarm_FetchesWhatWasAskedForMostAsItWasAskedFor(t *testing.T) {
	p := newProxy(t)
	p.service.answers(negotiating)
	const browser = "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"
	for range 3 {
		p.get("/hot/", "Host: shop.example", "Accept: "+browser)
	}
	p.get("/warm/", "Host: shop.example", "Accept: "+browser)
	p.stream.commit("hot", "warm") // all of it is stale
	w, r := p.warm(`{"top": 1, "connections": 1}`)
	if r.URLs != 1 || r.Warmed != 3 || r.Failed != 0 || !r.Success {
		t.Fatalf("%s", w.Body)
	}
	if w := p.get("/hot/", "Host: shop.example", "Accept: "+browser); !hit(w) {
		t.Errorf("as it was asked for: %s", w.Header().Get("Cache-Status"))
	}
	if w := p.get("/warm/", "Host: shop.example", "Accept: "+browser); hit(w) {
		t.Error("what was asked for less was fetched too")
	}
}

func TestWarm_AStoredErrorIsNoSuccess(t *testing.T) {
	p := newProxy(t)
	p.service.answers(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "public, max-age=60")
		if r.URL.Path == "/broken/" {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	p.get("/broken/")
	if !hit(p.get("/broken/")) {
		t.Fatal("an error that may be stored is not")
	}
	w, r := p.warm(`{"paths": ["/a/", "/broken/"]}`)
	if r.Success || r.Warmed != 1 || r.Already != 0 || r.Failed != 1 || r.Answers[0].Status != 500 || r.Answers[0].Is != isHit || !strings.Contains(r.Answers[0].Why, "500") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// TestWarm_GivesUpOnAnAnswerThatHasNoEnd warms a stream of events.
func TestWarm_GivesUpOnAnAnswerThatHasNoEnd(t *testing.T) {
	p := newProxy(t)
	ctx, leave := context.WithCancel(t.Context())
	p.service.answers(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: 1\n\n")
		_ = http.NewResponseController(w).Flush()
		select {
		case <-r.Context().Done():
		case <-ctx.Done():
		}
	})
	late := time.AfterFunc(patience, leave)
	defer late.Stop()
	j, err := p.manager().readWarm(httptest.NewRequest(http.MethodPost, "/cache/warm", strings.NewReader(`{"paths": ["/events/"]}`)))
	p.must(err)
	if j.wait != warmWait {
		t.Errorf("it waits for %s", j.wait)
	}
	j.wait = 50 * time.Millisecond
	j.run(t.Context())
	r := j.finish(0)
	if ctx.Err() != nil || r.Failed != len(r.Answers) || r.Failed == 0 || r.Answers[0].Why != "did not end within 50ms" {
		t.Errorf("%+v", r)
	}
}

func TestWarm_NothingRememberedIsSaidToBeNothing(t *testing.T) {
	w, r := newProxy(t).warm("")
	if w.Code != http.StatusOK || r.Asked != 0 || !strings.Contains(r.Message, "give paths") || !strings.Contains(w.Body.String(), `"urls": []`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// TestWarm_SendsNothingInSomebodysName asks for what varies by cookie.
func TestWarm_SendsNothingInSomebodysName(t *testing.T) {
	p := newProxy(t)
	p.service.answers(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Vary", "Cookie")
		w.Header().Set("Cache-Control", "public, max-age=60")
		if r.Header.Get("Cookie") != "" {
			fmt.Fprint(w, "somebody's")
		}
	})
	p.get("/mine/", "Cookie: session=secret")
	before := p.service.fetches.Load()
	w, _ := p.warm(`{"paths": ["/mine/"]}`)
	if strings.Contains(w.Body.String(), "secret") || p.service.fetches.Load() != before+1 {
		t.Errorf("%s", w.Body)
	}
}

func TestWarm_SaysThatCachingIsOff(t *testing.T) {
	p := newProxy(t)
	c := *p.Tracker.Catalog()
	c.Off = true
	p.Tracker.SetCatalog(&c)
	w, r := p.warm(`{"paths": ["/a/"]}`)
	if r.Warmed != 0 || len(r.Answers) == 0 || r.Answers[0].Why != "bypass: off" {
		t.Errorf("%s", w.Body)
	}
}

func TestWarm_WhatCannotBeMeantIsRefusedAndFetchesNothing(t *testing.T) {
	p := newProxy(t)
	for body, names := range map[string]string{
		`{`:                      "JSON",
		`"x"`:                    "JSON",
		`{"path": "/"}`:          "path",
		`{"paths": ["x"]}`:       "one slash",
		`{"paths": ["//evil/"]}`: "one slash",
		`{"paths": ["/properties/cache-status/"]}`:                    "operators",
		`{"urls": ["/x"]}`:                                            "url",
		`{"urls": ["http://shop.example/properties/redis-metrics/"]}`: "operators",
		`{"urls": ["ftp://shop.example/"]}`:                           "url",
		`{"urls": ["http://a b/"]}`:                                   "url",
		`{"top": 10001}`:                                              "1 to 10000",
		`{"top": 5, "paths": ["/"]}`:                                  "top",
		`{"connections": 17}`:                                         "1 to 16",
		`{"host": "a/b"}`:                                             "host",
		`{"host": "a:99999999"}`:                                      "host",
		`{"urls": ["http://a:99999999/"]}`:                            "host",
		`{"accept": "x\r\ny"}`:                                        "accept",
	} {
		w, _ := p.warm(body)
		if said := w.Body.String(); w.Code != http.StatusBadRequest || !strings.Contains(said, names) || object(t, w)["try"] == nil {
			t.Errorf("%s: %d %s", body, w.Code, said)
		}
	}
	if n := p.service.fetches.Load(); n != 0 {
		t.Errorf("%d requests went to the service", n)
	}
}

func TestWarm_TellsHowFarItIs(t *testing.T) {
	p := newProxy(t)
	p.service.answers(negotiating)
	var paths []string
	for i := range 200 {
		paths = append(paths, fmt.Sprintf(`"/%d/"`, i))
	}
	w := p.both(p.manager(), "", "/cache/warm")["back"](`{"paths": [`+strings.Join(paths, ",")+`]}`, "Accept: "+lines)
	said := json.NewDecoder(w.Body)
	var first, last map[string]any
	for said.More() {
		last = nil
		p.must(said.Decode(&last))
		if first == nil {
			first = last
		}
	}
	if first["of"] != 200.0 || last["warmed"] != 400.0 || w.Header().Get("Content-Type") != lines {
		t.Errorf("%v, then %v", first, last)
	}
}

func TestWarm_ListsNoMoreThanAThousand(t *testing.T) {
	j := &warming{}
	for i := range 3000 {
		is := isHit
		if i == 2999 {
			is = "miss"
		}
		j.count(warmed{URL: fmt.Sprint(i), Status: 200, Is: is})
	}
	r := j.finish(0)
	if len(r.Answers) != 1000 || r.More != 2000 || r.Answers[0].Is != "miss" || r.Asked != 3000 {
		t.Errorf("%d listed, %d more, the first %+v", len(r.Answers), r.More, r.Answers[0])
	}
}

func TestWarm_OnAProxyWithoutCoherence(t *testing.T) {
	p := ordinary(t, func(c *cache.Config) {})
	if w, r := p.warm(`{"paths": ["/a/"]}`); r.Warmed != 1 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	p.Cache = nil
	if w, _ := p.warm(`{"paths": ["/a/"]}`); w.Code != http.StatusServiceUnavailable || object(t, w)["try"] == nil {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
