package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"walcache/proxy/sandbox/sandboxtest"
)

// shop is where the clients of a system ask.
const shop = "http://shop.example"

// operated is a system whose operators may do what they like.
func operated(t *testing.T) *system {
	t.Helper()
	t.Setenv("ADMIN_TOKEN", "a secret")
	url, prefix := sandboxtest.Redis(t)
	s := start(t, sandboxtest.Postgres(t), func(o *options) {
		o.admin.Token = "a secret"
		o.redis = redisConfig{url, prefix}
		o.manage = manageOptions{prefix: "/properties/", apiToken: apiToken}
	})
	s.rows(3)
	return s
}

// typed runs a command against the system's admin port.
func (s *system) typed(args ...string) (code int, out, err string) {
	s.t.Helper()
	s.t.Setenv("ADMIN_URL", s.admin)
	return typedFor(time.Minute, args...)
}

func TestTasks_DoAndTell(t *testing.T) {
	s := operated(t)
	s.warm(row(1))
	for _, c := range []struct {
		args string
		told []string
	}{
		{"cache status --url " + shop + row(1), []string{"page_is_cached:", "True", "all_properties_cached:", "memory", "properties/id=1", "fresh"}},
		{"cache clear --wait-all", []string{"Cleared: ALL_PROPERTIES", "known to every process"}},
		{"cache status --url " + shop + row(1), []string{"page_is_cached:", "False"}},
		{"cache warm --host " + "shop.example" + " " + row(1) + " " + row(2), []string{row(1), row(2), "hit", "0 failed"}},
		{"cache warm", []string{row(1), "0 failed"}},
		{"cache cache-test", []string{"memory", "redis", "expire", "The cache works."}},
		{"cache metrics", []string{"Redis Cache Metrics:", "Hit Ratio:", "Performance Rating:", "Recommendations:", "1. "}},
		{"cache load-test --requests 50 --connections 2 --host " + "shop.example" + " " + row(1), []string{"Requests:", "50 in", "Hits:", "memory=", "Latency in ms:"}},
		{"cache test-signals --probe", []string{"known here, ms:", "on all 2 processes"}},
		{"cache test-signals", []string{"Step 1", "Step 3", "properties/id="}},
		{"manage-cache --status", []string{"Cache Status:"}},
		{"manage-cache --metrics", []string{"Redis Cache Metrics:"}},
		{"manage-cache --warm", []string{"0 failed"}},
		{"manage-cache --clear", []string{"Cleared: PROPERTY_COUNT"}},
	} {
		code, out, err := s.typed(strings.Fields(c.args)...)
		for _, want := range c.told {
			if code != 0 || !strings.Contains(out, want) || strings.Contains(out, "\x1b[") {
				t.Fatalf("%s: %d, want %q in:\n%s%s", c.args, code, want, out, err)
			}
		}
		if strings.HasPrefix(c.args, "manage-cache") {
			continue
		}
		words := strings.Fields(c.args)
		code, out, err = s.typed(slices.Insert(words, 2, "--json")...)
		if code != 0 || !json.Valid([]byte(out)) || !strings.HasPrefix(out, "{") {
			t.Fatalf("%s --json: %d %s%s", c.args, code, out, err)
		}
	}
	if n := s.count(); n != 3 {
		t.Errorf("%d rows are left of 3", n)
	}
}

// count is how many properties there are.
func (s *system) count() (n int) {
	s.t.Helper()
	if err := s.db.QueryRow(s.t.Context(), "SELECT count(*) FROM properties").Scan(&n); err != nil {
		s.t.Fatal(err)
	}
	return n
}

func TestTasks_ReadWhatToWarmFromAFile(t *testing.T) {
	s := operated(t)
	file := filepath.Join(t.TempDir(), "paths")
	if err := os.WriteFile(file, []byte("# both\n"+row(1)+"\n\n  "+shop+row(2)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out, err := s.typed("cache", "warm", "--file", file, "--host", "shop.example"); code != 0 || !strings.Contains(out, row(2)) {
		t.Fatalf("%d %s%s", code, out, err)
	}
	if !s.get(row(1)).hit() || !s.get(row(2)).hit() {
		t.Error("what was warmed is no hit")
	}
}

// The exit code says whether what was asked for is so.
func TestTasks_ExitCodesTellTheTruth(t *testing.T) {
	answer, status := "", http.StatusOK
	port := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = w.Write([]byte(answer))
	}))
	defer port.Close()
	for _, c := range []struct {
		task   string
		status int
		answer string
		code   int
		told   string
	}{
		{"cache-test", 200, `{"cache_working": true}`, 0, ""},
		{"cache-test", 200, `{"cache_working": false}`, 1, "does not work"},
		{"cache-test", 503, `{"cache_working": false, "error": "Redis is away", "try": "start it"}`, 1, "does not work"},
		{"clear", 200, `{"success": true, "message": "cleared"}`, 0, ""},
		{"clear", 200, `{"success": false, "message": "not cleared", "details": {"errors": ["no database"]}}`, 1, "no database"},
		{"clear", 200, `{"success": true, "message": "cleared", "behind": ["b"]}`, 1, "not within the time on b"},
		{"clear", 503, `{"error": "the primary is away", "try": "start it"}`, 1, "the primary is away\n  try: start it"},
		{"test-signals", 200, `{"passed": true, "verdict": "passed"}`, 0, ""},
		{"test-signals", 500, `{"passed": false, "verdict": "failed", "failures": ["the list did not follow"]}`, 1, "the list did not follow"},
		{"warm", 200, `{"success": true, "failed": 0}`, 0, ""},
		{"warm", 200, `{"success": false, "failed": 2}`, 1, "2 answers could not be fetched"},
		{"warm", 200, `{"success": false, "failed": 1, "urls": [{"url": "/", "status": 500, "was": "hit", "is": "hit"}]}`, 1, "are errors of the service"},
		{"load-test", 200, `{"success": true, "requests": 3}`, 0, ""},
		{"load-test", 200, `{"success": false, "failed": 3, "error": "3 requests failed: EOF"}`, 1, "proxy: 3 requests failed: EOF\n  try: "},
		{"load-test", 200, `{"success": false, "requests": 3, "error": "all are 502", "try": "start the service"}`, 1, "all are 502\n  try: start the service"},
		{"load-test", 502, `{"success": false, "error": "no request was answered", "try": "wait"}`, 1, "no request was answered\n  try: wait"},
		{"load-test", 409, `{"error": "one runs", "try": "wait"}`, 1, "one runs\n  try: wait"},
		{"metrics", 503, `{"success": false, "error": "no connection", "metrics": null, "recommendations": ["look"]}`, 1, "no connection"},
		{"status", 503, `{"page_cache": {}, "error": "Redis is away", "try": "start it"}`, 1, "Redis is away\n  try: start it"},
		{"status", 404, `not found`, 1, "is that the admin port?"},
		{"status", 200, `hello`, 1, "is that the admin port?"},
	} {
		answer, status = c.answer, c.status
		for _, json := range []bool{false, true} {
			args := []string{"cache", c.task, "--admin-url", port.URL}
			if json {
				args = append(args, "--json")
			}
			code, out, err := typedFor(time.Minute, args...)
			if code != c.code || !strings.Contains(err, c.told) {
				t.Errorf("%s of %d %s, --json %t: %d, want %d and %q\n%s%s", c.task, c.status, c.answer, json, code, c.code, c.told, out, err)
			}
		}
	}
}

// What is shown of each thing, beside what is made of the whole.
func TestTasks_ShowWhatIsSaid(t *testing.T) {
	for _, c := range []struct {
		told   func(io.Writer, []byte) error
		answer string
		lines  []string // each with its blanks taken together
	}{
		{tellWarmed, `{"urls": [{"url": "/a", "status": 200, "was": "miss", "is": "hit"}, {"url": "/b", "status": 500, "was": "hit", "is": "hit"}, {"url": "/c", "was": "unknown", "is": "unknown", "why": "EOF"}]}`,
			[]string{"url asked for status was is", "/a 200 miss hit", "/b 500 hit hit", "/c - unknown unknown EOF"}},
		{tellSignals, `{"passed": true, "steps": [{"controls": [{"what": "search", "was": "hit", "is": "hit", "outcome": "hit"},
			{"what": "page", "was": "hit", "is": "stale", "outcome": "disturbed", "why": "somebody changed it"}, {"what": "list", "was": "hit", "is": "stale", "outcome": "failed"}]}]}`,
			[]string{"search was hit hit", "page was hit stale, disturbed: somebody changed it", "list was hit stale, failed"}},
	} {
		var out strings.Builder
		if err := c.told(&out, []byte(c.answer)); err != nil {
			t.Error(err)
		}
		lines := strings.Split(out.String(), "\n")
		for i := range lines {
			lines[i] = strings.Join(strings.Fields(lines[i]), " ")
		}
		for _, want := range c.lines {
			if !slices.Contains(lines, want) {
				t.Errorf("no line %q in\n%s", want, out.String())
			}
		}
	}
}

// hostile is a text that turns a terminal red, clears it, moves its cursor, turns
// its direction, and looks like words of ours.
const hostile = "Villa\x1b[31m\u009b2J\r\u202e\x7f\n  try: rm -rf /"

// hostileAnswers are answers of the admin port in which each text X is hostile, as
// anybody may have written it.
var hostileAnswers = map[string]string{
	"status": `{"page_cache": {"location": X, "url": X, "variants": [{"layer": X, "state": X, "varied": {X: X}, "tags": [X], "moved": [{"what": X, "from": X, "to": X}]}],
		"stored": {"redis": {"pages": 1}}, "hits": {X: 1}}, "queryset_cache": {"querysets": [{"key": X, "state": X, "moved": [{"what": X}]}]}, "coherence": {"epoch": X, "known": X}}`,
	"clear":      `{"success": false, "message": X, "details": {"cleared_caches": [{"name": X, "key": X}], "errors": [X]}, "position": X, "behind": [X]}`,
	"warm":       `{"message": X, "failed": 1, "left_out": [X], "urls": [{"url": X, "was": X, "is": X, "why": X, "varied": {X: X}}]}`,
	"cache-test": `{"steps": [{"step": X, "layer": X, "what": X}], "error": X, "try": X}`,
	"test-signals": `{"message": X, "verdict": X, "failures": [X], "behind": [X], "disturbed": [X], "error": X, "try": X,
		"steps": [{"did": X, "tags": [{"tag": X, "moved": true}], "answers": [{"what": X, "was": X, "is": X}], "controls": [{"what": X, "was": X, "is": X, "outcome": "failed", "why": X}]}]}`,
	"metrics": `{"error": X, "recommendations": [X], "advice": [{"level": X, "seen": X, "why": X, "do": X}], "proxy": {"hits": {X: 1}, "table_whose_writes_cost_most_hits": X},
		"metrics": {"cache_performance": {"performance_rating": X}, "server_info": {"redis_version": X}, "analysis": {"cache_efficiency": X, "recommendations": [X]}}}`,
	"load-test":      `{"message": X, "error": X, "try": X, "hits": {X: 1}, "misses": {X: 1}, "statuses": {X: 1}, "latency_ms": {X: 1}}`,
	"off --wait-all": `{"did": X, "position": X, "behind": [X], "error": X, "try": X}`,
}

func TestTasks_NoTextOfAnAnswerReachesTheTerminalRaw(t *testing.T) {
	text, err := json.Marshal(hostile)
	if err != nil {
		t.Fatal(err)
	}
	answer, status := "", http.StatusOK
	port := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write([]byte(answer))
	}))
	defer port.Close()
	for task, form := range hostileAnswers {
		for _, format := range []string{"", " --json"} {
			line := "cache " + task + format + " --admin-url " + port.URL
			for _, status = range []int{http.StatusOK, http.StatusBadGateway} {
				answer = strings.ReplaceAll(form, "X", string(text))
				wantClean(t, line)
			}
			answer = strings.ReplaceAll(`{"error": X, "try": X}`, "X", string(text))
			wantClean(t, line)
		}
	}
	reason := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 500 Villa\x1b[31m\r\nContent-Length: 0\r\n\r\n")
	}))
	defer reason.Close()
	wantClean(t, "cache status --admin-url "+reason.URL)
	code, out, _ := typedFor(time.Minute, "cache", "metrics", "--json", "--admin-url", port.URL)
	var said struct{ Error string }
	if err := json.Unmarshal([]byte(out), &said); err != nil || code == 0 || said.Error != hostile {
		t.Errorf("--json does not say what was said: %v, %q", err, out)
	}
}

// wantClean runs a command that is told hostile things. It is to write nothing that
// a terminal would act on, nor a next step that is not ours.
func wantClean(t *testing.T, line string) {
	t.Helper()
	_, out, err := typedFor(time.Minute, strings.Fields(line)...)
	for _, c := range out + err {
		if c != '\n' && !unicode.IsPrint(c) {
			t.Errorf("%s writes %q:\n%q\n%q", line, c, out, err)
			return
		}
	}
	if strings.Count(err, "\n  try: ") > 1 || strings.Contains(out+err, "\n  try: rm") || !strings.Contains(out+err, "Villa") {
		t.Errorf("%s:\n%s%s", line, out, err)
	}
}

func TestTasks_WrongUsage(t *testing.T) {
	for _, c := range []struct{ args, text string }{
		{"manage-cache", "Please specify an action: --status, --clear, --warm, --test-signals, or --metrics"},
		{"manage-cache --status --clear", "Please specify an action"},
		{"manage-cache --nothing", "-nothing"},
		{"cache status now", `cache status takes no "now"`},
		{"cache warm --file /dev/null", "has no line with a path"},
	} {
		if code, _, err := typedFor(time.Minute, strings.Fields(c.args)...); code != 2 || !strings.Contains(err, c.text) {
			t.Errorf("%s: %d %s", c.args, code, err)
		}
	}
}
