package coherence

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

var published = &Catalog{Tables: map[string]Table{
	"t":   {Columns: map[string]Kind{"id": Integer, "uid": UUID, "ok": Boolean, "day": Date, "name": Text, "price": Opaque}},
	"s.u": {Columns: map[string]Kind{"id": Integer}},
}}

// onTable are the dependencies of any row of t.
func onTable(name string) Dependencies {
	return sorted(TableFloor(Everything), TableFloor(name), TableTag(name).Hash())
}

func onRow(table, column, value string) Dependencies {
	return sorted(TableFloor(Everything), TableFloor(table), ColumnFloor(table, column), RowTag(table, column, value).Hash())
}

func sorted(deps ...Hash) Dependencies {
	slices.Sort(deps)
	return slices.Compact(deps)
}

func TestNarrow_RowTagsDependOnRowsAndFloors(t *testing.T) {
	long := strings.Repeat("long ", 20)
	for _, c := range []struct{ table, column, value string }{
		{"t", "id", "0"}, {"t", "id", "42"}, {"t", "id", "-7"}, {"t", "id", "-9223372036854775808"},
		{"t", "uid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"},
		{"t", "ok", "t"}, {"t", "ok", "f"}, {"t", "day", "2026-11-22"},
		{"t", "name", ""}, {"t", "name", "São Paulo, 50%"}, {"t", "name", "#1"}, {"t", "name", long},
		{"s.u", "id", "1"},
	} {
		deps, whole := published.Narrow([]Tag{RowTag(c.table, c.column, c.value)})
		if want := onRow(c.table, c.column, c.value); whole || !slices.Equal(deps, want) {
			t.Errorf("%v: %x, whole %t; want %x", c, deps, whole, want)
		}
	}
}

func TestNarrow_ValuesThatNoChangeMovesCountForTheTable(t *testing.T) {
	for _, tag := range []Tag{
		"t",
		"t/id=042", "t/id=-0", "t/id=-", "t/id=", "t/id=1e3", "t/id=4.0", "t/id=%34", "t/id=12345678901234567890",
		"t/uid=A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "t/uid=a0eebc999c0b4ef8bb6d6bb9bd380a11",
		"t/ok=true", "t/ok=1", "t/day=2026-1-2", "t/day=20260102", "t/day=infinity", "t/day=2026/01/02",
		"t/name=a%2eb", "t/name=%41", "t/name=a b", "t/name=#xyz", Tag("t/name=" + strings.Repeat("x", 65)),
		"t/price=7.00", "t/absent=1", "t/ID=1",
	} {
		deps, whole := published.Narrow([]Tag{tag})
		if whole || !slices.Equal(deps, onTable("t")) {
			t.Errorf("%s: %x, whole %t; want %x", tag, deps, whole, onTable("t"))
		}
	}
}

func TestNarrow_UnknownNamesDependOnTheWholeDatabase(t *testing.T) {
	for _, tags := range [][]Tag{
		nil, {}, {Any}, {"u"}, {"public.t"}, {"T"}, {"t", "u"}, {"t", Any}, {"t/id=1", "u/id=1"},
		{""}, {"t/id"}, {"t/=1"}, {"t /id=1"},
	} {
		deps, whole := published.Narrow(tags)
		if !whole || !slices.Equal(deps, WholeDatabase()) {
			t.Errorf("%q: %x, whole %t", tags, deps, whole)
		}
	}
	if deps, whole := (*Catalog)(nil).Narrow([]Tag{"t"}); !whole || !slices.Equal(deps, WholeDatabase()) {
		t.Errorf("without a catalog: %x, whole %t", deps, whole)
	}
}

func TestNarrow_TooManyTagsCountForTheirTables(t *testing.T) {
	var rows []Tag
	for i := range MaxTags {
		rows = append(rows, RowTag("t", "id", fmt.Sprint(i)))
	}
	if deps, whole := published.Narrow(rows); whole || !slices.Contains(deps, rows[0].Hash()) {
		t.Errorf("%d tags do not narrow to rows", len(rows))
	}
	if deps, whole := published.Narrow(append(rows, "t/id=1000")); whole || !slices.Equal(deps, onTable("t")) {
		t.Errorf("%d tags of one table: %x, whole %t; want %x", len(rows)+1, deps, whole, onTable("t"))
	}
	many := &Catalog{Tables: map[string]Table{}}
	var tables []Tag
	for i := range MaxTags + 1 {
		name := fmt.Sprintf("t%d", i)
		many.Tables[name] = Table{}
		tables = append(tables, TableTag(name))
	}
	if _, whole := many.Narrow(tables); !whole {
		t.Errorf("%d tables still narrow", len(tables))
	}
}
