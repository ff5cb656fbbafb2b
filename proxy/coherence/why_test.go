package coherence

import (
	"fmt"
	"testing"
)

func TestWhy_NamesWhatMovedTheLatestFirst(t *testing.T) {
	tr := NewTracker(1<<12, 0)
	tr.SetCatalog(&Catalog{Tables: map[string]Table{"books": {Columns: map[string]Kind{"id": Integer}}}})
	if moves := tr.Why(Position{"e1", 0}, nil); moves != nil {
		t.Errorf("before the first epoch: %v", moves)
	}
	tr.Begin("e1", 100)
	apply := func(to LSN, hashes ...Hash) {
		t.Helper()
		var changes []Change
		for _, h := range hashes {
			changes = append(changes, Change{h, to})
		}
		if err := tr.Apply(Record{Epoch: "e1", To: to, Changes: changes}); err != nil {
			t.Fatal(err)
		}
	}
	row := Tag("books/id=1")
	apply(200, row.Hash(), Any.Hash())
	apply(300, ColumnFloor("books", "id"))
	apply(400, Tag("books/id=2").Hash(), Any.Hash())
	for _, c := range []struct {
		asOf Position
		tags []Tag
		want string
	}{
		{Position{"e1", 100}, []Tag{row}, "[{floor books/id 0/12C} {books/id=1 0/C8}]"},
		{Position{"e1", 200}, []Tag{row}, "[{floor books/id 0/12C}]"},
		{Position{"e1", 300}, []Tag{row}, "[]"},
		{Position{"e1", 300}, nil, "[{* 0/190}]"},
		{Position{"e1", 300}, []Tag{"unknown"}, "[{* 0/190}]"},
		{Position{"e2", 100}, []Tag{row}, "[]"}, // positions of two epochs are never compared
	} {
		if got := fmt.Sprint(tr.Why(c.asOf, c.tags)); got != c.want {
			t.Errorf("%s %v: %s, want %s", c.asOf, c.tags, got, c.want)
		}
	}
	if at := tr.MovedAt(row.Hash()); at != 200 {
		t.Errorf("the row moved at %s", at)
	}
	if at := tr.EmptiedAt(); at != (Position{}) {
		t.Errorf("everything was made stale at %s", at)
	}
	apply(500, TableFloor(Everything))
	if at := tr.EmptiedAt(); at != (Position{"e1", 500}) {
		t.Errorf("everything was made stale at %s", at)
	}
}

func TestNames_AreForgottenAndNeverMistaken(t *testing.T) {
	var n Names
	n.Remember([]Tag{"books/id=1", "users"})
	for _, tag := range []Tag{"books/id=1", "books", "users"} {
		if got, ok := n.Of(tag.Hash()); !ok || got != tag {
			t.Errorf("%s is %s, %t", tag, got, ok)
		}
	}
	for i := range 10 * nameSlots { // until each slot has had another
		n.Remember([]Tag{RowTag("books", "n", fmt.Sprint(i))})
	}
	if got, ok := n.Of(Tag("books/id=1").Hash()); ok && got != "books/id=1" {
		t.Errorf("it is taken for %s", got)
	}
	if got, ok := n.Of(Tag("never seen").Hash()); ok {
		t.Errorf("what was never seen is %s", got)
	}
}
