package replication

import (
	"slices"
	"testing"

	"github.com/jackc/pglogrepl"

	"walcache/proxy/coherence"
)

func tupleOf(values ...string) (t tuple) {
	for _, v := range values {
		c := column{kind: 't', data: []byte(v)}
		switch v {
		case "NULL":
			c = column{kind: 'n'}
		case "TOAST":
			c = column{kind: 'u'}
		}
		t = append(t, c)
	}
	return t
}

// A column is known where both its old and its new value are; where one is
// not, its floor is raised.
func TestBeforeAndAfter_FindsWhatTheServerSent(t *testing.T) {
	insert := func(after string) (values [2][]byte, known bool) {
		return beforeAndAfter(0, true, nil, false, tupleOf(after))
	}
	update := func(identity bool, before, after string) (values [2][]byte, known bool) {
		if before == "" {
			return beforeAndAfter(0, identity, nil, true, tupleOf(after))
		}
		return beforeAndAfter(0, identity, tupleOf(before), true, tupleOf(after))
	}
	for _, c := range []struct {
		what   string
		values [2][]byte
		known  bool
		want   []string // nil: not known
	}{
		result("insert", []string{"", "b"})(insert("b")),
		result("insert of NULL", []string{"", ""})(insert("NULL")),
		result("update of an identity", []string{"a", "b"})(update(true, "a", "b")),
		result("update that left the identity", []string{"", "b"})(update(true, "", "b")),
		result("update from NULL", []string{"", "b"})(update(true, "NULL", "b")),
		result("update to NULL", []string{"a", ""})(update(true, "a", "NULL")),
		result("unchanged TOAST beside its old value", []string{"a", ""})(update(true, "a", "TOAST")),
		result("unchanged TOAST alone", nil)(update(true, "", "TOAST")),
		result("TOAST as the old value", nil)(update(true, "TOAST", "b")),
		result("outside the identity, with an old row", nil)(update(false, "NULL", "b")),
		result("outside the identity, without one", nil)(update(false, "", "b")),
		result("delete", []string{"a", ""})(beforeAndAfter(0, true, tupleOf("a"), true, nil)),
		result("delete, outside the identity", nil)(beforeAndAfter(0, false, tupleOf("NULL"), true, nil)),
		result("delete without an old row", nil)(beforeAndAfter(0, true, nil, true, nil)),
	} {
		got := []string{string(c.values[0]), string(c.values[1])}
		if c.known != (c.want != nil) || c.known && !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, known %t; want %q", c.what, got, c.known, c.want)
		}
	}
}

type found = struct {
	what   string
	values [2][]byte
	known  bool
	want   []string
}

func result(what string, want []string) func(values [2][]byte, known bool) found {
	return func(values [2][]byte, known bool) found { return found{what, values, known, want} }
}

func TestRelation_RowsShowInEveryAncestor(t *testing.T) {
	c := &catalog{tables: map[uint32]*table{
		1: {oid: 1, name: "leaf", kind: "r", logged: true, listed: 1, parents: []uint32{2, 3}, columns: []tableColumn{{"id", 20, coherence.Integer, true}}},
		2: {oid: 2, name: "middle", kind: "p", parents: []uint32{4}},
		3: {oid: 3, name: "aside", kind: "r"},
		4: {oid: 4, name: "root", kind: "p", parents: []uint32{2}}, // a cycle must not hang us
	}}
	rel := c.relation(&pglogrepl.RelationMessage{RelationID: 1, Namespace: "public", RelationName: "leaf",
		Columns: []*pglogrepl.RelationMessageColumn{{Flags: 1, Name: "id", DataType: 20}}})
	tx := newTransaction(1)
	rel.row(tx, nil, false, tupleOf("7"))
	for _, name := range []string{"leaf", "middle", "aside", "root"} {
		for _, tag := range []coherence.Tag{coherence.TableTag(name), coherence.RowTag(name, "id", "7")} {
			if _, moved := tx.changes[tag.Hash()]; !moved {
				t.Errorf("%s is not moved", tag)
			}
		}
	}
}

func TestRelation_ColumnsOfAnotherTimeHaveNoTags(t *testing.T) {
	c := &catalog{tables: map[uint32]*table{1: {
		oid: 1, name: "t", kind: "r", logged: true, listed: 1,
		columns: []tableColumn{{"id", 20, coherence.Integer, true}},
	}}}
	for what, m := range map[string]*pglogrepl.RelationMessage{
		"another name":   {RelationID: 1, Namespace: "public", RelationName: "u", Columns: []*pglogrepl.RelationMessageColumn{{Flags: 1, Name: "id", DataType: 20}}},
		"another schema": {RelationID: 1, Namespace: "s", RelationName: "t", Columns: []*pglogrepl.RelationMessageColumn{{Flags: 1, Name: "id", DataType: 20}}},
		"another type":   {RelationID: 1, Namespace: "public", RelationName: "t", Columns: []*pglogrepl.RelationMessageColumn{{Flags: 1, Name: "id", DataType: 25}}},
		"another table":  {RelationID: 2, Namespace: "public", RelationName: "t", Columns: []*pglogrepl.RelationMessageColumn{{Flags: 1, Name: "id", DataType: 20}}},
	} {
		rel := c.relation(m)
		tx := newTransaction(1)
		rel.row(tx, nil, false, tupleOf("7"))
		if _, floor := tx.changes[coherence.ColumnFloor(rel.targets[0].name, "id")]; !floor || rel.settled {
			t.Errorf("%s: column floor %t, settled %t", what, floor, rel.settled)
		}
	}
}
