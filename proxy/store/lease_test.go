package store_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"walcache/proxy/cache"
	"walcache/proxy/sandbox"
	"walcache/proxy/sandbox/sandboxtest"
	"walcache/proxy/store"
)

// held is an upstream whose answers wait for the test.
type held struct {
	at   atomic.Int64 // requests inside
	open chan struct{}
}

func newHeld() *held { return &held{open: make(chan struct{})} }

func (h *held) pass(r *http.Request) {
	h.at.Add(1)
	defer h.at.Add(-1)
	select {
	case <-h.open:
	case <-r.Context().Done():
	}
}

// answers says what a held upstream answers.
func (h *held) answers(with http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		h.pass(r)
		with(w, r)
	}
}

// fleet is processes that share a Redis.
type fleet []*process

func newFleet(t *testing.T, n int, u *upstream, open func() *store.Redis) (f fleet) {
	for range n {
		f = append(f, newProcess(t, u, open(), patient))
	}
	return f
}

// patient lets nobody go upstream because it has waited for too long.
func patient(c *cache.Config) { c.QueueTimeout = time.Minute }

// count adds up a number of all processes.
func (f fleet) count(of func(cache.Stats) int) (sum int) {
	for _, p := range f {
		sum += of(p.cache.Stats())
	}
	return sum
}

func waiting(s cache.Stats) int   { return int(s.Waiting) }
func takenOver(s cache.Stats) int { return int(s.Leases["taken-over"]) }

// await waits for a fact.
func await(t *testing.T, what string, fact func() bool) {
	t.Helper()
	sandboxtest.Eventually(t, patience, func() error {
		if !fact() {
			return fmt.Errorf("waited in vain until %s", what)
		}
		return nil
	})
}

// ask has each process asked n times at once for each target, and returns how to
// wait for the answers.
func (f fleet) ask(n int, targets ...string) (answers func() []reply) {
	var all sync.WaitGroup
	replies := make([]reply, len(f)*n*len(targets))
	for i := range replies {
		all.Go(func() { replies[i] = f[i%len(f)].get(targets[i/len(f)%len(targets)]) })
	}
	return func() []reply { all.Wait(); return replies }
}

// Three processes are asked for what none of them has, while the upstream takes
// its time.
func TestLease_OneProcessFetchesForAll(t *testing.T) {
	everyWay(t, func(t *testing.T, url string, _ []*sandbox.Redis) {
		h := newHeld()
		u := newUpstream(t, h.answers(paths))
		f := newFleet(t, 3, u, func() *store.Redis { return openRedis(t, url, "wc:", unhurried) })
		targets := []string{"/a", "/b", "/c", "/d", "/e", "/f"} // some for each node of a cluster
		answers := f.ask(10, targets...)
		await(t, "all but who fetches wait", func() bool { return f.count(waiting)+int(h.at.Load()) == 3*10*len(targets) })
		close(h.open)
		redis := 0
		for i, r := range answers() {
			if want := targets[i/3%len(targets)]; r.StatusCode != http.StatusOK || r.body != want {
				t.Fatalf("%d %q instead of %s", r.StatusCode, r.body, want)
			}
			if strings.Contains(r.says(), "hit") && strings.Contains(r.says(), "detail=redis") {
				redis++
			}
		}
		// A machine that stands still may lose a lease.
		over := f.count(takenOver)
		if n := int(u.fetches.Load()); n < len(targets) || n > len(targets)+over {
			t.Errorf("%d fetches of %d pages, %d leases taken over", n, len(targets), over)
		}
		if answered := f.count(func(s cache.Stats) int { return int(s.Leases["answered"]) }); over == 0 && (answered != 2*len(targets) || redis != answered) {
			t.Errorf("%d processes answered from another's fetch, %d hits", answered, redis)
		}
	})
}

// addressOf is the HOST:PORT of a server's URL.
func addressOf(t *testing.T, raw string) string {
	t.Helper()
	u, err := url.Parse(raw)
	must(t, err)
	return u.Host
}

// stuck is an upstream that does not answer the first request until the test
// ends, and any other with how many it has answered.
func stuck(t *testing.T) *upstream {
	var asked atomic.Int64
	end, answer := make(chan struct{}), numbered()
	u := newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) == 1 {
			<-end
		}
		answer(w, r)
	})
	t.Cleanup(func() { close(end) })
	return u
}

// stick has a process ask for a page of an upstream that is stuck.
func (p *process) stick(u *upstream, target string) {
	p.t.Helper()
	go p.get(target)
	await(p.t, "it is at the upstream", func() bool { return u.fetches.Load() == 1 })
}

// The holder's connection is dead and its fetch goes on: who waited takes over,
// one for all who are left.
func TestLease_OfAHolderThatIsGoneHoldsNobodyUpForLong(t *testing.T) {
	url, prefix := sandboxtest.Redis(t)
	line, err := sandbox.StartRelay(addressOf(t, url))
	must(t, err)
	t.Cleanup(func() { must(t, line.Close()) })
	u := stuck(t)
	a := newProcess(t, u, openRedis(t, strings.Replace(url, addressOf(t, url), line.Addr(), 1), prefix, time.Second), patient)
	f := newFleet(t, 2, u, func() *store.Redis { return openRedis(t, url, prefix, unhurried) })
	a.stick(u, "/x")
	answers := f.ask(5, "/x")
	await(t, "all wait", func() bool { return f.count(waiting) == 10 })
	if n := u.fetches.Load(); n != 1 {
		t.Errorf("%d fetches while the holder lives", n)
	}
	line.Cut()
	cut := time.Now()
	for _, r := range answers() {
		if r.body != "1" {
			t.Errorf("got %q (%s)", r.body, r.says())
		}
	}
	if took := time.Since(cut); took > bounded {
		t.Errorf("they waited for %v", took)
	}
	if n, over := int(u.fetches.Load()), f.count(takenOver); over == 0 || n > 1+over {
		t.Errorf("%d fetches, %d leases taken over", n, over)
	}
}

// What has the name of a lease, and no end, is nobody's.
func TestLease_ThatSomebodyElseHasForEverHoldsNobodyUpForLong(t *testing.T) {
	for what, spoil := range map[string]func(c redis.Pipeliner, name string){
		"a text":      func(c redis.Pipeliner, name string) { c.Set(t.Context(), name, "somebody", 0) },
		"a long text": func(c redis.Pipeliner, name string) { c.Set(t.Context(), name, strings.Repeat("somebody ", 1000), 0) },
		"a list":      func(c redis.Pipeliner, name string) { c.Del(t.Context(), name); c.RPush(t.Context(), name, "somebody") },
	} {
		t.Run(what, func(t *testing.T) {
			url, prefix := sandboxtest.Redis(t)
			c, u := client(t, url), stuck(t)
			f := newFleet(t, 2, u, func() *store.Redis { return openRedis(t, url, prefix, unhurried) })
			f[0].stick(u, "/x")
			names, err := c.Keys(t.Context(), prefix+"lease:*").Result()
			must(t, err)
			if len(names) != 1 {
				t.Fatalf("leases %q", names)
			}
			_, err = c.TxPipelined(t.Context(), func(c redis.Pipeliner) error { spoil(c, names[0]); return nil })
			must(t, err)
			began := time.Now()
			f[1].want("/x", "1", "fwd=uri-miss; fwd-status=200; stored")
			if took := time.Since(began); took > bounded {
				t.Errorf("it waited for %v", took)
			}
		})
	}
}

// An answer that is for one client only: who waited for it does not wait for
// another one.
func TestLease_WhatIsNotStoredIsFetchedInParallel(t *testing.T) {
	url, prefix := sandboxtest.Redis(t)
	header, body := newHeld(), newHeld()
	u := newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		header.pass(r)
		w.Header().Set("Cache-Control", "private")
		must(t, http.NewResponseController(w).Flush())
		body.pass(r)
	})
	f := newFleet(t, 3, u, func() *store.Redis { return openRedis(t, url, prefix, unhurried) })
	answers := f.ask(1, "/x")
	await(t, "two wait for the third", func() bool { return f.count(waiting) == 2 && header.at.Load() == 1 })
	close(header.open)
	await(t, "all are at the upstream", func() bool { return body.at.Load() == 3 })
	close(body.open)
	answers()
	// Each process knows by now, and asks nobody.
	leases := func(s cache.Stats) (n int) {
		for _, of := range s.Leases {
			n += int(of)
		}
		return n
	}
	before := f.count(leases)
	f.ask(1, "/x")()
	if after := f.count(leases); after != before {
		t.Errorf("leases before %d, after %d", before, after)
	}
}

func TestLease_AnExpiredAnswerIsRefreshedOnceInAll(t *testing.T) {
	url, prefix := sandboxtest.Redis(t)
	h := newHeld()
	var n atomic.Int64
	u := newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1) == 1 {
			w.Header().Set("Age", "100") // expired on arrival
			w.Header().Set("Cache-Control", "max-age=60, stale-while-revalidate=600")
			fmt.Fprint(w, "old")
			return
		}
		h.pass(r)
		fmt.Fprint(w, "new")
	})
	f := newFleet(t, 3, u, func() *store.Redis { return openRedis(t, url, prefix, unhurried) })
	f[0].want("/x", "old", "stored")
	written(t, f[0].redis, 1)
	for range 3 {
		for _, p := range f {
			p.want("/x", "old", "fwd=stale; detail=expired")
		}
	}
	await(t, "two processes wait for the refresh of the third", func() bool { return f.count(waiting) == 2 && h.at.Load() == 1 })
	close(h.open)
	await(t, "all have it", func() bool {
		return f.count(func(s cache.Stats) int { return int(s.Waiting + s.Fetches.Now) }) == 0
	})
	for _, p := range f {
		p.want("/x", "new", "detail=memory")
	}
	if n, over := int(u.fetches.Load()), f.count(takenOver); n > 2+over {
		t.Errorf("%d fetches, %d leases taken over", n, over)
	}
}

// Redis is away, be it known or not: processes do not wait for one another.
func TestLease_NobodyWaitsWithoutRedis(t *testing.T) {
	r := sandboxtest.OwnRedis(t)
	h := newHeld()
	u := newUpstream(t, h.answers(paths))
	f := newFleet(t, 3, u, func() *store.Redis { return openRedis(t, r.URL(), "wc:", 0) })
	must(t, r.Kill())
	targets := []string{"/a", "/b", "/c", "/d"}
	answers := f.ask(1, targets...)
	await(t, "all are at the upstream", func() bool { return int(h.at.Load()) == 3*len(targets) })
	close(h.open)
	answers()
	if n := f.count(func(s cache.Stats) int { return int(s.Leases["unreachable"]) }); n != 3*len(targets) {
		t.Errorf("%d did without", n)
	}
}
