package sandbox

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

const superuser = "postgres"

// settings of every server, for a small one that others can replicate from. It
// has no socket file: the path of one may be at most 107 bytes long.
var settings = map[string]string{
	"listen_addresses":        "127.0.0.1",
	"unix_socket_directories": "",
	"wal_level":               "logical",
	"max_connections":         "200",
	"max_wal_senders":         "20",
	"max_replication_slots":   "20",
	"shared_buffers":          "64MB",
	"huge_pages":              "off",
	"logging_collector":       "off",
	"log_destination":         "stderr",
	"log_line_prefix":         "%m [%p] %q%a ",
}

// createCluster runs initdb next to where the cluster will be, so that one that
// was interrupted is never taken for a cluster.
func (p *Postgres) createCluster(ctx context.Context, lock *os.File) error {
	unfinished := p.work + ".new"
	var err error
	// Not every system knows C.UTF-8: macOS before 15 and old glibc do not.
	for _, locale := range []string{"C.UTF-8", "C"} {
		if err := os.RemoveAll(unfinished); err != nil {
			return err
		}
		if err = p.initdb(ctx, lock, unfinished, locale); err == nil {
			return os.Rename(unfinished, p.work)
		}
	}
	return err
}

func (p *Postgres) initdb(ctx context.Context, lock *os.File, dir, locale string) error {
	cmd := p.as.command(p.binaries.program("initdb"),
		"--pgdata="+dir, "--encoding=UTF8", "--locale="+locale,
		"--username="+superuser, "--pwfile="+filepath.Join(p.dir, "password"),
		"--auth=scram-sha-256",
		"--no-sync", // takes long, and an empty cluster is easily made again
	)
	logged := p.log.size()
	run, err := p.launch(cmd, lock, syscall.SIGKILL)
	if err != nil {
		return fmt.Errorf("initdb: %w", err)
	}
	select {
	case <-run.done:
		err = run.err
	case <-ctx.Done():
		err = errors.Join(context.Cause(ctx), run.signal(syscall.SIGKILL))
	}
	if err := errors.Join(err, run.awaitLast(killWait)); err != nil {
		return fmt.Errorf("initdb: %w", p.log.explain(err, logged))
	}
	return nil
}

// writeSettings writes a configuration file that builds on the one that initdb
// made; what ALTER SYSTEM sets still wins over both.
func (p *Postgres) writeSettings() (path string, err error) {
	all := maps.Clone(settings)
	maps.Copy(all, p.config.Settings)
	all["port"] = strconv.Itoa(p.port)
	text := "include 'data/postgresql.conf'\n"
	for _, name := range slices.Sorted(maps.Keys(all)) {
		text += fmt.Sprintf("%s = '%s'\n", name, strings.ReplaceAll(all[name], "'", "''"))
	}
	path = filepath.Join(p.dir, "postgresql.conf")
	if err := writePrivate(path, text, p.as); err != nil {
		return "", fmt.Errorf("settings: %w", err)
	}
	return path, nil
}

// loadPassword reads the password of an earlier server, or makes one.
func loadPassword(path string, as *account) (string, error) {
	text, err := os.ReadFile(path)
	if err == nil {
		return string(text), nil
	}
	password := rand.Text()
	if errors.Is(err, fs.ErrNotExist) {
		err = writePrivate(path, password, as)
	}
	if err != nil {
		return "", fmt.Errorf("password: %w", err)
	}
	return password, nil
}
