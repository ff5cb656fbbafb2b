package coherence

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// Tag names a part of the database: a table (`properties`), the rows of a
// table that have a value in a column (`properties/location=Nairobi`), or
// anything at all (`*`). Tags travel in the Cache-Groups header (RFC 9875), so
// they are ASCII: every byte of a name or a value that is not a letter, a
// digit or one of "-_~" (and "." in a value) is percent-encoded.
type Tag string

// Any is the tag of the whole database: every change moves it.
const Any Tag = "*"

// MaxTags is how many tags an answer may name before it depends on the tables
// instead: a header must stay small, and each tag is one more comparison on
// every hit.
const MaxTags = 32

// maxValue is the longest value, in bytes, that a tag spells out; a longer one
// is named by its hash, marked with a "#" that no encoded value can contain.
const maxValue = 64

var errTag = errors.New(`a tag is "*", "table" or "table/column=value", percent-encoded`)

// TableName is how tags name a table: bare in schema public, as
// "schema.table" in any other.
func TableName(schema, table string) string {
	if schema == "public" {
		return escape(table, "")
	}
	return escape(schema, "") + "." + escape(table, "")
}

// TableTag is the tag of any row of a table. The table is named as TableName
// does.
func TableTag(table string) Tag { return Tag(table) }

// RowTag is the tag of the rows whose column has the value, in the text form
// in which PostgreSQL prints it: 42 and never 042, t for true.
func RowTag(table, column, value string) Tag {
	return Tag(table + "/" + escape(column, "") + "=" + spell(value))
}

// Table is the tag of the whole table that the tag is about; Any stays Any.
func (t Tag) Table() Tag {
	table, _, _ := strings.Cut(string(t), "/")
	return Tag(table)
}

// parts takes a tag apart, its column decoded and its value still spelled.
func (t Tag) parts() (table, column, spelled string, err error) {
	table, rest, isRow := strings.Cut(string(t), "/")
	if !encoded(table) {
		return "", "", "", fmt.Errorf("tag %q: %w", t, errTag)
	}
	if !isRow {
		return table, "", "", nil
	}
	column, spelled, hasValue := strings.Cut(rest, "=")
	if column, err = unescape(column, ""); err != nil || column == "" || !hasValue {
		return "", "", "", fmt.Errorf("tag %q: %w", t, errTag)
	}
	return table, column, spelled, nil
}

// spell writes a value as it stands in a tag.
func spell(value string) string {
	if len(value) <= maxValue {
		return escape(value, ".")
	}
	sum := sha256.Sum256([]byte(value))
	return "#" + hex.EncodeToString(sum[:16])
}

func plain(c byte, also string) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		c == '-' || c == '_' || c == '~' || strings.IndexByte(also, c) >= 0
}

func escape(s, also string) string {
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; plain(c, also) {
			b.WriteByte(c)
		} else {
			b.WriteString(string([]byte{'%', digits[c>>4], digits[c&15]}))
		}
	}
	return b.String()
}

// unescape undoes escape and refuses every other spelling, so that one value
// has one tag.
func unescape(s, also string) (string, error) {
	raw := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '%' && i+2 < len(s) {
			b, err := hex.DecodeString(s[i+1 : i+3])
			if err != nil {
				return "", errTag
			}
			c, i = b[0], i+2
		}
		raw = append(raw, c)
	}
	if escape(string(raw), also) != s {
		return "", errTag
	}
	return string(raw), nil
}

// encoded reports whether s can be the name of a table in a tag.
func encoded(s string) bool {
	for i := range len(s) {
		if !plain(s[i], ".%") {
			return false
		}
	}
	return s != ""
}
