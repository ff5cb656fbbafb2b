package changelog

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"walcache/proxy/coherence"
	"walcache/proxy/sandbox"
	"walcache/proxy/sandbox/sandboxtest"
)

func whatTheLeaderSaysReachesAFollower(t *testing.T, url, prefix string) {
	follower := start(t, url, prefix)
	l := lead(t, start(t, url, prefix))
	l.commit()
	l.beats("the follower to vouch", func() bool { return follower.vouches() && follower.Stamp().LSN == l.at })
	before := follower.Stamp()
	l.commit("books/id=1")
	eventually(t, "the changed book to be stale", func() bool { return follower.verdict(before, "books/id=1") == coherence.Changed })
	l.beats("another to be fresh", func() bool { return follower.verdict(before, "books/id=2") == coherence.Fresh })
	l.SetCatalog(&coherence.Catalog{Off: true, Term: l.term})
	eventually(t, "another catalog", func() bool { return follower.Catalog().Off })
}

// The next leader knows everything, whether or not it was there before.
func aLateJoinerKnowsWhatTheCheckpointSays(t *testing.T, url, prefix string) {
	first := start(t, url, prefix)
	l := lead(t, first)
	for range 10 {
		l.commit("books/id=1")
	}
	l.logged()
	joiner := start(t, url, prefix)
	l.beats("the joiner to vouch", joiner.vouches)
	if v := joiner.verdict(coherence.Position{Epoch: l.epoch, LSN: l.at - 1}, "books/id=1"); v != coherence.Changed {
		t.Errorf("what changed before it joined is %s", v)
	}
	l.Yield()
	first.stop()
	for _, p := range []*running{joiner, start(t, url, prefix)} {
		past, err := p.Lead(t.Context())
		must(t, err)
		if past.Epoch != l.epoch || past.Known != l.at || past.Visible != l.at || string(past.State) != "state" {
			t.Errorf("the next leader finds %+v, want %s at %s", past, l.epoch, l.at)
		}
		p.Yield()
	}
}

// Nothing that becomes of Redis's memory lasts longer than the next checkpoint.
func goesOnWithWhateverIsThere(t *testing.T, url, prefix string) {
	client, ctx := connect(t, url), t.Context()
	log, checkpoint := prefix+"log", prefix+"checkpoint"
	follower, fromStart := start(t, url, prefix), start(t, url, prefix)
	l := listen(t, fromStart)
	fresh := func(what string) {
		t.Helper()
		joiner := start(t, url, prefix)
		eventually(t, "all to vouch after "+what, func() bool {
			return follower.vouches() && joiner.vouches() && l.vouches() && follower.Epoch() == l.Epoch() && joiner.Epoch() == l.Epoch()
		})
		joiner.stop()
	}
	fresh("the beginning")
	old, err := client.Get(ctx, checkpoint).Result()
	must(t, err)
	for _, fault := range []struct {
		what string
		do   func() error
	}{
		{"the log is deleted", func() error { return client.Del(ctx, log).Err() }},
		{"the checkpoint is deleted", func() error { return client.Del(ctx, checkpoint).Err() }},
		{"both are deleted", func() error { _ = client.Del(ctx, log).Err(); return client.Del(ctx, checkpoint).Err() }},
		{"the log is trimmed", func() error { return client.XTrimMaxLen(ctx, log, 0).Err() }},
		{"the log is another key", func() error { return client.Set(ctx, log, "x", 0).Err() }},
		{"the checkpoint is another key", func() error {
			_ = client.Del(ctx, checkpoint).Err()
			return client.HSet(ctx, checkpoint, "a", "b").Err()
		}},
		{"the checkpoint is nonsense", func() error { return client.Set(ctx, checkpoint, "walcache1 nonsense\n", 0).Err() }},
		{"the checkpoint is cut", func() error { return client.Set(ctx, checkpoint, old[:len(old)/2], 0).Err() }},
		{"the checkpoint is an old one", func() error { return client.Set(ctx, checkpoint, old, 0).Err() }},
		{"the log has entries of others", func() error {
			return client.XAdd(ctx, &redis.XAddArgs{Stream: log, Values: []any{"a", "b"}}).Err()
		}},
	} {
		must(t, fault.do())
		eventually(t, "a whole checkpoint after "+fault.what, func() bool {
			value, err := client.Get(ctx, checkpoint).Bytes()
			if err != nil {
				return false
			}
			c, err := decodeCheckpoint(value)
			return err == nil && c.by == l.writer.name() && c.known > 200
		})
		fresh(fault.what)
	}
}

// name is the leader's, in the checkpoint.
func (w *writer) name() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.by
}

// A failover to a replica that lacks the log's end, or all of it: the connections
// break, and what is there is old.
func TestLog_AFailoverThatLosesTheEndIsMadeGood(t *testing.T) {
	t.Parallel()

	r := sandboxtest.OwnRedis(t)
	client, ctx := connect(t, r.URL()), t.Context()
	follower := start(t, r.URL(), "wc:")
	l := lead(t, start(t, r.URL(), "wc:"))
	l.commit("books/id=1")
	l.beats("the follower to vouch", follower.vouches)
	old := map[string]string{}
	for _, key := range []string{"wc:log", "wc:checkpoint"} {
		value, err := client.Dump(ctx, key).Result()
		must(t, err)
		old[key] = value
	}
	for range 20 {
		l.commit("books/id=2")
	}
	l.beats("the follower to know them", func() bool { return follower.vouches() && follower.known() == l.at })
	_, err := client.TxPipelined(ctx, func(p redis.Pipeliner) error {
		for key, value := range old {
			p.RestoreReplace(ctx, key, 0, value)
		}
		return p.Do(ctx, "client", "kill", "type", "normal", "skipme", "yes").Err()
	})
	must(t, err)
	l.commit("books/id=3")
	l.beats("the follower to vouch again", func() bool { return follower.vouches() && follower.known() == l.at })
	joiner := start(t, r.URL(), "wc:")
	l.beats("a joiner to vouch", joiner.vouches)
	asOf := coherence.Position{Epoch: l.epoch, LSN: l.at - 1000}
	if v := joiner.verdict(asOf, "books/id=2"); v != coherence.Fresh {
		t.Errorf("what changed before is %s", v)
	}
	if v := joiner.verdict(asOf, "books/id=3"); v != coherence.Changed {
		t.Errorf("what changed after the failover is %s", v)
	}
	if past, err := start(t, r.URL(), "wc:").Lead(ctx); err != nil || past.Epoch != l.epoch || past.Known != l.at {
		t.Errorf("the next leader would find %+v, %v", past, err)
	}
}

func TestLog_SentinelsReplaceThePrimary(t *testing.T) {
	t.Parallel()

	s := sandboxtest.OwnRedisSentinel(t)
	follower := start(t, s.URL(), "wc:")
	l := listen(t, start(t, s.URL(), "wc:"))
	eventually(t, "the follower to vouch", follower.vouches)
	for _, breakIt := range []func(*sandbox.Redis) error{(*sandbox.Redis).Pause, (*sandbox.Redis).Kill} {
		primary, err := s.Primary(t.Context())
		must(t, err)
		must(t, breakIt(primary))
		eventually(t, "another primary", func() bool {
			other, err := s.Primary(t.Context())
			return err == nil && other != primary
		})
		known := l.known()
		eventually(t, "the follower to vouch again", func() bool { return follower.vouches() && follower.known() > known })
	}
	if led := l.led(); len(led) != 1 {
		t.Errorf("%d epochs", len(led))
	}
}

// A restart of the whole of Redis, empty, begins no epoch either.
func TestLog_RedisRestartsEmpty(t *testing.T) {
	t.Parallel()

	r := sandboxtest.OwnRedis(t)
	follower := start(t, r.URL(), "wc:")
	l := lead(t, start(t, r.URL(), "wc:"))
	l.commit("books/id=1")
	l.beats("the follower to vouch", follower.vouches)
	must(t, r.Kill())
	l.commit("books/id=2")
	l.beats("the writer to have failed", func() bool { return l.Status().Writer.Errors > 0 })
	must(t, r.Start(t.Context()))
	l.beats("the follower to vouch again", func() bool { return follower.vouches() && follower.known() == l.at })
	if v := follower.verdict(coherence.Position{Epoch: l.epoch, LSN: l.at - 1}, "books/id=2"); v != coherence.Changed {
		t.Errorf("what changed while Redis was away is %s", v)
	}
}

// A leader that froze, and goes on beside its successor.
func TestLog_TwoLeadersDoNotHarm(t *testing.T) {
	t.Parallel()

	url, prefix := sandboxtest.Redis(t)
	follower := start(t, url, prefix)
	first := lead(t, start(t, url, prefix))
	first.commit("books/id=1")
	first.beats("the follower to vouch", follower.vouches)
	first.logged()

	second := lead(t, start(t, url, prefix))
	if second.epoch != first.epoch || second.at != first.at {
		t.Fatalf("the second leads in %s at %s, and the first in %s at %s", second.epoch, second.at, first.epoch, first.at)
	}
	second.commit("books/id=2")
	second.beats("the follower to vouch again", func() bool { return follower.vouches() && follower.known() == second.at })
	second.logged()

	// The first goes on with what it had received, which is a fact too, until it
	// is told.
	eventually(t, "the first to be told", func() bool {
		_ = first.Beat(first.epoch, time.Now())
		return first.Apply(coherence.Record{
			Epoch: first.epoch, From: first.at, To: first.at + 1000,
			Changes: []coherence.Change{{Hash: coherence.Tag("books/id=2").Hash(), At: first.at + 1000}},
		}) != nil
	})
	second.commit("books/id=3")
	second.beats("the follower to vouch", func() bool { return follower.vouches() && follower.known() == second.at })
	if v := follower.verdict(coherence.Position{Epoch: second.epoch, LSN: second.at - 1}, "books/id=3"); v != coherence.Changed {
		t.Errorf("what the second said is %s", v)
	}
	if err := second.Apply(coherence.Record{Epoch: second.epoch, From: second.at, To: second.at}); err != nil {
		t.Errorf("the second: %v", err)
	}
}

func TestLog_ACatalogOfAnEarlierLeaderDoesNotCount(t *testing.T) {
	t.Parallel()

	url, prefix := sandboxtest.Redis(t)
	follower := start(t, url, prefix)
	frozen := open(t, url, prefix)
	first := lead(t, &running{Log: frozen, t: t})
	must(t, frozen.writer.work(t.Context())) // a checkpoint, and nothing since
	first.SetCatalog(&coherence.Catalog{Tables: map[string]coherence.Table{"old": {}}, Term: first.term})

	second := lead(t, start(t, url, prefix))
	want := &coherence.Catalog{Tables: map[string]coherence.Table{"new": {}}, Term: second.term}
	second.SetCatalog(want)
	second.commit()
	second.beats("the follower to vouch", follower.vouches)

	read := follower.Status().Reader.Entries
	must(t, frozen.writer.work(t.Context())) // it thaws
	eventually(t, "its entries to be read", func() bool { return follower.Status().Reader.Entries > read })
	second.beats("the follower to vouch after that", func() bool { return follower.Status().Reader.Entries > read+3 && follower.vouches() })
	for name, c := range map[string]*coherence.Catalog{"follower": follower.Catalog(), "leader": second.Catalog()} {
		if _, ok := c.Tables["new"]; !ok || c.Term != second.term {
			t.Errorf("the %s believes in %+v", name, c)
		}
	}
}

// At the highest rate that there is, log and checkpoint stay small.
func TestLog_BoundedSize(t *testing.T) {
	t.Parallel()

	r := sandboxtest.OwnRedis(t)
	client, ctx := connect(t, r.URL()), t.Context()
	log, err := Open(coherence.NewTracker(coherence.DefaultSlots, 2*time.Second), r.URL(), "wc:", slog.New(slog.DiscardHandler))
	must(t, err)
	t.Cleanup(func() { _ = log.Close() })
	l := lead(t, run(t, log))
	largest, total := int64(0), uint64(0)
	for slot := coherence.Hash(0); total < 24<<20; {
		changes := make([]coherence.Change, 20_000)
		for i := range changes {
			slot++
			changes[i] = coherence.Change{Hash: slot, At: l.at + 1000}
		}
		must(t, l.Apply(coherence.Record{Epoch: l.epoch, From: l.at, To: l.at + 1000, Changes: changes}))
		l.at += 1000
		eventually(t, "the queue to be short", func() bool { return l.Status().Writer.QueuedChanges < 200_000 })
		size := int64(0)
		for _, key := range []string{"wc:log", "wc:checkpoint"} {
			n, err := client.MemoryUsage(ctx, key).Result()
			if err != nil && !errors.Is(err, redis.Nil) {
				t.Fatal(err)
			}
			size += n
		}
		largest, total = max(largest, size), l.Status().Writer.Bytes
	}
	p := l.Progress(time.Now())
	t.Logf("%d MiB written, tracker %d%% full, log and checkpoint %d MiB at most", total>>20, 100*p.Used/p.Slots, largest>>20)
	if largest > 64<<20 {
		t.Errorf("log and checkpoint came to %d MiB", largest>>20)
	}
}

func TestLog_AFrozenRedisHoldsUpNobody(t *testing.T) {
	t.Parallel()

	r := sandboxtest.OwnRedis(t)
	follower := start(t, r.URL(), "wc:")
	l := lead(t, start(t, r.URL(), "wc:"))
	l.commit("books/id=1")
	l.beats("the follower to vouch", follower.vouches)
	must(t, r.Pause())
	// None of this may wait for Redis, which will not answer before the end.
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 10_000 {
			l.commit("books/id=2")
			_ = l.Beat(l.epoch, time.Now())
			l.SetCatalog(&coherence.Catalog{Term: l.term})
			l.Keep([]byte("state"))
		}
		l.Yield()
	}()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("the leader was held up")
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	past, err := l.Lead(ctx)
	if err != nil || past.Epoch != l.epoch || past.Known != l.at {
		t.Errorf("while Redis stands still, the next session finds %+v, %v", past, err)
	}
	must(t, r.Resume())
	l.commit("books/id=3")
	l.beats("the follower to vouch again", func() bool { return follower.vouches() && follower.known() == l.at })
}

// A leader that could not read what the cluster knows begins upon it.
func TestLog_LeadsWhileRedisIsAway(t *testing.T) {
	t.Parallel()

	r := sandboxtest.OwnRedis(t)
	follower := start(t, r.URL(), "wc:")
	first := lead(t, start(t, r.URL(), "wc:"))
	first.commit("books/id=1")
	first.beats("the follower to vouch", follower.vouches)
	must(t, r.Pause())
	first.Yield()
	l := listen(t, start(t, r.URL(), "wc:")) // which knows nothing
	eventually(t, "the second to lead", func() bool { return len(l.led()) == 1 })
	if follower.verdict(coherence.Position{Epoch: first.epoch, LSN: first.at}, "books/id=1") == coherence.OtherEpoch {
		t.Error("the follower knows of the second's epoch already")
	}
	must(t, r.Resume())
	eventually(t, "the follower to vouch with the second", func() bool { return follower.vouches() && follower.Epoch() == l.Epoch() && l.vouches() })
}

func TestLog_WithoutRedis(t *testing.T) {
	t.Parallel()

	var said bytes.Buffer
	l := New(coherence.NewTracker(1<<10, 2*time.Second), slog.New(slog.NewTextHandler(&said, nil)))
	p := run(t, l)
	first := lead(t, p)
	first.commit("books/id=1")
	_ = first.Beat(first.epoch, time.Now())
	if v := p.verdict(coherence.Position{Epoch: first.epoch, LSN: 100}, "books/id=1"); v != coherence.Changed || !p.vouches() {
		t.Errorf("the changed book is %s", v)
	}
	if l.Logged() != math.MaxUint64 || l.Cluster() == "" || l.Shared() {
		t.Errorf("logged up to %s in cluster %q, shared %t", l.Logged(), l.Cluster(), l.Shared())
	}
	first.Yield()
	past, err := l.Lead(t.Context())
	if err != nil || past.Epoch != first.epoch || past.Known != first.at || string(past.State) != "state" {
		t.Errorf("the next session finds %+v, %v", past, err)
	}
	if behind, err := l.WaitAll(t.Context(), first.at); err != nil || len(behind) > 0 {
		t.Errorf("behind are %v, %v", behind, err)
	}
	if said.Len() > 0 {
		t.Errorf("it said: %s", &said)
	}
}

// What was begun and not logged yet is still known to the next session here.
func TestLog_ASessionAfterAnotherKnowsWhatItBegan(t *testing.T) {
	t.Parallel()

	url, prefix := sandboxtest.Redis(t)
	log := open(t, url, prefix)
	p := &running{Log: log, t: t}
	first := lead(t, p)
	must(t, log.writer.work(t.Context()))
	p.Yield()
	if _, err := p.Lead(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.Begin("second", first.at)
	must(t, p.Apply(coherence.Record{Epoch: "second", From: first.at, To: 5000}))
	p.Yield() // and nothing of it was logged
	past, err := p.Lead(t.Context())
	if err != nil || past.Epoch != "second" || past.Known != 5000 {
		t.Fatalf("the next session finds %+v, %v", past, err)
	}
	must(t, p.Apply(coherence.Record{Epoch: "second", From: 5000, To: 6000}))
	must(t, log.writer.work(t.Context()))
	if past, err := open(t, url, prefix).Lead(t.Context()); err != nil || past.Epoch != "second" || past.Known != 6000 {
		t.Errorf("another process finds %+v, %v", past, err)
	}
}

func TestOpen_RefusesWhatIsNoURL(t *testing.T) {
	if _, err := Open(coherence.NewTracker(1<<10, time.Second), "postgres://host", "wc:", slog.New(slog.DiscardHandler)); err == nil {
		t.Error("taken")
	}
}
