package sandbox

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

func miniredisClient(t *testing.T, limit int) (*Miniredis, *redis.Client) {
	t.Helper()
	m, err := startMiniredis(0, limit)
	if err != nil {
		t.Fatal(err)
	}
	options, err := redis.ParseURL(m.URL())
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(options)
	t.Cleanup(func() {
		client.Close()
		m.Stop(t.Context())
	})
	return m, client
}

// held is what the server holds now, by its own reckoning.
func (m *Miniredis) held() (bytes int) {
	db := m.redis.DB(0)
	for _, key := range db.Keys() {
		bytes += sizeOf(db, key)
	}
	return bytes
}

func TestMiniredis_StaysBelowItsLimit(t *testing.T) {
	const limit = 4 << 20
	m, client := miniredisClient(t, limit)
	value := strings.Repeat("x", 8<<10)
	if err := client.Set(t.Context(), "log", value, 0).Err(); err != nil {
		t.Fatal(err)
	}
	for i := range 2000 { // four times the limit
		ttl := time.Hour + time.Duration(i)*time.Second
		if err := client.Set(t.Context(), fmt.Sprintf("page:%d", i), value, ttl).Err(); err != nil {
			t.Fatal(err)
		}
		if held := m.held(); held > limit {
			t.Fatalf("%d bytes held after %d writes", held, i+1)
		}
	}
	if err := client.Get(t.Context(), "log").Err(); err != nil {
		t.Errorf("a key that does not expire is gone: %v", err)
	}
	if err := client.Get(t.Context(), "page:1999").Err(); err != nil {
		t.Errorf("the key that expires last is gone: %v", err)
	}
	if err := client.Get(t.Context(), "page:0").Err(); !errors.Is(err, redis.Nil) {
		t.Errorf("the key that expires first is still there: %v", err)
	}
}

func TestMiniredis_KeysExpire(t *testing.T) {
	_, client := miniredisClient(t, MiniredisLimit)
	if err := client.Set(t.Context(), "k", "v", 50*time.Millisecond).Err(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if err := client.Get(t.Context(), "k").Err(); errors.Is(err, redis.Nil) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the key does not expire")
		}
	}
}

func TestMiniredis_WantsThePassword(t *testing.T) {
	m, _ := miniredisClient(t, MiniredisLimit)
	client := redis.NewClient(&redis.Options{Addr: m.redis.Addr()})
	defer client.Close()
	if err := client.Ping(t.Context()).Err(); err == nil || !strings.Contains(err.Error(), "NOAUTH") {
		t.Fatalf("without a password: %v", err)
	}
}

func TestSizeOf_CountsEveryTypeInUse(t *testing.T) {
	m, client := miniredisClient(t, MiniredisLimit)
	value := strings.Repeat("x", 1000)
	for name, write := range map[string]func(key string) error{
		"string": func(key string) error { return client.Set(t.Context(), key, value, 0).Err() },
		"hash":   func(key string) error { return client.HSet(t.Context(), key, "field", value).Err() },
		"set":    func(key string) error { return client.SAdd(t.Context(), key, value).Err() },
		"zset":   func(key string) error { return client.ZAdd(t.Context(), key, redis.Z{Member: value}).Err() },
		"stream": func(key string) error {
			return client.XAdd(t.Context(), &redis.XAddArgs{Stream: key, Values: []string{"field", value}}).Err()
		},
	} {
		if err := write(name); err != nil {
			t.Fatal(err)
		}
		if size := sizeOf(m.redis.DB(0), name); size < 1000 || size > 2000 {
			t.Errorf("%s: %d bytes", name, size)
		}
	}
}
