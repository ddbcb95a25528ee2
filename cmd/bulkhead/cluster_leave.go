package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/bulkhead-firewall/bulkhead/api"
)

func (a *app) clusterLeave() *cobra.Command {
	var undo bool
	cmd := &cobra.Command{
		Use:   "leave",
		Short: "Have this node say goodbye to the others when bulkheadd is stopped",
		Long: `Have this node say goodbye to the others when bulkheadd is stopped: what it told of its workloads is
nobody's at once, and it is no member any more. Drain the node first. Without it a node that stops is
taken for dead, and its workloads keep their identity for cluster.grace, since they run on.

It comes back when bulkheadd is started again.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := a.client().ClusterLeave(cmd.Context(), api.ClusterLeave{Stay: undo})
			if err != nil {
				return err
			}
			return a.print(r, func() error {
				what := "says goodbye when bulkheadd is stopped; stop it now"
				if undo {
					what = "stays"
				}
				_, err := fmt.Fprintf(a.out, "node %s %s\n", r.Node, what)
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&undo, "undo", false, "no goodbye, as is usual")
	return cmd
}
