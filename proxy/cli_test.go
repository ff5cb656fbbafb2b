package main

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/urfave/cli/v2"
)

// cleanEnv makes the flags' variables unset for a test, also where it sets them
// by reading a .env file.
func cleanEnv(t *testing.T) {
	t.Helper()
	for _, f := range serveFlags() {
		for _, name := range f.(cli.DocGenerationFlag).GetEnvVars() {
			t.Setenv(name, "") // restores it in the end
			if err := os.Unsetenv(name); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// typed runs a command line that is to end by itself, or at once: what serves
// is told to stop before it begins.
func typed(args ...string) (code int, stdout, stderr string) { return typedFor(0, args...) }

// typedFor runs a command line for some time at most.
func typedFor(limit time.Duration, args ...string) (code int, stdout, stderr string) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	var out, err bytes.Buffer
	code = run(ctx, append([]string{"proxy"}, args...), &out, &err)
	return code, out.String(), err.String()
}

// anyPort lets serve run beside other tests, and without a database.
var anyPort = []string{"serve", "--addr=127.0.0.1:0", "--admin-addr=127.0.0.1:0", "--no-coherence"}

func TestCLI_WrongUsageIs2AndSaysWhatAndWhereToLook(t *testing.T) {
	cleanEnv(t)
	for _, c := range []struct {
		line, says, help string
	}{
		{"nonsense", `no command "nonsense"`, "proxy --help"},
		{"--nonsense", "-nonsense", "proxy --help"},
		{"serve --nonsense", "-nonsense", "proxy serve --help"},
		{"demo --nonsense", "-nonsense", "proxy demo --help"},
		{"uninstall --nonsense", "-nonsense", "proxy uninstall --help"},
		{"serve nonsense", `serve takes no "nonsense"`, "proxy serve --help"},
		{"demo nonsense", `demo takes no "nonsense"`, "proxy demo --help"},
		{"uninstall nonsense", `uninstall takes no "nonsense"`, "proxy uninstall --help"},
		{"demo --rows=-1", "--rows is negative", "proxy demo --help"},
		{"demo --no-coherence", "-no-coherence", "proxy demo --help"}, // a demo of nothing
		{"demo --addr=8001", "--addr", "proxy demo --help"},
	} {
		code, stdout, stderr := typed(strings.Fields(c.line)...)
		if code != 2 || stdout != "" || !strings.HasPrefix(stderr, "proxy: ") || !strings.Contains(stderr, c.says) || !strings.Contains(stderr, "  try: "+c.help+"\n") {
			t.Errorf("%s: exit %d\n%s%s", c.line, code, stdout, stderr)
		}
	}
}

func TestCLI_EachFlagIsChecked(t *testing.T) {
	cleanEnv(t)
	for flag, says := range map[string]string{
		"--ttl=-1s":                            "--ttl is negative",
		"--max-ttl=-1s":                        "--max-ttl is negative",
		"--grace=-1s":                          "--grace is negative",
		"--serve-changed-if-error=-1s":         "--serve-changed-if-error is negative",
		"--serve-expired-if-error=-1s":         "--serve-expired-if-error is negative",
		"--write-wait=-1s":                     "--write-wait is negative",
		"--queue-timeout=-1s":                  "--queue-timeout is negative",
		"--upstream-timeout=-1s":               "--upstream-timeout is negative",
		"--ttl=soon":                           "soon",
		"--tags=maybe":                         `--tags is "maybe" and can only be trust`,
		"--client-cache-control=never":         `--client-cache-control is "never" and can only be proven or honour`,
		"--max-staleness=499ms":                "--max-staleness is 499ms; below 500ms nothing can be proven",
		"--grace=3s":                           "--grace is 3s and may be at most --max-staleness (2s)",
		"--max-fetches=0":                      "--max-fetches has to be at least 1",
		"--memory=1MB":                         "--memory has to be at least 1MiB",
		"--memory=lots":                        "it is not a number of bytes, such as 256MiB",
		"--memory=-1MiB":                       "it is not a number of bytes",
		"--max-object=9EiB":                    "it is not a number of bytes",
		"--trusted-proxies=10.0.0.0/8,nowhere": `--trusted-proxies: "nowhere" is neither an address nor a network`,
		"--upstream=ftp://x":                   "--upstream (UPSTREAM):",
		"--upstream=http://x/path":             "--upstream (UPSTREAM):",
		"--upstream=":                          "--upstream (UPSTREAM):",
		"--ignore-tables=[":                    `--ignore-tables: "[" is not a glob`,
		"--addr=":                              "--addr is empty",
		"--addr=8001":                          "--addr: ",
		"--addr=127.0.0.1:99999":               "--addr: ",
		"--admin-addr=8003":                    "--admin-addr: ",
		"--log-level=loud":                     `--log-level (LOG_LEVEL): there is no level "loud", only debug, info, warn, error`,
		"--log-level=info,ghost=debug":         `--log-level (LOG_LEVEL): there is no component "ghost", only serve, replication, `,
	} {
		if code, _, stderr := typed(append(anyPort, flag)...); code != 2 || !strings.Contains(stderr, says) {
			t.Errorf("%s: exit %d\n%s", flag, code, stderr)
		}
	}
	for _, flags := range []string{
		"--slot=Upper", "--slot=with-dash", "--slot=", "--slot=" + strings.Repeat("s", 64),
		"--publication=", "--publication=" + strings.Repeat("p", 56),
	} {
		name, _, _ := strings.Cut(flags, "=")
		code, _, stderr := typed("serve", "--database-url=postgres://h/d", flags)
		if code != 2 || !strings.Contains(stderr, name+" is ") {
			t.Errorf("%s: exit %d\n%s", flags, code, stderr)
		}
	}
}

func TestCLI_WhatFlagsAllowServes(t *testing.T) {
	cleanEnv(t)
	for _, flags := range []string{
		"", "--ttl=0", "--max-staleness=500ms --grace=500ms", "--memory=1MiB", "--max-object=1", "--tags=trust",
		"--trusted-proxies=10.0.0.0/8,::1,192.0.2.1", "--bypass=/admin/*,/cart*", "--ignore-cookies=_ga*", "--upstream=https://example.com/",
		"--private-headers=", "--admin-hosts=a,b", "--write-wait=0",
	} {
		if code, _, stderr := typed(append(anyPort, strings.Fields(flags)...)...); code != 0 || !strings.Contains(stderr, `"msg":"stopped"`) {
			t.Errorf("%s: exit %d\n%s", flags, code, stderr)
		}
	}
}

func TestCLI_VariablesAreCheckedLikeFlags(t *testing.T) {
	cleanEnv(t)
	for name, value := range map[string]string{"MEMORY": "lots", "TTL": "soon", "GRACE": "1h", "UPSTREAM": "nowhere", "NO_COHERENCE": "perhaps", "LOG_LEVEL": "loud"} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(name, value)
			if code, _, stderr := typed(anyPort[:3]...); code != 2 || stderr == "" {
				t.Errorf("exit %d\n%s", code, stderr)
			}
		})
	}
}

func TestCLI_WithoutADatabaseItSaysHowToNameOne(t *testing.T) {
	cleanEnv(t)
	for _, command := range []string{"serve", "uninstall"} {
		code, _, stderr := typed(command)
		if code != 2 || !strings.Contains(stderr, "no database is named\n  try: DATABASE_URL=postgres://") {
			t.Errorf("%s: exit %d\n%s", command, code, stderr)
		}
	}
}

// aSecret is what must not be seen.
const aSecret = "hunter2secret"

func TestCLI_PasswordsAreNeverPrinted(t *testing.T) {
	cleanEnv(t)
	for _, url := range []string{
		"postgres://u:" + aSecret + "%zz@h/d", "postgres://u:" + aSecret + "@h:port/d", "postgres://u:" + aSecret + "@h/d?sslmode=wrong",
		"mysql://u:" + aSecret + "@h/d", "host=h password=" + aSecret + " port=x",
		"password=" + aSecret + " nonsense", "postgres://u@h/d?port=x&password=" + aSecret,
	} {
		if code, stdout, stderr := typed("serve", "--database-url", url); code != 2 || strings.Contains(stdout+stderr, aSecret) {
			t.Errorf("%s: exit %d\n%s", url, code, stderr)
		}
	}
	for _, url := range []string{"http://u:" + aSecret + "@h", "h ttp://u:" + aSecret + "@h", "http://u:" + aSecret + "@h:port"} {
		if code, stdout, stderr := typed(append(anyPort, "--upstream", url)...); code != 2 || strings.Contains(stdout+stderr, aSecret) {
			t.Errorf("%s: exit %d\n%s", url, code, stderr)
		}
	}
	// Where the server is away.
	code, stdout, stderr := typedFor(time.Minute, "uninstall", "--database-url", "postgres://u:"+aSecret+"@127.0.0.1:1/d")
	if code != 1 || strings.Contains(stdout+stderr, aSecret) || !strings.Contains(stderr, "  try: start PostgreSQL, or correct DATABASE_URL") {
		t.Errorf("uninstall: exit %d\n%s", code, stderr)
	}
}

func TestCLI_SecretsComeFromFilesToo(t *testing.T) {
	cleanEnv(t)
	file := filepath.Join(t.TempDir(), "url")
	write(t, file, "postgres://u:"+aSecret+"@h:port/d\n")
	if code, _, stderr := typed("serve", "--database-url-file", file); code != 2 || !strings.Contains(stderr, "u:xxxxx@h:port/d") {
		t.Errorf("exit %d\n%s", code, stderr)
	}
	t.Setenv("DATABASE_URL", "postgres://h/d")
	if code, _, stderr := typed("serve", "--database-url-file", file); code != 2 || !strings.Contains(stderr, "--database-url and --database-url-file (or their variables) are both set") {
		t.Errorf("both: exit %d\n%s", code, stderr)
	}
	if code, _, stderr := typed(append(anyPort, "--admin-token=x", "--admin-token-file", file)...); code != 2 || !strings.Contains(stderr, "both set") {
		t.Errorf("both: exit %d\n%s", code, stderr)
	}
	if code, _, stderr := typed(append(anyPort, "--admin-token-file", file+".missing")...); code != 1 || !strings.Contains(stderr, "--admin-token-file: open ") {
		t.Errorf("missing: exit %d\n%s", code, stderr)
	}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestCLI_ATakenPortIsNamedWithItsFlag(t *testing.T) {
	cleanEnv(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	addr := taken.Addr().String()
	for _, c := range []struct{ line, flag string }{
		{"serve --no-coherence --admin-addr=127.0.0.1:0 --addr=" + addr, "--addr"},
		{"serve --no-coherence --addr=127.0.0.1:0 --admin-addr=" + addr, "--admin-addr"},
		{"demo --backend-addr=127.0.0.1:0 --admin-addr=127.0.0.1:0 --addr=" + addr, "--addr"},
		{"demo --addr=127.0.0.1:0 --admin-addr=127.0.0.1:0 --backend-addr=" + addr, "--backend-addr"},
		{"demo --addr=127.0.0.1:0 --backend-addr=127.0.0.1:0 --admin-addr=" + addr, "--admin-addr"},
	} {
		code, stdout, stderr := typed(strings.Fields(c.line)...)
		if want := "proxy: " + c.flag + ": " + addr + " is in use\n  try: "; code != 1 || !strings.HasPrefix(stderr, want) || stdout != "" {
			t.Errorf("%s: exit %d\n%s", c.line, code, stderr)
		}
	}
}

func TestCLI_ServeReadsDotEnvAndTheEnvironmentWins(t *testing.T) {
	cleanEnv(t)
	t.Chdir(t.TempDir())
	write(t, ".env", "ADDR='127.0.0.1:0'\nADMIN_ADDR=127.0.0.1:0\nNO_COHERENCE=true\nUPSTREAM=http://from-file:1\n")
	code, _, stderr := typed("serve")
	if code != 0 || !strings.Contains(stderr, `"upstream":"http://from-file:1"`) {
		t.Errorf("exit %d\n%s", code, stderr)
	}
	t.Setenv("UPSTREAM", "http://from-environment:1")
	if _, _, stderr = typed("serve"); !strings.Contains(stderr, `"upstream":"http://from-environment:1"`) {
		t.Error(stderr)
	}
	if _, _, stderr = typed("serve", "--upstream=http://from-flag:1"); !strings.Contains(stderr, `"upstream":"http://from-flag:1"`) {
		t.Error(stderr)
	}
}

func TestCLI_ADotEnvThatCannotBeReadIsNamedWithoutItsContent(t *testing.T) {
	cleanEnv(t)
	t.Chdir(t.TempDir())
	for _, text := range []string{`ADMIN_TOKEN="` + aSecret, aSecret + "\n", "A B=" + aSecret + "\n=x"} {
		write(t, ".env", text)
		for _, command := range []string{"serve", "uninstall"} {
			if code, stdout, stderr := typed(command); code == 0 || strings.Contains(stdout+stderr, aSecret) {
				t.Errorf("%s with %q: exit %d\n%s", command, text, code, stderr)
			}
		}
	}
	write(t, ".env", `A="`)
	if code, _, stderr := typed("serve"); code != 1 || !strings.HasPrefix(stderr, "proxy: read .env: line 1 (A): ") {
		t.Errorf("exit %d\n%s", code, stderr)
	}
	if code, _, _ := typed("demo", "--rows=-1"); code != 2 {
		t.Errorf("the demo reads .env: exit %d", code)
	}
	if code, stdout, _ := typed("--help"); code != 0 || stdout == "" {
		t.Errorf("help reads .env: exit %d", code)
	}
}

func TestCLI_HelpNamesEveryFlagWithItsVariableAndDefault(t *testing.T) {
	cleanEnv(t)
	code, stdout, stderr := typed("--help")
	if code != 0 || stderr != "" {
		t.Errorf("exit %d: %s", code, stderr)
	}
	if _, bare, _ := typed(); bare != stdout {
		t.Errorf("without arguments:\n%s", bare)
	}
	for _, command := range newApp(nil, nil).Commands {
		if !strings.Contains(stdout, "   "+command.Name) || !strings.Contains(stdout, command.Usage) {
			t.Errorf("%s is not in\n%s", command.Name, stdout)
		}
		code, help, _ := typed(command.Name, "--help")
		if code != 0 {
			t.Errorf("%s --help: exit %d", command.Name, code)
		}
		for _, f := range command.Flags {
			doc := f.(cli.DocGenerationFlag)
			if doc.GetUsage() == "" || !strings.Contains(help, "   --"+f.Names()[0]+" ") {
				t.Errorf("%s --help lacks --%s", command.Name, f.Names()[0])
			}
			for _, name := range doc.GetEnvVars() {
				if want := strings.ToUpper(strings.ReplaceAll(f.Names()[0], "-", "_")); name != want || !strings.Contains(help, "[$"+name+"]") {
					t.Errorf("%s --help: the variable of --%s is %s", command.Name, f.Names()[0], name)
				}
			}
		}
	}
}

func TestCLI_DefaultsAreThoseThatTheREADMEAndHelpPromise(t *testing.T) {
	cleanEnv(t)
	_, help, _ := typed("serve", "--help")
	for _, want := range []string{
		`(default: ":8001")`, `(default: "127.0.0.1:8003")`, "(default: 15m0s)", "(default: 24h0m0s)", "(default: 2s)",
		"(default: 256MiB)", "(default: 8.0MiB)", "(default: 128)", "(default: 5s)", "(default: 50ms)", `(default: "walcache")`, "(default: 1.0GiB)",
	} {
		if !strings.Contains(help, want) {
			t.Errorf("no %s in\n%s", want, help)
		}
	}
}
