package replication

import (
	"bytes"
	"compress/flate"
	"encoding/json"
	"fmt"

	"walcache/proxy/coherence"
)

// past is what is known when a session begins: by the records of those before
// it, and by what their last leader left.
type past struct {
	coherence.Past
	left state
}

// state is what a leader leaves to the next, in this process or another, beside
// what the records say. It holds for one epoch: left by another, or by a process
// that writes it differently, it is as good as none.
type state struct {
	Version int
	Epoch   string
	Lineage lineage
	XMax    uint64        // no transaction from here on had begun
	Marked  coherence.LSN // where the leader's session began in the WAL
	Term    coherence.LSN // of its catalogs
	Tables  []*table
}

const stateVersion = 2

// keepState leaves the session's state to whoever leads next. A leader that dies
// before the epoch begins which the state is of leaves one that nobody takes.
func (s *session) keepState() error {
	left := state{Version: stateVersion, Epoch: s.epoch, Lineage: s.lineage, XMax: s.xmax, Marked: s.marked, Term: s.term}
	for _, t := range s.settled.tables {
		left.Tables = append(left.Tables, t)
	}
	data, err := left.encode()
	if err != nil {
		return err
	}
	s.sink.Keep(data)
	return nil
}

// encode compresses: there may be thousands of tables.
func (st state) encode() ([]byte, error) {
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestSpeed)
	if err != nil {
		return nil, err
	}
	if err := json.NewEncoder(w).Encode(st); err != nil {
		return nil, fmt.Errorf("write what the next leader has to know: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// readPast takes the state apart. An error says that it cannot be used.
func readPast(known coherence.Past) (p past, err error) {
	p.Past = known
	if known.Epoch == "" {
		return p, nil
	}
	if err := json.NewDecoder(flate.NewReader(bytes.NewReader(known.State))).Decode(&p.left); err != nil {
		return p, err
	}
	switch {
	case p.left.Version != stateVersion:
		return p, fmt.Errorf("it is of version %d, and this process knows %d", p.left.Version, stateVersion)
	case p.left.Epoch != known.Epoch:
		return p, fmt.Errorf("it is of epoch %q, and the records are of %q", p.left.Epoch, known.Epoch)
	}
	return p, nil
}

// settled is the catalog as it was last announced.
func (st state) settled() *catalog {
	c := &catalog{tables: map[uint32]*table{}}
	for _, t := range st.Tables {
		c.tables[t.oid] = t
	}
	return c
}

// tuple is what the next leader has to know of a table.
func (t *table) tuple() []any {
	return []any{&t.oid, &t.name, &t.kind, &t.logged, &t.ignored, &t.listed, &t.parents, &t.form}
}

// MarshalJSON writes a table as a list: thousands of them repeat no names.
func (t *table) MarshalJSON() ([]byte, error) { return json.Marshal(t.tuple()) }

// UnmarshalJSON reads what MarshalJSON writes.
func (t *table) UnmarshalJSON(data []byte) error {
	fields := t.tuple()
	want := len(fields)
	if err := json.Unmarshal(data, &fields); err != nil {
		return err
	}
	if len(fields) != want {
		return fmt.Errorf("a table of %d fields", len(fields))
	}
	return nil
}
