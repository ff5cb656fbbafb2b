// Package changelog carries what is said about the database from the process
// that listens to it to all that cache what was read from it: through a Redis
// Stream of records and beats, the log, and a checkpoint of what the log says
// in all.
//
//	listener ──► Log ──► tracker of this process
//	              │
//	              ├─ writer ──► wc:log, wc:checkpoint     in whichever process leads
//	              └─ reader ◄── wc:log, wc:checkpoint     in every process
//
// Nothing is fenced. A record is a fact that stays true, so it may come late,
// twice, or from a leader that has been replaced; trackers merge records by
// maximum. What keeps the log honest, and where:
//
//   - Each record begins where the one before ended. A reader that misses one,
//     because the log was trimmed, lost its end in a failover or is gone, finds
//     that the next begins after what it knows: a gap. It takes nothing from
//     beyond it, and calls nothing fresh until a checkpoint has closed it
//     (reader.go).
//   - Silence is not freshness. A reader counts beats, and compares no clock
//     with another's (reader.go).
//   - A record is appended only once Redis has acknowledged the one before, and
//     after any error a checkpoint comes first (writer.go).
//   - The checkpoint is replaced only by one of its epoch or of an epoch that
//     begins upon it, and never by that of an earlier leader (redis.go).
//   - Of two catalogs that of the later leader counts, whichever comes last
//     (news.go).
//
// That the cluster goes on after anything: whoever leads looks every second
// whether the checkpoint is still its own and the log still has what comes
// after it, and writes another if not; if that is refused, it leads no more, and
// begins again with what is there. Whoever follows and finds nothing fresh looks
// twice a second whether there is another checkpoint, and takes it.
//
// Every key is read and written alone, so that Redis Cluster and Sentinel need
// nothing else.
package changelog
