// Package replication follows PostgreSQL's change stream and says, in records,
// what changed and up to where that is known. It ends at its Sink: it knows no
// cache and no HTTP.
//
//	connecting ──► catching up ──► streaming     beats vouch for freshness while streaming;
//	    ▲               │              │         in every other state they stop, and whoever
//	    └────── lost ◄──┴──────────────┘         relies on them goes to the database
//
// A session is one run of that picture over three connections to one server:
// the stream (stream.go) brings messages, decode.go and relation.go turn them
// into tags and floors; the observer (visibility.go) asks what snapshots see;
// the third reads the system catalogs (catalog.go) and does what needs SQL.
//
// Its promises, each with the file that keeps it:
//
//   - Known moves as soon as a commit is decoded, visible only once every
//     transaction up to it is seen by new snapshots (visibility.go).
//   - Fresh as of a moment means that every commit acknowledged before it has
//     been applied; that is measured by beats and never assumed (beat.go).
//   - Nothing is confirmed to PostgreSQL before it is visible and ten seconds
//     old: replays cost nothing (session.go).
//   - Where something may have been missed, a new epoch begins, and all that
//     was stored before is stale (lineage.go).
//   - The database is never endangered: no write of the application can fail
//     or wait because of us (publication.go, preflight.go), and the WAL kept
//     for the slot is bounded (watch.go).
package replication
