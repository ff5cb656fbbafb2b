package cache

import (
	"time"

	"walcache/proxy/coherence"
	"walcache/proxy/rules"
)

// Why a request is not answered from what is stored, as Cache-Status and the
// statistics name it. The last three are those of coherence.Verdict.
const (
	missURI      = "uri-miss"
	missVary     = "vary-miss"
	missRequest  = "request" // an answer is there and fresh, and the request cannot have it
	missExpired  = "expired" // its time ran out, or it has none, and nothing it depends on is known to have changed
	missChanged  = "changed"
	missEpoch    = "epoch"
	missUnproven = "unproven"
)

// standing is what can be done with a stored answer at some moment. Being
// expired and being changed are two ways of not being fresh, with windows of
// their own: the origin's stale-while-revalidate and stale-if-error are about
// time that ran out, and permit nothing once a row has changed.
type standing struct {
	fresh           bool
	whileRefreshing bool   // may be served stale while a refresh runs
	ifError         bool   // may be served stale while the upstream fails
	ifAway          bool   // may be served stale while the upstream does not answer at all
	reason          string // why it is not fresh
	detail          string // what to say of a hit, in the place of its layer, or ""
}

// tolerance is what the operator allows beyond what is fresh.
type tolerance struct {
	// How long ago the data may have been read of what changed.
	grace          time.Duration // at all times
	changedIfError time.Duration // while the upstream fails
	// How long the lifetime may be over of what did not change, while the upstream
	// is disconnected.
	expiredIfError time.Duration
}

// window is how long at most it lets an answer that changed be of use after its
// lifetime.
func (tol tolerance) window() time.Duration { return max(tol.grace, tol.changedIfError) }

// stand is the decision whether a stored answer may be used, from its age, the
// verdict on its dependencies, and the time since its data was read (negative
// if that is not known).
func (tol tolerance) stand(t rules.Terms, age time.Duration, verdict coherence.Verdict, sinceRead time.Duration) standing {
	late := age - t.Lifetime
	expired := late >= 0
	readWithin := func(window time.Duration) bool { return sinceRead >= 0 && sinceRead < window }
	switch {
	case verdict == coherence.Fresh && t.Revalidate:
		return standing{reason: missExpired}
	case t.Revalidate:
		return standing{reason: verdict.String()}
	case verdict == coherence.Fresh && !expired:
		return standing{fresh: true}
	case verdict == coherence.Fresh:
		return standing{
			whileRefreshing: late < t.WhileRevalidate,
			ifError:         late < t.IfError,
			ifAway:          late < tol.expiredIfError && !t.NoStale,
			reason:          missExpired,
		}
	}
	return standing{
		whileRefreshing: !expired && readWithin(tol.grace),
		ifError:         readWithin(tol.changedIfError),
		reason:          verdict.String(),
	}
}

// permits reports whether a request may be answered with an entry at all. What
// a request may not store, it may not be answered from either: an answer for
// everyone may not be the one for this user.
func (e *Entry) permits(q *request) bool {
	switch {
	case q.Authorization:
		return e.terms.ForAuthorized
	case q.Credentials:
		return e.terms.Explicit
	}
	return true
}

// stand judges an entry at a moment.
func (c *Cache) stand(e *Entry, now time.Time) standing {
	sinceRead := rules.Unset
	if !e.readAt.IsZero() {
		sinceRead = now.Sub(e.readAt)
	}
	return c.tolerance.stand(e.terms, e.age(now), c.truth.Judge(e.asOf, e.deps, now), sinceRead)
}

// found is what a look at what is stored gave for a request.
type found struct {
	entry *Entry // the variant that the request may have, fresh or not; or nil
	layer Layer
	standing
}

// look looks for a stored answer, and at how it stands.
func (c *Cache) look(q *request, page *Page, layer Layer, now time.Time) found {
	e := page.match(q)
	switch {
	case page == nil:
		return found{standing: standing{reason: missURI}}
	case e == nil:
		return found{standing: standing{reason: missVary}}
	case !e.permits(q):
		return found{standing: standing{reason: missRequest}}
	}
	return found{entry: e, layer: layer, standing: c.standFor(q, e, now)}
}

// standFor judges an entry for a request, whose client may take what is expired,
// and may ask for more than what is fresh (RFC 9111, section 5.2.1). That is
// served all the same if it is known to be what the origin would answer now,
// whatever its age: what else could its client want?
func (c *Cache) standFor(q *request, e *Entry, now time.Time) standing {
	s, age := c.stand(e, now), e.age(now)
	if late := age - e.terms.Lifetime; s.reason == missExpired && late <= q.asks.MaxStale && !e.terms.NoStale && !e.terms.Revalidate {
		s.fresh, s.detail = true, missExpired
	}
	if q.takes(age, e.terms.Lifetime) {
		return s
	}
	s.whileRefreshing = false
	switch {
	case !s.fresh:
	case s.detail == missExpired, q.honoured, !c.truth.Vouches(now):
		s.fresh, s.reason, s.detail = false, missRequest, ""
	default:
		s.detail = proven
	}
	return s
}

// proven is the detail of a hit for a client that asked for the origin's answer.
const proven = "proven"
