package cache

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"walcache/proxy/coherence"
	"walcache/proxy/rules"
)

// header makes a header of lines of the form "Name: value".
func header(lines ...string) http.Header {
	h := http.Header{}
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		h.Add(name, value)
	}
	return h
}

var (
	noon       = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	testPolicy = rules.Policy{TTL: 15 * time.Minute, MaxTTL: 24 * time.Hour, MaxObject: 1000}
	anonymous  = request{}
	withCookie = request{Asker: rules.Asker{Credentials: true}}
	withToken  = request{Asker: rules.Asker{Credentials: true, Authorization: true}}
)

func TestStand(t *testing.T) {
	tol := tolerance{grace: 2 * time.Second, changedIfError: time.Hour}
	away := tolerance{expiredIfError: time.Minute}
	windows := rules.Terms{Lifetime: time.Minute, WhileRevalidate: 10 * time.Second, IfError: 20 * time.Second}
	for _, test := range []struct {
		name    string
		tol     tolerance
		age     time.Duration
		verdict coherence.Verdict
		read    time.Duration
		want    standing
	}{
		{"fresh", tol, 59 * time.Second, coherence.Fresh, time.Hour, standing{fresh: true}},
		{"expired", tol, 60 * time.Second, coherence.Fresh, time.Minute, standing{whileRefreshing: true, ifError: true, reason: missExpired}},
		{"expired for longer", tol, 75 * time.Second, coherence.Fresh, time.Minute, standing{ifError: true, reason: missExpired}},
		{"expired for too long", tol, 80 * time.Second, coherence.Fresh, time.Minute, standing{reason: missExpired}},
		{"changed, by default", tolerance{}, 1, coherence.Changed, 0, standing{reason: missChanged}},
		{"changed within the grace", tol, 1, coherence.Changed, time.Second, standing{whileRefreshing: true, ifError: true, reason: missChanged}},
		{"changed after the grace", tol, 1, coherence.Changed, 2 * time.Second, standing{ifError: true, reason: missChanged}},
		{"changed long ago", tol, 1, coherence.Changed, time.Hour, standing{reason: missChanged}},
		{"changed, and nobody knows when it was read", tol, 1, coherence.Changed, rules.Unset, standing{reason: missChanged}},
		{"changed and expired: no window of the origin's counts", tol, 61 * time.Second, coherence.Changed, time.Second, standing{ifError: true, reason: missChanged}},
		{"of another epoch", tol, 1, coherence.OtherEpoch, time.Second, standing{whileRefreshing: true, ifError: true, reason: missEpoch}},
		{"unproven", tol, 1, coherence.Unproven, time.Second, standing{whileRefreshing: true, ifError: true, reason: missUnproven}},
		{"expired, and the upstream may be away", away, 119 * time.Second, coherence.Fresh, 0, standing{ifAway: true, reason: missExpired}},
		{"expired, and the upstream may not be away for that long", away, 120 * time.Second, coherence.Fresh, 0, standing{reason: missExpired}},
		{"expired, NoStale", away, 119 * time.Second, coherence.Fresh, 0, standing{reason: missExpired}},
		{"changed, and the upstream may be away", away, 61 * time.Second, coherence.Changed, 0, standing{reason: missChanged}},
		{"unproven, and the upstream may be away", away, 61 * time.Second, coherence.Unproven, 0, standing{reason: missUnproven}},
		{"Revalidate", tol, 1, coherence.Fresh, 0, standing{reason: missExpired}},
		{"Revalidate and expired", tol, 61 * time.Second, coherence.Fresh, 0, standing{reason: missExpired}},
		{"Revalidate and changed", tol, 1, coherence.Changed, time.Second, standing{reason: missChanged}},
		{"unproven and expired", tolerance{}, 61 * time.Second, coherence.Unproven, time.Second, standing{reason: missUnproven}},
	} {
		t.Run(test.name, func(t *testing.T) {
			windows := windows
			windows.NoStale, windows.Revalidate = strings.Contains(test.name, "NoStale"), strings.Contains(test.name, "Revalidate")
			if got := test.tol.stand(windows, test.age, test.verdict, test.read); got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

func TestPermits_WhatARequestMayNotStoreItMayNotBeAnsweredFrom(t *testing.T) {
	headers := []http.Header{
		header(), header("Cache-Control: max-age=60"), header("Cache-Control: max-age=60, public"),
		header("Cache-Control: s-maxage=60"), header("Cache-Control: public"), header("CDN-Cache-Control: max-age=60"),
	}
	for _, h := range headers {
		stored := testPolicy.Terms(anonymous.Asker, rules.Reply{Status: 200, Header: h, Length: 1, Framed: true}, noon, noon)
		e := &Entry{terms: stored}
		for _, q := range []request{anonymous, withCookie, withToken} {
			mayStore := testPolicy.Terms(q.Asker, rules.Reply{Status: 200, Header: h, Length: 1, Framed: true}, noon, noon).Refusal == ""
			if e.permits(&q) != mayStore {
				t.Errorf("%v, request %+v: may store %v, is answered %v", h, q, mayStore, !mayStore)
			}
		}
	}
}
