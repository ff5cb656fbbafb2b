// Package querysets shows and removes what services keep in Redis beside the
// proxy's pages. It is for operators; no request waits for it.
//
//	PREFIXqs:NAME  ──List──►  as of when, by which tags, how old, how large
//	PREFIXqs:*, PREFIXpage:*  ──Clear──►  memory is free again
//
// A service may be written by anybody and keep its values in any form, as long
// as they begin with a coherence.Kept: that alone is read here. What it says are
// facts; whether the value still holds, coherence.Tracker judges by them.
//
// Nothing is made stale by removing it, so Clear frees memory and no more: whoever
// wants everything to be read anew begins an epoch.
//
// All works the same on one server and on a Redis Cluster, where every primary
// is asked.
package querysets

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"walcache/proxy/coherence"
)

// Known are the names that are always in a list, kept or not: people and scripts
// ask for them.
var Known = []string{"all_properties", "property_count"}

// Queryset is what there is under a name. Value and what is said about it are
// read at once, but not in one step: of one that is just being replaced they may
// be of two values.
type Queryset struct {
	Name    string // its key without PREFIXqs:
	Present bool   // if not, all but Name and Key is zero

	// Kept is what it says of itself; the Key alone if Problem is not nil.
	coherence.Kept
	// Problem is coherence.ErrForeign for what is not a value of this kind, and
	// coherence.ErrCorrupt for what begins like one and is damaged there. That
	// the rest of it is sound only its service can say.
	Problem error

	Age    time.Duration // since it was stored: by two clocks, if that was elsewhere
	TTL    time.Duration // until Redis forgets it; below 0: never
	Bytes  int64         // of the value; 0 if it is no string
	Memory int64         // that it takes up in Redis, in bytes; 0 if that does not say
}

// batch is how many keys are asked for, or removed, in one go.
const batch = 100

// List returns what is kept under PREFIXqs:, by name, after the Known ones. Of the
// others there are at most limit; more says that there are others still, or that
// looking for them took too long. Which of them are in the list is not said then.
// The error is about Redis.
func List(ctx context.Context, client redis.UniversalClient, prefix string, limit int) (list []Queryset, more bool, err error) {
	names, more, err := find(ctx, client, prefix+Querysets.infix(), limit)
	if err != nil {
		return nil, false, fmt.Errorf("list querysets: %w", err)
	}
	for names := range slices.Chunk(append(slices.Clone(Known), names...), batch) {
		some, err := describe(ctx, client, prefix+Querysets.infix(), names)
		if err != nil {
			return nil, false, fmt.Errorf("read querysets: %w", err)
		}
		list = append(list, some...)
	}
	return list, more, nil
}

// look is what Redis was asked about a key.
type look struct {
	value         *redis.StringCmd
	bytes, memory *redis.IntCmd
	left          *redis.DurationCmd
}

// describe looks at keys in one pipeline.
func describe(ctx context.Context, client redis.UniversalClient, prefix string, names []string) ([]Queryset, error) {
	pipe := client.Pipeline()
	looks := make([]look, len(names))
	for i, name := range names {
		key := prefix + name
		looks[i] = look{
			value:  pipe.GetRange(ctx, key, 0, coherence.MaxKept-1),
			bytes:  pipe.StrLen(ctx, key),
			memory: pipe.MemoryUsage(ctx, key),
			left:   pipe.PTTL(ctx, key),
		}
	}
	_, _ = pipe.Exec(ctx) // each reply has its error
	now := time.Now()
	list := make([]Queryset, len(names))
	for i, name := range names {
		list[i] = Queryset{Name: name, Kept: coherence.Kept{Key: prefix + name}}
		if err := list[i].fill(looks[i], now); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// fill takes what was found under the key.
func (q *Queryset) fill(l look, now time.Time) error {
	value, err := l.value.Bytes()
	if err == nil && len(value) == 0 {
		return nil // nothing, or as good as nothing
	}
	if err != nil && !redis.HasErrorPrefix(err, "WRONGTYPE") {
		return err
	}
	if l.left.Err() != nil {
		return l.left.Err()
	}
	if q.TTL = l.left.Val(); q.TTL == absent {
		q.TTL = 0 // it has gone meanwhile
		return nil
	}
	q.Present, q.Bytes, q.Memory = true, l.bytes.Val(), l.memory.Val()
	kept, _, err := coherence.ReadKept(value, q.Key)
	if err != nil {
		q.Problem = err
		return nil
	}
	q.Kept, q.Age = kept, max(now.Sub(kept.Stored), 0)
	return nil
}

// absent is what PTTL answers for a key that does not exist.
const absent = time.Duration(-2)
