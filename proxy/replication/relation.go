package replication

import (
	"slices"

	"github.com/jackc/pglogrepl"

	"walcache/proxy/coherence"
)

// relation is a table as the stream describes it: which tags and floors a
// change of its rows moves.
type relation struct {
	message *pglogrepl.RelationMessage
	catalog *catalog // that it was joined with
	settled bool     // the catalog knows the table as the stream does, and caches what of it is published
	ignored bool
	layout  []pglogrepl.RelationMessageColumn
	targets []target // the table itself first, then those that its rows show in
}

// target is a table under whose name a row is seen: a row of a partition is a
// row of the partitioned table too.
type target struct {
	name       string
	tag, floor coherence.Hash
	columns    []targetColumn // as in the relation's layout
}

type targetColumn struct {
	// named columns have tags for their values. The others have only their
	// floor: their values are not equal as text, or nothing looks rows up by
	// them, so that naming each would fill the tracker for nobody.
	named bool
	floor coherence.Hash
	value coherence.RowHasher
}

func (r *relation) looksLike(other *relation) bool {
	return slices.Equal(r.layout, other.layout) &&
		slices.EqualFunc(r.targets, other.targets, func(a, b target) bool { return a.name == b.name })
}

// fits reports that a tuple, if there is one, has the relation's columns.
func (r *relation) fits(t tuple) bool {
	return t == nil || len(t) == len(r.layout)
}

// row moves what one changed row moves: the table, and for each column either
// the tags of the value that was and the value that is, or the column's floor.
// existed says that there was a row before; before is nil if the server did
// not send it.
func (r *relation) row(t *transaction, before tuple, existed bool, after tuple) {
	t.add(coherence.Any.Hash())
	for _, target := range r.targets {
		t.add(target.tag)
	}
	for i, column := range r.layout {
		values, known := beforeAndAfter(i, column.Flags == 1, before, existed, after)
		for _, target := range r.targets {
			c := &target.columns[i]
			if !known || !c.named {
				t.add(c.floor)
				continue
			}
			for _, v := range values {
				if v != nil {
					t.add(c.value.Hash(v))
				}
			}
		}
	}
}

// beforeAndAfter finds the values that a column had before and has after. known is
// false if the server did not send what is needed:
//
//   - A column outside the replica identity has no old value in the stream.
//   - An update without an old row left the identity's columns as they were, so
//     the new value is the old one.
//   - An unchanged TOASTed value is not sent: it is the old value where that was
//     sent, and otherwise unknown; it is never NULL.
func beforeAndAfter(i int, identity bool, before tuple, existed bool, after tuple) (values [2][]byte, known bool) {
	if existed && !identity {
		return values, false
	}
	if before != nil {
		v, sent := value(before, i)
		if !sent {
			return values, false
		}
		values[0] = v
	}
	if after != nil {
		v, sent := value(after, i)
		if !sent && before == nil {
			return values, false
		}
		values[1] = v
	}
	return values, before != nil || after != nil
}

// value is a column's text, nil for NULL; sent is false for an unchanged
// TOASTed value.
func value(t tuple, i int) (v []byte, sent bool) {
	switch c := t[i]; c.kind {
	case 't':
		return c.data, true
	case 'n':
		return nil, true
	}
	return nil, false
}
