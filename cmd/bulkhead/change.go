package main

import (
	"bufio"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/bulkhead-firewall/bulkhead/api"
)

// change is what every command that changes policies shares: it looks first, asks, does, tells, and
// where the change must be confirmed asks again.
type change struct {
	req      api.ApplyRequest
	dryRun   bool
	yes      bool
	within   time.Duration // 0: nobody has to confirm it
	wait     time.Duration // 0: not for other nodes of the cluster
	removals bool          // that policies go is asked about, too
}

// flags adds those that every such command has.
func (c *change) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&c.dryRun, "dry-run", false, "only show what it would do")
	f.BoolVar(&c.yes, "yes", false, "do not ask")
	f.DurationVar(&c.within, "confirm-within", 0, "undo it after this span (1s to 24h) unless it is confirmed")
	f.DurationVar(&c.wait, "wait", 0, "wait so long (up to 10m) until all nodes of the cluster have it in force, and name those that do not; alone: 30s")
	f.Lookup("wait").NoOptDefVal = "30s"
	f.StringVarP(&c.req.Message, "message", "m", "", "why, for the history")
}

// run carries the change out.
func (a *app) run(cmd *cobra.Command, c *change) error {
	if c.within < 0 || c.within > 0 && (c.within < time.Second || c.within > 24*time.Hour) {
		return usage(cmd, "--confirm-within %v: want 1s to 24h", c.within)
	}
	if c.wait < 0 || c.wait > 10*time.Minute {
		return usage(cmd, "--wait %v: want up to 10m", c.wait)
	}
	if c.wait > 0 {
		c.req.Wait = c.wait.String()
	}
	if c.within > 0 {
		c.req.ConfirmWithin = c.within.String()
	}
	if c.dryRun || !c.yes {
		p, err := a.client().Preview(cmd.Context(), c.req)
		if err != nil {
			return err
		}
		if c.dryRun {
			return a.print(p, func() error { return a.printPreview(p) })
		}
		if err := a.agree(p, c.removals); err != nil {
			return err
		}
	}
	r, err := a.client().Apply(cmd.Context(), c.req)
	if err != nil {
		return err
	}
	err = a.print(r, func() error { return errors.Join(a.printApplied(r, c.req.Mode), a.printWaited(r)) })
	if err == nil && r.Pending != nil {
		err = a.keep(cmd, *r.Pending)
	}
	if err == nil {
		err = a.waited(r)
	}
	return err
}

// agree asks when a change cuts what was seen, or removes policies where that is worth a question.
func (a *app) agree(p api.Preview, removals bool) error {
	if len(p.Breaks) == 0 && !(removals && len(p.Removed) > 0) {
		return nil
	}
	for _, name := range p.Removed {
		fmt.Fprintf(a.err, "would remove  %s\n", name)
	}
	for _, m := range p.Modes {
		fmt.Fprintf(a.err, "would set     %s\n", m)
	}
	a.warnBreaks(p)
	return a.confirm(fmt.Sprintf("this breaks %s and removes %s", plural(len(p.Breaks), "seen edge", "seen edges"),
		plural(len(p.Removed), "policy", "policies")))
}

// keep asks whether a change that waits for confirmation is to stay. Where nobody can be asked it says
// how to confirm it. An answer that never comes needs nothing done: the daemon undoes the change.
func (a *app) keep(cmd *cobra.Command, p api.Pending) error {
	left := time.Duration(p.Seconds * float64(time.Second)).Round(time.Second)
	fmt.Fprintf(a.err, "generation %d is undone in %v unless it is confirmed: bulkhead policy confirm\n", p.Generation, left)
	if !a.askable || a.output != "table" {
		return nil
	}
	fmt.Fprint(a.err, "Does everything still work? Keep it? [y/N] ")
	answers := make(chan string, 1) // the reader ends with the process: a terminal cannot be told to stop
	go func() {
		if line, err := bufio.NewReader(a.in).ReadString('\n'); err == nil {
			answers <- strings.ToLower(strings.TrimSpace(line))
		}
	}()
	select {
	case answer := <-answers:
		if answer == "y" || answer == "yes" {
			return a.confirmGeneration(cmd, p.Generation)
		}
		if _, err := a.client().Apply(cmd.Context(), api.ApplyRequest{Do: api.DoRollback}); err != nil {
			return err
		}
		return refused("generation %d was not wanted and is undone", p.Generation)
	case <-time.After(left):
		fmt.Fprintln(a.err)
		return refused("generation %d was not confirmed: it is undone", p.Generation)
	case <-cmd.Context().Done():
		fmt.Fprintln(a.err)
		return refused("generation %d is not confirmed yet; it is undone at %s unless: bulkhead policy confirm", p.Generation, clock(p.Deadline))
	}
}

func (a *app) confirmGeneration(cmd *cobra.Command, n uint64) error {
	p, err := a.client().Confirm(cmd.Context(), api.ConfirmRequest{Generation: n})
	if err != nil {
		return err
	}
	return a.print(p, func() error {
		_, err := fmt.Fprintf(a.out, "generation %d is confirmed and stays\n", p.Generation)
		return err
	})
}

// warnBreaks lists what breaks on the error stream, so that -o json stays JSON.
func (a *app) warnBreaks(p api.Preview) {
	on := *a
	on.out, on.color = a.err, a.color && terminal(a.err)
	on.printRows("breaks", "deny", p.Breaks)
}

func (a *app) printApplied(r api.ApplyResult, mode string) error {
	for _, part := range []struct {
		word  string
		names []string
	}{{"created", r.Created}, {"changed", r.Changed}, {"unchanged", r.Unchanged}, {"removed", r.Removed}} {
		for _, name := range part.names {
			fmt.Fprintf(a.out, "%-9s  %s\n", part.word, name)
		}
	}
	for _, m := range r.Modes {
		fmt.Fprintf(a.out, "mode       %s\n", m)
	}
	for _, w := range r.Warnings {
		fmt.Fprintf(a.out, "warning    %s\n", w)
	}
	in := ""
	if mode != "" {
		in = " in mode " + a.word(mode)
	}
	_, err := fmt.Fprintf(a.out, "generation %d holds in %s%s\n", r.Generation, plural(r.Workloads, "workload", "workloads"), in)
	return err
}
