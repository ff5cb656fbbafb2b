// Package store keeps what the cache has stored: Memory for one process, and
// below it Redis for all.
package store

import (
	"errors"
	"fmt"
	"iter"
	"math"
	"time"

	"github.com/maypok86/otter/v2"

	"walcache/proxy/cache"
)

// Memory holds pages in this process, up to a number of bytes in which bodies,
// header fields, keys and the index all count. When it is full it lets go of
// what is least likely to be asked for again (W-TinyLFU). Reading takes no
// lock.
type Memory struct {
	pages *otter.Cache[cache.Key, *cache.Page]
}

// pageOverhead is what otter's node, its place in the hash table and in the
// queues take up, in bytes.
const pageOverhead = 256

// NewMemory makes a store of a size in bytes.
func NewMemory(bytes uint64) (*Memory, error) {
	if bytes == 0 {
		return nil, errors.New("store: a memory of no bytes") // to otter, without bound
	}
	pages, err := otter.New(&otter.Options[cache.Key, *cache.Page]{
		MaximumWeight: bytes,
		Weigher: func(k cache.Key, p *cache.Page) uint32 {
			return uint32(min(pageOverhead+k.Size()+p.Size(), math.MaxUint32))
		},
		ExpiryCalculator: otter.ExpiryWritingFunc(func(e otter.Entry[cache.Key, *cache.Page]) time.Duration {
			return max(time.Until(e.Value.Expires()), 1) // otter takes less for no expiry
		}),
	})
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	return &Memory{pages: pages}, nil
}

// Get returns the page under a key, or nil.
func (m *Memory) Get(key cache.Key) *cache.Page {
	page, _ := m.pages.GetIfPresent(key)
	return page
}

// Set puts a page under a key, in the place of the one before.
func (m *Memory) Set(key cache.Key, page *cache.Page) { m.pages.Set(key, page) }

// All is what is stored, in no order, while it may change.
func (m *Memory) All() iter.Seq2[cache.Key, *cache.Page] { return m.pages.All() }

// Delete removes what is under a key.
func (m *Memory) Delete(key cache.Key) { m.pages.Invalidate(key) }

// Pages is about how many keys are stored.
func (m *Memory) Pages() int { return m.pages.EstimatedSize() }

// Bytes is about how much of the store's size is used.
func (m *Memory) Bytes() uint64 { return m.pages.WeightedSize() }

// Close stops the goroutine that removes expired pages.
func (m *Memory) Close() { m.pages.StopAllGoroutines() }
