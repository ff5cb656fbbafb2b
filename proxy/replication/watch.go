package replication

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

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
		case <-s.doubt:
		}
	}
}

func (s *session) lookAtServer(ctx context.Context) error {
	s.sqlMu.Lock()
	defer s.sqlMu.Unlock()
	var standbys, published string
	err := s.sql.QueryRow(ctx, "SELECT current_setting('synchronous_standby_names'), ("+versions+")", s.publications.names()).
		Scan(&standbys, &published)
	if err != nil {
		return fmt.Errorf("watch the server: %w", err)
	}
	if published != s.lineage.Publications {
		return errors.New("a publication was changed")
	}
	if err := checkStandbys(standbys, s.name); err != nil {
		return err
	}
	if name := s.applicationName(); name != s.name && name != applicationName {
		return errors.New("the cluster's name has become known, and the connections do not bear it")
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

// lookAtTables reads the system catalogs when something in them has changed, or
// when there was something left to do.
//
// 1. It takes the fingerprint. 2. A table is made. 3. It reads the catalogs, and
// publishes the table, which beats count on from here on. 4. The table is
// dropped, and the fingerprint is that of 1 again: as if nothing were left to do,
// and no beat ever counts. So a fingerprint counts only if the catalogs read
// after it are those read before it. Kept by note; see
// TestWatch_AFingerprintCountsOnlyIfTheCatalogsAreAsBefore and
// TestBeat_AndWatchDoNotWaitForEachOther.
func (s *session) lookAtTables(ctx context.Context) error {
	before := s.latest.Load()
	now, pending, err := s.glance(ctx)
	if err != nil || now == s.looked && !pending {
		return err
	}
	s.looked = ""
	c, err := s.reload(ctx)
	if err != nil {
		return err
	}
	if err := s.rely(c); err != nil {
		return err
	}
	added, err := s.align(ctx, c)
	if err != nil {
		return err
	}
	s.tellAdded(added)
	if len(added) > 0 {
		if c, err = s.reload(ctx); err != nil {
			return err
		}
		if err := s.rely(c); err != nil {
			return err
		}
	}
	s.tell(c)
	if err := s.settle(ctx, c); err != nil {
		return err
	}
	s.note(now, before, c)
	return nil
}

// note remembers a fingerprint, by which the next look sees that there is nothing
// to do, if the catalogs before and after it are the same and nothing was left.
func (s *session) note(fingerprint string, before, after *catalog) {
	if s.inForce && after == before && len(s.altered(after)) == 0 && after.aligned() {
		s.looked = fingerprint
	}
}

// rely has beats count on what a reading of the system catalogs says is
// published, unless that is less than it was.
func (s *session) rely(c *catalog) error {
	if lost := c.lost(s.settled); len(lost) > 0 {
		return fmt.Errorf("changes no longer published: %s", strings.Join(lost, ", "))
	}
	r := &reliance{names: s.publications.names(), versions: s.lineage.Publications, places: []uint32{}} // nil would be NULL
	for _, t := range c.tables {
		if t.listed != 0 {
			r.places = append(r.places, t.listed)
		}
	}
	s.observer.relies.Store(r)
	return nil
}

// glance returns the catalogs' fingerprint, and whether the stream has shown
// tables that are still to be announced.
func (s *session) glance(ctx context.Context) (print string, pending bool, err error) {
	s.sqlMu.Lock()
	defer s.sqlMu.Unlock()
	print, err = fingerprint(ctx, s.sql)
	return print, len(s.unannounced) > 0, err
}

func (s *session) tellAdded(tables []string) {
	if len(tables) > 0 {
		s.config.Log.Info("tables published", "tables", tables)
	}
}

func (s *session) align(ctx context.Context, c *catalog) ([]string, error) {
	return s.publications.align(c, func(sql string) (bool, error) {
		s.sqlMu.Lock() // for one statement at a time: each may wait for a lock
		defer s.sqlMu.Unlock()
		return try(ctx, s.sql, sql)
	})
}

// reload reads the system catalogs. The stream is read by what they say at
// once; what tags may narrow follows at once only where it becomes less.
//
// 1. A table is made and filled, by a transaction that ends at L. 2. A fill
// that reads it begins after L, and is stored as depending on everything.
// 3. Its row is updated, which is not published yet: stale for ever. The stream
// describes the table before L counts as known, and describing it comes here,
// so in 2 the cache knows already that it must not store.
//
// The transaction in 1 may not be visible when it is described, and the table
// unknown to the catalog: shown names it, and it counts as altered.
func (s *session) reload(ctx context.Context, shown ...string) (*catalog, error) {
	s.sqlMu.Lock()
	defer s.sqlMu.Unlock()
	c, err := loadCatalog(ctx, s.sql, s.publications.updates, s.config.IgnoreTables)
	if err != nil {
		return nil, err
	}
	return s.adopt(c, shown...), nil
}

// adopt takes a reading of the system catalogs. Its caller holds sqlMu, or is
// still alone.
func (s *session) adopt(c *catalog, shown ...string) *catalog {
	if was := s.latest.Load(); was != nil && reflect.DeepEqual(c, was) {
		c = was
	} else if was != nil {
		s.unannounced = append(s.unannounced, c.changedSince(was)...)
	}
	for _, name := range shown {
		if !c.knows(name) {
			s.unannounced = append(s.unannounced, name)
		}
	}
	now := c.published()
	now.Blind = append(now.Blind, s.unannounced...)
	s.publish(restrict(s.sink.Catalog(), now))
	s.latest.Store(c)
	return c
}

// publish gives the sink a catalog. That caching is switched off is no matter of
// tables, and stays as it is.
func (s *session) publish(c *coherence.Catalog) {
	s.catalogMu.Lock()
	defer s.catalogMu.Unlock()
	c.Term, c.Off = s.term, s.off
	s.sink.SetCatalog(c)
}

// switchOff passes everything through, or no longer, as a message that ends at
// lsn says. One that others knew already is in the catalog that was taken over,
// with those after it.
func (s *session) switchOff(off bool, lsn coherence.LSN) {
	if lsn <= s.known {
		return
	}
	s.catalogMu.Lock()
	defer s.catalogMu.Unlock()
	s.config.Log.Info("caching is switched", "off", off, "lsn", lsn)
	c := *s.sink.Catalog()
	c.Term, c.Off, s.off = s.term, off, off
	s.sink.SetCatalog(&c)
}

// settle puts a catalog in force. 1. A fill reads a table. 2. An update, which
// is not published, changes the row. 3. The table is published, at L. 4. The
// fill is stored under the table's tag: stale for ever. So the floors of the
// tables that changed are raised by a message in the stream, which lies after
// L, and the catalog counts only from there on.
func (s *session) settle(ctx context.Context, c *catalog) error {
	changed := s.altered(c)
	if len(changed) == 0 && s.inForce {
		if c == s.settled {
			return nil
		}
		s.settled = c
		return s.keepState()
	}
	if wait, err := s.olderWriters(ctx, c); wait || err != nil {
		return err
	}
	if len(changed) > 0 {
		s.config.Log.Info("tables altered; what was read from them is stale", "tables", changed)
		if err := s.announce(ctx, "floor "+strings.Join(changed, "\nfloor ")); err != nil {
			return err
		}
	}
	// Beats wait in turn for this goroutine where not all is published.
	next := s.beats.next()
	select {
	case <-s.doubt:
		put(s.doubt)
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-next.ended:
	}
	if !next.proven {
		return nil
	}
	s.sqlMu.Lock()
	defer s.sqlMu.Unlock()
	if s.latest.Load() == c { // else the stream has shown newer tables meanwhile
		s.settled, s.inForce = c, true
		s.unannounced, s.writers = nil, nil
		s.publish(c.published())
		return s.keepState()
	}
	return nil
}

// altered names the tables that are not what was announced of them, or were
// not for a while.
func (s *session) altered(c *catalog) []string {
	s.sqlMu.Lock()
	defer s.sqlMu.Unlock()
	names := append(c.changedSince(s.settled), s.unannounced...)
	slices.Sort(names)
	return slices.Compact(names)
}

// olderWriters reports whether a transaction is open that may have changed a
// table before its updates were published. 1. It changes a row. 2. The table is
// published. 3. A fill reads the old row. 4. It commits, and the stream carries
// only what it did after 2: the fill is stale for ever. A writer keeps its lock
// on the table until its commit is visible, so those that hold one when the
// table is first found published are waited for.
func (s *session) olderWriters(ctx context.Context, c *catalog) (wait bool, err error) {
	young := c.youngSince(s.settled)
	if len(young) == 0 {
		return false, nil
	}
	now, err := s.lockHolders(ctx, young)
	if err != nil {
		return false, err
	}
	if s.writers == nil {
		s.writers = map[uint32][]string{}
	}
	for _, oid := range young {
		older, known := s.writers[oid]
		if !known {
			older = slices.Clone(now[oid])
			if len(older) > 0 {
				s.config.Log.Info("a table counts as published once the transactions that write it have ended", "table", c.tables[oid].name)
			}
		}
		ended := func(holder string) bool { return !slices.Contains(now[oid], holder) }
		s.writers[oid] = slices.DeleteFunc(older, ended)
		wait = wait || len(s.writers[oid]) > 0
	}
	return wait, nil
}

// lockHolders are the open transactions that may have written to tables, by
// table.
func (s *session) lockHolders(ctx context.Context, tables []uint32) (map[uint32][]string, error) {
	s.sqlMu.Lock()
	defer s.sqlMu.Unlock()
	// A query that fails shows in ForEachRow.
	rows, _ := s.sql.Query(ctx, `
SELECT relation, virtualtransaction FROM pg_locks
WHERE locktype = 'relation' AND mode = 'RowExclusiveLock' AND granted AND relation = ANY ($1)
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`, tables)
	holders := map[uint32][]string{}
	var table uint32
	var holder string
	_, err := pgx.ForEachRow(rows, []any{&table, &holder}, func() error {
		holders[table] = append(holders[table], holder)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look for writers: %w", err)
	}
	return holders, nil
}

// announce sends a logical message through the stream.
func (s *session) announce(ctx context.Context, lines ...string) error {
	s.sqlMu.Lock()
	defer s.sqlMu.Unlock()
	if err := announce(ctx, s.sql, lines...); err != nil {
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
