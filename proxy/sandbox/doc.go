// Package sandbox runs private PostgreSQL and Redis servers on this machine,
// for the demo and for tests. Nothing outside is used or touched: DATABASE_URL,
// REDIS_URL and .env mean nothing here.
//
//	StartPostgres   the machine's own programs, else fetched ones
//	StartRedis      redis-server or valkey-server
//	StartMiniredis  a Redis in this process, for machines without one
//	TempDir         where they may live
//
// and, of several redis-servers each,
//
//	StartRedisCluster   Redis Cluster
//	StartRedisSentinel  a primary, replicas, and Sentinels that replace it
//
// What holds for each of them:
//
//   - It listens on 127.0.0.1 alone and wants a random password, which is in
//     files of mode 0600 and never on a command line.
//   - Everything it writes is in its directory, the log included. One directory
//     has at most one server.
//   - Root starts it as user postgres, else nobody.
//   - Stop, Kill and Crash return when every process of it is gone. If the
//     program that started it dies, even by SIGKILL, it ends too (Linux only).
//     A Ctrl-C at the terminal does not reach it.
package sandbox
