package settings

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"
)

// Components are the parts that --log-level knows, of both programs, since one
// .env is for both. Each names itself in all of its lines:
// log.With("component", "cache").
var Components = []string{
	"serve", "replication", "changelog", "cache", "store", "origin", "admin", "manage", // of the proxy
	"service", "api", "panel", "queryset", "release", // of the backend
	"redis", // what the client library has to say, in both
}

var levelNames = []string{"debug", "info", "warn", "error"}

// LogFlag is --log-level.
func LogFlag(category string) cli.Flag {
	return &cli.StringFlag{Name: "log-level", Category: category, EnvVars: []string{"LOG_LEVEL"},
		Usage: "`LEVELS`, comma-separated, from which on lines are logged: one of " + strings.Join(levelNames, ", ") +
			" for all, and COMPONENT=LEVEL for each that differs, such as info,replication=debug. Components: " + strings.Join(Components, ", ")}
}

// Usual is the level of a program that may be told to debug.
func Usual(debug bool) slog.Level {
	if debug {
		return slog.LevelDebug
	}
	return slog.LevelInfo
}

// NewLogger makes the logger of a command that has LogFlag: text for who sits at
// a terminal, JSON for what collects it elsewhere. What --log-level leaves open
// is logged from the usual level on. Other libraries write to it too.
func NewLogger(c *cli.Context, usual slog.Level) (*slog.Logger, error) {
	levels, err := parseLevels(c.String("log-level"), usual)
	if err != nil {
		return nil, err
	}
	log := slog.New(&handler{newWriter(c.App.ErrWriter), levels, levels.usual})
	slog.SetDefault(log)
	// net/http says by package log what an upstream sent that nobody had asked for,
	// and quotes it.
	slog.SetLogLoggerLevel(slog.LevelDebug)
	return log, nil
}

// levels are those from which on lines are logged.
type levels struct {
	usual slog.Level
	other map[string]slog.Level // by component
}

func parseLevels(text string, usual slog.Level) (levels, error) {
	l := levels{usual, map[string]slog.Level{}}
	for part := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ',' || r == ' ' }) {
		component, name, one := strings.Cut(part, "=")
		if !one {
			name = part
		}
		if !slices.Contains(levelNames, strings.ToLower(name)) {
			return l, errorf("--log-level (LOG_LEVEL): there is no level %q, only %s", name, strings.Join(levelNames, ", "))
		}
		var level slog.Level
		if err := level.UnmarshalText([]byte(name)); err != nil {
			return l, err
		}
		switch {
		case !one:
			l.usual = level
		case slices.Contains(Components, component):
			l.other[component] = level
		default:
			return l, errorf("--log-level (LOG_LEVEL): there is no component %q, only %s", component, strings.Join(Components, ", "))
		}
	}
	return l, nil
}

func (l levels) of(component string) slog.Level {
	if level, ok := l.other[component]; ok {
		return level
	}
	return l.usual
}

// handler lets through what a logger's component is to log.
type handler struct {
	slog.Handler // writes whatever it is given
	levels       levels
	from         slog.Level
}

func (h *handler) Enabled(_ context.Context, level slog.Level) bool { return level >= h.from }

// WithAttrs decides once, for all lines of a logger, from which level on they are
// written.
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	with := handler{h.Handler.WithAttrs(attrs), h.levels, h.from}
	for _, a := range attrs {
		if a.Key == "component" {
			with.from = h.levels.of(a.Value.String())
		}
	}
	return &with
}

func (h *handler) WithGroup(name string) slog.Handler {
	return &handler{h.Handler.WithGroup(name), h.levels, h.from}
}

// newWriter writes every line that it gets.
func newWriter(w io.Writer) slog.Handler {
	const all = slog.Level(-1 << 20)
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return slog.NewTextHandler(w, &slog.HandlerOptions{Level: all, ReplaceAttr: forPeople})
	}
	return slog.NewJSONHandler(w, &slog.HandlerOptions{Level: all, ReplaceAttr: forPrograms})
}

// forPeople leaves the day out of the time.
func forPeople(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey {
		a.Value = slog.StringValue(a.Value.Time().Format("15:04:05.000"))
	}
	return a
}

// forPrograms writes durations, positions and the like as text has them: the
// numbers that they are inside mean nothing to who reads a log.
func forPrograms(_ []string, a slog.Attr) slog.Attr {
	switch v := a.Value.Any().(type) {
	case time.Duration:
		a.Value = slog.StringValue(v.String())
	case error, json.Marshaler: // they are well written as they are
	case fmt.Stringer:
		a.Value = slog.StringValue(v.String())
	}
	return a
}
