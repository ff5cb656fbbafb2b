package cache

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A lease says, where all processes see it, that one of them fetches what
// several have been asked for, so that the others wait for what it stores:
//
//	nothing ──► "holder 1" ──► "holder 2" ──► … ──► "holder stored" or
//	   ▲            │              │                "holder alone"
//	   └────────────┴──────────────┴───────────────────────┘
//	        nobody has said anything new for leaseTime
//
// It is a hint and nothing more. What appears below is judged like all else that
// does, whoever had the lease when it was fetched (lookBelow), and who is not
// sure of a lease fetches: after the time that a request may wait for its turn
// at the upstream, when the layer below gives no answer, and when what the lease
// says has not changed for a while, be it that its holder is dead, stands still,
// or never was one of us. So the worst that a lease can do is cost time, and the
// worst that the lack of one can do is an upstream request per process.
type lease struct {
	below        Below
	name, holder string
	over         atomic.Bool // the fetch is

	mu     sync.Mutex // guards the following, on the way to the layer below and back
	says   string     // as far as is known
	saidAt time.Time
	count  int // of what it has said
}

const (
	leaseTime  = 200 * time.Millisecond // how long a word of a holder counts
	renewEvery = 60 * time.Millisecond
	askEvery   = 20 * time.Millisecond
	writeTime  = time.Second // how long an answer may take to the layer below
)

// The last words of a holder.
const (
	leaseStored = "stored" // the answer is below
	leaseAlone  = "alone"  // it will not be: everybody has to ask for themselves
)

// The ways in which a fetch that others might make has gone, as the statistics
// name them.
const (
	leaseTaken       = "taken"
	leaseTakenOver   = "taken-over" // from a holder that said nothing new
	leaseAnswered    = "answered"   // another process stored what was needed
	leaseInVain      = "in-vain"    // another process fetched, and it was of no use here
	leaseUnreachable = "unreachable"
)

// newLease makes a lease for the requests that one fetch can answer. Its name is
// a hash: what answers vary by may be long, and a secret.
func (c *Cache) newLease(key flightKey) *lease {
	hash := sha256.Sum256([]byte(key.page.String() + "\n" + key.variant))
	holder := c.process + strconv.FormatUint(c.leases.Add(1), 10)
	return &lease{below: c.below, name: hex.EncodeToString(hash[:16]), holder: holder, says: holder + " 0"}
}

// elsewhere has the leader of a flight wait while another process fetches what
// the flight is to bring. It returns what that has stored, if it is fresh here;
// else the leader is to fetch, and the flight has the lease if it was to be had.
//
// The wait ends when a request has waited for as long as for its turn at the
// upstream: that is what it waits for. So a query that takes longer runs once in
// each process, and not once in all.
func (c *Cache) elsewhere(q *request, f *flight) (below found) {
	if c.below == nil {
		return found{}
	}
	l, began := c.newLease(f.key), time.Now()
	var seen string     // what another process had it say last
	var since time.Time // when that was new
	for from := ""; ; {
		says, ok := l.swap(from, l.says)
		now := time.Now()
		if !ok && seen != "" && now.Sub(since) < leaseTime {
			says = seen // for all that is known
		}
		has := says == l.says
		switch {
		case says == "":
			return c.fetchesHere(leaseUnreachable)
		case !has && strings.HasPrefix(says, c.process):
			// Another flight of this process had it. Nobody waits for oneself.
			if word(says) != leaseStored {
				return c.fetchesHere(leaseInVain)
			}
			from = says
			continue
		case word(says) == leaseAlone, !has && now.Sub(began) >= c.fetches.timeout:
			return c.fetchesHere(leaseInVain)
		}
		// Whoever had it is done, or was replaced.
		if word(says) == leaseStored || seen != "" && from == "" && holder(says) != holder(seen) {
			if below = c.lookAgain(q); below.fresh {
				if has {
					l.end(true)
				}
				c.count.leases.add(leaseAnswered)
				return below
			}
			// What changes faster than it is fetched would go from process to process, and
			// the last wait for all the others.
			if seen != "" && word(says) == leaseStored {
				return c.fetchesHere(leaseInVain)
			}
		}
		if has {
			f.lease = l
			l.keep()
			if seen != "" && word(seen) != leaseStored {
				return c.fetchesHere(leaseTakenOver)
			}
			return c.fetchesHere(leaseTaken)
		}
		if seen == "" {
			c.count.waiting.Add(1)
			defer c.count.waiting.Add(-1)
		}
		if says != seen {
			seen, since = says, now
		}
		from = ""
		if word(says) == leaseStored || now.Sub(since) >= leaseTime {
			from = says
			continue
		}
		time.Sleep(askEvery)
	}
}

func (c *Cache) fetchesHere(why string) found {
	c.count.leases.add(why)
	return found{}
}

// lookAgain looks in memory and below for what has been stored meanwhile, and
// not for what was there when somebody else began to look.
func (c *Cache) lookAgain(q *request) found {
	page := c.store.Get(q.key)
	f := c.look(q, page, Memory, time.Now())
	if !f.fresh {
		c.loads.Forget(q.key.String())
		_, f = c.lookBelow(context.Background(), q, page, f)
	}
	return f
}

// holder and word are the two parts of what a lease says.
func holder(says string) string { h, _, _ := strings.Cut(says, " "); return h }
func word(says string) string   { _, w, _ := strings.Cut(says, " "); return w }

// swap has the lease say something, if it says what is expected or nothing, and
// returns what it says then.
func (l *lease) swap(from, to string) (says string, ok bool) {
	return l.below.Lease(l.name, from, to, leaseTime)
}

// keep renews the lease from now on until it ends.
func (l *lease) keep() {
	l.saidAt = time.Now()
	time.AfterFunc(renewEvery, l.renew)
}

func (l *lease) renew() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over.Load() {
		return
	}
	l.count++
	if l.say(strconv.Itoa(l.count)) {
		time.AfterFunc(renewEvery, l.renew)
	}
}

// say has the holder say a word, and reports whether the lease still is the
// holder's, as far as is known. mu is held.
func (l *lease) say(word string) bool {
	to := l.holder + " " + word
	for range 2 {
		says, ok := l.swap(l.says, to)
		if !ok {
			return time.Since(l.saidAt) < leaseTime
		}
		if holder(says) != l.holder {
			return false
		}
		l.says, l.saidAt = says, time.Now()
		if says == to {
			break
		} // else the answer to what was said last was lost
	}
	return true
}

// end says the last word: whether the answer is below. It does not wait. nil is
// the lease of who has none.
func (l *lease) end(stored bool) {
	if l == nil || l.over.Swap(true) {
		return
	}
	last := leaseAlone
	if stored {
		last = leaseStored
	}
	go func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.say(last)
	}()
}

// landed says that the fetch is over. An answer that is stored has to get below
// before the lease may end; where nothing gets there for so long nobody need wait
// for it.
func (l *lease) landed(stored bool) {
	switch {
	case l == nil:
	case stored:
		time.AfterFunc(writeTime, func() { l.end(false) })
	default:
		l.end(false)
	}
}

// written is told whether the flight's answer got to the layer below, and ends the
// lease. It is nil where there is none: a page may wait long to be written, and with
// it all that were told of it, who must not hold on to their flights' answers.
func (f *flight) written() func(below bool) {
	if f == nil || f.lease == nil {
		return nil
	}
	return f.lease.end
}
