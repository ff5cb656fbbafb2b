package docs

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/joho/godotenv"
)

// demoLimit is how long the demo may take until it is ready: 3 s alone, and far
// more on a machine where everything else is being tested.
const demoLimit = 4 * time.Minute

// demo returns what --write-env says of the demo that all tests of this package
// share: PROXY_URL, BACKEND_URL, ADMIN_URL, DATABASE_URL, REDIS_URL, ADMIN_TOKEN,
// API_TOKEN, SUPERUSER_NAME and SUPERUSER_PASSWORD. It starts when first asked
// for. A test leaves its data as it found them; tests that look at all of the
// data do not run in parallel with others.
func demo(t *testing.T) map[string]string {
	t.Helper()
	env, err := sharedDemo()
	if err != nil {
		t.Fatal(err)
	}
	return maps.Clone(env)
}

// sharedDemo builds the program and starts it. Nobody stops it: a demo whose
// parent is gone stops itself and its servers, so it ends with the tests, however
// they end. Nothing of ours is left either: once the program runs and has said
// where it is, its file may go.
var sharedDemo = sync.OnceValues(func() (env map[string]string, err error) {
	dir, err := os.MkdirTemp("", "walcache-docs-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	program := filepath.Join(dir, "proxy")
	if out, err := exec.Command("go", "build", "-o", program, "../proxy").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go build: %w\n%s", err, out)
	}
	return startDemo(program, dir)
})

// startDemo returns once the demo is ready. What it writes goes into a file: a
// pipe would break with our end, and that must not be the demo's.
func startDemo(program, dir string) (map[string]string, error) {
	file, logged := filepath.Join(dir, "env"), filepath.Join(dir, "log")
	log, err := os.Create(logged)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(program, "demo", "--addr=127.0.0.1:0", "--backend-addr=127.0.0.1:0", "--admin-addr=127.0.0.1:0", "--write-env="+file)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for began := time.Now(); time.Since(began) < demoLimit; {
		if _, err := os.Stat(file); err == nil {
			return godotenv.Read(file)
		}
		select {
		case err := <-ended:
			text, _ := os.ReadFile(logged) // what there is of it is better than nothing
			return nil, fmt.Errorf("the demo has ended (%w) and said\n%s", err, text)
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil, errors.Join(fmt.Errorf("the demo is not ready after %s", demoLimit), cmd.Process.Kill())
}
