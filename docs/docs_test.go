package docs

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
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
