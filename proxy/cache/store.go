package cache

import (
	"context"
	"iter"
)

// Store is where pages live in this process. Its methods may be called
// concurrently.
type Store interface {
	// Get returns the page under a key, or nil. A page past its Expires need not
	// be returned.
	Get(key Key) *Page
	// Set puts a page in the place of the one before.
	Set(key Key, page *Page)
	// All is what is stored, in no order, while it may change.
	All() iter.Seq2[Key, *Page]
	// Delete removes what is under a key.
	Delete(key Key)
}

// Below is where pages live beyond this process, for all that share it. Its
// methods may be called concurrently.
type Below interface {
	// Get returns the page under a key, as DecodePage made it for this call
	// alone, or nil. It takes no longer than a request may wait for it.
	Get(ctx context.Context, key Key) *Page
	// Set puts a page in the place of the one before, later or never. It does not
	// wait.
	Set(key Key, page *Page)
}

// Layer is a part of what is stored, by how far away it is.
type Layer uint8

const (
	Memory Layer = iota // that of this process
	Redis
	layers = iota
)

func (l Layer) String() string { return [layers]string{"memory", "redis"}[l] }
