// Package keep holds small values that expire, and counts that do: in Redis, for
// every process that uses it, or in the memory of this one.
//
// Both do the same. Every operation names one key, so that it works on a Redis
// Cluster too, and may be used concurrently.
package keep

import "errors"

var (
	// ErrNone says that there is nothing under a key, or nothing any more.
	ErrNone = errors.New("nothing is kept there")
	// ErrAway says that the server that keeps the values did not answer, or
	// would not.
	ErrAway = errors.New("Redis is away")
)
