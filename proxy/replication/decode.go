package replication

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pglogrepl"

	"walcache/proxy/coherence"
)

// Prefix is that of the logical messages (pg_logical_emit_message) that this
// package reads. Their content is lines:
//
//	floor <table>  any row of the table may have changed; "*" is all tables
//	bump <tag>     what the tag names has changed
//	purge <url>    the stored answers of a URL count no longer
//	stale <hash>…  nor do those of pages and groups, by their hashes
//	cache off      nothing is answered from a cache any more, in any process
//	cache on       until this
//
// The first two say what logical decoding does not carry, such as DDL: whoever
// does it sends them, in its own transaction.
const Prefix = "walcache"

// wideRows is how many rows of a table a transaction may change by name; past
// it the table's floor is raised instead, so that a bulk load neither fills
// the tracker nor this process.
const wideRows = 1 << 15

// commit is a transaction that has ended well, as tags and floors.
type commit struct {
	xid     uint32 // 0 where there was no transaction
	end     coherence.LSN
	at      time.Time // by the server's clock; zero where there was no transaction
	changes []coherence.Change
	tables  []coherence.TableChanges
	off     *bool // whether caching is switched off from here on, if it says
}

// decoder turns pgoutput messages, protocol version 2, into commits
// (PostgreSQL documentation, "Logical Replication Message Formats").
//
// A large transaction is streamed in blocks before it commits, and others
// commit between the blocks. Its changes wait in streams; those of its
// rolled-back savepoints are moved with the rest, which is early and not
// wrong. Relations that it describes may be its own uncommitted work, so they
// stay its own until it commits.
type decoder struct {
	latest    func() *catalog                         // the last reading of the system catalogs
	reload    func(shown ...string) (*catalog, error) // reads them again, for a table that the stream shows
	notice    func(what string, err error)            // something was not understood, and widened
	relations map[uint32]*relation
	open      *transaction            // between Begin and Commit
	block     *transaction            // between Stream Start and Stream Stop
	streams   map[uint32]*transaction // by the xid of the top-level transaction
	tuples                            // of the last row
}

// transaction gathers what a transaction changed.
type transaction struct {
	xid       uint32
	relations map[uint32]*relation // described within a streamed transaction
	changes   map[coherence.Hash]struct{}
	rows      map[*relation]int
	off       *bool // caching was switched
}

func newDecoder(latest func() *catalog, reload func(shown ...string) (*catalog, error), notice func(string, error)) *decoder {
	return &decoder{
		latest: latest, reload: reload, notice: notice,
		relations: map[uint32]*relation{}, streams: map[uint32]*transaction{},
	}
}

func newTransaction(xid uint32) *transaction {
	return &transaction{xid: xid, changes: map[coherence.Hash]struct{}{}, rows: map[*relation]int{}}
}

// inFlight reports that a transaction's messages are being received, so that a
// keepalive says nothing about what has been applied.
func (d *decoder) inFlight() bool { return d.open != nil || d.block != nil }

// decode takes one message, found at an LSN that everything received lies
// before. It returns a commit if the message completes one. What it cannot
// understand raises the floor of everything: nothing in the stream may keep the
// listener down, and nothing may be missed.
func (d *decoder) decode(at coherence.LSN, data []byte) (done *commit, err error) {
	defer func() {
		if p := recover(); p != nil {
			done, err = d.widen(at, fmt.Errorf("message %.1q: %v", data, p)), nil
		}
	}()
	if k := data[0]; k == 'I' || k == 'U' || k == 'D' {
		if err := d.row(data); err != nil {
			return d.widen(at, err), nil
		}
		return nil, nil
	}
	msg, err := pglogrepl.ParseV2(data, d.block != nil)
	if err != nil {
		return d.widen(at, fmt.Errorf("message %.1q: %w", data, err)), nil
	}
	return d.message(at, msg)
}

func (d *decoder) message(at coherence.LSN, msg pglogrepl.Message) (*commit, error) {
	switch m := msg.(type) {
	case *pglogrepl.BeginMessage:
		unfinished := d.open != nil
		d.open = newTransaction(m.Xid)
		if unfinished { // its commit was not understood: this one makes up for it
			return d.widen(at, errors.New("a transaction begins within another")), nil
		}
	case *pglogrepl.CommitMessage:
		t := d.open
		d.open = nil
		return t.commit(coherence.LSN(m.TransactionEndLSN), m.CommitTime), nil
	case *pglogrepl.StreamStartMessageV2:
		if d.streams[m.Xid] == nil {
			d.streams[m.Xid] = newTransaction(m.Xid)
			d.streams[m.Xid].relations = map[uint32]*relation{}
		}
		d.block = d.streams[m.Xid]
	case *pglogrepl.StreamStopMessageV2:
		d.block = nil
	case *pglogrepl.StreamAbortMessageV2:
		if m.Xid == m.SubXid {
			delete(d.streams, m.Xid)
		}
	case *pglogrepl.StreamCommitMessageV2:
		return d.streamCommit(m)
	case *pglogrepl.RelationMessageV2:
		return nil, d.relation(&m.RelationMessage)
	case *pglogrepl.TruncateMessageV2:
		d.truncate(m.RelationIDs)
	case *pglogrepl.LogicalDecodingMessageV2:
		return d.announcement(&m.LogicalDecodingMessage), nil
	case *pglogrepl.TypeMessageV2, *pglogrepl.OriginMessage:
	default:
		return d.widen(at, fmt.Errorf("unexpected message %T", msg)), nil
	}
	return nil, nil
}

func (d *decoder) current() *transaction {
	if d.block != nil {
		return d.block
	}
	return d.open
}

// lookup finds what the stream said of a relation, joined with the latest
// catalog.
func (d *decoder) lookup(oid uint32) *relation {
	known := d.relations
	if d.block != nil && d.block.relations[oid] != nil {
		known = d.block.relations
	}
	rel := known[oid]
	if latest := d.latest(); rel != nil && rel.catalog != latest {
		*rel = *latest.relation(rel.message) // in place: transactions count rows by it
	}
	return rel
}

// relation learns what the rows of a relation look like from here on. A
// relation that looks different from before was altered: its floor is raised,
// under its old names and its new ones.
func (d *decoder) relation(m *pglogrepl.RelationMessage) error {
	rel, err := d.describe(m)
	if err != nil {
		return err
	}
	t := d.current()
	if old := d.lookup(m.RelationID); old != nil && !old.looksLike(rel) && t != nil {
		t.floor(old)
		t.floor(rel)
	}
	known := d.relations
	if d.block != nil {
		known = d.block.relations
	}
	if old := known[m.RelationID]; old != nil {
		*old = *rel // in place, as in lookup
	} else {
		known[m.RelationID] = rel
	}
	return nil
}

// describe joins what the stream says of a relation with the catalog, which is
// read again where it does not know all of that. What a block of a streamed
// transaction shows may never commit; streamCommit comes back to it.
func (d *decoder) describe(m *pglogrepl.RelationMessage) (*relation, error) {
	rel := d.latest().relation(m)
	if rel.settled {
		return rel, nil
	}
	shown := []string{rel.targets[0].name}
	if d.block != nil {
		shown = nil
	}
	c, err := d.reload(shown...)
	if err != nil {
		return nil, fmt.Errorf("describe %s.%s: %w", m.Namespace, m.RelationName, err)
	}
	return c.relation(m), nil
}

// row reads an Insert, Update or Delete message. Where the transaction raises the
// floor of the table already, as a bulk load does, or the table is ignored, a look
// at the front of the message is enough.
func (d *decoder) row(data []byte) error {
	m := cursor{rest: data[1:]}
	if d.block != nil {
		m.take(4) // the xid of the subtransaction
	}
	oid := m.uint32()
	t, rel := d.current(), d.lookup(oid)
	switch {
	case m.err != nil:
		return m.err
	case rel == nil:
		return fmt.Errorf("row of an unknown relation, oid %d", oid)
	case rel.ignored:
		return nil
	}
	t.rows[rel]++
	switch n := t.rows[rel]; {
	case n == wideRows:
		t.floor(rel)
		return nil
	case n > wideRows:
		return nil
	}
	if err := d.tuples.read(data[0], &m); err != nil {
		return err
	}
	if !rel.fits(d.before) || !rel.fits(d.after) {
		return fmt.Errorf("row does not fit its relation, table %s", rel.targets[0].name)
	}
	rel.row(t, d.before, data[0] != 'I', d.after)
	return nil
}

func (d *decoder) truncate(oids []uint32) {
	t := d.current()
	for _, oid := range oids {
		if rel := d.lookup(oid); rel == nil {
			d.notice("truncate of an unknown relation", fmt.Errorf("oid %d", oid))
			t.everything()
		} else if !rel.ignored {
			t.rows[rel]++
			t.floor(rel)
		}
	}
}

// announcement reads a logical message. One outside a transaction
// ("transactional" false) is complete in itself, and lies at its own LSN.
func (d *decoder) announcement(m *pglogrepl.LogicalDecodingMessage) *commit {
	if m.Prefix != Prefix {
		return nil
	}
	t := d.current()
	if t == nil || !m.Transactional {
		t = newTransaction(0)
	}
	for line := range strings.Lines(string(m.Content)) {
		t.announced(strings.TrimSpace(line), d.notice)
	}
	if t.xid == 0 {
		return t.commit(coherence.LSN(m.LSN), time.Time{})
	}
	return nil
}

func (d *decoder) streamCommit(m *pglogrepl.StreamCommitMessageV2) (*commit, error) {
	t := d.streams[m.Xid]
	delete(d.streams, m.Xid)
	if t == nil {
		t = newTransaction(m.Xid)
		t.everything()
		d.notice("commit of an unknown streamed transaction", fmt.Errorf("xid %d", m.Xid))
	}
	for oid, rel := range t.relations {
		d.relations[oid] = rel
		if rel.settled {
			continue
		}
		if _, err := d.reload(rel.targets[0].name); err != nil {
			return nil, err
		}
	}
	return t.commit(coherence.LSN(m.TransactionEndLSN), m.CommitTime), nil
}

// widen makes up for a message that was not understood: within a transaction
// everything changes with it, outside one everything changes at once.
func (d *decoder) widen(at coherence.LSN, err error) *commit {
	d.notice("message not understood", err)
	if t := d.current(); t != nil {
		t.everything()
		return nil
	}
	t := newTransaction(0)
	t.everything()
	return t.commit(at+1, time.Time{})
}

func (t *transaction) add(h coherence.Hash) { t.changes[h] = struct{}{} }

func (t *transaction) everything() {
	t.add(coherence.TableFloor(coherence.Everything))
	t.add(coherence.Any.Hash())
}

// floor says that any row of the relation may have changed.
func (t *transaction) floor(rel *relation) {
	t.add(coherence.Any.Hash())
	for _, target := range rel.targets {
		t.add(target.tag)
		t.add(target.floor)
	}
}

func (t *transaction) announced(line string, notice func(string, error)) {
	verb, name, _ := strings.Cut(line, " ")
	switch {
	case line == "":
	case verb == "floor" && name == coherence.Everything:
		t.everything()
	case verb == "floor" && name != "":
		t.add(coherence.TableFloor(name))
		t.add(coherence.TableTag(name).Hash())
		t.add(coherence.Any.Hash())
	case verb == "bump" && name != "":
		t.add(coherence.Tag(name).Hash())
	case verb == "purge" && name != "":
		t.add(coherence.PageHash(name))
	case verb == "stale" && name != "":
		t.named(name, notice)
	case line == "cache off", line == "cache on":
		off := name == "off"
		t.off = &off
	default:
		notice("logical message not understood", fmt.Errorf("%.100q", line))
		t.everything()
	}
}

// named says that pages and groups have changed, of which these are the hashes.
func (t *transaction) named(hashes string, notice func(string, error)) {
	for text := range strings.FieldsSeq(hashes) {
		h, err := coherence.ParseNamed(text)
		if err != nil {
			notice("logical message not understood", err)
			t.everything()
			return
		}
		t.add(h)
	}
}

func (t *transaction) commit(end coherence.LSN, at time.Time) *commit {
	c := &commit{xid: t.xid, end: end, at: at, off: t.off, changes: make([]coherence.Change, 0, len(t.changes))}
	for h := range t.changes {
		c.changes = append(c.changes, coherence.Change{Hash: h, At: end})
	}
	for rel, n := range t.rows {
		c.tables = append(c.tables, coherence.TableChanges{Table: rel.targets[0].name, Rows: n})
	}
	return c
}
