// Package replication follows PostgreSQL's change stream and says, in records,
// what changed and up to where that is known. It ends at its Sink: it knows no
// cache, no HTTP and no Redis.
//
//	connecting ──► catching up ──► streaming     beats vouch for freshness while streaming;
//	  │  ▲   ▲         │              │         in every other state they stop, and whoever
//	  ▼  │   └─ lost ◄─┴──────────────┘         relies on them goes to the database
//	waiting                                     for the slot, which another process holds
//
// Whoever holds the replication slot leads. A session is one run of that picture
// (session.go): it waits for the slot and takes over what is known (takeover.go),
// and then works over three connections to one server. The stream (stream.go)
// brings messages, decode.go and relation.go turn them into tags and floors; the
// observer (visibility.go) asks what snapshots see; the third reads the system
// catalogs (catalog.go, watch.go) and does what needs SQL. What one session has
// to tell the next, in this process or another, it leaves in the sink (state.go).
// A process that does not lead asks the database through a Witness (witness.go).
//
// Its promises, each with the file that keeps it:
//
//   - Known moves as soon as a commit is decoded, visible only once every
//     transaction up to it is seen by new snapshots (visibility.go).
//   - Fresh as of a moment means that every commit acknowledged before it has
//     been applied; that is measured by beats and never assumed (beat.go).
//   - Nothing is confirmed to PostgreSQL before it is visible, logged and ten
//     seconds old: replays cost nothing (confirm.go).
//   - Where something may have been missed, a new epoch begins, and all that
//     was stored before is stale (lineage.go).
//   - A leader that dies, freezes or is cut off has lost the slot within three
//     seconds (stream.go).
//   - The database is never endangered: no write of the application can fail
//     or wait because of us (publication.go, preflight.go), and the WAL kept
//     for the slot is bounded (watch.go).
package replication
