package settings

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/urfave/cli/v2"

	"walcache/proxy/coherence"
)

// logger is what NewLogger makes of --log-level for a writer that is no terminal.
func logger(t *testing.T, levels string, usual slog.Level) (*slog.Logger, *bytes.Buffer, error) {
	t.Helper()
	before := slog.Default()
	defer slog.SetDefault(before)
	var said bytes.Buffer
	var log *slog.Logger
	app := &cli.App{ErrWriter: &said, Flags: []cli.Flag{LogFlag("")}, Action: func(c *cli.Context) (err error) {
		log, err = NewLogger(c, usual)
		return err
	}}
	err := app.RunContext(t.Context(), []string{"program", "--log-level", levels})
	return log, &said, err
}

func TestNewLogger_EachComponentHasItsLevel(t *testing.T) {
	const debug, info, warn, never = slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError + 1
	for _, c := range []struct {
		levels                     string
		usual                      slog.Level
		none, replication, cacheIs slog.Level // from which on lines are logged
	}{
		{"", info, info, info, info},
		{"", debug, debug, debug, debug},
		{"warn", debug, warn, warn, warn},
		{"info,replication=debug,cache=warn", info, info, debug, warn},
		{" replication=DEBUG , cache=Error,", info, info, debug, slog.LevelError},
		{"cache=warn", debug, debug, debug, warn},
		{"cache=warn,error", info, slog.LevelError, slog.LevelError, warn},
	} {
		log, _, err := logger(t, c.levels, c.usual)
		if err != nil {
			t.Fatal(err)
		}
		for name, l := range map[string]struct {
			log  *slog.Logger
			from slog.Level
		}{
			"none": {log, c.none}, "replication": {log.With("component", "replication"), c.replication}, "cache": {log.With("component", "cache"), c.cacheIs},
			"others kept":  {log.With("component", "cache", "x", 1).With("y", 2).WithGroup("g"), c.cacheIs},
			"another then": {log.With("component", "cache").With("component", "replication"), c.replication},
			"no component": {log.With("cache", "component"), c.none},
		} {
			for level := debug; level < never; level++ {
				if got := l.log.Enabled(context.Background(), level); got != (level >= l.from) {
					t.Errorf("%q, %s: %s is logged: %t", c.levels, name, level, got)
				}
			}
		}
	}
}

func TestNewLogger_WhatThereIsNotIsWrongUsageThatListsWhatThereIs(t *testing.T) {
	for levels, want := range map[string]string{
		"loud":              `there is no level "loud", only debug, info, warn, error`,
		"info+2":            `there is no level "info+2"`,
		"replication=":      `there is no level ""`,
		"info,ghost=debug":  `there is no component "ghost", only serve, replication, changelog, cache, store, origin, admin, manage, service, api, panel, queryset, release`,
		"info,=debug":       `there is no component ""`,
		"cache=debug=debug": `there is no level "debug=debug"`,
	} {
		_, _, err := logger(t, levels, slog.LevelInfo)
		if !errors.As(err, new(*Error)) || !strings.HasPrefix(err.Error(), "--log-level (LOG_LEVEL): "+want) {
			t.Errorf("%s: %v", levels, err)
		}
	}
}

func TestNewLogger_IsJSONWhereNobodySitsAtATerminal(t *testing.T) {
	log, said, err := logger(t, "", slog.LevelInfo)
	if err != nil {
		t.Fatal(err)
	}
	log.With("component", "cache").Info("known", "lsn", coherence.LSN(1<<32+10), "took", 1500*time.Millisecond, "error", errors.New("no"), "n", 3)
	want := regexp.MustCompile(`^{"time":"\d{4}-\d\d-\d\dT[^"]+","level":"INFO","msg":"known","component":"cache","lsn":"1/A","took":"1.5s","error":"no","n":3}\n$`)
	if !want.MatchString(said.String()) {
		t.Error(said)
	}
}

// A terminal of its own a test has not; this is what it would show.
func TestForPeople_TimesAreShort(t *testing.T) {
	var said bytes.Buffer
	log := slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{ReplaceAttr: forPeople}))
	log.WithGroup("g").Info("known", "time", time.Second)
	if !regexp.MustCompile(`^time=\d\d:\d\d:\d\d\.\d{3} level=INFO msg=known g.time=1s\n$`).MatchString(said.String()) {
		t.Error(said.String())
	}
}

var (
	named     = regexp.MustCompile(`"component", "([a-z]+)"`)
	anyLogger = regexp.MustCompile(`\bslog\.(Default\(\)|(Debug|Info|Warn|Error|Log)(Context)?\()`)
)

// Every component that a program names can be given a level, and no package logs
// past the logger that it is given.
func TestComponents_AreThoseOfThePrograms(t *testing.T) {
	found := 0
	for _, root := range []string{"..", "../../backend"} {
		err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
				return err
			}
			source, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for _, m := range named.FindAllSubmatch(source, -1) {
				if found++; !slices.Contains(Components, string(m[1])) {
					t.Errorf("%s names a component %s that --log-level does not know", path, m[1])
				}
			}
			if m := anyLogger.Find(source); m != nil {
				t.Errorf("%s logs with %s, and not with the logger that it is given", path, m)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if found < 10 {
		t.Errorf("%d components are named", found)
	}
}
