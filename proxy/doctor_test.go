package main

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"walcache/proxy/sandbox/sandboxtest"
)

func TestDoctor_ChecksItsOwnFlags(t *testing.T) {
	cleanEnv(t)
	database := "--database-url=postgres://h/d"
	for says, line := range map[string][]string{
		`doctor takes no "nonsense"`:               {database, "nonsense"},
		"--json and --sql are both given":          {database, "--json", "--sql"},
		"no database is named":                     {},
		"--redis-url: ":                            {database, "--redis-url=http://:" + aSecret + "@h"},
		"--upstream (UPSTREAM): ":                  {database, "--upstream=http://u:" + aSecret + "@h"},
		`--ignore-tables: "[" is not a glob`:       {database, "--ignore-tables=["},
		`--slot is "Upper"`:                        {database, "--slot=Upper"},
		"--prefix is ":                             {database, "--redis-url=redis://h", "--prefix={x}"},
		"--database-url: ":                         {"--database-url=postgres://u:" + aSecret + "@h:port/d"},
		"it is not a number of bytes, such as 256": {database, "--max-retained-wal=lots"},
	} {
		code, stdout, stderr := typed(append([]string{"doctor"}, line...)...)
		if code != 2 || stdout != "" || !strings.Contains(stderr, says) || !strings.Contains(stderr, "  try: ") || strings.Contains(stderr, aSecret) {
			t.Errorf("%q: exit %d\n%s%s", line, code, stdout, stderr)
		}
	}
}

// doctorSays runs the command with time to answer.
func doctorSays(args ...string) (code int, stdout, stderr string) {
	return typedFor(2*time.Minute, append([]string{"doctor"}, args...)...)
}

func TestDoctor_ExitsWith1WhileSomethingHasToBeDone(t *testing.T) {
	cleanEnv(t)
	p, server := sandboxtest.OwnPostgres(t, map[string]string{"fsync": "off", "max_slot_wal_keep_size": "4GB"}), sandboxtest.OwnRedis(t)
	db, err := pgx.Connect(t.Context(), p.DSN(""))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(t.Context())
	run := func(sql string) {
		t.Helper()
		if _, err := db.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	run("CREATE TABLE jobs (n int)")
	options, err := redis.ParseURL(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(options)
	defer client.Close()
	if err := client.ConfigSet(t.Context(), "maxmemory", "1gb").Err(); err != nil {
		t.Fatal(err)
	}
	if err := client.ConfigSet(t.Context(), "maxmemory-policy", "volatile-lru").Err(); err != nil {
		t.Fatal(err)
	}
	t.Setenv("DATABASE_URL", p.DSN(""))
	t.Setenv("REDIS_URL", server.URL())

	code, stdout, _ := doctorSays()
	if code != 1 || !strings.Contains(stdout, "\n  error    replica_identity") || strings.Contains(stdout, "\x1b") ||
		!strings.HasSuffix(stdout, "then proxy doctor again.\n") {
		t.Errorf("exit %d\n%s", code, stdout)
	}
	code, stdout, _ = doctorSays("--json")
	var findings []map[string]any
	if err := json.Unmarshal([]byte(stdout), &findings); code != 1 || err != nil || len(findings) < 20 {
		t.Errorf("exit %d, %v\n%s", code, err, stdout)
	}
	code, script, stderr := doctorSays("--sql")
	if code != 0 || stderr != "" || !strings.Contains(script, "\nALTER TABLE public.jobs REPLICA IDENTITY FULL;\n") {
		t.Errorf("exit %d\n%s%s", code, script, stderr)
	}
	t.Setenv("REDIS_URL", "") // how near it is depends on what else this machine does
	if code, stdout, stderr := doctorSays("--ignore-tables=jobs"); code != 0 || stderr != "" || !strings.Contains(stdout, "All is well") {
		t.Errorf("exit %d\n%s%s", code, stdout, stderr)
	}
	run(script)
	if code, stdout, stderr := doctorSays(); code != 0 || stderr != "" || !strings.HasSuffix(stdout, "\nAll is well: start proxy serve.\n") {
		t.Errorf("exit %d\n%s%s", code, stdout, stderr)
	}
}

func TestDoctor_ServersThatAreAwayAreFindings(t *testing.T) {
	cleanEnv(t)
	away := []string{"--database-url=postgres://u:" + aSecret + "@127.0.0.1:1/d", "--redis-url=redis://:" + aSecret + "@127.0.0.1:1", "--upstream=http://127.0.0.1:1"}
	code, stdout, stderr := doctorSays(away...)
	if code != 1 || strings.Count(stdout, "\n  error    reachable") != 3 || strings.Contains(stdout+stderr, aSecret) {
		t.Errorf("exit %d\n%s%s", code, stdout, stderr)
	}
	code, stdout, stderr = doctorSays(append(away, "--sql")...)
	if code != 1 || stdout != "" || !strings.HasPrefix(stderr, "proxy: cannot tell which statements are needed: reachable: ") ||
		!strings.Contains(stderr, "\n  try: ") || strings.Contains(stderr, aSecret) {
		t.Errorf("--sql: exit %d\n%s%s", code, stdout, stderr)
	}
}

func TestDoctor_ColoursOnlyForATerminal(t *testing.T) {
	t.Setenv("NO_COLOR", "")
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	file, err := os.Create(t.TempDir() + "/file")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if !colourful(terminal) || colourful(file) || colourful(new(bytes.Buffer)) {
		t.Error("colours for a file, or none for a terminal")
	}
	t.Setenv("NO_COLOR", "1")
	if colourful(terminal) {
		t.Error("colours in spite of NO_COLOR")
	}
}
