package coherence

// Hash names a tag or a floor in records and in the tracker, where a name
// would be too long. Two names with one hash make an answer stale too early
// and never too late.
type Hash uint64

// Everything is the floor of the whole database, above every table's.
const Everything = "*"

// Hash is the tag's name in records.
func (t Tag) Hash() Hash { return start.text(string(t)).sum() }

// TableFloor is raised when the rows of a table changed and nobody can say
// which: TRUNCATE, a very large transaction, DDL. TableFloor(Everything) is
// raised when not even the table is known.
func TableFloor(table string) Hash { return start.text("!" + table).sum() }

// ColumnFloor is raised when a row lost a value in a column and the old value
// is not known.
func ColumnFloor(table, column string) Hash {
	return start.text("!" + table + "/" + escape(column, "")).sum()
}

// PageHash is what the answers of one URL depend on beside their data, so that
// a single page can be purged.
func PageHash(url string) Hash { return start.text("@" + url).sum() }

// RowHasher hashes the tags of one column without writing them out: RowHasher
// of (table, column) applied to a value is RowTag(table, column, value).Hash().
type RowHasher struct{ prefix digest }

// NewRowHasher prepares for the values of a column.
func NewRowHasher(table, column string) RowHasher {
	return RowHasher{start.text(table + "/" + escape(column, "") + "=")}
}

// Hash is the tag of a value, given as PostgreSQL prints it.
func (r RowHasher) Hash(value []byte) Hash {
	d := r.prefix
	if len(value) > maxValue {
		return d.text(spell(string(value))).sum()
	}
	const digits = "0123456789ABCDEF"
	for _, c := range value {
		if plain(c, ".") {
			d = d.byte(c)
		} else {
			d = d.byte('%').byte(digits[c>>4]).byte(digits[c&15])
		}
	}
	return d.sum()
}

// digest is FNV-1a, whose state can be kept after a prefix, with the finalizer
// of MurmurHash3, because the tracker uses the low bits.
type digest uint64

const start digest = 14695981039346656037

func (d digest) byte(c byte) digest { return (d ^ digest(c)) * 1099511628211 }

func (d digest) text(s string) digest {
	for i := range len(s) {
		d = d.byte(s[i])
	}
	return d
}

func (d digest) sum() Hash {
	d ^= d >> 33
	d *= 0xff51afd7ed558ccd
	d ^= d >> 33
	d *= 0xc4ceb9fe1a85ec53
	return Hash(d ^ d>>33)
}
