// Package sandboxtest gives tests real PostgreSQL and Redis servers.
//
// Postgres and Redis hand out a database and a key prefix on servers that the
// test binary starts once, when first asked. OwnPostgres, OwnRedis,
// OwnRedisCluster and OwnRedisSentinel start servers for one test, which may
// then break them. A missing server fails the test with the
// command that installs it.
//
// A package that uses them has
//
//	func TestMain(m *testing.M) { sandboxtest.Main(m) }
package sandboxtest

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"walcache/proxy/sandbox"
)

// patience is how long a server may take to start or stop; far more than it
// takes, for machines under load.
const patience = time.Minute

const tempPattern = "walcache-test-*"

// shared is what the tests of one binary have in common.
var shared struct {
	dir      lazy[string]
	postgres lazy[*sandbox.Postgres]
	redis    lazy[*sandbox.Redis]
	remove   func() error // deletes dir; set with it
}

// lazy is a value made once, when first asked for.
type lazy[T any] struct {
	once  sync.Once
	value T
	err   error
}

func (l *lazy[T]) get(start func() (T, error)) (T, error) {
	l.once.Do(func() { l.value, l.err = start() })
	return l.value, l.err
}

// Main runs the tests, stops the servers that they shared, and exits.
func Main(m *testing.M) {
	code := m.Run()
	if err := stopShared(); err != nil {
		fmt.Fprintln(os.Stderr, "stop the servers of the tests:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func stopShared() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if p := shared.postgres.value; p != nil {
		if err := p.Stop(ctx); err != nil {
			return err
		}
	}
	if r := shared.redis.value; r != nil {
		if err := r.Stop(ctx); err != nil {
			return err
		}
	}
	if shared.remove != nil {
		return shared.remove()
	}
	return nil
}

// sharedDir is a directory for one of the shared servers.
func sharedDir(name string) (string, error) {
	dir, err := shared.dir.get(func() (dir string, err error) {
		dir, shared.remove, err = sandbox.TempDir(tempPattern)
		return dir, err
	})
	return filepath.Join(dir, name), err
}

// randomName is a lower case name that is used once.
func randomName() string { return "t" + strings.ToLower(rand.Text()[:12]) }
