package main

import (
	"context"
	"flag"
	"slices"
	"sync"
	"testing"
	"time"

	"walcache/proxy/sandbox/sandboxtest"
)

var latencyUpdates = flag.Int("latency.updates", 200, "updates of the latency test")

// TestLatency_FromCommitToTheFirstFreshAnswer measures the time from COMMIT
// having returned to the arrival of the first request with a fresh answer,
// while 16 readers keep the pages hot, and wants 200 other rows' pages to stay
// hits all the while. It asserts no time.
func TestLatency_FromCommitToTheFirstFreshAnswer(t *testing.T) {
	const readers, others = 16, 200
	s := start(t, sandboxtest.Postgres(t), nil)
	s.rows(readers + others)
	ctx, stop := context.WithCancel(context.Background())
	var group sync.WaitGroup
	for i := range readers {
		group.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				_, _ = s.fetch(s.url + row(1+(i+n)%readers))
				time.Sleep(2 * time.Millisecond)
			}
		})
	}
	for id := readers + 1; id <= readers+others; id++ {
		s.warm(row(id))
	}
	lost := 0
	var latencies, polls []time.Duration
	for n := range *latencyUpdates {
		id := 1 + n%readers
		s.warm(row(id))
		price := ""
		err := s.db.QueryRow(ctx, "UPDATE properties SET price = price + 1 WHERE id = $1 RETURNING price::text", id).Scan(&price)
		committed := time.Now()
		if err != nil {
			t.Fatal(err)
		}
		for asked := committed; ; {
			p, err := decode[property](s.get(row(id)).body)
			if err != nil {
				t.Fatal(err)
			}
			if p.Price == price {
				latencies = append(latencies, asked.Sub(committed))
				break
			}
			polls = append(polls, time.Since(asked))
			asked = time.Now()
		}
		if r := s.get(row(readers + 1 + n%others)); !r.hit() {
			lost++
		}
	}
	stop()
	group.Wait()
	slices.Sort(latencies)
	slices.Sort(polls)
	at := func(p float64) time.Duration {
		return latencies[int(p*float64(len(latencies)-1))].Round(time.Microsecond)
	}
	t.Logf("%d updates: COMMIT to first fresh answer p50 %s, p99 %s, max %s", len(latencies), at(0.5), at(0.99), at(1))
	if len(polls) > 0 {
		t.Logf("%d answers were old; asking took p50 %s, max %s", len(polls), polls[len(polls)/2].Round(time.Microsecond), polls[len(polls)-1].Round(time.Microsecond))
	}
	if lost > 0 {
		t.Errorf("%d of %d answers from untouched pages were no hits", lost, *latencyUpdates)
	}
}
