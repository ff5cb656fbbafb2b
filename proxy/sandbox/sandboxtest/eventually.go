package sandboxtest

import (
	"testing"
	"time"
)

const pollInterval = 5 * time.Millisecond

// Eventually polls until fact returns nil, and fails the test with its last
// error if that has not happened within the limit.
func Eventually(t testing.TB, limit time.Duration, fact func() error) {
	t.Helper()
	start := time.Now()
	for {
		err := fact()
		if err == nil {
			return
		}
		if time.Since(start) > limit {
			t.Fatalf("not within %v: %v", limit, err)
		}
		time.Sleep(pollInterval)
	}
}
