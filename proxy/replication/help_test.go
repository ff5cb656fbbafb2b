package replication

import (
	"crypto/rand"
	"strings"
	"testing"
	"time"

	"walcache/proxy/coherence"
)

func randomName() string { return strings.ToLower(rand.Text()[:8]) }

// eventually polls for a fact.
func eventually(t *testing.T, what string, fact func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !fact(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for: %s", what)
		}
	}
}

// settled waits until tags of the tables narrow, and something can be stored.
func settled(t *testing.T, l *Listener, tracker *coherence.Tracker, tables ...string) {
	t.Helper()
	eventually(t, "a catalog with the tables, and a stamp", func() bool {
		c := tracker.Catalog()
		if c == nil || tracker.Stamp() == (coherence.Position{}) {
			return false
		}
		for _, name := range tables {
			if _, ok := c.Tables[name]; !ok {
				return false
			}
		}
		return l.Status().State == "streaming"
	})
}
