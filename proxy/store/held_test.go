package store_test

import (
	"net/http"
	"runtime"
	"testing"
	"time"

	"walcache/proxy/coherence"
)

// While Redis is away each fetch of a page replaces the one that waits.
func TestRedis_WhatWaitsToBeWrittenHoldsNoFlight(t *testing.T) {
	u := newUpstream(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000000")
		_, _ = w.Write(make([]byte, 1000000))
	})
	r := openRedis(t, "redis://127.0.0.1:1", "x:", 20*time.Millisecond)
	p := newProcess(t, u, r)
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc >> 20
	}
	p.get("/a")
	for i := range 100 {
		p.changed(coherence.LSN(200+i*10), "users")
		p.get("/a")
	}
	if h := heap(); h > 60 {
		t.Errorf("%d MiB held for one page of 1 MB", h)
	}
}
