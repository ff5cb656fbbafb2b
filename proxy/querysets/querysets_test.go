package querysets

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"walcache/proxy/coherence"
	"walcache/proxy/redisurl"
	"walcache/proxy/sandbox"
	"walcache/proxy/sandbox/sandboxtest"
)

func TestMain(m *testing.M) { sandboxtest.Main(m) }

const patience = time.Minute

// shelf is a Redis with what a test puts there.
type shelf struct {
	t      *testing.T
	client redis.UniversalClient
	prefix string
}

func newShelf(t *testing.T, url, prefix string) *shelf {
	t.Helper()
	client, err := redisurl.Open(url, func(o *redis.UniversalOptions) { o.ReadTimeout, o.WriteTimeout = patience, patience })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return &shelf{t, client, prefix}
}

// everywhere runs a test on every kind of Redis.
func everywhere(t *testing.T, test func(s *shelf)) {
	t.Run("server", func(t *testing.T) {
		url, prefix := sandboxtest.Redis(t)
		test(newShelf(t, url, prefix))
	})
	t.Run("cluster", func(t *testing.T) {
		test(newShelf(t, sandboxtest.OwnRedisCluster(t).URL(), "wc:"))
	})
	t.Run("in-process", func(t *testing.T) {
		m, err := sandbox.StartMiniredis(0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = m.Stop(context.Background()) })
		test(newShelf(t, m.URL(), "wc:"))
	})
}

func (s *shelf) set(key, value string, life time.Duration) {
	s.t.Helper()
	if err := s.client.Set(s.t.Context(), s.prefix+key, value, life).Err(); err != nil {
		s.t.Fatal(err)
	}
}

// keep keeps a queryset of so many bytes, that was stored a minute ago.
func (s *shelf) keep(name string, size int) coherence.Kept {
	s.t.Helper()
	k := coherence.Kept{
		Key: s.prefix + "qs:" + name, AsOf: coherence.Position{Epoch: "e1", LSN: 7}, Until: 9,
		Tags: []coherence.Tag{"properties"}, Stored: time.Now().Add(-time.Minute).Truncate(time.Millisecond).UTC(), Rows: 3,
	}
	value := k.Append(nil)
	s.set("qs:"+name, string(value)+strings.Repeat("x", size-len(value)), time.Hour)
	return k
}

func (s *shelf) list(limit int) (list []Queryset, more bool) {
	s.t.Helper()
	list, more, err := List(s.t.Context(), s.client, s.prefix, limit)
	if err != nil {
		s.t.Fatal(err)
	}
	return list, more
}

func namesOf(list []Queryset) (names []string) {
	for _, q := range list {
		names = append(names, q.Name)
	}
	return names
}

func TestList_SaysWhatIsKept(t *testing.T) {
	everywhere(t, func(s *shelf) {
		want := s.keep("all_properties", 100_000)
		damaged := []byte(s.keep("corrupt", 200).Append(nil))
		damaged[20] ^= 1
		s.set("qs:corrupt", string(damaged), time.Hour)
		s.set("qs:foreign", "x", 0)
		s.set("qs:renamed", string(want.Append(nil)), time.Hour)
		s.client.LPush(s.t.Context(), s.prefix+"qs:typed", "x")
		for _, other := range []string{"page:https://a/", "session:x", "log", "qs", "qsx:1"} {
			s.set(other, "x", time.Hour)
		}
		list, more := s.list(100)
		if got := namesOf(list); more || !slices.Equal(got, []string{"all_properties", "property_count", "corrupt", "foreign", "renamed", "typed"}) {
			s.t.Fatalf("%q, more: %v", got, more)
		}
		q := list[0]
		if !q.Present || q.Problem != nil || q.AsOf != want.AsOf || q.Until != want.Until || q.Rows != 3 || !slices.Equal(q.Tags, want.Tags) || !q.Stored.Equal(want.Stored) {
			s.t.Errorf("%+v, want %+v", q, want)
		}
		if q.Bytes != 100_000 || q.Memory < q.Bytes || q.Age < time.Minute || q.Age > time.Minute+patience || q.TTL <= time.Hour-patience || q.TTL > time.Hour {
			s.t.Errorf("%d bytes, %d in Redis, age %v, %v left", q.Bytes, q.Memory, q.Age, q.TTL)
		}
		if q := list[1]; q.Present || q.Key != s.prefix+"qs:property_count" || q.TTL != 0 || q.Problem != nil {
			s.t.Errorf("what is not there: %+v", q)
		}
		for i, want := range []error{2: coherence.ErrCorrupt, coherence.ErrForeign, coherence.ErrForeign, coherence.ErrForeign} {
			if q := list[i]; i >= 2 && (!q.Present || !errors.Is(q.Problem, want) || q.Rows != 0) {
				s.t.Errorf("%s: %+v, want %v", q.Name, q, want)
			}
		}
		if q := list[3]; q.TTL >= 0 || q.Bytes != 1 {
			s.t.Errorf("what never expires: %v left, %d bytes", q.TTL, q.Bytes)
		}
		if q := list[5]; q.Bytes != 0 {
			s.t.Errorf("what is no string has %d bytes", q.Bytes)
		}
	})
}

func TestList_IsNoLongerThanItMayBe(t *testing.T) {
	everywhere(t, func(s *shelf) {
		for i := range 250 {
			s.keep(fmt.Sprintf("property:%03d", i), 200)
		}
		s.keep("property_count", 200)
		if list, more := s.list(250); len(list) != 252 || more || list[251].Name != "property:249" || !list[251].Present || !list[1].Present {
			s.t.Errorf("%d of 252, more: %v", len(list), more)
		}
		for _, limit := range []int{249, 7, 0, -1} {
			if list, more := s.list(limit); len(list) != 2+max(limit, 0) || !more || !slices.Equal(namesOf(list[:2]), Known) {
				s.t.Errorf("limit %d: %d, more: %v", limit, len(list), more)
			}
		}
	})
}

func TestList_TakesThePrefixLiterally(t *testing.T) {
	url, prefix := sandboxtest.Redis(t)
	s := newShelf(t, url, prefix+`[a]*?\:`)
	s.keep("x", 200)
	newShelf(t, url, prefix+`a123\:`).keep("y", 200)
	if list, _ := s.list(10); !slices.Equal(namesOf(list[2:]), []string{"x"}) || !list[2].Present {
		t.Errorf("%+v", list)
	}
}

func TestList_OfARedisThatIsAwayIsAnError(t *testing.T) {
	server := sandboxtest.OwnRedis(t)
	s := newShelf(t, server.URL(), "wc:")
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := List(t.Context(), s.client, s.prefix, 10); err == nil || !strings.HasPrefix(err.Error(), "list querysets: ") {
		t.Errorf("%v", err)
	}
	if _, err := Clear(t.Context(), s.client, s.prefix, Pages); err == nil || !strings.HasPrefix(err.Error(), "clear wc:*: ") {
		t.Errorf("%v", err)
	}
}

func TestClear_RemovesWhatItIsToldAndNothingElse(t *testing.T) {
	everywhere(t, func(s *shelf) {
		for i := range 1234 {
			s.set(fmt.Sprint("qs:", i), "x", time.Hour)
			s.set(fmt.Sprint("page:https://a/", i), "x", time.Hour)
		}
		others := []string{"session:qs:1", "login:address:page:1", "log", "checkpoint", "members", "qs", "pages:1"}
		for _, key := range others {
			s.set(key, "x", 0)
		}
		s.clears(map[Kind]int64{Querysets: 1234}, Querysets)
		s.set("qs:1", "x", time.Hour)
		s.clears(map[Kind]int64{Querysets: 1, Pages: 1234}, Querysets, Pages)
		s.clears(map[Kind]int64{Querysets: 0, Pages: 0}, Querysets, Pages)
		for _, key := range others {
			if n, err := s.client.Exists(s.t.Context(), s.prefix+key).Result(); err != nil || n != 1 {
				s.t.Errorf("%s is gone (%v)", key, err)
			}
		}
	})
}

func (s *shelf) clears(want map[Kind]int64, kinds ...Kind) {
	s.t.Helper()
	got, err := Clear(s.t.Context(), s.client, s.prefix, kinds...)
	if err != nil || len(got) != len(want) || got[Querysets] != want[Querysets] || got[Pages] != want[Pages] {
		s.t.Errorf("removed %v, %v; want %v", got, err, want)
	}
}
