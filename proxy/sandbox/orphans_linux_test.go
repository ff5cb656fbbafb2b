package sandbox_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"walcache/proxy/sandbox"
	"walcache/proxy/sandbox/sandboxtest"
)

// processesOn lists what works in dir or names it on its command line.
func processesOn(t *testing.T, dir string) []string {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, path := range lines {
		cmdline, err := os.ReadFile(path)
		if err != nil {
			continue // it has just ended
		}
		cwd, err := os.Readlink(filepath.Join(filepath.Dir(path), "cwd"))
		if err != nil {
			continue
		}
		if bytes.Contains(cmdline, []byte(dir)) || strings.HasPrefix(cwd, dir) {
			found = append(found, fmt.Sprintf("%s: %q in %s", path, cmdline, cwd))
		}
	}
	return found
}

func nothingRunsOn(t *testing.T, dir string) func() error {
	return func() error {
		if left := processesOn(t, dir); len(left) > 0 {
			return fmt.Errorf("still running:\n%s", strings.Join(left, "\n"))
		}
		return nil
	}
}

func TestPostgres_EveryWayToEndItLeavesNothingRunning(t *testing.T) {
	p := sandboxtest.OwnPostgres(t, map[string]string{"fsync": "off"})
	for name, end := range map[string]func() error{
		"stop":            func() error { return p.Stop(t.Context()) },
		"crash":           func() error { return p.Crash(t.Context()) },
		"kill":            p.Kill,
		"kill while busy": func() error { keepBusy(t, p); return p.Kill() },
		"stop when paused": func() error {
			if err := p.Pause(); err != nil {
				return err
			}
			return p.Stop(t.Context())
		},
		"kill when paused": func() error {
			if err := p.Pause(); err != nil {
				return err
			}
			return p.Kill()
		},
	} {
		if n := len(processesOn(t, p.Dir())); n < 3 {
			t.Fatalf("before %s: %d processes, so the search finds too few", name, n)
		}
		if err := end(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := nothingRunsOn(t, p.Dir())(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := p.Start(t.Context()); err != nil {
			t.Fatalf("start after %s: %v", name, err)
		}
		mustQuery(t, p)
	}
}

func TestPostgres_AStopThatTakesTooLongKills(t *testing.T) {
	p := sandboxtest.OwnPostgres(t, map[string]string{"fsync": "off"})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Stop(ctx); err == nil || !strings.Contains(err.Error(), "was killed") {
		t.Fatalf("stop without time: %v", err)
	}
	if err := nothingRunsOn(t, p.Dir())(); err != nil {
		t.Fatal(err)
	}
}

func TestRedis_EveryWayToEndItLeavesNothingRunning(t *testing.T) {
	r := sandboxtest.OwnRedis(t)
	for name, end := range map[string]func() error{
		"stop": func() error { return r.Stop(t.Context()) },
		"kill": r.Kill,
	} {
		if len(processesOn(t, r.Dir())) == 0 {
			t.Fatalf("before %s: no process found, so the search finds too few", name)
		}
		if err := end(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := nothingRunsOn(t, r.Dir())(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := r.Start(t.Context()); err != nil {
			t.Fatalf("start after %s: %v", name, err)
		}
	}
}

func TestParentKilled_ServersEndAndTheNextTempDirRemovesTheirs(t *testing.T) {
	const pattern = "walcache-orphan-test-*"
	parent, dir := startParent(t, pattern)
	if n := len(processesOn(t, dir)); n < 4 {
		t.Fatalf("%d processes, so the search finds too few", n)
	}
	killParent(t, parent.Process)
	parent.Wait()
	sandboxtest.Eventually(t, 10*time.Second, nothingRunsOn(t, dir))
	sweep(t, pattern)
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Fatalf("the directory of a dead process is still there: %v", err)
	}
}

func TestParentKilled_FrozenServersEndWithTheNextTempDir(t *testing.T) {
	const pattern = "walcache-frozen-test-*"
	parent, dir := startParent(t, pattern, pauseVariable+"=1")
	killParent(t, parent.Process)
	parent.Wait()
	sweep(t, pattern)
	sandboxtest.Eventually(t, 10*time.Second, nothingRunsOn(t, dir))
}

func TestTempDir_OfALivingProcessStays(t *testing.T) {
	const pattern = "walcache-living-test-*"
	parent, dir := startParent(t, pattern)
	sweep(t, pattern)
	if n := len(processesOn(t, dir)); n < 4 {
		t.Fatalf("%d processes are left", n)
	}
	if _, err := os.Stat(filepath.Join(dir, "postgres", "data")); err != nil {
		t.Fatal(err)
	}
	killParent(t, parent.Process)
	parent.Wait()
	sandboxtest.Eventually(t, 10*time.Second, nothingRunsOn(t, dir))
	sweep(t, pattern)
}

func killParent(t *testing.T, parent *os.Process) {
	t.Helper()
	if err := parent.Kill(); err != nil {
		t.Fatal(err)
	}
}

// sweep makes and removes a temporary directory of the pattern.
func sweep(t *testing.T, pattern string) {
	t.Helper()
	_, remove, err := sandbox.TempDir(pattern)
	if err != nil {
		t.Fatal(err)
	}
	if err := remove(); err != nil {
		t.Fatal(err)
	}
}
