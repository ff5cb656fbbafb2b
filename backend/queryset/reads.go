package queryset

import (
	"context"
	"slices"
	"sync"
	"time"

	"walcache/proxy/coherence"
)

// Reads is what was read on behalf of one request: under which tags, and as of
// when. It may be used by several goroutines at once.
type Reads struct {
	arrived time.Time

	mu      sync.Mutex // guards the following
	minLSN  string
	reached *bool // whether minLSN was; nil as long as nobody asked
	wrote   bool
	done    []reading
}

// reading is one of them.
type reading struct {
	tags  []coherence.Tag
	deps  coherence.Dependencies // nil if nobody follows them
	truth Truth                  // nil without a cache
	asOf  coherence.Position     // every commit up to here is in what was read
	until coherence.LSN          // and none after here; of a cached one alone
	// direct reads went to the database after the request had arrived.
	direct bool
}

type readsKey struct{}

// Collect returns a context under which a Querier notes what it reads, and where
// it notes it. There is one for each request, made when it arrives. Without one
// a Querier reads straight from the database, and keeps nothing.
func Collect(ctx context.Context) (context.Context, *Reads) {
	r := &Reads{arrived: time.Now()}
	return context.WithValue(ctx, readsKey{}, r), r
}

func readsOf(ctx context.Context) *Reads {
	r, _ := ctx.Value(readsKey{}).(*Reads)
	return r
}

// Require says what the request's Min-LSN header says: what whoever asks knows
// of already. A cache that does not, within a few milliseconds, is read past,
// and so it is if the text is no position: "" alone requires nothing. It is
// called before anything is read.
func (r *Reads) Require(minLSN string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.minLSN = minLSN
}

// Wrote says that the request has changed something, or is about to. From here
// on it neither reads what is kept nor has anything kept: what it wrote may not
// be committed yet, and may not be known here when it is.
func (r *Reads) Wrote() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wrote = true
}

// minWait is how long a request waits for this process to know of what it
// requires.
const minWait = 5 * time.Millisecond

// mayUse reports whether the request may be answered from what is kept.
func (r *Reads) mayUse(ctx context.Context, truth Truth) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.wrote || r.minLSN == "" {
		return !r.wrote
	}
	if r.reached == nil {
		reached := reach(ctx, truth, r.minLSN)
		r.reached = &reached
	}
	return *r.reached
}

// reach waits for a position to be known.
func reach(ctx context.Context, truth Truth, text string) bool {
	p, err := coherence.ParsePosition(text)
	if err != nil || truth.Known().Epoch != p.Epoch {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, minWait)
	defer cancel()
	if truth.Wait(ctx, p.LSN) != nil {
		return false
	}
	known := truth.Known() // the epoch may have changed while it waited
	return known.Epoch == p.Epoch && known.LSN >= p.LSN
}

// note adds what was read. Nothing happens outside of a request.
func (r *Reads) note(done ...reading) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done = append(r.done, done...)
}

func (r *Reads) noted() []reading {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.done)
}

// Tags returns the tags of what was read, sorted and each once. Beyond
// coherence.MaxTags it returns the tables instead, and beyond that many tables
// the whole database.
func (r *Reads) Tags() []coherence.Tag {
	var tags []coherence.Tag
	for _, d := range r.noted() {
		tags = append(tags, d.tags...)
	}
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

// Cached reports whether anything that was read is what a cache kept.
func (r *Reads) Cached() bool {
	return slices.ContainsFunc(r.noted(), func(d reading) bool { return !d.direct })
}

// AsOf says, as the As-Of-LSN header does, as of when all is that was read: every
// commit up to there is in it. It is called when all has been read.
//
// It is coherence.AsOfRequest if everything went to the database after the
// request had arrived. Else it is what is known now, if nothing of all that has
// changed up to there, and else the earliest of what was noted.
//
// Not so if this process does not know yet what the request requires: then it
// cannot say of itself that it is the newest release (service.release), and what
// it answers is as of what it knows.
func (r *Reads) AsOf() string {
	done := r.noted()
	kept := slices.IndexFunc(done, func(d reading) bool { return !d.direct })
	switch {
	case kept < 0 && r.behind():
		return earliest(done).String()
	case kept < 0:
		return coherence.AsOfRequest
	}
	truth := done[kept].truth
	known, now := truth.Known(), time.Now() // before anything is judged
	holds := func(d reading) bool {
		return d.deps != nil && d.asOf.Epoch == known.Epoch && truth.Judge(d.asOf, d.deps, now) == coherence.Fresh
	}
	if !slices.ContainsFunc(done, func(d reading) bool { return !holds(d) }) {
		return known.String()
	}
	return earliest(done).String()
}

// behind reports whether this process did not know what the request requires.
func (r *Reads) behind() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.reached != nil && !*r.reached
}

// noEpoch is the name of no epoch: nobody calls fresh what is of it.
const noEpoch = "none"

// earliest is the position of what was noted. Of two epochs it is in none: what
// is as of one of them may lack what the other begins with.
func earliest(done []reading) coherence.Position {
	p := done[0].asOf
	for _, d := range done {
		if d.asOf.Epoch != p.Epoch || p.Epoch == "" {
			return coherence.Position{Epoch: noEpoch}
		}
		p.LSN = min(p.LSN, d.asOf.LSN)
	}
	return p
}
