package keep

import (
	"context"
	"sync"
	"time"
)

// sweepEvery is how often what has expired is forgotten.
const sweepEvery = time.Minute

// Memory keeps values in this process, and loses them with it. The zero value is
// empty and ready. Its only error is ErrNone.
type Memory struct {
	mu      sync.Mutex // guards the following
	entries map[string]*entry
	swept   time.Time
}

type entry struct {
	value string
	n     int64
	until time.Time
}

// find returns what is under a key, or nil. The caller holds the lock.
func (k *Memory) find(key string) *entry {
	now := time.Now()
	if now.Sub(k.swept) >= sweepEvery {
		for key, e := range k.entries {
			if !now.Before(e.until) {
				delete(k.entries, key)
			}
		}
		k.swept = now
	}
	if e := k.entries[key]; e != nil && now.Before(e.until) {
		return e
	}
	return nil
}

// put keeps something under a key. The caller holds the lock.
func (k *Memory) put(key string, e *entry) {
	if k.entries == nil {
		k.entries = map[string]*entry{}
	}
	k.entries[key] = e
}

// Get returns a value and lets it live for ttl from now.
func (k *Memory) Get(_ context.Context, key string, ttl time.Duration) (string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	e := k.find(key)
	if e == nil {
		return "", ErrNone
	}
	e.until = time.Now().Add(ttl)
	return e.value, nil
}

// Set keeps a value for ttl.
func (k *Memory) Set(_ context.Context, key, value string, ttl time.Duration) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.put(key, &entry{value: value, until: time.Now().Add(ttl)})
	return nil
}

// Replace is Set where there is a value, else ErrNone.
func (k *Memory) Replace(_ context.Context, key, value string, ttl time.Duration) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.find(key) == nil {
		return ErrNone
	}
	k.put(key, &entry{value: value, until: time.Now().Add(ttl)})
	return nil
}

// Delete forgets a value, if there is one.
func (k *Memory) Delete(_ context.Context, key string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.entries, key)
	return nil
}

// Count adds one to the count of a key, which begins with the first and ends
// within after it. It returns the count and the time left.
func (k *Memory) Count(_ context.Context, key string, within time.Duration) (int64, time.Duration, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	e := k.find(key)
	if e == nil {
		e = &entry{until: time.Now().Add(within)}
		k.put(key, e)
	}
	e.n++
	return e.n, time.Until(e.until), nil
}

// Uncount takes back one that was counted.
func (k *Memory) Uncount(_ context.Context, key string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if e := k.find(key); e != nil {
		e.n--
	}
	return nil
}
