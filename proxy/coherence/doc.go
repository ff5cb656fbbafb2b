// Package coherence is the contract between whoever follows the database and
// whoever caches what was read from it: what changed, up to where that is
// known, and whether a stored answer still holds. It knows neither PostgreSQL's
// protocol nor HTTP nor Redis, and imports the standard library alone.
//
// An answer is stored with its dependencies (the tags that it was read under)
// and with the position that it is as of. It is stale when one of them changed
// at a later position. Stale is a comparison and not a deletion, so
// invalidation costs the same for one answer or a million, nobody has to know
// which keys exist, and a fill that raced with a write is born stale instead
// of poisoning the cache.
//
//	change stream ──Record──► Tracker ◄──Stamp, Judge── cache
//
// A Record is the one thing that is said about the database. A Tracker merges
// records by maximum, so that a record may come late, twice or from two
// sources, and answers whether a position and its dependencies still hold. A
// Catalog says which tags may narrow a dependency at all. Kept is what a value
// kept elsewhere begins with, so that others can tell how it stands.
package coherence
