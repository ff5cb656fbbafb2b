package manage

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"walcache/proxy/cache"
	"walcache/proxy/coherence"
)

// followed is an answer that has to change.
type followed struct {
	What     string  `json:"what"`
	URL      string  `json:"url"`
	Was      string  `json:"was"` // hit, or why not; "" if it was not asked for
	Is       string  `json:"is"`
	Followed bool    `json:"followed"`
	After    float64 `json:"after_ms"` // the service's answer to the change
}

// kept is an answer that has to stay a hit.
type kept struct {
	What    string `json:"what"`
	URL     string `json:"url"`
	Was     string `json:"was"`
	Is      string `json:"is"`
	Outcome string `json:"outcome"` // hit, failed, disturbed, or unproven
	Why     string `json:"why,omitempty"`
}

// page is where the row shows, or does not.
type page struct {
	what, path string
	location   string // that alone shows there; "" for any
	one        bool   // it is a property's own, and no list
}

func ownPage(id int64) page { return page{what: "own page", path: propertyPath(id), one: true} }

func locationPage(what, location string) page {
	return page{what: what, path: properties + "?location=" + url.QueryEscape(location), location: location}
}

// json asks this proxy for a page as a program does. With the ETag of what was
// seen the answer is a 304 as long as it is the same.
func (t *signalTest) json(ctx context.Context, p page, seen string, limit int) (answer, error) {
	header := http.Header{"Accept": {asJSON}}
	if seen != "" {
		header.Set("If-None-Match", seen)
	}
	return t.ask(ctx, t.base+p.path, limit, header)
}

// warmPage is a page before a change.
type warmPage struct {
	page
	was  string // hit, or why not; "" if nobody asked
	etag string
	// What it depends on, where it is a control: by these it can be told who made
	// it stale.
	asOf coherence.Position
	tags []coherence.Tag
}

// each does something for all of a list at once.
func each[A, B any](list []A, do func(A) B) []B {
	results := make([]B, len(list))
	var group sync.WaitGroup
	for i, a := range list {
		group.Go(func() { results[i] = do(a) })
	}
	group.Wait()
	return results
}

func (t *signalTest) warmAll(ctx context.Context, pages []page) []warmPage {
	ctx, cancel := context.WithTimeout(ctx, warmWithin)
	defer cancel()
	return each(pages, func(p page) warmPage { return t.warm(ctx, p) })
}

// warm asks for a page until it is a hit, or is seen not to become one.
func (t *signalTest) warm(ctx context.Context, p page) warmPage {
	w := warmPage{page: p, was: "not answered"}
	for {
		a, err := t.json(ctx, p, "", 0)
		if err != nil {
			return w
		}
		how := readWay(a.how())
		w.was, w.etag = how.String(), a.header.Get("ETag")
		if how.hit || how.fwd == "bypass" {
			break
		}
		select {
		case <-ctx.Done():
			return w
		case <-time.After(5 * time.Millisecond):
		}
	}
	stored, _ := t.Cache.Inspect(ctx, t.base+p.path) // the URL has been asked for
	if i := slices.IndexFunc(stored, forJSON); i >= 0 {
		w.asOf, _ = coherence.ParsePosition(stored[i].AsOf)
		if !stored[i].Whole { // or its tags narrow nothing
			for _, tag := range stored[i].Tags {
				w.tags = append(w.tags, coherence.Tag(tag))
			}
		}
	}
	return w
}

// forJSON reports whether an answer is that to programs, or to all.
func forJSON(v cache.Variant) bool {
	accept, varies := v.Varied["Accept"]
	return !varies || accept == asJSON
}

func (t *signalTest) followAll(ctx context.Context, pages []warmPage, changed time.Time, id int64, seen *row) []followed {
	return each(pages, func(w warmPage) followed { return t.follow(ctx, w, changed, id, seen) })
}

// follow asks for a page until the row is there as it should be, or is not.
func (t *signalTest) follow(ctx context.Context, w warmPage, changed time.Time, id int64, want *row) followed {
	if want != nil && w.location != "" && w.location != want.Location {
		want = nil
	}
	f := followed{What: w.what, URL: t.base + w.path, Was: w.was}
	pause := time.Millisecond / 2
	for etag := w.etag; ; pause = min(2*pause, 50*time.Millisecond) {
		a, err := t.json(ctx, w.page, etag, maxList)
		if err == nil {
			f.Is = readWay(a.how()).String()
		}
		if err == nil && a.status != http.StatusNotModified {
			etag = a.header.Get("ETag")
			if w.shows(a, id, want) {
				f.Followed, f.After = true, millis(time.Since(changed))
				return f
			}
		}
		select {
		case <-ctx.Done():
			return f
		case <-time.After(pause):
		}
	}
}

// shows reports whether an answer has the row like this, or if that is nil, does
// not have it.
func (p page) shows(a answer, id int64, want *row) bool {
	if p.one && a.status == http.StatusNotFound {
		return want == nil
	}
	var list struct{ Properties []row }
	var err error
	if p.one {
		list.Properties = make([]row, 1)
		err = json.Unmarshal(a.body, &list.Properties[0])
	} else {
		err = json.Unmarshal(a.body, &list)
	}
	if a.status != http.StatusOK || err != nil {
		return false
	}
	i := slices.IndexFunc(list.Properties, func(r row) bool { return r.ID == id })
	if i < 0 || want == nil {
		return i < 0 && want == nil
	}
	got := list.Properties[i]
	return got.Title == want.Title && got.Price == want.Price && got.Location == want.Location
}

// The outcomes of a control.
const (
	outcomeHit       = "hit"
	outcomeFailed    = "failed"    // the test's change made it stale
	outcomeDisturbed = "disturbed" // something else did
	outcomeUnproven  = "unproven"  // it was no hit before, or is none for another reason than a change
)

// lookAfter asks for the controls once more. at is where the change is in the
// change stream: what moved there the change has moved, what moved elsewhere
// somebody else has.
func (t *signalTest) lookAfter(ctx context.Context, controls []warmPage, at coherence.LSN) []kept {
	return each(controls, func(w warmPage) kept {
		k := kept{What: w.what, URL: t.base + w.path, Was: w.was, Outcome: outcomeUnproven, Why: "it was none before"}
		a, err := t.json(ctx, w.page, "", 0)
		how := readWay(a.how())
		k.Is = how.String()
		switch {
		case err != nil:
			k.Is, k.Why = "not answered", err.Error()
		case how.hit:
			k.Outcome, k.Why = outcomeHit, ""
		case w.was == isHit:
			k.Outcome, k.Why = t.blame(w, at)
		}
		return k
	})
}

// blame says who made a page stale.
func (t *signalTest) blame(w warmPage, at coherence.LSN) (outcome, why string) {
	moves := t.Tracker.Why(w.asOf, w.tags)
	for _, m := range moves {
		if m.At == at {
			return outcomeFailed, fmt.Sprintf("the change moved %s, which it depends on although the row is nowhere on it", m.Name)
		}
	}
	if len(moves) > 0 {
		return outcomeDisturbed, fmt.Sprintf("another change moved %s to %s", moves[0].Name, moves[0].At)
	}
	return outcomeUnproven, "nothing that it depends on has moved"
}
