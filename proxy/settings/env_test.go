package settings

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// aSecret is what no message may repeat.
const aSecret = "hunter2secret"

func TestParse_TakesWhatPeopleWrite(t *testing.T) {
	for text, want := range map[string]map[string]string{
		"":                                           {},
		"# a comment\n\n":                            {},
		"A=1\nB = 2\nexport C=3":                     {"A": "1", "B": "2", "C": "3"},
		"A=1\r\nB='2'\r\n":                           {"A": "1", "B": "2"},
		"\uFEFFDEBUG=True\n":                         {"DEBUG": "True"},
		"A=1 # one\nB='2 # two'":                     {"A": "1", "B": "2 # two"},
		"A=\nB=\"\"\nC='' # none":                    {"A": "", "B": "", "C": ""},
		"A=   # none\nexport B=\t# none":             {"A": "", "B": ""},
		"A=#1\nB=one#two":                            {"A": "#1", "B": "one#two"},
		"A='one\ntwo'\nB=\"3\"":                      {"A": "one\ntwo", "B": "3"},
		"A='\n# no comment\n'":                       {"A": "\n# no comment\n"},
		"A=1\nA=2":                                   {"A": "2"},
		"USER=ada\nURL=redis://${USER}:x@h:$USER":    {"USER": "ada", "URL": "redis://ada:x@h:ada"},
		"A='pa$WORD'\nB=a$b\nC=\"pa\\$WORD\"\nD=$(b": {"A": "pa$WORD", "B": "a$b", "C": "pa$WORD", "D": "$(b"},
		"URL=postgresql://u:p@h:5432/d?sslmode=disable&x=1": {"URL": "postgresql://u:p@h:5432/d?sslmode=disable&x=1"},
	} {
		if got, err := parse([]byte(text)); err != nil || !maps.Equal(got, want) {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
}

func TestParse_NamesTheLineAndTheVariableAndNeverTheValue(t *testing.T) {
	for text, want := range map[string]string{
		aSecret:                              "line 1 is not of the form NAME=value",
		"A=1\n\n# x\n" + aSecret + "\nB=2":   "line 4 is not of the form",
		"A=1\r\n" + aSecret + "\r\n":         "line 2 is not of the form",
		"A B=" + aSecret:                     "line 1 is not of the form NAME=value: what stands before = is no name",
		"A=1\n=" + aSecret:                   "line 2 is not of the form",
		"1A=" + aSecret:                      "line 1 is not of the form",
		"export " + aSecret:                  "line 1 is not of the form",
		"A=1\nTOKEN=\"" + aSecret:            "line 2 (TOKEN): the quote is not closed",
		"A='x\ny'\nTOKEN='" + aSecret + "\n": "line 3 (TOKEN): the quote is not closed",
		"TOKEN='" + aSecret + "' " + aSecret: "line 1 (TOKEN): the quote is not closed, or something stands behind it",
		"TOKEN=" + aSecret + "$WORD":         "line 1 (TOKEN): a $ stands for",
		"TOKEN=\"" + aSecret + "${WORD}\"":   "line 1 (TOKEN): a $ stands for",
		"TOKEN=" + aSecret + "$(WORD)":       "line 1 (TOKEN): a $ stands for",
		"A=$B\nB=1":                          "line 1 (A): a $ stands for",
		"\xff\xfeA\x00=\x001\x00":            "it is not UTF-8 text",
	} {
		_, err := parse([]byte(text))
		if err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), aSecret) || strings.Contains(err.Error(), "WORD") {
			t.Errorf("%q: %v, and not %s", text, err, want)
		}
	}
}

// Nothing in a file may be repeated, whatever the file is.
func FuzzParse(f *testing.F) {
	for _, text := range []string{"A=1", "A='x", "A=\"", "export A", "A=$B", "\x00", "A: x", "A=b # c", "'", "A='\\'"} {
		f.Add(text, text)
	}
	f.Fuzz(func(t *testing.T, before, after string) {
		const noName = "hunter2+secret"
		if _, err := parse([]byte(before + noName + after)); err != nil && strings.Contains(err.Error(), noName) {
			t.Error(err)
		}
	})
}

// told runs a program with flags of every kind in a directory with a .env, and
// returns what they say.
func told(t *testing.T, env string, args ...string) (map[string]any, error) {
	t.Helper()
	t.Chdir(t.TempDir())
	if err := os.WriteFile(envFile, []byte(env), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"URL", "DEBUG", "LISTEN", "N"} {
		if _, set := os.LookupEnv(name); !set {
			t.Setenv(name, "") // restores it in the end
			os.Unsetenv(name)
		}
	}
	got := map[string]any{}
	flags := []cli.Flag{
		&cli.StringFlag{Name: "url", Value: "default", EnvVars: []string{"URL"}}, &cli.IntFlag{Name: "n", Value: 7, EnvVars: []string{"N"}},
		&cli.BoolFlag{Name: "debug", EnvVars: []string{"DEBUG"}}, &cli.BoolFlag{Name: "listen", Value: true, EnvVars: []string{"LISTEN"}},
	}
	action := func(c *cli.Context) error {
		for _, f := range flags {
			got[f.Names()[0]] = c.Value(f.Names()[0])
		}
		return nil
	}
	app := &cli.App{Before: Load("demo"), Commands: []*cli.Command{
		{Name: "serve", Flags: flags, Action: action}, {Name: "demo", Flags: flags, Action: action}, {Name: "other", Action: func(*cli.Context) error { return nil }},
		{Name: "cache", Subcommands: []*cli.Command{{Name: "off", Flags: flags, Action: action}}},
	}}
	return got, app.RunContext(t.Context(), append([]string{"program"}, args...))
}

func TestLoad_TheFlagThenTheEnvironmentThenTheFileThenTheDefault(t *testing.T) {
	for name, c := range map[string]struct {
		env  map[string]string
		file string
		args string
		want string
	}{
		"nothing":                     {nil, "", "serve", "default"},
		"file":                        {nil, "URL=file", "serve", "file"},
		"environment":                 {map[string]string{"URL": "environment"}, "URL=file", "serve", "environment"},
		"flag":                        {map[string]string{"URL": "environment"}, "URL=file", "serve --url=flag", "flag"},
		"empty takes the file back":   {map[string]string{"URL": ""}, "URL=file", "serve", "default"},
		"empty in the file":           {nil, "URL=", "serve", "default"},
		"subcommand":                  {map[string]string{"URL": ""}, "URL=file", "cache off", "default"},
		"subcommand, file":            {nil, "URL=file", "cache off", "file"},
		"demo reads none":             {nil, "URL=file", "demo", "default"},
		"demo, environment":           {map[string]string{"URL": "environment"}, "URL=file", "demo", "environment"},
		"demo minds no broken line":   {nil, "URL", "demo", "default"},
		"what is no variable of ours": {map[string]string{"NO_FLAG": ""}, "URL=file", "serve", "file"},
	} {
		t.Run(name, func(t *testing.T) {
			for name, value := range c.env {
				t.Setenv(name, value)
			}
			if got, err := told(t, c.file, strings.Fields(c.args)...); err != nil || got["url"] != c.want {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
}

func TestLoad_AnEmptyVariableIsTheDefaultOfEveryKindOfFlag(t *testing.T) {
	want := map[string]any{"url": "default", "n": 7, "debug": false, "listen": true}
	if got, err := told(t, "URL=\nN=\nDEBUG=\nLISTEN=''\n", "serve"); err != nil || !maps.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
}

func TestLoad_ASwitchIsOnOrOffOrNamed(t *testing.T) {
	for value, want := range map[string]bool{"True": true, "true": true, "TRUE": true, "1": true, "t": true, "False": false, "0": false, "f": false} {
		t.Run(value, func(t *testing.T) {
			if got, err := told(t, "DEBUG="+value, "serve"); err != nil || got["debug"] != want {
				t.Errorf("%v, %v", got["debug"], err)
			}
		})
	}
	for _, value := range []string{"yes", "on", "perhaps", aSecret} {
		t.Run(value, func(t *testing.T) {
			_, err := told(t, "DEBUG="+value, "serve")
			if !errors.As(err, new(*Error)) || err.Error() != "DEBUG is neither on nor off: it can be true, t or 1, and false, f or 0" {
				t.Error(err)
			}
			if _, err := told(t, "", "other"); err != nil {
				t.Errorf("a command without it: %v", err)
			}
		})
	}
}

func TestLoad_AFileThatCannotBeReadIsNamed(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.Mkdir(envFile, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := (&cli.App{Before: Load()}).Run([]string{"program"}); err == nil || !strings.HasPrefix(err.Error(), "read .env: ") {
		t.Error(err)
	}
}

func TestSecret_IsAFlagOrAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	empty := file + ".empty"
	for name, text := range map[string]string{file: " " + aSecret + "\r\n", empty: "\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ args, want, err string }{
		{"", "", ""}, {"--token=" + aSecret, aSecret, ""}, {"--token-file=" + file, aSecret, ""},
		{"--token=x --token-file=" + file, "", "--token and --token-file (or their variables) are both set"},
		{"--token-file=" + file + ".missing", "", "--token-file: open "},
		{"--token-file=" + empty, "", "--token-file: " + empty + " is empty"},
	} {
		app := &cli.App{
			Flags: []cli.Flag{&cli.StringFlag{Name: "token"}, &cli.StringFlag{Name: "token-file"}},
			Action: func(context *cli.Context) error {
				got, err := Secret(context, "token")
				if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.HasPrefix(err.Error(), c.err) {
					t.Errorf("%s: %q, %v", c.args, got, err)
				}
				return nil
			},
		}
		if err := app.Run(append([]string{"program"}, strings.Fields(c.args)...)); err != nil {
			t.Error(err)
		}
	}
}
