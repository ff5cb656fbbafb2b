package keep

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"walcache/proxy/sandbox/sandboxtest"
)

func TestMain(m *testing.M) { sandboxtest.Main(m) }

type keeper interface {
	Get(ctx context.Context, key string, ttl time.Duration) (string, error)
	Set(ctx context.Context, key, value string, ttl time.Duration) error
	Replace(ctx context.Context, key, value string, ttl time.Duration) error
	Delete(ctx context.Context, key string) error
	Count(ctx context.Context, key string, within time.Duration) (int64, time.Duration, error)
	Uncount(ctx context.Context, key string) error
}

func client(t *testing.T, url string) *redis.Client {
	t.Helper()
	options, err := redis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	c := redis.NewClient(options)
	t.Cleanup(func() { c.Close() })
	return c
}

// both runs a test on each keeper.
func both(t *testing.T, test func(t *testing.T, k keeper)) {
	t.Run("redis", func(t *testing.T) {
		url, prefix := sandboxtest.Redis(t)
		test(t, NewRedis(client(t, url), prefix))
	})
	t.Run("memory", func(t *testing.T) { test(t, &Memory{}) })
}

func TestValues_AreKeptReplacedAndForgotten(t *testing.T) {
	both(t, func(t *testing.T, k keeper) {
		ctx := t.Context()
		expect := func(want string, wantErr error) {
			t.Helper()
			if got, err := k.Get(ctx, "a", time.Hour); got != want || !errors.Is(err, wantErr) {
				t.Errorf("%q, %v, want %q, %v", got, err, want, wantErr)
			}
		}
		expect("", ErrNone)
		if err := k.Replace(ctx, "a", "0", time.Hour); !errors.Is(err, ErrNone) {
			t.Errorf("replaced what is not there: %v", err)
		}
		expect("", ErrNone)
		if err := k.Set(ctx, "a", "1", time.Hour); err != nil {
			t.Fatal(err)
		}
		expect("1", nil)
		if err := k.Replace(ctx, "a", "2", time.Hour); err != nil {
			t.Fatal(err)
		}
		expect("2", nil)
		for range 2 {
			if err := k.Delete(ctx, "a"); err != nil {
				t.Fatal(err)
			}
		}
		expect("", ErrNone)
	})
}

func TestCounts_AllAreCountedAndTakenBack(t *testing.T) {
	both(t, func(t *testing.T, k keeper) {
		ctx := t.Context()
		if err := k.Uncount(ctx, "n"); err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() {
				if _, _, err := k.Count(ctx, "n", time.Hour); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if err := k.Uncount(ctx, "n"); err != nil {
			t.Fatal(err)
		}
		n, left, err := k.Count(ctx, "n", time.Minute)
		if n != 10 || left <= time.Minute || left > time.Hour || err != nil {
			t.Errorf("%d, %v left, %v: the time is that of the first", n, left, err)
		}
	})
}

func TestRedis_NothingIsKeptForEver(t *testing.T) {
	url, prefix := sandboxtest.Redis(t)
	c := client(t, url)
	k, ctx := NewRedis(c, prefix), t.Context()
	if err := k.Set(ctx, "a", "1", time.Minute); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Get(ctx, "a", time.Hour); err != nil {
		t.Fatal(err)
	}
	if left := c.PTTL(ctx, prefix+"a").Val(); left <= time.Minute || left > time.Hour {
		t.Errorf("a value that was read lives for %v", left)
	}
	if err := k.Replace(ctx, "a", "1", time.Second*100); err != nil {
		t.Fatal(err)
	}
	if left := c.PTTL(ctx, prefix+"a").Val(); left <= 0 || left > 100*time.Second {
		t.Errorf("a value that was replaced lives for %v", left)
	}
	if _, _, err := k.Count(ctx, "n", time.Minute); err != nil {
		t.Fatal(err)
	}
	if left := c.PTTL(ctx, prefix+"n").Val(); left <= 0 || left > time.Minute {
		t.Errorf("a count lives for %v", left)
	}
}

func TestMemory_ForgetsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, ctx := &Memory{}, t.Context()
		k.Set(ctx, "a", "1", time.Hour)
		for range 3 {
			time.Sleep(59 * time.Minute)
			if _, err := k.Get(ctx, "a", time.Hour); err != nil {
				t.Fatal("gone, though it was used: ", err)
			}
		}
		k.Count(ctx, "n", time.Minute)
		time.Sleep(time.Minute)
		if n, left, _ := k.Count(ctx, "n", time.Minute); n != 1 || left != time.Minute {
			t.Errorf("counted %d, %v left", n, left)
		}
		time.Sleep(time.Hour)
		if _, err := k.Get(ctx, "a", time.Hour); !errors.Is(err, ErrNone) {
			t.Error("there, though nobody used it")
		}
		if len(k.entries) != 0 {
			t.Errorf("%d entries take memory", len(k.entries))
		}
	})
}

func TestRedis_AwayIsSaid(t *testing.T) {
	server := sandboxtest.OwnRedis(t)
	k := NewRedis(client(t, server.URL()), "")
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Get(t.Context(), "a", time.Hour); !errors.Is(err, ErrAway) {
		t.Errorf("%v, want ErrAway", err)
	}
	if _, _, err := k.Count(t.Context(), "a", time.Hour); !errors.Is(err, ErrAway) {
		t.Errorf("%v, want ErrAway", err)
	}
}
