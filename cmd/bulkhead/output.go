package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/mattn/go-isatty"
	"sigs.k8s.io/yaml"
)

// print shows v as the global flag asks: as JSON, as YAML, or with table, which writes for people.
func (a *app) print(v any, table func() error) error {
	switch a.output {
	case "json":
		e := json.NewEncoder(a.out)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		return e.Encode(v)
	case "yaml":
		b, err := yaml.Marshal(v)
		if err != nil {
			return err
		}
		_, err = a.out.Write(b)
		return err
	}
	return table()
}

// printNext shows one item of a stream: a line of JSON, a YAML document, or a row of line's making.
func (a *app) printNext(v any, line func() string) error {
	var err error
	switch a.output {
	case "json":
		e := json.NewEncoder(a.out)
		e.SetEscapeHTML(false)
		err = e.Encode(v)
	case "yaml":
		var b []byte
		if b, err = yaml.Marshal(v); err == nil {
			_, err = fmt.Fprintf(a.out, "---\n%s", b)
		}
	default:
		_, err = fmt.Fprintln(a.out, line())
	}
	return err
}

// table writes rows under a header. Columns named VERDICT, MODE and SEVERITY are coloured on a
// terminal.
func (a *app) table(header string, rows [][]string) error {
	names := strings.Fields(header)
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	for _, row := range append([][]string{names}, rows...) {
		for i, cell := range row {
			if i > 0 {
				fmt.Fprint(w, "\t")
			}
			if a.color && painted(names[i]) {
				cell = paint(cell)
			} else if cell == "" && i < len(row)-1 {
				cell = "-"
			}
			fmt.Fprint(w, cell)
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}

func painted(column string) bool {
	return column == "VERDICT" || column == "MODE" || column == "SEVERITY"
}

// paint colours a word. Every word gets an escape of the same length, so that tabwriter, which
// counts them, still lines the columns up.
func paint(word string) string {
	code := "39"
	switch word {
	case "deny", "critical", "high":
		code = "31"
	case "alert", "medium":
		code = "33"
	case "allow", "enforce":
		code = "32"
	}
	return "\x1b[" + code + "m" + word + "\x1b[0m"
}

// word colours a single word outside of a table.
func (a *app) word(s string) string {
	if a.color {
		return paint(s)
	}
	return s
}

// colorful says whether escapes may be written to w; see https://no-color.org.
func colorful(w io.Writer) bool { return os.Getenv("NO_COLOR") == "" && terminal(w) }

func terminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}

// age is how long ago t was, in the unit that fits: 45s, 12m, 7h, 3d. Empty for a time not set.
func age(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	switch d := max(time.Since(t), 0); {
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	default:
		return fmt.Sprintf("%dd", int(d.Hours()/24))
	}
}

// clock is a time of day for rows of things that happen, in the user's zone.
func clock(t time.Time) string { return t.Local().Format("15:04:05") }

// portOf is protocol and port as policies and commands write them.
func portOf(protocol string, port uint16) string { return fmt.Sprintf("%s/%d", protocol, port) }

// plural is "1 policy", "3 policies".
func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
