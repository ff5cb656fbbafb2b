package coherence

import (
	"fmt"
	"strconv"
)

// Hash names a tag, a floor, a page or a group in records and in the tracker,
// where a name would be too long. Two names with one hash make an answer stale
// too early and never too late.
//
// Invariant: what a client can have named moves no tag and no floor. The hash is
// no secret: whoever may send a POST could find a URL whose hash falls to the slot
// of "*", and each request to it would make everything stale. So the hashes of
// pages and groups have a bit that no other has, and slots of their own. Kept by
// sum, named and epoch.slot; see TestTracker_WhatClientsNameMovesNoTag.
type Hash uint64

// byName is the bit of pages and groups.
const byName Hash = 1 << 63

// IsNamed reports whether it is the hash of a page or a group.
func (h Hash) IsNamed() bool { return h&byName != 0 }

// Text writes a hash as ParseNamed reads it.
func (h Hash) Text() string { return fmt.Sprintf("%016x", uint64(h)) }

// ParseNamed reads the hash of a page or a group, and of nothing else.
func ParseNamed(s string) (Hash, error) {
	n, err := strconv.ParseUint(s, 16, 64)
	if h := Hash(n); err == nil && h.IsNamed() && h.Text() == s {
		return h, nil
	}
	return 0, fmt.Errorf("%.20q is not the hash of a page or a group", s)
}

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
func PageHash(url string) Hash { return start.text("@" + url).named() }

// GroupHash is what the answers of an origin in a group depend on (RFC 9875,
// section 2.1). An origin is a scheme and a host as PageHash has them. The group
// may have the name of a table; it is another thing.
func GroupHash(origin, group string) Hash { return start.text("&" + origin + " " + group).named() }

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
	return Hash(d^d>>33) &^ byName
}

func (d digest) named() Hash { return d.sum() | byName }
