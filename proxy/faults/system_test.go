package faults

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"walcache/proxy/sandbox"
	"walcache/schema"
)

// programs are ours, built once.
type programs struct{ dir string }

func (p programs) path(name string) string { return filepath.Join(p.dir, name) }

// once builds them when first asked; remove deletes them.
var once struct {
	sync.Once
	programs
	err    error
	remove func() error
}

func built(t *testing.T) programs {
	t.Helper()
	once.Do(func() { once.programs, once.err = build() })
	if once.err != nil {
		t.Fatal(once.err)
	}
	return once.programs
}

func TestMain(m *testing.M) {
	code := m.Run()
	if once.remove != nil {
		if err := once.remove(); err != nil {
			fmt.Fprintln(os.Stderr, "remove the programs:", err)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

func build() (p programs, err error) {
	if p.dir, once.remove, err = sandbox.TempDir("walcache-faults-*"); err != nil {
		return p, err
	}
	args := []string{"build", "-o", p.dir + "/"}
	if detectRaces {
		args = append(args, "-race")
	}
	args = append(args, "walcache/proxy", "walcache/backend")
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		return p, fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return p, nil
}

// system is all that runs in production, on this machine.
type system struct {
	programs
	dir       string
	remove    func() error // deletes dir
	postgres  *sandbox.Postgres
	redis     *sandbox.Redis         // the primary
	replicas  []*sandbox.Redis       // and those that may take over from it
	sentinel  *sandbox.RedisSentinel // whose server that is; nil for a Redis without
	cluster   *sandbox.RedisCluster  // whose first node that is; nil for a Redis that is none
	password  string                 // of Redis, whichever server that is
	proxies   []*proxy
	listeners []*proxy // that only listen
	backends  []*process
	toRedis   *sandbox.Relay // the backends' way
	model     model
}

// proxy is one, and its own roads to the servers.
type proxy struct {
	*process
	url, admin          string // url is "" for one that only listens
	client              *http.Client
	toPostgres, toRedis *sandbox.Relay
}

// startSystem starts everything, and waits until the proxies take requests.
func startSystem(t *testing.T, built programs, f fault) *system {
	t.Helper()
	dir, remove, err := sandbox.TempDir("walcache-faults-*")
	if err != nil {
		t.Fatal(err)
	}
	s := &system{programs: built, dir: dir, remove: remove}
	if err := s.start(f); err != nil {
		t.Fatal(errors.Join(err, s.close()))
	}
	return s
}

func (s *system) start(f fault) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	settings := map[string]string{"fsync": "off", "full_page_writes": "off"} // only processes crash here
	maps.Copy(settings, f.settings)
	var err error
	if s.postgres, err = sandbox.StartPostgres(ctx, sandbox.PostgresConfig{Dir: filepath.Join(s.dir, "postgres"), Settings: settings}); err != nil {
		return err
	}
	if err := s.startRedises(ctx, f); err != nil {
		return err
	}
	if err := schema.Up(ctx, s.postgres.DSN("")); err != nil {
		return err
	}
	if err := s.fill(ctx); err != nil {
		return err
	}
	var upstreams []string
	if s.toRedis, err = sandbox.StartRelay(local(s.redis.Port())); err != nil {
		return err
	}
	for i := range 2 {
		upstream, err := s.addBackend(i + 1)
		if err != nil {
			return err
		}
		upstreams = append(upstreams, upstream)
	}
	flags := f.flags
	if f.apart {
		flags = append(slices.Clone(flags), "--listen=false")
		for i := range 2 {
			if err := s.addListener(i + 1); err != nil {
				return err
			}
		}
	}
	for i := range 3 {
		if err := s.addProxy(i+1, upstreams[i/2], flags); err != nil {
			return err
		}
	}
	return nil
}

func (s *system) addBackend(number int) (upstream string, err error) {
	addr, err := freeAddr()
	if err != nil {
		return "", err
	}
	p := &process{
		name: fmt.Sprintf("backend-%d", number), path: s.path("backend"), dir: s.dir,
		args:    []string{"serve", "--addr=" + addr},
		environ: environ("DATABASE_URL="+s.postgres.DSN("")+"&pool_max_conns=16", "REDIS_URL="+s.redisURL(s.toRedis), "SECRET_KEY="+secretKey),
	}
	s.backends = append(s.backends, p)
	return "http://" + addr, errors.Join(p.start(), answers(addr))
}

// addProxy starts a proxy, and waits until it takes requests.
func (s *system) addProxy(number int, upstream string, flags []string) error {
	addr, err := freeAddr()
	if err != nil {
		return err
	}
	p := &proxy{url: "http://" + addr, client: newClient()}
	s.proxies = append(s.proxies, p)
	flags = append([]string{"serve", "--addr=" + addr, "--upstream=" + upstream}, flags...)
	return errors.Join(s.launch(p, fmt.Sprintf("proxy-%d", number), flags), answers(addr))
}

// addListener starts one that is no proxy.
func (s *system) addListener(number int) error {
	p := &proxy{client: newClient()}
	s.listeners = append(s.listeners, p)
	return s.launch(p, fmt.Sprintf("listener-%d", number), []string{"listen"})
}

// launch starts the program of a proxy or a listener, with relays of its own.
func (s *system) launch(p *proxy, name string, args []string) error {
	admin, err := freeAddr()
	if err != nil {
		return err
	}
	if p.toPostgres, err = sandbox.StartRelay(local(s.postgres.Port())); err != nil {
		return err
	}
	if p.toRedis, err = sandbox.StartRelay(local(s.redis.Port())); err != nil {
		return err
	}
	p.admin = "http://" + admin
	p.process = &process{
		name: name, path: s.path("proxy"), dir: s.dir,
		args:    append(args, "--admin-addr="+admin),
		environ: environ("DATABASE_URL="+by(p.toPostgres, s.postgres.DSN("")), "REDIS_URL="+s.redisURL(p.toRedis)),
	}
	return p.start()
}

// redisURL is that of the primary, by way of a relay, or of those who know the
// primary: they lead to where no relay stands in between.
func (s *system) redisURL(road *sandbox.Relay) string {
	switch {
	case s.sentinel != nil:
		return s.sentinel.URL()
	case s.cluster != nil:
		return s.cluster.URL()
	}
	return by(road, s.redis.URL())
}

// roadsToRedis are all ways to it.
func (s *system) roadsToRedis() map[string]*sandbox.Relay {
	roads := map[string]*sandbox.Relay{"the backends": s.toRedis}
	for _, p := range slices.Concat(s.proxies, s.listeners) {
		roads[p.name] = p.toRedis
	}
	return roads
}

const secretKey = "4cHNlY8vVXrQ9mJt2LkWz0bTq7uEa5RsPdGy1xFo"

// environ is all that a program of ours gets to see of the environment.
func environ(more ...string) []string {
	return append([]string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + os.TempDir()}, more...)
}

func local(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

func freeAddr() (string, error) {
	port, err := sandbox.FreePort()
	return local(port), err
}

// by is a server's URL by way of a relay.
func by(r *sandbox.Relay, server string) string {
	u, err := url.Parse(server)
	if err != nil {
		panic(err) // the sandbox made it
	}
	u.Host = r.Addr()
	return u.String()
}

// answers waits until something listens at addr.
func answers(addr string) error {
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			return conn.Close()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("nobody listens at %s: %w", addr, err)
		}
	}
}

// startRedises starts one server, or some with Sentinels, or a cluster.
func (s *system) startRedises(ctx context.Context, f fault) (err error) {
	dir := filepath.Join(s.dir, "redis")
	switch {
	case f.sentinel:
		if s.sentinel, err = sandbox.StartRedisSentinel(ctx, dir, 2); err == nil {
			s.redis = s.sentinel.Servers[0]
			s.password = password(s.redis)
		}
	case f.cluster:
		if s.cluster, err = sandbox.StartRedisCluster(ctx, dir, 3); err == nil {
			s.redis = s.cluster.Nodes[0]
		}
	default:
		s.redis, err = s.startRedis(ctx)
	}
	return err
}

// startRedis starts a server that takes the system's password beside its own.
func (s *system) startRedis(ctx context.Context) (*sandbox.Redis, error) {
	r, err := sandbox.StartRedis(ctx, sandbox.RedisConfig{Dir: filepath.Join(s.dir, fmt.Sprintf("redis-%d", rand.Uint64()))})
	if err != nil {
		return nil, err
	}
	if s.password == "" {
		s.password = password(r)
	}
	return r, s.admit(r)
}

func password(r *sandbox.Redis) string {
	options, err := redis.ParseURL(r.URL())
	if err != nil {
		panic(err) // the sandbox made it
	}
	return options.Password
}

// admit lets who has the system's password into a server that has just started.
func (s *system) admit(r *sandbox.Redis) error {
	return onRedis(r, func(c *redis.Client) error {
		return c.Do(context.Background(), "ACL", "SETUSER", "default", ">"+s.password).Err()
	})
}

// close ends all that was started, and deletes what it has written.
func (s *system) close() error {
	var errs []error
	for _, p := range s.processes() {
		errs = append(errs, p.kill())
	}
	for _, p := range slices.Concat(s.proxies, s.listeners) {
		p.client.CloseIdleConnections()
		for _, road := range []*sandbox.Relay{p.toPostgres, p.toRedis} {
			if road != nil {
				errs = append(errs, road.Close())
			}
		}
	}
	if s.toRedis != nil {
		errs = append(errs, s.toRedis.Close())
	}
	if s.sentinel != nil {
		errs = append(errs, s.sentinel.Kill())
	}
	if s.cluster != nil {
		errs = append(errs, s.cluster.Kill())
	}
	if s.postgres != nil {
		errs = append(errs, s.postgres.Kill())
	}
	for _, r := range append(s.replicas, s.redis) {
		if r != nil {
			errs = append(errs, r.Kill())
		}
	}
	return errors.Join(append(errs, s.remove())...)
}

// fill makes the rows.
func (s *system) fill(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, s.postgres.DSN(""))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for id := 1; id <= rows; id++ {
		if err := put(ctx, conn, id, s.model.rows[id].version(), place(id%places)); err != nil {
			return err
		}
	}
	return nil
}

// found is what the database has now: a claim for each row.
func (s *system) found(ctx context.Context) ([]claim, error) {
	conn, err := pgx.Connect(ctx, s.postgres.DSN(""))
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx)
	// A query that fails shows in ForEachRow.
	result, _ := conn.Query(ctx, "SELECT id, (price * 100)::int, location FROM properties")
	claims := make([]claim, rows)
	for i := range claims {
		claims[i].id = i + 1
	}
	var c claim
	_, err = pgx.ForEachRow(result, []any{&c.id, &c.version, &c.place}, func() error {
		claims[c.id-1] = c
		return nil
	})
	return claims, err
}

// exec runs statements in PostgreSQL, straight and each by itself.
func (s *system) exec(ctx context.Context, statements ...string) error {
	conn, err := pgx.Connect(ctx, s.postgres.DSN(""))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for _, sql := range statements {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	return nil
}

// ask reads one value from PostgreSQL.
func ask[T any](ctx context.Context, s *system, sql string, args ...any) (value T, err error) {
	conn, err := pgx.Connect(ctx, s.postgres.DSN(""))
	if err != nil {
		return value, err
	}
	defer conn.Close(ctx)
	if err = conn.QueryRow(ctx, sql, args...).Scan(&value); err != nil {
		return value, fmt.Errorf("%s: %w", sql, err)
	}
	return value, nil
}

// onRedis runs do on a connection straight to a server.
func onRedis(server *sandbox.Redis, do func(*redis.Client) error) error {
	options, err := redis.ParseURL(server.URL())
	if err != nil {
		return err
	}
	options.MaxRetries = -1
	client := redis.NewClient(options)
	return errors.Join(do(client), client.Close())
}

// holder is the proxy that holds the replication slot; nil if none does.
func (s *system) holder(ctx context.Context, conn *pgx.Conn) (*proxy, error) {
	var port int
	err := conn.QueryRow(ctx, `SELECT r.client_port FROM pg_replication_slots s JOIN pg_stat_replication r ON r.pid = s.active_pid
		WHERE s.slot_name = 'walcache'`).Scan(&port)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	for _, p := range slices.Concat(s.proxies, s.listeners) {
		if err == nil && p.toPostgres.Carries(port) {
			return p, nil
		}
	}
	return nil, err
}

// broken is what went wrong with our programs themselves.
func (s *system) broken() error {
	var errs []error
	for _, p := range s.processes() {
		errs = append(errs, p.broken())
	}
	return errors.Join(errs...)
}

func (s *system) processes() (all []*process) {
	for _, p := range slices.Concat(s.proxies, s.listeners) {
		if p.process != nil {
			all = append(all, p.process)
		}
	}
	return append(all, s.backends...)
}

// tails are the ends of all logs.
func (s *system) tails() string {
	var b strings.Builder
	logs := []string{filepath.Join(s.postgres.Dir(), "postgres.log"), filepath.Join(s.redis.Dir(), "redis.log")}
	for _, p := range s.processes() {
		logs = append(logs, p.logPath())
	}
	for _, path := range logs {
		fmt.Fprintf(&b, "\n--- %s\n%s\n", filepath.Base(path), tail(path))
	}
	return b.String()
}
