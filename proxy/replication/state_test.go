package replication

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"walcache/proxy/coherence"
	"walcache/proxy/sandbox/sandboxtest"
)

// What is left to the next leader tells the same of every table as the catalog
// that it is of.
func TestState_LosesNothingThatIsCompared(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t)
	db := open(t, dsn, properties, events, "CREATE TABLE keyless (n int); CREATE UNLOGGED TABLE forgetful (n int); CREATE SCHEMA s; CREATE TABLE s.\"a b\" (n int PRIMARY KEY)")
	sink := remember(coherence.NewTracker(1<<10, bound))
	l, stop := launch(t, Config{DatabaseURL: dsn, IgnoreTables: []string{"keyless"}}, sink)
	settled(t, l, sink.Tracker, "properties", "events", "s.a%20b")
	stop()
	past, err := sink.Lead(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p, err := readPast(past)
	if err != nil {
		t.Fatal(err)
	}
	now, err := loadCatalog(t.Context(), db, "walcache_updates", []string{"keyless"})
	if err != nil {
		t.Fatal(err)
	}
	if changed := now.changedSince(p.left.settled()); len(changed) > 0 {
		t.Errorf("changed since: %v", changed)
	}
	if young := now.youngSince(p.left.settled()); len(young) > 0 {
		t.Errorf("young since: %v", young)
	}
	for oid, was := range p.left.settled().tables {
		is := now.tables[oid]
		if !reflect.DeepEqual(dereference(was.tuple()), dereference(is.tuple())) {
			t.Errorf("%s: %v is left of %v", is.name, dereference(was.tuple()), dereference(is.tuple()))
		}
	}
	exec(t, db, "ALTER TABLE s.\"a b\" ADD COLUMN m int", "ALTER TABLE events DETACH PARTITION events_eu")
	now, err = loadCatalog(t.Context(), db, "walcache_updates", nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"events", "events_eu", "keyless", "s.a%20b"} // keyless is ignored no longer
	if changed := now.changedSince(p.left.settled()); !reflect.DeepEqual(changed, want) {
		t.Errorf("changed since: %v, want %v", changed, want)
	}
}

func dereference(pointers []any) (values []any) {
	for _, p := range pointers {
		values = append(values, reflect.ValueOf(p).Elem().Interface())
	}
	return values
}

func TestState_IsSmall(t *testing.T) {
	st := state{Version: stateVersion, Epoch: "e", Lineage: lineage{System: "7", Timeline: 1}, XMax: 12345}
	for i := range uint32(2000) {
		st.Tables = append(st.Tables, &table{
			oid: 16384 + 7*i, name: fmt.Sprintf("schema%d.table_%d", i%7, i), kind: "r", logged: true, listed: 30000 + 3*i,
			form: uint64(i) * 0x9E3779B97F4A7C15, columns: make([]tableColumn, 30),
		})
	}
	began := time.Now()
	data, err := st.encode()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes in %v", len(data), time.Since(began))
	if len(data) > 100_000 {
		t.Errorf("%d bytes for 2,000 tables", len(data))
	}
	p, err := readPast(coherence.Past{Epoch: "e", State: data})
	if err != nil || len(p.left.Tables) != 2000 || p.left.XMax != 12345 || p.left.Lineage != st.Lineage {
		t.Errorf("read back: %d tables, %+v: %v", len(p.left.Tables), p.left.Lineage, err)
	}
}

func FuzzState(f *testing.F) {
	whole, err := state{Version: stateVersion, Epoch: "e", Tables: []*table{{oid: 1, name: "t"}}}.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := readPast(coherence.Past{Epoch: "e", State: data})
		if err == nil {
			p.left.settled() // whatever was read can be used
		}
	})
}
