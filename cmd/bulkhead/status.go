package main

import (
	"fmt"
	"sort"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bulkhead-firewall/bulkhead/api"
)

func (a *app) status() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "The daemon at a glance: what it guards, what it saw, what is wrong",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.client().Status(cmd.Context())
			if err != nil {
				return err
			}
			return a.print(s, func() error { return a.printStatus(s) })
		},
	}
}

func (a *app) printStatus(s api.Status) error {
	modes := make([]string, 0, len(s.Modes))
	for mode, n := range s.Modes {
		modes = append(modes, fmt.Sprintf("%d %s", n, mode))
	}
	sort.Strings(modes)
	c := s.Counters
	fmt.Fprintf(a.out, "daemon     bulkheadd %s on %s, pid %d, up %s, kernel %s\n", s.Version, s.Node, s.PID, age(s.Started), s.Kernel)
	shadows := ""
	if s.Shadows > 0 {
		shadows = ", " + plural(s.Shadows, "shadow", "shadows")
	}
	fmt.Fprintf(a.out, "guards     %s of %s, %s in force%s, generation %d\n", plural(s.Workloads, "workload", "workloads"),
		plural(s.Services, "service", "services"), plural(s.Policies, "policy", "policies"), shadows, s.Generation)
	fmt.Fprintf(a.out, "modes      %s\n", strings.Join(modes, ", "))
	fmt.Fprintf(a.out, "graph      %s\n", plural(s.Edges, "edge", "edges"))
	fmt.Fprintf(a.out, "verdicts   %d denied, %d would be denied, %d alerts\n", c.Denied, c.WouldDeny, c.Alerts)
	fmt.Fprintf(a.out, "flow log   %d records, %d lost, %d malformed, %d over the bound\n", c.Records, c.Lost, c.Malformed, c.Overflow)
	fmt.Fprintf(a.out, "kernel     %d transactions\n", c.Transactions)
	if m := s.Cluster; m != nil {
		dead := ""
		if len(m.Dead) > 0 {
			dead = ", dead: " + strings.Join(m.Dead, ", ")
		}
		fmt.Fprintf(a.out, "cluster    %s, %s alive%s\n", m.Name, plural(m.Alive, "node", "nodes"), dead)
	}
	if p := s.Pending; p != nil {
		fmt.Fprintf(a.out, "waits      generation %d of %s is undone in %.0fs unless: bulkhead policy confirm\n", p.Generation, p.Who, p.Seconds)
	}
	for _, e := range s.Expiring {
		fmt.Fprintf(a.out, "ends       %s\n", e)
	}
	for _, w := range s.Warnings {
		fmt.Fprintf(a.out, "warning    %s\n", w)
	}
	for _, e := range s.PolicyErrors {
		fmt.Fprintf(a.out, "refused    %s\n", e)
	}
	return nil
}
