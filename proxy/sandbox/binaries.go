package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// oldestPostgres is the first major version with what we rely on: streaming of
// transactions in progress (protocol 2).
const oldestPostgres = 14

// binaries is a directory with PostgreSQL's programs.
type binaries struct {
	dir   string
	major int
}

func (b binaries) program(name string) string { return filepath.Join(b.dir, name) }

var errNoPostgres = errors.New("no PostgreSQL programs found")

// findBinaries returns PostgreSQL's programs: the newest that the account can
// run, or those of one major version, which a data directory is bound to. It
// looks into binDir alone if that is given.
func findBinaries(binDir string, major int, as *account) (binaries, error) {
	dirs, where := binaryDirs(), "PATH and the usual places"
	if binDir != "" {
		dirs, where = []string{binDir}, binDir
	}
	var newest binaries
	for _, dir := range dirs {
		m := majorVersion(dir, as)
		if m >= oldestPostgres && m > newest.major && (major == 0 || m == major) {
			newest = binaries{dir, m}
		}
	}
	if newest.major == 0 {
		what := fmt.Sprintf("version %d or newer", oldestPostgres)
		if major != 0 {
			what = fmt.Sprintf("version %d, which made the data directory", major)
		}
		return binaries{}, fmt.Errorf("%w that %s may run (%s), in %s\n  try: apt-get install postgresql, dnf install postgresql-server, apk add postgresql, or brew install postgresql@17",
			errNoPostgres, as, what, where)
	}
	return newest, nil
}

// binaryDirs lists where programs of PostgreSQL may be: those in PATH, what
// pg_config says, and where packages of Debian, RPM systems, Alpine, Homebrew
// and Postgres.app put them.
func binaryDirs() []string {
	dirs := filepath.SplitList(os.Getenv("PATH"))
	if out, err := exec.Command("pg_config", "--bindir").Output(); err == nil {
		dirs = append(dirs, strings.TrimSpace(string(out)))
	}
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin",
		"/usr/pgsql-*/bin",
		"/usr/libexec/postgresql*",
		"/opt/homebrew/opt/postgresql*/bin",
		"/usr/local/opt/postgresql*/bin",
		"/home/linuxbrew/.linuxbrew/opt/postgresql*/bin",
		"/Applications/Postgres.app/Contents/Versions/*/bin",
	} {
		matches, err := filepath.Glob(pattern)
		if err != nil {
			panic(err) // the patterns are ours
		}
		dirs = append(dirs, matches...)
	}
	return dirs
}

var versionPattern = regexp.MustCompile(`\(PostgreSQL\) (\d+)`)

// majorVersion of the programs in dir, 0 if the account cannot run them.
func majorVersion(dir string, as *account) int {
	b := binaries{dir: dir}
	for _, name := range []string{"initdb", "postgres"} {
		if _, err := os.Stat(b.program(name)); err != nil {
			return 0
		}
	}
	out, err := as.command(b.program("postgres"), "--version").Output()
	if err != nil {
		return 0
	}
	match := versionPattern.FindSubmatch(out)
	if match == nil {
		return 0
	}
	major, err := strconv.Atoi(string(match[1]))
	if err != nil {
		return 0
	}
	return major
}
