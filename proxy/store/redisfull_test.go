package store_test

import (
	"context"
	"fmt"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"walcache/proxy/cache"
	"walcache/proxy/coherence"
	"walcache/proxy/sandbox"
	"walcache/proxy/sandbox/sandboxtest"
	"walcache/proxy/store"
)

// limited starts a server with a memory limit of its own.
func limited(t *testing.T, bytes int, policy string) (url string, c redis.UniversalClient) {
	t.Helper()
	r := sandboxtest.OwnRedis(t)
	c = client(t, r.URL())
	must(t, c.ConfigSet(t.Context(), "maxmemory-policy", policy).Err())
	must(t, c.ConfigSet(t.Context(), "maxmemory", strconv.Itoa(bytes)).Err())
	return r.URL(), c
}

// bulky answers with what does not compress to nothing in Redis.
func bulky(size int) http.HandlerFunc {
	body := strings.Repeat("x", size)
	return func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.URL.Path, body) }
}

// settled waits until nothing is in line any more.
func (p *process) settled() store.RedisStats {
	p.t.Helper()
	sandboxtest.Eventually(p.t, patience, func() error {
		s := p.redis.Stats()
		done := s.Writes
		for _, n := range s.Dropped {
			done += n
		}
		if stored := p.cache.Stats().Stored; done < stored {
			return fmt.Errorf("%d of %d pages written or dropped: %+v", done, stored, s)
		}
		return nil
	})
	return p.redis.Stats()
}

// append10 appends to what stands for the change log.
func append10(t *testing.T, c redis.UniversalClient) {
	t.Helper()
	for range 10 {
		must(t, c.XAdd(t.Context(), &redis.XAddArgs{Stream: "wc:log", Values: []string{"record", strings.Repeat("x", 16<<10)}}).Err())
	}
}

// Where Redis makes no room by itself, a quarter stays free for the change log
// however many pages there are.
func TestRedis_FullWithoutEvictionLeavesRoomForTheLog(t *testing.T) {
	const limit = 8 << 20
	url, c := limited(t, limit, "noeviction")
	u := newUpstream(t, bulky(64<<10))
	a := newProcess(t, u, openRedis(t, url, "wc:", unhurried))
	for i := range 300 {
		a.get(fmt.Sprint("/", i))
	}
	s := a.settled()
	if s.Writes == 0 || s.Dropped["room"] == 0 || s.Dropped["oom"] != 0 {
		t.Errorf("%+v", s)
	}
	info, err := c.InfoMap(t.Context(), "memory").Result()
	must(t, err)
	used, err := strconv.Atoi(info["Memory"]["used_memory"])
	must(t, err)
	if used > limit-limit/4+1<<20 {
		t.Errorf("%d of %d bytes are used", used, limit)
	}
	append10(t, c)
	// Pages come back when there is room.
	must(t, c.FlushAll(t.Context()).Err())
	a.stored(u, url, "/after")
}

func TestRedis_FullWithEvictionGoesOn(t *testing.T) {
	for _, policy := range []string{"allkeys-lru", "volatile-lru", "volatile-ttl"} {
		t.Run(policy, func(t *testing.T) {
			url, c := limited(t, 8<<20, policy)
			u := newUpstream(t, bulky(64<<10))
			a := newProcess(t, u, openRedis(t, url, "wc:", unhurried))
			for i := range 300 {
				a.get(fmt.Sprint("/", i))
			}
			if s := a.settled(); s.Writes != 300 {
				t.Errorf("%+v", s)
			}
			a.stored(u, url, "/after")
			append10(t, c)
		})
	}
}

// What Redis refuses for want of memory is not tried again at once, and is when
// there is memory again.
func TestRedis_OutOfMemoryIsTriedAgainSparingly(t *testing.T) {
	const limit = 8 << 20
	url, c := limited(t, limit, "volatile-lru")
	u := newUpstream(t, bulky(1<<10))
	a := newProcess(t, u, openRedis(t, url, "wc:", unhurried))
	a.stored(u, url, "/before")
	var err error
	for i := 0; err == nil; i++ { // nothing of this can go
		err = c.Set(t.Context(), fmt.Sprint("others:", i), strings.Repeat("x", 100<<10), 0).Err()
	}
	if !redis.IsOOMError(err) {
		t.Fatal(err)
	}
	must(t, c.ConfigSet(t.Context(), "maxmemory", strconv.Itoa(limit/2)).Err())
	refused := func() int64 {
		stats, err := c.Info(t.Context(), "errorstats").Result()
		must(t, err)
		_, rest, _ := strings.Cut(stats, "errorstat_OOM:count=")
		digits, _, _ := strings.Cut(rest, "\r")
		n, _ := strconv.ParseInt(digits, 10, 64)
		return n
	}
	before := refused()
	for i := range 1000 {
		a.get(fmt.Sprint("/", i))
	}
	s := a.settled()
	if s.Dropped["oom"] < 500 || s.Failures != 0 || s.BreakerOpen {
		t.Errorf("%+v", s)
	}
	// A batch, and one for each second that the requests took.
	if n := refused() - before; n == 0 || n > 500 {
		t.Errorf("Redis refused %d pages", n)
	}
	must(t, c.ConfigSet(t.Context(), "maxmemory", strconv.Itoa(64<<20)).Err())
	a.stored(u, url, "/after")
}

// A page that Redis gets late does not live longer there, and so seems no younger
// to its readers, than one that it gets at once. Its clock is the one of this
// machine.
func TestRedis_APageThatArrivesLateIsNoYounger(t *testing.T) {
	r := sandboxtest.OwnRedis(t)
	u := newUpstream(t, paths)
	a := newProcess(t, u, openRedis(t, r.URL(), "wc:", unhurried))
	a.stored(u, r.URL(), "/warm")
	c := client(t, r.URL())
	const late = 700 * time.Millisecond // less than a write may take
	must(t, c.Do(t.Context(), "client", "pause", late.Milliseconds(), "write").Err())
	a.get("/late")
	filled := time.Now()
	a.settled()
	expires, err := c.PExpireTime(t.Context(), "wc:page:http://example.com/late").Result()
	must(t, err)
	if latest := filled.Add(cache.Defaults().TTL); time.UnixMilli(expires.Milliseconds()).After(latest) {
		t.Errorf("expires %v late", time.UnixMilli(expires.Milliseconds()).Sub(latest))
	}
}

// Only the newest page of a key is written, and only so many wait.
func TestRedis_WhatCannotBeWrittenYetWaitsWithinBounds(t *testing.T) {
	r := sandboxtest.OwnRedis(t)
	u := newUpstream(t, numbered())
	a := newProcess(t, u, openRedis(t, r.URL(), "wc:", 0))
	a.stored(u, r.URL(), "/x")
	must(t, r.Kill())
	a.untilOpenBy(func(i int) { a.get(fmt.Sprint("/absent", i)) })
	queued := a.redis.Stats().Queue
	var last string
	for i := range 10 {
		a.changed(200 + 10*coherence.LSN(i))
		last = a.get("/x").body
	}
	if n := a.redis.Stats().Queue; n != queued+1 {
		t.Errorf("%d pages wait, and before %d", n, queued)
	}
	for i := range 5000 {
		a.get(fmt.Sprint("/more", i))
	}
	s := a.redis.Stats()
	if s.Queue != 4096 || s.Dropped["behind"] == 0 {
		t.Errorf("%+v", s)
	}
	must(t, r.Start(t.Context()))
	a.untilClosed()
	sandboxtest.Eventually(t, patience, func() error {
		if s := a.redis.Stats(); s.Queue > 0 {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	b := newProcess(t, u, openRedis(t, r.URL(), "wc:", unhurried))
	b.changed(290)
	sandboxtest.Eventually(t, patience, func() error {
		if got := b.get("/x"); got.body != last {
			return fmt.Errorf("got %s (%s), want %s", got.body, got.says(), last)
		}
		return nil
	})
}

func TestRedis_LongBodiesWaitWithinBoundsToo(t *testing.T) {
	r := sandboxtest.OwnRedis(t)
	u := newUpstream(t, bulky(8<<20-100))
	a := newProcess(t, u, openRedis(t, r.URL(), "wc:", 0))
	must(t, r.Kill())
	a.untilOpenBy(func(i int) { a.get(fmt.Sprint("/", i)) })
	sandboxtest.Eventually(t, patience, func() error {
		a.get(fmt.Sprint("/more", time.Now().UnixNano()))
		if s := a.redis.Stats(); s.Dropped["behind"] == 0 || s.Queue > 4 {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
}

func TestRedis_APageTooLargeToBeReadIsNotWritten(t *testing.T) {
	url, prefix := sandboxtest.Redis(t)
	r := openRedis(t, url, prefix, unhurried)
	told := make(chan bool, 1)
	page := cache.NewSample(make([]byte, cache.Defaults().MaxObject+512<<10), time.Minute)
	r.Set(cache.Key{Scheme: "http", Host: "a", Target: "/x"}, page, func(written bool) { told <- written })
	if written := <-told; written || r.Stats().Writes != 0 || r.Stats().Dropped["too_large"] != 1 {
		t.Errorf("written %v: %+v", written, r.Stats())
	}
}

func TestRedis_TheLongestBodyIsShared(t *testing.T) {
	url, prefix := sandboxtest.Redis(t)
	u := newUpstream(t, bulky(int(cache.Defaults().MaxObject)-len("/x")))
	a := newProcess(t, u, openRedis(t, url, prefix, unhurried))
	body := a.get("/x").body
	written(t, a.redis, 1)
	newProcess(t, u, openRedis(t, url, prefix, unhurried)).want("/x", body, "detail=redis")
}

func TestRedis_CloseEndsInTimeAndLeavesNothingBehind(t *testing.T) {
	for name, spoil := range map[string]func(*sandbox.Redis) error{
		"healthy": func(*sandbox.Redis) error { return nil },
		"frozen":  func(r *sandbox.Redis) error { return r.Pause() },
		"killed":  func(r *sandbox.Redis) error { return r.Kill() },
	} {
		t.Run(name, func(t *testing.T) {
			server := sandboxtest.OwnRedis(t)
			u := newUpstream(t, paths)
			r, err := store.NewRedis(store.RedisConfig{URL: server.URL(), Prefix: "wc:", MaxObject: 1 << 20})
			must(t, err)
			a := newProcess(t, u, r)
			a.get("/x")
			written(t, r, 1)
			must(t, spoil(server))
			for i := range 20 {
				a.get(fmt.Sprint("/", i))
			}
			began := time.Now()
			must(t, r.Close())
			if took := time.Since(began); took > bounded {
				t.Errorf("took %v", took)
			}
			sandboxtest.Eventually(t, patience, func() error {
				buf := make([]byte, 1<<20)
				stacks := string(buf[:runtime.Stack(buf, true)])
				if i := strings.Index(stacks, "store.(*Redis)"); i >= 0 {
					return fmt.Errorf("still running: %s", stacks[max(0, i-500):min(len(stacks), i+500)])
				}
				return nil
			})
			a.get("/closed") // and nothing breaks
		})
	}
}

func TestRedis_AnInProcessOneWillDo(t *testing.T) {
	m, err := sandbox.StartMiniredis(0)
	must(t, err)
	t.Cleanup(func() { must(t, m.Stop(context.Background())) })
	u := newUpstream(t, numbered())
	a := newProcess(t, u, openRedis(t, m.URL(), "wc:", unhurried))
	a.want("/x", "1", "fwd=uri-miss")
	written(t, a.redis, 1)
	newProcess(t, u, openRedis(t, m.URL(), "wc:", unhurried)).want("/x", "1", "detail=redis")
}
