package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"walcache/proxy/accesslog"
	"walcache/proxy/sandbox/sandboxtest"
)

// accessLines reads a file once it has so many lines.
func accessLines(t *testing.T, file string, n int) (all []accesslog.Line) {
	t.Helper()
	sandboxtest.Eventually(t, 20*time.Second, func() error {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if bytes.Count(text, []byte("\n")) < n {
			return fmt.Errorf("not %d lines: %s", n, text)
		}
		all = nil
		for line := range bytes.Lines(text) {
			var l accesslog.Line
			if err := json.Unmarshal(line, &l); err != nil {
				return err
			}
			all = append(all, l)
		}
		return nil
	})
	return all
}

// nameTeller is a service that answers with the id and the trace that a request
// came with.
func nameTeller(t *testing.T) *httptest.Server {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Header.Get("X-Request-Id"), " ", r.Header.Get("Traceparent"))
	}))
	t.Cleanup(upstream.Close)
	return upstream
}

func TestServe_AccessLogFollowsARequestFromTheClientToTheService(t *testing.T) {
	cleanEnv(t)
	file := filepath.Join(t.TempDir(), "access.log")
	s := serveWith(t, "--no-coherence", "--upstream="+nameTeller(t).URL, "--access-log="+file, "--ignore-query=utm_*")
	var ids, bodies []string
	for _, target := range []string{"/a?utm_source=x&b=secret", "/a?b=secret&utm_medium=y"} {
		res, err := http.Get(s.url + target)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		ids, bodies = append(ids, res.Header.Get("X-Request-Id")), append(bodies, string(body))
	}
	s.exits(0) // and so everything is written
	lines := accessLines(t, file, 2)
	for i, l := range lines {
		if l.RequestID != ids[i] || ids[i] == "" || l.Path != "/a" || len(l.Query) != 2 || l.Status != 200 || l.Client != "127.0.0.1" {
			t.Errorf("%+v of %s", l, ids[i])
		}
	}
	if id, parent, _ := strings.Cut(bodies[0], " "); id != ids[0] || !strings.HasPrefix(parent, "00-"+lines[0].Trace+"-") || bodies[1] != bodies[0] {
		t.Errorf("the service got %q, the log says %+v", bodies, lines[0])
	}
	if !strings.Contains(lines[0].Cache, "stored") || !strings.Contains(lines[1].Cache, "; hit; ") || ids[0] == ids[1] || lines[0].Trace == lines[1].Trace {
		t.Errorf("%+v", lines)
	}
	if text, _ := os.ReadFile(file); strings.Contains(string(text), "secret") {
		t.Errorf("%s", text)
	}
}

func TestServe_WithoutAccessLogHitsCarryNoID(t *testing.T) {
	cleanEnv(t)
	s := serveWith(t, "--no-coherence", "--upstream="+nameTeller(t).URL)
	for _, want := range []bool{true, false} {
		res, err := http.Get(s.url)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
		if id := res.Header.Get("X-Request-Id"); (id != "") != want {
			t.Errorf("%s: id %q", res.Header.Get("Cache-Status"), id)
		}
	}
}

func TestServe_AnAccessLogThatCannotBeOpenedIsSaidAtOnce(t *testing.T) {
	cleanEnv(t)
	file := filepath.Join(t.TempDir(), "no", "access.log")
	code, _, stderr := typed(append(anyPort, "--access-log="+file)...)
	if want := "proxy: --access-log: cannot open " + file + ": no such file or directory\n  try: make its directory first\n"; code != 1 || !strings.Contains(stderr, want) {
		t.Errorf("exit %d\n%s", code, stderr)
	}
}

// The program itself, since SIGHUP stops it without an access log.
func TestServe_SIGHUPReopensTheAccessLogAndStopsNothing(t *testing.T) {
	cleanEnv(t)
	dir := t.TempDir()
	program, file := filepath.Join(dir, "proxy"), filepath.Join(dir, "access.log")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	log := &lines{}
	cmd := exec.Command(program, "serve", "--addr=127.0.0.1:0", "--admin-addr=127.0.0.1:0", "--no-coherence", "--upstream="+nameTeller(t).URL, "--access-log="+file)
	cmd.Stderr, cmd.Dir = log, dir
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	var url string
	says := func(what func(said string) bool) {
		t.Helper()
		sandboxtest.Eventually(t, time.Minute, func() error {
			if !what(log.String()) {
				return errors.New(log.String())
			}
			return nil
		})
	}
	says(func(said string) bool {
		at := servingAt.FindStringSubmatch(said)
		if at != nil {
			url = "http://" + at[1]
		}
		return at != nil
	})
	get := func(path string) {
		t.Helper()
		res, err := http.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
	}
	get("/before")
	accessLines(t, file, 1)
	if err := errors.Join(os.Rename(file, file+".1"), cmd.Process.Signal(syscall.SIGHUP)); err != nil {
		t.Fatal(err)
	}
	says(func(said string) bool { return strings.Contains(said, "access log reopened") })
	get("/after")
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	if l := accessLines(t, file, 1); len(l) != 1 || l[0].Path != "/after" {
		t.Errorf("%+v", l)
	}
	if l := accessLines(t, file+".1", 1); len(l) != 1 || l[0].Path != "/before" {
		t.Errorf("%+v", l)
	}
}
