package replication

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	command "os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"

	"walcache/proxy/coherence"
	"walcache/proxy/sandbox/sandboxtest"
)

// holdEnv makes the test binary a process that holds the slot "walcache" of a
// database until its standard input ends.
const holdEnv = "WALCACHE_TEST_HOLD"

func hold(dsn string) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	config := Config{DatabaseURL: dsn, Slot: slotOf(dsn), Publication: "walcache", Log: slog.New(slog.DiscardHandler)}
	if err := New(config, remember(coherence.NewTracker(1<<10, bound))).Run(ctx); err != nil {
		panic(err)
	}
	os.Exit(0)
}

// slotOf names a slot after a test's database.
func slotOf(dsn string) string {
	config, err := pgconn.ParseConfig(dsn)
	if err != nil {
		panic(err)
	}
	return "of_" + config.Database
}

// holder starts another process that holds the slot.
func startHolder(t *testing.T, dsn string) *os.Process {
	t.Helper()
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := command.Command(executable)
	child.Env = append(os.Environ(), holdEnv+"="+dsn)
	stdin, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stdin.Close(); _ = child.Process.Kill(); _ = child.Wait() })
	return child.Process
}

// takesOver starts a listener that waits for the slot, lets its holder come to
// grief, and returns how long it took until it streams.
func takesOver(t *testing.T, dsn string, grief func()) (took time.Duration) {
	t.Helper()
	db := open(t, dsn)
	eventually(t, "the slot to be held", func() bool {
		return query[bool](t, db, "SELECT coalesce((SELECT active AND confirmed_flush_lsn IS NOT NULL FROM pg_replication_slots WHERE slot_name = $1), false)", slotOf(dsn))
	})
	tracker := coherence.NewTracker(1<<10, bound)
	l, _ := launch(t, Config{DatabaseURL: dsn, Slot: slotOf(dsn)}, remember(tracker))
	eventually(t, "the listener to wait", func() bool { return l.Status().State == "waiting" })
	grief()
	began := time.Now()
	eventually(t, "the listener to stream", func() bool { return l.Status().State == "streaming" })
	if took = time.Since(began); took > 45*time.Second {
		t.Errorf("it took %v: the server waited for its own timeout, of a minute", took)
	}
	settled(t, l, tracker, "properties")
	return took
}

func TestListener_TakesOverFromADeadHolder(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	open(t, dsn, properties)
	p := startHolder(t, dsn)
	t.Logf("took %v", takesOver(t, dsn, func() {
		if err := p.Kill(); err != nil {
			t.Fatal(err)
		}
	}))
}

func TestListener_TakesOverFromAFrozenHolder(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	open(t, dsn, properties)
	p := startHolder(t, dsn)
	t.Logf("took %v", takesOver(t, dsn, func() {
		if err := p.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}))
}

func TestListener_TakesOverFromAHolderThatIsCutOff(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	db := open(t, dsn, properties, twoProperties)
	far, cable := through(t, dsn, nil)
	l, tracker := follow(t, Config{DatabaseURL: far, Slot: slotOf(dsn)})
	settled(t, l, tracker, "properties")
	caughtUp(t, l, tracker)
	a := read(t, tracker, "properties/id=1")
	t.Logf("took %v", takesOver(t, dsn, func() { close(cable.cut) }))
	exec(t, db, "UPDATE properties SET price = 1 WHERE id = 1")
	eventually(t, "nothing to be called fresh where the change is not known", func() bool { return a.verdict(tracker) == coherence.Unproven })
	eventually(t, "the one that was cut off to notice", func() bool { return l.Status().State == "connecting" })
}

// While it waits it keeps one connection, changes nothing, and says for whom it
// waits.
func TestListener_WaitsForAStrangerAndSaysSo(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	db := open(t, dsn, properties)
	stranger, err := pgconn.Connect(t.Context(), dsn+"&replication=database&application_name=stranger")
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close(context.Background())
	if _, err := pglogrepl.CreateReplicationSlot(t.Context(), stranger, slotOf(dsn), "pgoutput", pglogrepl.CreateReplicationSlotOptions{}); err != nil {
		t.Fatal(err)
	}
	exec(t, db, "CREATE PUBLICATION other")
	if err := pglogrepl.StartReplication(t.Context(), stranger, slotOf(dsn), 0, pglogrepl.StartReplicationOptions{
		PluginArgs: []string{"proto_version '2'", "publication_names 'other'"},
	}); err != nil {
		t.Fatal(err)
	}
	log, logs := logging(t)
	tracker := coherence.NewTracker(1<<10, bound)
	config := Config{DatabaseURL: dsn, Slot: slotOf(dsn), Log: log, Cluster: func() string { return "ours" }}
	sink := remember(tracker)
	l, _ := launch(t, config, sink)
	eventually(t, "the listener to say that it waits for a stranger", func() bool {
		s := l.Status()
		return s.State == "waiting" && s.Stranger && s.Slot != nil && s.Slot.Application == "stranger"
	})
	pid := query[int](t, db, "SELECT pid FROM pg_stat_activity WHERE application_name = 'walcache:ours' AND datname = current_database()")
	eventually(t, "a warning with what to do", func() bool { return logs.count("--slot") == 1 })
	if n := query[int](t, db, "SELECT count(*) FROM pg_publication WHERE pubname <> 'other'"); n != 0 {
		t.Error("one that waits made a publication")
	}
	if sink.leads != 0 || tracker.Progress(time.Now()).Epoch != "" {
		t.Error("one that waits leads")
	}
	if again := query[int](t, db, "SELECT pid FROM pg_stat_activity WHERE application_name = 'walcache:ours' AND datname = current_database()"); again != pid {
		t.Errorf("it has connected again")
	}
	_ = stranger.Close(t.Context())
	settled(t, l, tracker, "properties")
	if logs.count("--slot") != 1 || l.Status().Stranger {
		t.Errorf("%d warnings, stranger: %t", logs.count("--slot"), l.Status().Stranger)
	}
}

func TestListener_TellsItsOwnClusterFromOthers(t *testing.T) {
	slot := func(application string) *Slot { return &Slot{Application: application} }
	for _, c := range []struct {
		cluster  func() string
		holder   string
		stranger bool
	}{
		{nil, "walcache", false},
		{nil, "walcache:a", true},
		{func() string { return "a" }, "walcache:a", false},
		{func() string { return "a" }, "walcache:b", true},
		{func() string { return "a" }, "walcache", true},
		{func() string { return "a" }, "", true},
		{func() string { return "" }, "walcache:b", false}, // nobody can tell
	} {
		s := &session{Listener: New(Config{Cluster: c.cluster}, nil)}
		if got := s.stranger(slot(c.holder)); got != c.stranger {
			t.Errorf("%s: stranger: %t", c.holder, got)
		}
	}
}

// The name of the cluster may come to be known only when Redis can be reached.
func TestListener_TakesItsClustersNameWhenItIsKnown(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	db := open(t, dsn, properties)
	var mu sync.Mutex // guards the following
	name := ""
	cluster := func() string { mu.Lock(); defer mu.Unlock(); return name }
	l, tracker := follow(t, Config{DatabaseURL: dsn, Cluster: cluster})
	settled(t, l, tracker, "properties")
	const holder = "SELECT coalesce((SELECT a.application_name FROM pg_replication_slots JOIN pg_stat_activity a ON a.pid = active_pid WHERE database = current_database()), '')"
	if name := query[string](t, db, holder); name != "walcache" {
		t.Errorf("before it is known, the holder's name is %q", name)
	}
	mu.Lock()
	name = "ours"
	mu.Unlock()
	eventually(t, "the connection to bear the name", func() bool { return query[string](t, db, holder) == "walcache:ours" })
	settled(t, l, tracker, "properties")
	epochs(t, l, 1)
}

// cluster is two listeners that share what they know, one after the other.
type cluster struct {
	dsn     string
	tracker *coherence.Tracker
	sink    *memory
	config  Config
	first   *Listener
	stop    func()
}

func newCluster(t *testing.T, config Config, sink Sink, shared *memory) *cluster {
	t.Helper()
	c := &cluster{dsn: config.DatabaseURL, tracker: shared.Tracker, sink: shared, config: config}
	if c.config.Slot == "" {
		c.config.Slot = slotOf(c.dsn)
	}
	c.first, c.stop = launch(t, c.config, sink)
	settled(t, c.first, c.tracker, "properties")
	caughtUp(t, c.first, c.tracker)
	return c
}

func TestSession_TheNextLeaderContinuesTheEpoch(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	db := open(t, dsn, properties, twoProperties)
	sink := remember(coherence.NewTracker(1<<16, time.Hour))
	c := newCluster(t, Config{DatabaseURL: dsn}, sink, sink)
	second, _ := launch(t, c.config, sink)
	eventually(t, "the second to wait", func() bool { return second.Status().State == "waiting" })
	epoch := c.tracker.Epoch()
	one, two := read(t, c.tracker, "properties/id=1"), read(t, c.tracker, "properties/id=2")
	c.stop()
	exec(t, db, "UPDATE properties SET price = 1 WHERE id = 1") // while nobody leads, perhaps
	eventually(t, "the second to stream", func() bool { return second.Status().State == "streaming" })
	caughtUp(t, second, c.tracker)
	if one, two := one.verdict(c.tracker), two.verdict(c.tracker); one != coherence.Changed || two != coherence.Fresh {
		t.Errorf("a changed answer is %s, an unchanged one %s", one, two)
	}
	if s := second.Status(); s.Epochs != 0 || s.Epoch != epoch || c.tracker.Epoch() != epoch {
		t.Errorf("epoch %s became %s: %s", epoch, s.Epoch, s.Began)
	}
	if sink.leads != 2 || sink.yields != 1 {
		t.Errorf("led %d times, yielded %d times", sink.leads, sink.yields)
	}
	settled(t, second, c.tracker, "properties")
	expectStale(t, second, c.tracker, db, tags{"properties/id=1", "properties/id=2"}, "UPDATE properties SET price = 2 WHERE id = 1", "properties/id=1")
}

// What the last leader had found altered, and died before it could announce, is
// announced by the next.
func TestSession_TheNextLeaderAnnouncesWhatTheLastFoundAltered(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	db := open(t, dsn, properties, twoProperties, "CREATE TABLE other (id int PRIMARY KEY)", "CREATE TABLE third (id int PRIMARY KEY)")
	sink := remember(coherence.NewTracker(1<<16, time.Hour))
	c := newCluster(t, Config{DatabaseURL: dsn}, sink, sink)
	settled(t, c.first, c.tracker, "other", "third")
	caughtUp(t, c.first, c.tracker)
	one, other, third := read(t, c.tracker, "properties/id=1"), read(t, c.tracker, "other/id=1"), read(t, c.tracker, "third/id=1")
	c.stop()
	restricted := *c.tracker.Catalog()
	restricted.Blind = []string{"properties"}
	sink.SetCatalog(&restricted)
	exec(t, db, "ALTER TABLE other ADD COLUMN n int DEFAULT 7") // found by comparing
	second, _ := launch(t, c.config, sink)
	settled(t, second, c.tracker, "properties", "other", "third")
	blind(t, second, c.tracker)
	if v := one.verdict(c.tracker); v != coherence.Changed {
		t.Errorf("an answer from a table that was found altered is %s", v)
	}
	if v := other.verdict(c.tracker); v != coherence.Changed {
		t.Errorf("an answer from a table that was altered meanwhile is %s", v)
	}
	if v := third.verdict(c.tracker); v != coherence.Fresh {
		t.Errorf("an answer from a table that was not altered is %s", v)
	}
	if n := second.Status().Epochs; n != 0 {
		t.Errorf("%d epochs", n)
	}
}

func TestSession_ALogThatEndsBeforeTheSlotBeginsAnEpoch(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	db := open(t, dsn, properties, twoProperties)
	sink := remember(coherence.NewTracker(1<<16, time.Hour))
	c := newCluster(t, Config{DatabaseURL: dsn}, sink, sink)
	a := read(t, c.tracker, "properties/id=1")
	c.stop()
	confirmed, err := coherence.ParseLSN(query[string](t, db, "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = $1", c.config.Slot))
	if err != nil {
		t.Fatal(err)
	}
	sink.known = confirmed - 1
	second, _ := launch(t, c.config, sink)
	if why := epochs(t, second, 1); !strings.Contains(why, "what is known ends at") {
		t.Errorf("the epoch began because: %s", why)
	}
	if v := a.verdict(c.tracker); v != coherence.OtherEpoch {
		t.Errorf("an answer of the first epoch is %s", v)
	}
}

// See heldSlot.
func TestSession_ReadsTheConfirmedPositionAfterItHoldsTheSlot(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	db := open(t, dsn, properties, twoProperties)
	sink := remember(coherence.NewTracker(1<<16, time.Hour))
	c := newCluster(t, Config{DatabaseURL: dsn}, sink, sink)
	a := read(t, c.tracker, "properties/id=1")
	c.stop()

	var moved string
	meanwhile := sync.OnceFunc(func() {
		exec(t, db, "UPDATE properties SET price = 5")
		moved = query[string](t, db, "SELECT end_lsn::text FROM pg_replication_slot_advance($1, pg_current_wal_lsn())", c.config.Slot)
	})
	far, _ := through(t, dsn, func(data []byte) {
		if bytes.Contains(data, []byte("START_REPLICATION")) {
			meanwhile()
		}
	})
	c.config.DatabaseURL = far
	second, _ := launch(t, c.config, sink)
	if why := epochs(t, second, 1); !strings.Contains(why, moved) {
		t.Errorf("the epoch began because: %s; want something about %s", why, moved)
	}
	if v := a.verdict(c.tracker); v != coherence.OtherEpoch {
		t.Errorf("an answer from before a change that nobody saw is %s", v)
	}
	settled(t, second, c.tracker, "properties")
	if !query[bool](t, db, "SELECT confirmed_flush_lsn >= $2::pg_lsn FROM pg_replication_slots WHERE slot_name = $1", c.config.Slot, moved) {
		t.Error("the slot was moved back")
	}
}

func TestSession_ARecordThatIsNotTakenBeginsWithWhatIsKnown(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	db := open(t, dsn, properties, twoProperties)
	sink := remember(coherence.NewTracker(1<<16, time.Hour))
	log, logs := logging(t)
	c := newCluster(t, Config{DatabaseURL: dsn, Log: log}, sink, sink)
	for n := 1; n <= 3; n++ {
		sink.locked(func() { sink.refuse = errors.New("another leader began an epoch") })
		exec(t, db, "UPDATE properties SET price = price + 1")
		eventually(t, "another session", func() bool { return c.first.Status().Sessions == n+1 && c.first.Status().State == "streaming" })
		caughtUp(t, c.first, c.tracker)
		sink.locked(func() {
			if sink.leads != n+1 || sink.yields != n {
				t.Errorf("led %d times, yielded %d times", sink.leads, sink.yields)
			}
		})
		if logs.count("another leader began an epoch") != n {
			t.Errorf("the reason is logged %d times", logs.count("another leader began an epoch"))
		}
	}
	epochs(t, c.first, 1)
}

func TestSession_WhatWasLeftAndCannotBeReadBeginsAnEpoch(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	open(t, dsn, properties)
	sink := remember(coherence.NewTracker(1<<16, time.Hour))
	c := newCluster(t, Config{DatabaseURL: dsn}, sink, sink)
	c.stop()
	good := sink.state
	other, err := state{Version: stateVersion, Epoch: "another"}.encode()
	if err != nil {
		t.Fatal(err)
	}
	later, err := state{Version: stateVersion + 1, Epoch: c.tracker.Epoch()}.encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, left := range map[string][]byte{"nothing": nil, "half": good[:len(good)/2], "of another epoch": other, "of a later version": later, "text": []byte("{}")} {
		sink.state = left
		log, logs := logging(t)
		c.config.Log = log
		next, stop := launch(t, c.config, sink)
		if why := epochs(t, next, 1); why != "what was left by the last leader cannot be read" || logs.count("level=WARN") == 0 {
			t.Errorf("%s: the epoch began because: %s", name, why)
		}
		stop()
	}
}

// Two deployments whose databases differ, with one place to keep what they know.
func TestSession_WhatIsKnownOfAnotherDatabaseBeginsAnEpochAndSaysSo(t *testing.T) {
	t.Parallel()
	one, two := sandboxtest.Postgres(t), sandboxtest.Postgres(t)
	open(t, one, properties)
	open(t, two, properties)
	sink := remember(coherence.NewTracker(1<<16, time.Hour))
	c := newCluster(t, Config{DatabaseURL: one}, sink, sink)
	c.stop()
	log, logs := logging(t)
	other, _ := launch(t, Config{DatabaseURL: two, Log: log}, sink)
	if why := epochs(t, other, 1); !strings.Contains(why, "database") || logs.count("--prefix") != 1 {
		t.Errorf("the epoch began because: %s", why)
	}
}

func TestListener_SwitchesCachingOffAndOn(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	db := open(t, dsn, properties)
	sink := &switched{memory: remember(coherence.NewTracker(1<<16, time.Hour))}
	c := newCluster(t, Config{DatabaseURL: dsn}, sink, sink.memory)
	w := NewWitness(dsn)
	defer w.Close()
	say := func(l *Listener, line string) {
		t.Helper()
		at, err := w.Announce(t.Context(), line)
		if err != nil {
			t.Fatal(err)
		}
		caughtUp(t, l, c.tracker)
		if known := c.tracker.Progress(time.Now()).Known; known < at {
			t.Fatalf("known is %s, before %s", known, at)
		}
	}
	say(c.first, "cache on")
	if c.tracker.Catalog().Off {
		t.Error("cache on switches it off")
	}
	say(c.first, "cache off")
	if !c.tracker.Catalog().Off {
		t.Error("what was announced is known, and caching is still on")
	}
	exec(t, db, "CREATE TABLE later (id int PRIMARY KEY)")
	settled(t, c.first, c.tracker, "later")
	if !c.tracker.Catalog().Off {
		t.Error("reading the system catalogs switched caching on")
	}
	c.stop()

	// The next leader is sent both messages again.
	second, _ := launch(t, c.config, sink)
	settled(t, second, c.tracker, "later", "properties")
	caughtUp(t, second, c.tracker)
	if !c.tracker.Catalog().Off || second.Status().Epochs != 0 {
		t.Errorf("a change of leader switched caching on; %d epochs", second.Status().Epochs)
	}
	if all := sink.switches(); all != "on off" {
		t.Errorf("caching was switched %s", all)
	}
	say(second, "cache on")
	if c.tracker.Catalog().Off {
		t.Error("caching stays off")
	}
}

// switched notes whether caching was on, each time that it changed.
type switched struct {
	*memory
	seen []string
}

func (s *switched) SetCatalog(c *coherence.Catalog) {
	now := map[bool]string{true: "off", false: "on"}[c.Off]
	s.locked(func() {
		if len(s.seen) == 0 || s.seen[len(s.seen)-1] != now {
			s.seen = append(s.seen, now)
		}
	})
	s.memory.SetCatalog(c)
}

func (s *switched) switches() (all string) {
	s.locked(func() { all = strings.Join(s.seen, " ") })
	return all
}

// Of the catalogs of two leaders, that of the later one counts.
func TestSession_TheTermOfCatalogsGrowsFromLeaderToLeader(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	open(t, dsn, properties)
	sink := remember(coherence.NewTracker(1<<16, time.Hour))
	c := newCluster(t, Config{DatabaseURL: dsn}, sink, sink)
	last := c.tracker.Catalog().Term
	c.stop()
	for range 3 {
		l, stop := launch(t, c.config, sink)
		settled(t, l, c.tracker, "properties")
		if now := c.tracker.Catalog().Term; now <= last {
			t.Errorf("term %s after %s", now, last)
		} else {
			last = now
		}
		stop()
	}
}

// A leader that stood still while another took over announces nothing any more.
func TestSession_WhoWasDeposedBeforeItSaidAnythingStaysSilent(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	db := open(t, dsn, properties)
	sink := remember(coherence.NewTracker(1<<16, time.Hour))
	c := newCluster(t, Config{DatabaseURL: dsn}, sink, sink)
	c.stop()

	still := &standsStill{memory: sink, began: make(chan struct{}), goOn: make(chan struct{})}
	first, _ := launch(t, c.config, still)
	<-still.began
	exec(t, db, "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '"+c.config.Slot+"'")
	second, _ := launch(t, c.config, sink)
	eventually(t, "the second to stream", func() bool { return second.Status().State == "streaming" })
	settled(t, second, c.tracker, "properties")
	term := c.tracker.Catalog().Term

	close(still.goOn)
	eventually(t, "the first to wait", func() bool { return first.Status().State == "waiting" })
	still.locked(func() {
		if still.said > 0 {
			t.Errorf("it announced %d catalogs", still.said)
		}
	})
	if now := c.tracker.Catalog().Term; now != term {
		t.Errorf("the term is %s, and was %s", now, term)
	}
}

// standsStill stands still when it has come to lead for the first time.
type standsStill struct {
	*memory
	began, goOn chan struct{}
	said        int // catalogs
}

func (s *standsStill) Lead(ctx context.Context) (coherence.Past, error) {
	select {
	case <-s.goOn:
	default:
		close(s.began)
		<-s.goOn
	}
	return s.memory.Lead(ctx)
}

func (s *standsStill) SetCatalog(c *coherence.Catalog) {
	s.locked(func() { s.said++ })
	s.memory.SetCatalog(c)
}

// count tells how many of the listeners are in a state.
func count(all []*Listener, state string) (n int) {
	for _, l := range all {
		if l.Status().State == state {
			n++
		}
	}
	return n
}

// Several processes start on a database that none of them has seen, and lose
// their leaders one after the other.
func TestListener_OneOfManyLeads(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	db := open(t, dsn, properties, twoProperties)
	sink := remember(coherence.NewTracker(1<<16, time.Hour))
	config := Config{DatabaseURL: dsn, Slot: slotOf(dsn)}
	var all []*Listener
	stops := map[*Listener]func(){}
	for range 4 {
		l, stop := launch(t, config, sink)
		all, stops[l] = append(all, l), stop
	}
	for left := len(all); left > 0; left-- {
		eventually(t, "one to stream and the others to wait", func() bool {
			return count(all, "streaming") == 1 && count(all, "waiting") == left-1
		})
		leader := slices.IndexFunc(all, func(l *Listener) bool { return l.Status().State == "streaming" })
		settled(t, all[leader], sink.Tracker, "properties")
		expectStale(t, all[leader], sink.Tracker, db, tags{"properties/id=1", "properties/id=2"}, "UPDATE properties SET price = price + 1 WHERE id = 1", "properties/id=1")
		stops[all[leader]]()
		all = slices.Delete(all, leader, leader+1)
	}
	if sink.leads != 4 || sink.yields != 4 {
		t.Errorf("led %d times, yielded %d times", sink.leads, sink.yields)
	}
	epoch := 0
	for l := range stops {
		epoch += l.Status().Epochs
	}
	if epoch != 1 {
		t.Errorf("%d epochs", epoch)
	}
}

// 1. While nobody leads, a table is made, and a transaction changes a row of it.
// 2. The next leader publishes the table. 3. An answer is read. 4. The transaction
// commits; the stream does not carry what it did in 1. The answer must not be
// fresh.
func TestSession_WhatIsPublishedOnTakingOverIsBlindWhileOlderWritersAreOpen(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	db := open(t, dsn, properties)
	sink := remember(coherence.NewTracker(1<<16, time.Hour))
	c := newCluster(t, Config{DatabaseURL: dsn}, sink, sink)
	c.stop()
	exec(t, db, "CREATE TABLE young (id int PRIMARY KEY, v int)", "INSERT INTO young VALUES (1, 0)")
	writer := open(t, dsn, "BEGIN", "UPDATE young SET v = 1")
	second, _ := launch(t, c.config, sink)
	eventually(t, "the next leader to stream", func() bool { return second.Status().State == "streaming" })
	var answers []answer
	looks(t, second, 3, func() {
		caughtUp(t, second, c.tracker)
		if query[int](t, db, "SELECT v FROM young") != 0 {
			t.Fatal("the update is visible")
		}
		if len(c.tracker.Catalog().Blind) == 0 {
			answers = append(answers, read(t, c.tracker, coherence.Any))
		}
		if _, published := c.tracker.Catalog().Tables["young"]; published {
			answers = append(answers, read(t, c.tracker, "young"))
		}
	})
	exec(t, writer, "COMMIT")
	caughtUp(t, second, c.tracker)
	for _, a := range answers {
		if v := a.verdict(c.tracker); v == coherence.Fresh {
			t.Errorf("an answer from before the commit is %s", v)
		}
	}
	settled(t, second, c.tracker, "young")
	blind(t, second, c.tracker)
	if n := second.Status().Epochs; n != 0 {
		t.Errorf("%d epochs", n)
	}
}

// What was known may be of a server that was further, before a backup was
// restored: that is reason for one epoch, and not for one with each session.
func TestSession_ATermFromAServerThatWasFurtherBeginsNoEpochs(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	db := open(t, dsn, properties)
	tracker := coherence.NewTracker(1<<16, time.Hour)
	tracker.SetCatalog(&coherence.Catalog{Term: 0x5A_00000000})
	l, _ := launch(t, Config{DatabaseURL: dsn}, remember(tracker))
	settled(t, l, tracker, "properties")
	for range 3 {
		caughtUp(t, l, tracker)
		sessions := l.Status().Sessions
		exec(t, db, "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '"+l.config.Slot+"'")
		eventually(t, "the next session", func() bool { s := l.Status(); return s.Sessions > sessions && s.State == stateStreaming })
	}
	if s := l.Status(); s.Epochs != 1 {
		t.Errorf("%d epochs, the last because %s", s.Epochs, s.Began)
	}
}
