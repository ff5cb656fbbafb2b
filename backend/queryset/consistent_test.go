package queryset

import (
	"context"
	"errors"
	"testing"

	"walcache/proxy/coherence"
)

// agree reads a list and its count in one answer, and expects them to agree. It
// returns what the answer says of itself.
func (s *site) agree(want int, between func()) (asOf string) {
	s.t.Helper()
	ctx, reads := Collect(context.Background())
	s.agreeIn(ctx, s.Querier, want, between)
	return reads.AsOf()
}

func (s *site) agreeIn(ctx context.Context, q *Querier, want int, between func()) {
	s.t.Helper()
	var list, count int
	must(s.t, q.Consistent(ctx, func(ctx context.Context) error {
		rows, err := q.ListProperties(ctx)
		if err != nil {
			return err
		}
		if between != nil {
			between()
			between = nil
		}
		n, err := q.CountProperties(ctx)
		list, count = len(rows), int(n)
		return err
	}))
	if list != want || count != want {
		s.t.Errorf("a list of %d and a count of %d, want %d", list, count, want)
	}
}

// add adds a property that the tracker does not know of.
func (s *site) add() {
	s.t.Helper()
	s.exec("INSERT INTO properties (id, title, description, price, location) SELECT max(id) + 1, 'New', '', 1, 'Nairobi' FROM properties")
}

func TestConsistent_FromTheCacheIsAsOfWhatIsKnown(t *testing.T) {
	s := newSite(t)
	s.warmList()
	s.warmCount()
	s.add()
	s.learns("releases") // and of no property
	if asOf := s.agree(2, nil); asOf != s.tracker.Known().String() {
		t.Errorf("as of %s, and %v is known", asOf, s.tracker.Known())
	}
	if n := s.Stats().Hits; n != 2 {
		t.Errorf("%d hits", n)
	}
}

func TestConsistent_HalfFromTheCacheIsAllFromTheDatabase(t *testing.T) {
	s := newSite(t)
	s.warmList()
	s.add()
	s.learns("releases")
	if asOf := s.agree(3, nil); asOf != coherence.AsOfRequest {
		t.Errorf("as of %s", asOf)
	}
}

// Both entries hold as far as is known. But one of them was read after a commit
// that nobody here knows of yet.
func TestConsistent_EntriesBeyondWhatIsKnownAreNotUsed(t *testing.T) {
	s := newSite(t)
	s.warmList()
	s.learns()
	s.add()
	s.warmCount()
	s.agree(3, nil)
	if n := s.Stats(); n.Ahead != 1 {
		t.Errorf("%+v", *n)
	}
}

func TestConsistent_WhatMovedInBetweenIsReadAgain(t *testing.T) {
	s := newSite(t)
	s.warmList()
	s.warmCount()
	s.learns("releases")
	s.agree(3, func() {
		s.add()
		s.learns("properties")
	})
	if n := s.Stats(); n.Moved+n.Changed == 0 {
		t.Errorf("%+v", *n)
	}
}

func TestConsistent_ASnapshotIsOne(t *testing.T) {
	s := newSite(t)
	s.agree(2, s.add)                                      // with an empty cache
	s.agreeIn(context.Background(), s.Querier, 3, s.add)   // outside of a request
	s.agreeIn(context.Background(), New(s.pool), 4, s.add) // without a cache
}

func TestConsistent_WhatASnapshotReadIsKept(t *testing.T) {
	s := newSite(t)
	s.agree(2, nil)
	s.kept()
	s.learns()
	hits := s.Stats().Hits
	if asOf := s.agree(2, nil); asOf != s.tracker.Known().String() || s.Stats().Hits != hits+2 {
		t.Errorf("as of %s, %+v", asOf, *s.Stats())
	}
}

func TestConsistent_ReturnsTheErrorAndFreesTheConnection(t *testing.T) {
	s := newSite(t)
	own := errors.New("own")
	ctx, _ := Collect(t.Context())
	if err := s.Consistent(ctx, func(context.Context) error { return own }); !errors.Is(err, own) {
		t.Errorf("error %v", err)
	}
	leaving, leave := context.WithCancel(t.Context())
	err := New(s.pool).Consistent(leaving, func(ctx context.Context) error {
		leave()
		_, err := New(s.pool).CountProperties(ctx)
		return err
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	func() {
		defer func() { _ = recover() }()
		_ = s.Consistent(context.Background(), func(context.Context) error { panic("as a handler may") })
	}()
	if n := s.pool.Stat().AcquiredConns(); n != 0 {
		t.Errorf("%d connections are still in use", n)
	}
}
