package main

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/bulkhead-firewall/bulkhead/api"
)

var verdicts = []string{"allow", "alert", "deny"}

func (a *app) flows() *cobra.Command {
	var q api.FlowQuery
	var follow bool
	cmd := &cobra.Command{
		Use:   "flows",
		Short: "Connections seen, newest last",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if q.Verdict != "" && !slices.Contains(verdicts, q.Verdict) {
				return usage(cmd, "verdict %q: want allow, alert or deny", q.Verdict)
			}
			if q.Service != "" {
				q.Service = qualified(q.Service)
			}
			if follow {
				return a.client().FollowFlows(cmd.Context(), q, func(f api.Flow) error {
					return a.printNext(f, func() string { return a.flowLine(f) })
				})
			}
			flows, err := a.client().Flows(cmd.Context(), q)
			if err != nil {
				return err
			}
			return a.print(flows, func() error {
				var rows [][]string
				for _, f := range flows {
					rows = append(rows, []string{clock(f.Time), f.Event, f.Verdict + mannerText(f.Verdict, f.OnDeny), f.Client, serverOf(f), portOf(f.Protocol, f.Port),
						strconv.FormatUint(f.Count, 10), f.Workload, f.Rule})
				}
				return a.table("TIME EVENT VERDICT CLIENT SERVER PORT COUNT REPORTED-BY RULE", rows)
			})
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&follow, "follow", "f", false, "go on with what happens from now on")
	f.StringVar(&q.Service, "service", "", "only flows with this service at either end")
	f.StringVar(&q.Verdict, "verdict", "", "only allow, alert or deny")
	f.IntVar(&q.Limit, "limit", 0, "at most this many, the newest (0: all that the daemon keeps)")
	complete(cmd, "verdict", verdicts...)
	a.completeServices(cmd, "service")
	return cmd
}

func (a *app) flowLine(f api.Flow) string {
	return fmt.Sprintf("%s  %-6s  %-5s%s  %s → %s %s  x%d  %s", clock(f.Time), f.Event, a.word(f.Verdict), mannerText(f.Verdict, f.OnDeny), f.Client, serverOf(f),
		portOf(f.Protocol, f.Port), f.Count, f.Rule)
}

// serverOf names the server; an address of the world also by the name that the client looked up.
func serverOf(f api.Flow) string {
	if f.Name == "" {
		return f.Server
	}
	return f.Name + " (" + f.Server + ")"
}
