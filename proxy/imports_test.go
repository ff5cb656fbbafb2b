package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// The arrows between packages go one way. Each rule names what a package must
// not reach, however indirectly, and why.
var arrows = []struct {
	pkg    string
	avoids []string
	why    string
}{
	{"walcache/proxy/coherence", []string{"walcache/", "net/http", "github.com/"}, "it is the contract that all others share: the standard library alone"},
	{"walcache/proxy/replication", []string{"walcache/proxy/cache", "walcache/proxy/store", "walcache/proxy/origin", "walcache/backend", "net/http"}, "it ends at its sink and knows no cache"},
	{"walcache/proxy/cache", []string{"walcache/proxy/store", "walcache/proxy/replication", "github.com/jackc"}, "it asks coherence whether something still holds, and knows no PostgreSQL"},
	{"walcache/proxy/rules", []string{"walcache/", "github.com/redis", "github.com/jackc"}, "it decides by facts alone"},
	{"walcache/proxy/wire", []string{"walcache/", "github.com/"}, "it reads HTTP for any server"},
	{"walcache/proxy/store", []string{"walcache/proxy/replication", "github.com/jackc"}, "it keeps what the cache gives it"},
	{"walcache/proxy/origin", []string{"walcache/proxy/cache", "walcache/proxy/coherence", "walcache/proxy/replication"}, "it forwards, and decides nothing"},
	{"walcache/proxy/changelog", []string{"walcache/proxy/replication", "walcache/proxy/cache", "walcache/proxy/store", "walcache/backend", "github.com/jackc", "net/http"}, "it carries records, whoever made them and whoever reads them"},
	{"walcache/proxy/redisurl", []string{"walcache/"}, "it opens a Redis for anybody"},
	{"walcache/proxy/doctor", []string{"walcache/proxy/cache", "walcache/proxy/store", "walcache/proxy/changelog", "walcache/backend"}, "it asks servers, and runs nothing of the proxy"},
	{"walcache/proxy/sandbox", []string{"walcache/backend", "walcache/proxy/cache", "walcache/proxy/replication"}, "it runs servers for anybody"},
	{"walcache/proxy/guard", []string{"walcache/", "github.com/"}, "it decides who gets in, for anybody"},
	{"walcache/proxy/manage", []string{"walcache/backend", "walcache/proxy/admin", "walcache/proxy/sandbox"}, "the admin port has its operations, and not the other way round"},
	{"walcache/proxy/querysets", []string{"walcache/backend", "walcache/proxy/cache", "walcache/proxy/store", "walcache/proxy/changelog", "walcache/proxy/replication", "github.com/jackc"}, "it reads what services keep, and judges nothing"},
	{"walcache/proxy/settings", []string{"walcache/backend", "walcache/proxy/cache", "walcache/proxy/replication", "github.com/jackc"}, "it reads what a program is told, for both programs"},
	{"walcache/proxy/web", []string{"walcache/"}, "pages are for everyone"},
	{"walcache/backend/trouble", []string{"walcache/"}, "it knows errors of the database and nothing else"},
	{"walcache/backend/service", []string{"walcache/proxy/cache", "walcache/proxy/replication", "walcache/proxy/origin", "walcache/proxy/store"}, "a backend shares the contract and nothing else"},
	{"walcache/schema", []string{"walcache/"}, "the schema is for everyone"},
}

func TestImports_FollowTheArrows(t *testing.T) {
	for _, r := range arrows {
		out, err := exec.Command("go", "list", "-deps", r.pkg).Output()
		if err != nil {
			t.Fatalf("go list %s: %v", r.pkg, err)
		}
		for dep := range strings.FieldsSeq(string(out)) {
			if dep != r.pkg && slices.ContainsFunc(r.avoids, func(p string) bool { return dep == p || strings.HasPrefix(dep, p) }) {
				t.Errorf("%s reaches %s, but %s", r.pkg, dep, r.why)
			}
		}
	}
}

func TestImports_OnlyTheDemoKnowsTheBackend(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		pkg, imports, _ := strings.Cut(strings.TrimSpace(line), " ")
		if pkg != "walcache/proxy" && strings.Contains(imports, "walcache/backend") {
			t.Errorf("%s imports the backend; only the demo, in package main, may", pkg)
		}
	}
}
