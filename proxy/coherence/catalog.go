package coherence

import "slices"

// Catalog says what the change stream carries, and so which tags may narrow
// what an answer depends on. It is immutable.
type Catalog struct {
	// Tables whose inserts, updates and deletes all reach the stream, by the
	// name that TableName gives.
	Tables map[string]Table

	// Blind names tables whose updates and deletes do not reach the stream. As
	// long as there are any, an answer that may depend on the whole database
	// must not be stored.
	Blind []string

	// Off says that an operator has switched caching off, on every process: all
	// requests pass through.
	Off bool

	// Term is where the database was when the follower that read this catalog
	// took over. Of the catalogs of two followers the one with the later term
	// counts, whichever comes last: one that stood still may go on with an old one.
	Term LSN
}

// Table lists the columns of a table and how their values are written.
type Table struct {
	Columns map[string]Kind
}

// Kind is how the values of a column are written, as far as tags care.
type Kind uint8

const (
	// Opaque values are equal in SQL without being equal as text (numeric,
	// citext, float…), so a value names no rows and the tag counts for its table.
	Opaque Kind = iota
	Integer
	UUID
	Boolean
	Date
	Text // with a deterministic collation
)

// Dependencies are the tags and floors that an answer is stale by.
type Dependencies []Hash

// WholeDatabase depends on any change anywhere.
func WholeDatabase() Dependencies {
	return Dependencies{TableFloor(Everything), Any.Hash()}
}

// dependency is a tag or a floor before it is hashed.
type dependency struct {
	tag    Tag // or, if it is "", a floor
	table  string
	column string // "" for the floor of the table
}

func (d dependency) hash() Hash {
	switch {
	case d.tag != "":
		return d.tag.Hash()
	case d.column != "":
		return ColumnFloor(d.table, d.column)
	}
	return TableFloor(d.table)
}

func (d dependency) String() string {
	switch {
	case d.tag != "":
		return string(d.tag)
	case d.column != "":
		return "floor " + d.table + "/" + d.column
	}
	return "floor " + d.table
}

var wholeDatabase = []dependency{{table: Everything}, {tag: Any}}

// Narrow turns the tags of an answer into what it depends on. A tag narrows
// only where it names a table of the catalog; a row tag whose column does not
// exist, or whose value is not in the column's canonical form, would never be
// moved by a change, so it counts for its table. whole reports that the answer
// depends on the whole database: it has no tags, or one that the catalog does
// not know.
func (c *Catalog) Narrow(tags []Tag) (deps Dependencies, whole bool) {
	named, whole := c.narrow(tags)
	if whole {
		return WholeDatabase(), true
	}
	deps = make(Dependencies, len(named))
	for i, d := range named {
		deps[i] = d.hash()
	}
	slices.Sort(deps)
	return slices.Compact(deps), false
}

// narrow is Narrow in names.
func (c *Catalog) narrow(tags []Tag) (deps []dependency, whole bool) {
	if len(tags) > MaxTags {
		tags = tablesOf(tags)
	}
	if c == nil || len(tags) == 0 || len(tags) > MaxTags {
		return wholeDatabase, true
	}
	deps = []dependency{{table: Everything}}
	for _, t := range tags {
		name, column, value, err := t.parts()
		table, published := c.Tables[name]
		if err != nil || !published {
			return wholeDatabase, true
		}
		deps = append(deps, dependency{table: name})
		if kind := table.Columns[column]; column != "" && kind.canonical(value) {
			deps = append(deps, dependency{table: name, column: column}, dependency{tag: t})
		} else {
			deps = append(deps, dependency{tag: TableTag(name)})
		}
	}
	return deps, false
}

func tablesOf(tags []Tag) []Tag {
	var tables []Tag
	for _, t := range tags {
		tables = append(tables, t.Table())
	}
	slices.Sort(tables)
	return slices.Compact(tables)
}

// canonical reports whether a spelled value is as PostgreSQL prints values of
// this kind.
func (k Kind) canonical(spelled string) bool {
	switch k {
	case Integer:
		return isInteger(spelled)
	case Boolean:
		return spelled == "t" || spelled == "f"
	case UUID:
		return hasShape(spelled, "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx")
	case Date:
		return hasShape(spelled, "dddd-dd-dd")
	case Text:
		if len(spelled) > 0 && spelled[0] == '#' {
			return hasShape(spelled[1:], "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx")
		}
		raw, err := unescape(spelled, ".")
		return err == nil && spell(raw) == spelled
	}
	return false
}

func isInteger(s string) bool {
	if len(s) > 1 && s[0] == '-' && s[1] != '0' {
		s = s[1:]
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s == "0" || s != "" && s[0] != '0' && len(s) <= 19
}

// hasShape compares with a shape of x (a hexadecimal digit in lower case), d (a
// decimal digit) and characters that stand for themselves.
func hasShape(s, shape string) bool {
	if len(s) != len(shape) {
		return false
	}
	for i := range len(s) {
		digit := '0' <= s[i] && s[i] <= '9'
		switch shape[i] {
		case 'x':
			if !digit && (s[i] < 'a' || s[i] > 'f') {
				return false
			}
		case 'd':
			if !digit {
				return false
			}
		default:
			if s[i] != shape[i] {
				return false
			}
		}
	}
	return true
}
