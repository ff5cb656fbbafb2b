package changelog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"walcache/proxy/coherence"
	"walcache/proxy/redisurl"
	"walcache/proxy/sandbox"
	"walcache/proxy/sandbox/sandboxtest"
)

func TestMain(m *testing.M) { sandboxtest.Main(m) }

const patience = time.Minute

// core are the tests that hold on every kind of Redis.
var core = map[string]func(t *testing.T, url, prefix string){
	"what the leader says reaches a follower":            whatTheLeaderSaysReachesAFollower,
	"a late joiner knows what the checkpoint says":       aLateJoinerKnowsWhatTheCheckpointSays,
	"goes on with whatever is there":                     goesOnWithWhateverIsThere,
	"members know of each other":                         membersKnowOfEachOther,
	"waiting for all returns when every process knows":   waitAllReturnsWhenEveryProcessKnows,
	"the script replaces a checkpoint as the model does": replacesACheckpoint,
	"damage is found":                                    findsDamage,
}

func TestLog_OnOneServer(t *testing.T) {
	t.Parallel()

	for name, test := range core {
		t.Run(name, func(t *testing.T) {
			url, prefix := sandboxtest.Redis(t)
			test(t, url, prefix)
		})
	}
}

func TestLog_OnRedisInThisProcess(t *testing.T) {
	t.Parallel()

	m, err := sandbox.StartMiniredis(0)
	must(t, err)
	t.Cleanup(func() { _ = m.Stop(context.Background()) }) // it always is nil
	onAll(t, m.URL())
}

func TestLog_OnACluster(t *testing.T) {
	t.Parallel()
	onAll(t, sandboxtest.OwnRedisCluster(t).URL())
}

func TestLog_BehindSentinels(t *testing.T) {
	t.Parallel()
	onAll(t, sandboxtest.OwnRedisSentinel(t).URL())
}

func onAll(t *testing.T, url string) {
	for name, test := range core {
		t.Run(name, func(t *testing.T) { test(t, url, randomName()+":") })
	}
}

// connect opens a client for what the tests do to Redis.
func connect(t *testing.T, url string) redis.UniversalClient {
	t.Helper()
	c, err := redisurl.Open(url, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// must fails the test unless err is nil.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually polls for a fact.
func eventually(t *testing.T, what string, fact func() bool) {
	t.Helper()
	sandboxtest.Eventually(t, patience, func() error {
		if !fact() {
			return fmt.Errorf("waited in vain for: %s", what)
		}
		return nil
	})
}

// open makes a Log that does not run, and is closed when the test ends.
func open(t *testing.T, url, prefix string) *Log {
	t.Helper()
	return openFor(t, url, prefix, 2*time.Second)
}

// openFor makes one whose evidence is good for a while.
func openFor(t *testing.T, url, prefix string, maxStaleness time.Duration) *Log {
	t.Helper()
	l, err := Open(coherence.NewTracker(1<<10, maxStaleness), url, prefix, slog.New(slog.NewTextHandler(t.Output(), nil)))
	must(t, err)
	t.Cleanup(func() {
		if err := l.Close(); err != nil && !errors.Is(err, redis.ErrClosed) {
			t.Errorf("close: %v", err)
		}
	})
	return l
}

// running is a Log that runs until the test ends or it is stopped.
type running struct {
	*Log
	t    *testing.T
	stop func()
}

func start(t *testing.T, url, prefix string) *running {
	t.Helper()
	return run(t, open(t, url, prefix))
}

func run(t *testing.T, l *Log) *running {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	p := &running{Log: l, t: t, stop: sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
	})}
	t.Cleanup(p.stop)
	return p
}

func (p *running) vouches() bool { return p.Vouches(time.Now()) }

func (p *running) verdict(asOf coherence.Position, tag coherence.Tag) coherence.Verdict {
	return p.Judge(asOf, coherence.Dependencies{tag.Hash()}, time.Now())
}

func (p *running) known() coherence.LSN { return p.Checkpoint().Known }

// leader plays the listener of a process: it has said everything up to at.
type leader struct {
	*running
	epoch string
	at    coherence.LSN
	term  coherence.LSN
}

// lead makes a process lead, in the epoch that it finds or else in a new one.
func lead(t *testing.T, p *running) *leader {
	t.Helper()
	past, err := p.Lead(t.Context())
	must(t, err)
	l := &leader{running: p, epoch: past.Epoch, at: past.Known, term: past.Known + 1}
	if c := p.Catalog(); c != nil {
		l.term = max(l.term, c.Term+1)
	}
	p.Keep([]byte("state"))
	if l.epoch == "" {
		l.epoch, l.at = randomName(), 100
		p.Begin(l.epoch, l.at)
	}
	p.SetCatalog(&coherence.Catalog{Tables: map[string]coherence.Table{"books": {}}, Term: l.term})
	return l
}

// commit says that tags changed, and are visible.
func (l *leader) commit(tags ...coherence.Tag) {
	l.t.Helper()
	r := coherence.Record{Epoch: l.epoch, From: l.at, To: l.at + 1000, Visible: l.at + 1000}
	for _, tag := range tags {
		r.Changes = append(r.Changes, coherence.Change{Hash: tag.Hash(), At: r.To})
	}
	must(l.t, l.Apply(r))
	l.at = r.To
}

// beats beats until the fact holds.
func (l *leader) beats(what string, fact func() bool) {
	l.t.Helper()
	eventually(l.t, what, func() bool {
		_ = l.Beat(l.epoch, time.Now())
		return fact()
	})
}

// logged waits until everything that was said is safe.
func (l *leader) logged() {
	l.t.Helper()
	eventually(l.t, "everything to be logged", func() bool { return l.Logged() >= l.at })
}

// listener plays a listener that leads again whenever it is told that it does
// not, and commits and beats all the time.
type listening struct {
	*running
	mu     sync.Mutex // guards the following
	epochs []string   // that it led in
}

func listen(t *testing.T, p *running) *listening {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	l := &listening{running: p}
	at := coherence.LSN(100)
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			past, err := p.Lead(ctx)
			if err != nil {
				p.Yield()
				continue
			}
			epoch := past.Epoch
			if epoch == "" || past.Known < at { // what was said in between was confirmed
				epoch = randomName()
				p.Begin(epoch, at)
			}
			l.mu.Lock()
			l.epochs = append(l.epochs, epoch)
			l.mu.Unlock()
			p.SetCatalog(&coherence.Catalog{Term: at})
			at = max(at, past.Known)
			for ctx.Err() == nil {
				if p.Apply(coherence.Record{Epoch: epoch, From: at, To: at + 10, Visible: at + 10}) != nil {
					break
				}
				at += 10
				_ = p.Beat(epoch, time.Now())
				time.Sleep(20 * time.Millisecond)
			}
			p.Yield()
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return l
}

func (l *listening) led() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.epochs...)
}
