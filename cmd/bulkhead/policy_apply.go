package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

func (a *app) policyApply() *cobra.Command {
	var paths []string
	var req api.ApplyRequest
	var dryRun, yes bool
	cmd := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Put policies in force: all of them, or none",
		Long: `Put policies in force: all of them, or none.

Where seen edges would break, or policies would go, it shows them and asks first.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := needFiles(cmd, paths); err != nil {
				return err
			}
			if err := checkMode(cmd, req.Mode); err != nil {
				return err
			}
			var err error
			if req.Files, err = a.readFiles(paths); err != nil {
				return err
			}
			if dryRun || !yes {
				p, err := a.client().Preview(cmd.Context(), req)
				if err != nil {
					return err
				}
				if dryRun {
					return a.print(p, func() error { return a.printPreview(p) })
				}
				if err := a.agree(p); err != nil {
					return err
				}
			}
			r, err := a.client().Apply(cmd.Context(), req)
			if err != nil {
				return err
			}
			return a.print(r, func() error { return a.printApplied(r, req.Mode) })
		},
	}
	filesFlag(cmd, &paths)
	modeFlag(cmd, &req.Mode)
	f := cmd.Flags()
	f.BoolVar(&dryRun, "dry-run", false, "only show what it would do")
	f.BoolVar(&req.Prune, "prune", false, "remove policies that were applied before and are not in the files")
	f.BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// agree asks when a change cuts what was seen or removes policies.
func (a *app) agree(p api.Preview) error {
	if len(p.Breaks) == 0 && len(p.Removed) == 0 {
		return nil
	}
	for _, name := range p.Removed {
		fmt.Fprintf(a.err, "would remove  %s\n", name)
	}
	a.warnBreaks(p)
	return a.confirm(fmt.Sprintf("this breaks %s and removes %s", plural(len(p.Breaks), "seen edge", "seen edges"),
		plural(len(p.Removed), "policy", "policies")))
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

// modeFlag adds the --mode that apply and diff share.
func modeFlag(cmd *cobra.Command, mode *string) {
	cmd.Flags().StringVar(mode, "mode", "", "set the services that the files select to alert or enforce, in the same step")
	complete(cmd, "mode", "learn", "alert", "enforce")
}

func checkMode(cmd *cobra.Command, mode string) error {
	if mode == "" {
		return nil
	}
	if _, err := policy.ParseMode(mode); err != nil {
		return usage(cmd, "%v", err)
	}
	return nil
}
