package queryset

import (
	"context"
	"slices"
	"sync"

	"walcache/proxy/coherence"
)

// Reads collects the tags of what is read on behalf of one request. It may be
// used by several goroutines at once.
type Reads struct {
	mu   sync.Mutex // guards the following
	tags []coherence.Tag
}

type readsKey struct{}

// Collect returns a context under which a Querier notes its tags, and where
// it notes them.
func Collect(ctx context.Context) (context.Context, *Reads) {
	r := new(Reads)
	return context.WithValue(ctx, readsKey{}, r), r
}

// note adds tags to the Reads of the context, if it has one.
func note(ctx context.Context, tags ...coherence.Tag) {
	r, ok := ctx.Value(readsKey{}).(*Reads)
	if !ok {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tags = append(r.tags, tags...)
}

// Tags returns what was noted, sorted and each once. Beyond coherence.MaxTags
// it returns the tables instead, and beyond that many tables the whole
// database.
func (r *Reads) Tags() []coherence.Tag {
	r.mu.Lock()
	tags := slices.Clone(r.tags)
	r.mu.Unlock()

	tags = distinct(tags)
	if len(tags) > coherence.MaxTags {
		for i, t := range tags {
			tags[i] = t.Table()
		}
		tags = distinct(tags)
	}
	if len(tags) > coherence.MaxTags {
		tags = []coherence.Tag{coherence.Any}
	}
	return tags
}

func distinct(tags []coherence.Tag) []coherence.Tag {
	slices.Sort(tags)
	return slices.Compact(tags)
}
