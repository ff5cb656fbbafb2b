package changelog

import (
	"context"
	"slices"
	"testing"
	"time"

	"walcache/proxy/coherence"
	"walcache/proxy/sandbox/sandboxtest"
)

// witness is what has been seen at a process.
type witness struct {
	t    *testing.T
	seen <-chan coherence.Seen
	all  []coherence.Seen
}

func watching(t *testing.T, l *Log) *witness {
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	return &witness{t: t, seen: l.Watch(ctx)}
}

// upTo waits until a record is seen that ends there.
func (w *witness) upTo(lsn coherence.LSN) {
	w.t.Helper()
	deadline := time.After(patience)
	for len(w.all) == 0 || w.all[len(w.all)-1].To < lsn {
		select {
		case s := <-w.seen:
			w.all = append(w.all, s)
		case <-deadline:
			w.t.Fatalf("%s is not seen, of %d records", lsn, len(w.all))
		}
	}
}

func (w *witness) rows() (n int) {
	for _, s := range w.all {
		for _, table := range s.Tables {
			n += table.Rows
		}
	}
	return n
}

// change says that a row changed, at a time that is the position.
func (l *leader) change() coherence.Record {
	l.t.Helper()
	r := changed(l.epoch, l.at, l.at+1000)
	must(l.t, l.Apply(r))
	l.at = r.To
	return r
}

func changed(epoch string, from, to coherence.LSN) coherence.Record {
	return coherence.Record{
		Epoch: epoch, From: from, To: to, Visible: to, Committed: time.UnixMicro(int64(to)).UTC(),
		Changes: []coherence.Change{{Hash: coherence.Hash(to), At: to}}, Tables: []coherence.TableChanges{{Table: "books", Rows: 1}},
	}
}

// The one that leads hears what it says from the log as well, and the listener
// of the next leader begins with what was said before.
func TestWatch_EveryProcessSeesEachRecordOnce(t *testing.T) {
	t.Parallel()

	const records = 50
	url, prefix := sandboxtest.Redis(t)
	follower := start(t, url, prefix)
	first := lead(t, start(t, url, prefix))
	first.beats("the follower to vouch", follower.vouches)
	here, there := watching(t, first.Log), watching(t, follower.Log)
	began := first.at
	for range records {
		first.change()
	}
	here.upTo(first.at)
	there.upTo(first.at)
	// Another process leads, and what is known is said again before what is new.
	first.logged()
	first.Yield()
	second := lead(t, follower)
	if second.epoch != first.epoch || second.at != first.at {
		t.Fatalf("the second leads in %s at %s", second.epoch, second.at)
	}
	second.beats("the second to have a checkpoint", func() bool { return second.Status().Writer.Saved }) // what that brings is not told
	for at := began; at < first.at; at += 1000 {
		must(t, second.Apply(changed(second.epoch, at, at+1000)))
	}
	for range records {
		second.change()
	}
	here.upTo(second.at)
	there.upTo(second.at)
	second.beats("the first to have read the log", func() bool { return first.known() == second.at && first.vouches() })

	for name, w := range map[string]*witness{"the first": here, "the second": there} {
		if n := w.rows(); n != 2*records {
			t.Errorf("%s has seen %d rows of %d", name, n, 2*records)
		}
		for i, s := range w.all {
			// What was said again may have come together with what was new.
			if began := s.Committed.UnixMicro(); coherence.LSN(began) > s.To || i > 0 && coherence.LSN(began) <= w.all[i-1].To {
				t.Errorf("%s has seen %+v after %+v", name, s, w.all[max(i-1, 0)])
			}
		}
	}
	for name, p := range map[string]*running{"the first": first.running, "the second": follower} {
		if n := p.Progress(time.Now()).Rows["books"]; n != 2*records {
			t.Errorf("%s counts %d rows", name, n)
		}
		if p.Missed() != 0 {
			t.Errorf("a watcher of %s missed %d", name, p.Missed())
		}
	}
}

// Of what stands for several records, the time is that of the first.
func TestWatch_WhatIsJoinedOrCutKeepsTheTimeOfTheFirst(t *testing.T) {
	first, second := changed("e", 200, 300), changed("e", 300, 90_000)
	for range 3 * maxChanges {
		second.Changes = append(second.Changes, coherence.Change{Hash: 7, At: 90_000})
	}
	quiet := coherence.Record{Epoch: "e", From: 100, To: 200}
	var q queue
	for _, r := range []coherence.Record{quiet, first, second} {
		q.push(entry{epoch: "e", record: &r})
	}
	e, _ := q.pop()
	if _, more := q.pop(); more || !e.record.Committed.Equal(first.Committed) {
		t.Fatalf("%d are left, and the first is of %s", len(q.items), e.record.Committed)
	}
	cut := slices.Collect(pieces(*e.record))
	for _, piece := range cut {
		if !piece.Committed.Equal(first.Committed) {
			t.Errorf("the piece from %s is of %s", piece.From, piece.Committed)
		}
	}
	if len(cut) != 4 {
		t.Errorf("%d pieces", len(cut))
	}
}
