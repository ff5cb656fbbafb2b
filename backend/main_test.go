package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"walcache/proxy/sandbox/sandboxtest"
)

func TestMain(m *testing.M) { sandboxtest.Main(m) }

// output is what a program wrote so far.
type output struct {
	mu   sync.Mutex // guards the following
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// backend runs one command to its end, in an empty directory and without a
// database in its environment.
func backend(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	t.Chdir(t.TempDir())
	t.Setenv("DATABASE_URL", "")
	var out, errs output
	code = run(t.Context(), append([]string{"backend"}, args...), &out, &errs)
	return code, out.String(), errs.String()
}

func TestRun_WrongUsageExits2AndSaysWhy(t *testing.T) {
	for args, want := range map[string]string{
		"nonsense":            `no command "nonsense"`,
		"--nonsense":          "flag provided but not defined: -nonsense",
		"serve --nonsense":    "flag provided but not defined: -nonsense",
		"serve now":           `serve takes no "now"`,
		"serve":               "no database: set DATABASE_URL",
		"migrate":             "no database: set DATABASE_URL",
		"migrate sideways":    `not "sideways"`,
		"migrate up down":     "migrate takes one of",
		"seed --rows 0":       "--rows must be at least 1",
		"seed --rows many":    `invalid value "many"`,
		"seed five":           `seed takes no "five"`,
		"seed --rows 5":       "no database: set DATABASE_URL",
		"createsuperuser":     "no database: set DATABASE_URL",
		"createsuperuser ada": `createsuperuser takes no "ada"`,
		"createsuperuser --database-url=postgres://u@h/d":                    "SUPERUSER_PASSWORD",
		"serve --redis-url=http://h --database-url=postgres://u@h/d":         "--redis-url: ",
		"serve --log-level=loud":                                             `--log-level (LOG_LEVEL): there is no level "loud", only debug, info, warn, error`,
		"serve --log-level=ghost=debug":                                      `--log-level (LOG_LEVEL): there is no component "ghost", only serve, replication, `,
		"serve --trusted-proxies=nowhere --database-url=postgres://u@h/d":    `--trusted-proxies: "nowhere" is neither an address nor a network`,
		"migrate --database-url=postgres://u@h/d --database-url-file=/there": "--database-url and --database-url-file (or their variables) are both set",
		"seed --database-url":                                                "flag needs an argument",
		"seed --database-url=postgres://u:hunter2@h:port/d":                  "--database-url: cannot parse `postgres://u:xxxxx@h:port/d`",
	} {
		code, stdout, stderr := backend(t, strings.Fields(args)...)
		if code != 2 || stdout != "" || !strings.HasPrefix(stderr, "backend: ") || !strings.Contains(stderr, want) || !strings.Contains(stderr, "\n  try: ") {
			t.Errorf("%s: exit %d\n%s%s\nwant %s", args, code, stdout, stderr, want)
		}
	}
}

func TestRun_HelpExits0(t *testing.T) {
	for _, args := range [][]string{nil, {"--help"}, {"serve", "--help"}} {
		if code, stdout, stderr := backend(t, args...); code != 0 || !strings.Contains(stdout, "USAGE") || stderr != "" {
			t.Errorf("%v: exit %d\n%s%s", args, code, stdout, stderr)
		}
	}
}

func TestRun_FailureExits1AndSaysWhatToTry(t *testing.T) {
	dsn := sandboxtest.Postgres(t)
	taken := regexp.MustCompile(`:(\d+)/`).FindStringSubmatch(dsn)[1] // PostgreSQL's own port
	for args, want := range map[string]string{
		"migrate --database-url postgres://u:hunter2@127.0.0.1:1/d":                                 "backend: cannot reach PostgreSQL at 127.0.0.1:1/d: connect: connection refused\n  try: ",
		"seed --database-url postgres://u:hunter2@127.0.0.1:1/d":                                    "backend: cannot reach PostgreSQL at 127.0.0.1:1/d: connect: connection refused\n  try: ",
		"seed --database-url " + wrongPassword(dsn):                                                 "password authentication failed",
		"seed --database-url " + dsn:                                                                "try: backend migrate",
		"serve --addr 127.0.0.1:" + taken + " --secret-key " + secretKey + " --database-url " + dsn: "address already in use\n  try: ",
		"serve --database-url " + dsn:                                                               "SECRET_KEY is not set\n  try: set it to what `openssl rand -base64 48` prints",
		"serve --secret-key django-insecure-change-me-please-1234 --database-url " + dsn:            "SECRET_KEY is a key out of an example",
		"serve --secret-key-file /nowhere --database-url " + dsn:                                    "--secret-key-file: open /nowhere",
		"createsuperuser --username ada --password short --database-url " + dsn:                     "at least 8 characters",
		"createsuperuser --username ada --password a-long-one --database-url " + dsn:                "try: backend migrate",
	} {
		code, stdout, stderr := backend(t, strings.Fields(args)...)
		if code != 1 || stdout != "" || !strings.Contains(stderr, want) || strings.Contains(stderr, "hunter2") {
			t.Errorf("%s: exit %d\n%s%s\nwant %s", args, code, stdout, stderr, want)
		}
	}
}

const secretKey = "4cHNlY8vVXrQ9mJt2LkWz0bTq7uEa5RsPdGy1xFo" // for tests

func wrongPassword(dsn string) string {
	return regexp.MustCompile(`://([^:]+):[^@]+@`).ReplaceAllString(dsn, "://$1:hunter2@")
}

func TestRun_MigrateAndSeed(t *testing.T) {
	dsn := sandboxtest.Postgres(t)
	for _, c := range []struct{ args, want string }{
		{"migrate status", `00001_properties.sql  pending\n00002_panel.sql  pending`},
		{"migrate", `00001_properties.sql  applied \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\n00002_panel.sql  applied .*`},
		{"migrate up", `00001_properties.sql  applied .*\n00002_panel.sql  applied .*`},
		{"createsuperuser --username ada --password a-long-one", `Superuser ada created: log in at /admin/`},
		{"seed", `(Created property: .*\n){5}\nTotal properties in database: 5\nTest data creation complete!`},
		{"seed", `(Property already exists: .*\n){5}\nTotal properties in database: 5\nTest data creation complete!`},
		{"seed --rows 12", `Created 12 properties`},
		{"migrate down", `00001_properties.sql  applied .*\n00002_panel.sql  pending`},
	} {
		command, rest, _ := strings.Cut(c.args, " ")
		args := append([]string{command, "--database-url", dsn}, strings.Fields(rest)...)
		code, stdout, stderr := backend(t, args...)
		if code != 0 || stderr != "" || !regexp.MustCompile(`^`+c.want+`\n$`).MatchString(stdout) {
			t.Errorf("%s: exit %d\n%s%s\nwant %s", c.args, code, stdout, stderr, c.want)
		}
	}
}

func TestRun_ServesUntilStopped(t *testing.T) {
	dsn := sandboxtest.Postgres(t)
	if code, _, stderr := backend(t, "migrate", "--database-url", dsn); code != 0 {
		t.Fatal(stderr)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var stderr output
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, []string{"backend", "serve", "--addr", "127.0.0.1:0", "--database-url", dsn, "--secret-key", secretKey}, io.Discard, &stderr)
	}()
	var addr string
	sandboxtest.Eventually(t, 10*time.Second, func() error {
		if found := regexp.MustCompile(`"msg":"serving",.*"addr":"([^"]+)"`).FindStringSubmatch(stderr.String()); found != nil {
			addr = found[1]
			return nil
		}
		return io.ErrNoProgress
	})
	w, err := http.Get("http://" + addr + "/")
	if err != nil {
		t.Fatal(err)
	}
	w.Body.Close()
	if w.StatusCode != 200 || w.Request.URL.Path != "/properties/" {
		t.Errorf("%s: %s", w.Request.URL, w.Status)
	}
	stop()
	if got := <-code; got != 0 || !strings.Contains(stderr.String(), `"msg":"stopped"`) {
		t.Errorf("exit %d\n%s", got, &stderr)
	}
}

func TestRun_ReadsDotEnvBelowTheEnvironment(t *testing.T) {
	for _, c := range []struct{ env, want string }{
		{"", "127.0.0.1:1/from_file"},
		{"postgres://u@127.0.0.1:1/from_environment", "127.0.0.1:1/from_environment"},
	} {
		t.Run(c.want, func(t *testing.T) {
			t.Chdir(t.TempDir())
			if err := os.WriteFile(".env", []byte("DATABASE_URL='postgres://u@127.0.0.1:1/from_file'\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			t.Setenv("DATABASE_URL", c.env) // restored by the test's end
			if c.env == "" {
				os.Unsetenv("DATABASE_URL")
			}
			var stderr output
			if code := run(t.Context(), []string{"backend", "seed"}, io.Discard, &stderr); code != 1 || !strings.Contains(stderr.String(), c.want) {
				t.Errorf("exit %d\n%s", code, &stderr)
			}
		})
	}
}

func TestRun_TheDatabaseMayStandInAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "url")
	if err := os.WriteFile(file, []byte("postgres://u:hunter2@127.0.0.1:1/from_file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"migrate", "seed", "createsuperuser --username ada --password a-long-one"} {
		code, _, stderr := backend(t, append(strings.Fields(command), "--database-url-file", file)...)
		if code != 1 || !strings.Contains(stderr, "127.0.0.1:1/from_file") {
			t.Errorf("%s: exit %d\n%s", command, code, stderr)
		}
	}
}

// A key out of an example is for who debugs, who is told so; nobody else starts
// with it.
func TestRun_AKnownSecretKeyIsForDebuggingAlone(t *testing.T) {
	const known = "your-secret-key-here"
	args := []string{"serve", "--addr=127.0.0.1:0", "--database-url=postgres://u@127.0.0.1:1/d", "--trusted-proxies=192.0.2.7", "--secret-key=" + known}
	code, _, stderr := backend(t, args...)
	if code != 1 || !strings.HasPrefix(stderr, "backend: SECRET_KEY ") || strings.Contains(stderr, known) {
		t.Errorf("exit %d\n%s", code, stderr)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop() // as soon as it serves
	var log output
	code = run(ctx, append([]string{"backend"}, append(args, "--debug")...), io.Discard, &log)
	if code != 0 || strings.Count(log.String(), "SECRET_KEY") != 1 || strings.Contains(log.String(), known) {
		t.Errorf("exit %d\n%s", code, &log)
	}
}

func TestRun_BrokenDotEnvIsSaid(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile(".env", []byte("DATABASE_URL\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var stderr output
	if code := run(t.Context(), []string{"backend", "seed"}, io.Discard, &stderr); code != 1 || !strings.Contains(stderr.String(), "read .env: line 1 is not of the form NAME=value") {
		t.Errorf("exit %d\n%s", code, &stderr)
	}
}
