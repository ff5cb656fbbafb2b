package sandbox_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"walcache/proxy/sandbox"
	"walcache/proxy/sandbox/sandboxtest"
)

func TestRedisSentinel_ReplacesAPrimaryThatIsKilledOrFrozen(t *testing.T) {
	for name, breakIt := range map[string]func(*sandbox.Redis) error{
		"killed": func(r *sandbox.Redis) error { return r.Kill() },
		"frozen": func(r *sandbox.Redis) error { return r.Pause() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := sandboxtest.OwnRedisSentinel(t)
			c := universal(t, s.URL())
			if err := c.Set(t.Context(), "k", "v", 0).Err(); err != nil {
				t.Fatal(err)
			}
			for _, server := range s.Servers[1:] {
				replica := redisClient(t, server.URL())
				sandboxtest.Eventually(t, time.Minute, func() error { return replica.Get(t.Context(), "k").Err() })
			}
			first, err := s.Primary(t.Context())
			if err != nil || first != s.Servers[0] {
				t.Fatalf("the first primary is %v, %v", first, err)
			}
			began := time.Now()
			if err := breakIt(first); err != nil {
				t.Fatal(err)
			}
			sandboxtest.Eventually(t, time.Minute, func() error { return c.Set(t.Context(), "after", "v", 0).Err() })
			t.Logf("replaced after %v", time.Since(began))
			second, err := s.Primary(t.Context())
			if err != nil || second == first {
				t.Fatalf("the second primary is the first, %v", err)
			}
			if v, err := c.Get(t.Context(), "k").Result(); err != nil || v != "v" {
				t.Errorf("what was replicated is %q, %v", v, err)
			}
		})
	}
}

func TestRedisSentinel_FindsItsStateAgain(t *testing.T) {
	s := sandboxtest.OwnRedisSentinel(t)
	if err := redisClient(t, s.Sentinels[0].URL()).Do(t.Context(), "sentinel", "failover", sandbox.SentinelName).Err(); err != nil {
		t.Fatal(err)
	}
	var second *sandbox.Redis
	sandboxtest.Eventually(t, time.Minute, func() (err error) {
		if second, err = s.Primary(t.Context()); err == nil && second == s.Servers[0] {
			err = errors.New("still the first")
		}
		return err
	})
	if err := s.Sentinels[0].Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if now, err := s.Primary(t.Context()); err != nil || now != second {
		t.Errorf("a Sentinel that was restarted forgot the primary: %v", err)
	}
}

func TestRedisSentinel_WantsThePassword(t *testing.T) {
	s := sandboxtest.OwnRedisSentinel(t)
	url := strings.Split(s.URL(), "?")[0]
	if err := universal(t, url).Ping(t.Context()).Err(); err == nil || !strings.Contains(err.Error(), "NOAUTH") {
		t.Errorf("a Sentinel without a password: %v", err)
	}
}
