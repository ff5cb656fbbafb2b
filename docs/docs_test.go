package docs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// What the documents say is held here against the programs, the tree and a demo:
//
//	links and anchors             lead somewhere, and every page is linked from the README
//	curl lines of ```bash blocks  are sent to the demo, and answer as their line says
//	URLs of this machine          answer
//	commands, flags, targets      exist; every target is named
//	variables                     exist; every one is in configuration.md, as --help has it
//	paths, the tree               exist; every package is in the tree
//	quoted errors                 are in the source
//	```json METHOD /path blocks   have the keys that the demo answers

// page is a document.
type page struct {
	name, text string // from the root of the repository
	prose      string // text without blocks, on as many lines
	blocks     []block
}

// block is what stands between two fences.
type block struct {
	where, info, text string
}

// documents are all of them.
func documents(t *testing.T) (all []page) {
	t.Helper()
	names, err := filepath.Glob("*.md")
	if err != nil || len(names) == 0 {
		t.Fatalf("no documents: %v", err)
	}
	all = append(all, parsePage("README.md", read(t, "README.md")))
	for _, name := range names {
		all = append(all, parsePage("docs/"+name, read(t, "docs/"+name)))
	}
	return all
}

func parsePage(name, text string) page {
	p := page{name: name, text: text}
	var open *block
	for i, line := range strings.SplitAfter(text, "\n") {
		info, fence := strings.CutPrefix(line, "```")
		switch {
		case fence && open == nil:
			open = &block{where: fmt.Sprintf("%s:%d", name, i+1), info: strings.TrimSpace(info)}
		case fence:
			p.blocks, open = append(p.blocks, *open), nil
		case open != nil:
			open.text += line
		default:
			p.prose += line
			continue
		}
		p.prose += "\n"
	}
	return p
}

// spans are what stands between backticks.
func (p page) spans() (all []string) {
	for _, m := range regexp.MustCompile("`([^`\n]+)`").FindAllStringSubmatch(p.prose, -1) {
		all = append(all, m[1])
	}
	return all
}

// typed are the commands of the blocks that are for a shell, with what a variable
// stands for, and the comment behind each line.
func (p page) typed(value func(name string) string, do func(where string, words []string, comment string)) {
	for _, b := range p.blocks {
		if b.info != "bash" {
			continue
		}
		for line := range strings.Lines(strings.ReplaceAll(b.text, "\\\n", " ")) {
			commands, comment := splitShell(strings.TrimSpace(line), value)
			for _, words := range commands {
				do(b.where, words, comment)
			}
		}
	}
}

// splitShell splits a line into commands and words as a shell would, as far as
// the documents need it.
func splitShell(line string, value func(string) string) (commands [][]string, comment string) {
	var words []string
	var word strings.Builder
	inWord, quote := false, byte(0)
	endWord := func() {
		if inWord {
			words = append(words, word.String())
		}
		word.Reset()
		inWord = false
	}
	endCommand := func() {
		endWord()
		if len(words) > 0 {
			commands = append(commands, words)
		}
		words = nil
	}
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '\'' || c == '"'):
			quote, inWord = c, true
		case c == '$' && quote != '\'':
			n, text := expand(line[i:], value)
			word.WriteString(text)
			i, inWord = i+n-1, true
		case quote != 0:
			word.WriteByte(c)
		case c == '#' && !inWord:
			endCommand()
			return commands, strings.TrimSpace(line[i+1:])
		case c == ' ':
			endWord()
		case strings.IndexByte("|&;>", c) >= 0:
			endCommand()
		default:
			word.WriteByte(c)
			inWord = true
		}
	}
	endCommand()
	return commands, ""
}

var shellName = regexp.MustCompile(`^\$([A-Za-z_][A-Za-z0-9_]*)`)

// expand returns what a $ stands for, and how much of the text that is. What a
// command would print stays as it is.
func expand(text string, value func(string) string) (n int, expanded string) {
	if m := shellName.FindStringSubmatch(text); m != nil {
		return len(m[0]), value(m[1])
	}
	if end := strings.IndexByte(text, ')'); strings.HasPrefix(text, "$(") && end > 0 {
		return end + 1, text[:end+1]
	}
	return 1, "$"
}

func TestDocs_LinksLeadSomewhere(t *testing.T) {
	linked := map[string]bool{}
	for _, p := range documents(t) {
		for _, m := range regexp.MustCompile(`\]\(([^)\s]+)\)`).FindAllStringSubmatch(p.prose, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			file, section, _ := strings.Cut(m[1], "#")
			if file = path.Join(path.Dir(p.name), file); m[1][0] == '#' {
				file = p.name
			}
			linked[file] = linked[file] || p.name == "README.md"
			if _, err := os.Stat(filepath.Join("..", file)); err != nil {
				t.Errorf("%s: %s is not there", p.name, m[1])
			} else if section != "" && !hasSection(read(t, file), section) {
				t.Errorf("%s: there is no section %s", p.name, m[1])
			}
		}
	}
	for _, p := range documents(t) {
		if p.name != "README.md" && !linked[p.name] {
			t.Errorf("the README does not lead to %s", p.name)
		}
	}
}

func hasSection(text, section string) bool {
	return slices.ContainsFunc(regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(text, -1), func(m []string) bool {
		return anchor(m[1]) == section
	})
}

// place is where an address of the documents is in the demo.
func place(env map[string]string, url string) (string, bool) {
	for port, name := range map[string]string{"8001": "PROXY_URL", "8002": "BACKEND_URL", "8003": "ADMIN_URL"} {
		for _, host := range []string{"localhost", "127.0.0.1"} {
			if rest, ok := strings.CutPrefix(url, "http://"+host+":"+port); ok && (rest == "" || strings.Contains("/?", rest[:1])) {
				return env[name] + rest, true
			}
		}
	}
	return "", false
}

// curl is a command line of that program, as far as the documents use it.
type curl struct {
	method, url, body string
	header            http.Header
	stream            bool // it goes on for ever
}

func parseCurl(words []string) (c curl, err error) {
	c.header = http.Header{"User-Agent": {"curl/8"}, "Accept": {"*/*"}}
	for i := 1; i < len(words); i++ {
		next := func() string {
			if i++; i < len(words) {
				return words[i]
			}
			return ""
		}
		switch word := words[i]; {
		case word == "-i" || word == "-s":
		case word == "-N":
			c.stream = true
		case word == "-X":
			c.method = next()
		case word == "-d":
			c.body = next()
		case word == "-H":
			name, value, _ := strings.Cut(next(), ": ")
			c.header.Set(name, value)
		case strings.HasPrefix(word, "-") || c.url != "":
			return c, fmt.Errorf("what is %q?", word)
		default:
			c.url = word
		}
	}
	if c.body != "" && c.header.Get("Content-Type") == "" {
		c.header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if c.method == "" {
		c.method = map[bool]string{true: http.MethodPost, false: http.MethodGet}[c.body != ""]
	}
	return c, nil
}

// send returns the answer's status, header, and, unless it goes on for ever, body.
func (c curl) send(t *testing.T) (int, http.Header, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), c.method, c.url, strings.NewReader(c.body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = c.header
	if host := c.header.Get("Host"); host != "" {
		req.Host = host
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, Timeout: time.Minute}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var body bytes.Buffer
	if !c.stream {
		if _, err := body.ReadFrom(res.Body); err != nil {
			t.Fatal(err)
		}
	}
	return res.StatusCode, res.Header, body.Bytes()
}

// Every curl line answers with one of the 200s, or with the status that the
// comment behind it begins with. ID is the one that the last Location has.
func TestDocs_CurlLinesAnswerAsTheySay(t *testing.T) {
	env, sent := demo(t), 0
	value := func(name string) string {
		if env[name] == "" {
			t.Errorf("$%s: the demo knows of no such variable", name)
		}
		return env[name]
	}
	env["ID"], env["OWNER_URL"] = "none", "none"
	for _, p := range documents(t) {
		p.typed(value, func(where string, words []string, comment string) {
			if words[0] != "curl" {
				return
			}
			c, err := parseCurl(words)
			at, ours := place(env, c.url)
			if err != nil || !ours {
				t.Errorf("%s: %s: not to be sent: %v", where, strings.Join(words, " "), err)
				return
			}
			said := c.url
			c.url = at
			status, header, body := c.send(t)
			if want := statusSaid(comment); status != want && (want != 0 || status/100 != 2) {
				t.Errorf("%s: %s %s: %d, want %d: %.300s", where, c.method, said, status, want, body)
			}
			if id := path.Base(header.Get("Location")); status == http.StatusCreated {
				env["ID"] = id
			}
			sent++
		})
	}
	if sent < 40 {
		t.Errorf("%d lines were sent", sent)
	}
}

// statusSaid is 0 where a comment says nothing of a status.
func statusSaid(comment string) int {
	word, _, _ := strings.Cut(comment, " ")
	status, _ := strconv.Atoi(strings.TrimRight(word, ":;,"))
	return status
}

func TestDocs_AddressesOfThisMachineAnswer(t *testing.T) {
	env := demo(t)
	for _, p := range documents(t) {
		for _, url := range regexp.MustCompile("http://(?:localhost|127\\.0\\.0\\.1):800[0-9][^\\s|)`\"]*").FindAllString(p.prose, -1) {
			at, ours := place(env, strings.TrimRight(url, ".,;"))
			if !ours {
				t.Errorf("%s: %s is no port of ours", p.name, url)
				continue
			}
			c := curl{method: http.MethodGet, url: at, header: http.Header{"Authorization": {"Bearer " + env["ADMIN_TOKEN"]}, "Accept": {"text/html"}}}
			if status, _, _ := c.send(t); status >= 400 {
				t.Errorf("%s: %s: %d", p.name, url, status)
			}
		}
	}
}

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

func TestDocs_PathsExist(t *testing.T) {
	entries, err := os.ReadDir("..")
	if err != nil {
		t.Fatal(err)
	}
	var roots []string
	for _, e := range entries {
		roots = append(roots, e.Name())
	}
	check := func(where, text string) {
		text = strings.TrimPrefix(text, "./")
		root, _, below := strings.Cut(text, "/")
		file := regexp.MustCompile(`^[\w.-]+\.(go|md|ya?ml|sql|json)$`).MatchString(text)
		if !file && (!below || !slices.Contains(roots, root) || !regexp.MustCompile(`^[\w.*/-]+$`).MatchString(text)) {
			return
		}
		for _, dir := range []string{"..", "."} {
			if found, err := filepath.Glob(filepath.Join(dir, text)); err == nil && len(found) > 0 {
				return
			}
		}
		t.Errorf("%s: %s is not there", where, text)
	}
	for _, p := range documents(t) {
		for _, span := range p.spans() {
			check(p.name, span)
		}
		p.typed(func(string) string { return "x" }, func(where string, words []string, _ string) {
			for _, word := range words {
				check(where, word)
			}
		})
	}
}

// The tree of the README has the packages that there are, and no others.
func TestDocs_TheTreeIsThatOfTheRepository(t *testing.T) {
	_, tree, _ := strings.Cut(read(t, "README.md"), "## Where things are\n")
	tree, _, _ = strings.Cut(strings.TrimLeft(tree, "\n"), "\n\n")
	drawn, parent := map[string]bool{}, ""
	for line := range strings.Lines(tree) {
		nested := strings.HasPrefix(line, "      ")
		for name := range strings.FieldsSeq(line) {
			if !strings.HasSuffix(name, "/") {
				break
			}
			dir := strings.TrimSuffix(name, "/")
			if nested {
				dir = parent + "/" + dir
			} else {
				parent = dir
			}
			drawn[dir] = true
			if info, err := os.Stat(filepath.Join("..", dir)); err != nil || !info.IsDir() {
				t.Errorf("%s is drawn, and not there", dir)
			}
		}
	}
	for _, program := range []string{"proxy", "backend"} {
		entries, err := os.ReadDir(filepath.Join("..", program))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.IsDir() && !drawn[program+"/"+e.Name()] {
				t.Errorf("%s/%s is not drawn", program, e.Name())
			}
		}
	}
}

// sources are the Go files whose names are wanted, as they would be printed:
// without the backslashes before quotes.
func sources(t *testing.T, wanted func(name string) bool) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, root := range []string{"../proxy", "../backend", "../schema"} {
		err := filepath.WalkDir(root, func(name string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(name, ".go") || !wanted(name) {
				return err
			}
			content, err := os.ReadFile(name)
			all[name] = strings.ReplaceAll(string(content), `\"`, `"`)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// cells splits a row of a table.
func cells(row string) []string {
	parts := strings.Split(strings.Trim(strings.TrimSpace(row), "|"), "|")
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	return parts
}

// quotes are the messages that tables quote: what stands between backticks in a
// column that says so in its head.
func (p page) quotes() (all []string) {
	var columns []int
	head := true
	for line := range strings.Lines(p.prose) {
		if !strings.HasPrefix(line, "|") {
			head, columns = true, nil
			continue
		}
		for i, cell := range cells(line) {
			if head && regexp.MustCompile(`^(in the log|in the answer|answer$|message$)`).MatchString(cell) {
				columns = append(columns, i)
			} else if !head && slices.Contains(columns, i) {
				all = append(all, page{prose: cell}.spans()...)
			}
		}
		head = false
	}
	return all
}

// said reports whether a source has a message. Where a value is to go, the message
// has … or something in quotes.
func said(source, message string) bool {
	message = regexp.MustCompile(`"[^"]*"`).ReplaceAllString(message, "%q")
	for part := range strings.SplitSeq(message, "…") {
		if part = strings.TrimSpace(part); !strings.Contains(source, part) {
			return false
		}
	}
	return true
}

func TestDocs_QuotedErrorsAreTheOnesThatThereAre(t *testing.T) {
	programs := sources(t, func(name string) bool { return !strings.HasSuffix(name, "_test.go") })
	quoted := 0
	for _, p := range documents(t) {
		for _, message := range p.quotes() {
			quoted++
			if !slices.ContainsFunc(slices.Collect(maps.Values(programs)), func(source string) bool { return said(source, message) }) {
				t.Errorf("%s: no program says %q", p.name, message)
			}
		}
	}
	if quoted < 40 {
		t.Errorf("%d messages are quoted", quoted)
	}
}

// named are objects whose keys are names of whatever there is.
var named = []string{"hits", "misses", "misses_by_reason", "statuses", "dropped", "varied", "keyspace_info"}

// differs says where an example has other keys, or values of another kind, than an
// answer, "" if nowhere. Nothing is known of what is null or empty in either.
func differs(where string, example, answer any) string {
	if example == nil || answer == nil {
		return ""
	}
	switch e := example.(type) {
	case map[string]any:
		a, ok := answer.(map[string]any)
		if !ok {
			return where + " is no object"
		}
		return differsIn(where, e, a)
	case []any:
		a, ok := answer.([]any)
		if !ok {
			return where + " is no list"
		}
		for _, one := range e {
			if len(a) == 0 {
				break
			}
			if what := differs(where+"[]", one, a[0]); what != "" {
				return what
			}
		}
	default:
		if fmt.Sprintf("%T", example) != fmt.Sprintf("%T", answer) {
			return fmt.Sprintf("%s is a %T, and not a %T", where, answer, example)
		}
	}
	return ""
}

func differsIn(where string, example, answer map[string]any) string {
	if slices.Contains(named, where[strings.LastIndex(where, ".")+1:]) {
		return ""
	}
	has, have := slices.Sorted(maps.Keys(example)), slices.Sorted(maps.Keys(answer))
	if !slices.Equal(has, have) {
		return fmt.Sprintf("%s has the keys\n%s, and not\n%s", where, have, has)
	}
	for name := range example {
		if what := differs(where+"."+name, example[name], answer[name]); what != "" {
			return what
		}
	}
	return ""
}

// An example of an answer has the keys that the answer has, no more and no fewer.
func TestDocs_ExamplesHaveTheKeysOfTheAnswers(t *testing.T) {
	env, examples := demo(t), 0
	for _, page := range []string{"/properties/?format=json", "/properties/?format=json", "/properties/", "/properties/1/?format=json"} {
		curl{method: http.MethodGet, url: env["PROXY_URL"] + page}.send(t) // so that there is something to tell of
	}
	for _, p := range documents(t) {
		for _, b := range p.blocks {
			request, ok := strings.CutPrefix(b.info, "json ")
			if !ok {
				continue
			}
			examples++
			words := append(strings.SplitN(request, " ", 3), "")
			c := curl{method: words[0], url: env["PROXY_URL"] + words[1], body: words[2], header: http.Header{"Authorization": {"Bearer " + env["ADMIN_TOKEN"]}}}
			status, _, body := c.send(t)
			var example, answer any
			if err := json.Unmarshal([]byte(b.text), &example); err != nil {
				t.Errorf("%s is no JSON: %v", b.where, err)
				continue
			}
			if err := json.Unmarshal(body, &answer); err != nil || status != http.StatusOK {
				t.Errorf("%s: %d, %v: %.300s", b.where, status, err, body)
				continue
			}
			if what := differs("the answer", example, answer); what != "" {
				t.Errorf("%s: %s: %s", b.where, request, what)
			}
		}
	}
	if examples < 6 {
		t.Errorf("%d examples were compared", examples)
	}
}
