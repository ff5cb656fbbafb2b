// Package cache answers HTTP requests from what it has stored, as long as that
// is provably what the origin would answer, and asks the origin once for all
// who wait otherwise.
//
//	request ──► key ──► look ──► fresh ──────────────────────────► hit
//	(request.go) (key.go) (reuse.go) │                              ▲
//	                                 └─► look below ──► fresh ──────┘
//	                                     (below.go) └─► miss ──► flight ──► fetch ──► entry
//	                                                   (miss.go) (flight.go) (fill.go) (entry.go)
//
// A stored answer (Entry) is used if time says so (RFC 9111) and the database
// does: it was made as of a position in the change stream, and nothing that it
// depends on has changed since. Truth is who knows; it is asked before every
// hit. Expired and changed are two things, with windows of their own
// (reuse.go). What is neither fresh nor forgotten is good for a question: the
// upstream may confirm it without sending it again (validate.go).
//
// There are two layers: memory, and below it, if there is one, what several
// processes share. What is found below comes into memory, and what is fetched is
// stored in both. An entry is judged alike wherever it comes from, and it is the
// same there (codec.go). Text is kept compressed too, beside the entry that it is
// of (compress.go).
//
// What it promises:
//
//   - An entry is as of a position that was read before its data was. See fetch
//     in fill.go, and TestFill_RacingWithAChangeIsBornStale.
//   - An answer to one user never reaches another. Where the origin says nothing
//     about caching, only requests without credentials store and are answered
//     (rules.Policy, Entry.permits), and only what a shared cache may store is
//     handed to those who wait. See TestPrivate_NobodySeesAnothersBody.
//   - Of requests for one thing at most two are at the upstream at a time, and of
//     all only so many as are configured (flight.go, limiter.go). Who waits for
//     another's gets the body as it arrives (waiter.go).
//   - Of the processes that share a layer below one fetches, unless one of them
//     stands still or the layer is slow (lease.go).
//   - A body is stored whole or not at all, and a slow client holds up nobody
//     (stream.go).
//   - What it does not store passes, streaming (pass.go).
//   - What the answer to a write names is stale here before that answer goes out,
//     and soon in every process (invalidate.go).
//
// There are two ways in: ServeHTTP, and before net/http, for what is fresh in
// memory, Answer (fast.go). One and the same functions decide (find, answerHit).
//
// The decisions are functions of facts: what may be stored is in package
// rules, what may be done with it in tolerance.stand. A hit in memory takes no lock, but
// for one of 64 whose URL has been forgotten, and allocates nothing; its answer is
// complete before anything is written.
package cache
