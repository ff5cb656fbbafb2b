package cache

import (
	"context"
	"iter"
	"time"
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
	// wait. then, if it is not nil, is called once it is known whether the page is
	// there, by any goroutine, and may not wait either.
	Set(key Key, page *Page, then func(written bool))
	// Delete removes what is under a key, later or never. It does not wait.
	Delete(key Key)
	// Lease has what is under a name say something for a while, unless it says
	// anything but from or nothing by now. It returns what it says then: to, or
	// what another process has it say. It takes no longer than a request may wait
	// for it; ok is false if there was no answer.
	Lease(name, from, to string, d time.Duration) (says string, ok bool)
}

// Layer is a part of what is stored, by how far away it is.
type Layer uint8

const (
	Memory Layer = iota // that of this process
	Redis
	layers = iota
)

func (l Layer) String() string { return [layers]string{"memory", "redis"}[l] }
