package changelog

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"walcache/proxy/coherence"
	"walcache/proxy/sandbox/sandboxtest"
)

func membersKnowOfEachOther(t *testing.T, url, prefix string) {
	l := lead(t, start(t, url, prefix))
	other := start(t, url, prefix)
	l.commit("books/id=1")
	l.beats("all to be known", func() bool {
		members, err := other.Members(t.Context())
		must(t, err)
		first, second := members[l.id], members[other.id]
		return len(members) == 2 && first.Leads && !second.Leads && second.Known == l.at && second.Epoch == l.epoch
	})
	eventually(t, "one name", func() bool { return l.Cluster() != "" && l.Cluster() == other.Cluster() })
	eventually(t, "two to be counted", func() bool { return l.Status().Members == 2 && other.Status().Members == 2 })
}

// A name is given again after a flush, and everybody takes it.
func TestMembers_ClustersAreToldApart(t *testing.T) {
	t.Parallel()

	url, prefix := sandboxtest.Redis(t)
	client := connect(t, url)
	one, two, stranger := start(t, url, prefix), start(t, url, prefix), start(t, url, prefix+"other:")
	eventually(t, "names", func() bool {
		return one.Cluster() != "" && one.Cluster() == two.Cluster() && stranger.Cluster() != "" && stranger.Cluster() != one.Cluster()
	})
	was := one.Cluster()
	must(t, client.Set(t.Context(), prefix+"cluster", "another", 0).Err())
	eventually(t, "the other name", func() bool { return one.Cluster() == "another" && two.Cluster() == "another" })
	must(t, client.Del(t.Context(), prefix+"cluster").Err())
	eventually(t, "a name to be kept", func() bool {
		name, _ := client.Get(t.Context(), prefix+"cluster").Result()
		return name == "another" && one.Cluster() == name && name != was
	})
}

func TestMembers_OneWhoseCountStandsStillIsGone(t *testing.T) {
	t.Parallel()

	w, now := watch{}, time.Now()
	for _, c := range []struct {
		count uint64
		after time.Duration
		gone  bool
	}{
		{1, 0, false}, {1, goneAfter - 1, false}, {1, goneAfter, true}, {2, goneAfter, false}, {2, 2*goneAfter - 1, false}, {2, 2 * goneAfter, true},
	} {
		if gone := w.gone("id", Member{Count: c.count}, now.Add(c.after)); gone != c.gone {
			t.Errorf("count %d after %v: gone %t", c.count, c.after, gone)
		}
	}
}

// Whoever leads forgets those who are gone, and nobody else does.
func TestMembers_OnlyTheLeaderForgets(t *testing.T) {
	t.Parallel()

	url, prefix := sandboxtest.Redis(t)
	log := open(t, url, prefix)
	ctx := t.Context()
	must(t, log.remote.report(ctx, "gone", []byte(`{"count":1}`)))
	must(t, log.remote.report(ctx, "nonsense", []byte(`{`)))
	w, later := watch{}, time.Duration(0)
	log.now = func() time.Time { return time.Now().Add(later) }
	log.countMembers(ctx, w)
	later = goneAfter
	log.countMembers(ctx, w)
	if members, err := log.Members(ctx); err != nil || len(members) != 1 || log.Status().Members != 0 {
		t.Errorf("there are %v, %v", members, err)
	}
	lead(t, &running{Log: log, t: t})
	log.countMembers(ctx, w)
	if members, err := log.Members(ctx); err != nil || len(members) != 0 {
		t.Errorf("there are %v, %v", members, err)
	}
}

func waitAllReturnsWhenEveryProcessKnows(t *testing.T, url, prefix string) {
	l := lead(t, start(t, url, prefix))
	others := []*running{start(t, url, prefix), start(t, url, prefix)}
	l.beats("all to be there", func() bool { return l.Status().Members == 3 })
	l.commit("books/id=1")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	behind, err := l.WaitAll(ctx, l.at)
	if err != nil || len(behind) > 0 {
		t.Fatalf("behind are %v, %v", behind, err)
	}
	for _, p := range others {
		if p.known() < l.at {
			t.Errorf("one knows %s of %s", p.known(), l.at)
		}
	}
}

func TestWaitAll_NamesThoseThatAreBehind(t *testing.T) {
	t.Parallel()

	url, prefix := sandboxtest.Redis(t)
	l := lead(t, start(t, url, prefix))
	l.commit("books/id=1")
	ctx := t.Context()
	count := 0
	told := func(m Member) {
		t.Helper()
		count++
		must(t, l.remote.report(ctx, "other", fmt.Appendf(nil, `{"name":"other","epoch":%q,"known":%d,"count":%d}`, m.Epoch, m.Known, count)))
	}
	for _, m := range []Member{{Epoch: l.epoch, Known: l.at - 1}, {Epoch: "another", Known: l.at}} {
		told(m)
		waiting, cancel := context.WithTimeout(ctx, time.Second)
		behind, err := l.WaitAll(waiting, l.at)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || len(behind) != 1 || behind[0].Name != "other" {
			t.Errorf("with %+v behind are %v, %v", m, behind, err)
		}
	}
	told(Member{Epoch: l.epoch, Known: l.at})
	if behind, err := l.WaitAll(ctx, l.at); err != nil || len(behind) > 0 {
		t.Errorf("behind are %v, %v", behind, err)
	}
	// Nobody is to be waited for who knows what has not come here yet.
	waiting, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	if _, err := l.WaitAll(waiting, l.at+coherence.LSN(1)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("what is not known here: %v", err)
	}
}
