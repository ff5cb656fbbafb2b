package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"

	"walcache/proxy/admin"
	"walcache/proxy/cache"
	"walcache/proxy/guard"
	"walcache/proxy/manage"
	"walcache/proxy/settings"
	"walcache/proxy/wire"
)

// manageFlags are about what operators ask on the proxy's own port.
func manageFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "manage-prefix", Category: adminCategory, EnvVars: []string{"MANAGE_PREFIX"},
			Usage: "`PATH` on the proxy's port, such as /properties/, below which cache-status/, cache-clear/ and the like answer; they need the token"},
		&cli.BoolFlag{Name: "manage-public", Category: adminCategory, EnvVars: []string{"MANAGE_PUBLIC"},
			Usage: "let everybody read there without the token; cache-test/, which writes, needs it all the same"},
		&cli.StringFlag{Name: "api-token", Category: adminCategory, EnvVars: []string{"API_TOKEN"},
			Usage: "`SECRET` with which the service lets programs write, for cache test-signals alone; prefer the variable or --api-token-file"},
		&cli.StringFlag{Name: "api-token-file", Category: adminCategory, EnvVars: []string{"API_TOKEN_FILE"},
			Usage: "`FILE` that holds that token"},
	}
}

// manageOptions are where operators ask on the proxy's own port.
type manageOptions struct {
	prefix, apiToken string
	public           bool
	// trusting lets who sits at this machine do anything without the token. Only a
	// demo does: what stands before a real port may come from this machine, and
	// speak for everybody.
	trusting bool
}

func (o *options) manageOptions(c *cli.Context) (err error) {
	o.manage.prefix, o.manage.public = c.String("manage-prefix"), c.Bool("manage-public")
	if p := o.manage.prefix; p != "" && (!strings.HasPrefix(p, "/") || !strings.HasSuffix(p, "/") || strings.HasPrefix(p, "//") || strings.ContainsAny(p, "?#%")) {
		return usagef("--manage-prefix is %q and has to begin and end with a slash, such as /properties/", p)
	}
	o.manage.apiToken, err = settings.Secret(c, "api-token")
	return err
}

// operators is what every process has for those who operate it.
type operators struct {
	admin   *admin.Server
	manager *manage.Manager // does what they ask of the whole cache
	refused *wire.Counters  // requests, on both ports
}

// newOperators wires it to the parts that it reads from. proxyAt is where clients
// ask, or else the admin port.
func newOperators(o options, s admin.Sources, proxyAt, adminAt net.Addr, log *slog.Logger) (p operators, err error) {
	if p.manager, err = newManager(o, s.Sources, proxyAt, log); err != nil {
		return p, err
	}
	o.admin.Addr = adminAt
	p.refused = &wire.Counters{}
	s.Refused = p.refused
	s.Manager, s.History = p.manager, p.manager.History()
	p.admin = admin.New(o.admin, s)
	return p, nil
}

// operate does what goes on without being asked, until ctx ends.
func (p operators) operate(ctx context.Context) error {
	var group errgroup.Group
	group.Go(func() error { return p.manager.Run(ctx) })
	group.Go(func() error { return p.admin.Run(ctx) })
	return group.Wait()
}

// drain makes /readyz say no, and ends the streams of events.
func (p operators) drain() {
	p.admin.Drain()
	p.manager.Drain()
}

// newManager makes what operators ask of the whole cache.
func newManager(o options, s manage.Sources, proxyAt net.Addr, log *slog.Logger) (*manage.Manager, error) {
	m, err := manage.New(manage.Config{
		Prefix: o.manage.prefix,
		Guard:  guard.Guard{Token: o.admin.Token, Hosts: o.admin.Hosts, Open: o.manage.public, OpenHere: o.manage.trusting, Trusting: o.manage.trusting},
		Addr:   onThisMachine(proxyAt), Upstream: o.origin.Upstream, APIToken: o.manage.apiToken,
		TLS: o.tls != nil, RedisURL: o.redis.url, RedisPrefix: o.redis.prefix, Log: log,
	}, s)
	if err != nil {
		return nil, fmt.Errorf("--redis-url: %w", err)
	}
	return m, nil
}

// onThisMachine is how this machine reaches a port: one that is open on all
// addresses is reached on loopback.
func onThisMachine(at net.Addr) string {
	addr, ok := at.(*net.TCPAddr)
	if ok && addr.IP.IsUnspecified() {
		return fmt.Sprintf("127.0.0.1:%d", addr.Port)
	}
	return at.String()
}

// front is what answers on the proxy's port.
func (p *proxy) front() http.Handler {
	h := p.manager.Before(p.cache)
	if p.access != nil {
		h = p.access.Handler(h)
	}
	return h
}

// hits is what answers there before front is asked, with what front would answer
// from memory; nil if all that is answered has to pass front.
func (p *proxy) hits() wire.Answerer {
	if p.access != nil {
		return nil
	}
	return hits{p.manager, p.cache}
}

type hits struct {
	manager *manage.Manager
	cache   *cache.Cache
}

// Answer implements wire.Answerer.
func (h hits) Answer(r *http.Request, buf []byte) (head, body []byte, ok bool) {
	if h.manager.Concerns(r) {
		return nil, nil, false
	}
	return h.cache.Answer(r, buf)
}
