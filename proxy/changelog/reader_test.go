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

// script says word by word what is in the log, in the place of a leader.
type script struct {
	t *testing.T
	remote
}

func newScript(t *testing.T, url, prefix string) *script {
	t.Helper()
	return &script{t, open(t, url, prefix).remote}
}

const scripted = "epoch"

// checkpoint says that everything up to known has come.
func (s *script) checkpoint(known coherence.LSN, n news, changes ...coherence.Change) {
	s.t.Helper()
	cursor, err := s.last(s.t.Context())
	must(s.t, err)
	h := head{epoch: scripted, by: "script", term: n.order().term, edition: n.edition, known: known, cursor: cursor}
	facts := coherence.Checkpoint{Epoch: scripted, Known: known, Visible: known, Slots: 1 << 10, Changes: func(yield func(coherence.Change) bool) {
		for _, c := range changes {
			if !yield(c) {
				return
			}
		}
	}}
	must(s.t, s.save(s.t.Context(), "", h, encodeCheckpoint(h, n, facts)))
}

func (s *script) add(entries ...entry) {
	s.t.Helper()
	for _, e := range entries {
		e.epoch = scripted
		_, err := s.append(s.t.Context(), e.encode())
		must(s.t, err)
	}
}

func beatAt(name string, count uint64, at coherence.LSN) entry {
	return entry{beat: &beat{name: name, count: count, at: at}}
}

func recordTo(from, to coherence.LSN, tags ...coherence.Tag) entry {
	r := &coherence.Record{Epoch: scripted, From: from, To: to, Visible: to}
	for _, tag := range tags {
		r.Changes = append(r.Changes, coherence.Change{Hash: tag.Hash(), At: to})
	}
	return entry{record: r}
}

// read waits until a process has read so many entries more, and then the log to
// its end.
func (p *running) read(what func()) {
	p.t.Helper()
	before := p.Status().Reader.Entries
	length := func() uint64 {
		n, err := p.remote.(*redisLog).XLen(p.t.Context(), p.remote.(*redisLog).log()).Result()
		must(p.t, err)
		return uint64(n)
	}
	lengthBefore := length()
	what()
	added := length() - lengthBefore
	eventually(p.t, "entries to be read", func() bool { return p.Status().Reader.Entries >= before+added })
}

// follower has joined, and knows everything up to 100.
func follower(t *testing.T) (*script, *running) {
	t.Helper()
	url, prefix := sandboxtest.Redis(t)
	s := newScript(t, url, prefix)
	s.checkpoint(100, news{})
	p := run(t, openFor(t, url, prefix, patience)) // on a machine that may stand still
	eventually(t, "it to join", func() bool { return p.Status().Reader.State == "following" && p.known() == 100 })
	return s, p
}

func TestReader_OneBeatProvesNothing(t *testing.T) {
	t.Parallel()

	s, p := follower(t)
	for _, one := range []entry{beatAt("a", 7, 100), beatAt("b", 8, 100), beatAt("a", 7, 100), beatAt("a", 6, 100)} {
		p.read(func() { s.add(one) })
		if p.vouches() {
			t.Fatalf("%+v is taken for proof", one.beat)
		}
	}
	p.read(func() { s.add(beatAt("a", 8, 100)) }) // after another of its name
	eventually(t, "the second beat to prove something", p.vouches)
}

// What lies in the log when it is first read may be old.
func TestReader_BeatsThatAreReadWhileJoiningProveNothing(t *testing.T) {
	t.Parallel()

	url, prefix := sandboxtest.Redis(t)
	s := newScript(t, url, prefix)
	s.checkpoint(100, news{})
	for n := range uint64(1000) {
		s.add(beatAt("a", n, 100))
	}
	p := run(t, openFor(t, url, prefix, patience))
	eventually(t, "it to join", func() bool { return p.Status().Reader.State == "following" })
	if p.Status().Reader.Entries < 1000 || p.vouches() {
		t.Fatalf("after %d entries it vouches: %t", p.Status().Reader.Entries, p.vouches())
	}
	p.read(func() { s.add(beatAt("a", 1000, 100)) })
	if p.vouches() {
		t.Fatal("the first beat after it joined is taken for proof")
	}
	p.read(func() { s.add(beatAt("a", 1001, 100)) })
	eventually(t, "the second to prove something", p.vouches)
}

func TestReader_ABeatAfterALostRecordProvesNothing(t *testing.T) {
	t.Parallel()

	s, p := follower(t)
	p.read(func() { s.add(beatAt("a", 1, 100)) })
	// The record from 100 to 200 is lost.
	for n := uint64(2); n < 5; n++ {
		p.read(func() { s.add(beatAt("a", n, 200)) })
		if p.vouches() || p.known() != 100 {
			t.Fatalf("a beat is taken for proof, known up to %s", p.known())
		}
	}
	p.read(func() { s.add(recordTo(100, 200), beatAt("a", 5, 200)) }) // it was only late
	p.read(func() { s.add(beatAt("a", 6, 200)) })
	eventually(t, "it to vouch", p.vouches)
}

// News leave no gap: the beats say that there were some.
func TestReader_ABeatAfterLostNewsProvesNothing(t *testing.T) {
	t.Parallel()

	s, p := follower(t)
	catalog := &coherence.Catalog{Blind: []string{"books"}, Term: 50}
	told := news{catalog: catalog, edition: 3}
	later := func(count uint64) entry {
		return entry{beat: &beat{name: "a", count: count, at: 100, news: told.order()}}
	}
	for n := range uint64(3) {
		p.read(func() { s.add(later(n)) })
		if p.vouches() {
			t.Fatal("a beat is taken for proof")
		}
	}
	s.checkpoint(100, told) // the next one has them
	eventually(t, "the catalog", func() bool { return p.Catalog() != nil })
	p.read(func() { s.add(later(10)) })
	p.read(func() { s.add(later(11)) })
	eventually(t, "it to vouch", p.vouches)
}

func TestReader_AGapEmptiesUntilACheckpointClosesIt(t *testing.T) {
	t.Parallel()

	s, p := follower(t)
	p.read(func() { s.add(beatAt("a", 1, 100)) })
	p.read(func() { s.add(beatAt("a", 2, 100)) })
	eventually(t, "it to vouch", p.vouches)
	asOf := p.Stamp()
	p.read(func() { s.add(recordTo(200, 300, "books/id=2")) })
	if p.vouches() || p.known() != 100 {
		t.Fatalf("after a gap it vouches: %t, known %s", p.vouches(), p.known())
	}
	p.read(func() { s.add(beatAt("a", 3, 300)) })
	p.read(func() { s.add(beatAt("a", 4, 300)) })
	if p.vouches() || p.verdict(asOf, "books/id=1") == coherence.Fresh {
		t.Fatal("beats beyond a gap are taken for proof")
	}
	lost := coherence.Tag("books/id=1").Hash() & (1<<10 - 1)
	s.checkpoint(300, news{}, coherence.Change{Hash: lost, At: 150})
	eventually(t, "the checkpoint to be loaded", func() bool { return p.known() == 300 })
	if v := p.verdict(asOf, "books/id=1"); v != coherence.Changed {
		t.Errorf("what changed in the gap is %s", v)
	}
	p.read(func() { s.add(beatAt("a", 5, 300)) })
	p.read(func() { s.add(beatAt("a", 6, 300)) })
	eventually(t, "it to vouch again", p.vouches)
}

// reading drives a reader by hand, so that it stands still in between.
func reading(t *testing.T, url, prefix string) *reader {
	t.Helper()
	l := openFor(t, url, prefix, patience)
	r := &reader{Log: l, source: l.tail}
	must(t, r.join(t.Context()))
	return r
}

// steps reads until the log is joined again, or a fact holds.
func (r *reader) steps(t *testing.T, what string, fact func() bool) {
	t.Helper()
	eventually(t, what, func() bool {
		err := r.step(t.Context())
		for errors.Is(err, errAnother) || errors.Is(err, errMoved) {
			err = r.join(t.Context())
		}
		must(t, err)
		return fact()
	})
}

func TestReader_ATrimmedLogIsAGap(t *testing.T) {
	t.Parallel()

	url, prefix := sandboxtest.Redis(t)
	client := connect(t, url)
	s := newScript(t, url, prefix)
	s.checkpoint(100, news{})
	r := reading(t, url, prefix)
	s.add(recordTo(100, 200), recordTo(200, 300, "books/id=1"))
	must(t, client.XTrimMaxLen(t.Context(), prefix+"log", 0).Err())
	s.add(recordTo(300, 400), beatAt("a", 1, 400))
	must(t, r.step(t.Context()))
	if known := r.Checkpoint().Known; known != 100 || r.Status().Reader.Gaps == 0 {
		t.Fatalf("known up to %s, %d gaps", known, r.Status().Reader.Gaps)
	}
	s.checkpoint(400, news{})
	r.steps(t, "it to load the checkpoint", func() bool { return r.Checkpoint().Known == 400 })
}

// A reader whose place in the log is beyond its end reads nothing, and no error.
func TestReader_ALogThatIsGone(t *testing.T) {
	t.Parallel()

	url, prefix := sandboxtest.Redis(t)
	client := connect(t, url)
	s := newScript(t, url, prefix)
	s.checkpoint(100, news{})
	must(t, client.XAdd(t.Context(), &redis.XAddArgs{Stream: prefix + "log", ID: "99999999999999-0", Values: []any{"from", "a clock that was ahead"}}).Err())
	r := reading(t, url, prefix)
	must(t, client.Del(t.Context(), prefix+"log").Err())
	s.add(recordTo(100, 200), beatAt("a", 1, 200))
	must(t, r.step(t.Context()))
	if r.Checkpoint().Known != 100 {
		t.Fatal("it read what comes before its cursor")
	}
	s.checkpoint(200, news{}) // the leader finds it damaged
	r.steps(t, "it to load the checkpoint", func() bool { return r.Checkpoint().Known == 200 })
	s.add(recordTo(200, 300))
	r.steps(t, "it to follow again", func() bool { return r.Checkpoint().Known == 300 })
}

// elsewhere is a source over connections of the test's choice.
type elsewhere struct {
	source
	connection uint64
}

func (e *elsewhere) read(ctx context.Context, after string, limit int, block time.Duration) ([]stored, uint64, error) {
	entries, _, err := e.source.read(ctx, after, limit, block)
	return entries, e.connection, err
}

func TestReader_WhatWasReadOverOneConnectionSaysNothingOfAnother(t *testing.T) {
	t.Parallel()

	url, prefix := sandboxtest.Redis(t)
	s := newScript(t, url, prefix)
	s.checkpoint(100, news{})
	l := openFor(t, url, prefix, patience)
	over := &elsewhere{source: l.tail}
	r := &reader{Log: l, source: over}
	must(t, r.join(t.Context()))
	s.add(beatAt("a", 1, 100))
	must(t, r.step(t.Context()))
	s.add(beatAt("a", 2, 100))
	over.connection++
	if err := r.step(t.Context()); !errors.Is(err, errMoved) {
		t.Fatalf("over another connection: %v", err)
	}
	must(t, r.join(t.Context()))
	if r.Vouches(time.Now()) {
		t.Fatal("it vouches")
	}
	for n := range uint64(3) {
		s.add(beatAt("a", 3+n, 100))
		must(t, r.step(t.Context()))
	}
	if !r.Vouches(time.Now()) {
		t.Error("it does not vouch after more beats")
	}
}

// The connection that the reader uses is a new one after any trouble.
func TestReader_NumbersItsConnections(t *testing.T) {
	t.Parallel()

	url := sandboxtest.OwnRedis(t).URL() // the connections of others are cut off too
	client, ctx := connect(t, url), t.Context()
	l := open(t, url, "wc:")
	number := func() (n uint64) {
		t.Helper()
		eventually(t, "an answer", func() bool {
			_, connection, err := l.tail.read(ctx, fromTheStart, 1, 0)
			n = connection
			return err == nil
		})
		return n
	}
	first := number()
	if again := number(); again != first || first == 0 {
		t.Fatalf("connection %d, and then %d", first, again)
	}
	must(t, client.Do(ctx, "client", "kill", "type", "normal", "skipme", "yes").Err())
	if second := number(); second == first {
		t.Error("a new connection has the number of the one before")
	}
}

// Two beats that are read at once were both there at some time, which may be
// long ago.
func TestReader_TwoBeatsAtOnceProveNothing(t *testing.T) {
	t.Parallel()

	url, prefix := sandboxtest.Redis(t)
	s := newScript(t, url, prefix)
	s.checkpoint(100, news{})
	r := reading(t, url, prefix)
	s.add(beatAt("a", 1, 100), beatAt("a", 2, 100), beatAt("a", 3, 100))
	must(t, r.step(t.Context()))
	if r.Vouches(time.Now()) {
		t.Fatal("it vouches")
	}
	s.add(beatAt("a", 4, 100))
	must(t, r.step(t.Context()))
	if !r.Vouches(time.Now()) {
		t.Error("it does not vouch after another")
	}
}

func TestReader_GoesByWhatItDoesNotUnderstand(t *testing.T) {
	t.Parallel()

	s, p := follower(t)
	p.read(func() {
		for _, data := range []string{"", "x", "r", "zzzzzzz"} {
			_, err := s.append(t.Context(), []byte(data))
			must(t, err)
		}
		s.add(recordTo(100, 200))
	})
	eventually(t, "the record after it", func() bool { return p.known() == 200 && p.Status().Reader.Unread == 4 })
}

func TestReader_TakesTheCheckpointOfATrackerOfAnotherSize(t *testing.T) {
	t.Parallel()

	url, prefix := sandboxtest.Redis(t)
	l := lead(t, start(t, url, prefix)) // 1,024 slots
	l.commit("books/id=1", "books/id=2")
	l.logged()
	for _, slots := range []int{1 << 6, 1 << 14} {
		small, err := Open(coherence.NewTracker(slots, 2*time.Second), url, prefix, l.logger)
		must(t, err)
		t.Cleanup(func() { _ = small.Close() })
		past, err := small.Lead(t.Context())
		if err != nil || past.Epoch != l.epoch || past.Known != l.at {
			t.Fatalf("with %d slots: %+v, %v", slots, past, err)
		}
		for _, tag := range []coherence.Tag{"books/id=1", "books/id=2"} {
			if v := small.Judge(coherence.Position{Epoch: l.epoch, LSN: l.at - 1}, coherence.Dependencies{tag.Hash()}, time.Now()); v != coherence.Changed {
				t.Errorf("with %d slots, %s is %s", slots, tag, v)
			}
		}
	}
}
