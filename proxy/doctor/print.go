package doctor

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"
)

// JSON writes the findings as one array.
func (r Report) JSON(w io.Writer) error {
	if r == nil {
		r = Report{}
	}
	to := json.NewEncoder(w)
	to.SetEscapeHTML(false)
	to.SetIndent("", "  ")
	return to.Encode(r)
}

// Script writes what an owner of the database has to run, for psql. A line that
// would need a restart, or concerns more than this database, is a comment.
func (r Report) Script(w io.Writer) error {
	var b strings.Builder
	if r.hasStatements() {
		b.WriteString("SET lock_timeout = '2s'; -- rather fail than make the application wait; then run this again\n\n")
	}
	for _, f := range r {
		if len(f.SQL) == 0 {
			continue
		}
		fmt.Fprintf(&b, "-- %s: %s\n", f.Check, printable(f.What))
		for _, line := range f.SQL {
			b.WriteString(repeatable(line) + "\n")
		}
		b.WriteString("\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// repeatable makes a statement do nothing the second time, where SQL has no
// words for that. A name may contain anything, so a comment is kept to its line.
func repeatable(line string) string {
	done := "duplicate_object"
	switch {
	case strings.HasPrefix(line, "--"):
		return printable(line)
	case !strings.Contains(line, " PUBLICATION "):
		return line
	}
	if verb, _, _ := strings.Cut(line, " TABLE ONLY "); strings.HasSuffix(verb, " DROP") {
		done = "undefined_object"
	}
	mark := "$walcache"
	for strings.Contains(line, mark) { // in a name
		mark += "_"
	}
	mark += "$"
	return "DO " + mark + " BEGIN " + line + " EXCEPTION WHEN " + done + " THEN NULL; END " + mark + ";"
}

// printable keeps names from steering a terminal, or ending a comment.
func printable(s string) string {
	return strings.Map(func(c rune) rune {
		if unicode.IsPrint(c) {
			return c
		}
		return '?'
	}, s)
}

// mostSQL is how many lines of SQL a person is shown for one finding.
const mostSQL = 8

var colours = map[Status]string{OK: "\x1b[32m", Warning: "\x1b[33m", Error: "\x1b[31m"}

// Print writes the findings for people, and what to do next.
func (r Report) Print(w io.Writer, colour bool) error {
	var b strings.Builder
	wide := 0
	for _, f := range r {
		wide = max(wide, len(f.name()))
	}
	for i, f := range r {
		if i == 0 || f.Where != r[i-1].Where {
			if i > 0 {
				b.WriteString("\n")
			}
			b.WriteString(printable(f.Where) + "\n")
		}
		mark := fmt.Sprintf("%-7s", f.Status)
		if colour {
			mark = colours[f.Status] + mark + "\x1b[0m"
		}
		fmt.Fprintf(&b, "  %s  %-*s  %s\n", mark, wide, f.name(), printable(f.What))
		f.printFix(&b, strings.Repeat(" ", 2+7+2+wide+2))
	}
	fmt.Fprintf(&b, "\n%s\n", r.next())
	_, err := io.WriteString(w, b.String())
	return err
}

// name is the check without its server, which the heading has.
func (f Finding) name() string {
	_, name, _ := strings.Cut(f.Check, ".")
	return name
}

func (f Finding) printFix(b *strings.Builder, margin string) {
	if f.Fix == "" {
		return
	}
	fmt.Fprintf(b, "%swhy: %s\n%stry: %s\n", margin, printable(f.Why), margin, printable(f.Fix))
	for i, line := range f.SQL {
		if strings.HasPrefix(line, "-- ALTER SYSTEM ") {
			continue // it stands in Fix
		}
		if i == mostSQL && len(f.SQL) > mostSQL+1 {
			fmt.Fprintf(b, "%s     … and %d more lines: proxy doctor --sql\n", margin, len(f.SQL)-i)
			return
		}
		fmt.Fprintf(b, "%s     %s\n", margin, printable(line))
	}
}

// next is the one thing to do now.
func (r Report) next() string {
	if !r.NeedsAction() {
		return "All is well: start proxy serve."
	}
	var all []string
	for _, s := range []Status{Error, Warning} {
		if n := r.Count(s); n > 0 {
			all = append(all, count(n, string(s)))
		}
	}
	found := strings.Join(all, ", ")
	if r.hasStatements() {
		return found + `: as an owner of the database, proxy doctor --sql | psql "$OWNER_URL" -f -; do what else stands after "try"; then proxy doctor again.`
	}
	return found + `: do what stands after "try", then proxy doctor again.`
}

// hasStatements reports whether there is something to run, and not only comments.
func (r Report) hasStatements() bool {
	return slices.ContainsFunc(r, func(f Finding) bool {
		return slices.ContainsFunc(f.SQL, func(line string) bool { return !strings.HasPrefix(line, "--") })
	})
}
