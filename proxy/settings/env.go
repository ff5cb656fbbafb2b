package settings

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/joho/godotenv"
	"github.com/urfave/cli/v2"
)

// envFile is read in the working directory.
const envFile = ".env"

// Load is what a program does before any of its commands: it reads .env, except
// for the commands that are to do without, and checks the variables of the
// command that was typed. It has to come before the command does, because that
// looks its flags' variables up before anything of its own can run.
func Load(without ...string) cli.BeforeFunc {
	return func(c *cli.Context) error {
		if !slices.Contains(without, c.Args().First()) {
			if err := readEnv(envFile); err != nil {
				return fmt.Errorf("read %s: %w", envFile, err)
			}
		}
		return checkVariables(typedFlags(c))
	}
}

// readEnv sets the variables of a file that the environment does not have, if
// there is such a file.
func readEnv(file string) error {
	content, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	values, err := parse(content)
	if err != nil {
		return err
	}
	for name, value := range values {
		if _, set := os.LookupEnv(name); set {
			continue
		}
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	return nil
}

// typedFlags are the flags of the command that was typed.
func typedFlags(c *cli.Context) []cli.Flag {
	flags, commands := slices.Clone(c.App.Flags), c.App.Commands
	for _, word := range c.Args().Slice() {
		at := slices.IndexFunc(commands, func(c *cli.Command) bool { return c.HasName(word) })
		if at < 0 {
			break
		}
		flags, commands = append(flags, commands[at].Flags...), commands[at].Subcommands
	}
	return flags
}

// checkVariables takes empty variables for what they are, and names a switch
// that is neither on nor off; what other flags do not take they say themselves.
func checkVariables(flags []cli.Flag) error {
	for _, f := range flags {
		_, isSwitch := f.(*cli.BoolFlag)
		for _, name := range f.(cli.DocGenerationFlag).GetEnvVars() {
			value, set := os.LookupEnv(name)
			if set && value == "" {
				// Or an empty LISTEN would be false, and an empty ADDR no address.
				if err := os.Unsetenv(name); err != nil {
					return err
				}
				continue
			}
			if _, err := strconv.ParseBool(value); isSwitch && set && err != nil {
				return errorf("%s is neither on nor off: it can be true, t or 1, and false, f or 0", name)
			}
		}
	}
	return nil
}

// variable is what a name in the file looks like.
var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.]*$`)

// parse reads NAME=value, a line each, with comments and quotes as godotenv
// has them. Its errors name the line and, if that can be told, the variable.
func parse(content []byte) (map[string]string, error) {
	content = bytes.TrimPrefix(content, []byte("\uFEFF"))
	if bytes.IndexByte(content, 0) >= 0 {
		return nil, errors.New("it is not UTF-8 text, but perhaps UTF-16, which PowerShell's > writes\n  try: save it as UTF-8")
	}
	// godotenv tells no line, and in its messages repeats the file. So it gets one
	// statement at a time first, and all of them together, as they may refer to
	// each other, once they are known to be right.
	lines := strings.SplitAfter(strings.ReplaceAll(string(content), "\r\n", "\n")+"\n", "\n")
	defined := map[string]bool{}
	for at := 0; at < len(lines); {
		lines[at] = onlyComment.ReplaceAllString(lines[at], "$1")
		text, n := statement(lines[at:])
		if why := flaw(text, n, defined); why != "" {
			return nil, fmt.Errorf("line %d%s", at+1, why)
		}
		at += n
	}
	return godotenv.Unmarshal(strings.Join(lines, ""))
}

// statement returns the first lines that make sense together, and how many those
// are; if none do, the first and 0.
func statement(lines []string) (text string, n int) {
	for _, line := range lines {
		text, n = text+line, n+1
		if _, err := godotenv.Unmarshal(text); err == nil {
			return text, n
		}
	}
	return lines[0], 0
}

// onlyComment is a line with a comment in the place of a value, which godotenv
// takes for the value.
var onlyComment = regexp.MustCompile(`^(\s*(?:export\s+)?[A-Za-z_][A-Za-z0-9_.]*\s*=)\s+#.*`)

// quoted is a line that begins a value in quotes.
var quoted = regexp.MustCompile(`^\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_.]*)\s*[=:]\s*["']`)

// dollar is in the place of each $ that may mean something, to see whether it does.
const dollar = "\x00"

var withoutMeaning = strings.NewReplacer(`\$`, `\$`, "$", dollar)

// reference is where godotenv puts another variable's value.
var reference = regexp.MustCompile(dollar + `\(?\{?([A-Z0-9_]+)\}?`)

// flaw says what is wrong with a statement of n lines, and "" if nothing is.
// defined are the names of those before it, and it adds its own.
func flaw(text string, n int, defined map[string]bool) string {
	if n == 0 {
		if m := quoted.FindStringSubmatch(text); m != nil {
			return fmt.Sprintf(" (%s): the quote is not closed, or something stands behind it\n  try: close it, or use the other kind of quote", m[1])
		}
		return " is not of the form NAME=value\n  try: # before a comment, and quotes around a value of several lines"
	}
	values, _ := godotenv.Unmarshal(text) // it made sense
	literal, _ := godotenv.Unmarshal(withoutMeaning.Replace(text))
	for name, value := range values {
		if !variable.MatchString(name) {
			return " is not of the form NAME=value: what stands before = is no name\n  try: letters, digits and _ alone, and a letter first"
		}
		if strings.ReplaceAll(literal[name], dollar, "$") == value {
			continue
		}
		for _, m := range reference.FindAllStringSubmatch(literal[name], -1) {
			if !defined[m[1]] {
				return fmt.Sprintf(" (%s): a $ stands for the value of a variable that is not set above\n  try: put the value in single quotes, where a $ is a $", name)
			}
		}
	}
	for name := range values {
		defined[name] = true
	}
	return ""
}
