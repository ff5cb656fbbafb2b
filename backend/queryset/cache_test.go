package queryset

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"walcache/backend/db"
	"walcache/proxy/coherence"
	"walcache/proxy/querysets"
	"walcache/proxy/sandbox/sandboxtest"
)

const property1 = coherence.Tag("properties/id=1")

func TestCache_AnswersUntilATagMoves(t *testing.T) {
	s := newSite(t)
	s.warmProperty()
	s.rename("Attic") // nobody told the tracker
	s.expectTitle("Loft")
	s.learns("properties/id=2", "releases")
	s.expectTitle("Loft")
	s.learns(property1)
	s.expectTitle("Attic")
}

func TestCache_ReturnsWhatEveryQueryReturns(t *testing.T) {
	s := newSite(t)
	for _, rows := range []string{"some", "no"} {
		for i := range reflect.TypeFor[*Querier]().NumMethod() {
			name := reflect.TypeFor[*Querier]().Method(i).Name
			if !reflect.ValueOf(s.db).MethodByName(name).IsValid() {
				continue
			}
			method := reflect.ValueOf(s.Querier).MethodByName(name)
			want := results(t, reflect.ValueOf(New(s.pool)).MethodByName(name))
			results(t, method)
			s.kept()
			hits := s.Stats().Hits
			if got := results(t, method); !reflect.DeepEqual(got, want) {
				t.Errorf("%s with %s rows: %v, want %v", name, rows, got, want)
			}
			if s.Stats().Hits != hits+1 {
				t.Errorf("%s with %s rows came from the database", name, rows)
			}
		}
		s.exec("DELETE FROM properties")
		s.learns("properties", "properties/id=1", "properties/location=Nairobi")
	}
}

// results calls a method for what there is, and returns what it returns, with
// times in UTC.
func results(t *testing.T, method reflect.Value) (list []any) {
	t.Helper()
	ctx, _ := Collect(t.Context())
	args := []reflect.Value{reflect.ValueOf(ctx)}
	if method.Type().NumIn() > 1 {
		arg := reflect.New(method.Type().In(1)).Elem()
		switch arg.Kind() {
		case reflect.Int64:
			arg.SetInt(1)
		case reflect.String:
			arg.SetString("Nairobi")
		default:
			for name, value := range map[string]any{"Location": "Nairobi", "Search": "LOFT", "MinPrice": "7.5", "Sort": "price", "Take": int64(9)} {
				if field := arg.FieldByName(name); field.IsValid() {
					field.Set(reflect.ValueOf(value))
				}
			}
		}
		args = append(args, arg)
	}
	for _, v := range method.Call(args) {
		if rows := v; rows.Kind() == reflect.Slice {
			for i := range rows.Len() {
				list = append(list, inUTC(rows.Index(i)))
			}
			list = append(list, rows.IsNil())
		} else {
			list = append(list, inUTC(v))
		}
	}
	return list
}

func inUTC(v reflect.Value) any {
	if v.Kind() != reflect.Struct {
		return v.Interface()
	}
	row := v.Convert(reflect.TypeFor[db.GetPropertyRow]()).Interface().(db.GetPropertyRow)
	row.CreatedAt = row.CreatedAt.UTC()
	return row
}

func TestCache_ThatThereIsNoneIsAnAnswer(t *testing.T) {
	s := newSite(t)
	get := func() error {
		ctx, _ := Collect(t.Context())
		_, err := s.GetProperty(ctx, 3)
		return err
	}
	for range 2 {
		if err := get(); !errors.Is(err, pgx.ErrNoRows) {
			t.Fatal(err)
		}
		s.kept()
	}
	if n := s.gate.queries.Load(); n != 1 {
		t.Errorf("%d queries", n)
	}
	s.exec("INSERT INTO properties (id, title, description, price, location) VALUES (3, 'New', '', 1, 'x')")
	s.learns("properties/id=3")
	must(t, get())
}

func TestCache_KeysAreReadableAndExpire(t *testing.T) {
	s := newSite(t)
	ctx, _ := Collect(t.Context())
	long := strings.Repeat("very long ", 30)
	for key, c := range map[string]struct {
		life time.Duration
		read func() error
	}{
		"all_properties":                   {time.Hour, func() error { _, err := s.ListProperties(ctx); return err }},
		"property_count":                   {30 * time.Minute, func() error { _, err := s.CountProperties(ctx); return err }},
		"property:42":                      {time.Hour, func() error { _, err := s.GetProperty(ctx, 42); return err }},
		"properties:location=S%C3%A3o%20T": {time.Hour, func() error { _, err := s.ListPropertiesByLocation(ctx, "São T"); return err }},
		"locations":                        {time.Hour, func() error { _, err := s.ListLocations(ctx); return err }},
		"newest_release":                   {time.Hour, func() error { _, err := s.NewestRelease(ctx); return err }},
		"properties:search=a%2Cb%3Dc,min_price=100,sort=-price,take=20,skip=40": {time.Hour, func() error {
			_, err := s.SearchProperties(ctx, db.SearchPropertiesParams{Search: "a,b=c", MinPrice: "100", Sort: "-price", Take: 20, Skip: 40})
			return err
		}},
		"properties:location=Nairobi,take=20,skip=0": {time.Hour, func() error {
			_, err := s.SearchPropertiesByLocation(ctx, db.SearchPropertiesByLocationParams{Location: "Nairobi", Take: 20})
			return err
		}},
		"property_count:location=Nairobi,max_price=9": {30 * time.Minute, func() error {
			_, err := s.CountSearchedPropertiesByLocation(ctx, db.CountSearchedPropertiesByLocationParams{Location: "Nairobi", MaxPrice: "9"})
			return err
		}},
		key("property_count", is("search", long)): {30 * time.Minute, func() error {
			_, err := s.CountSearchedProperties(ctx, db.CountSearchedPropertiesParams{Search: long})
			return err
		}},
	} {
		if err := c.read(); err != nil && !errors.Is(err, pgx.ErrNoRows) {
			t.Fatal(err)
		}
		s.kept()
		left, err := s.client.TTL(ctx, s.prefix+"qs:"+key).Result()
		if err != nil || left > c.life || left < c.life-time.Minute {
			t.Errorf("%s lives for %v, %v, want %v", key, left, err, c.life)
		}
	}
	if k := key("property_count", is("search", long)); len(k) > maxKey || !strings.HasPrefix(k, "property_count:#") {
		t.Errorf("long key %s", k)
	}
}

func TestCache_WhatIsNoEntryIsReadFromTheDatabase(t *testing.T) {
	s := newSite(t)
	name, other := s.prefix+"qs:property:1", s.prefix+"qs:property:2"
	ctx, _ := Collect(t.Context())
	_, err := s.GetProperty(ctx, 2)
	must(t, err)
	s.warmProperty()
	foreign, err := s.client.Get(t.Context(), other).Bytes()
	must(t, err)
	corrupt, err := s.client.Get(t.Context(), name).Bytes()
	must(t, err)
	corrupt[len(corrupt)-1] ^= 1
	before := newStatement(propertyRows[db.GetPropertyRow]{}, time.Hour, func(queries *db.Queries, ctx context.Context, id int64) ([]db.GetPropertyRow, error) {
		row, err := queries.LockProperty(ctx, id) // what an earlier release would have sent
		return []db.GetPropertyRow{db.GetPropertyRow(row)}, err
	})
	if before.shape == getProperty.shape {
		t.Error("two queries have one shape")
	}
	lsn := s.tracker.Known().LSN
	for what, value := range map[string][]byte{
		"the entry of another key": foreign,
		"a corrupted entry":        corrupt,
		"an empty value":           {},
		"an earlier release's":     encode(before.rows, before.shape, coherence.Kept{Key: name, AsOf: coherence.Position{Epoch: "k3f9", LSN: lsn}, Until: lsn}, nil),
	} {
		must(t, s.client.Set(t.Context(), name, value, time.Hour).Err())
		if title := s.title(); title != "Loft" {
			t.Errorf("%s: %q", what, title)
		}
	}
	must(t, s.client.Del(t.Context(), name).Err())
	must(t, s.client.LPush(t.Context(), name, "x").Err())
	s.expectTitle("Loft")
	if n := s.Stats().Hits; n != 0 {
		t.Errorf("%d hits", n)
	}
	if s.Stats().Open {
		t.Error("what is wrong with a value is taken for Redis not answering")
	}
}

func TestCache_OperatorsSeeWhatItKeeps(t *testing.T) {
	s := newSite(t)
	stamp := s.tracker.Stamp()
	s.warmList()
	s.warmProperty()
	list, _, err := querysets.List(t.Context(), s.client, s.prefix, 10)
	must(t, err)
	want := map[string]struct {
		rows int
		tag  coherence.Tag
	}{"all_properties": {2, properties}, "property:1": {1, property1}}
	for _, q := range list {
		w, present := want[q.Name]
		if q.Present != present || q.Problem != nil {
			t.Errorf("%+v", q)
		}
		if present && (q.AsOf != stamp || q.Until < stamp.LSN || q.Rows != w.rows || !slices.Equal(q.Tags, []coherence.Tag{w.tag}) || q.Age > patience) {
			t.Errorf("%+v, want it as of %v", q, stamp)
		}
	}
	if len(list) != 3 {
		t.Errorf("%d querysets: %+v", len(list), list)
	}
}

func TestCache_OfAnotherEpochHoldsNothing(t *testing.T) {
	s := newSite(t)
	s.warmProperty()
	s.rename("Attic")
	s.tracker.Begin("other", s.position())
	s.tracker.Beat("other", time.Now())
	s.expectTitle("Attic")
	if s.Stats().Epoch != 1 {
		t.Errorf("%+v", *s.Stats())
	}
}

func TestCache_IsReadPast(t *testing.T) {
	for what, c := range map[string]struct {
		prepare func(s *site)
		ctx     func(s *site) context.Context
	}{
		"outside of a request": {ctx: func(s *site) context.Context { return context.Background() }},
		"after a write": {ctx: func(s *site) context.Context {
			ctx, reads := Collect(context.Background())
			reads.Wrote()
			return ctx
		}},
		"while nothing proves what is kept": {prepare: func(s *site) {
			s.tracker.Begin("k3f9", s.tracker.Known().LSN) // the same epoch, and no beat yet
		}},
		"without a catalog": {prepare: func(s *site) { s.tracker.SetCatalog(nil) }},
		"while an operator has it off": {prepare: func(s *site) {
			off := catalog()
			off.Off = true
			s.tracker.SetCatalog(off)
		}},
		"while tables that it may depend on are not followed": {prepare: func(s *site) {
			s.tracker.SetCatalog(&coherence.Catalog{Blind: []string{"properties"}})
		}},
	} {
		t.Run(what, func(t *testing.T) {
			s := newSite(t)
			s.warmProperty()
			s.rename("Attic")
			if c.prepare != nil {
				c.prepare(s)
			}
			ctx, reads := Collect(context.Background())
			if c.ctx != nil {
				ctx = c.ctx(s)
			}
			p, err := s.GetProperty(ctx, 1)
			must(t, err)
			if p.Title != "Attic" {
				t.Errorf("title %q", p.Title)
			}
			if asOf := reads.AsOf(); asOf != coherence.AsOfRequest {
				t.Errorf("as of %s", asOf)
			}
			if n := s.kept(); n != 1 {
				t.Errorf("%d entries were written, want only the first", n)
			}
		})
	}
}

func TestCache_NothingIsKeptWithoutAStamp(t *testing.T) {
	s := newSite(t)
	s.tracker.Begin("new", s.position()) // nothing of it is visible for sure
	s.tracker.Beat("new", time.Now())
	s.expectTitle("Loft")
	if n := s.kept(); n != 0 {
		t.Errorf("%d entries were written", n)
	}
}

func TestRequire_WhatIsNotKnownIsReadPast(t *testing.T) {
	s := newSite(t)
	s.warmProperty()
	known := s.tracker.Known()
	later, other := known, known
	later.LSN += 1 << 40
	other.Epoch = "other"
	for minLSN, want := range map[string]string{
		"":                                     "Loft",
		known.String():                         "Loft",
		later.String():                         "Attic",
		other.String():                         "Attic",
		"16/B374D848":                          "Attic",
		"no position":                          "Attic",
		known.String() + ", " + known.String(): "Attic",
	} {
		s.rename("Attic")
		ctx, reads := Collect(t.Context())
		reads.Require(minLSN)
		p, err := s.GetProperty(ctx, 1)
		must(t, err)
		if p.Title != want {
			t.Errorf("Min-LSN %q: title %q, want %q", minLSN, p.Title, want)
		}
		if n := s.kept(); n != 1 {
			t.Errorf("Min-LSN %q: %d entries were written", minLSN, n)
		}
	}
}

func TestRequire_WaitsForWhatIsAboutToBeKnown(t *testing.T) {
	s := newSite(t)
	s.warmProperty()
	s.rename("Attic")
	p := s.tracker.Known()
	p.LSN = s.position()
	waiting := &waitingTruth{Tracker: s.tracker, waits: func() { s.learns(property1) }}
	s.cache.truth = waiting
	s.warm(func(ctx context.Context) error {
		readsOf(ctx).Require(p.String())
		_, err := s.GetProperty(ctx, 1)
		return err
	})
	if !waiting.waited {
		t.Error("it did not wait")
	}
	s.expectTitle("Attic")
}

// waitingTruth does something when it is waited for.
type waitingTruth struct {
	*coherence.Tracker
	waits  func()
	waited bool
}

func (w *waitingTruth) Wait(ctx context.Context, lsn coherence.LSN) error {
	w.waited = true
	w.waits()
	return w.Tracker.Wait(ctx, lsn)
}

func TestTransaction_IsReadStraight(t *testing.T) {
	s := newSite(t)
	s.warmProperty()
	tx, err := s.pool.Begin(t.Context())
	must(t, err)
	defer tx.Rollback(context.Background())
	_, err = tx.Exec(t.Context(), "UPDATE properties SET title = 'Attic' WHERE id = 1")
	must(t, err)
	ctx, _ := Collect(t.Context())
	within := New(tx)
	must(t, within.Consistent(ctx, func(ctx context.Context) error {
		p, err := within.GetProperty(ctx, 1)
		if p.Title != "Attic" {
			t.Errorf("title %q", p.Title)
		}
		return err
	}))
	s.expectTitle("Loft")
}

func TestFill_RacingWithAChangeIsBornStale(t *testing.T) {
	s := newSite(t)
	s.gate.then(func() {
		s.rename("Attic")
		s.learns(property1)
	})
	s.expectTitle("Loft") // what was read, before the change
	s.kept()
	s.expectTitle("Attic")
}

// A commit may be decoded before it can be seen: what is read then is as of
// before it, although it is known.
func TestFill_OfACommitThatIsKnownAndNotVisibleIsBornStale(t *testing.T) {
	s := newSite(t)
	tx, err := s.pool.Begin(t.Context())
	must(t, err)
	_, err = tx.Exec(t.Context(), "UPDATE properties SET title = 'Attic' WHERE id = 1")
	must(t, err)
	s.applies(s.position(), s.tracker.Stamp().LSN, property1) // as if it had committed
	s.expectTitle("Loft")
	s.kept()
	must(t, tx.Commit(t.Context()))
	s.expectTitle("Attic")
}

func TestAsOf_SaysWhatHolds(t *testing.T) {
	s := newSite(t)
	if _, asOf := s.read(); asOf != coherence.AsOfRequest {
		t.Errorf("from the database: as of %s", asOf)
	}
	s.kept()
	s.exec("UPDATE properties SET title = 'Barn' WHERE id = 2")
	s.learns("properties/id=2")
	if _, asOf := s.read(); asOf != s.tracker.Known().String() {
		t.Errorf("from the cache: as of %s, want what is known, %v", asOf, s.tracker.Known())
	}

	ctx, reads := Collect(t.Context())
	before := s.tracker.Known()
	_, err := s.GetProperty(ctx, 1) // from the cache
	must(t, err)
	_, err = s.ListLocations(ctx) // from the database
	must(t, err)
	if asOf := reads.AsOf(); asOf != before.String() {
		t.Errorf("from both: as of %s, want %v", asOf, before)
	}
	s.rename("Attic")
	s.learns(property1)
	if asOf := reads.AsOf(); asOf != before.String() {
		t.Errorf("after a change: as of %s, want %v", asOf, before)
	}
	s.tracker.Begin("other", s.position())
	s.applies(s.position(), s.position())
	if asOf := reads.AsOf(); asOf != before.String() {
		t.Errorf("in another epoch: as of %s, want %v", asOf, before)
	}
	_, err = s.GetProperty(ctx, 2)
	must(t, err)
	if asOf := reads.AsOf(); asOf != "0/0;epoch=none" {
		t.Errorf("of two epochs: as of %s", asOf)
	}
	if got := reads.Tags(); !slices.Equal(got, []coherence.Tag{"properties", property1, "properties/id=2"}) {
		t.Errorf("tags %q", got)
	}
}

func TestShared_EqualReadsAreOneQuery(t *testing.T) {
	s := newSite(t)
	const others = 5
	sandboxtest.Eventually(t, patience, func() error { // they may all come too late, by chance
		must(t, s.client.Del(t.Context(), s.prefix+"qs:property:1").Err())
		before, queries := *s.Stats(), s.gate.queries.Load()
		titles := make(chan string, others)
		s.gate.then(func() {
			for range others {
				go func() { titles <- s.title() }()
			}
			sandboxtest.Eventually(t, patience, func() error {
				if n := s.Stats().Absent - before.Absent; n != 1+others {
					return fmt.Errorf("%d have looked", n)
				}
				return nil
			})
		})
		s.expectTitle("Loft")
		for range others {
			if title := <-titles; title != "Loft" {
				t.Errorf("title %q", title)
			}
		}
		s.kept()
		queries, shared := s.gate.queries.Load()-queries, s.Stats().Shared-before.Shared
		if queries+int64(shared) != 1+others {
			t.Errorf("%d requests: %d queries, %d shared", 1+others, queries, shared)
		}
		if shared == 0 {
			return errors.New("nobody shared a query")
		}
		return nil
	})
}

// Who arrives while a query runs takes its answer only if that still holds: it
// may have come because it knows of a change.
func TestShared_WhoArrivesLaterIsNotAnsweredWithWhatChanged(t *testing.T) {
	s := newSite(t)
	later := make(chan string, 1)
	s.gate.then(func() { // the row has been read
		s.rename("Attic")
		s.learns(property1)
		absent := s.Stats().Absent
		go func() { later <- s.title() }()
		sandboxtest.Eventually(t, patience, func() error {
			if s.Stats().Absent == absent {
				return errors.New("the later request has not looked yet")
			}
			return nil
		})
	})
	s.expectTitle("Loft")
	if title := <-later; title != "Attic" {
		t.Errorf("the later request was answered %q", title)
	}
}

func TestShared_OnlyWhoLeavesIsLeftAlone(t *testing.T) {
	s := newSite(t)
	leaving, leave := context.WithCancel(context.Background())
	stays := make(chan string, 1)
	lock, err := s.pool.Begin(t.Context())
	must(t, err)
	_, err = lock.Exec(t.Context(), "LOCK properties")
	must(t, err)
	left := make(chan error, 1)
	go func() {
		ctx, _ := Collect(leaving)
		_, err := s.GetProperty(ctx, 1)
		left <- err
	}()
	arrived := func(n uint64) {
		sandboxtest.Eventually(t, patience, func() error {
			if s.Stats().Absent < n {
				return errors.New("it has not looked yet")
			}
			return nil
		})
	}
	arrived(1)
	go func() { stays <- s.title() }()
	arrived(2)
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("who left: %v", err)
	}
	must(t, lock.Rollback(t.Context()))
	if title := <-stays; title != "Loft" {
		t.Errorf("who stayed: %q", title)
	}
}

func TestRedis_ThatIsAwayCostsNothing(t *testing.T) {
	server := sandboxtest.OwnRedis(t)
	s := newSiteOn(t, server.URL(), "wc:", 100*time.Millisecond)
	s.warmProperty()
	must(t, server.Kill())
	for !s.Stats().Open {
		s.expectTitle("Loft")
	}
	s.expectTitle("Loft")
	if s.Stats().Skipped == 0 {
		t.Error("it was asked although it is known to be away")
	}
	must(t, server.Start(t.Context()))
	sandboxtest.Eventually(t, patience, func() error {
		if s.expectTitle("Loft"); s.Stats().Hits == 0 {
			return errors.New("no hit")
		}
		return nil
	})
}

func TestRedis_ThatIsFullIsLeftToTheChangeLog(t *testing.T) {
	server := sandboxtest.OwnRedis(t)
	s := newSiteOn(t, server.URL(), "wc:", patience)
	must(t, s.client.ConfigSet(t.Context(), "maxmemory-policy", "noeviction").Err())
	must(t, s.client.ConfigSet(t.Context(), "maxmemory", "1mb").Err())
	sandboxtest.Eventually(t, patience, func() error {
		if room := s.cache.room.Load(); room > 0 {
			return fmt.Errorf("%d bytes of room", room)
		}
		return nil
	})
	s.expectTitle("Loft")
	if n := s.kept(); n != 0 {
		t.Errorf("%d entries were written", n)
	}
	must(t, s.client.ConfigSet(t.Context(), "maxmemory-policy", "volatile-lru").Err())
	must(t, s.client.ConfigSet(t.Context(), "maxmemory", "100mb").Err())
	sandboxtest.Eventually(t, patience, func() error {
		if s.expectTitle("Loft"); s.kept() == 0 {
			return errors.New("nothing was written")
		}
		return nil
	})
}

func TestEntry_ThatIsTooLargeIsNotKept(t *testing.T) {
	s := newSite(t)
	s.exec("UPDATE properties SET description = repeat('d', $1) WHERE id = 1", maxEntry)
	s.expectTitle("Loft")
	if s.kept() != 0 || s.Stats().TooLarge != 1 {
		t.Errorf("%+v", *s.Stats())
	}
}

// A list that everybody reads is not written by everybody. And it must not be:
// what is written later goes further, and is of use in Consistent later.
func TestWriter_WritesOnceWhatIsReadManyTimes(t *testing.T) {
	s := newSite(t)
	w := writer{cache: s.cache, written: map[string]coherence.Position{}}
	deps, _ := catalog().Narrow([]coherence.Tag{property1})
	j := job{key: "k", deps: deps, asOf: s.tracker.Stamp()}
	expect := func(what string, want bool) {
		t.Helper()
		if got := w.worth(j, time.Now()); got != want {
			t.Errorf("%s: worth writing: %v", what, got)
		}
	}
	expect("at first", true)
	w.written[j.key] = j.asOf
	expect("a moment later", false)
	s.rename("Attic")
	s.learns(property1)
	expect("of before a change", false)
	j.asOf = s.tracker.Stamp()
	expect("of after the change", true)
}
