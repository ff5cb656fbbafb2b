package main

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/jackc/pgx/v5"
	"github.com/urfave/cli/v2"

	"walcache/proxy/accesslog"
	"walcache/proxy/cache"
	"walcache/proxy/origin"
	"walcache/proxy/redisurl"
	"walcache/proxy/replication"
	"walcache/proxy/settings"
)

const (
	whereCategory     = "WHERE"
	databaseCategory  = "DATABASE"
	redisCategory     = "REDIS"
	freshnessCategory = "FRESHNESS"
	storingCategory   = "STORING"
	upstreamCategory  = "UPSTREAM"
	adminCategory     = "ADMIN"
)

// serveFlags are all that `proxy serve` can be told. A flag's text is its
// documentation: what it does, and when to change it.
func serveFlags() []cli.Flag {
	return slices.Concat(databaseFlags(), listenerFlags(), redisFlags(), cacheFlags(), adminPortFlags(), manageFlags(), []cli.Flag{
		&cli.StringFlag{Name: "addr", Category: whereCategory, Value: ":8001", EnvVars: []string{"ADDR"},
			Usage: "`HOST:PORT` that clients point at"},
		&cli.StringFlag{Name: "tls-cert", Category: whereCategory, EnvVars: []string{"TLS_CERT"},
			Usage: "PEM `FILE` with the certificate and its chain: clients then use https, with HTTP/2 or HTTP/1.1; read again when it changes"},
		&cli.StringFlag{Name: "tls-key", Category: whereCategory, EnvVars: []string{"TLS_KEY"},
			Usage: "PEM `FILE` with the key of that certificate"},
		&cli.BoolFlag{Name: "listen", Category: databaseCategory, Value: true, EnvVars: []string{"LISTEN"},
			Usage: "take part in following the database; false leaves that to others (proxy listen), and needs --redis-url"},
		&cli.BoolFlag{Name: "no-coherence", Category: freshnessCategory, EnvVars: []string{"NO_COHERENCE"},
			Usage: "do without a database: an ordinary cache, that only time makes stale"},
		&cli.StringFlag{Name: "tags", Category: freshnessCategory, EnvVars: []string{"TAGS"},
			Usage: "`trust` takes the tags of answers that state no position for all they depend on; by default such answers depend on the whole database too"},
		&cli.StringFlag{Name: "upstream", Category: upstreamCategory, Value: "http://127.0.0.1:8002", EnvVars: []string{"UPSTREAM"},
			Usage: "`URL` of the service to cache"},
	})
}

// listenFlags are all that `proxy listen` can be told.
func listenFlags() []cli.Flag {
	return slices.Concat(databaseFlags(), listenerFlags(), redisFlags(), adminPortFlags())
}

// adminPortFlags are about the operator's port.
func adminPortFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "admin-addr", Category: adminCategory, Value: "127.0.0.1:8003", EnvVars: []string{"ADMIN_ADDR"},
			Usage: "`HOST:PORT` for operators; off loopback, most of it needs the token"},
		&cli.StringFlag{Name: "admin-token", Category: adminCategory, EnvVars: []string{"ADMIN_TOKEN"},
			Usage: "`SECRET` that operators send as Authorization: Bearer; prefer the variable or --admin-token-file, since ps shows flags"},
		&cli.StringFlag{Name: "admin-token-file", Category: adminCategory, EnvVars: []string{"ADMIN_TOKEN_FILE"},
			Usage: "`FILE` that holds the token"},
		&cli.StringFlag{Name: "admin-hosts", Category: adminCategory, EnvVars: []string{"ADMIN_HOSTS"},
			Usage: "`NAMES`, comma-separated, under which operators reach the admin port besides this machine's own addresses"},
		&cli.BoolFlag{Name: "debug", Category: adminCategory, EnvVars: []string{"DEBUG"},
			Usage: "log at level debug what --log-level leaves open, and let who sits at this machine use the admin port without a token; never in production"},
		settings.LogFlag(adminCategory),
	}
}

// redisFlags name what the processes of a cluster share.
func redisFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "redis-url", Category: redisCategory, EnvVars: []string{"REDIS_URL"},
			Usage: "Redis `URL` that the processes of a cluster share: redis://host:6379/0, redis+sentinel://host:26379/NAME or redis+cluster://host:7000; without it, one process and its memory"},
		&cli.StringFlag{Name: "redis-url-file", Category: redisCategory, EnvVars: []string{"REDIS_URL_FILE"},
			Usage: "`FILE` that holds the URL"},
		&cli.StringFlag{Name: "prefix", Category: redisCategory, Value: "wc:", EnvVars: []string{"PREFIX"},
			Usage: "`TEXT` that all keys in Redis begin with; one per cluster of proxies"},
	}
}

// databaseFlags name the database, and what is the proxy's in it.
func databaseFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "database-url", Category: databaseCategory, EnvVars: []string{"DATABASE_URL"},
			Usage: "PostgreSQL `URL` of the primary that the service answers from; directly, not through a pooler"},
		&cli.StringFlag{Name: "database-url-file", Category: databaseCategory, EnvVars: []string{"DATABASE_URL_FILE"},
			Usage: "`FILE` that holds the URL"},
		&cli.StringFlag{Name: "slot", Category: databaseCategory, Value: "walcache", EnvVars: []string{"SLOT"},
			Usage: "`NAME` of the replication slot; one per cluster of proxies"},
		&cli.StringFlag{Name: "publication", Category: databaseCategory, Value: "walcache", EnvVars: []string{"PUBLICATION"},
			Usage: "`NAME` of the publication for inserts; the one for updates adds _updates"},
	}
}

// listenerFlags are about following it.
func listenerFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "ignore-tables", Category: databaseCategory, EnvVars: []string{"IGNORE_TABLES"},
			Usage: "`GLOBS`, comma-separated, of tables whose changes matter to no answer, such as sessions,jobs"},
		&cli.GenericFlag{Name: "max-retained-wal", Category: databaseCategory, Value: newBytes("1GiB"), EnvVars: []string{"MAX_RETAINED_WAL"},
			Usage: "`BYTES` of WAL that PostgreSQL may keep for the slot; past it the slot is given up and the cache starts anew"},
	}
}

// cacheFlags are those that decide what is cached and how long, for serve and
// the demo alike.
func cacheFlags() []cli.Flag {
	return []cli.Flag{
		&cli.DurationFlag{Name: "max-staleness", Category: freshnessCategory, Value: 2 * time.Second, EnvVars: []string{"MAX_STALENESS"},
			Usage: "the promise: an answer contains every commit acknowledged this long before its request"},
		&cli.DurationFlag{Name: "grace", Category: freshnessCategory, EnvVars: []string{"GRACE"},
			Usage: "serve a changed answer whose data was read this recently while one request refreshes it; at most --max-staleness"},
		&cli.DurationFlag{Name: "serve-changed-if-error", Category: freshnessCategory, EnvVars: []string{"SERVE_CHANGED_IF_ERROR"},
			Usage: "serve a changed answer up to this old while the service fails, marked in Cache-Status"},
		&cli.DurationFlag{Name: "serve-expired-if-error", Category: freshnessCategory, Value: time.Minute, EnvVars: []string{"SERVE_EXPIRED_IF_ERROR"},
			Usage: "serve an answer that has not changed this long past its lifetime while the service does not answer at all, unless the answer forbids it; 0 is never"},
		&cli.StringFlag{Name: "client-cache-control", Category: freshnessCategory, Value: "proven", EnvVars: []string{"CLIENT_CACHE_CONTROL"},
			Usage: "`HOW` a client's no-cache and max-age=0 count: proven answers them from what is proven fresh, and fetches anew where nothing is; honour always fetches anew"},
		&cli.DurationFlag{Name: "write-wait", Category: freshnessCategory, Value: 50 * time.Millisecond, EnvVars: []string{"WRITE_WAIT"},
			Usage: "hold the answer to a write until this proxy knows of it, at most this long, so that clients read their own writes; 0 is off"},
		&cli.DurationFlag{Name: "ttl", Category: storingCategory, Value: 15 * time.Minute, EnvVars: []string{"TTL"},
			Usage: "lifetime of answers that state none; 0 leaves them to the heuristic of RFC 9111"},
		&cli.DurationFlag{Name: "max-ttl", Category: storingCategory, Value: 24 * time.Hour, EnvVars: []string{"MAX_TTL"},
			Usage: "longest lifetime, whatever an answer states"},
		&cli.GenericFlag{Name: "memory", Category: storingCategory, Value: newBytes("256MiB"), EnvVars: []string{"MEMORY"},
			Usage: "`BYTES` for stored answers, headers, keys and index included"},
		&cli.GenericFlag{Name: "max-object", Category: storingCategory, Value: newBytes("8MiB"), EnvVars: []string{"MAX_OBJECT"},
			Usage: "`BYTES` of the largest body that is stored"},
		&cli.BoolFlag{Name: "compress", Category: storingCategory, Value: true, EnvVars: []string{"COMPRESS"},
			Usage: "keep text that the service sends uncompressed in zstd, br and gzip too, as clients ask for them, so that a hit sends fewer bytes and compresses nothing"},
		&cli.StringFlag{Name: "bypass", Category: storingCategory, EnvVars: []string{"BYPASS"},
			Usage: "`PATHS`, comma-separated, that pass through, such as /admin/*,/cart*"},
		&cli.StringFlag{Name: "ignore-cookies", Category: storingCategory, EnvVars: []string{"IGNORE_COOKIES"},
			Usage: "`GLOBS`, comma-separated, of cookies that do not make a request personal, such as _ga*"},
		&cli.StringFlag{Name: "ignore-query", Category: storingCategory, EnvVars: []string{"IGNORE_QUERY"},
			Usage: "`GLOBS`, comma-separated, of query parameters that change no answer, such as utm_*,gclid; they are neither sent on nor make another page of a URL"},
		&cli.StringFlag{Name: "vary-accept", Category: storingCategory, EnvVars: []string{"VARY_ACCEPT"},
			Usage: "media `TYPES`, comma-separated, that the service chooses from by Accept, such as application/json,text/html; requests that rank the same one first share an answer"},
		&cli.StringFlag{Name: "private-headers", Category: storingCategory, Value: strings.Join(cache.Defaults().PrivateHeaders, ","), EnvVars: []string{"PRIVATE_HEADERS"},
			Usage: "`NAMES`, comma-separated, of request headers that make a request personal"},
		&cli.BoolFlag{Name: "store-set-cookie", Category: storingCategory, EnvVars: []string{"STORE_SET_COOKIE"},
			Usage: "store answers that set a cookie although they are not marked public"},
		&cli.IntFlag{Name: "max-fetches", Category: upstreamCategory, Value: 128, EnvVars: []string{"MAX_FETCHES"},
			Usage: "`N` requests to the service at a time; others queue. Writes have as many of their own"},
		&cli.DurationFlag{Name: "queue-timeout", Category: upstreamCategory, Value: 5 * time.Second, EnvVars: []string{"QUEUE_TIMEOUT"},
			Usage: "longest wait in that queue; then 503"},
		&cli.DurationFlag{Name: "upstream-timeout", Category: upstreamCategory, Value: time.Minute, EnvVars: []string{"UPSTREAM_TIMEOUT"},
			Usage: "longest wait for the header of a response; then 504"},
		&cli.StringFlag{Name: "upstream-host", Category: upstreamCategory, EnvVars: []string{"UPSTREAM_HOST"},
			Usage: "`HOST` to send instead of the client's"},
		&cli.StringFlag{Name: "trusted-proxies", Category: upstreamCategory, EnvVars: []string{"TRUSTED_PROXIES"},
			Usage: "`CIDRS`, comma-separated, of proxies before this one whose X-Forwarded-* are passed on"},
		&cli.StringFlag{Name: "access-log", Category: adminCategory, EnvVars: []string{"ACCESS_LOG"},
			Usage: "`FILE` that gets a line of JSON for each request, without anything secret; - is standard output. SIGHUP reopens it"},
	}
}

func uninstallFlags() []cli.Flag {
	return slices.Concat(databaseFlags(), redisFlags(), []cli.Flag{
		&cli.BoolFlag{Name: "dry-run", Usage: "print what would be removed and remove nothing"}})
}

// mediaType is one without parameters, in lower case (RFC 9110, section 8.3.1).
var mediaType = regexp.MustCompile(`^[a-z0-9!#$&^_.+-]+/[a-z0-9!#$&^_.+-]+$`)

// slotName is what PostgreSQL takes for one.
var slotName = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)

// maxPublication leaves room for _updates: PostgreSQL cuts names off at 63 bytes.
const maxPublication = 63 - len("_updates")

// size is a number of bytes on the command line.
type size struct{ n uint64 }

func newBytes(text string) *size {
	s := &size{}
	if err := s.Set(text); err != nil {
		panic(err) // a default above
	}
	return s
}

// Set reads 256MiB, 1GB or 4096.
func (s *size) Set(text string) error {
	n, err := humanize.ParseBytes(text)
	if err != nil || n > 1<<62 {
		return errors.New("it is not a number of bytes, such as 256MiB")
	}
	s.n = n
	return nil
}

func (s *size) String() string {
	return strings.ReplaceAll(humanize.IBytes(s.n), " ", "")
}

func bytesOf(c *cli.Context, name string) int64 { return int64(c.Generic(name).(*size).n) }

// list splits a comma-separated flag.
func list(c *cli.Context, name string) []string {
	return strings.FieldsFunc(c.String(name), func(r rune) bool { return r == ',' || r == ' ' })
}

// serveOptions reads and checks what serve was told.
func serveOptions(c *cli.Context) (o options, err error) {
	if c.Args().Present() {
		return o, usagef("serve takes no %q", c.Args().First())
	}
	if o, err = cacheOptions(c); err != nil {
		return o, err
	}
	if err := o.coherenceOptions(c); err != nil {
		return o, err
	}
	o.addr = c.String("addr")
	if err := o.tlsOptions(c); err != nil {
		return o, err
	}
	if err := o.adminOptions(c); err != nil {
		return o, err
	}
	if err := o.manageOptions(c); err != nil {
		return o, err
	}
	o.origin.Upstream = c.String("upstream")
	if _, err := origin.New(o.origin); err != nil {
		return o, usageError{fmt.Errorf("--upstream (UPSTREAM): %w", err)}
	}
	return o, nil
}

// coherenceOptions say how the proxy comes to know of changes.
func (o *options) coherenceOptions(c *cli.Context) (err error) {
	if o.redis, err = redisOptions(c); err != nil {
		return err
	}
	for _, glob := range list(c, "ignore-tables") {
		if _, err := path.Match(glob, ""); err != nil {
			return usagef("--ignore-tables: %q is not a glob", glob)
		}
	}
	if c.Bool("no-coherence") {
		return nil
	}
	o.coherent = true
	if !c.Bool("listen") {
		if o.redis.url == "" {
			return usagef("--listen=false leaves the database to others, and without Redis nothing is heard of them\n  try: --redis-url (REDIS_URL), as the others have it")
		}
		o.databaseURL, err = settings.Secret(c, "database-url") // to know when a write has arrived
		return err
	}
	config, err := listenerConfig(c)
	o.listener, o.databaseURL = &config, config.DatabaseURL
	return err
}

func (o *options) adminOptions(c *cli.Context) (err error) {
	o.adminAddr, o.debug = c.String("admin-addr"), c.Bool("debug")
	o.admin.Hosts, o.admin.Trusting = list(c, "admin-hosts"), o.debug
	o.admin.Token, err = settings.Secret(c, "admin-token")
	return err
}

// redisConfig is what the processes of a cluster share; without a URL, nothing.
type redisConfig struct{ url, prefix string }

// keyPrefix is what keys may begin with: what a person can type, and nothing
// that means something to Redis Cluster or to a pattern.
var keyPrefix = regexp.MustCompile(`^[A-Za-z0-9_.:/-]{1,64}$`)

func redisOptions(c *cli.Context) (r redisConfig, err error) {
	r.prefix = c.String("prefix")
	if r.url, err = settings.Secret(c, "redis-url"); err != nil || r.url == "" {
		return r, err
	}
	client, err := redisurl.Open(r.url, nil)
	if err != nil {
		return r, usageError{fmt.Errorf("--redis-url: %w", err)}
	}
	if !keyPrefix.MatchString(r.prefix) {
		return r, usagef("--prefix is %q and has to be 1 to 64 letters, digits, or _ . : / -", r.prefix)
	}
	return r, client.Close()
}

func listenerConfig(c *cli.Context) (replication.Config, error) {
	config, err := databaseConfig(c)
	config.IgnoreTables, config.MaxRetainedWAL = list(c, "ignore-tables"), bytesOf(c, "max-retained-wal")
	return config, err
}

func databaseConfig(c *cli.Context) (config replication.Config, err error) {
	config = replication.Config{Slot: c.String("slot"), Publication: c.String("publication")}
	if config.DatabaseURL, err = settings.Secret(c, "database-url"); err != nil {
		return config, err
	}
	if config.DatabaseURL == "" {
		return config, usagef("no database is named\n  try: DATABASE_URL=postgres://user@host/name, or serve --no-coherence for an ordinary cache")
	}
	if _, err := pgx.ParseConfig(config.DatabaseURL); err != nil {
		return config, usageError{fmt.Errorf("--database-url: %w", err)}
	}
	if !slotName.MatchString(config.Slot) {
		return config, usagef("--slot is %q and may only have lower case letters, digits and _, 63 at most", config.Slot)
	}
	if n := len(config.Publication); n == 0 || n > maxPublication {
		return config, usagef("--publication is %q and has to have 1 to %d bytes", config.Publication, maxPublication)
	}
	return config, nil
}

// cacheOptions reads what serve and the demo have in common.
func cacheOptions(c *cli.Context) (o options, err error) {
	o.memory = bytesOf(c, "memory")
	o.maxStaleness = c.Duration("max-staleness")
	o.cache = cache.Config{
		TTL: c.Duration("ttl"), MaxTTL: c.Duration("max-ttl"), MaxObject: bytesOf(c, "max-object"),
		Grace: c.Duration("grace"), ServeChangedIfError: c.Duration("serve-changed-if-error"),
		ExpiredIfError: c.Duration("serve-expired-if-error"),
		WriteWait:      c.Duration("write-wait"), TrustTags: c.String("tags") == "trust", Compress: c.Bool("compress"),
		MaxFetches: c.Int("max-fetches"), QueueTimeout: c.Duration("queue-timeout"),
		Bypass: list(c, "bypass"), IgnoreCookies: list(c, "ignore-cookies"), IgnoreQuery: list(c, "ignore-query"),
		HonourClients:  c.String("client-cache-control") == "honour",
		MediaTypes:     list(c, "vary-accept"),
		PrivateHeaders: list(c, "private-headers"), StoreSetCookie: c.Bool("store-set-cookie"),
	}
	o.accessLog = accesslog.Config{File: c.String("access-log"), Stdout: c.App.Writer}
	o.origin = origin.Config{Host: c.String("upstream-host"), Timeout: c.Duration("upstream-timeout")}
	for _, cidr := range list(c, "trusted-proxies") {
		prefix, err := settings.ParseNetwork(cidr)
		if err != nil {
			return o, usagef("--trusted-proxies: %q is neither an address nor a network like 10.0.0.0/8", cidr)
		}
		o.origin.Trusted = append(o.origin.Trusted, prefix)
	}
	o.accessLog.Trusted = o.origin.Trusted
	return o, o.check(c)
}

func (o *options) check(c *cli.Context) error {
	for _, name := range []string{"ttl", "max-ttl", "grace", "serve-changed-if-error", "serve-expired-if-error", "write-wait", "queue-timeout", "upstream-timeout"} {
		if c.Duration(name) < 0 {
			return usagef("--%s is negative", name)
		}
	}
	for _, name := range o.cache.MediaTypes {
		if !mediaType.MatchString(name) {
			return usagef("--vary-accept: %q is no media type, such as text/html", name)
		}
	}
	switch {
	case c.String("tags") != "" && c.String("tags") != "trust":
		return usagef("--tags is %q and can only be trust", c.String("tags"))
	case !slices.Contains([]string{"proven", "honour"}, c.String("client-cache-control")):
		return usagef("--client-cache-control is %q and can only be proven or honour", c.String("client-cache-control"))
	case o.maxStaleness < 500*time.Millisecond:
		return usagef("--max-staleness is %s; below 500ms nothing can be proven, since freshness is measured five times a second", o.maxStaleness)
	case o.cache.Grace > o.maxStaleness:
		return usagef("--grace is %s and may be at most --max-staleness (%s), or the promise would not hold", o.cache.Grace, o.maxStaleness)
	case o.cache.MaxFetches < 1:
		return usagef("--max-fetches has to be at least 1")
	case o.memory < 1<<20:
		return usagef("--memory has to be at least 1MiB")
	}
	return nil
}
