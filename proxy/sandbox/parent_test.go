package sandbox_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"walcache/proxy/sandbox"
)

// A parent is this test binary run again, as a program that starts servers and
// can be killed.
const (
	parentVariable = "SANDBOX_TEST_PARENT" // the pattern of its temporary directory
	pauseVariable  = "SANDBOX_TEST_PAUSE"  // set if its servers are to stand still
)

// runParent starts servers, prints their directory, and waits to be killed.
func runParent() {
	dir, _, err := sandbox.TempDir(os.Getenv(parentVariable))
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	p, err := sandbox.StartPostgres(ctx, sandbox.PostgresConfig{
		Dir:      filepath.Join(dir, "postgres"),
		Settings: map[string]string{"fsync": "off"},
	})
	if err != nil {
		log.Fatal(err)
	}
	r, err := sandbox.StartRedis(ctx, sandbox.RedisConfig{Dir: filepath.Join(dir, "redis")})
	if err != nil {
		log.Fatal(err)
	}
	if os.Getenv(pauseVariable) != "" {
		if err := p.Pause(); err != nil {
			log.Fatal(err)
		}
		if err := r.Pause(); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Println(dir)
	io.Copy(io.Discard, os.Stdin)
}

// startParent returns once the servers of the parent run, in dir.
func startParent(t *testing.T, pattern string, environment ...string) (parent *exec.Cmd, dir string) {
	t.Helper()
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	parent = exec.Command(executable)
	parent.Env = append(os.Environ(), parentVariable+"="+pattern)
	parent.Env = append(parent.Env, environment...)
	parent.Stderr = os.Stderr
	stdout, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parent.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("the parent printed no directory: %v", err)
	}
	return parent, strings.TrimSpace(line)
}
