package cache

import "context"

// Store is where pages live. Its methods may be called concurrently.
type Store interface {
	// Get returns the page under a key and the layer that it came from, or nil.
	// A page past its Expires need not be returned.
	Get(ctx context.Context, key Key) (*Page, Layer)
	// Set puts a page in the place of the one before.
	Set(key Key, page *Page)
}

// Layer is a part of a store, by how far away it is.
type Layer uint8

// Memory is that of this process.
const Memory Layer = 0

const layers = 1

func (l Layer) String() string { return [layers]string{"memory"}[l] }
