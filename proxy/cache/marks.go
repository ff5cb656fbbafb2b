package cache

import (
	"hash/maphash"
	"sync"
	"time"
)

// marks remembers keys whose last answer was for one client only. Requests for
// them do not wait for one another: they would wait in vain, one after the
// other ("hit-for-miss"). It remembers a hash of each, or long keys that a
// client makes up could fill the memory; two keys with one hash fetch in
// parallel more often than they need.
type marks struct {
	seed  maphash.Seed
	mu    sync.Mutex // guards the following
	until map[uint64]time.Time
}

const (
	markFor  = time.Minute
	maxMarks = 1 << 16
)

func newMarks() *marks { return &marks{seed: maphash.MakeSeed(), until: map[uint64]time.Time{}} }

func (m *marks) has(key Key) bool {
	hash := maphash.Comparable(m.seed, key)
	m.mu.Lock()
	defer m.mu.Unlock()
	until, ok := m.until[hash]
	if ok && !time.Now().Before(until) {
		delete(m.until, hash)
		return false
	}
	return ok
}

// set marks a key. Any other makes room for it if need be: to look for one that
// has run out would hold up all misses.
func (m *marks) set(key Key) {
	hash := maphash.Comparable(m.seed, key)
	m.mu.Lock()
	defer m.mu.Unlock()
	for other := range m.until {
		if len(m.until) < maxMarks {
			break
		}
		delete(m.until, other)
	}
	m.until[hash] = time.Now().Add(markFor)
}

func (m *marks) clear(key Key) {
	hash := maphash.Comparable(m.seed, key)
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.until, hash)
}
