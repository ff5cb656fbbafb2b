package docs

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// command is what a command of ours says of itself.
type command struct {
	subcommands []string
	flags       map[string]setting // by name with --
}

type setting struct{ variable, byDefault, usage string }

// commands asks both programs for the help of all their commands, by their words.
var commands = sync.OnceValues(func() (all map[string]command, err error) {
	dir, err := os.MkdirTemp("", "walcache-docs-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	build := exec.Command("go", "build", "-o", dir, "./proxy", "./backend")
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go build: %w\n%s", err, out)
	}
	all = map[string]command{}
	for waiting := []string{"proxy", "backend"}; len(waiting) > 0; waiting = waiting[1:] {
		words := strings.Fields(waiting[0])
		help := exec.Command(filepath.Join(dir, words[0]), append(words[1:], "--help")...)
		help.Dir = dir // where no .env is
		out, err := help.CombinedOutput()
		if err != nil {
			return nil, fmt.Errorf("%s --help: %w\n%s", waiting[0], err, out)
		}
		c := parseHelp(string(out))
		all[waiting[0]] = c
		for _, sub := range c.subcommands {
			waiting = append(waiting, waiting[0]+" "+sub)
		}
	}
	return all, nil
})

var (
	helpCommand = regexp.MustCompile(`^   ([a-z][a-z-]*)  `)
	helpFlag    = regexp.MustCompile(`^   (--[a-z][a-z-]*)(?:, -h)?(?: \S+)?\s{2,}(.*?)(?: \(default: (.*?)\))?(?: \[\$([A-Z_]+)\])?$`)
)

func parseHelp(text string) command {
	c := command{flags: map[string]setting{}}
	inCommands := false
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if line != "" && line[0] != ' ' {
			inCommands = line == "COMMANDS:"
		}
		if m := helpCommand.FindStringSubmatch(line); m != nil && inCommands && m[1] != "help" {
			c.subcommands = append(c.subcommands, m[1])
		}
		if m := helpFlag.FindStringSubmatch(line); m != nil {
			c.flags[m[1]] = setting{m[4], strings.Trim(m[3], `"`), m[2]}
		}
	}
	return c
}

func mustCommands(t *testing.T) map[string]command {
	t.Helper()
	all, err := commands()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// ours returns the words of a command of ours, however it is run, without what
// comes before its name.
func ours(words []string) []string {
	for len(words) > 0 && regexp.MustCompile(`^[A-Z_]+=`).MatchString(words[0]) {
		words = words[1:]
	}
	line := strings.Join(words, " ")
	for _, before := range []string{`go run \./`, `docker compose exec proxy `, `docker compose run --rm backend `, `docker run --rm walcache:local `, ``} {
		if m := regexp.MustCompile(`^` + before + `((?:proxy|backend)(?: .*)?)$`).FindStringSubmatch(line); m != nil {
			return strings.Fields(m[1])
		}
	}
	return nil
}

// unknown says what there is not of a command line, "" if all is there.
func unknown(all map[string]command, words []string) string {
	name := words[0]
	for _, word := range words[1:] {
		c := all[name]
		flag, _, _ := strings.Cut(word, "=")
		_, known := c.flags[flag]
		switch {
		case strings.HasPrefix(word, "…"), word == "--help":
			return ""
		case slices.Contains(c.subcommands, word):
			name += " " + word
		case strings.HasPrefix(flag, "--") && !known, len(c.subcommands) > 0 && !strings.HasPrefix(flag, "--"):
			return name + " has no " + word
		}
	}
	return ""
}

func TestDocs_CommandsAndFlagsExist(t *testing.T) {
	all, seen := mustCommands(t), 0
	check := func(where string, words []string) {
		if words = ours(words); words == nil {
			return
		}
		seen++
		if what := unknown(all, words); what != "" {
			t.Errorf("%s: %s: %s", where, strings.Join(words, " "), what)
		}
	}
	flags := map[string]bool{"--volumes": true, "--help": true} // of docker compose, and of all
	for _, c := range all {
		for flag := range c.flags {
			flags[flag] = true
		}
	}
	for _, p := range documents(t) {
		p.typed(func(string) string { return "x" }, func(where string, words []string, _ string) { check(where, words) })
		for _, span := range p.spans() {
			check(p.name, strings.Fields(span))
			if flag := regexp.MustCompile(`^--[a-z-]+`).FindString(span); flag != "" && !flags[flag] {
				t.Errorf("%s: there is no flag %s", p.name, span)
			}
		}
	}
	if seen < 60 {
		t.Errorf("%d command lines were found", seen)
	}
}

// What is said to be run with go test is there: tests by the name that -run has,
// and flags of our own.
func TestDocs_TestsAndTheirFlagsExist(t *testing.T) {
	tests := sources(t, func(name string) bool { return strings.HasSuffix(name, "_test.go") })
	has := func(text string) bool {
		return slices.ContainsFunc(slices.Collect(maps.Values(tests)), func(source string) bool { return strings.Contains(source, text) })
	}
	for _, p := range documents(t) {
		p.typed(func(string) string { return "x" }, func(where string, words []string, _ string) {
			if len(words) < 2 || words[0] != "go" || words[1] != "test" {
				return
			}
			for i, word := range words[2:] {
				if m := regexp.MustCompile(`^-([a-z]+\.[a-z-]+)=`).FindStringSubmatch(word); m != nil && !has(`"`+m[1]+`"`) {
					t.Errorf("%s: no test has the flag %s", where, m[1])
				}
				for name := range strings.SplitSeq(word, "|") {
					if words[i+1] == "-run" && strings.HasPrefix(name, "Test") && !has("func "+name) {
						t.Errorf("%s: there is no test %s", where, name)
					}
				}
			}
		})
		for _, span := range p.spans() {
			if name, _, _ := strings.Cut(span, "/"); strings.HasPrefix(span, "Benchmark") && !has("func "+name) {
				t.Errorf("%s: there is no %s", p.name, span)
			}
		}
	}
}

func TestDocs_MakeTargetsExistAndAreNamed(t *testing.T) {
	var targets []string
	for _, m := range regexp.MustCompile(`(?m)^([a-z][a-z-]*):`).FindAllStringSubmatch(read(t, "Makefile"), -1) {
		targets = append(targets, m[1])
	}
	seen := map[string]bool{}
	check := func(where string, words []string) {
		if len(words) < 2 || words[0] != "make" {
			return
		}
		if seen[words[1]] = true; !slices.Contains(targets, words[1]) {
			t.Errorf("%s: there is no target %s", where, words[1])
		}
	}
	for _, p := range documents(t) {
		for _, span := range p.spans() {
			check(p.name, strings.Fields(span))
		}
		p.typed(func(string) string { return "" }, func(where string, words []string, _ string) { check(where, words) })
	}
	for _, target := range targets {
		if !seen[target] {
			t.Errorf("no document names make %s", target)
		}
	}
}

// variablesOf are those of the programs.
func variablesOf(t *testing.T) map[string]bool {
	t.Helper()
	known := map[string]bool{}
	for _, c := range mustCommands(t) {
		for _, f := range c.flags {
			known[f.variable] = true
		}
	}
	delete(known, "")
	return known
}

func TestDocs_VariablesExist(t *testing.T) {
	known := variablesOf(t)
	for _, file := range []string{"docker-compose.yml", ".env.example"} {
		for _, m := range regexp.MustCompile(`(?m)\$\{([A-Z_]+)|^#?([A-Z_]+)=`).FindAllStringSubmatch(read(t, file), -1) {
			known[m[1]+m[2]] = true
		}
	}
	// Of terminals, and of Postman; an owner's URL, and the id of what was made, in
	// examples.
	for _, name := range []string{"NO_COLOR", "BASE_URL", "OWNER_URL", "ID"} {
		known[name] = true
	}
	word := regexp.MustCompile(`^[A-Z][A-Z0-9]*(_[A-Z0-9]+)+(=.*)?$|^[A-Z][A-Z0-9_]+=`)
	assigned := regexp.MustCompile(`(?m)(?:^|[ ;])([A-Z][A-Z0-9_]+)=|\$([A-Z][A-Z0-9_]+)`)
	for _, p := range documents(t) {
		for _, span := range p.spans() {
			if name, _, _ := strings.Cut(span, "="); word.MatchString(span) && !known[name] {
				t.Errorf("%s: no program has the variable %s", p.name, span)
			}
		}
		for _, b := range p.blocks {
			for _, m := range assigned.FindAllStringSubmatch(b.text, -1) {
				if b.info == "bash" && !known[m[1]+m[2]] && demo(t)[m[1]+m[2]] == "" {
					t.Errorf("%s: no program has the variable %s", b.where, m[0])
				}
			}
		}
	}
}

// settingRow is a row of the tables of configuration.md, as the help has it.
func settingRow(flag string, s setting) string {
	byDefault := s.byDefault
	if byDefault != "" {
		byDefault = "`" + byDefault + "`"
	}
	escape := strings.NewReplacer("*", `\*`, "_", `\_`, "<", `\<`, ">", `\>`, "|", `\|`)
	return fmt.Sprintf("| `%s` | `%s` | %s | %s |", s.variable, flag, byDefault, escape.Replace(s.usage))
}

func TestDocs_ConfigurationSaysWhatTheHelpSays(t *testing.T) {
	text, all, rows := read(t, "docs/configuration.md"), mustCommands(t), map[string]bool{}
	for _, name := range []string{"proxy serve", "backend serve", "backend createsuperuser", "proxy cache status"} {
		for flag, s := range all[name].flags {
			if s.variable == "" {
				continue
			}
			row := settingRow(flag, s)
			if rows[row] = true; name == "proxy cache status" && s.variable != "ADMIN_URL" {
				continue // it is the proxy's
			}
			if !strings.Contains(text, row+"\n") {
				t.Errorf("docs/configuration.md lacks, from %s --help:\n%s", name, row)
			}
		}
	}
	for _, row := range regexp.MustCompile("(?m)^\\| `[A-Z_]+` \\| `--.*$").FindAllString(text, -1) {
		if !rows[row] {
			t.Errorf("docs/configuration.md says what no help says:\n%s", row)
		}
	}
	for name := range variablesOf(t) {
		if !strings.Contains(text, "`"+name+"`") {
			t.Errorf("docs/configuration.md does not have %s", name)
		}
	}
}

// The command that makes an .env is the one that .env.example has, which a test
// runs.
func TestDocs_EnvIsMadeAsTheExampleSays(t *testing.T) {
	command := regexp.MustCompile(`(?m)^#   (awk .* > \.env)$`).FindStringSubmatch(read(t, ".env.example"))
	for _, name := range []string{"README.md", "docs/docker.md"} {
		if command == nil || !strings.Contains(read(t, name), command[1]) {
			t.Errorf("%s does not have %v", name, command)
		}
	}
}
