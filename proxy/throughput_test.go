package main

import (
	"flag"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"walcache/proxy/sandbox/sandboxtest"
)

var (
	measureEach = flag.Duration("measure.each", 100*time.Millisecond, "how long each way is asked, in each of five rounds")
	measureRows = flag.Int("measure.rows", 1000, "the longest list that is asked for")
)

// TestMeasure_Lists asks for the list of all properties over 16 connections: from
// the database, from the cached queryset, and from the cached page. It reports
// how many answers a second came; the three take turns.
func TestMeasure_Lists(t *testing.T) {
	for _, rows := range []int{10, 1000, 10_000} {
		if rows > *measureRows {
			continue
		}
		s := start(t, sandboxtest.Postgres(t), sharing(t))
		s.rows(rows)
		s.caughtUp()
		plain := &system{t: t, dsn: s.dsn}
		t.Cleanup(plain.runBackend(redisConfig{}))
		ways := []struct {
			name, url string
			rates     []float64
		}{{name: "database", url: plain.direct}, {name: "queryset", url: s.direct}, {name: "page", url: s.url}}
		for round := range 6 { // the first fills the caches
			for i, way := range ways {
				rate := s.answersPerSecond(way.url + "/properties/")
				if round > 0 {
					ways[i].rates = append(ways[i].rates, rate)
				}
			}
		}
		for _, way := range ways {
			slices.Sort(way.rates)
			t.Logf("%d rows, from the %s: %.0f answers/s (%.0f to %.0f)", rows, way.name, way.rates[2], way.rates[0], way.rates[4])
		}
	}
}

func (s *system) answersPerSecond(url string) float64 {
	var answers atomic.Int64
	var group sync.WaitGroup
	began := time.Now()
	for range 16 {
		group.Go(func() {
			for time.Since(began) < *measureEach {
				req, err := http.NewRequest(http.MethodGet, url, nil)
				if err != nil {
					s.t.Error(err)
					return
				}
				req.Header.Set("Accept", "application/json")
				res, err := s.client.Do(req)
				if err != nil {
					s.t.Error(err)
					return
				}
				_, err = io.Copy(io.Discard, res.Body)
				_ = res.Body.Close()
				if err != nil || res.StatusCode != http.StatusOK {
					s.t.Errorf("%s: %s, %v", url, res.Status, err)
					return
				}
				answers.Add(1)
			}
		})
	}
	group.Wait()
	return float64(answers.Load()) / time.Since(began).Seconds()
}
