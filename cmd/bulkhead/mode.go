package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/bulkhead-firewall/bulkhead/api"
	"github.com/bulkhead-firewall/bulkhead/policy"
)

func (a *app) mode() *cobra.Command {
	var all, yes bool
	var within time.Duration
	cmd := &cobra.Command{
		Use:   "mode [SERVICE | --all] [learn|alert|enforce]",
		Short: "Show or set how far a service has come: learn, alert, enforce",
		Long: `Show or set how far a service has come.

  learn    everything passes and is recorded
  alert    everything passes; what policy would deny raises an alert
  enforce  what policy denies is dropped and raises an alert

Before enforce it shows which seen edges would break, and asks. Said no, it exits with 3.
With --confirm-within it undoes itself after that span unless it is confirmed.`,
		Args:              atMost(2, "two: SERVICE and a mode"),
		ValidArgsFunction: a.completeMode,
		RunE: func(cmd *cobra.Command, args []string) error {
			service := "*"
			if !all && len(args) > 0 {
				if _, err := policy.ParseMode(args[0]); err == nil {
					return usage(cmd, "mode %s: of which service? name it, or give --all", args[0])
				}
				service, args = qualified(args[0]), args[1:]
			}
			if len(args) > 1 {
				return usage(cmd, "--all takes no service, only a mode")
			}
			if len(args) == 0 {
				return a.listModes(cmd, service)
			}
			if err := checkMode(cmd, args[0]); err != nil {
				return err
			}
			if within != 0 {
				return a.run(cmd, &change{req: api.ApplyRequest{Mode: args[0], Services: []string{service}}, yes: yes || args[0] != "enforce", within: within})
			}
			return a.setMode(cmd, api.ServiceMode{Service: service, Mode: args[0]}, yes)
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "every service, and those to come")
	cmd.Flags().DurationVar(&within, "confirm-within", 0, "undo it after this span (1s to 24h) unless it is confirmed")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask before enforce")
	return cmd
}

func (a *app) completeMode(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 && !cmd.Flags().Changed("all") {
		return a.oneOf(a.serviceNames)(cmd, args, typed)
	}
	return []string{"learn", "alert", "enforce"}, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) listModes(cmd *cobra.Command, service string) error {
	modes, err := a.client().Modes(cmd.Context())
	if err != nil {
		return err
	}
	kept := []api.ServiceMode{}
	for _, m := range modes {
		if service == "*" || m.Service == service {
			kept = append(kept, m)
		}
	}
	if len(kept) == 0 && service != "*" {
		return fmt.Errorf("service %s: not known; bulkhead mode lists those that are", service)
	}
	return a.print(kept, func() error {
		var rows [][]string
		for _, m := range kept {
			name := m.Service
			if name == "*" {
				name = "(new services)"
			}
			rows = append(rows, []string{name, m.Mode, strings.Join(m.Isolated, ","), strconv.Itoa(m.Workloads), strings.Join(m.Warnings, "; ")})
		}
		return a.table("SERVICE MODE ISOLATED WORKLOADS WARNING", rows)
	})
}

func (a *app) setMode(cmd *cobra.Command, want api.ServiceMode, yes bool) error {
	if want.Mode == policy.Enforce.String() && !yes {
		p, err := a.client().Preview(cmd.Context(), api.ApplyRequest{Mode: want.Mode, Services: []string{want.Service}})
		if err != nil {
			return err
		}
		a.warnBreaks(p)
		if len(p.Breaks) > 0 {
			if err := a.confirm(fmt.Sprintf("enforce breaks %s", plural(len(p.Breaks), "seen edge", "seen edges"))); err != nil {
				return err
			}
		}
	}
	is, err := a.client().SetMode(cmd.Context(), want)
	if err != nil {
		return err
	}
	return a.print(is, func() error {
		name := is.Service
		if name == "*" {
			name = "all services"
		}
		for _, w := range is.Warnings {
			fmt.Fprintf(a.out, "warning  %s\n", w)
		}
		_, err := fmt.Fprintf(a.out, "%s: %s, in force in %s\n", name, a.word(is.Mode), plural(is.Workloads, "workload", "workloads"))
		return err
	})
}
