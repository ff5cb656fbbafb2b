package api

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"walcache/backend/edit"
	"walcache/backend/queryset"
	"walcache/proxy/coherence"
	"walcache/proxy/redisurl"
	"walcache/proxy/sandbox/sandboxtest"
)

// follow has the site answer from a cache, which knows what the tracker is told.
func (s *site) follow() *coherence.Tracker {
	s.t.Helper()
	tracker := coherence.NewTracker(1<<16, time.Hour)
	tracker.Begin("k3f9", 1)
	tracker.SetCatalog(&coherence.Catalog{Tables: map[string]coherence.Table{
		"properties": {Columns: map[string]coherence.Kind{"id": coherence.Integer, "location": coherence.Text}},
		"releases":   {},
	}})
	tracker.Beat("k3f9", time.Now())
	s.learn(tracker)

	url, prefix := sandboxtest.Redis(s.t)
	client, err := redisurl.Open(url, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = client.Close() })
	cached := queryset.NewCached(s.pool, queryset.Config{Client: client, Prefix: prefix, Truth: tracker, Budget: time.Minute, Log: discard})
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- cached.Run(ctx) }()
	s.t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			s.t.Error(err)
		}
	})
	handler, err := New(Config{Query: cached, Direct: queryset.New(s.pool), Edit: edit.New(s.pool), Token: token, Log: discard})
	if err != nil {
		s.t.Fatal(err)
	}
	s.serve(handler)
	return tracker
}

// learn tells the tracker that these tags changed up to now, and nothing else.
func (s *site) learn(tracker *coherence.Tracker, changed ...coherence.Tag) {
	s.t.Helper()
	var text string
	if err := s.pool.QueryRow(s.t.Context(), `SELECT pg_current_wal_insert_lsn()::text`).Scan(&text); err != nil {
		s.t.Fatal(err)
	}
	now, err := coherence.ParsePosition(text + ";epoch=k3f9")
	if err != nil {
		s.t.Fatal(err)
	}
	r := coherence.Record{Epoch: "k3f9", From: tracker.Known().LSN, To: now.LSN, Visible: now.LSN}
	for _, tag := range changed {
		r.Changes = append(r.Changes, coherence.Change{Hash: tag.Hash(), At: now.LSN})
	}
	if err := tracker.Apply(r); err != nil {
		s.t.Fatal(err)
	}
}

func TestCached_SaysSoAndAsOfWhen(t *testing.T) {
	s := newMigratedSite(t)
	s.exec(insertTwo)
	tracker := s.follow()
	for _, path := range []string{"/properties/", "/properties/?location=Nairobi", "/properties/?search=o&page_size=1", "/properties/?page=1"} {
		_, fresh := s.do("GET", path)
		if !strings.Contains(fresh, `"cached":false`) {
			t.Errorf("%s: the first answer: %s", path, fresh)
		}
		sandboxtest.Eventually(t, time.Minute, func() error {
			w, body := s.do("GET", path)
			if body != strings.Replace(fresh, `"cached":false`, `"cached":true`, 1) {
				return fmt.Errorf("%s: %s", path, body)
			}
			if asOf := w.Header.Get("As-Of-LSN"); asOf != tracker.Known().String() {
				return fmt.Errorf("%s: as of %s, known is %s", path, asOf, tracker.Known())
			}
			return nil
		})
		later := tracker.Known()
		later.LSN += 1 << 40
		w, body := s.do("GET", path, "Min-LSN", later.String())
		if body != fresh {
			t.Errorf("%s: somebody knows more than the cache, and got %s", path, body)
		}
		expectHeader(t, path, w, "As-Of-LSN", tracker.Known().String()) // it can speak for no later release
	}
	s.exec(`UPDATE properties SET title = 'Attic' WHERE id = 1`)
	if _, body := s.do("GET", "/properties/no-cache/"); !strings.Contains(body, "Attic") {
		t.Errorf("no-cache is as old as the cache: %s", body)
	}
	s.learn(tracker, "properties", "properties/id=1", "properties/location=Nairobi")
	if _, body := s.do("GET", "/properties/?location=Nairobi"); !strings.Contains(body, "Attic") {
		t.Errorf("a change that is known is not shown: %s", body)
	}
}
