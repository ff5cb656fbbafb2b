package faults

import (
	"fmt"
	"net/http"
	"slices"
	"time"

	"walcache/proxy/sandbox"
	"walcache/proxy/sandbox/sandboxtest"
)

// processFaults are what happens to our programs, and to their roads.
func processFaults() []fault {
	postgres := func(p *proxy) []*sandbox.Relay { return []*sandbox.Relay{p.toPostgres} }
	redis := func(p *proxy) []*sandbox.Relay { return []*sandbox.Relay{p.toRedis} }
	both := func(p *proxy) []*sandbox.Relay { return []*sandbox.Relay{p.toPostgres, p.toRedis} }
	return []fault{
		{name: "leader-killed", strike: func(r *run) { r.kill(r.leader()) }, short: true},
		{name: "leader-frozen", strike: func(r *run) { r.freezeProxy(r.leader(), 10*time.Second) }},
		{name: "leader-stopped", strike: func(r *run) { r.restart(r.leader()) }},
		{name: "leader-cut-from-postgres", strike: func(r *run) { r.cutLeader("PostgreSQL", postgres) }},
		{name: "leader-cut-from-redis", strike: func(r *run) { r.cut(r.leader(), "Redis", redis) }},
		{name: "leader-cut-from-both", strike: func(r *run) { r.cutLeader("both servers", both) }},
		{name: "leader-deaf-to-postgres", strike: func(r *run) { r.deafen(func(p *proxy) *sandbox.Relay { return p.toPostgres }) }},
		{name: "leader-deaf-to-redis", strike: func(r *run) { r.deafen(func(p *proxy) *sandbox.Relay { return p.toRedis }) }},
		{name: "two-leaders", strike: twoLeaders},
		{name: "follower-killed", strike: func(r *run) { r.kill(r.followers()[0]) }},
		{name: "follower-frozen", strike: func(r *run) { r.freezeProxy(r.followers()[0], 10*time.Second) }},
		{name: "follower-restarted", strike: func(r *run) { r.restart(r.followers()[0]) }},
		{name: "follower-cut-from-redis", strike: func(r *run) { r.cut(r.followers()[0], "Redis", redis) }},
		{name: "follower-cut-from-postgres", strike: func(r *run) { r.cut(r.followers()[0], "PostgreSQL", postgres) }},
		{name: "listener-killed", strike: func(r *run) { r.kill(r.leader()) }, apart: true},
		{name: "listener-frozen", strike: func(r *run) { r.freezeProxy(r.leader(), 10*time.Second) }, apart: true},
		{name: "rolling-deploy", strike: deploy},
		{name: "proxies-killed", strike: func(r *run) { r.kill(r.proxies...) }},
		{name: "backend-killed", strike: killBackend},
		{name: "backend-frozen", strike: freezeBackend},
	}
}

// kill ends proxies without warning, and starts them again.
func (r *run) kill(proxies ...*proxy) {
	r.strike("kill -9", proxies...)
	for _, p := range proxies {
		r.must(p.kill())
	}
	r.hold(0, 3*time.Second)
	r.note("start again")
	for _, p := range proxies {
		r.must(p.start())
	}
}

// freezeProxy stops a proxy that does not know of it.
func (r *run) freezeProxy(p *proxy, about time.Duration) {
	r.strike("freeze", p)
	r.must(p.freeze())
	r.hold(about-time.Second, about)
	r.note("thaw")
	r.must(p.thaw())
}

// restart ends a proxy in good order, and starts it again.
func (r *run) restart(p *proxy) {
	r.strike("stop", p)
	r.must(p.stop())
	r.hold(0, 2*time.Second)
	r.note("start again")
	r.must(p.start())
}

// deploy replaces one proxy after the other, in any order.
func deploy(r *run) {
	for _, i := range r.rnd.Perm(len(r.proxies)) {
		p := r.proxies[i]
		r.strike("replace", p)
		r.must(p.stop())
		r.must(p.start())
		sandboxtest.Eventually(r, patience, p.ready)
		r.hold(100*time.Millisecond, time.Second)
	}
}

// ready asks as whoever spreads requests over proxies does.
func (p *proxy) ready() error {
	res, err := p.client.Get(p.admin + "/readyz")
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s is not ready: %d", p.name, res.StatusCode)
	}
	return nil
}

// sever breaks a proxy's roads in one of the ways in which networks break.
func (r *run) sever(p *proxy, from string, roads []*sandbox.Relay) {
	how := one(r, "lose all packets", "reset and refuse connections")
	r.strike(fmt.Sprintf("between %s and us, %s:", from, how), p)
	for _, road := range roads {
		if how == "lose all packets" {
			road.Cut()
		} else {
			r.must(road.Sever())
		}
	}
}

// deafen lets the leader be heard by a server that it does not hear.
func (r *run) deafen(road func(*proxy) *sandbox.Relay) {
	p := r.leader()
	r.strike("lose what the server says to", p)
	road(p).CutAnswers()
	r.hold(time.Second, 6*time.Second)
	r.heal([]*sandbox.Relay{road(p)})
}

func (r *run) heal(roads []*sandbox.Relay) {
	r.note("heal the network")
	for _, road := range roads {
		r.must(road.Heal())
	}
}

func (r *run) cut(p *proxy, from string, roads func(*proxy) []*sandbox.Relay) {
	r.sever(p, from, roads(p))
	r.hold(500*time.Millisecond, 6*time.Second)
	r.heal(roads(p))
}

// cutLeader lasts until another has taken over, and a moment longer.
func (r *run) cutLeader(from string, roads func(*proxy) []*sandbox.Relay) {
	p := r.leader()
	r.sever(p, from, roads(p))
	r.untilTakenOver(p)
	r.hold(0, 2*time.Second)
	r.heal(roads(p))
}

// twoLeaders thaws a leader that another has replaced, with all that it still
// had to say.
func twoLeaders(r *run) {
	p := r.leader()
	r.strike("freeze", p)
	r.must(p.freeze())
	r.untilTakenOver(p)
	r.hold(0, time.Second)
	r.note("thaw")
	r.must(p.thaw())
}

func killBackend(r *run) {
	b := one(r, r.backends...)
	r.strike("kill -9 "+b.name, r.behind(b)...)
	r.must(b.kill())
	r.hold(0, 2*time.Second)
	r.must(b.start())
}

func freezeBackend(r *run) {
	b := one(r, r.backends...)
	r.strike("freeze "+b.name, r.behind(b)...)
	r.must(b.freeze())
	r.hold(time.Second, 4*time.Second)
	r.must(b.thaw())
}

// behind are the proxies that ask a backend.
func (r *run) behind(b *process) (proxies []*proxy) {
	for _, p := range r.proxies {
		if r.backends[slices.Index(r.proxies, p)/2] == b {
			proxies = append(proxies, p)
		}
	}
	return proxies
}
