package doctor

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"walcache/proxy/replication"
	"walcache/proxy/sandbox/sandboxtest"
)

var update = flag.Bool("update", false, "write the golden files anew")

// changing is what differs from one run to the next.
var changing = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`127\.0\.0\.1:\d{4,5}`), "HOST:PORT"},
	{regexp.MustCompile(`(PostgreSQL|Redis|Valkey) \d+\.[0-9.]+`), "$1 VERSION"},
	{regexp.MustCompile(`less than \w+`), "less than LIMIT"},
	{regexp.MustCompile(`[0-9.]+ [KM]iB of 256 MiB`), "SOME of 256 MiB"},
}

// golden compares a text with a file.
func golden(t *testing.T, name, text string) {
	t.Helper()
	for _, c := range changing {
		text = c.pattern.ReplaceAllString(text, c.with)
	}
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if text != string(want) {
		t.Errorf("%s is not\n%s\nbut\n%s\n  try: go test ./proxy/doctor -update, and read the difference", file, want, text)
	}
}

func TestPrint_AHealthySystem(t *testing.T) {
	t.Parallel()
	p, redis := sandboxtest.OwnPostgres(t, map[string]string{"fsync": "off", "max_slot_wal_keep_size": "4GB"}), sandboxtest.OwnRedis(t)
	open(t, p.DSN(""), "CREATE ROLE walcache LOGIN REPLICATION PASSWORD 'sesame-open'; GRANT pg_read_all_stats TO walcache",
		"CREATE TABLE properties (id int PRIMARY KEY, location text NOT NULL)",
		"CREATE PUBLICATION walcache FOR ALL TABLES WITH (publish = 'insert, truncate')",
		"CREATE PUBLICATION walcache_updates FOR TABLE properties WITH (publish = 'update, delete')",
		"CREATE INDEX ON properties (location)")
	do(t, connectRedis(t, redis.URL()), "config set maxmemory 256mb", "config set maxmemory-policy volatile-lru")
	r := Examine(t.Context(), Config{limits: patient, RedisURL: redis.URL(), Prefix: "wc:", Listener: replication.Config{
		DatabaseURL: withUser(t, p.DSN(""), "walcache", "sesame-open"), Slot: "walcache", Publication: "walcache", MaxRetainedWAL: 1 << 30}})
	golden(t, "healthy.txt", r.text())
	if r.NeedsAction() {
		t.Error("it needs action")
	}
}

func TestPrint_ASickSystem(t *testing.T) {
	t.Parallel()
	p := sandboxtest.OwnPostgres(t, map[string]string{"fsync": "off", "wal_level": "replica"})
	open(t, p.DSN(""), "CREATE ROLE walcache LOGIN PASSWORD 'sesame-open'", "CREATE TABLE properties (id int PRIMARY KEY, location text NOT NULL)",
		"CREATE TABLE jobs (n int)", "CREATE UNLOGGED TABLE sessions (id int)", "CREATE MATERIALIZED VIEW totals AS SELECT 1 AS n",
		"CREATE TABLE codes (code text NOT NULL UNIQUE)")
	r := Examine(t.Context(), Config{limits: patient, RedisURL: "redis://127.0.0.1:1", Prefix: "wc:", Upstream: "http://127.0.0.1:1", Listener: replication.Config{
		DatabaseURL: withUser(t, p.DSN(""), "walcache", "sesame-open"), Slot: "walcache", Publication: "walcache", MaxRetainedWAL: 1 << 30}})
	golden(t, "sick.txt", r.text())
	golden(t, "sick.sql", r.script())
	if !r.NeedsAction() {
		t.Error("it needs no action")
	}
}

func TestPrint_JSONHasTheFieldsThatScriptsRelyOn(t *testing.T) {
	r := Report{
		{Check: "postgres.wal_level", Where: "here", Status: Error, What: "a", Why: "b", Fix: "c", SQL: []string{"-- d <&>"}},
		{Check: "redis.latency", Where: "there", Status: OK, What: "e"},
	}
	var b strings.Builder
	if err := r.JSON(&b); err != nil {
		t.Fatal(err)
	}
	var got []map[string]any
	if err := json.Unmarshal([]byte(b.String()), &got); err != nil {
		t.Fatal(err)
	}
	first, second := got[0], got[1]
	for name, want := range map[string]string{"check": "postgres.wal_level", "where": "here", "status": "error", "what": "a", "why": "b", "fix": "c"} {
		if first[name] != want {
			t.Errorf("%s is %v", name, first[name])
		}
	}
	if sql := first["sql"].([]any); len(sql) != 1 || sql[0] != "-- d <&>" || len(first) != 7 || len(second) != 4 {
		t.Error(b.String())
	}
	b.Reset()
	if err := (Report(nil)).JSON(&b); err != nil || strings.TrimSpace(b.String()) != "[]" {
		t.Errorf("nothing is %q, %v", b.String(), err)
	}
}

func TestPrint_ColoursMarksAndNothingElse(t *testing.T) {
	r := Report{{Check: "a.b", Where: "w\x1b[31m", Status: Error, What: "x\x1b[2Jy\nz", Why: "\x07", Fix: "f", SQL: []string{"SELECT '\x1b'"}}}
	var b strings.Builder
	if err := r.Print(&b, true); err != nil {
		t.Fatal(err)
	}
	if want := "w?[31m\n  \x1b[31merror  \x1b[0m  b  x?[2Jy?z\n"; !strings.HasPrefix(b.String(), want) || strings.Count(b.String(), "\x1b") != 2 {
		t.Errorf("%q", b.String())
	}
	if strings.Contains(r.text(), "\x1b") {
		t.Errorf("%q", r.text())
	}
}

// A long list is cut for people, and not for psql.
func TestPrint_ManyStatementsAreLeftToTheScript(t *testing.T) {
	r := Report{{Check: "a.b", Status: Error, What: "x", Why: "y", Fix: "z"}}
	for range 20 {
		r[0].SQL = append(r[0].SQL, "SELECT 1;")
	}
	if text := r.text(); strings.Count(text, "SELECT 1;") != mostSQL || !strings.Contains(text, "… and 12 more lines: proxy doctor --sql") {
		t.Error(text)
	}
	if script := r.script(); strings.Count(script, "SELECT 1;\n") != 20 {
		t.Error(script)
	}
}
