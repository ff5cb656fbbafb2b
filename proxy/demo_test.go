package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/joho/godotenv"
	"github.com/redis/go-redis/v9"

	"walcache/proxy/sandbox/sandboxtest"
)

// demoLimit is how long a demo may take until it is ready: 3 s alone, and here
// two of them run at once, beside whatever else is being tested, and `go run`
// builds first.
const demoLimit = 4 * time.Minute

// TestDemo runs the program as a user does. Its parts share what is built.
func TestDemo(t *testing.T) {
	program := filepath.Join(t.TempDir(), "proxy")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	for name, test := range map[string]func(*testing.T, string){
		"DoesWhatItSaysAndCtrlCLeavesNothing":        demoDoesWhatItSays,
		"SIGTERMLeavesNothing":                       demoTerminated,
		"SecondCtrlCWhileStoppingLeavesNothing":      demoInterruptedTwice,
		"CtrlCWhileStartingLeavesNothing":            demoInterruptedEarly,
		"KilledLeavesNothingOnceTheNextHasBegun":     demoKilled,
		"GoRunTerminatedLeavesNothing":               demoGoRunTerminated,
		"GoRunCtrlCLeavesNothing":                    demoGoRunInterrupted,
		"WithoutRedisServerItHasOneInTheProcess":     demoWithoutRedis,
		"IgnoresTheEnvironmentAndSaysSo":             demoIgnoresEnvironment,
		"DataDirIsKept":                              demoKeepsData,
		"TakenPortStartsNothing":                     demoPortTaken,
		"OnAllAddressesItPrintsURLsThatAnswer":       demoEverywhere,
		"FlagsThatLeaveNoHitDoNotKeepItFromStarting": demoWithoutHit,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, program)
		})
	}
}

// demoRun is a demo that runs.
type demoRun struct {
	t              *testing.T
	cmd            *exec.Cmd
	ended          chan error // closed when the command has
	stdout, stderr *lines
	tmp            string            // its TMPDIR
	envFile        string            // what --write-env names
	env            map[string]string // what it holds
}

// demoTemp is a directory that the servers' user can pass through.
func demoTemp(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "walcache-demotest-")
	if err == nil {
		err = os.Chmod(dir, 0o711)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// launch starts a command line that is a demo, with free ports, a directory for
// temporary files of its own, and a process group, as a shell gives it.
func launch(t *testing.T, tmp string, environment []string, command ...string) *demoRun {
	t.Helper()
	d := &demoRun{t: t, tmp: tmp, stdout: &lines{}, stderr: &lines{}, ended: make(chan error, 1), envFile: filepath.Join(tmp, "env")}
	d.cmd = exec.Command(command[0], append(command[1:], "--write-env", d.envFile)...)
	d.cmd.Env = append(append(os.Environ(), "TMPDIR="+tmp), environment...)
	d.cmd.Stdout, d.cmd.Stderr = d.stdout, d.stderr
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	write(t, d.envFile, beforeDemo)
	if err := errors.Join(os.Chmod(d.envFile, 0o644), d.cmd.Start()); err != nil {
		t.Fatal(err)
	}
	go func() { d.ended <- d.cmd.Wait() }()
	t.Cleanup(func() {
		d.signal(-d.cmd.Process.Pid, syscall.SIGKILL)
		if t.Failed() {
			t.Logf("%s%s", d.stdout, d.stderr)
		}
	})
	return d
}

// warns wants something on standard error, which comes by a pipe of its own and
// may be copied later than what standard output said after it.
func (d *demoRun) warns(text string) {
	d.t.Helper()
	sandboxtest.Eventually(d.t, time.Minute, func() error {
		if !strings.Contains(d.stderr.String(), text) {
			return fmt.Errorf("standard error does not say %q", text)
		}
		return nil
	})
}

// beforeDemo is what --write-env finds in its file.
const beforeDemo = "AN_EARLIER_DEMO='1'\n"

// wroteNothing wants the file of --write-env as it was.
func (d *demoRun) wroteNothing() {
	d.t.Helper()
	if text, err := os.ReadFile(d.envFile); err != nil || string(text) != beforeDemo {
		d.t.Errorf("--write-env wrote %q, %v", text, err)
	}
}

var freePorts = []string{"demo", "--addr=127.0.0.1:0", "--backend-addr=127.0.0.1:0", "--admin-addr=127.0.0.1:0"}

func startDemo(t *testing.T, program string, flags ...string) *demoRun {
	t.Helper()
	d := launch(t, demoTemp(t), nil, slices.Concat([]string{program}, freePorts, flags)...)
	d.awaitReady()
	return d
}

func (d *demoRun) awaitReady() {
	d.t.Helper()
	sandboxtest.Eventually(d.t, demoLimit, func() error {
		if !strings.Contains(d.stdout.String(), "\nThe first answer is a hit.") {
			return fmt.Errorf("not ready\n%s%s", d.stdout, d.stderr)
		}
		return nil
	})
	var err error
	if d.env, err = godotenv.Read(d.envFile); err != nil {
		d.t.Fatal(err)
	}
}

// signal sends one to a process, or with a negative pid to a group; one that has
// ended needs none.
func (d *demoRun) signal(pid int, sig syscall.Signal) {
	d.t.Helper()
	if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		d.t.Errorf("signal %d: %v", pid, err)
	}
}

// ctrlC is what a terminal does: the signal goes to the whole group.
func (d *demoRun) ctrlC() { d.signal(-d.cmd.Process.Pid, syscall.SIGINT) }

func (d *demoRun) awaitEnd() error {
	d.t.Helper()
	select {
	case err := <-d.ended:
		return err
	case <-time.After(demoLimit):
		d.t.Fatal("it does not end")
		return nil
	}
}

// endsWell stops it with a Ctrl-C.
func (d *demoRun) endsWell() {
	d.t.Helper()
	d.ctrlC()
	if err := d.awaitEnd(); err != nil {
		d.t.Errorf("ended with %v", err)
	}
}

// nothingLeft wants no process that works in the demo's directory, nobody on its
// ports and, unless it was killed, no directory.
func (d *demoRun) nothingLeft(killed bool) {
	d.t.Helper()
	sandboxtest.Eventually(d.t, 15*time.Second, func() error {
		if left := processesIn(d.t, d.tmp); len(left) > 0 {
			return fmt.Errorf("still running:\n%s", strings.Join(left, "\n"))
		}
		for _, addr := range d.ports() {
			if conn, err := net.Dial("tcp", addr); err == nil {
				conn.Close()
				return fmt.Errorf("somebody listens on %s", addr)
			}
		}
		return nil
	})
	if dirs := demoDirs(d.t, d.tmp); len(dirs) > 0 && !killed {
		d.t.Errorf("left behind: %v", dirs)
	}
}

// ports are those that it listened on, once it was ready.
func (d *demoRun) ports() (addrs []string) {
	for name, value := range d.env {
		if u, err := url.Parse(value); err == nil && strings.HasSuffix(name, "_URL") {
			addrs = append(addrs, u.Host)
		}
	}
	return addrs
}

func demoDirs(t *testing.T, tmp string) []string {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join(tmp, "walcache-demo-*"))
	if err != nil {
		t.Fatal(err)
	}
	return dirs
}

// processesIn lists what works in dir or names it on its command line.
func processesIn(t *testing.T, dir string) (found []string) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		cmdline, err := os.ReadFile(file)
		cwd, errCwd := os.Readlink(filepath.Join(filepath.Dir(file), "cwd"))
		if err != nil || errCwd != nil {
			continue // it has just ended
		}
		if strings.Contains(string(cmdline), dir) || strings.HasPrefix(cwd, dir) {
			found = append(found, fmt.Sprintf("%s: %q in %s", file, cmdline, cwd))
		}
	}
	return found
}

// paste runs the n-th command that the demo printed, in a shell.
func (d *demoRun) paste(n int) string {
	d.t.Helper()
	commands := regexp.MustCompile(`(?m)^  (curl|\S*psql) .*$`).FindAllString(d.stdout.String(), -1)
	if len(commands) != 3 {
		d.t.Fatalf("commands to paste: %q", commands)
	}
	out, err := exec.Command("sh", "-c", commands[n]).CombinedOutput()
	if err != nil {
		d.t.Errorf("%s: %v\n%s", commands[n], err, out)
	}
	return string(out)
}

func demoDoesWhatItSays(t *testing.T, program string) {
	d := startDemo(t, program, "--rows=1000")
	t.Log(regexp.MustCompile(`ready after .*? s`).FindString(d.stdout.String()))
	d.commandsTellTheTruth()
	d.writtenEnvWorks()
	all := ask(t, d.env["PROXY_URL"]+"/properties/?format=json")
	if l, err := decode[listing](all.body); err != nil || l.Count != 1000 {
		t.Errorf("%d properties, %v", l.Count, err)
	}
	if n := len(processesIn(t, d.tmp)); n < 6 { // the demo, Redis, and several of PostgreSQL
		t.Errorf("%d processes, so the search for those left behind finds too few", n)
	}
	d.endsWell()
	d.nothingLeft(false)
}

func (d *demoRun) commandsTellTheTruth() {
	d.t.Helper()
	price := regexp.MustCompile(`"price":\s*"(\d+)\.(\d+)"`)
	// On a machine that stands still for seconds nothing can be proven fresh for
	// a moment, and a change is known a moment later: so each is asked for again.
	var before, after string
	sandboxtest.Eventually(d.t, 10*time.Second, func() error {
		if before = d.paste(0); !strings.Contains(before, "Cache-Status: walcache; hit") {
			return fmt.Errorf("the first command shows\n%s", before)
		}
		return nil
	})
	if out := d.paste(1); out != "UPDATE 1\n" {
		d.t.Errorf("the second command shows\n%s", out)
	}
	was := price.FindString(before)
	sandboxtest.Eventually(d.t, 10*time.Second, func() error {
		after = d.paste(2)
		if is := price.FindString(after); was == "" || is == "" || is == was {
			return fmt.Errorf("after the change the third command shows\n%s\nand the first had shown\n%s", after, before)
		}
		return nil
	})
	if !strings.Contains(after, "fwd=stale") || !strings.Contains(after, "detail=changed") {
		d.t.Errorf("the first fresh answer is\n%s", after)
	}
}

func (d *demoRun) writtenEnvWorks() {
	t := d.t
	t.Helper()
	info, err := os.Stat(d.envFile)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if left, _ := filepath.Glob(filepath.Join(d.tmp, ".env-*")); len(left) > 0 {
		t.Errorf("left beside it: %v", left)
	}
	for name, path := range map[string]string{"PROXY_URL": "/properties/", "BACKEND_URL": "/properties/", "ADMIN_URL": "/readyz"} {
		if res := ask(t, d.env[name]+path); res.status != 200 {
			t.Errorf("%s: %d", name, res.status)
		}
	}
	if len(d.env) != 9 {
		t.Errorf("--write-env wrote %v", d.env)
	}
	for _, name := range []string{"ADMIN_TOKEN", "API_TOKEN", "SUPERUSER_PASSWORD"} {
		if len(d.env[name]) < 20 {
			t.Errorf("%s is %q", name, d.env[name])
		}
	}
	// A shell can read it.
	out, err := exec.Command("sh", "-c", `. "$1"; psql "$DATABASE_URL" -Atc 'SELECT 1'; echo "$REDIS_URL"`, "sh", d.envFile).CombinedOutput()
	if want := "1\n" + d.env["REDIS_URL"] + "\n"; err != nil || string(out) != want {
		t.Errorf("in a shell: %v\n%s", err, out)
	}
	pingRedis(t, d.env["REDIS_URL"])
}

func pingRedis(t *testing.T, url string) {
	t.Helper()
	options, err := redis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(options)
	defer client.Close()
	if err := client.Ping(t.Context()).Err(); err != nil {
		t.Errorf("Redis: %v", err)
	}
}

func demoTerminated(t *testing.T, program string) {
	d := startDemo(t, program)
	d.signal(d.cmd.Process.Pid, syscall.SIGTERM)
	if err := d.awaitEnd(); err != nil {
		t.Errorf("ended with %v", err)
	}
	d.nothingLeft(false)
}

// demoInterruptedTwice holds a request under way, so that stopping takes long.
func demoInterruptedTwice(t *testing.T, program string) {
	d := startDemo(t, program)
	conn, err := pgx.Connect(t.Context(), d.env["DATABASE_URL"])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), "BEGIN; LOCK TABLE properties"); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = http.Get(d.env["PROXY_URL"] + "/properties/?location=nowhere") }()
	sandboxtest.Eventually(t, 10*time.Second, func() error {
		if res := ask(t, d.env["ADMIN_URL"]+"/status"); !strings.Contains(res.body, `"now": 1`) {
			return errors.New(res.body)
		}
		return nil
	})
	d.ctrlC()
	sandboxtest.Eventually(t, 5*time.Second, func() error {
		if res := ask(t, d.env["ADMIN_URL"]+"/readyz"); !strings.Contains(res.body, "draining") {
			return errors.New(res.body)
		}
		return nil
	})
	began := time.Now()
	d.ctrlC()
	if err := d.awaitEnd(); err == nil || time.Since(began) > drainTimeout/2 {
		t.Errorf("ended after %s with %v", time.Since(began), err)
	}
	d.nothingLeft(true)
}

func demoInterruptedEarly(t *testing.T, program string) {
	d := launch(t, demoTemp(t), nil, slices.Concat([]string{program}, freePorts)...)
	sandboxtest.Eventually(t, demoLimit, func() error {
		if len(processesIn(t, filepath.Join(d.tmp, "walcache-demo-"))) == 0 {
			return errors.New("no server is being started")
		}
		return nil
	})
	d.endsWell()
	d.wroteNothing()
	d.nothingLeft(false)
}

func demoKilled(t *testing.T, program string) {
	d := startDemo(t, program)
	d.signal(d.cmd.Process.Pid, syscall.SIGKILL)
	_ = d.awaitEnd() // it says that it was killed
	d.nothingLeft(true)
	killed := demoDirs(t, d.tmp)
	if len(killed) != 1 {
		t.Fatalf("directories: %v", killed)
	}
	next := launch(t, d.tmp, nil, slices.Concat([]string{program}, freePorts)...)
	next.awaitReady()
	if dirs := demoDirs(t, d.tmp); len(dirs) != 1 || dirs[0] == killed[0] {
		t.Errorf("after the next demo began: %v", dirs)
	}
	next.endsWell()
	next.nothingLeft(false)
}

func goRun(t *testing.T) *demoRun {
	t.Helper()
	// What `go run` builds has to outlive the demo's TMPDIR being looked at.
	d := launch(t, demoTemp(t), []string{"GOTMPDIR=" + t.TempDir()}, append([]string{"go", "run", "."}, freePorts...)...)
	d.awaitReady()
	return d
}

func demoGoRunTerminated(t *testing.T, _ string) {
	d := goRun(t)
	d.signal(d.cmd.Process.Pid, syscall.SIGTERM) // to the go command alone
	_ = d.awaitEnd()                             // it says that it was terminated
	d.nothingLeft(false)
}

func demoGoRunInterrupted(t *testing.T, _ string) {
	d := goRun(t)
	d.ctrlC()
	_ = d.awaitEnd() // the go command may call this an error
	d.nothingLeft(false)
}

func demoWithoutRedis(t *testing.T, program string) {
	d := launch(t, demoTemp(t), []string{"PATH=" + t.TempDir()}, slices.Concat([]string{program}, freePorts)...)
	d.awaitReady()
	if !strings.Contains(d.stdout.String(), "(in-process Redis)") {
		t.Error("it does not say which Redis it has")
	}
	pingRedis(t, d.env["REDIS_URL"])
	d.commandsTellTheTruth() // with the psql beside the server
	d.endsWell()
	d.nothingLeft(false)
}

func demoIgnoresEnvironment(t *testing.T, program string) {
	work := t.TempDir()
	write(t, filepath.Join(work, ".env"), "MAX_FETCHES=0\n") // which would be refused
	d := launch(t, demoTemp(t), []string{"DATABASE_URL=postgres://127.0.0.1:1/x", "REDIS_URL=redis://127.0.0.1:1", "UPSTREAM=http://127.0.0.1:1"},
		slices.Concat([]string{"sh", "-c", `cd "$0" && exec "$@"`, work, program}, freePorts)...)
	d.awaitReady()
	for _, name := range []string{"DATABASE_URL", "REDIS_URL", "UPSTREAM"} {
		d.warns(name + " is set and not used")
	}
	d.commandsTellTheTruth()
	d.endsWell()
}

func demoKeepsData(t *testing.T, program string) {
	dir := filepath.Join(demoTemp(t), "data")
	first := startDemo(t, program, "--data-dir", dir)
	conn, err := pgx.Connect(t.Context(), first.env["DATABASE_URL"])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), "INSERT INTO properties (title, description, price, location) VALUES ('kept', '', 1, 'Here')"); err != nil {
		t.Fatal(err)
	}
	beside := launch(t, demoTemp(t), nil, slices.Concat([]string{program}, freePorts, []string{"--data-dir", dir})...)
	if err := beside.awaitEnd(); err == nil || !strings.Contains(beside.stderr.String(), "is in use by postgres, pid") || !strings.Contains(beside.stderr.String(), "\n  try: ") {
		t.Errorf("a second demo in the directory: %v\n%s", err, beside.stderr)
	}
	first.endsWell()
	if left := processesIn(t, dir); len(left) > 0 {
		t.Errorf("still running: %v", left)
	}

	second := startDemo(t, program, "--data-dir", dir, "--rows=1000")
	second.warns("--rows is not used")
	if l, err := decode[listing](ask(t, second.env["PROXY_URL"]+"/properties/?location=Here&format=json").body); err != nil || l.Count != 1 {
		t.Errorf("kept %d rows, %v", l.Count, err)
	}
	if was, is := password(t, first), password(t, second); was != is {
		t.Errorf("the password was %s and is %s", was, is)
	}
	second.commandsTellTheTruth()
	second.endsWell()
	if left := processesIn(t, dir); len(left) > 0 {
		t.Errorf("still running: %v", left)
	}
	if _, err := os.Stat(filepath.Join(dir, "postgres", "data", "PG_VERSION")); err != nil {
		t.Error(err)
	}
}

func password(t *testing.T, d *demoRun) string {
	t.Helper()
	config, err := pgx.ParseConfig(d.env["DATABASE_URL"])
	if err != nil {
		t.Fatal(err)
	}
	return config.Password
}

func demoPortTaken(t *testing.T, program string) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	d := launch(t, demoTemp(t), nil, slices.Concat([]string{program}, freePorts, []string{"--admin-addr", taken.Addr().String()})...)
	if err := d.awaitEnd(); err == nil {
		t.Error("it ended well")
	}
	want := fmt.Sprintf("proxy: --admin-addr: %s is in use\n  try: stop what listens there, or give another address\n", taken.Addr())
	if d.stderr.String() != want || d.stdout.String() != "" {
		t.Errorf("it said\n%s%s", d.stdout, d.stderr)
	}
	d.wroteNothing()
	d.nothingLeft(false)
}

func demoEverywhere(t *testing.T, program string) {
	d := startDemo(t, program, "--addr=:0", "--backend-addr=0.0.0.0:0", "--admin-addr=[::]:0")
	req, err := http.NewRequestWithContext(t.Context(), "GET", d.env["ADMIN_URL"]+"/status", nil)
	if err != nil {
		t.Fatal(err)
	}
	for token, want := range map[string]int{"": 401, d.env["ADMIN_TOKEN"]: 200} {
		req.Header.Set("Authorization", "Bearer "+token)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("status with token %q: %d", token, res.StatusCode)
		}
	}
	for _, name := range []string{"PROXY_URL", "BACKEND_URL"} {
		if res := ask(t, d.env[name]+"/properties/"); res.status != 200 {
			t.Errorf("%s: %d", name, res.status)
		}
	}
	d.endsWell()
	d.nothingLeft(false)
}

func demoWithoutHit(t *testing.T, program string) {
	d := startDemo(t, program, "--bypass=*")
	d.warns("the page to try is no hit (walcache; fwd=bypass")
	d.endsWell()
}
