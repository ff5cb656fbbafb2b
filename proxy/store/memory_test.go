package store_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"walcache/proxy/cache"
	"walcache/proxy/origin"
	"walcache/proxy/store"
)

// fill puts pages of a size into a store, through a cache.
func fill(t *testing.T, memory *store.Memory, pages, size int) {
	t.Helper()
	body := strings.Repeat("x", size)
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(body))
	}))
	defer upstream.Close()
	o, err := origin.New(origin.Config{Upstream: upstream.URL, Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	config := cache.Defaults()
	config.Origin, config.Store, config.Truth = o, memory, cache.NewUnwatched()
	c, err := cache.New(config)
	if err != nil {
		t.Fatal(err)
	}
	for i := range pages {
		w := httptest.NewRecorder()
		c.ServeHTTP(w, httptest.NewRequest(http.MethodGet, fmt.Sprintf("/%d", i), nil))
		if w.Body.Len() != size {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
	}
}

func TestMemory_StaysBelowItsSize(t *testing.T) {
	const size = 1 << 20
	memory, err := store.NewMemory(size)
	if err != nil {
		t.Fatal(err)
	}
	defer memory.Close()
	fill(t, memory, 500, 10_000)
	for deadline := time.Now().Add(10 * time.Second); memory.Bytes() > size; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes in a store of %d", memory.Bytes(), size)
		}
	}
	if n := memory.Pages(); n < 50 || n > 104 {
		t.Errorf("%d pages of 10 kB in a store of 1 MiB", n)
	}
}

func TestMemory_CountsWhatIsAroundABodyToo(t *testing.T) {
	memory, err := store.NewMemory(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer memory.Close()
	fill(t, memory, 100, 1)
	if got := memory.Bytes(); got < 100*500 {
		t.Errorf("100 pages of one byte count for %d bytes", got)
	}
}
