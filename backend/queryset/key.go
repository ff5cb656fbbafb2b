package queryset

import (
	"crypto/sha256"
	"encoding/hex"
	"net/url"
	"slices"
	"strings"
)

// maxKey is the length, in bytes, from which on a key is hashed.
const maxKey = 200

// key names what a query returned: its kind, and the conditions that were set.
//
//	properties:location=Nairobi,search=loft,take=20
//
// Every statement has keys of its own. Values are encoded, so that no two
// questions have one key; a long key keeps its kind and is a hash beyond that,
// marked with a "#" that no other key contains.
func key(kind string, conditions ...string) string {
	conditions = slices.DeleteFunc(conditions, func(c string) bool { return c == "" })
	k := kind + ":" + strings.Join(conditions, ",")
	if len(k) <= maxKey {
		return k
	}
	sum := sha256.Sum256([]byte(k))
	return kind + ":#" + hex.EncodeToString(sum[:16])
}

// is is a condition.
func is(name, value string) string {
	return name + "=" + strings.ReplaceAll(url.QueryEscape(value), "+", "%20")
}

// ifSet is a condition, or "" if there is no value.
func ifSet(name, value string) string {
	if value == "" {
		return ""
	}
	return is(name, value)
}
