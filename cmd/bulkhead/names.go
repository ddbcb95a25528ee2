package main

import (
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/bulkhead-firewall/bulkhead/api"
)

func (a *app) names() *cobra.Command {
	var workload string
	cmd := &cobra.Command{
		Use:   "names",
		Short: "DNS names that containers looked up, and what policy opens by them",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := a.client().Names(cmd.Context())
			if err != nil {
				return err
			}
			kept := all[:0]
			for _, n := range all {
				if workload == "" || n.Workload == qualified(workload) {
					kept = append(kept, n)
				}
			}
			return a.print(kept, func() error {
				var rows [][]string
				for _, n := range kept {
					opens := strings.Join(n.Opens, ",")
					if opens == "" {
						opens = "-"
					}
					rows = append(rows, []string{n.Workload, n.Name, n.IP, holds(n), opens})
				}
				return a.table("WORKLOAD NAME ADDRESS HOLDS OPENS", rows)
			})
		},
	}
	cmd.Flags().StringVar(&workload, "workload", "", "only names of this container (namespace/name)")
	return cmd
}

// holds says for how long a name has its address.
func holds(n api.Name) string {
	left := time.Until(n.Until).Round(time.Second)
	switch {
	case n.InUse:
		return "in use"
	case left <= 0:
		return "ends"
	}
	return left.String()
}
