package main

import (
	"bufio"
	"fmt"
	"strings"

	"github.com/bulkhead-firewall/bulkhead/api"
)

// printPreview says what a change would do to what was seen.
func (a *app) printPreview(p api.Preview) error {
	for _, part := range []struct {
		verb  string
		names []string
	}{{"create", p.Created}, {"change", p.Changed}, {"remove", p.Removed}} {
		for _, name := range part.names {
			fmt.Fprintf(a.out, "would %s  %s\n", part.verb, name)
		}
	}
	for _, m := range p.Modes {
		fmt.Fprintf(a.out, "would set     %s\n", m)
	}
	a.printRows("breaks", "deny", p.Breaks)
	a.printRows("opens", "allow", p.Opens)
	for _, rule := range p.Unused {
		fmt.Fprintf(a.out, "unused  %s: nothing that was seen needs it\n", rule)
	}
	for _, w := range p.Warnings {
		fmt.Fprintf(a.out, "warning  %s\n", w)
	}
	_, err := fmt.Fprintf(a.out, "%s would break, %s would open\n", plural(len(p.Breaks), "seen edge", "seen edges"),
		plural(len(p.Opens), "seen edge", "seen edges"))
	return err
}

func (a *app) printRows(verb, verdict string, rows []api.PreviewRow) {
	for _, r := range rows {
		fmt.Fprintf(a.out, "%s  %s → %s %s  %s (seen x%d, last %s ago): %s\n", verb, r.Client, r.Server,
			portOf(r.Protocol, r.Port), a.word(verdict), r.Count, age(r.Last), r.Reason)
	}
}

// confirm asks before a change that cuts or removes something. why completes "This …". Without a
// person at the terminal the answer is no.
func (a *app) confirm(why string) error {
	if !a.askable {
		return refused("%s; nothing was changed; give --yes to do it all the same", why)
	}
	fmt.Fprintf(a.err, "%s. Go on? [y/N] ", why)
	line, err := bufio.NewReader(a.in).ReadString('\n')
	if answer := strings.ToLower(strings.TrimSpace(line)); err == nil && (answer == "y" || answer == "yes") {
		return nil
	}
	return refused("%s; nothing was changed", why)
}
