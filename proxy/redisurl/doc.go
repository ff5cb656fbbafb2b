// Package redisurl opens a connection pool to Redis from one URL, whatever way
// Redis is run:
//
//	redis://user:password@host:6379/0                           one server
//	rediss://…                                                  the same over TLS
//	unix://user:password@/run/redis.sock?db=0                   the same on this machine
//	redis+sentinel://user:password@host:26379,host:26379/NAME/0 the primary that Sentinels call NAME
//	redis+cluster://user:password@host:7000,host:7001           Redis Cluster
//
// The last two exist as rediss+sentinel and rediss+cluster too. User and
// password are those of the data servers; the Sentinels' own are parameters,
// sentinel_username and sentinel_password. A name's db is 0 if left out.
//
// What a caller may take for granted, in place of what go-redis does unless
// told otherwise:
//
//   - The deadline of a context bounds a call, whatever the call waits for.
//   - Nothing is sent twice. A cluster's node that says it has not executed a
//     command (MOVED, ASK, TRYAGAIN, CLUSTERDOWN, LOADING, READONLY) is an
//     exception, and so is a pipeline in a cluster, which go-redis sends again
//     when a connection breaks; see Once.
//   - Reads go to the primary.
//   - A connection begins with HELLO and AUTH alone, which every server knows or
//     may refuse.
//   - go-redis prints nothing; what it has to say goes where LogTo sends it.
package redisurl
