package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/mattn/go-isatty"
)

// teller writes the demo's lines: a heading per act, short lines under it, a table at the end.
type teller struct {
	out      io.Writer
	color    bool
	began    time.Time
	acts     int
	promises []promise
}

// promise is one row of the summary.
type promise struct {
	what   string
	detail string
	kept   bool
}

func newTeller(out io.Writer) *teller {
	f, ok := out.(*os.File)
	color := ok && isatty.IsTerminal(f.Fd()) && os.Getenv("NO_COLOR") == ""
	return &teller{out: out, color: color, began: time.Now()}
}

// act opens a part of the demo.
func (t *teller) act(title string) {
	t.acts++
	fmt.Fprintf(t.out, "\n%s %s\n", t.paint("1", fmt.Sprintf("[%d/7] %s", t.acts, title)), t.paint("2", fmt.Sprintf("(%.0f s)", time.Since(t.began).Seconds())))
}

// say writes one line of an act.
func (t *teller) say(format string, args ...any) {
	fmt.Fprintf(t.out, "  "+format+"\n", args...)
}

// quote shows what a program printed, indented and cut to so many lines.
func (t *teller) quote(text string, lines int) {
	all := strings.Split(strings.TrimRight(text, "\n"), "\n")
	for i, line := range all {
		if i == lines && len(all) > lines+1 {
			fmt.Fprintf(t.out, "    %s\n", t.paint("2", fmt.Sprintf("… %d more lines", len(all)-i)))
			return
		}
		fmt.Fprintf(t.out, "    %s\n", t.paint("2", line))
	}
}

// command shows a command line as the user would type it.
func (t *teller) command(line string) { fmt.Fprintf(t.out, "  %s\n", t.paint("36", "$ "+line)) }

// promise notes whether something is as promised and says so.
func (t *teller) promise(kept bool, what, format string, args ...any) {
	p := promise{what: what, detail: fmt.Sprintf(format, args...), kept: kept}
	t.promises = append(t.promises, p)
	fmt.Fprintf(t.out, "  %s %s: %s\n", t.mark(kept), p.what, p.detail)
}

func (t *teller) mark(kept bool) string {
	if kept {
		return t.paint("32", "✔")
	}
	return t.paint("31", "✘")
}

// summary writes the table and says how many promises were broken.
func (t *teller) summary() error {
	fmt.Fprintf(t.out, "\n%s\n", t.paint("1", "Summary"))
	w := tabwriter.NewWriter(t.out, 0, 0, 2, ' ', 0)
	broken := 0
	for _, p := range t.promises {
		fmt.Fprintf(w, "  %s\t%s\t%s\n", t.mark(p.kept), p.what, p.detail)
		if !p.kept {
			broken++
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(t.out, "  %.0f seconds\n", time.Since(t.began).Seconds())
	if broken > 0 {
		return fmt.Errorf("%d of %d promises were not kept; they are marked ✘ above", broken, len(t.promises))
	}
	return nil
}

func (t *teller) paint(code, s string) string {
	if !t.color {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}
