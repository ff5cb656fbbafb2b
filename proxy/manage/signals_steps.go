package manage

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"walcache/proxy/coherence"
	"walcache/proxy/querysets"
)

const (
	// followWithin is how long after a change an answer may be as it was before
	// that is a failure: far more than any bound that is promised, since a loaded
	// machine must not fail a test.
	followWithin = 8 * time.Second
	// warmWithin is how long an answer may take to become a hit, where others
	// write all the time.
	warmWithin = 2 * time.Second
	// maxList is the longest list, in bytes, that is watched whole.
	maxList = 1 << 20
)

// signalStep is one change, and what came of it.
type signalStep struct {
	Step     string     `json:"step"` // create, change or delete
	Did      string     `json:"did"`
	Took     float64    `json:"took_ms"`  // by the service
	Position string     `json:"position"` // of the change in the change stream
	Tags     []movedTag `json:"tags"`
	Answers  []followed `json:"answers"`
	Controls []kept     `json:"controls"`
}

// movedTag is something that answers depend on.
type movedTag struct {
	Tag    string `json:"tag"`
	Before string `json:"before"` // "" for a row that nobody knew of
	After  string `json:"after"`
	Moved  bool   `json:"moved"`
}

func idTag(id int64) coherence.Tag {
	return coherence.RowTag("properties", "id", strconv.FormatInt(id, 10))
}

func locationTag(location string) coherence.Tag {
	return coherence.RowTag("properties", "location", location)
}

// steps creates, changes and deletes the row. The error says why it could not.
func (t *signalTest) steps(ctx context.Context) error {
	var err error
	if t.result.Swept, _, err = t.sweepOnce(ctx); err != nil {
		return err
	}
	here, there := t.title+", here", t.title+", there"
	list := t.listPage(ctx)
	controls, err := t.controls(ctx)
	if err != nil {
		return err
	}
	inHere, inThere := locationPage("location", here), locationPage("other location", there)
	stored := t.fill(ctx, list)
	t.result.CacheBefore = t.counting(stored)
	err = t.step(ctx, "create", t.create(here), []page{list, inHere}, controls, here)
	t.result.CacheAfter = t.counting(stored)
	if err != nil {
		return err
	}
	own := ownPage(t.row.ID)
	if err := t.step(ctx, "change", t.change(there), []page{list, own, inHere, inThere}, controls, here, there); err != nil {
		return err
	}
	return t.step(ctx, "delete", t.remove, []page{list, own, inThere}, controls, there)
}

// fill has the service keep the querysets that everybody knows, if it keeps any,
// and returns what it keeps. It is asked itself, since from here it would not be;
// and it stores them later than it answers.
func (t *signalTest) fill(ctx context.Context, list page) (stored map[string]querysets.Queryset) {
	const looks, pause = 10, 20 * time.Millisecond
	for range looks {
		for _, path := range []string{list.path, properties + "?page=1&page_size=1"} {
			_, _, _ = t.rows.call(ctx, http.MethodGet, path, nil, http.StatusOK) // what there is then is told
		}
		stored = t.known(ctx)
		if now := t.counting(stored); now.All && now.Count || t.redis == nil || ctx.Err() != nil {
			break
		}
		time.Sleep(pause)
	}
	return stored
}

// write makes a change. It returns the row's id, and the row as it is to be seen
// from now on, nil if not at all.
type write func(context.Context) (id int64, seen *row, err error)

func (t *signalTest) create(location string) write {
	return func(ctx context.Context) (id int64, seen *row, err error) {
		t.wrote, t.unsure = true, true
		r, err := t.rows.write(ctx, http.MethodPost, properties,
			row{Title: t.title, Description: description, Price: "1500.00", Location: location}, http.StatusCreated)
		var refused cannot
		if errors.As(err, &refused) && refused.status >= 400 && refused.status < 500 {
			t.wrote, t.unsure = false, false
		}
		if err != nil {
			return 0, nil, err
		}
		if err := t.mine(r, http.MethodPost, properties); err != nil {
			return 0, nil, err
		}
		t.row, t.unsure = r, false
		t.result.Property = &row{ID: r.ID, Title: r.Title, Price: r.Price}
		return r.ID, &r, nil
	}
}

// mine says what is wrong with a row that the service says a write has made: one
// that is not this test's is somebody's, whatever its ID, and is left alone.
func (t *signalTest) mine(r row, method, path string) error {
	if r.marked() && r.Title == t.title {
		return nil
	}
	return cannot{what: fmt.Sprintf("%s %s: the answer is another property than was sent, %d %.100q", method, path, r.ID, r.Title), next: probeInstead}
}

func (t *signalTest) change(location string) write {
	return func(ctx context.Context) (id int64, seen *row, err error) {
		path := propertyPath(t.row.ID)
		now, etag, err := t.rows.seen(ctx, t.row.ID)
		if err == nil {
			err = t.mine(now, http.MethodGet, path)
		}
		if err != nil {
			return 0, nil, err
		}
		r, err := t.rows.write(ctx, http.MethodPatch, path, row{Price: "1750.00", Location: location}, http.StatusOK, "If-Match", etag)
		if err == nil {
			err = t.mine(r, http.MethodPatch, path)
		}
		if err != nil {
			return 0, nil, err
		}
		t.row = r
		return r.ID, &r, nil
	}
}

func (t *signalTest) remove(ctx context.Context) (id int64, seen *row, err error) {
	id = t.row.ID
	if err := t.rows.remove(ctx, id); err != nil {
		return 0, nil, err
	}
	t.row = row{}
	return id, nil, nil
}

// listPage is the list of all, if that is short enough to be read again and
// again, and else that of what has the row's title in it. Both depend on every
// row.
func (t *signalTest) listPage(ctx context.Context) page {
	list := page{what: "list", path: properties}
	if a, err := t.json(ctx, list, "", maxList); err == nil && a.bytes <= maxList {
		return list
	}
	return page{what: "search", path: properties + "?search=" + url.QueryEscape(t.title)}
}

// controls are what nothing of the test may touch: a search for a location that
// nobody uses, and the page of somebody's property, if there is one.
func (t *signalTest) controls(ctx context.Context) ([]page, error) {
	controls := []page{locationPage("search elsewhere", t.title+", elsewhere")}
	list, _, err := t.rows.list(ctx, "")
	if err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(list, func(r row) bool { return !r.marked() }); i >= 0 {
		other := ownPage(list[i].ID)
		other.what = "another's page"
		controls = append(controls, other)
	}
	return controls, nil
}

// step makes a change and watches the answers of pages follow, those of controls
// stay, and the tags of the row and its locations move. That the answers follow
// and that the change is said to have come here is looked at side by side.
func (t *signalTest) step(ctx context.Context, name string, do write, pages, controls []page, locations ...string) error {
	still, before := t.warmAll(ctx, controls), t.warmAll(ctx, pages)
	tags := []coherence.Tag{"properties", coherence.Any}
	for _, l := range locations {
		tags = append(tags, locationTag(l))
	}
	if t.row.ID != 0 {
		tags = append(tags, idTag(t.row.ID))
	}
	since, epoch, was := t.Tracker.Known().LSN, t.Tracker.Epoch(), t.moved(tags)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	began := time.Now()
	id, seen, err := do(ctx)
	if err != nil {
		return err
	}
	answered := time.Now()
	if len(was) == len(locations)+2 { // the row is new
		was = append(was, movedTag{Tag: string(idTag(id))})
		before = append(before, warmPage{page: ownPage(id)})
	}
	s := signalStep{Step: name, Did: fmt.Sprintf("%s property %d", name, id), Took: millis(answered.Sub(began))}
	limit, cancel := context.WithTimeout(ctx, t.patience)
	defer cancel()
	var group errgroup.Group
	group.Go(func() error { s.Tags = t.awaitTags(limit, was, since); return nil })
	s.Answers = t.followAll(limit, before, answered, id, seen)
	_ = group.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	at := t.Tracker.MovedAt(idTag(id).Hash())
	s.Position, s.Controls = at.String(), t.lookAfter(ctx, still, at)
	t.result.Steps = append(t.result.Steps, s)
	if t.Tracker.Epoch() != epoch {
		t.result.Disturbed = append(t.result.Disturbed, name+": the change stream began anew, and everything went stale")
		return ctx.Err()
	}
	t.judgeStep(s)
	return ctx.Err()
}

// judgeStep notes what a step has shown to be wrong.
func (t *signalTest) judgeStep(s signalStep) {
	fail := func(format string, args ...any) {
		t.result.Failures = append(t.result.Failures, s.Step+": "+fmt.Sprintf(format, args...))
	}
	why := "there is none"
	for _, a := range s.Answers {
		if !a.Followed {
			fail("the answer of %s had not changed after %s (%s)", a.URL, t.patience, a.Is)
		}
		if why != isHit && a.Was != "" {
			why = a.Was
		}
		if a.Was != "" && a.Was != isHit {
			t.result.Disturbed = append(t.result.Disturbed, fmt.Sprintf("%s: %s was no hit before (%s)", s.Step, a.URL, a.Was))
		}
	}
	if why != isHit {
		fail("it proves nothing, since no answer was a hit before (%s)", why)
	}
	for _, tag := range s.Tags {
		if !tag.Moved {
			fail("the tag %s had not moved after %s: the change did not arrive here", tag.Tag, t.patience)
		}
	}
	for _, c := range s.Controls {
		switch what := fmt.Sprintf("%s is no hit any more (%s): %s", c.URL, c.Is, c.Why); c.Outcome {
		case outcomeFailed:
			fail("%s", what)
		case outcomeDisturbed, outcomeUnproven:
			t.result.Disturbed = append(t.result.Disturbed, s.Step+": "+what)
		}
	}
}

// moved says where tags moved last.
func (t *signalTest) moved(tags []coherence.Tag) (all []movedTag) {
	for _, tag := range tags {
		all = append(all, movedTag{Tag: string(tag), Before: t.Tracker.MovedAt(tag.Hash()).String()})
	}
	return all
}

// awaitTags waits until all tags have moved since a position that was known
// before the change: the change came after it.
func (t *signalTest) awaitTags(ctx context.Context, tags []movedTag, since coherence.LSN) []movedTag {
	for {
		all := true
		for i := range tags {
			at := t.Tracker.MovedAt(coherence.Tag(tags[i].Tag).Hash())
			tags[i].After, tags[i].Moved = at.String(), at > since
			all = all && tags[i].Moved
		}
		if all {
			return tags
		}
		select {
		case <-ctx.Done():
			return tags
		case <-time.After(time.Millisecond):
		}
	}
}
