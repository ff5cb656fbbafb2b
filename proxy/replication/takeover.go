package replication

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"walcache/proxy/coherence"
)

// errHeld says that someone else holds the slot.
var errHeld = errors.New("someone else was faster to take the replication slot")

// errDeposed says that someone else has held the slot since this session did.
var errDeposed = errors.New("someone else has taken over the replication slot since")

// open connects, waits until nobody holds the slot, takes it, and decides
// whether the epoch goes on.
func (s *session) open(ctx context.Context) (err error) {
	s.name = s.learnName(ctx)
	if s.sql, err = connect(ctx, s.config.DatabaseURL, s.name); err != nil {
		return err
	}
	if err := preflight(ctx, s.sql, s.name); err != nil {
		return err
	}
	for {
		if err := s.await(ctx); err != nil {
			return err
		}
		slot, made, err := s.seize(ctx)
		if err == nil {
			return s.resume(ctx, slot.Confirmed, made)
		}
		if !errors.Is(err, errHeld) {
			return err
		}
		s.hangUp()
	}
}

// seize takes the slot and starts the stream. It returns the slot as it was from
// then on, and whether it was made here. The error is errHeld if someone else
// was faster.
func (s *session) seize(ctx context.Context) (slot *Slot, made bool, err error) {
	url := s.config.DatabaseURL
	s.name = s.applicationName() // which may be known only now
	added, err := s.publications.ensure(ctx, s.sql, s.config.IgnoreTables)
	if err != nil {
		return nil, false, err
	}
	s.tellAdded(added)
	if s.stream, err = openStream(ctx, url, s.name, s.last.patience()); err != nil {
		return nil, false, fmt.Errorf("connect for replication: %w", err)
	}
	if s.lineage, err = readLineage(ctx, s.stream, s.sql, s.publications); err != nil {
		return nil, false, err
	}
	if made, err = s.prepareSlot(ctx); err != nil {
		return nil, false, err
	}
	if err := s.start(ctx); err != nil {
		return nil, false, err
	}
	db, err := connect(ctx, url, s.name)
	if err != nil {
		return nil, false, err
	}
	s.observer = newObserver(db, s.barrier, s.visible)
	if s.marked, err = markBeginning(ctx, db); err != nil {
		return nil, false, err
	}
	slot, err = s.heldSlot(ctx)
	return slot, made, err
}

// markBeginning writes to the server's WAL, and returns where. Done while the slot is
// held, as heldSlot proves afterwards, it tells the order of those who held it:
// 1. A takes the slot, and stands still. 2. The server ends A's stream; B takes
// the slot, and announces its catalog. 3. A goes on, and asks where the server
// is: not before where B asked. Its old catalog would count as the later one.
func markBeginning(ctx context.Context, db *pgx.Conn) (at coherence.LSN, err error) {
	var text string
	err = db.QueryRow(ctx, "SELECT pg_logical_emit_message(false, $1, '')::text", Prefix+".leads").Scan(&text)
	if err != nil {
		return 0, fmt.Errorf("mark the beginning of a session in the WAL: %w", err)
	}
	return coherence.ParseLSN(text)
}

// prepareSlot makes the slot if there is none; one that is lost, keeps more WAL
// than it may or cannot be decoded is dropped first.
func (s *session) prepareSlot(ctx context.Context) (made bool, err error) {
	slot, err := s.look(ctx)
	if err != nil {
		return false, err
	}
	if slot != nil && slot.ActivePID != 0 {
		return false, errHeld
	}
	if slot != nil && !s.spent(slot) && !s.last.undecodable {
		return false, nil
	}
	if slot != nil {
		s.config.Log.Warn("replication slot given up", "slot", slot.Name, "wal_status", slot.WALStatus, "retained_bytes", slot.Retained)
		if err := s.drop(ctx); err != nil {
			return false, err
		}
	}
	return true, createSlot(ctx, s.stream, s.sql, s.config.Slot, s.config.Log)
}

func (s *session) spent(slot *Slot) bool {
	return slot.WALStatus == "lost" || s.config.MaxRetainedWAL > 0 && slot.Retained > s.config.MaxRetainedWAL
}

func (s *session) drop(ctx context.Context) error {
	s.sqlMu.Lock()
	defer s.sqlMu.Unlock()
	return dropSlot(ctx, s.sql, s.config.Slot)
}

func (s *session) start(ctx context.Context) error {
	err := s.stream.start(ctx, s.config.Slot, s.publications.names())
	switch sqlState(err) {
	case "55006": // object_in_use
		return errHeld
	case "55000": // object_not_in_prerequisite_state: what it would resume from is gone
		return errors.Join(fmt.Errorf("%w: %w", errGiveUp, err), s.drop(ctx))
	}
	if err != nil {
		return fmt.Errorf("start replication: %w", err)
	}
	return nil
}

// heldSlot reads the slot now that it is ours, where the stream began.
//
// 1. The slot is found free, confirmed up to A. 2. Another process takes it,
// follows the stream, confirms up to B, and dies. 3. This process takes it; the
// stream begins after B. Records that begin at A would say that nothing changed
// between A and B, and telling the server that A is confirmed would move the
// slot back. So the position is read here, where nobody else can move it, and
// nothing is reported before.
//
// It also proves that all connections lead to the server that streams: behind a
// name with several addresses, a snapshot from another server would vouch for
// nothing.
func (s *session) heldSlot(ctx context.Context) (slot *Slot, err error) {
	for _, db := range []*pgx.Conn{s.observer.db, s.sql} {
		if slot, err = findSlot(ctx, db, s.config.Slot); err != nil {
			return nil, err
		}
		if slot == nil || slot.ActivePID != int32(s.stream.pid()) {
			// A server that cannot decode what the slot keeps says so at once.
			if err := s.stream.farewell(); err != nil {
				return nil, fmt.Errorf("%w: %w", errStream, err)
			}
			return nil, fmt.Errorf("connections lead to different servers, or through a pooler: slot %q is not held by our pid %d; name one server directly", s.config.Slot, s.stream.pid())
		}
	}
	return slot, nil
}

// resume takes over what is known, decides whether the stream continues it, and
// sets out from the slot's confirmed position.
func (s *session) resume(ctx context.Context, confirmed coherence.LSN, made bool) error {
	s.led = true
	known, err := s.sink.Lead(ctx)
	if err != nil {
		return fmt.Errorf("take over from whoever led before: %w", err)
	}
	seen, err := observe(ctx, s.observer.db)
	if err != nil {
		return err
	}
	c, err := loadCatalog(ctx, s.sql, s.publications.updates, s.config.IgnoreTables)
	if err != nil {
		return err
	}
	s.xmax = seen.snapshot.xmax
	visible := coherence.LSN(0)
	p, why := s.judge(known, seen, c, confirmed, made)
	if err := s.inherit(p, why == ""); err != nil {
		return err
	}
	if why != "" {
		err = s.newEpoch(why, confirmed, c)
	} else {
		visible = min(p.Visible, confirmed)
		err = s.continueEpoch(p, c)
	}
	if err != nil {
		return err
	}
	s.adopt(c)
	if err := s.rely(c); err != nil {
		return err
	}
	s.received.Store(uint64(confirmed))
	s.stream.begin(confirmed)
	s.decoder = newDecoder(s.latest.Load, func(shown ...string) (*catalog, error) { return s.reload(ctx, shown...) }, s.notice)
	return s.setOutFrom(ctx, confirmed, visible)
}

// inherit takes over what caches believe. The term of our own catalogs is later
// than of all that came before. Whoever leads leaves its state before it announces
// anything: if the server's history goes on, then a state of a session that began
// later than ours, or a catalog that is later than the state, is of someone who
// holds the slot now.
func (s *session) inherit(p past, goesOn bool) error {
	s.term = s.marked
	before := s.sink.Catalog()
	if before == nil {
		return nil
	}
	if goesOn && (p.left.Marked > s.marked || before.Term > p.left.Term) {
		return errDeposed
	}
	s.off, s.term = before.Off, max(s.marked, before.Term+1)
	return nil
}

// judge says why what is known does not hold any more, or "" if it does.
func (s *session) judge(known coherence.Past, seen observation, c *catalog, confirmed coherence.LSN, made bool) (p past, why string) {
	p, err := readPast(known)
	switch {
	case known.Epoch == "":
		return p, "process started"
	case err != nil:
		s.config.Log.Warn("what was left by the last leader cannot be read", "error", err)
		return p, "what was left by the last leader cannot be read"
	case seen.insert < p.left.Marked:
		return p, fmt.Sprintf("the server is at %s, behind %s", seen.insert, p.left.Marked)
	}
	if p.foreign(s.lineage) {
		s.config.Log.Warn("what was known until now is of another database",
			"system", s.lineage.System, "database", s.lineage.Database, "before_system", p.left.Lineage.System, "before_database", p.left.Lineage.Database,
			"try", "if another deployment uses the same Redis, give one of them a --prefix of its own; if this database was restored or made anew, nothing")
	}
	return p, p.broken(s.lineage, seen, c, confirmed, made)
}

// continueEpoch goes on where the last leader ended. Tables that were altered, or
// published, since it announced any count as blind until they are announced. What
// it had found itself, perhaps only for a moment, is among the blind tables of its
// catalog; to announce the others with them does no harm.
func (s *session) continueEpoch(p past, c *catalog) error {
	s.epoch, s.settled, s.known = p.Epoch, p.left.settled(), p.Known
	s.unannounced = c.changedSince(s.settled)
	if believed := s.sink.Catalog(); believed != nil {
		s.unannounced = append(s.unannounced, believed.Blind...)
	}
	s.update(func(st *Status) {
		if st.Epoch != s.epoch {
			st.Epoch, st.Began = s.epoch, "continued from another process"
		}
	})
	s.config.Log.Info("epoch goes on", "epoch", s.epoch, "known", p.Known)
	return s.keepState()
}

// newEpoch begins an epoch: whatever was stored before is stale. Nothing is
// visible in it before every transaction that is in progress now has ended (see
// setOutFrom), so that nothing has to be made good of what they did to tables
// that were altered, or not published yet.
func (s *session) newEpoch(why string, at coherence.LSN, c *catalog) error {
	s.epoch, s.settled = strings.ToLower(rand.Text()[:16]), c
	if err := s.keepState(); err != nil {
		return err
	}
	s.sink.Begin(s.epoch, at)
	s.last.furthest = min(s.last.furthest, at) // the server may be behind what it was
	s.update(func(st *Status) { st.Epoch, st.Began, st.Epochs = s.epoch, why, st.Epochs+1 })
	s.config.Log.Info("epoch begins", "epoch", s.epoch, "reason", why, "at", at)
	return nil
}

// setOutFrom gives the barrier what is not visible yet at the slot's confirmed
// position.
//
// Every commit up to there is visible if those before us saw it so (see keep).
// It may not be where a slot was just made: 1. A transaction commits before the
// slot's first position, and waits for a standby. 2. The slot is made; the commit
// is not in its stream. 3. A fill reads the old row, as of that position: stale
// for ever. So nothing counts as visible there until all transactions in progress
// ended, be it in a later session. A snapshot lists those before the last that
// ended, so one of our own ends first.
func (s *session) setOutFrom(ctx context.Context, confirmed, visible coherence.LSN) error {
	s.barrier.received, s.barrier.visible = confirmed, visible
	if visible == confirmed {
		return nil
	}
	if _, err := s.observer.db.Exec(ctx, "SELECT pg_current_xact_id()"); err != nil {
		return fmt.Errorf("end a transaction: %w", err)
	}
	seen, err := observe(ctx, s.observer.db)
	if err != nil {
		return err
	}
	for xid := range seen.snapshot.running {
		s.barrier.add(uint32(xid), confirmed)
	}
	return nil
}
