package changelog

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"walcache/proxy/coherence"
)

// Member is a process of the cluster, as it told the others last.
type Member struct {
	Name  string        `json:"name"` // host and pid
	Leads bool          `json:"leads"`
	Epoch string        `json:"epoch"`
	Known coherence.LSN `json:"known"`
	Count uint64        `json:"count"` // of its reports: one whose count stands still is gone
}

// registry is where processes find each other.
type registry interface {
	// identify returns the name of the cluster that shares this log: ours, if it
	// had none.
	identify(ctx context.Context, ours string) (string, error)
	// report says how far a process is; reports returns what all said.
	report(ctx context.Context, id string, data []byte) error
	reports(ctx context.Context) (map[string][]byte, error)
	forget(ctx context.Context, id string) error
}

const (
	reportEvery = 250 * time.Millisecond
	countEvery  = 8 // reports
	goneAfter   = 5 * time.Second
)

// reportAll tells the others how far this process is, and while it leads,
// forgets those who tell nothing any more. No clocks are compared: a process is
// gone when its count has stood still for a while.
func (l *Log) reportAll(ctx context.Context) {
	host, _ := os.Hostname() // for people; "" is as good
	me := Member{Name: fmt.Sprintf("%s/%d", host, os.Getpid())}
	w := watch{}
	every := time.NewTicker(reportEvery)
	defer every.Stop()
	for {
		if me.Count%countEvery == 0 || l.Cluster() == "" {
			l.learnCluster(ctx)
			l.countMembers(ctx, w)
		}
		p := l.Progress(l.now())
		me.Leads, me.Epoch, me.Known, me.Count = l.leads.Load() != nil, p.Epoch, p.Known, me.Count+1
		l.reportOne(ctx, me)
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		}
	}
}

// learnCluster asks again and again: a flushed Redis may give another name.
func (l *Log) learnCluster(ctx context.Context) {
	ours := l.Cluster()
	if ours == "" {
		ours = randomName()
	}
	ctx, cancel := context.WithTimeout(ctx, readWithin)
	defer cancel()
	if name, err := l.remote.identify(ctx, ours); err == nil {
		l.cluster.Store(&name)
	}
}

// reportOne does without a report that fails: the next one says more.
func (l *Log) reportOne(ctx context.Context, me Member) {
	ctx, cancel := context.WithTimeout(ctx, readWithin)
	defer cancel()
	data, err := json.Marshal(me)
	if err == nil {
		_ = l.remote.report(ctx, l.id, data)
	}
}

// countMembers counts those who are alive, and if this process leads, forgets
// the others.
func (l *Log) countMembers(ctx context.Context, w watch) {
	members, err := l.Members(ctx)
	if err != nil {
		return
	}
	alive := int64(0)
	for id, m := range members {
		if id == l.id || !w.gone(id, m, l.now()) {
			alive++
		} else if l.leads.Load() != nil {
			ctx, cancel := context.WithTimeout(ctx, readWithin)
			_ = l.remote.forget(ctx, id) // once more if it fails
			cancel()
		}
	}
	for id := range w {
		if _, ok := members[id]; !ok {
			delete(w, id)
		}
	}
	l.alive.Store(alive)
}

// watch remembers since when the counts of members stand still.
type watch map[string]struct {
	count uint64
	since time.Time
}

func (w watch) gone(id string, m Member, now time.Time) bool {
	was, ok := w[id]
	if !ok || was.count != m.Count {
		was.count, was.since = m.Count, now
		w[id] = was
	}
	return now.Sub(was.since) >= goneAfter
}

// Members returns the processes of the cluster by the names that they gave
// themselves. Without Redis there is none to ask.
func (l *Log) Members(ctx context.Context) (map[string]Member, error) {
	members := map[string]Member{}
	if l.remote == nil {
		return members, nil
	}
	ctx, cancel := context.WithTimeout(ctx, readWithin)
	defer cancel()
	reports, err := l.remote.reports(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask for the processes of the cluster: %w", err)
	}
	for id, data := range reports {
		var m Member
		if json.Unmarshal(data, &m) == nil {
			members[id] = m
		}
	}
	return members, nil
}

// WaitAll returns once every process of the cluster that is alive knows
// everything up to lsn, and otherwise, when ctx ends, the ones that do not. One
// that has told nothing for five seconds calls nothing fresh, and is not waited
// for.
func (l *Log) WaitAll(ctx context.Context, lsn coherence.LSN) (behind []Member, err error) {
	if err := l.Wait(ctx, lsn); err != nil {
		return nil, err
	}
	w := watch{}
	for {
		members, err := l.Members(ctx)
		if err != nil && ctx.Err() == nil {
			return nil, err
		}
		if err == nil {
			if behind = l.behind(members, w, lsn); len(behind) == 0 {
				return nil, nil
			}
		}
		select {
		case <-ctx.Done():
			return behind, ctx.Err()
		case <-time.After(reportEvery / 5):
		}
	}
}

// behind are those who are alive and do not know everything up to lsn. An LSN
// means something only in its epoch.
func (l *Log) behind(members map[string]Member, w watch, lsn coherence.LSN) (behind []Member) {
	for id, m := range members {
		current := m.Epoch == l.Epoch() && m.Known >= lsn
		if !w.gone(id, m, l.now()) && id != l.id && !current {
			behind = append(behind, m)
		}
	}
	return behind
}
