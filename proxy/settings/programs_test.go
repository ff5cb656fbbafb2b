package settings_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"walcache/proxy/redisurl"
	"walcache/proxy/sandbox/sandboxtest"
)

func TestMain(m *testing.M) { sandboxtest.Main(m) }

// home is both programs, each with a directory and a .env in it, and all that
// they have printed.
type home struct {
	t       *testing.T
	dir     string
	secrets []string // in the environment of both
	printed []string // files
}

func newHome(t *testing.T, env string, secrets ...string) *home {
	t.Helper()
	h := &home{t: t, dir: t.TempDir(), secrets: secrets}
	if out, err := exec.Command("go", "build", "-ldflags=-s -w", "-o", h.dir+"/", "walcache/proxy", "walcache/backend").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	for _, program := range []string{"proxy", "backend"} {
		if err := os.Mkdir(h.at(program), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(h.at(program), ".env"), []byte(env), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

// at is the working directory of a program.
func (h *home) at(program string) string { return filepath.Join(h.dir, "of-"+program) }

// command prints into a file that is looked at later.
func (h *home) command(line string) (*exec.Cmd, *os.File) {
	h.t.Helper()
	words := strings.Fields(line)
	out, err := os.CreateTemp(h.dir, "printed-*")
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = out.Close() })
	h.printed = append(h.printed, out.Name())
	cmd := exec.Command(filepath.Join(h.dir, words[0]), words[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = h.at(words[0]), out, out
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + h.dir}, h.secrets...)
	return cmd, out
}

func (h *home) read(file string) string {
	h.t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		h.t.Fatal(err)
	}
	return string(text)
}

// runs runs a command line to its end, which is to be a good one.
func (h *home) runs(line string) {
	h.t.Helper()
	cmd, out := h.command(line)
	if err := cmd.Run(); err != nil {
		h.t.Fatalf("%s: %v\n%s", line, err, h.read(out.Name()))
	}
}

// line is one of a log.
type line map[string]any

// starts runs a command line until stop, and returns the line of its log with
// which it began.
func (h *home) starts(command, msg string) (began line, stop func()) {
	h.t.Helper()
	cmd, out := h.command(command)
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	stop = sync.OnceFunc(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case err := <-ended:
			if err != nil {
				h.t.Errorf("%s: %v", command, err)
			}
		case <-time.After(30 * time.Second):
			h.t.Errorf("%s does not stop", command)
			_ = cmd.Process.Kill()
		}
		if h.t.Failed() {
			h.t.Logf("%s\n%s", command, h.read(out.Name()))
		}
	})
	h.t.Cleanup(stop)
	sandboxtest.Eventually(h.t, 30*time.Second, func() error {
		for text := range strings.Lines(h.read(out.Name())) {
			var l line
			if json.Unmarshal([]byte(text), &l) == nil && l["msg"] == msg {
				began = l
				return nil
			}
		}
		return errors.New(h.read(out.Name()))
	})
	return began, stop
}

// get returns a body, and how it came to be.
func get(url string) (body, how string, err error) {
	res, err := http.Get(url)
	if err != nil {
		return "", "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = errors.New(res.Status)
	}
	return string(text), res.Header.Get("Cache-Status"), err
}

const exampleKey = "your-secret-key-here"

// What an operator of the service has always written is all that it takes.
func TestPrograms_StartWithFourVariables(t *testing.T) {
	database, redis := sandboxtest.OwnPostgres(t, map[string]string{"fsync": "off", "max_slot_wal_keep_size": "1GB"}), sandboxtest.OwnRedis(t)
	at := onLocalhost(t, database.DSN("postgres"), "postgresql", "/postgres")
	cacheAt := onLocalhost(t, redis.URL(), "redis", "/1")
	tokens := map[string]string{"API_TOKEN": "a-token-of-programs-1234", "ADMIN_TOKEN": "a-token-of-operators", "SUPERUSER_PASSWORD": "a-password-of-ada"}
	variables := []string{"LOG_LEVEL=debug"}
	for name, value := range tokens {
		variables = append(variables, name+"="+value)
	}
	h := newHome(t, fmt.Sprintf("DEBUG=True\nSECRET_KEY=%s\nDATABASE_URL=%s\nREDIS_URL=%s\n", exampleKey, at, cacheAt), variables...)

	limitMemory(t, redis.URL())

	h.runs("backend migrate")
	h.runs("backend seed")
	h.runs("backend createsuperuser --username ada")
	h.runs("proxy doctor")
	service, stopService := h.starts("backend serve --addr 127.0.0.1:0 --release r1", "serving")
	proxy, stopProxy := h.starts(fmt.Sprintf("proxy serve --addr 127.0.0.1:0 --admin-addr 127.0.0.1:0 --upstream http://%s", service["addr"]), "serving")
	listening, stopListening := h.starts("proxy listen --admin-addr 127.0.0.1:0", "listening")

	names := map[string]any{"database": at.Hostname() + ":" + at.Port() + at.Path, "redis": cacheAt.Host}
	for what, l := range map[string]line{"backend serve": service, "proxy serve": proxy, "proxy listen": listening} {
		for name, want := range names {
			if l[name] != want {
				t.Errorf("%s says %s=%v and not %v", what, name, l[name], want)
			}
		}
		if l["took"] == nil {
			t.Errorf("%s does not say how long it took to start: %v", what, l)
		}
	}
	if service["release"] != "r1" || proxy["upstream"] != fmt.Sprintf("http://%s", service["addr"]) {
		t.Errorf("%v\n%v", service, proxy)
	}

	page := fmt.Sprintf("http://%s/properties/1/?format=json", proxy["addr"])
	answers(t, page, "; hit", "Modern Downtown Apartment")
	rename(t, database.DSN("postgres"), "A renamed apartment")
	answers(t, page, "", "A renamed apartment")
	answers(t, page, "; hit", "A renamed apartment")
	for _, what := range []string{"off", "on"} {
		h.runs(fmt.Sprintf("proxy cache %s --wait-all --admin-url http://%s", what, proxy["admin"]))
	}
	answers(t, page, "; hit", "A renamed apartment")

	// What goes wrong is told without secrets too.
	if err := errors.Join(redis.Kill(), database.Kill()); err != nil {
		t.Fatal(err)
	}
	sandboxtest.Eventually(t, 30*time.Second, func() error {
		if _, _, err := get(fmt.Sprintf("http://%s/properties/", proxy["addr"])); err == nil {
			return errors.New("it answers without a database")
		}
		if log := h.all(); strings.Count(log, "Redis does not answer") < 2 || !strings.Contains(log, "listener is not streaming") {
			return errors.New(log)
		}
		return nil
	})
	stopListening()
	stopProxy()
	stopService()
	log := h.all()
	secrets := []string{exampleKey, password(at), password(cacheAt)}
	for _, secret := range tokens {
		secrets = append(secrets, secret)
	}
	for _, secret := range secrets {
		if strings.Contains(log, secret) {
			t.Errorf("a secret is printed: %s", secret)
		}
	}
	if n := strings.Count(log, "SECRET_KEY "); n != 1 {
		t.Errorf("that the key is an example's is said %d times", n)
	}
	if n := strings.Count(log, `"msg":"stopped"`); n != 3 {
		t.Errorf("%d of three programs say that they stopped", n)
	}
}

// all is what all commands printed.
func (h *home) all() (text string) {
	for _, file := range h.printed {
		text += h.read(file)
	}
	return text
}

// onLocalhost is a URL as people write it.
func onLocalhost(t *testing.T, text, scheme, path string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	u.Scheme, u.Host, u.Path, u.RawQuery = scheme, "localhost:"+u.Port(), path, ""
	return u
}

func password(u *url.URL) string {
	p, _ := u.User.Password()
	return p
}

// limitMemory is what doctor asks for.
func limitMemory(t *testing.T, url string) {
	t.Helper()
	client, err := redisurl.Open(url, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	if err := client.Do(t.Context(), "CONFIG", "SET", "maxmemory", "256mb", "maxmemory-policy", "volatile-lru").Err(); err != nil {
		t.Fatal(err)
	}
}

// answers waits until a page has a text, and came in a way.
func answers(t *testing.T, page, how, text string) {
	t.Helper()
	sandboxtest.Eventually(t, 30*time.Second, func() error {
		body, came, err := get(page)
		if err == nil && (!strings.Contains(body, text) || !strings.Contains(came, how)) {
			err = fmt.Errorf("%s\n%s", came, body)
		}
		return err
	})
}

func rename(t *testing.T, dsn, title string) {
	t.Helper()
	db, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close(context.Background()) }()
	if _, err := db.Exec(t.Context(), "UPDATE properties SET title = $1 WHERE id = 1", title); err != nil {
		t.Fatal(err)
	}
}
