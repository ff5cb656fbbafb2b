// Package docs has tests only. They hold what stands beside the programs against
// them: docker-compose.yml, Dockerfile, .env.example and docs/monitoring name
// images, commands, variables, roles and metrics, and nothing else would notice
// when one of them is no more.
package docs

import (
	"bytes"
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/jackc/pgx/v5"
	"github.com/joho/godotenv"
	"github.com/redis/go-redis/v9"

	"walcache/proxy/doctor"
	"walcache/proxy/replication"
	"walcache/proxy/sandbox"
	"walcache/proxy/sandbox/sandboxtest"
	"walcache/schema"
)

func TestMain(m *testing.M) { sandboxtest.Main(m) }

// read returns a file of the repository, named from its root.
func read(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("..", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// example makes a .env in the way that .env.example tells, and returns what it says.
var example = sync.OnceValues(func() (map[string]string, error) {
	text, err := os.ReadFile("../.env.example")
	if err != nil {
		return nil, err
	}
	command := regexp.MustCompile(`(?m)^#   (awk .*) > \.env$`).FindSubmatch(text)
	if command == nil {
		return nil, fmt.Errorf(".env.example does not say how to make an .env")
	}
	made := exec.Command("sh", "-c", string(command[1]))
	made.Dir = ".."
	out, err := made.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", command[1], err)
	}
	return godotenv.UnmarshalBytes(out)
})

func environment(t *testing.T) map[string]string {
	t.Helper()
	env, err := example()
	if err != nil {
		t.Fatal(err)
	}
	return env
}

// load reads docker-compose.yml as docker compose does.
func load(t *testing.T, env map[string]string) (*types.Project, error) {
	t.Helper()
	file, err := filepath.Abs("../docker-compose.yml")
	if err != nil {
		t.Fatal(err)
	}
	details := types.ConfigDetails{WorkingDir: filepath.Dir(file), ConfigFiles: types.ToConfigFiles([]string{file}), Environment: env}
	return loader.LoadWithContext(t.Context(), details, loader.WithProfiles(strings.Split(env["COMPOSE_PROFILES"], ",")))
}

func mustLoad(t *testing.T) *types.Project {
	t.Helper()
	project, err := load(t, environment(t))
	if err != nil {
		t.Fatal(err)
	}
	return project
}

// once are the services that do one thing and end.
var once = []string{"migrate", "seed", "publications"}

func TestCompose_HasTheWholeSystem(t *testing.T) {
	names := mustLoad(t).ServiceNames()
	want := []string{"backend", "grafana", "migrate", "postgres", "prometheus", "proxy", "publications", "redis", "seed"}
	if slices.Sort(names); !slices.Equal(names, want) {
		t.Errorf("services %v, want %v", names, want)
	}
}

func TestCompose_SamplesAreLeftOutWithoutTheirProfile(t *testing.T) {
	env := map[string]string{}
	for name, value := range environment(t) {
		if name != "COMPOSE_PROFILES" {
			env[name] = value
		}
	}
	project, err := load(t, env)
	if err != nil {
		t.Fatal(err)
	}
	if slices.Contains(project.ServiceNames(), "seed") {
		t.Error("samples are added all the same")
	}
}

// pinned is an image of a version, and not whatever is newest that day.
var pinned = regexp.MustCompile(`^(walcache:local|[a-z/]+:v?[0-9]+(\.[0-9]+)*(-[a-z0-9]+)?)$`)

func TestCompose_EveryServiceIsPinnedCheckedAndRestarted(t *testing.T) {
	for name, s := range mustLoad(t).Services {
		if !pinned.MatchString(s.Image) {
			t.Errorf("%s: image %q names no version", name, s.Image)
		}
		if !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Equal(s.SecurityOpt, []string{"no-new-privileges:true"}) || s.Privileged {
			t.Errorf("%s keeps rights: it drops %v, %v", name, s.CapDrop, s.SecurityOpt)
		}
		if slices.Contains(once, name) {
			if s.Restart != types.RestartPolicyNo {
				t.Errorf("%s is to run once, and restarts %q", name, s.Restart)
			}
			continue
		}
		if s.Restart != types.RestartPolicyUnlessStopped {
			t.Errorf("%s restarts %q", name, s.Restart)
		}
		if h := s.HealthCheck; h == nil || h.Disable || len(h.Test) < 2 || h.Interval == nil || h.Timeout == nil || h.Retries == nil {
			t.Errorf("%s has no complete health check: %+v", name, h)
		}
	}
}

// A service waits for what it depends on to be healthy, or to have ended well.
func TestCompose_DependenciesWaitForWhatTheyNeed(t *testing.T) {
	project := mustLoad(t)
	for name, s := range project.Services {
		for on, dependency := range s.DependsOn {
			want := types.ServiceConditionHealthy
			if slices.Contains(once, on) {
				want = types.ServiceConditionCompletedSuccessfully
			}
			// The samples alone may be left out.
			if dependency.Condition != want || dependency.Required != (on != "seed") {
				t.Errorf("%s waits for %s until it is %q (required %t), want %q", name, on, dependency.Condition, dependency.Required, want)
			}
		}
	}
	for _, arrow := range [][2]string{{"migrate", "postgres"}, {"seed", "migrate"}, {"publications", "migrate"}, {"backend", "migrate"}, {"proxy", "publications"}, {"proxy", "backend"}} {
		if _, ok := project.Services[arrow[0]].DependsOn[arrow[1]]; !ok {
			t.Errorf("%s does not wait for %s", arrow[0], arrow[1])
		}
	}
	// "up --wait" fails because of a container that ended, unless one that runs waits
	// for that (docker/compose issue 10596).
	for _, one := range once {
		if !slices.ContainsFunc(project.GetDependentsForService(project.Services[one]), func(name string) bool { return !slices.Contains(once, name) }) {
			t.Errorf("no service that runs waits for %s", one)
		}
	}
}

func TestCompose_OnlyTheProxysPortIsOpenToOthers(t *testing.T) {
	for name, s := range mustLoad(t).Services {
		for _, p := range s.Ports {
			clients := name == "proxy" && p.Target == 8001
			if open := p.HostIP != "127.0.0.1"; open != clients {
				t.Errorf("%s: port %d is published on %q", name, p.Target, p.HostIP)
			}
		}
	}
}

func TestCompose_MonitoringReachesTheProxyAlone(t *testing.T) {
	project := mustLoad(t)
	for name, s := range project.Services {
		_, inside := s.Networks["default"]
		_, outside := s.Networks["monitoring"]
		watches := name == "prometheus" || name == "grafana"
		if inside == watches || outside != (watches || name == "proxy") {
			t.Errorf("%s is in networks %v", name, s.Networks)
		}
	}
}

func TestCompose_FilesThatItMountsAreThere(t *testing.T) {
	project := mustLoad(t)
	for name, s := range project.Services {
		for _, v := range s.Volumes {
			switch v.Type {
			case types.VolumeTypeVolume:
				if _, ok := project.Volumes[v.Source]; !ok {
					t.Errorf("%s: volume %q is not declared", name, v.Source)
				}
			case types.VolumeTypeBind:
				// Where the file is missing docker makes a directory of that name.
				if _, err := os.Stat(v.Source); err != nil || !v.ReadOnly {
					t.Errorf("%s mounts %s (read-only %t): %v", name, v.Source, v.ReadOnly, err)
				}
			default:
				t.Errorf("%s: volume of type %q", name, v.Type)
			}
		}
	}
}

// Whoever starts it without secrets is told which is missing and what to do.
func TestCompose_FailsWithoutASecretAndSaysWhatToDo(t *testing.T) {
	for _, name := range []string{"SECRET_KEY", "ADMIN_TOKEN", "POSTGRES_PASSWORD", "BACKEND_DB_PASSWORD", "PROXY_DB_PASSWORD", "GRAFANA_PASSWORD"} {
		for _, how := range []string{"missing", "empty"} {
			env := map[string]string{"DEBUG": "true"}
			for k, v := range environment(t) {
				env[k] = v
			}
			if env[name] = ""; how == "missing" {
				delete(env, name)
			}
			_, err := load(t, env)
			if err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), ".env.example") {
				t.Errorf("%s %s: %v", name, how, err)
			}
		}
	}
}

func TestCompose_NoSecretStandsInAFile(t *testing.T) {
	for name, value := range environment(t) {
		if len(value) != 64 {
			continue // openssl made none
		}
		for _, file := range []string{"docker-compose.yml", "Dockerfile", ".env.example"} {
			if strings.Contains(read(t, file), name+"="+value) {
				t.Errorf("%s is in %s", name, file)
			}
		}
		if url.QueryEscape(value) != value {
			t.Errorf("%s cannot stand in a URL", name)
		}
	}
	set := regexp.MustCompile(`(?m)^[A-Z_]+=.+$`).FindAllString(read(t, ".env.example"), -1)
	if !slices.Equal(set, []string{"COMPOSE_PROFILES=samples"}) {
		t.Errorf(".env.example sets %q", set)
	}
}

// What .env.example fills in is all that docker-compose.yml asks for.
func TestEnvExample_NamesEveryVariable(t *testing.T) {
	text := read(t, ".env.example")
	for _, m := range regexp.MustCompile(`\$\{([A-Z_]+)`).FindAllStringSubmatch(read(t, "docker-compose.yml"), -1) {
		if !regexp.MustCompile(`(?m)^#?` + m[1] + `=`).MatchString(text) {
			t.Errorf(".env.example does not name %s", m[1])
		}
	}
}

// variables returns those that a command of ours reads, by its own help. It fails
// if there is no such command.
func variables(t *testing.T, programs string, command []string) []string {
	t.Helper()
	out, err := exec.Command(filepath.Join(programs, command[0]), command[1], "--help").CombinedOutput()
	if err != nil {
		t.Errorf("%s %s --help: %v\n%s", command[0], command[1], err, out)
	}
	var names []string
	for _, m := range regexp.MustCompile(`\$([A-Z_]+)`).FindAllSubmatch(out, -1) {
		names = append(names, string(m[1]))
	}
	return names
}

func TestCompose_ProgramsKnowWhatTheyAreTold(t *testing.T) {
	programs := t.TempDir()
	if out, err := exec.Command("go", "build", "-o", programs, "walcache/proxy", "walcache/backend").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	for name, s := range mustLoad(t).Services {
		if s.Image != "walcache:local" {
			continue
		}
		known := variables(t, programs, s.Command)
		for variable := range s.Environment {
			if !slices.Contains(known, variable) {
				t.Errorf("%s: %v reads no %s", name, s.Command, variable)
			}
		}
		if s.HealthCheck != nil {
			variables(t, programs, s.HealthCheck.Test[1:])
		}
	}
}

// settings are those that a server's command line gives PostgreSQL.
func settings(t *testing.T, command []string) map[string]string {
	t.Helper()
	all := map[string]string{"fsync": "off"}
	for _, pair := range regexp.MustCompile(`-c (\w+)=(\S+)`).FindAllStringSubmatch(strings.Join(command, " "), -1) {
		all[pair[1]] = pair[2]
	}
	if len(command) != 1+2*(len(all)-1) {
		t.Fatalf("postgres is started with more than settings: %v", command)
	}
	return all
}

// database is a server as docker-compose.yml makes it.
type database struct {
	*sandbox.Postgres
	t   *testing.T
	env map[string]string // of the container
}

func startDatabase(t *testing.T) database {
	t.Helper()
	s := mustLoad(t).Services["postgres"]
	db := database{sandboxtest.OwnPostgres(t, settings(t, s.Command)), t, map[string]string{}}
	for name, value := range s.Environment {
		db.env[name] = *value
	}
	db.psql("roles.sql")
	return db
}

// psql runs one of the scripts as the superuser, as the image and docker-compose.yml do.
func (db database) psql(script string) {
	db.t.Helper()
	program := db.Program("psql")
	if _, err := os.Stat(program); err != nil { // the client is its own package in some places
		program = "psql"
	}
	cmd := exec.CommandContext(db.t.Context(), program, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", "compose/"+script, db.DSN(""))
	cmd.Env = os.Environ()
	for name, value := range db.env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		db.t.Fatalf("psql %s: %v\n%s", script, err, out)
	}
}

// as is the URL of a role, with the password that it was given.
func (db database) as(role, variable string) string {
	db.t.Helper()
	u, err := url.Parse(db.DSN(""))
	if err != nil {
		db.t.Fatal(err)
	}
	u.User = url.UserPassword(role, db.env[variable])
	return u.String()
}

func (db database) backend() string { return db.as("backend", "BACKEND_DB_PASSWORD") }
func (db database) proxy() string   { return db.as("walcache", "PROXY_DB_PASSWORD") }

func (db database) exec(dsn, sql string) error {
	db.t.Helper()
	conn, err := pgx.Connect(db.t.Context(), dsn)
	if err != nil {
		db.t.Fatal(err)
	}
	defer conn.Close(context.Background())
	_, err = conn.Exec(db.t.Context(), sql)
	return err
}

// query returns the one text that a query comes to.
func (db database) query(dsn, sql string) (text string) {
	db.t.Helper()
	conn, err := pgx.Connect(db.t.Context(), dsn)
	if err != nil {
		db.t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if err := conn.QueryRow(db.t.Context(), sql).Scan(&text); err != nil {
		db.t.Fatal(err)
	}
	return text
}

// startRedis starts a server with the command line that docker-compose.yml gives
// it, and returns its URL.
func startRedis(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	command := mustLoad(t).Services["redis"].Command
	socket := filepath.Join(dir, "redis.sock")
	server := exec.Command(command[0], append(command[1:], "--port", "0", "--unixsocket", socket, "--dir", dir)...)
	var log bytes.Buffer
	server.Stdout, server.Stderr = &log, &log
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = server.Wait() // it was killed
	})
	client := redis.NewClient(&redis.Options{Network: "unix", Addr: socket})
	defer client.Close()
	sandboxtest.Eventually(t, time.Minute, func() error { return client.Ping(t.Context()).Err() })
	for name, want := range map[string]string{"maxmemory": "536870912", "maxmemory-policy": "volatile-lru", "save": "300 1", "stop-writes-on-bgsave-error": "no"} {
		if got := client.ConfigGet(t.Context(), name).Val()[name]; got != want {
			t.Errorf("redis: %s is %q, want %q", name, got, want)
		}
	}
	return "unix://" + socket
}

func TestCompose_Database(t *testing.T) {
	db := startDatabase(t)
	if err := schema.Up(t.Context(), db.backend()); err != nil {
		t.Fatal(err)
	}
	db.psql("publications.sql")
	t.Run("is all that the proxy needs", func(t *testing.T) { sufficient(t, db) })
	t.Run("grants no more than is needed", func(t *testing.T) { minimal(t, db) })
	t.Run("publishes updates where they can be carried", func(t *testing.T) { published(t, db) })
}

// The doctor finds nothing to do on servers that are as docker-compose.yml makes
// them, for the role that the proxy has there.
func sufficient(t *testing.T, db database) {
	for name, want := range map[string]string{"wal_level": "logical", "max_slot_wal_keep_size": "2GB", "max_replication_slots": "10", "max_wal_senders": "10"} {
		if got := db.query(db.DSN(""), "SHOW "+name); got != want {
			t.Errorf("postgres: %s is %s, want %s", name, got, want)
		}
	}
	report := doctor.Examine(t.Context(), doctor.Config{
		Listener: replication.Config{DatabaseURL: db.proxy(), Slot: "walcache", Publication: "walcache", MaxRetainedWAL: 1 << 30},
		RedisURL: startRedis(t), Prefix: "wc:",
	})
	var found bytes.Buffer
	if err := report.Print(&found, false); err != nil {
		t.Fatal(err)
	}
	if report.NeedsAction() {
		t.Errorf("the doctor finds something to do\n%s", &found)
	}
}

// The proxy's role can follow, and do nothing else; the service's role owns its
// tables, and sees that nobody's session is hidden from it.
func minimal(t *testing.T, db database) {
	if got := db.query(db.DSN(""), `SELECT string_agg(rolname || ' ' || (rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls) || ' ' || rolreplication, ', ' ORDER BY rolname)
		FROM pg_roles WHERE rolname IN ('backend', 'walcache')`); got != "backend false false, walcache false true" {
		t.Errorf("rights: %s", got)
	}
	for _, sql := range []string{"SELECT FROM properties", "SELECT FROM users", "DELETE FROM properties", "CREATE TABLE t ()", "DROP PUBLICATION walcache"} {
		if err := db.exec(db.proxy(), sql); err == nil || !strings.Contains(err.Error(), "42501") { // insufficient_privilege
			t.Errorf("the proxy's role: %s: %v", sql, err)
		}
	}
	open, err := pgx.Connect(t.Context(), db.proxy())
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close(context.Background())
	if n := db.query(db.backend(), "SELECT count(*)::text FROM pg_stat_activity WHERE application_name IS NULL AND datname = current_database()"); n != "0" {
		t.Errorf("%s sessions are hidden from the service", n)
	}
}

func published(t *testing.T, db database) {
	for _, sql := range []string{
		"CREATE TABLE keyed (id int PRIMARY KEY); CREATE TABLE whole (a int); ALTER TABLE whole REPLICA IDENTITY FULL",
		"CREATE TABLE indexed (a int NOT NULL UNIQUE); ALTER TABLE indexed REPLICA IDENTITY USING INDEX indexed_a_key",
		"CREATE TABLE keyless (n int); CREATE TABLE muted (id int PRIMARY KEY); ALTER TABLE muted REPLICA IDENTITY NOTHING",
		"CREATE TABLE deferred (id int PRIMARY KEY DEFERRABLE); CREATE UNLOGGED TABLE unlogged (id int PRIMARY KEY)",
		"CREATE TABLE parent (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE partition PARTITION OF parent DEFAULT",
	} {
		if err := db.exec(db.backend(), sql); err != nil {
			t.Fatal(err)
		}
	}
	const listed = "SELECT string_agg(prrelid::regclass::text, ' ' ORDER BY prrelid::regclass::text) FROM pg_publication_rel"
	for range 2 { // the second time nothing is left to do
		db.psql("publications.sql")
		if got := db.query(db.DSN(""), listed); got != "changes goose_db_version indexed keyed partition properties releases users whole" {
			t.Errorf("listed: %s", got)
		}
	}
	for _, table := range []string{"keyless", "muted", "deferred", "parent"} {
		if err := db.exec(db.backend(), "DELETE FROM "+table); err != nil {
			t.Errorf("the application cannot write %s any more: %v", table, err)
		}
	}
}

// The Dockerfile's Go is that of go.mod, and what it builds can run where there is
// no shell and no library.
func TestDockerfile_BuildsWithTheGoOfGoMod(t *testing.T) {
	want := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(read(t, "go.mod"))
	got := regexp.MustCompile(`(?m)^FROM .*golang:(\S+)`).FindStringSubmatch(read(t, "Dockerfile"))
	if want == nil || got == nil || got[1] != want[1] {
		t.Errorf("golang:%v, and go.mod says %v", got, want)
	}
	for _, part := range []string{"CGO_ENABLED=0", "-trimpath", "-buildvcs=auto", "--mount=type=cache", "distroless/static", ":nonroot"} {
		if !strings.Contains(read(t, "Dockerfile"), part) {
			t.Errorf("no %s", part)
		}
	}
}

// The build is named by its revision only where git finds its files as they were.
func TestDockerignore_LeavesOutNothingThatGitTracks(t *testing.T) {
	tracked, err := exec.Command("git", "-C", "..", "ls-files").Output()
	if err != nil {
		t.Fatal(err)
	}
	ignore := read(t, ".dockerignore")
	for _, secret := range []string{".env\n", "!.env.example\n"} {
		if !strings.Contains(ignore, secret) {
			t.Errorf(".dockerignore lacks %q", secret)
		}
	}
	if strings.Contains(ignore, ".git\n") {
		t.Error(".git is left out")
	}
	for file := range strings.FieldsSeq(string(tracked)) {
		switch ext := filepath.Ext(file); {
		case strings.HasPrefix(file, "bin/"), ext == ".test", ext == ".out", ext == ".pprof", strings.HasPrefix(file, ".env") && file != ".env.example":
			t.Errorf("%s is tracked, and .dockerignore leaves it out", file)
		}
	}
}
