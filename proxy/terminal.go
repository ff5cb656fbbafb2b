package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode"
	"unicode/utf16"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// isTerminal reports whether somebody watches what is written.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// colour is how a terminal is told of one (ECMA-48, "SGR").
type colour string

const (
	green  colour = "32"
	yellow colour = "33"
	red    colour = "31"
)

// paint colours a text where a terminal shows it, unless NO_COLOR
// (no-color.org) is set.
func paint(w io.Writer, c colour, text string) string {
	if !isTerminal(w) || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return text
	}
	return "\x1b[" + string(c) + "m" + text + "\x1b[0m"
}

// good paints what is well, and what is not.
func good(w io.Writer, well bool, text string) string {
	if well {
		return paint(w, green, text)
	}
	return paint(w, red, text)
}

// clean is a text as a terminal may show it: what would move its cursor, change
// its colours, turn its direction or begin another line is escaped as Go does.
func clean(text string) string {
	var b strings.Builder
	for _, c := range text {
		if unicode.IsPrint(c) {
			b.WriteRune(c)
		} else {
			b.WriteString(strings.Trim(strconv.QuoteRune(c), "'"))
		}
	}
	return b.String()
}

// cleaned is an answer in which every text is clean: a title, a key in Redis or
// what a service says may have been written by anybody. What is no JSON is left as
// it is.
func cleaned(answer []byte) []byte {
	d := json.NewDecoder(bytes.NewReader(answer))
	d.UseNumber() // which may be larger than a float holds
	var v any
	if d.Decode(&v) != nil {
		return answer
	}
	text, err := json.Marshal(cleanAll(v))
	if err != nil {
		return answer
	}
	return text
}

func cleanAll(v any) any {
	switch v := v.(type) {
	case string:
		return clean(v)
	case []any:
		for i := range v {
			v[i] = cleanAll(v[i])
		}
	case map[string]any:
		all := make(map[string]any, len(v))
		for name, value := range v {
			all[clean(name)] = cleanAll(value)
		}
		return all
	}
	return v
}

// table writes rows in columns. A colour would count for its width, so that it
// belongs into the last column.
func table(w io.Writer, rows ...[]any) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprint(t, "  ")
		for i, cell := range row {
			if i > 0 {
				fmt.Fprint(t, "\t")
			}
			fmt.Fprint(t, cell)
		}
		fmt.Fprintln(t)
	}
	_ = t.Flush() // what w says of it, its next write says again
}

// printJSON writes an answer for scripts. It says what the answer says; what a
// terminal might act on is written as JSON escapes it (RFC 8259, section 7).
func printJSON(w io.Writer, text []byte) error {
	var b bytes.Buffer
	if err := json.Indent(&b, text, "", "  "); err != nil {
		return err
	}
	var out strings.Builder
	for _, c := range b.String() {
		if unicode.IsPrint(c) || c == '\n' { // which stands between texts alone
			out.WriteRune(c)
			continue
		}
		for _, unit := range utf16.AppendRune(nil, c) {
			fmt.Fprintf(&out, `\u%04x`, unit)
		}
	}
	_, err := fmt.Fprintln(w, out.String())
	return err
}

// progress draws a bar where somebody watches, and nothing elsewhere, of lines
// that say how much is done of how much.
func progress(w io.Writer, what string) (during func(line []byte), end func()) {
	if !isTerminal(w) {
		return func([]byte) {}, func() {}
	}
	bar := progressbar.NewOptions(-1, progressbar.OptionSetWriter(w), progressbar.OptionShowCount(),
		progressbar.OptionSetDescription(what), progressbar.OptionClearOnFinish())
	during = func(line []byte) {
		var p struct{ Done, Of int }
		if json.Unmarshal(line, &p) == nil && p.Of > 0 {
			bar.ChangeMax(p.Of)
			_ = bar.Set(p.Done) // a bar that cannot be drawn is no reason to stop
		}
	}
	return during, func() { _ = bar.Finish() }
}
