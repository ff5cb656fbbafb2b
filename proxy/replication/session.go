package replication

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"

	"walcache/proxy/coherence"
)

// errHeld says that someone else holds the slot; whoever holds it is the leader.
var errHeld = errors.New("the replication slot is held")

// errStream says that the stream was ended by the server or the network.
var errStream = errors.New("receive")

// confirmAfter is how old a position is before PostgreSQL may forget what lies
// before it. Replays cost nothing, and whoever else keeps the changes may lose
// its last seconds.
const confirmAfter = 10 * time.Second

// session is one run over three connections to one server. It ends with the
// first of them.
type session struct {
	*Listener
	stream       *stream
	observer     *observer
	publications publications
	decoder      *decoder
	barrier      *barrier
	epoch        string

	sqlMu sync.Mutex // guards the following
	sql   *pgx.Conn

	latest   atomic.Pointer[catalog]
	settled  *catalog            // the last whose changes were announced; watch owns it
	looked   string              // the catalogs' fingerprint when nothing was left to do; watch owns it
	inForce  bool                // the sink has settled, and not only what could be believed at the start
	added    []string            // tables published by open, until settled
	writers  map[uint32][]string // by table, the transactions that settling it waits for
	received atomic.Uint64       // everything up to it is applied; the receiver writes it
	target   atomic.Uint64       // what a beat waits for received to reach
	arrived  chan struct{}       // holds one token when it has
}

func (l *Listener) session(ctx context.Context) error {
	s := &session{
		Listener: l, publications: publicationsOf(l.config.Publication),
		barrier: &barrier{}, arrived: make(chan struct{}, 1),
	}
	defer s.close()
	if err := s.open(ctx); err != nil {
		return err
	}
	l.update(func(st *Status) { st.State, st.Sessions = "catching up", st.Sessions+1 })
	err := s.run(ctx)
	l.past.undecodable = undecodable(err)
	l.past.known = max(l.past.known, coherence.LSN(s.received.Load()))
	visible, _ := s.barrier.position()
	l.past.unseen = visible == 0
	l.past.catalog = s.settled
	return err
}

// open connects, readies publications and slot, decides whether the epoch goes
// on, and starts the stream.
func (s *session) open(ctx context.Context) (err error) {
	url := s.config.DatabaseURL
	if s.sql, err = connect(ctx, url); err != nil {
		return err
	}
	if err := preflight(ctx, s.sql); err != nil {
		return err
	}
	if s.added, err = s.publications.ensure(ctx, s.sql, s.config.IgnoreTables); err != nil {
		return err
	}
	s.past.altered = append(s.past.altered, s.added...)
	if s.stream, err = openStream(ctx, url); err != nil {
		return fmt.Errorf("connect for replication: %w", err)
	}
	now, err := readLineage(ctx, s.stream, s.sql, s.publications)
	if err != nil {
		return err
	}
	slot, made, err := s.slot(ctx)
	if err != nil {
		return err
	}
	if err := s.start(ctx, slot); err != nil {
		return err
	}
	db, err := connect(ctx, url)
	if err != nil {
		return err
	}
	s.observer = &observer{db: db, barrier: s.barrier, passed: s.visible, wake: make(chan struct{}, 1)}
	if err := s.proveOneServer(ctx); err != nil {
		return err
	}
	return s.resume(ctx, now, slot.Confirmed, made)
}

// slot finds the slot, or makes it; one that is lost, keeps more WAL than it may
// or cannot be decoded is dropped first.
func (s *session) slot(ctx context.Context) (slot *Slot, made bool, err error) {
	slot, err = findSlot(ctx, s.sql, s.config.Slot)
	if err != nil {
		return nil, false, err
	}
	if slot != nil && slot.ActivePID == 0 && (s.spent(slot) || s.past.undecodable) {
		s.config.Log.Warn("replication slot given up", "slot", slot.Name, "wal_status", slot.WALStatus, "retained_bytes", slot.Retained)
		if err := s.drop(ctx); err != nil {
			return nil, false, err
		}
		slot = nil
	}
	if slot == nil {
		at, err := createSlot(ctx, s.stream, s.sql, s.config.Slot, s.config.Log)
		if err != nil {
			return nil, false, err
		}
		return &Slot{Name: s.config.Slot, Confirmed: at}, true, nil
	}
	return slot, false, nil
}

func (s *session) spent(slot *Slot) bool {
	return slot.WALStatus == "lost" || s.config.MaxRetainedWAL > 0 && slot.Retained > s.config.MaxRetainedWAL
}

// undecodable reports that the server failed in decoding what the slot keeps,
// as it would again and again: before PostgreSQL 18, a publication that was
// dropped ends every attempt to decode what was written while there was none.
func undecodable(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && errors.Is(err, errStream) && pg.Severity == "ERROR" &&
		!strings.HasPrefix(pg.Code, "53") && // insufficient_resources
		!strings.HasPrefix(pg.Code, "57") // operator_intervention
}

func (s *session) start(ctx context.Context, slot *Slot) error {
	err := s.stream.start(ctx, s.config.Slot, s.publications.names(), slot.Confirmed)
	switch sqlState(err) {
	case "55006": // object_in_use
		s.update(func(st *Status) { st.State, st.Slot = "waiting", slot })
		return fmt.Errorf("%w by pid %d (%s)", errHeld, slot.ActivePID, slot.Holder)
	case "55000": // object_not_in_prerequisite_state: what it would resume from is gone
		return errors.Join(fmt.Errorf("%w: %w", errGiveUp, err), s.drop(ctx))
	}
	if err != nil {
		return fmt.Errorf("start replication: %w", err)
	}
	return nil
}

func (s *session) drop(ctx context.Context) error {
	s.sqlMu.Lock()
	defer s.sqlMu.Unlock()
	return dropSlot(ctx, s.sql, s.config.Slot)
}

// proveOneServer checks that all connections lead to the server that streams:
// behind a name with several addresses, a snapshot from another server would
// vouch for nothing.
func (s *session) proveOneServer(ctx context.Context) error {
	for _, db := range []*pgx.Conn{s.sql, s.observer.db} {
		slot, err := findSlot(ctx, db, s.config.Slot)
		if err != nil {
			return err
		}
		if slot == nil || slot.ActivePID != int32(s.stream.pid()) {
			return fmt.Errorf("connections lead to different servers, or through a pooler: slot %q is not held by our pid %d; name one server directly", s.config.Slot, s.stream.pid())
		}
	}
	return nil
}

// resume decides whether the stream continues what is known, and sets out from
// the slot's confirmed position.
//
// Every commit up to there is visible if we confirmed it (see keep). That is
// not so for a slot just made: 1. A transaction commits before the slot's first
// position, and waits for a standby. 2. The slot is made; the commit is not in
// its stream. 3. A fill reads the old row, as of that position: stale for ever.
// So nothing counts as visible there until all transactions in progress ended,
// be it in a later session. A snapshot lists those before the last that ended,
// so one of our own ends first.
func (s *session) resume(ctx context.Context, now lineage, confirmed coherence.LSN, made bool) error {
	unseen := made || s.past.unseen
	if unseen {
		if _, err := s.observer.db.Exec(ctx, "SELECT pg_current_xact_id()"); err != nil {
			return fmt.Errorf("end a transaction: %w", err)
		}
	}
	seen, err := observe(ctx, s.observer.db)
	if err != nil {
		return err
	}
	if made { // once every transaction had ended that wrote before they were published
		s.added, s.past.altered = nil, nil
	}
	c, err := s.reload(ctx)
	if err != nil {
		return err
	}
	if why := s.past.broken(now, seen, c, confirmed, made); why != "" {
		s.past.epoch, s.past.known, s.past.catalog = s.newEpoch(why, confirmed), confirmed, c
	}
	s.past.lineage, s.past.xmax = now, seen.snapshot.xmax
	s.epoch, s.settled = s.past.epoch, s.past.catalog
	s.received.Store(uint64(confirmed))
	s.barrier.received = confirmed
	if unseen {
		for xid := range seen.snapshot.running {
			s.barrier.add(uint32(xid), confirmed)
		}
	} else {
		s.barrier.visible = confirmed
	}
	s.decoder = newDecoder(s.latest.Load, func(shown ...string) (*catalog, error) { return s.reload(ctx, shown...) }, s.notice)
	return nil
}

func (s *session) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	stop := context.AfterFunc(ctx, s.stream.abort)
	defer stop()
	group.Go(func() error { return s.receive() })
	group.Go(func() error { return s.observer.run(ctx) })
	group.Go(func() error { return s.beat(ctx) })
	group.Go(func() error { return s.watch(ctx) })
	group.Go(func() error { return s.keep(ctx) })
	s.observer.nudge()
	return group.Wait()
}

// receive applies what the stream brings, and answers keepalives at once: it
// waits for nobody.
func (s *session) receive() error {
	for {
		data, keepalive, err := s.stream.receive()
		if err != nil {
			return fmt.Errorf("%w: %w", errStream, err)
		}
		if keepalive != nil {
			if err := s.keepalive(coherence.LSN(keepalive.ServerWALEnd), keepalive.ReplyRequested); err != nil {
				return err
			}
			continue
		}
		// The server does not give every message a place.
		at := max(coherence.LSN(data.WALStart), coherence.LSN(s.received.Load()))
		done, err := s.decoder.decode(at, data.WALData)
		if err != nil {
			return err
		}
		if done != nil {
			if err := s.apply(done); err != nil {
				return err
			}
		}
	}
}

// keepalive takes the server's word that it has sent everything up to sent,
// unless it speaks in the middle of a transaction.
func (s *session) keepalive(sent coherence.LSN, reply bool) error {
	if from := coherence.LSN(s.received.Load()); sent > from && !s.decoder.inFlight() {
		if err := s.sink.Apply(coherence.Record{Epoch: s.epoch, From: from, To: sent}); err != nil {
			return err
		}
		s.reached(sent)
		s.visible(s.barrier.advance(sent))
	}
	if reply {
		return s.stream.report(false)
	}
	return nil
}

// apply moves tags and known at once, and leaves visible to the barrier.
func (s *session) apply(c *commit) error {
	err := s.sink.Apply(coherence.Record{
		Epoch: s.epoch, From: coherence.LSN(s.received.Load()), To: c.end,
		Changes: c.changes, Tables: c.tables,
	})
	if err != nil {
		return err
	}
	s.barrier.add(c.xid, c.end)
	s.reached(c.end)
	s.observer.nudge()
	return nil
}

func (s *session) reached(lsn coherence.LSN) {
	s.received.Store(max(s.received.Load(), uint64(lsn)))
	s.stream.reach(lsn)
	if uint64(lsn) >= s.target.Load() {
		select {
		case s.arrived <- struct{}{}:
		default:
		}
	}
}

// visible tells the sink how far commits are seen by new snapshots.
func (s *session) visible(lsn coherence.LSN) {
	// Only a record that begins after what is known is a gap, and lsn is not.
	_ = s.sink.Apply(coherence.Record{Epoch: s.epoch, From: lsn, To: lsn, Visible: lsn})
}

func (s *session) streaming() {
	s.update(func(st *Status) {
		if st.State != "streaming" {
			st.State, st.Reason = "streaming", ""
			s.config.Log.Info("listener is streaming", "slot", s.config.Slot, "epoch", s.epoch)
		}
	})
}

// keep confirms positions once they are visible and old enough, and ends the
// session when the server has fallen silent.
func (s *session) keep(ctx context.Context) error {
	var marks marks
	every := time.NewTicker(time.Second)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case now := <-every.C:
			if s.stream.silent() {
				return fmt.Errorf("the server has been silent for %s", silence)
			}
			visible, _ := s.barrier.position()
			s.stream.confirm(marks.add(now, visible))
			if err := s.stream.report(true); err != nil {
				return fmt.Errorf("confirm: %w", err)
			}
			confirmed := s.stream.confirmedUpTo()
			s.update(func(st *Status) { st.Confirmed = confirmed })
		}
	}
}

// marks are positions and when they were visible, oldest first.
type marks []struct {
	at  time.Time
	lsn coherence.LSN
}

// add notes what is visible now, and returns what has been for confirmAfter, or
// 0. The mark that it is of is the only old one that is kept.
func (m *marks) add(now time.Time, visible coherence.LSN) coherence.LSN {
	*m = append(*m, struct {
		at  time.Time
		lsn coherence.LSN
	}{now, visible})
	young := 0
	for now.Sub((*m)[young].at) >= confirmAfter {
		young++
	}
	if young == 0 {
		return 0
	}
	*m = (*m)[young-1:]
	return (*m)[0].lsn
}

func (s *session) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if s.stream != nil {
		_ = s.stream.conn.Close(ctx)
	}
	if s.observer != nil {
		_ = s.observer.db.Close(ctx)
	}
	if s.sql != nil {
		_ = s.sql.Close(ctx)
	}
}

// connectTimeout bounds each attempt to connect.
const connectTimeout = 5 * time.Second

// connect opens an ordinary connection, for what needs SQL. Our own commits
// wait for the local disk only, and never long for a lock that a table's owner
// may need.
func connect(ctx context.Context, url string) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	config.ConnectTimeout = connectTimeout
	params := config.RuntimeParams
	params["application_name"] = applicationName
	params["synchronous_commit"] = "local"
	params["lock_timeout"] = "100ms"
	params["statement_timeout"] = "30s"
	params["default_transaction_read_only"] = "off"
	return pgx.ConnectConfig(ctx, config)
}
