package cache

import (
	"sync"
	"time"
)

// marks remembers keys whose last answer was for one client only. Requests for
// them do not wait for one another: they would wait in vain, one after the
// other ("hit-for-miss").
type marks struct {
	mu    sync.Mutex // guards the following
	until map[Key]time.Time
}

const (
	markFor  = time.Minute
	maxMarks = 1 << 16
)

func newMarks() *marks { return &marks{until: map[Key]time.Time{}} }

func (m *marks) has(key Key) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	until, ok := m.until[key]
	if ok && !time.Now().Before(until) {
		delete(m.until, key)
		return false
	}
	return ok
}

// set marks a key. When there is no room for it, marks that have run out go,
// or if there are none, any one.
func (m *marks) set(key Key) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if len(m.until) >= maxMarks {
		for k, until := range m.until {
			if !now.Before(until) {
				delete(m.until, k)
			}
		}
		for k := range m.until {
			if len(m.until) < maxMarks {
				break
			}
			delete(m.until, k)
		}
	}
	m.until[key] = now.Add(markFor)
}

func (m *marks) clear(key Key) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.until, key)
}
