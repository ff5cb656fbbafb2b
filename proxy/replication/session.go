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

// errStream says that the stream was ended by the server or the network.
var errStream = errors.New("receive")

// session is one run over three connections to one server. It ends with the
// first of them.
type session struct {
	*Listener
	name         string // the application name of its connections
	stream       *stream
	observer     *observer
	publications publications
	decoder      *decoder
	barrier      *barrier
	led          bool          // Lead was called
	lineage      lineage       // of the server
	marked       coherence.LSN // where in the WAL it began, while it held the slot
	xmax         uint64        // no transaction from here on had begun when the session did
	epoch        string        // that its records are of
	known        coherence.LSN // up to where others knew everything of the epoch when it took over

	sqlMu sync.Mutex // guards the following
	sql   *pgx.Conn

	latest      atomic.Pointer[catalog]
	settled     *catalog            // the last whose changes were announced; watch owns it
	looked      string              // the catalogs' fingerprint when nothing was left to do; watch owns it
	inForce     bool                // the sink has settled, and not only what could be believed at the start
	unannounced []string            // tables that changed and were not announced; guarded by sqlMu
	writers     map[uint32][]string // by table, the transactions that settling it waits for

	catalogMu sync.Mutex    // guards the following, and orders what the sink is given
	term      coherence.LSN // of its catalogs
	off       bool          // an operator has switched caching off

	received    atomic.Uint64 // everything up to it is applied; the receiver writes it
	toldVisible atomic.Uint64 // the sink has been told
	target      atomic.Uint64 // what a beat waits for received to reach
	arrived     chan struct{} // holds one token when it has
	doubt       chan struct{} // holds one token when not all may be published
}

func (l *Listener) session(ctx context.Context) error {
	s := &session{
		Listener: l, publications: publicationsOf(l.config.Publication),
		barrier: &barrier{}, arrived: make(chan struct{}, 1), doubt: make(chan struct{}, 1),
	}
	defer s.close()
	if err := s.open(ctx); err != nil {
		return err
	}
	l.last.worked = true
	l.update(func(st *Status) { st.State, st.Sessions = stateCatchingUp, st.Sessions+1 })
	err := s.run(ctx)
	l.last.note(err, coherence.LSN(s.received.Load()))
	return err
}

// ending is what the last session of this process leaves to its next. It says
// nothing of the database, and no other process needs it.
type ending struct {
	worked      bool // a session has streamed, or waited for the slot
	undecodable bool // the server could not decode what the slot keeps
	stalls      int  // sessions in a row that the server fell silent in, or was ended, at the same place
	furthest    coherence.LSN
}

// note takes how a session ended, and how far it had come.
func (e *ending) note(err error, received coherence.LSN) {
	e.undecodable = undecodable(err)
	switch {
	case received > e.furthest:
		e.stalls, e.furthest = 0, received
	case errors.Is(err, errStream) && !e.undecodable:
		e.stalls++
	}
}

// patience is the timeout that the next session's stream has on both sides. A
// server may take longer than that to decode what comes next, and say nothing
// meanwhile (a transaction that changed thousands of tables). It would begin with
// it again and again, so it is given twice as long each time, up to
// PostgreSQL's own default.
func (e *ending) patience() time.Duration {
	return min(walSenderTimeout<<min(e.stalls, 8), time.Minute)
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

// receive applies what the stream brings. It waits for nobody but the sink, and the
// system catalogs where a table is new.
func (s *session) receive() error {
	for {
		next, err := s.stream.receive()
		if err != nil {
			return fmt.Errorf("%w: %w", errStream, err)
		}
		if next.message == nil {
			if err := s.keepalive(next.at, next.reply); err != nil {
				return err
			}
			continue
		}
		// The server does not give every message a place.
		at := max(next.at, coherence.LSN(s.received.Load()))
		done, err := s.decoder.decode(at, next.message)
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
	if reply {
		s.stream.report()
	}
	from := coherence.LSN(s.received.Load())
	if sent <= from || s.decoder.inFlight() {
		return nil
	}
	if err := s.say(coherence.Record{From: from, To: sent}); err != nil {
		return err
	}
	s.reached(sent)
	return s.visible(s.barrier.advance(sent))
}

// apply moves tags and known at once, and leaves visible to the barrier.
func (s *session) apply(c *commit) error {
	if c.off != nil {
		s.switchOff(*c.off, c.end)
	}
	r := coherence.Record{From: coherence.LSN(s.received.Load()), To: c.end, Changes: c.changes, Tables: c.tables}
	if len(c.changes) > 0 {
		r.Committed = c.at.UTC()
	}
	if err := s.say(r); err != nil {
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
		put(s.arrived)
	}
}

// visible tells the sink how far commits are seen by new snapshots, if that has
// moved. Told by two at once, the sink may hear something twice.
func (s *session) visible(lsn coherence.LSN) error {
	if uint64(lsn) <= s.toldVisible.Load() {
		return nil
	}
	s.toldVisible.Store(uint64(lsn))
	return s.say(coherence.Record{From: lsn, To: lsn, Visible: lsn})
}

// say hands a record to the sink. One that is not taken ends the session, and
// the next begins with what is known by then.
func (s *session) say(r coherence.Record) error {
	r.Epoch = s.epoch
	if err := s.sink.Apply(r); err != nil {
		return fmt.Errorf("a record was not taken: %w", err)
	}
	return nil
}

func (s *session) streaming() {
	s.update(func(st *Status) {
		if st.State != stateStreaming {
			st.State, st.Reason = stateStreaming, ""
			s.config.Log.Info("listener is streaming", "slot", s.config.Slot, "epoch", s.epoch)
		}
	})
}

// close ends the session's connections, and with them its hold of the slot.
func (s *session) close() {
	s.hangUp()
	if s.sql != nil {
		end(s.sql.Close)
	}
	if s.led {
		s.sink.Yield()
	}
}

// hangUp gives the slot back.
func (s *session) hangUp() {
	if s.stream != nil {
		s.stream.close()
		s.stream = nil
	}
	if s.observer != nil {
		end(s.observer.db.Close)
		s.observer = nil
	}
}

func end(closing func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = closing(ctx)
}

// connect opens an ordinary connection, for what needs SQL. Our own commits
// wait for the local disk only, and never long for a lock that a table's owner
// may need.
func connect(ctx context.Context, url, name string) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	dial(&config.Config)
	params := config.RuntimeParams
	params["application_name"] = name
	params["synchronous_commit"] = "local"
	params["lock_timeout"] = "100ms"
	params["statement_timeout"] = "30s"
	params["default_transaction_read_only"] = "off"
	return pgx.ConnectConfig(ctx, config)
}
