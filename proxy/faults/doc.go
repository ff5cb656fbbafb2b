// Package faults breaks the whole system, again and again, and holds every
// answer that its clients get meanwhile against the history of the database. It
// has tests only:
//
//	go test ./proxy/faults                    a few faults, one run of each
//	go test ./proxy/faults -faults.runs=20    all of them, 20 runs of each
//
// With -v it prints the schedule of every run, and at the end a table, which
// -faults.report writes to a file as well. -faults.parallel plays several kinds
// at a time, on a machine with two cores or more for each.
//
// What runs is what runs in production: a PostgreSQL and a Redis server, two
// backends and three proxies, each a process of its own, with a sandbox.Relay
// wherever a network may break. With -race, those are built with it. A run is
//
//	load ──► warm ──► a fault, at a random moment ──► healed ──► warm ──► quiet ──► compare
//	          └ before ┘└───── until hits are back ──────┘        └ after ┘
//
// Writers change rows straight in PostgreSQL and note what was acknowledged, and
// when (model.go: the files named here end in _test.go). Readers ask every proxy
// for rows and lists, at a pace that no slow answer holds up (readers.go). What
// breaks, how, for how long, whom, and how fast writers write, follow from one
// number, the seed, which a failure prints with the schedule, and with which
//
//	go test ./proxy/faults -faults.kind '^leader-killed$' -faults.seed 42
//
// runs that schedule again. Threads and networks are not in it, so a failure may
// take a few tries.
//
// # What is asserted
//
// An answer contains every commit that was acknowledged more than the bound (2 s)
// before its request was sent, and nothing that was never committed; when writers
// have stopped, every page by way of every proxy comes to be what the database
// has; hits come back. How long anything takes is written down, and never
// asserted.
//
// A machine that stands still for a while makes no false failure. The promise
// counts from the acknowledgement that PostgreSQL sends to the arrival of the
// request at the proxy. We note the acknowledgement when we have seen it, so
// later than it was sent, and the request before we send it, so earlier than it
// arrives: what we measure is never longer than what the promise is about. Both
// are readings of one monotonic clock in one process. For what an answer may
// contain, it is the other way around: a commit counts as possible from before
// it is sent, and the answer is taken to have come when it has been read to its
// end.
//
// A commit whose acknowledgement was lost with the connection may have happened
// or not: answers may have it and need not. If it did happen, it came before the
// row's next one: PostgreSQL keeps a row locked until its transaction has ended,
// wherever the client is.
//
// A crash with synchronous_commit = off undoes commits that were acknowledged.
// Which ones is read from the database after it has recovered. From then on no
// answer has to have them, and a bound later none may.
//
// # What is not here
//
// A wall clock that jumps: the processes read it without a system call, where
// nothing can stand in between, and the machine's own is not ours to set. The
// unit tests of the tracker and of the change log cover it.
package faults
