package replication

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"walcache/proxy/coherence"
)

// watchEvery is how often the system catalogs are compared with what they were.
// Logical decoding does not carry DDL, so this is how it is heard of where
// nobody announces it.
const watchEvery = time.Second

// watch keeps what caches believe of tables in step with the database: new
// tables are published, changed ones announced, and the slot's WAL bounded.
func (s *session) watch(ctx context.Context) error {
	every := time.NewTicker(watchEvery)
	defer every.Stop()
	for {
		if err := s.lookAtServer(ctx); err != nil {
			return err
		}
		if err := s.lookAtTables(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-every.C:
		}
	}
}

func (s *session) lookAtServer(ctx context.Context) error {
	s.sqlMu.Lock()
	defer s.sqlMu.Unlock()
	var standbys string
	if err := s.sql.QueryRow(ctx, "SELECT current_setting('synchronous_standby_names')").Scan(&standbys); err != nil {
		return fmt.Errorf("watch the server: %w", err)
	}
	if err := checkStandbys(standbys); err != nil {
		return err
	}
	slot, err := findSlot(ctx, s.sql, s.config.Slot)
	if err != nil {
		return err
	}
	if slot == nil {
		return fmt.Errorf("replication slot %q is gone", s.config.Slot)
	}
	s.update(func(st *Status) { st.Slot = slot })
	if s.spent(slot) {
		return fmt.Errorf("%w: it keeps %d bytes of WAL, wal_status %s", errGiveUp, slot.Retained, slot.WALStatus)
	}
	return nil
}

func (s *session) lookAtTables(ctx context.Context) error {
	c, err := s.reload(ctx)
	if err != nil {
		return err
	}
	added, err := s.align(ctx, c)
	if err != nil {
		return err
	}
	if len(added) > 0 {
		s.config.Log.Info("tables published", "tables", added)
		if c, err = s.reload(ctx); err != nil {
			return err
		}
	}
	if lost := c.lost(s.settled); len(lost) > 0 {
		return fmt.Errorf("changes no longer published: %s", strings.Join(lost, ", "))
	}
	s.tell(c)
	return s.settle(ctx, c)
}

func (s *session) align(ctx context.Context, c *catalog) ([]string, error) {
	s.sqlMu.Lock()
	defer s.sqlMu.Unlock()
	return s.publications.align(ctx, s.sql, c)
}

// reload reads the system catalogs. The stream is read by what they say at
// once; what tags may narrow follows at once only where it becomes less.
//
// 1. A table is made and filled, by a transaction that ends at L. 2. A fill
// that reads it begins after L, and is stored as depending on everything.
// 3. Its row is updated, which is not published yet: stale for ever. The stream
// describes the table before L counts as known, and describing it comes here,
// so in 2 the cache knows already that it must not store.
func (s *session) reload(ctx context.Context) (*catalog, error) {
	s.sqlMu.Lock()
	defer s.sqlMu.Unlock()
	c, err := loadCatalog(ctx, s.sql, s.publications.updates, s.config.IgnoreTables)
	if err != nil {
		return nil, err
	}
	now := c.published()
	now.Blind = append(now.Blind, s.added...)
	s.sink.SetCatalog(restrict(s.sink.Catalog(), now))
	s.latest.Store(c)
	return c, nil
}

// settle puts a catalog in force. 1. A fill reads a table. 2. An update, which
// is not published, changes the row. 3. The table is published, at L. 4. The
// fill is stored under the table's tag: stale for ever. So the floors of the
// tables that changed are raised by a message in the stream, which lies after
// L, and the catalog counts only from there on.
func (s *session) settle(ctx context.Context, c *catalog) error {
	changed := append(c.changedSince(s.settled), s.added...)
	if len(changed) == 0 && s.inForce {
		s.settled = c
		return nil
	}
	if len(changed) > 0 {
		slices.Sort(changed)
		changed = slices.Compact(changed)
		s.config.Log.Info("tables altered; what was read from them is stale", "tables", changed)
		if err := s.announce(ctx, "floor "+strings.Join(changed, "\nfloor ")); err != nil {
			return err
		}
	}
	if err := s.beats.wait(ctx); err != nil {
		return err
	}
	s.sqlMu.Lock()
	defer s.sqlMu.Unlock()
	if s.latest.Load() == c { // else the stream has shown newer tables meanwhile
		s.settled, s.added, s.inForce = c, nil, true
		s.sink.SetCatalog(c.published())
	}
	return nil
}

// announce sends a logical message through the stream. Committed with
// synchronous_commit = local, it flushes what lies before it.
func (s *session) announce(ctx context.Context, content string) error {
	s.sqlMu.Lock()
	defer s.sqlMu.Unlock()
	if _, err := s.sql.Exec(ctx, "SELECT pg_logical_emit_message(true, $1, $2::text)", Prefix, content); err != nil {
		return fmt.Errorf("send a logical message: %w", err)
	}
	return nil
}

// tell names the tables that nothing can be promised for, once.
func (s *session) tell(c *catalog) {
	before := s.Status()
	var blind, unlogged []string
	for _, t := range c.tables {
		switch {
		case t.blind():
			blind = append(blind, t.name)
			if !slices.Contains(before.Blind, t.name) {
				s.config.Log.Warn("updates of a table cannot be seen; answers that may depend on it are not stored",
					"table", t.name, "try", s.remedy(t))
			}
		case t.kind == "r" && !t.logged && !t.ignored:
			unlogged = append(unlogged, t.name)
			if !slices.Contains(before.Unlogged, t.name) {
				s.config.Log.Warn("an unlogged table never reaches the change stream; answers read from it can be stale", "table", t.name)
			}
		}
	}
	slices.Sort(blind)
	slices.Sort(unlogged)
	s.update(func(st *Status) { st.Blind, st.Unlogged = blind, unlogged })
}

// remedy is the statement that lets updates of a table be seen.
func (s *session) remedy(t *table) string {
	if t.identity {
		return "as its owner: " + s.publications.listing(t)
	}
	return "ALTER TABLE " + t.sql + " REPLICA IDENTITY FULL (or give it a primary key), or leave it out with --ignore-tables " + t.name
}

var _ Sink = (*coherence.Tracker)(nil)
