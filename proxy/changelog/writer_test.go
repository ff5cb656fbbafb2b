package changelog

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"walcache/proxy/coherence"
	"walcache/proxy/sandbox/sandboxtest"
)

// spy sees what a writer does, and has some of it fail: as after a timeout, when
// nobody knows whether Redis did it.
type spy struct {
	remote
	calls  []string
	fail   func(call string, e entry) error
	before func(call string)
}

func (s *spy) saw(call string, e entry) error {
	s.calls = append(s.calls, call)
	if s.before != nil {
		s.before(call)
	}
	if s.fail != nil {
		return s.fail(call, e)
	}
	return nil
}

func (s *spy) append(ctx context.Context, data []byte) (string, error) {
	e, err := decodeEntry(data)
	if err != nil {
		return "", err
	}
	kind := map[bool]string{e.record != nil: "record", e.beat != nil: "beat", e.news != nil: "news"}[true]
	if err := s.saw(kind, e); err != nil {
		return "", err
	}
	return s.remote.append(ctx, data)
}

func (s *spy) save(ctx context.Context, found string, h head, value []byte) error {
	if err := s.saw("checkpoint", entry{}); err != nil {
		return err
	}
	return s.remote.save(ctx, found, h, value)
}

// watched is a leader whose writer works when the test says so.
func watched(t *testing.T) (*spy, *leader) {
	t.Helper()
	url, prefix := sandboxtest.Redis(t)
	log := open(t, url, prefix)
	s := &spy{remote: log.remote}
	log.remote = s
	return s, lead(t, &running{Log: log, t: t})
}

// work has the writer do what is to be done, and returns that.
func (s *spy) work(l *leader) (calls []string, err error) {
	s.calls = nil
	if err = l.writer.work(l.t.Context()); err != nil {
		l.writer.failed(err)
	}
	return s.calls, err
}

func (s *spy) expect(l *leader, want ...string) {
	l.t.Helper()
	calls, err := s.work(l)
	must(l.t, err)
	if len(calls) != len(want) {
		l.t.Fatalf("the writer did %v, want %v", calls, want)
	}
	for i := range want {
		if calls[i] != want[i] {
			l.t.Fatalf("the writer did %v, want %v", calls, want)
		}
	}
}

func TestWriter_AfterAnErrorACheckpointComesFirst(t *testing.T) {
	t.Parallel()

	s, l := watched(t)
	l.commit("books/id=1")
	s.expect(l, "checkpoint")
	l.commit("books/id=2")
	_ = l.Beat(l.epoch, time.Now())
	s.expect(l, "record", "beat")
	for _, failing := range []string{"record", "beat", "news", "checkpoint"} {
		l.commit("books/id=3")
		l.SetCatalog(&coherence.Catalog{Term: l.term})
		_ = l.Beat(l.epoch, time.Now())
		if failing == "checkpoint" {
			l.writer.reconnected()
		}
		s.fail = func(call string, _ entry) error {
			if call == failing {
				return errors.New("a timeout")
			}
			return nil
		}
		if _, err := s.work(l); err == nil {
			t.Fatalf("no %s", failing)
		}
		s.fail = nil
		l.commit("books/id=4")
		_ = l.Beat(l.epoch, time.Now()) // too early: there is nothing that it could prove
		s.expect(l, "checkpoint")
		if l.Logged() != l.at {
			t.Errorf("after %s: logged up to %s of %s", failing, l.Logged(), l.at)
		}
	}
	l.commit("books/id=5")
	s.expect(l, "record")
	l.writer.reconnected()
	l.commit("books/id=6")
	s.expect(l, "checkpoint")
}

// 1. A beat is acknowledged. 2. An entry fails, and may come late. 3. The next
// beat has another name: two of one name are proof that nothing came between.
func TestWriter_AfterAnErrorBeatsHaveAnotherName(t *testing.T) {
	t.Parallel()

	s, l := watched(t)
	s.expect(l, "checkpoint")
	name := func() (name string) {
		_ = l.Beat(l.epoch, time.Now())
		s.fail = func(_ string, e entry) error { name = e.beat.name; return nil }
		s.expect(l, "beat")
		s.fail = nil
		return name
	}
	first := name()
	if second := name(); second != first {
		t.Fatalf("beats have the names %s and %s", first, second)
	}
	l.writer.reconnected()
	s.expect(l, "checkpoint")
	if third := name(); third == first {
		t.Error("the name is the same")
	}
}

func TestWriter_ABeatCountsOnlyIfSampledAfterTheOneBeforeWasAcknowledged(t *testing.T) {
	t.Parallel()

	s, l := watched(t)
	s.expect(l, "checkpoint")
	sampled := time.Now()
	_ = l.Beat(l.epoch, time.Now())
	_ = l.Beat(l.epoch, time.Now()) // while the first is queued
	s.expect(l, "beat")
	_ = l.Beat(l.epoch, sampled) // before the first was acknowledged
	s.expect(l)
	_ = l.Beat(l.epoch, time.Now())
	s.expect(l, "beat")
}

// 1. The tracker is read for a checkpoint. 2. A record comes. 3. The checkpoint
// is stored: it lacks the record, which must be in the queue.
func TestWriter_WhatIsSaidWhileACheckpointIsWrittenIsNotLost(t *testing.T) {
	t.Parallel()

	s, l := watched(t)
	s.before = func(call string) {
		if call == "checkpoint" {
			l.commit("books/id=1")
			l.SetCatalog(&coherence.Catalog{Off: true, Term: l.term})
		}
	}
	s.expect(l, "checkpoint", "record", "news")
	s.before = nil
	past, err := open(t, urlOf(l.Log), prefixOf(l.Log)).Lead(t.Context())
	if err != nil || past.Known != l.at {
		t.Errorf("others find %+v, %v; want %s", past, err, l.at)
	}
}

func urlOf(l *Log) string {
	client := l.remote.(*spy).remote.(*redisLog).UniversalClient.(*redis.Client)
	return "redis://:" + client.Options().Password + "@" + client.Options().Addr
}

func prefixOf(l *Log) string { return l.remote.(*spy).remote.(*redisLog).prefix }

func TestWriter_ABeatSaysHowFarRecordsHaveCome(t *testing.T) {
	t.Parallel()

	s, l := watched(t)
	s.before = func(call string) {
		if call == "checkpoint" {
			l.commit("books/id=1")
			l.commit("books/id=2")
		}
	}
	s.expect(l, "checkpoint", "record")
	s.before = nil
	_ = l.Beat(l.epoch, time.Now())
	s.fail = func(_ string, e entry) error {
		if e.beat.at != l.at || e.beat.news != l.news.order() {
			t.Errorf("a beat says %s, %+v; want %s, %+v", e.beat.at, e.beat.news, l.at, l.news.order())
		}
		return nil
	}
	s.expect(l, "beat")
}

func TestWriter_ARefusedCheckpointEndsTheSession(t *testing.T) {
	t.Parallel()

	url, prefix := sandboxtest.Redis(t)
	first := lead(t, start(t, url, prefix))
	first.commit("books/id=1")
	first.logged()
	second := lead(t, start(t, url, prefix))
	second.Begin("another", second.at) // which goes on from something that the first does not know
	second.epoch = "another"
	second.commit()
	second.logged()
	eventually(t, "the first to be told", func() bool {
		_ = first.Beat(first.epoch, time.Now())
		return errors.Is(first.Apply(coherence.Record{Epoch: first.epoch, From: first.at, To: first.at}), errSuperseded)
	})
	first.Yield()
	third := lead(t, first.running)
	if third.epoch != "another" || third.at != second.at {
		t.Errorf("it begins again in %s at %s, want %s", third.epoch, third.at, second.at)
	}
	third.commit("books/id=1")
	third.logged()
}

// The refusal of a checkpoint that an earlier session sent says nothing of this
// one.
func TestWriter_ALateRefusalEndsNoOtherSession(t *testing.T) {
	t.Parallel()

	s, l := watched(t)
	s.before = func(call string) {
		if call == "checkpoint" {
			s.before = nil
			l.Yield()
			if _, err := l.Lead(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}
	s.fail = func(call string, _ entry) error {
		if call == "checkpoint" {
			return errSuperseded
		}
		return nil
	}
	if _, err := s.work(l); !errors.Is(err, errSuperseded) {
		t.Fatal(err)
	}
	s.fail = nil
	l.commit("books/id=1")
	s.expect(l, "checkpoint")
}

// Too much for the queue is given up for a checkpoint.
func TestWriter_GivesUpALongQueue(t *testing.T) {
	t.Parallel()

	s, l := watched(t)
	l.limits.queued = 1000
	s.expect(l, "checkpoint")
	for range 300 {
		l.commit("books/id=1", "books/id=2", "books/id=3", "books/id=4")
	}
	if n := l.Status().Writer; n.GivenUp != 1 || n.QueuedChanges > 1000 {
		t.Errorf("given up %d times, %d changes wait", n.GivenUp, n.QueuedChanges)
	}
	s.expect(l, "checkpoint")
	l.Yield()
	if past, err := l.Lead(t.Context()); err != nil || past.Known != l.at {
		t.Errorf("known is %+v, %v", past, err)
	}
}

// A full Redis is not sent a checkpoint again and again.
func TestWriter_AFullRedis(t *testing.T) {
	t.Parallel()

	r := sandboxtest.OwnRedis(t)
	client := connect(t, r.URL())
	follower := start(t, r.URL(), "wc:")
	l := lead(t, start(t, r.URL(), "wc:"))
	l.commit("books/id=1")
	l.beats("the follower to vouch", follower.vouches)
	must(t, client.ConfigSet(t.Context(), "maxmemory", "1").Err())
	l.commit("books/id=2")
	l.beats("the writer to fail", func() bool { return l.Status().Writer.Errors > 2 })
	if err := l.Apply(coherence.Record{Epoch: l.epoch, From: l.at, To: l.at}); err != nil {
		t.Errorf("the session ends: %v", err)
	}
	must(t, client.ConfigSet(t.Context(), "maxmemory", "0").Err())
	l.commit("books/id=3")
	l.beats("the follower to vouch again", func() bool { return follower.vouches() && follower.known() == l.at })
}
